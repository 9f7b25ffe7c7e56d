//! Finding what a former daemon left, and making good what someone took away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::balancer;
use super::devices::{self, Site};
use super::ensure::network_path;
use super::peers::Peers;
use super::{Overlay, OverlayRecord, Peer};
use crate::NetError;
use crate::ipam::parse_mac;
use crate::ipsec::Void;
use crate::links::Links;
use crate::net::Inner;
use crate::netns::Namespace;
use crate::open::Surroundings;
use crate::state::{State, kernel};
use crate::store::{Folder, Place};
use crate::vxlan::{Entries, Entry, Outlet};

/// Finds the networks that a former daemon left. One whose namespace is gone is not among them.
pub(crate) async fn adopt(of: &Surroundings<'_>, host: &Links) -> Result<BTreeMap<String, Overlay>, NetError> {
    let Surroundings { config, store, .. } = *of;
    let mut overlays = BTreeMap::new();
    for (network_id, mut record) in store.read_all::<OverlayRecord>(Folder::Overlays)? {
        let path = network_path(config, &network_id);
        let namespace = Namespace::pinned(&path).map_err(|source| NetError::File { path, source })?;
        let Some(namespace) = namespace else {
            tracing::info!(network = record.spec.name, "a network's namespace is gone");
            continue;
        };
        let links = Links::open_in(&namespace).map_err(kernel("open a route netlink socket"))?;
        lock(of, &record)?;
        let site = Site { host, namespace: &namespace, links: &links, void: Void::of(config).index };
        let mut ensured = devices::ensure(&site, &record).await;
        if let Err(error @ NetError::VniInUse { .. }) = &ensured {
            // Its containers have each other, and clients have them, also without tunnels.
            tracing::warn!(%error, network = record.spec.name, "a network ends at this machine");
            // those that could be had would be without a guard
            let removed = devices::remove_tunnels(&links, &record).await;
            removed.map_err(kernel("remove a network's tunnels"))?;
            (record.spec.vtep, record.local, record.encryption) = (None, None, None);
            ensured = devices::ensure(&site, &record).await;
        }
        let devices = match ensured {
            Ok((devices, _)) => devices,
            // made anew, or refused, when the managers ask for it again
            Err(error) => {
                tracing::warn!(%error, network = record.spec.name, "a network cannot be taken over");
                continue;
            }
        };
        let found = links.entries().await.map_err(kernel("read a network's entries"))?;
        let mut peers = Peers::default();
        for device in &devices {
            let entries = device.vxlan.and_then(|index| found.get(&index));
            peers.change(&record.spec, &entries.map(peers_of).unwrap_or_default(), &[]);
        }
        let balancer = balancer::adopt(of, &record).await;
        overlays.insert(network_id, Overlay { record, links: Arc::new(links), devices, peers, balancer });
    }
    Ok(overlays)
}

/// Before a device of an encrypted network is made anew; the rest follows when all networks are known.
fn lock(of: &Surroundings<'_>, record: &OverlayRecord) -> Result<(), NetError> {
    let Some(encryption) = record.encryption else { return Ok(()) };
    let locked = of.ipsec.lock(encryption.own_port, record.spec.data_path_port);
    locked.map_err(kernel("lock an encrypted network"))
}

/// The peers that entries stand for.
fn peers_of(entries: &Entries) -> Vec<Peer> {
    let known = entries.neighbours.iter();
    known
        .filter_map(|(address, mac)| Some(Peer { address: *address, mac: *mac, vtep: entries.nodes.get(mac)?.0 }))
        .collect()
}

impl State {
    /// Hardware addresses of this node's own endpoints on a network.
    pub(crate) fn own_macs(&self, network_id: &str) -> BTreeSet<[u8; 6]> {
        self.endpoints(network_id).filter_map(|endpoint| parse_mac(&endpoint.mac)).collect()
    }

    /// Near ends on a network's bridges: name, subnet, hardware address behind it.
    fn near_ends(&self, overlay: &Overlay) -> Vec<(String, usize, [u8; 6])> {
        let spec = &overlay.record.spec;
        let sandboxes = self.sandboxes.values();
        let pairs = sandboxes.flat_map(|record| record.links.iter().zip(&record.sandbox.endpoints));
        let own = self.balancer_ends(&spec.network_id);
        let is_here = |place: &Place| matches!(place, Place::Network(id) if *id == spec.network_id);
        let pairs = pairs.chain(own).filter(|(near, _)| is_here(&near.place));
        pairs
            .filter_map(|(near, endpoint)| {
                Some((near.name.clone(), spec.subnet_of(endpoint.address.address)?, parse_mac(&endpoint.mac)?))
            })
            .collect()
    }
}

impl Inner {
    /// Mends every network, and makes those anew whose namespace is gone.
    pub(crate) async fn mend_overlays(&self) -> Result<(), NetError> {
        for (network_id, record) in self.store.read_all::<OverlayRecord>(Folder::Overlays)? {
            let turn = self.overlay_turn(&network_id);
            let _turn = turn.lock().await;
            let path = network_path(&self.config, &network_id);
            let is_pinned = matches!(Namespace::pinned(&path), Ok(Some(_)));
            let peers = self.state().overlays.get(&network_id).map(|overlay| overlay.peers.all().copied().collect());
            let mended = match peers {
                Some(_) if is_pinned => self.mend_overlay(&network_id).await,
                peers => self.remake_overlay(record, peers.unwrap_or_default()).await,
            };
            // one network that cannot be had is no reason to give up the others
            if let Err(error) = mended {
                tracing::warn!(%error, network_id, "a network could not be mended");
            }
        }
        Ok(())
    }

    /// Makes missing devices of a network, puts its containers' links on its bridges, and writes the entries that are
    /// missing or wrong. The caller has the network's turn.
    pub(crate) async fn mend_overlay(&self, network_id: &str) -> Result<(), NetError> {
        let path = network_path(&self.config, network_id);
        let namespace = Namespace::pinned(&path).map_err(|source| NetError::File { path: path.clone(), source })?;
        let namespace = namespace.ok_or_else(|| NetError::NoNetwork(network_id.to_owned()))?;
        let (record, links) = {
            let state = self.state();
            let overlay = state.overlay(network_id)?;
            (overlay.record.clone(), Arc::clone(&overlay.links))
        };
        self.open_encryption(&record).await?;
        let site = Site { host: &self.links, namespace: &namespace, links: &links, void: self.void.index };
        let (devices, is_new) = devices::ensure(&site, &record).await?;
        let (ends, wanted) = {
            let mut state = self.state();
            let own = state.own_macs(network_id);
            let overlay = state.overlays.get_mut(network_id);
            let overlay = overlay.ok_or_else(|| NetError::NoNetwork(network_id.to_owned()))?;
            overlay.devices.clone_from(&devices);
            let wanted = overlay.on_devices(&overlay.peers.entries(), &own);
            let overlay = state.overlay(network_id)?;
            (state.near_ends(overlay), wanted)
        };
        if is_new {
            tracing::warn!(network = record.spec.name, "a network's links were missing and are made anew");
            for (name, subnet, mac) in ends {
                // a container that is being removed takes its link with it
                if links.index(&name).await.map_err(kernel("find a link"))?.is_some() {
                    let started = links.start_port(&name, devices[subnet].bridge, mac).await;
                    started.map_err(kernel(format!("put link {name} on its bridge")))?;
                }
            }
        }
        let found = links.entries().await.map_err(kernel("read a network's entries"))?;
        let outlet = record.outlet();
        let tunnels = devices.iter().filter_map(|device| device.vxlan);
        let (missing, strange) = difference(&wanted, &found, tunnels, outlet);
        links.remove_entries(strange).await.map_err(kernel("remove a network's entries"))?;
        links.add_entries(missing, outlet).await.map_err(kernel("write a network's entries"))?;
        let lacks_ingress = record.spec.ingress && self.state().ingress.is_none();
        if lacks_ingress {
            self.remove_ingress()?;
            self.make_ingress(&record).await?;
        }
        self.mend_balancer(network_id).await
    }
}

type OnDevices = Vec<(u32, Entry)>;

/// Entries to write, and entries to remove, so that the devices have what is wanted. What leads to a node by another outlet
/// is wrong.
fn difference(
    wanted: &[(u32, Entry)],
    found: &BTreeMap<u32, Entries>,
    devices: impl Iterator<Item = u32>,
    outlet: Option<Outlet>,
) -> (OnDevices, OnDevices) {
    let key = |entry: &(u32, Entry)| match entry {
        (index, Entry::Neighbour(address, _)) => (*index, 0u8, address.octets().to_vec()),
        (index, Entry::Node(mac, _)) => (*index, 1, mac.to_vec()),
        (index, Entry::Port(mac)) => (*index, 2, mac.to_vec()),
    };
    let mut have = Vec::new();
    for index in devices {
        let Some(entries) = found.get(&index) else { continue };
        let neighbours = entries.neighbours.iter().map(|(address, mac)| (Entry::Neighbour(*address, *mac), true));
        let nodes = entries.nodes.iter().map(|(mac, (vtep, found))| (Entry::Node(*mac, *vtep), *found == outlet));
        let ports = entries.ports.iter().map(|mac| (Entry::Port(*mac), true));
        have.extend(neighbours.chain(nodes).chain(ports).map(|(entry, is_right)| ((index, entry), is_right)));
    }
    let wanted_by_key: BTreeMap<_, _> = wanted.iter().map(|entry| (key(entry), *entry)).collect();
    let have_by_key: BTreeMap<_, _> = have.iter().map(|found| (key(&found.0), *found)).collect();
    let missing = wanted_by_key.iter().filter(|(key, entry)| have_by_key.get(*key) != Some(&(**entry, true)));
    let strange = have_by_key.iter().filter(|(key, _)| !wanted_by_key.contains_key(*key));
    (missing.map(|(_, entry)| *entry).collect(), strange.map(|(_, (entry, _))| *entry).collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn only_what_is_wrong_is_written() {
        let (mac, other) = ([2, 0x42, 10, 0, 1, 5], [2, 0x42, 10, 0, 1, 6]);
        let (address, node) = ([10, 0, 1, 5].into(), [192, 0, 2, 2].into());
        let entries = Entries {
            neighbours: [(address, mac)].into(),
            nodes: [(mac, ([192, 0, 2, 9].into(), None)), (other, (node, None))].into(),
            ports: vec![mac],
        };
        let wanted = [(7, Entry::Neighbour(address, mac)), (7, Entry::Node(mac, node)), (7, Entry::Port(mac))];
        let found = [(7, entries), (8, Entries { ports: vec![other], ..Entries::default() })].into();
        let (missing, strange) = difference(&wanted, &found, [7].into_iter(), None);
        assert_eq!(missing, [(7, Entry::Node(mac, node))]);
        assert_eq!(strange, [(7, Entry::Node(other, node))]);
    }

    #[test]
    fn a_way_past_the_outlet_is_wrong() {
        let (mac, node) = ([2, 0x42, 10, 0, 1, 5], Ipv4Addr::new(192, 0, 2, 2));
        let outlet = Outlet { link: 77, port: 4789 };
        let wanted = [(7, Entry::Node(mac, node))];
        let check = |found: Option<Outlet>, expected: &[(u32, Entry)]| {
            let entries = Entries { nodes: [(mac, (node, found))].into(), ..Entries::default() };
            let (missing, strange) = difference(&wanted, &[(7, entries)].into(), [7].into_iter(), Some(outlet));
            assert_eq!((missing.as_slice(), strange.as_slice()), (expected, [].as_slice()), "{found:?}");
        };
        check(Some(outlet), &[]);
        check(None, &wanted);
        check(Some(Outlet { link: 0, ..outlet }), &wanted);
        check(Some(Outlet { port: 0, ..outlet }), &wanted);
    }
}
