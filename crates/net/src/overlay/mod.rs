//! Overlay networks: one namespace each, with a bridge per subnet and a VXLAN device behind it.
//!
//! ```text
//! host                                   namespace 1-<network>                       a container's namespace
//! eth0 ── udp 4789 ── <prefix>-overlay ─► vx-<vni> ── ov-<vni> (gateway) ── veth… ── eth0
//!         (only from nodes of the network)   │           │
//!                                            │           └ veth… ── lb_<network> or ingress_sbox: this node's balancer
//!                                            └ answers ARP for endpoints elsewhere; knows their nodes
//! ```
//! With encryption there is no direct way between `eth0` and the tunnel, in neither direction: see `ipsec`.
//!
//! Nothing is learned from traffic: bridge and tunnel have entries for the endpoints that the caller names, and for no other.
//! The kernel's entries are the only record of the peers; a new daemon reads them back.

mod balancer;
mod devices;
mod encryption;
mod endpoints;
mod ensure;
mod mend;
mod peers;
mod spec;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use balancer::{Balancer, balancer_path};
pub(crate) use devices::Device;
pub(crate) use encryption::Encryption;
pub(crate) use endpoints::plan;
pub(crate) use ensure::{Turns, make_namespace, network_path};
pub(crate) use mend::adopt;
pub(crate) use peers::{MemberChange, Peers};
pub use spec::{DATA_PATH_PORT, OverlayEndpointSpec, OverlaySpec, OverlaySubnet, Peer};

use crate::links::Links;
use crate::store::BalancerRecord;
use crate::vxlan::Entry;

/// An overlay network on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OverlayRecord {
    pub(crate) spec: OverlaySpec,
    pub(crate) created_unix_ns: i64,
    /// What `spec.mtu` came to.
    pub(crate) mtu: u32,
    /// Source address of the tunnels; `None` if the own tunnel address is none of this machine's (behind a translation).
    pub(crate) local: Option<Ipv4Addr>,
    /// Of an encrypted network that has tunnels.
    #[serde(default)]
    pub(crate) encryption: Option<Encryption>,
    /// This node's balancer, if one is made.
    #[serde(default)]
    pub(crate) balancer: Option<BalancerRecord>,
}

/// An overlay network as it stands.
pub(crate) struct Overlay {
    pub(crate) record: OverlayRecord,
    /// The route netlink socket of its namespace.
    pub(crate) links: Arc<Links>,
    /// By subnet.
    pub(crate) devices: Vec<Device>,
    pub(crate) peers: Peers,
    /// There since the network's first service with an address of its own.
    pub(crate) balancer: Option<Balancer>,
}

/// Which table guards tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// That of networks whose packets travel as they are.
    Plain,
    Encrypted,
}

/// A node whose packets are let through, and a network's tunnel: UDP port, VXLAN id, and the node's address.
pub(crate) type Member = (u16, u32, Ipv4Addr);

impl Overlay {
    /// The table that guards its tunnels.
    pub(crate) fn guard(&self) -> Guard {
        if self.record.encryption.is_some() { Guard::Encrypted } else { Guard::Plain }
    }

    /// Port on the wire and VXLAN id of each tunnel.
    pub(crate) fn tunnels(&self) -> Vec<(u16, u32)> {
        let spec = &self.record.spec;
        if spec.vtep.is_none() {
            return Vec::new();
        }
        spec.subnets.iter().filter(|subnet| subnet.vni != 0).map(|subnet| (spec.data_path_port, subnet.vni)).collect()
    }

    /// The tunnels with each of these nodes.
    pub(crate) fn members<'a>(&self, nodes: impl IntoIterator<Item = &'a Ipv4Addr>) -> Vec<Member> {
        let tunnels = self.tunnels();
        nodes.into_iter().flat_map(|node| tunnels.iter().map(move |(port, vni)| (*port, *vni, *node))).collect()
    }

    /// Entries by subnet as entries by device; those of subnets without a tunnel, and ports that are this node's own, fall
    /// away.
    pub(crate) fn on_devices(&self, entries: &[(usize, Entry)], own: &BTreeSet<[u8; 6]>) -> Vec<(u32, Entry)> {
        let is_own = |entry: &Entry| matches!(entry, Entry::Port(mac) if own.contains(mac));
        let device = |subnet: usize| self.devices.get(subnet)?.vxlan;
        entries
            .iter()
            .filter(|(_, entry)| !is_own(entry))
            .filter_map(|(at, entry)| Some((device(*at)?, *entry)))
            .collect()
    }
}
