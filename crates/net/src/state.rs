//! What the network knows, behind one lock that is never held while something is awaited.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::balance::KeyChange;
use crate::bridges::UserBridge;
use crate::conntrack;
use crate::firewall::{BridgeRules, Firewall, Forward, HostRules};
use crate::ingress::Ingress;
use crate::ipsec::Void;
use crate::mesh::Port;
use crate::overlay::{Guard, MemberChange, Overlay};
use crate::ports::PortTable;
use crate::store::{NearLink, Networks, SandboxRecord};
use crate::watch::Watch;
use crate::{Endpoint, NetConfig, NetError, Protocol};

/// Name of the default network.
pub(crate) const BRIDGE: &str = "bridge";
/// Name of the network that gives tasks their default route, as dockerd calls it.
pub(crate) const GWBRIDGE: &str = "docker_gwbridge";

/// The state.
pub(crate) struct State {
    pub(crate) networks: Networks,
    pub(crate) sandboxes: BTreeMap<String, SandboxRecord>,
    pub(crate) ports: PortTable,
    pub(crate) firewall: Firewall,
    pub(crate) ingress: Option<Ingress>,
    /// Notices what others remove from IPsec; there while a network is encrypted.
    pub(crate) ipsec_watch: Option<Watch>,
    /// The user's own bridges, by id.
    pub(crate) bridges: BTreeMap<String, UserBridge>,
    /// Overlay networks by id, the ingress network among them.
    pub(crate) overlays: BTreeMap<String, Overlay>,
    /// Index of the gateway bridge's link, once it is made.
    pub(crate) gwbridge_index: Option<u32>,
    /// Last address given, by network id.
    pub(crate) last_address: BTreeMap<String, Ipv4Addr>,
}

impl State {
    /// What is attached to a network on this node.
    pub(crate) fn endpoints<'a>(&'a self, network_id: &'a str) -> impl Iterator<Item = &'a Endpoint> {
        let ingress = self.ingress.iter().flat_map(|ingress| [&ingress.record.mesh, &ingress.record.gateway]);
        let balancers = self.overlays.values().filter_map(|overlay| overlay.record.balancer.as_ref());
        let balancers = balancers.map(|balancer| &balancer.endpoint);
        let sandboxes = self.sandboxes.values().flat_map(|record| &record.sandbox.endpoints);
        sandboxes.chain(ingress).chain(balancers).filter(move |endpoint| endpoint.network_id == network_id)
    }

    /// Ends of this node's own sandboxes on a network.
    pub(crate) fn balancer_ends(&self, network_id: &str) -> Vec<(&NearLink, &Endpoint)> {
        let ingress = self.ingress.iter().filter(|ingress| ingress.record.network_id == network_id);
        let ingress = ingress.map(|ingress| (&ingress.record.links[0], &ingress.record.mesh));
        let balancer = self.overlays.get(network_id).and_then(|overlay| overlay.record.balancer.as_ref());
        ingress.chain(balancer.map(|balancer| (&balancer.link, &balancer.endpoint))).collect()
    }

    /// Opens the ports of a sandbox and marks it ready.
    pub(crate) fn publish(&mut self, config: &NetConfig, container_id: &str) -> Result<(), NetError> {
        let Some(record) = self.sandboxes.get_mut(container_id) else { return Ok(()) };
        record.is_ready = true;
        let forwards = forwards(record);
        let opened = self.firewall.add_forwards(&forwards);
        self.heal(config, opened, "publish ports")?;
        self.ports.listen(forwards.iter().map(Forward::port));
        self.move_datagrams(&forwards)
    }

    /// Closes the ports of a sandbox and marks it not ready.
    pub(crate) fn unpublish(&mut self, config: &NetConfig, container_id: &str) -> Result<(), NetError> {
        let Some(record) = self.sandboxes.get_mut(container_id).filter(|record| record.is_ready) else { return Ok(()) };
        record.is_ready = false;
        let forwards = forwards(record);
        let closed = self.firewall.delete_forwards(&forwards);
        self.heal(config, closed, "unpublish ports")?;
        self.move_datagrams(&forwards)
    }

    /// Leads the ports of a sandbox that is ready elsewhere, opens and closes some.
    pub(crate) fn move_forwards(
        &mut self,
        config: &NetConfig,
        before: &[Forward],
        after: &[Forward],
    ) -> Result<(), NetError> {
        let closed = self.firewall.delete_forwards(before);
        self.heal(config, closed, "unpublish ports")?;
        let opened = self.firewall.add_forwards(after);
        self.heal(config, opened, "publish ports")?;
        self.ports.listen(after.iter().map(Forward::port));
        self.move_datagrams(before)?;
        self.move_datagrams(after)
    }

    /// Opens and closes ports of services on the host.
    pub(crate) fn change_ingress_ports(
        &mut self,
        config: &NetConfig,
        change: &KeyChange<Port>,
    ) -> Result<(), NetError> {
        let changed = self.firewall.change_ingress_ports(&change.added, &change.removed);
        self.heal(config, changed, "publish ports")?;
        self.ports.listen(change.added.iter().copied());
        let ports = change.added.iter().chain(&change.removed);
        self.delete_flows(ports.filter(|(protocol, _)| *protocol == Protocol::Udp).map(|(_, port)| *port).collect())
    }

    /// Changes whose packets are let into tunnels.
    pub(crate) fn change_members(&mut self, config: &NetConfig, change: &MemberChange) -> Result<(), NetError> {
        let changed = self.firewall.change_members(change.guard, &change.added, &change.removed);
        self.heal(config, changed, "change the nodes of a network")
    }

    /// Sets up and gives up the checks of tunnels: UDP port and VXLAN id.
    pub(crate) fn change_gates(
        &mut self,
        config: &NetConfig,
        added: &[(u16, u32)],
        removed: &[(u16, u32)],
    ) -> Result<(), NetError> {
        let changed = self.firewall.change_gates(added, removed);
        self.heal(config, changed, "change the tunnels of a network")
    }

    /// A small change that fails means that someone else has changed our tables: they are written anew.
    fn heal(&mut self, config: &NetConfig, result: std::io::Result<()>, action: &str) -> Result<(), NetError> {
        let Err(error) = result else { return Ok(()) };
        tracing::warn!(%error, action, "our firewall tables were changed by someone else; they are written anew");
        let rules = self.host_rules(config);
        self.firewall.replace(&rules).map_err(kernel(action))?;
        self.ports.refuse_waiting();
        Ok(())
    }

    /// Writes the host's tables anew.
    pub(crate) fn write_host(&mut self, config: &NetConfig) -> Result<(), NetError> {
        let rules = self.host_rules(config);
        self.firewall.replace(&rules).map_err(kernel("write the firewall"))?;
        self.ports.listen(rules.ports());
        Ok(())
    }

    /// Writes the host's tables anew if someone has removed one, and tells whether that was so.
    pub(crate) fn restore_host(&mut self, config: &NetConfig) -> Result<bool, NetError> {
        if self.firewall.is_whole().map_err(kernel("look for our tables"))? {
            return Ok(false);
        }
        let rules = self.host_rules(config);
        self.firewall.replace(&rules).map_err(kernel("write the firewall"))?;
        // what came meanwhile was translated by nobody
        self.ports.refuse_waiting();
        let udp = rules.ports().filter(|(protocol, _)| *protocol == Protocol::Udp);
        self.delete_flows(udp.map(|(_, port)| port).collect())?;
        Ok(true)
    }

    /// Datagram flows keep the translation they began with: those to a port that has changed must begin anew.
    fn move_datagrams(&mut self, forwards: &[Forward]) -> Result<(), NetError> {
        let udp = forwards.iter().filter(|forward| forward.port.protocol == Protocol::Udp);
        self.delete_flows(udp.map(|forward| forward.port.host_port).collect())
    }

    fn delete_flows(&mut self, ports: BTreeSet<u16>) -> Result<(), NetError> {
        match self.firewall.socket() {
            Some(socket) if !ports.is_empty() => {
                conntrack::delete(socket, |flow| flow.protocol == Protocol::Udp.number() && ports.contains(&flow.port))
                    .map_err(kernel("move datagram flows"))
            }
            _ => Ok(()),
        }
    }

    /// Everything the host's tables shall hold.
    pub(crate) fn host_rules(&self, config: &NetConfig) -> HostRules {
        let mut rules = HostRules::default();
        let bridges = [
            (Some(&self.networks.bridge), &config.bridge_name, config.icc, config.ip_masq),
            (self.networks.gwbridge.as_ref(), &config.gwbridge_name, false, true),
        ];
        for (network, link, icc, masquerade) in bridges {
            if let Some(subnet) = network.and_then(|network| network.address) {
                rules.bridges.push(BridgeRules { link: link.clone(), subnet, icc, masquerade, internal: false });
            }
        }
        rules.bridges.extend(self.bridges.values().map(UserBridge::rules));
        for record in self.sandboxes.values().filter(|record| record.is_ready) {
            rules.forwards.extend(forwards(record));
        }
        rules.encrypted = self.encrypted_rules(&Void::of(config));
        for overlay in self.overlays.values().filter(|overlay| overlay.guard() == Guard::Plain) {
            rules.gates.extend(overlay.tunnels());
            rules.members.extend(overlay.members(overlay.peers.nodes()));
        }
        if let Some(ingress) = &self.ingress {
            rules.ingress = Some(ingress.record.gateway.address.address);
            rules.ingress_ports = ingress.mesh.keys().collect();
        }
        rules
    }
}

/// The endpoint by which a container reaches the world: the one of the highest priority, then by name, as dockerd sorts them;
/// `docker_gwbridge` where there is no other.
pub(crate) fn way_out(endpoints: &[Endpoint]) -> Option<&Endpoint> {
    let order = |endpoint: &Endpoint| {
        let is_last = endpoint.network_name == GWBRIDGE;
        (Reverse(endpoint.gateway_priority), is_last, endpoint.network_name.clone())
    };
    endpoints.iter().filter(|endpoint| endpoint.gateway.is_some()).min_by_key(|endpoint| order(endpoint))
}

/// The published ports of a sandbox with the address behind them: that of its way out. A task's ingress endpoint is closed to
/// all but the mesh.
pub(crate) fn forwards(record: &SandboxRecord) -> Vec<Forward> {
    let Some(endpoint) = way_out(&record.sandbox.endpoints) else { return Vec::new() };
    let forward = |port: &crate::PublishedPort| Forward { port: port.clone(), address: endpoint.address.address };
    record.sandbox.ports.iter().map(forward).collect()
}

/// A new id: 64 hex digits.
pub(crate) fn new_id() -> Result<String, NetError> {
    let mut bytes = [0u8; 32];
    let path = "/dev/urandom";
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| NetError::File { path: path.into(), source })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Nanoseconds since 1970.
pub(crate) fn now_unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Wraps the kernel's answer.
pub(crate) fn kernel(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> NetError {
    let action = action.into();
    move |source| NetError::Kernel { action, source }
}
