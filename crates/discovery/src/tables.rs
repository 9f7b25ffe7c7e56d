//! All endpoints that a node knows of, and what follows from them: where links lead, who answers to a name, and which
//! tasks stand behind which address and port. Changes are taken out as differences, so that what is applied somewhere
//! (the kernel, the name server) is changed and not written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::record::{EndpointRecord, Ingress, PeerRecord, Port};

/// A network's id.
pub type NetworkId = Arc<str>;
/// An endpoint's id, 64 hex digits.
pub type EndpointId = Arc<str>;

/// Who runs an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// On this node.
    pub here: bool,
    /// Its node lets a client's address through, and answers to the node that was asked.
    pub keeps_clients: bool,
}

/// One task that takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Its address on the network.
    pub address: IpAddr,
    /// It runs on this node.
    pub here: bool,
    /// See [`Origin::keeps_clients`].
    pub keeps_clients: bool,
}

/// Ports with the same tasks behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGroup {
    /// In ascending order, never empty.
    pub ports: Vec<Port>,
    /// By address, never empty.
    pub backends: Vec<Backend>,
}

/// A service on one network, as far as its endpoints tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its address; `None` for `dnsrr`.
    pub virtual_ip: Option<IpAddr>,
    /// The tasks that take new connections, by address.
    pub backends: Vec<Backend>,
    /// The published ports; a port that only some tasks have (during an update) has only those behind it.
    pub groups: Vec<PortGroup>,
    /// What the task that was told of last says.
    pub ingress: Ingress,
}

/// Something that is not as it was when changes were taken last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Where an address is.
    Link {
        /// The network.
        network: NetworkId,
        /// What was so; to be undone.
        before: Option<PeerRecord>,
        /// What is so.
        after: Option<PeerRecord>,
    },
    /// An endpoint's names; those of a service are among them.
    Names {
        /// The network.
        network: NetworkId,
        /// The endpoint.
        endpoint: EndpointId,
        /// What it is called; `None` if it is gone.
        record: Option<Arc<EndpointRecord>>,
    },
    /// A service's address, ports, tasks.
    Service {
        /// The network.
        network: NetworkId,
        /// The service's id.
        service: Arc<str>,
        /// As it is; `None` if no endpoint is left.
        now: Option<Service>,
    },
}

/// The tables.
#[derive(Debug, Default)]
pub struct Tables {
    networks: BTreeMap<NetworkId, Network>,
    /// Ever growing: what was told later wins.
    counter: u64,
    dirty: BTreeSet<Dirt>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Dirt {
    Link(NetworkId, IpAddr),
    Names(NetworkId, EndpointId),
    Service(NetworkId, Arc<str>),
}

#[derive(Debug, Default)]
struct Network {
    endpoints: BTreeMap<EndpointId, Known>,
    services: BTreeMap<Arc<str>, BTreeSet<EndpointId>>,
    links: BTreeMap<EndpointId, (u64, PeerRecord)>,
    /// Who says that it has an address: two do while one is on its way to another node.
    claims: BTreeMap<IpAddr, BTreeSet<(u64, EndpointId)>>,
    told_links: BTreeMap<IpAddr, PeerRecord>,
    told_services: BTreeMap<Arc<str>, Service>,
    told_names: BTreeMap<EndpointId, Arc<EndpointRecord>>,
}

#[derive(Debug)]
struct Known {
    order: u64,
    origin: Origin,
    record: Arc<EndpointRecord>,
}

impl Tables {
    /// Notes an endpoint, in the place of what was known of it.
    pub fn set_endpoint(&mut self, network: &str, endpoint: &str, origin: Origin, record: EndpointRecord) {
        self.remove_endpoint(network, endpoint);
        self.counter += 1;
        let order = self.counter;
        let (id, place) = self.network(network);
        let endpoint: EndpointId = endpoint.into();
        let service: Arc<str> = record.service_id.as_str().into();
        place.endpoints.insert(endpoint.clone(), Known { order, origin, record: Arc::new(record) });
        if !service.is_empty() {
            place.services.entry(service.clone()).or_default().insert(endpoint.clone());
            self.dirty.insert(Dirt::Service(id.clone(), service));
        }
        self.dirty.insert(Dirt::Names(id, endpoint));
    }

    /// Forgets an endpoint. Nothing if there is none.
    pub fn remove_endpoint(&mut self, network: &str, endpoint: &str) {
        let Some((id, place)) = self.known(network) else { return };
        let Some((endpoint, known)) = place.endpoints.remove_entry(endpoint) else { return };
        let service: Arc<str> = known.record.service_id.as_str().into();
        if let Some(members) = place.services.get_mut(&service) {
            members.remove(&endpoint);
            if members.is_empty() {
                place.services.remove(&service);
            }
            self.dirty.insert(Dirt::Service(id.clone(), service));
        }
        self.dirty.insert(Dirt::Names(id, endpoint));
    }

    /// Notes where an endpoint's link is, in the place of what was known of it. Of two that claim one address the later counts.
    pub fn set_link(&mut self, network: &str, endpoint: &str, record: PeerRecord) {
        self.remove_link(network, endpoint);
        self.counter += 1;
        let order = self.counter;
        let (id, place) = self.network(network);
        let endpoint: EndpointId = endpoint.into();
        place.links.insert(endpoint.clone(), (order, record));
        let service = place.service_of(&endpoint);
        place.claims.entry(record.address).or_default().insert((order, endpoint));
        self.dirty.extend(service.map(|service| Dirt::Service(id.clone(), service)));
        self.dirty.insert(Dirt::Link(id, record.address));
    }

    /// Forgets an endpoint's link. Nothing if there is none.
    pub fn remove_link(&mut self, network: &str, endpoint: &str) {
        let Some((id, place)) = self.known(network) else { return };
        let Some((endpoint, (order, record))) = place.links.remove_entry(endpoint) else { return };
        let service = place.service_of(&endpoint);
        if let Some(claims) = place.claims.get_mut(&record.address) {
            claims.remove(&(order, endpoint));
            if claims.is_empty() {
                place.claims.remove(&record.address);
            }
        }
        self.dirty.extend(service.map(|service| Dirt::Service(id.clone(), service)));
        self.dirty.insert(Dirt::Link(id, record.address));
    }

    /// Forgets all that is known of a network.
    pub fn remove_network(&mut self, network: &str) {
        let Some((_, place)) = self.known(network) else { return };
        let endpoints: Vec<EndpointId> = place.endpoints.keys().cloned().collect();
        let links: Vec<EndpointId> = place.links.keys().cloned().collect();
        for endpoint in endpoints {
            self.remove_endpoint(network, &endpoint);
        }
        for endpoint in links {
            self.remove_link(network, &endpoint);
        }
    }

    /// The endpoint's record, if it is known.
    pub fn endpoint(&self, network: &str, endpoint: &str) -> Option<&EndpointRecord> {
        Some(&*self.networks.get(network)?.endpoints.get(endpoint)?.record)
    }

    /// All endpoints of a network, with where their links are if that is known.
    pub fn endpoints(
        &self,
        network: &str,
    ) -> impl Iterator<Item = (&EndpointId, &Arc<EndpointRecord>, Option<&PeerRecord>)> {
        let place = self.networks.get(network);
        place.into_iter().flat_map(|place| {
            let link = |id: &EndpointId| place.links.get(id).map(|(_, record)| record);
            place.endpoints.iter().map(move |(id, known)| (id, &known.record, link(id)))
        })
    }

    /// The service as it is now.
    pub fn service(&self, network: &str, service: &str) -> Option<Service> {
        let place = self.networks.get(network)?;
        place.services.get(service).map(|members| place.fold(members))
    }

    /// All networks that something is known of.
    pub fn networks(&self) -> impl Iterator<Item = &NetworkId> {
        self.networks.keys()
    }

    /// The services on a network.
    pub fn services(&self, network: &str) -> impl Iterator<Item = (&Arc<str>, Service)> {
        let place = self.networks.get(network);
        place
            .into_iter()
            .flat_map(|place| place.services.iter().map(|(service, members)| (service, place.fold(members))))
    }

    /// Where the addresses of a network are.
    pub fn links(&self, network: &str) -> impl Iterator<Item = PeerRecord> {
        let place = self.networks.get(network);
        place.into_iter().flat_map(|place| {
            let last = place.claims.values().filter_map(|claims| claims.last());
            last.filter_map(|(_, endpoint)| place.links.get(endpoint)).map(|(_, record)| *record)
        })
    }

    /// What differs from when this was asked last. Of an address that moved the old place comes with the new one.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let changes = dirty.into_iter().filter_map(|dirt| self.settle(dirt)).collect();
        self.networks.retain(|_, place| !place.is_empty());
        changes
    }

    /// Has a network's services told again.
    pub fn tell_services(&mut self, network: &str) {
        let Some((id, place)) = self.known(network) else { return };
        place.told_services.clear();
        let services: Vec<Dirt> =
            place.services.keys().map(|service| Dirt::Service(id.clone(), service.clone())).collect();
        self.dirty.extend(services);
    }

    /// Has everything told again: what was applied is lost.
    pub fn tell_all(&mut self) {
        for (id, place) in &mut self.networks {
            place.told_links.clear();
            place.told_names.clear();
            place.told_services.clear();
            self.dirty.extend(place.claims.keys().map(|address| Dirt::Link(id.clone(), *address)));
            self.dirty.extend(place.endpoints.keys().map(|endpoint| Dirt::Names(id.clone(), endpoint.clone())));
            self.dirty.extend(place.services.keys().map(|service| Dirt::Service(id.clone(), service.clone())));
        }
    }

    fn known(&mut self, network: &str) -> Option<(NetworkId, &mut Network)> {
        let (id, _) = self.networks.get_key_value(network)?;
        let id = id.clone();
        self.networks.get_mut(network).map(|place| (id, place))
    }

    fn network(&mut self, network: &str) -> (NetworkId, &mut Network) {
        let id: NetworkId = match self.networks.get_key_value(network) {
            Some((id, _)) => id.clone(),
            None => network.into(),
        };
        let place = self.networks.entry(id.clone()).or_default();
        (id, place)
    }

    fn settle(&mut self, dirt: Dirt) -> Option<Change> {
        match dirt {
            Dirt::Link(network, address) => {
                let place = self.networks.get_mut(&network)?;
                let last = place.claims.get(&address).and_then(|claims| claims.last());
                let after = last.and_then(|(_, endpoint)| place.links.get(endpoint)).map(|(_, record)| *record);
                let before = replace(&mut place.told_links, address, after);
                (before != after).then_some(Change::Link { network, before, after })
            }
            Dirt::Names(network, endpoint) => {
                let place = self.networks.get_mut(&network)?;
                let record = place.endpoints.get(&endpoint).map(|known| known.record.clone());
                let before = replace(&mut place.told_names, endpoint.clone(), record.clone());
                (before != record).then_some(Change::Names { network, endpoint, record })
            }
            Dirt::Service(network, service) => {
                let place = self.networks.get_mut(&network)?;
                let now = place.services.get(&service).map(|members| place.fold(members));
                let before = replace(&mut place.told_services, service.clone(), now.clone());
                (before != now).then_some(Change::Service { network, service, now })
            }
        }
    }
}

/// Puts or takes out a value; what was there comes back.
fn replace<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

impl Network {
    fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
            && self.links.is_empty()
            && self.told_links.is_empty()
            && self.told_names.is_empty()
            && self.told_services.is_empty()
    }

    fn service_of(&self, endpoint: &EndpointId) -> Option<Arc<str>> {
        let known = self.endpoints.get(endpoint)?;
        Some(known.record.service_id.as_str().into()).filter(|service: &Arc<str>| !service.is_empty())
    }

    /// What a service's endpoints say together. One on another node takes no connections before its link is known, which is
    /// told by itself: they would lead nowhere.
    fn fold(&self, members: &BTreeSet<EndpointId>) -> Service {
        let all = || members.iter().filter_map(|endpoint| self.endpoints.get_key_value(endpoint));
        let is_reached = |(id, known): &(&EndpointId, &Known)| known.origin.here || self.links.contains_key(*id);
        let members = || all().filter(is_reached).map(|(_, known)| known);
        let last = all().map(|(_, known)| known).max_by_key(|known| known.order);
        let newest = all()
            .map(|(_, known)| known)
            .filter(|known| known.record.virtual_ip.is_some())
            .max_by_key(|known| known.order);
        // One address is one backend, however many records say so; this node's own is believed of it, or what was told last.
        let mut by_address: BTreeMap<IpAddr, &Known> = BTreeMap::new();
        for known in members() {
            let Some(address) = known.record.address else { continue };
            let held = by_address.entry(address).or_insert(known);
            if (held.origin.here, held.order) < (known.origin.here, known.order) {
                *held = known;
            }
        }
        by_address.retain(|_, known| !known.record.disabled);
        let backend = |address: IpAddr, known: &Known| Backend {
            address,
            here: known.origin.here,
            keeps_clients: known.origin.keeps_clients,
        };
        let mut by_port: BTreeMap<&Port, Vec<Backend>> = BTreeMap::new();
        for (address, known) in &by_address {
            for port in &known.record.ports {
                by_port.entry(port).or_default().push(backend(*address, known));
            }
        }
        let mut groups: BTreeMap<Vec<Backend>, Vec<Port>> = BTreeMap::new();
        for (port, backends) in by_port {
            groups.entry(backends).or_default().push(port.clone());
        }
        let mut groups: Vec<_> = groups.into_iter().map(|(backends, ports)| PortGroup { ports, backends }).collect();
        groups.sort_by(|a, b| a.ports.cmp(&b.ports));
        Service {
            virtual_ip: newest.and_then(|known| known.record.virtual_ip),
            backends: by_address.iter().map(|(address, known)| backend(*address, known)).collect(),
            groups,
            ingress: last.map(|known| known.record.ingress).unwrap_or_default(),
        }
    }
}
