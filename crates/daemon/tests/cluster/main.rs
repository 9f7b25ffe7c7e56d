//! Several machines as users meet them: the real `docker` command line on each, real containers, real loss.

#![allow(unreachable_pub, dead_code, reason = "a test has no public items, and each test file uses its part")]

mod attachments;
mod dockerd_log;
mod doctor;
mod encrypted;
mod faults;
mod gossip_peers;
mod gossiper;
mod hosts;
mod load;
mod managers;
mod mesh;
mod mixed;
mod names;
mod own_networks;
mod peers;
mod rebalance;
#[path = "../swarm/support.rs"]
mod support;
mod walk_through;
