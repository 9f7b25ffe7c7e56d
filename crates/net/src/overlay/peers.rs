//! Who is where on an overlay network. What a change means is computed by itself, then written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::spec::{OverlaySpec, Peer};
use crate::net::Inner;
use crate::vxlan::Entry;
use crate::{NetError, overlay::Guard, overlay::Member};

/// Endpoints of one network on other nodes.
pub(crate) const PEERS_MAX: usize = 1 << 16;

/// The peers of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    by_address: BTreeMap<Ipv4Addr, Peer>,
    /// Addresses by subnet and hardware address.
    by_mac: BTreeMap<(usize, [u8; 6]), BTreeSet<Ipv4Addr>>,
    /// How many endpoints each node has.
    nodes: BTreeMap<Ipv4Addr, usize>,
}

/// What a change of the peers asks of the kernel: entries by subnet, and nodes that join and leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerChange {
    pub(crate) removed: Vec<(usize, Entry)>,
    pub(crate) added: Vec<(usize, Entry)>,
    pub(crate) nodes_removed: Vec<Ipv4Addr>,
    pub(crate) nodes_added: Vec<Ipv4Addr>,
}

impl Peers {
    /// Nodes that have an endpoint.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Ipv4Addr> {
        self.nodes.keys()
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Peer> {
        self.by_address.values()
    }

    /// Every entry of the kernel that follows from the peers, by subnet.
    pub(crate) fn entries(&self) -> Vec<(usize, Entry)> {
        let mut entries = Vec::new();
        for ((subnet, mac), addresses) in &self.by_mac {
            entries.extend(addresses.iter().map(|address| (*subnet, Entry::Neighbour(*address, *mac))));
            if let Some(node) = self.node_of((*subnet, *mac)) {
                entries.extend([(*subnet, Entry::Node(*mac, node)), (*subnet, Entry::Port(*mac))]);
            }
        }
        entries
    }

    fn node_of(&self, key: (usize, [u8; 6])) -> Option<Ipv4Addr> {
        let address = self.by_mac.get(&key)?.last()?;
        self.by_address.get(address).map(|peer| peer.vtep)
    }

    /// Removes `removed`, then adds `added`. What is to be removed is left alone if it is somewhere else by now: events come
    /// in any order. An endpoint of this node itself is no peer, and ends what was known of its address.
    pub(crate) fn change(&mut self, spec: &OverlaySpec, added: &[Peer], removed: &[Peer]) -> PeerChange {
        let touched =
            added.iter().chain(removed).map(|peer| (peer.address, self.by_address.get(&peer.address).copied()));
        let addresses: BTreeMap<Ipv4Addr, Option<Peer>> = touched.collect();
        let nodes = self.touched_nodes(spec, added, removed);
        let nodes_before: BTreeSet<Ipv4Addr> = self.nodes.keys().copied().collect();
        for peer in removed {
            if self.by_address.get(&peer.address) == Some(peer) {
                self.forget(spec, peer.address);
            }
        }
        for peer in added {
            self.forget(spec, peer.address);
            if Some(peer.vtep) != spec.vtep {
                self.note(spec, *peer);
            }
        }
        let mut change = PeerChange::default();
        for (address, old) in addresses {
            let Some(subnet) = spec.subnet_of(address) else { continue };
            let now = self.by_address.get(&address).map(|peer| peer.mac);
            match (old.map(|peer| peer.mac), now) {
                (old, Some(mac)) if old != now => change.added.push((subnet, Entry::Neighbour(address, mac))),
                (Some(mac), None) => change.removed.push((subnet, Entry::Neighbour(address, mac))),
                _ => {}
            }
        }
        for ((subnet, mac), old) in nodes {
            match (old, self.node_of((subnet, mac))) {
                (old, Some(node)) if old != Some(node) => {
                    change.added.extend([(subnet, Entry::Node(mac, node)), (subnet, Entry::Port(mac))]);
                }
                (Some(node), None) => {
                    change.removed.extend([(subnet, Entry::Node(mac, node)), (subnet, Entry::Port(mac))]);
                }
                _ => {}
            }
        }
        let nodes_now: BTreeSet<Ipv4Addr> = self.nodes.keys().copied().collect();
        change.nodes_added = nodes_now.difference(&nodes_before).copied().collect();
        change.nodes_removed = nodes_before.difference(&nodes_now).copied().collect();
        change
    }

    /// Where the hardware addresses are that a change may move.
    fn touched_nodes(
        &self,
        spec: &OverlaySpec,
        added: &[Peer],
        removed: &[Peer],
    ) -> BTreeMap<(usize, [u8; 6]), Option<Ipv4Addr>> {
        let known = added.iter().chain(removed).filter_map(|peer| self.by_address.get(&peer.address));
        let macs = added.iter().chain(removed).chain(known);
        let keys = macs.filter_map(|peer| Some((spec.subnet_of(peer.address)?, peer.mac)));
        keys.map(|key| (key, self.node_of(key))).collect()
    }

    fn forget(&mut self, spec: &OverlaySpec, address: Ipv4Addr) {
        let Some(peer) = self.by_address.remove(&address) else { return };
        if let Some(subnet) = spec.subnet_of(address)
            && let Some(addresses) = self.by_mac.get_mut(&(subnet, peer.mac))
        {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.by_mac.remove(&(subnet, peer.mac));
            }
        }
        if let Some(count) = self.nodes.get_mut(&peer.vtep) {
            *count -= 1;
            if *count == 0 {
                self.nodes.remove(&peer.vtep);
            }
        }
    }

    /// An address outside of every subnet leads nowhere and is not noted.
    fn note(&mut self, spec: &OverlaySpec, peer: Peer) {
        let Some(subnet) = spec.subnet_of(peer.address) else {
            tracing::warn!(network = spec.name, address = %peer.address, "a peer outside of the network's subnets");
            return;
        };
        self.by_address.insert(peer.address, peer);
        self.by_mac.entry((subnet, peer.mac)).or_default().insert(peer.address);
        *self.nodes.entry(peer.vtep).or_default() += 1;
    }
}

/// Changes of the nodes whose packets are let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberChange {
    pub(crate) guard: Guard,
    pub(crate) added: Vec<Member>,
    pub(crate) removed: Vec<Member>,
}

impl Inner {
    /// See [`crate::Net::set_peers`].
    pub(crate) async fn set_peers(&self, network_id: &str, peers: Vec<Peer>) -> Result<(), NetError> {
        let turn = self.overlay_turn(network_id);
        let _turn = turn.lock().await;
        let gone = {
            let state = self.state();
            let overlay = state.overlay(network_id)?;
            let wanted: BTreeSet<&Peer> = peers.iter().collect();
            overlay.peers.all().filter(|peer| !wanted.contains(peer)).copied().collect::<Vec<_>>()
        };
        self.apply_peers(network_id, &peers, &gone).await
    }

    /// See [`crate::Net::change_peers`].
    pub(crate) async fn change_peers(
        &self,
        network_id: &str,
        added: Vec<Peer>,
        removed: Vec<Peer>,
    ) -> Result<(), NetError> {
        let turn = self.overlay_turn(network_id);
        let _turn = turn.lock().await;
        self.apply_peers(network_id, &added, &removed).await
    }

    /// The caller has the network's turn.
    pub(super) async fn apply_peers(&self, network_id: &str, added: &[Peer], removed: &[Peer]) -> Result<(), NetError> {
        let (links, outlet, gone, new, joining, leaving) = {
            let mut state = self.state();
            let own = state.own_macs(network_id);
            let overlay = state.overlays.get_mut(network_id);
            let overlay = overlay.ok_or_else(|| NetError::NoNetwork(network_id.to_owned()))?;
            let new = added.iter().filter(|peer| !overlay.peers.by_address.contains_key(&peer.address)).count();
            if overlay.peers.by_address.len() + new > PEERS_MAX + removed.len() {
                let text = format!("network {} would have more than {PEERS_MAX} peers", overlay.record.spec.name);
                return Err(NetError::Invalid(text));
            }
            let change = overlay.peers.change(&overlay.record.spec, added, removed);
            let gone = overlay.on_devices(&change.removed, &BTreeSet::new());
            let new = overlay.on_devices(&change.added, &own);
            let (guard, outlet) = (overlay.guard(), overlay.record.outlet());
            let joining = MemberChange { guard, added: overlay.members(&change.nodes_added), removed: Vec::new() };
            let leaving = MemberChange { guard, added: Vec::new(), removed: overlay.members(&change.nodes_removed) };
            let links = Arc::clone(&overlay.links);
            // before anything is sent there, and until nothing is any more
            state.change_members(&self.config, &joining)?;
            (links, outlet, gone, new, joining, leaving)
        };
        // a failure leaves nodes out of reach, and the rest as it should be
        let sealed = match outlet {
            Some(_) if !(joining.added.is_empty() && leaving.removed.is_empty()) => self.sync_ipsec().await.map(drop),
            _ => Ok(()),
        };
        let write = async {
            links.remove_entries(gone).await?;
            links.add_entries(new, outlet).await
        };
        let written = write.await;
        self.state().change_members(&self.config, &leaving)?;
        let Err(error) = written else { return sealed };
        // a device may be gone: it is made anew, with everything that belongs to it
        tracing::warn!(%error, network_id, "a network's entries could not be written; it is mended");
        self.mend_overlay(network_id).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::{DATA_PATH_PORT, OverlaySubnet};
    use super::*;

    fn spec() -> OverlaySpec {
        let subnet = OverlaySubnet { subnet: "10.0.1.0/24".parse().unwrap(), gateway: [10, 0, 1, 1].into(), vni: 4097 };
        OverlaySpec {
            network_id: "network0000000000000000001".to_owned(),
            name: "net".to_owned(),
            subnets: vec![subnet],
            mtu: 0,
            internal: false,
            ingress: false,
            encrypted: false,
            lb_address: None,
            vtep: Some([192, 0, 2, 1].into()),
            data_path_port: DATA_PATH_PORT,
        }
    }

    fn peer(last: u8, node: u8) -> Peer {
        Peer { address: [10, 0, 1, last].into(), mac: [2, 0x42, 10, 0, 1, last], vtep: [192, 0, 2, node].into() }
    }

    fn node(change: &PeerChange) -> Vec<Ipv4Addr> {
        let nodes = change.added.iter().filter_map(|(_, entry)| match entry {
            Entry::Node(_, node) => Some(*node),
            _ => None,
        });
        nodes.collect()
    }

    #[test]
    fn an_endpoint_that_moves_is_where_it_was_made_last() {
        for order in [["remove", "add"], ["add", "remove"]] {
            let (mut peers, spec) = (Peers::default(), spec());
            peers.change(&spec, &[peer(5, 2)], &[]);
            let mut moved = Vec::new();
            for step in order {
                let change = match step {
                    "add" => peers.change(&spec, &[peer(5, 3)], &[]),
                    _ => peers.change(&spec, &[], &[peer(5, 2)]),
                };
                moved.extend(node(&change));
            }
            assert_eq!(moved, [Ipv4Addr::new(192, 0, 2, 3)], "{order:?}");
            assert_eq!(peers.all().collect::<Vec<_>>(), [&peer(5, 3)], "{order:?}");
            assert_eq!(peers.nodes().collect::<Vec<_>>(), [&Ipv4Addr::new(192, 0, 2, 3)], "{order:?}");
        }
    }

    #[test]
    fn a_node_joins_with_its_first_endpoint_and_leaves_with_its_last() {
        let (mut peers, spec) = (Peers::default(), spec());
        let change = peers.change(&spec, &[peer(5, 2), peer(6, 2)], &[]);
        assert_eq!((change.nodes_added.len(), change.added.len()), (1, 6));
        let change = peers.change(&spec, &[peer(6, 2)], &[]);
        assert_eq!(change, PeerChange::default());
        let change = peers.change(&spec, &[], &[peer(5, 2)]);
        assert_eq!((change.nodes_removed.len(), change.removed.len()), (0, 3));
        let change = peers.change(&spec, &[], &[peer(6, 2)]);
        assert_eq!((change.nodes_removed.len(), change.removed.len()), (1, 3));
        assert_eq!(peers, Peers::default());
    }

    #[test]
    fn own_endpoints_and_strangers_are_no_peers() {
        let (mut peers, spec) = (Peers::default(), spec());
        peers.change(&spec, &[peer(5, 2)], &[]);
        // it came here
        let change = peers.change(&spec, &[peer(5, 1)], &[]);
        assert_eq!((change.added.len(), change.removed.len()), (0, 3));
        let stranger = Peer { address: [10, 9, 9, 9].into(), ..peer(9, 2) };
        assert_eq!(peers.change(&spec, &[stranger], &[]), PeerChange::default());
        assert_eq!(peers, Peers::default());
    }

    #[test]
    fn a_hardware_address_of_two_addresses_goes_with_the_last() {
        let (mut peers, spec) = (Peers::default(), spec());
        let twin = Peer { address: [10, 0, 1, 6].into(), ..peer(5, 2) };
        peers.change(&spec, &[peer(5, 2), twin], &[]);
        let change = peers.change(&spec, &[], &[twin]);
        assert_eq!(change.removed, [(0, Entry::Neighbour(twin.address, twin.mac))]);
        assert_eq!(peers.change(&spec, &[], &[peer(5, 2)]).removed.len(), 3);
    }

    #[test]
    fn entries_are_those_of_all_changes() {
        let (mut peers, spec) = (Peers::default(), spec());
        let change = peers.change(&spec, &[peer(5, 2), peer(6, 3)], &[]);
        assert_eq!(peers.entries().len(), change.added.len());
        assert!(change.added.iter().all(|entry| peers.entries().contains(entry)));
    }
}
