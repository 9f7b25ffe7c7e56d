//! Networks: which driver, subnets, gateways and VXLAN ids they have, and the addresses in use on them.

use super::Allocator;
use super::next_fit::NextFit;
use super::subnets::{AddressSpace, Cidr, Subnet, parse_address};
use model::{
    AddressFamily, Annotations, Driver, IpamConfig, IpamOptions, Network, NetworkId, NetworkSpec, Node, NodeId, TaskId,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use store::{Transaction, View};

/// The driver of networks that name none.
pub const DEFAULT_NETWORK_DRIVER: &str = "overlay";
/// The driver option that holds the VXLAN ids, one per subnet, in decimal, separated by commas.
pub const VXLAN_ID_LIST_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// The label of networks that every swarm has: they cannot be removed and are not listed by the CLI as made by users.
pub const PREDEFINED_LABEL: &str = "com.docker.swarm.predefined";
/// Name and driver of the networks that every swarm has; services may name them.
pub const PREDEFINED_NETWORKS: [(&str, &str); 2] = [("bridge", "bridge"), ("host", "host")];
/// The first VXLAN id that may be given; those below are left to standalone engines.
pub const VXLAN_ID_FIRST: u32 = 4096;
/// The last VXLAN id.
pub const VXLAN_ID_LAST: u32 = (1 << 24) - 1;
/// The only IPAM driver.
const DEFAULT_IPAM_DRIVER: &str = "default";

/// The routing mesh's network as a new swarm gets it.
pub fn new_ingress_network(id: NetworkId) -> Network {
    Network {
        id,
        spec: NetworkSpec {
            annotations: Annotations { name: "ingress".into(), ..Default::default() },
            driver_config: Some(Driver::default()),
            ipam: Some(IpamOptions { driver: Some(Driver::default()), configs: Vec::new() }),
            ingress: true,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// One of [`PREDEFINED_NETWORKS`] as a new swarm gets it.
pub fn new_predefined_network(id: NetworkId, name: &str, driver: &str) -> Network {
    let labels = [(PREDEFINED_LABEL.to_owned(), "true".to_owned())].into();
    Network {
        id,
        spec: NetworkSpec {
            annotations: Annotations { name: name.to_owned(), labels, ..Default::default() },
            driver_config: Some(Driver { name: driver.to_owned(), ..Default::default() }),
            ..Default::default()
        },
        ..Default::default()
    }
}

/// The network's driver; `overlay` if it names none.
pub fn driver_name(network: &Network) -> &str {
    match &network.spec.driver_config {
        Some(driver) if !driver.name.is_empty() => &driver.name,
        _ => DEFAULT_NETWORK_DRIVER,
    }
}

/// Whether each node keeps the network for itself (bridge, host, macvlan…): then the swarm hands out nothing on it.
pub fn is_node_local(network: &Network) -> bool {
    driver_name(network) != DEFAULT_NETWORK_DRIVER
}

/// Whether the network has what the allocator gives.
pub fn is_allocated(network: &Network) -> bool {
    network.driver_state.is_some() && network.ipam.is_some()
}

/// The network that `target` (identifier or name) means.
pub(super) fn resolve<'a>(view: &'a View, target: &str) -> Option<&'a Arc<Network>> {
    view.get_str::<Network>(target).or_else(|| view.by_name::<Network>(target))
}

/// The routing mesh's network.
pub(super) fn ingress(view: &View) -> Option<&Arc<Network>> {
    view.networks().find(|network| network.spec.ingress)
}

/// An address that somebody has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) network: NetworkId,
    pub(super) address: IpAddr,
}

/// What is in use on an allocated network.
#[derive(Clone, Debug)]
pub(super) struct NetworkState {
    name: String,
    pub(super) local: bool,
    subnets: Vec<Subnet>,
    vxlan_ids: Vec<u32>,
    /// How many nodes have an address on it.
    nodes: usize,
    /// Tasks with an address on it that may yet bring it to a node that has none.
    unplaced: BTreeSet<TaskId>,
    /// Somebody waits who could have had an address that is kept for a node.
    is_short: bool,
}

impl NetworkState {
    fn new(name: String, local: bool) -> Self {
        let (subnets, vxlan_ids, unplaced) = Default::default();
        Self { name, local, subnets, vxlan_ids, nodes: 0, unplaced, is_short: false }
    }

    /// The next address, with its mask. Tasks have addresses of IPv4 only, as those of dockerd.
    pub(super) fn take(&mut self) -> Result<(IpAddr, String), String> {
        for subnet in self.subnets.iter_mut().filter(|subnet| !subnet.cidr.is_v6()) {
            if let Some(address) = subnet.take() {
                return Ok((address, subnet.cidr.with_mask(address)));
            }
        }
        Err(self.is_full())
    }

    fn is_full(&self) -> String {
        format!("no address left in network {}", self.name)
    }

    /// How many addresses can still be handed out.
    fn free(&self) -> u64 {
        self.subnets.iter().filter(|subnet| !subnet.cidr.is_v6()).map(Subnet::free).sum()
    }

    /// How many addresses are kept. A task is of no use on a node without an address for its balancer, so one is kept for each
    /// node that tasks may still bring the network to, and for `more` tasks.
    fn kept(&self, all_nodes: usize, more: usize) -> u64 {
        all_nodes.saturating_sub(self.nodes).min(self.unplaced.len() + more) as u64
    }

    /// [`Self::take`] of what is not kept, for a service (0) or a task (1).
    pub(super) fn take_spare(&mut self, all_nodes: usize, tasks: usize) -> Result<(IpAddr, String), String> {
        if self.free() > self.kept(all_nodes, tasks) {
            return self.take();
        }
        self.is_short = true;
        Err(self.is_full())
    }

    /// [`Self::reserve`] for a task, of what is not kept.
    pub(super) fn reserve_spare(&mut self, requested: &str, all_nodes: usize) -> Result<(IpAddr, String), String> {
        let before = self.free();
        let reserved = self.reserve(requested)?;
        let left = self.free();
        if left < before && left < self.kept(all_nodes, 1) {
            self.release(reserved.0);
            self.is_short = true;
            return Err(self.is_full());
        }
        Ok(reserved)
    }

    /// A task has an address here; where it will run is not known to have one.
    pub(super) fn await_node(&mut self, id: &TaskId) {
        self.unplaced.insert(id.clone());
    }

    /// A task has come to its node, or is gone. Whether somebody may have an address now who could not.
    pub(super) fn is_placed(&mut self, id: &TaskId) -> bool {
        self.unplaced.remove(id) && std::mem::take(&mut self.is_short)
    }

    /// This very address, with its mask.
    pub(super) fn reserve(&mut self, requested: &str) -> Result<(IpAddr, String), String> {
        let address = parse_address(requested).ok_or_else(|| format!("invalid address {requested}"))?;
        let subnet = self.subnets.iter_mut().find(|subnet| subnet.cidr.contains(address));
        let subnet = subnet.ok_or_else(|| format!("address {requested} is not in network {}", self.name))?;
        if subnet.reserve(address) {
            Ok((address, subnet.cidr.with_mask(address)))
        } else {
            Err(format!("address {requested} is already in use in network {}", self.name))
        }
    }

    fn release(&mut self, address: IpAddr) -> bool {
        self.subnets.iter_mut().any(|subnet| subnet.release(address))
    }
}

/// What a network in the making has taken, to be given back if the rest fails.
struct Draft<'a> {
    space: &'a mut AddressSpace,
    vxlan_ids: &'a mut NextFit,
    state: NetworkState,
}

impl Draft<'_> {
    fn give_back(self) {
        self.state.subnets.iter().for_each(|subnet| self.space.release(subnet.cidr));
        for id in self.state.vxlan_ids {
            self.vxlan_ids.release(id);
        }
    }

    /// Subnet and gateway of one IPAM config.
    fn resolve_config(&mut self, mut config: IpamConfig) -> Result<IpamConfig, String> {
        let cidr = if config.subnet.is_empty() {
            if config.family == AddressFamily::Ipv6 {
                return Err("an IPv6 config needs a subnet".to_owned());
            }
            self.space.take().ok_or("no subnet left in the default address pools")?
        } else {
            let cidr = Cidr::parse(&config.subnet).ok_or_else(|| format!("invalid subnet {}", config.subnet))?;
            self.space
                .reserve(cidr)
                .map_err(|other| format!("subnet {cidr} overlaps with {other}, which is in use by another network"))?;
            cidr
        };
        let range = match config.range.as_str() {
            "" => None,
            range => Some(Cidr::parse(range).ok_or_else(|| format!("invalid range {range}"))?),
        };
        // From here on the subnet is given back if anything fails.
        self.state.subnets.push(Subnet::new(cidr, range));
        let subnet = self.state.subnets.last_mut().expect("it was just put there");
        if config.subnet.is_empty() {
            config.subnet = cidr.to_string();
        }
        for reserved in config.reserved.values() {
            if let Some(address) = parse_address(reserved) {
                subnet.reserve(address);
            }
        }
        if config.gateway.is_empty() {
            let gateway = subnet.take().ok_or_else(|| format!("no address left for the gateway in {cidr}"))?;
            config.gateway = gateway.to_string();
        } else {
            let gateway = parse_address(&config.gateway).filter(|&address| cidr.contains(address));
            let gateway = gateway.ok_or_else(|| format!("gateway {} is not in subnet {cidr}", config.gateway))?;
            subnet.reserve(gateway);
        }
        Ok(config)
    }

    fn resolve_vxlan_ids(&mut self, list: Option<&String>) -> Result<(), String> {
        let count = self.state.subnets.iter().filter(|subnet| !subnet.cidr.is_v6()).count().max(1);
        let mut wanted = Vec::new();
        for text in list.map_or("", String::as_str).split(',').map(str::trim).filter(|text| !text.is_empty()) {
            wanted.push(text.parse::<u32>().map_err(|_| format!("invalid VXLAN id {text}"))?);
        }
        for place in 0..count {
            let id = match wanted.get(place) {
                Some(&id) if id < VXLAN_ID_FIRST => return Err(format!("VXLAN id {id} is below {VXLAN_ID_FIRST}")),
                Some(&id) if !self.vxlan_ids.reserve(id) => return Err(format!("VXLAN id {id} is not available")),
                Some(&id) => id,
                None => self.vxlan_ids.take().ok_or("no VXLAN id left")?,
            };
            self.state.vxlan_ids.push(id);
        }
        Ok(())
    }
}

impl Allocator {
    /// Gives the network what it lacks and remembers all it has. Returns it as it must be stored.
    pub(super) fn adopt_network(&mut self, network: &Network) -> Result<Network, String> {
        let driver = driver_name(network).to_owned();
        let local = is_node_local(network);
        let name = network.spec.annotations.name.clone();
        let state = NetworkState::new(name, local);
        let mut filled = network.clone();
        if local {
            filled.driver_state = Some(Driver { name: driver, ..Default::default() });
            filled.ipam = Some(IpamOptions { driver: Some(Driver::default()), configs: Vec::new() });
            self.networks.insert(network.id.clone(), state);
            return Ok(filled);
        }
        let mut draft = Draft { space: &mut self.space, vxlan_ids: &mut self.vxlan_ids, state };
        match fill_overlay(&mut draft, &mut filled, driver) {
            Ok(()) => {
                self.networks.insert(network.id.clone(), draft.state);
                Ok(filled)
            }
            Err(error) => {
                draft.give_back();
                Err(error)
            }
        }
    }

    pub(super) fn forget_network(&mut self, id: &NetworkId) {
        if let Some(state) = self.networks.remove(id) {
            state.subnets.iter().for_each(|subnet| self.space.release(subnet.cidr));
            for id in state.vxlan_ids {
                self.vxlan_ids.release(id);
            }
            self.freed = true;
        }
    }

    pub(super) fn allocated(&mut self, network: &Network) -> Result<&mut NetworkState, String> {
        let name = &network.spec.annotations.name;
        let why = self.waiting.get(&network.id.clone().into()).map_or("it is not allocated yet", String::as_str);
        self.networks.get_mut(&network.id).ok_or_else(|| format!("network {name}: {why}"))
    }

    pub(super) fn release(&mut self, held: &[Held]) {
        for held in held {
            if let Some(state) = self.networks.get_mut(&held.network)
                && state.release(held.address)
            {
                self.freed = true;
            }
        }
    }

    /// What a node had.
    pub(super) fn release_of_node(&mut self, held: &[Held]) {
        for held in held {
            if let Some(state) = self.networks.get_mut(&held.network) {
                state.nodes = state.nodes.saturating_sub(1);
            }
        }
        self.release(held);
    }

    /// A node has an address.
    pub(super) fn note_node(&mut self, network: &NetworkId) {
        if let Some(state) = self.networks.get_mut(network) {
            state.nodes += 1;
        }
    }

    pub(super) fn plan_network(&mut self, transaction: &mut Transaction, id: &NetworkId) -> Result<(), String> {
        let Some(network) = transaction.network(id).cloned() else { return Ok(()) };
        if self.networks.contains_key(id) || network.pending_delete {
            return Ok(());
        }
        let filled = self.adopt_network(&network)?;
        self.dependents_of_network(transaction.view(), &network);
        if filled != *network {
            super::write(transaction, filled);
        }
        Ok(())
    }

    /// Who waited for the network is looked at again.
    fn dependents_of_network(&mut self, view: &View, network: &Network) {
        if network.spec.ingress {
            self.dirty.nodes.extend(view.nodes().map(|node| node.id.clone()));
        }
        self.retry_waiting();
    }

    /// The node's attachments: the ingress network, and the overlay networks of its live tasks.
    pub(super) fn plan_node(&mut self, transaction: &mut Transaction, id: &NodeId) -> Result<(), String> {
        let Some(node) = transaction.node(id).cloned() else { return Ok(()) };
        let wanted = self.networks_of_node(transaction.view(), id);
        let mut held = self.nodes.remove(id).unwrap_or_default();
        let (kept, gone): (Vec<_>, Vec<_>) =
            held.drain(..).partition(|held| wanted.iter().any(|network| network.id == held.network));
        self.release_of_node(&gone);
        held = kept;
        let mut filled = Node { attachment: None, ..(*node).clone() };
        let before = std::mem::take(&mut filled.attachments);
        let mut failed = None;
        for network in wanted {
            let present = before.iter().find(|it| it.network.as_ref().is_some_and(|it| it.id == network.id));
            let legacy = node.attachment.iter().find(|it| it.network.as_ref().is_some_and(|it| it.id == network.id));
            let has_it = held.iter().any(|held| held.network == network.id);
            if let (Some(present), true) = (present, has_it) {
                filled.attachments.push(present.clone());
                continue;
            }
            let asked = present.or(legacy).and_then(|it| it.addresses.first()).cloned();
            match self.address_on(&network, asked.as_deref()) {
                Ok((address, text)) => {
                    self.note_node(&network.id);
                    held.push(Held { network: network.id.clone(), address });
                    let network = Some(network);
                    filled.attachments.push(model::NetworkAttachment {
                        network,
                        addresses: vec![text],
                        ..Default::default()
                    });
                }
                Err(error) => failed = Some(error),
            }
        }
        self.nodes.insert(id.clone(), held);
        if filled != *node {
            super::write(transaction, filled);
        }
        failed.map_or(Ok(()), Err)
    }

    /// The asked-for address if it is free, else the next one.
    fn address_on(&mut self, network: &Network, asked: Option<&str>) -> Result<(IpAddr, String), String> {
        let state = self.allocated(network)?;
        asked.and_then(|asked| state.reserve(asked).ok()).map_or_else(|| state.take(), Ok)
    }

    fn networks_of_node(&self, view: &View, id: &NodeId) -> Vec<Arc<Network>> {
        let mut wanted: Vec<Arc<Network>> = ingress(view).cloned().into_iter().collect();
        let mut others = BTreeSet::new();
        for task in view.tasks_of_node(id).filter(|task| super::tasks::needs_node_address(task)) {
            let networks = task.networks.iter().filter_map(|it| it.network.as_ref());
            others.extend(networks.filter(|it| !it.spec.ingress && !is_node_local(it)).map(|it| it.id.clone()));
        }
        wanted.extend(others.iter().filter_map(|id| view.network(id)).cloned());
        wanted.retain(|network| self.networks.get(&network.id).is_some_and(|state| !state.local));
        wanted
    }
}

fn fill_overlay(draft: &mut Draft<'_>, network: &mut Network, driver: String) -> Result<(), String> {
    let spec = network.spec.ipam.clone().unwrap_or_default();
    let ipam_driver = spec.driver.unwrap_or_default();
    if !matches!(ipam_driver.name.as_str(), "" | DEFAULT_IPAM_DRIVER) {
        return Err(format!("IPAM driver {} is not available", ipam_driver.name));
    }
    let mut configs = network.ipam.take().map_or(spec.configs, |ipam| ipam.configs);
    if configs.iter().all(|config| config.family == AddressFamily::Ipv6 || config.subnet.contains(':')) {
        configs.push(IpamConfig { family: AddressFamily::Ipv4, ..Default::default() });
    }
    let configs = configs.into_iter().map(|config| draft.resolve_config(config)).collect::<Result<Vec<_>, _>>()?;
    let mut options = network.spec.driver_config.clone().unwrap_or_default().options;
    options.extend(network.driver_state.take().unwrap_or_default().options);
    draft.resolve_vxlan_ids(options.get(VXLAN_ID_LIST_OPTION))?;
    let ids: Vec<_> = draft.state.vxlan_ids.iter().map(u32::to_string).collect();
    options.insert(VXLAN_ID_LIST_OPTION.to_owned(), ids.join(","));
    let ipam_driver = Driver { name: DEFAULT_IPAM_DRIVER.to_owned(), options: ipam_driver.options };
    network.ipam = Some(IpamOptions { driver: Some(ipam_driver), configs });
    network.driver_state = Some(Driver { name: driver, options });
    Ok(())
}
