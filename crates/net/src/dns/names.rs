//! Which names lead to which addresses, network by network.
//!
//! A record stands for one endpoint. Everything that can be asked is derived from the records that are there: a record that
//! is replaced or removed takes all it said with it, whatever else says the same. So it does not matter in which order
//! records come and go, and no address outlives its record (moby#42833, moby#35508).
//!
//! Written by whoever knows endpoints: this node's sandboxes and the gossip of the swarm. Read by every name server of
//! the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What one endpoint is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRecord {
    /// Id of the network.
    pub network_id: String,
    /// Id of the endpoint: a network has one record of it.
    pub endpoint_id: String,
    /// Who said so: a node's name among its peers. Only the owner of the record that stands can remove it.
    pub owner: String,
    /// The container's name; the one that its address leads back to.
    pub name: String,
    /// Other names of the container: aliases, the first 12 digits of its id, its host name.
    pub task_aliases: Vec<String>,
    /// The service that the container is a task of.
    pub service: Option<ServiceNames>,
    /// Address on the network.
    pub address: Ipv4Addr,
    /// IPv6 address on the network.
    pub address_v6: Option<Ipv6Addr>,
    /// The task is being drained: it has no name any more, but its service keeps its virtual address.
    pub is_disabled: bool,
}

/// What a service is called on one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNames {
    /// Its name.
    pub name: String,
    /// Its other names on this network.
    pub aliases: Vec<String>,
    /// Its virtual address; `None` if its name leads to the tasks themselves (`dnsrr`).
    pub virtual_ip: Option<Ipv4Addr>,
}

impl NameRecord {
    /// The other names of a container, in dockerd's order, each once and never its own: the user's aliases, the first 12
    /// digits of its id, its host name.
    pub fn aliases_of(name: &str, user_aliases: &[String], container_id: &str, hostname: &str) -> Vec<String> {
        let short_id: String = container_id.chars().take(SHORT_ID_DIGITS).collect();
        let mut seen = BTreeSet::from([name]);
        let all = user_aliases.iter().map(String::as_str).chain([short_id.as_str(), hostname]);
        all.filter(|alias| !alias.is_empty() && seen.insert(alias)).map(str::to_owned).collect()
    }

    /// Everything the record says: names, each with an address.
    fn names(&self) -> BTreeSet<(Box<str>, IpAddr)> {
        let mut own: Vec<String> = Vec::new();
        let mut said = BTreeSet::new();
        if !self.is_disabled {
            own.push(self.name.to_ascii_lowercase());
            own.extend(self.task_aliases.iter().map(|alias| alias.to_ascii_lowercase()));
        }
        if let Some(service) = &self.service {
            for name in [&service.name].into_iter().chain(&service.aliases).filter(|name| !name.is_empty()) {
                let name = name.to_ascii_lowercase();
                if !self.is_disabled {
                    own.push(format!("tasks.{name}"));
                }
                match service.virtual_ip {
                    Some(address) => {
                        said.insert((name.into(), IpAddr::V4(address)));
                    }
                    None if !self.is_disabled => own.push(name),
                    None => {}
                }
            }
        }
        for name in own.into_iter().filter(|name| !name.is_empty()) {
            said.extend(self.addresses().map(|address| (name.as_str().into(), address)));
        }
        said
    }

    /// Addresses with the name that each leads back to. dockerd has none for virtual addresses and asks other servers,
    /// who cannot know.
    fn reverse(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        let own = self.addresses().filter(|_| !self.is_disabled).map(|address| (address, self.name.as_str()));
        let service = self
            .service
            .iter()
            .filter_map(|service| service.virtual_ip.map(|address| (IpAddr::V4(address), service.name.as_str())));
        own.chain(service).filter(|(_, name)| !name.is_empty())
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [Some(IpAddr::V4(self.address)), self.address_v6.map(IpAddr::V6)].into_iter().flatten()
    }
}

/// Digits of a container's id that are a name of it.
const SHORT_ID_DIGITS: usize = 12;

/// Which addresses are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// The names of one network.
#[derive(Debug, Default)]
struct Network {
    records: BTreeMap<Arc<str>, NameRecord>,
    /// By lower-case name: addresses, and the endpoint that each is from.
    addresses: BTreeMap<Box<str>, Sorted<(IpAddr, Arc<str>)>>,
    /// By address: endpoints, and the name that each gives it.
    names: BTreeMap<IpAddr, Sorted<(Arc<str>, Box<str>)>>,
}

/// A set in order. Most have one element, for which a `BTreeSet` would take ten times the room.
#[derive(Debug)]
struct Sorted<T>(Vec<T>);

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self(Vec::with_capacity(1))
    }
}

impl<T: Ord> Sorted<T> {
    fn insert(&mut self, item: T) {
        if let Err(at) = self.0.binary_search(&item) {
            self.0.insert(at, item);
        }
    }

    fn remove(&mut self, item: &T) {
        if let Ok(at) = self.0.binary_search(item) {
            self.0.remove(at);
        }
    }
}

impl Network {
    fn upsert(&mut self, record: NameRecord) {
        let known = self.records.get_key_value(record.endpoint_id.as_str());
        if known.is_some_and(|(_, known)| *known == record) {
            return;
        }
        let endpoint = known.map_or_else(|| record.endpoint_id.as_str().into(), |(endpoint, _)| Arc::clone(endpoint));
        self.remove(&endpoint);
        for (name, address) in record.names() {
            self.addresses.entry(name).or_default().insert((address, Arc::clone(&endpoint)));
        }
        for (address, name) in record.reverse() {
            self.names.entry(address).or_default().insert((Arc::clone(&endpoint), name.into()));
        }
        self.records.insert(endpoint, record);
    }

    fn remove(&mut self, endpoint_id: &str) {
        let Some((endpoint, record)) = self.records.remove_entry(endpoint_id) else { return };
        for (name, address) in record.names() {
            if let Some(set) = self.addresses.get_mut(&name) {
                set.remove(&(address, Arc::clone(&endpoint)));
                if set.0.is_empty() {
                    self.addresses.remove(&name);
                }
            }
        }
        for (address, name) in record.reverse() {
            if let Some(set) = self.names.get_mut(&address) {
                set.remove(&(Arc::clone(&endpoint), name.into()));
                if set.0.is_empty() {
                    self.names.remove(&address);
                }
            }
        }
    }

    fn remove_where(&mut self, is_gone: impl Fn(&NameRecord) -> bool) {
        let gone: Vec<Arc<str>> =
            self.records.iter().filter(|(_, record)| is_gone(record)).map(|(id, _)| Arc::clone(id)).collect();
        gone.iter().for_each(|endpoint_id| self.remove(endpoint_id));
    }
}

/// The names of all networks, as [`Names`] holds them.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<String, Network>);

impl Table {
    pub(super) fn upsert(&mut self, record: NameRecord) {
        match self.0.get_mut(&record.network_id) {
            Some(network) => network.upsert(record),
            None => self.0.entry(record.network_id.clone()).or_default().upsert(record),
        }
    }

    pub(super) fn remove(&mut self, network_id: &str, endpoint_id: &str, owner: &str) {
        self.change(network_id, |network| {
            if network.records.get(endpoint_id).is_some_and(|record| record.owner == owner) {
                network.remove(endpoint_id);
            }
        });
    }

    pub(super) fn replace_network(&mut self, network_id: &str, records: Vec<NameRecord>) {
        let kept: BTreeSet<String> = records.iter().map(|record| record.endpoint_id.clone()).collect();
        self.change(network_id, |network| network.remove_where(|record| !kept.contains(&record.endpoint_id)));
        for record in records {
            self.upsert(NameRecord { network_id: network_id.to_owned(), ..record });
        }
    }

    pub(super) fn remove_owner(&mut self, network_id: &str, owner: &str) {
        self.change(network_id, |network| network.remove_where(|record| record.owner == owner));
    }

    pub(super) fn drop_network(&mut self, network_id: &str) {
        self.0.remove(network_id);
    }

    /// Changes a network that is known, and forgets it if nothing is left.
    fn change(&mut self, network_id: &str, change: impl FnOnce(&mut Network)) {
        let Some(network) = self.0.get_mut(network_id) else { return };
        change(network);
        if network.records.is_empty() {
            self.0.remove(network_id);
        }
    }

    /// The addresses of a lower-case name, each once and in order. `None` if nobody has the name; empty if those who have
    /// it have no such address.
    pub(super) fn addresses(&self, network_id: &str, name: &str, family: Family) -> Option<Vec<IpAddr>> {
        let set = self.0.get(network_id)?.addresses.get(name)?;
        let mut addresses: Vec<IpAddr> = set
            .0
            .iter()
            .map(|(address, _)| *address)
            .filter(|address| address.is_ipv4() == (family == Family::V4))
            .collect();
        addresses.dedup();
        Some(addresses)
    }

    /// The name of an address; if several endpoints claim it, that of the first by id.
    pub(super) fn name_of(&self, network_id: &str, address: IpAddr) -> Option<&str> {
        let (_, name) = self.0.get(network_id)?.names.get(&address)?.0.first()?;
        Some(name)
    }
}

/// The names of all networks of this machine. Changes count from the moment the call returns.
#[derive(Debug, Default)]
pub struct Names(RwLock<Table>);

impl Names {
    /// Takes a record, in place of the one of the same endpoint and network if there is one.
    pub fn upsert(&self, record: NameRecord) {
        self.write().upsert(record);
    }

    /// Removes an endpoint's record if `owner` wrote it: what another node says of an endpoint that has moved stays.
    pub fn remove(&self, network_id: &str, endpoint_id: &str, owner: &str) {
        self.write().remove(network_id, endpoint_id, owner);
    }

    /// Makes `records` all that is known of a network; nobody sees it half done.
    pub fn replace_network(&self, network_id: &str, records: Vec<NameRecord>) {
        self.write().replace_network(network_id, records);
    }

    /// Removes all records of a network that `owner` wrote: the node is gone.
    pub fn remove_owner(&self, network_id: &str, owner: &str) {
        self.write().remove_owner(network_id, owner);
    }

    /// Forgets a network.
    pub fn drop_network(&self, network_id: &str) {
        self.write().drop_network(network_id);
    }

    /// The table, to look things up in; never held while something is awaited.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
