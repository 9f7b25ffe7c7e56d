//! What keeps a swarm's networks from working, judged from what was seen. Pure: whoever calls looks at the machine
//! (`net`), asks the peers (`daemon`) and shows the report (`cli`).
//!
//! ```text
//!   this machine: kernel, links, routes, firewall ─┐
//!   its node: standing, networks, ports taken ─────┼─► Observations ─► judge ─► Report: findings with remedies
//!   each peer: ports, MTU, clock, tables ──────────┘
//! ```
//!
//! A finding says in plain words what is wrong and what to do about it. What could not be seen is said to be unknown; it is
//! never guessed.

#![forbid(unsafe_code)]

mod addresses;
mod conntrack;
pub mod firewall;
mod host;
mod node;
mod peer;
mod report;
mod walls;
pub mod wire;

pub use addresses::Cidr;
pub use conntrack::{Conntrack, ConntrackNews, ConntrackWatch};
pub use host::{
    ClockState, Feature, Features, Holder, Host, KernelSettings, LegacyPolicies, Link, Own, Route, Transport, VxlanLink,
};
pub use node::{GossipState, Network, Node, Pools, Standing};
pub use peer::{Echoes, Exam, Known, OverlayView, Peer, PeerKind, PeerRole, Reach, Skew, TableView, Word, sizes};
pub use report::{Check, Finding, Level, Machine, Report};
pub use walls::towards as walls_towards;

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    /// This machine.
    pub host: Host,
    /// Its node; nothing where no daemon answered.
    pub node: Option<Node>,
    /// Its peers in the swarm.
    pub peers: Vec<Peer>,
    /// Peers that were not looked at, as there are too many.
    pub peers_left_out: usize,
}

/// Judges.
pub fn judge(seen: &Observations) -> Report {
    let mut findings = Vec::new();
    if let Some(node) = &seen.node {
        node::judge(node, &seen.host, &mut findings);
    }
    host::judge(&seen.host, seen.node.as_ref(), &mut findings);
    addresses::judge(&seen.host, seen.node.as_ref(), &mut findings);
    let walls = walls::judge(seen, &mut findings);
    for peer in &seen.peers {
        peer::judge(peer, seen, &walls, &mut findings);
    }
    peer::judge_all(seen, &mut findings);
    let address = seen.node.as_ref().and_then(|node| node.advertise);
    Report::new(
        Machine {
            name: seen.host.name.clone(),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        seen.peers.len(),
        findings,
    )
}
