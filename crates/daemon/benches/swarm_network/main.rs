//! What the swarm's network costs a node, and how fast it is told: `cargo bench -p daemon --bench swarm_network`. Needs root;
//! machines are namespaces on a switch, as in the tests.
//!
//! ```text
//! cargo bench -p daemon --bench swarm_network -- reach     five nodes: from Running until the farthest one answers
//! cargo bench -p daemon --bench swarm_network -- crowd     10 000 endpoints of 1 000 services, on Skep and on dockerd
//! ```

#![allow(unreachable_pub, dead_code, reason = "what tests have is used in part")]

mod crowd;
#[allow(unused_imports, reason = "its tests are not built here")]
#[path = "../../tests/cluster/dockerd_log.rs"]
mod dockerd_log;
#[path = "../../tests/cluster/gossiper.rs"]
mod gossiper;
#[path = "../../tests/cluster/hosts.rs"]
mod hosts;
mod reach;
#[path = "../../tests/swarm/support.rs"]
mod support;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    if is_wanted("reach") {
        reach::run();
    }
    if is_wanted("crowd") {
        crowd::run();
    }
}
