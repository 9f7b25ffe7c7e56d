//! Containers on bridges of this machine: which network an id means, and the plan of an endpoint on it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::ipam::{Bounds, mac_of, mac_text, next_address};
use crate::links::BridgePort;
use crate::net::Inner;
use crate::sandbox::{Plan, near_name};
use crate::state::{BRIDGE, GWBRIDGE, State, new_id};
use crate::store::{NearLink, NetworkRecord, Place};
use crate::{BridgeEndpointSpec, Endpoint, Ipv4Cidr, NameRecord, NetError};

/// Who says the names of this machine's containers.
const OWNER: &str = "local";

/// What an endpoint on a bridge of this machine is planned from.
pub(crate) struct HostNetwork {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The bridge's address with the subnet's prefix.
    pub(crate) address: Ipv4Cidr,
    bounds: Bounds,
    reserved: BTreeSet<Ipv4Addr>,
    index: u32,
    mtu: u32,
    port: BridgePort,
    pub(crate) internal: bool,
    /// Addresses may be asked for.
    takes_wishes: bool,
}

/// What is wished of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) gateway_priority: i64,
}

impl BridgeEndpointSpec {
    pub(crate) fn wish(&self) -> Wish {
        Wish { address: self.address, mac: self.mac, gateway_priority: self.gateway_priority }
    }
}

impl Inner {
    /// The network of this machine with this id. `docker_gwbridge` is one once it is made.
    pub(crate) fn host_network(&self, state: &State, network_id: &str) -> Result<HostNetwork, NetError> {
        let unknown = || NetError::NoNetwork(network_id.to_owned());
        if state.networks.bridge.id == network_id {
            return self.default_bridge(state);
        }
        if state.networks.gwbridge.as_ref().is_some_and(|network| network.id == network_id) {
            return self.gateway_bridge(state, state.gwbridge_index.ok_or_else(unknown)?);
        }
        let bridge = state.bridges.get(network_id).ok_or_else(unknown)?;
        let record = &bridge.record;
        let index = bridge.index.ok_or_else(|| {
            NetError::Invalid(format!("network {} could not be made; the daemon's log says why", record.spec.name))
        })?;
        Ok(HostNetwork {
            id: record.id.clone(),
            name: record.spec.name.clone(),
            address: record.address,
            bounds: record.bounds(),
            reserved: record.spec.reserved.values().copied().collect(),
            index,
            mtu: bridge.settings.mtu.unwrap_or(self.config.mtu),
            port: if bridge.settings.icc { BridgePort::Hairpin } else { BridgePort::Isolated },
            internal: record.spec.internal,
            takes_wishes: record.spec.subnet.is_some(),
        })
    }

    /// The default bridge.
    pub(crate) fn default_bridge(&self, state: &State) -> Result<HostNetwork, NetError> {
        let port = if self.config.icc { BridgePort::Hairpin } else { BridgePort::Isolated };
        self.fixed_network(&state.networks.bridge, BRIDGE, self.bridge_index, port)
    }

    /// `docker_gwbridge`, whose link has this index.
    pub(crate) fn gateway_bridge(&self, state: &State, index: u32) -> Result<HostNetwork, NetError> {
        let network = state.networks.gwbridge.as_ref().ok_or_else(|| NetError::NoNetwork(GWBRIDGE.to_owned()))?;
        self.fixed_network(network, GWBRIDGE, index, BridgePort::Isolated)
    }

    fn fixed_network(
        &self,
        network: &NetworkRecord,
        name: &str,
        index: u32,
        port: BridgePort,
    ) -> Result<HostNetwork, NetError> {
        let address = network.address.ok_or_else(|| NetError::NoNetwork(name.to_owned()))?;
        Ok(HostNetwork {
            id: network.id.clone(),
            name: name.to_owned(),
            address,
            bounds: Bounds::of(address.network(), None),
            reserved: BTreeSet::new(),
            index,
            mtu: self.config.mtu,
            port,
            internal: false,
            takes_wishes: false,
        })
    }

    /// An endpoint on a bridge of this machine; its address is taken when it is noted in a sandbox.
    pub(crate) fn host_plan(&self, state: &mut State, network: HostNetwork, wish: Wish) -> Result<Plan, NetError> {
        let address = state.take_address(&network, wish.address)?;
        let mac = wish.mac.unwrap_or(mac_of(address.address));
        let endpoint_id = new_id()?;
        Ok(Plan {
            near: NearLink { name: near_name(&endpoint_id), place: Place::Host },
            endpoint: Endpoint {
                gateway: (!network.internal).then_some(network.address.address),
                network_name: network.name,
                network_id: network.id,
                endpoint_id,
                link: String::new(),
                mac: mac_text(mac),
                address,
                address6: None,
                gateway_priority: wish.gateway_priority,
            },
            bridge_index: network.index,
            mac,
            mtu: network.mtu,
            port: network.port,
            links: Arc::clone(&self.links),
            routes: Vec::new(),
        })
    }

    /// Says what a container's endpoint on a network of the user's is called. Nothing on networks without names.
    pub(crate) fn name_endpoint(&self, endpoint: &Endpoint, names: &[String]) {
        let Some((name, others)) = names.split_first() else { return };
        self.dns.names.upsert(NameRecord {
            network_id: endpoint.network_id.clone(),
            endpoint_id: endpoint.endpoint_id.clone(),
            owner: OWNER.to_owned(),
            name: name.clone(),
            task_aliases: others.to_vec(),
            service: None,
            address: endpoint.address.address,
            address_v6: None,
            is_disabled: false,
        });
    }

    /// Takes back what [`Inner::name_endpoint`] said.
    pub(crate) fn unname_endpoint(&self, endpoint: &Endpoint) {
        self.dns.names.remove(&endpoint.network_id, &endpoint.endpoint_id, OWNER);
    }
}

impl State {
    /// Takes an address of a network of this machine: the one that is wished for, or the next free one.
    pub(crate) fn take_address(&mut self, network: &HostNetwork, wish: Option<Ipv4Addr>) -> Result<Ipv4Cidr, NetError> {
        let mut used: BTreeSet<Ipv4Addr> =
            self.endpoints(&network.id).map(|endpoint| endpoint.address.address).collect();
        used.insert(network.address.address);
        let address = match wish {
            Some(wish) => check_wish(network, wish, &used)?,
            None => {
                used.extend(&network.reserved);
                let last = self.last_address.get(&network.id).copied();
                let next = next_address(network.bounds, &used, last);
                let next = next.ok_or_else(|| NetError::NoFreeAddress { network: network.name.clone() })?;
                self.last_address.insert(network.id.clone(), next);
                next
            }
        };
        Ok(Ipv4Cidr::new(address, network.address.prefix))
    }
}

fn check_wish(network: &HostNetwork, wish: Ipv4Addr, used: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, NetError> {
    let subnet = network.address.network();
    if !network.takes_wishes {
        let text = "invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks \
                    with user configured subnets";
        return Err(NetError::Invalid(text.to_owned()));
    }
    if !subnet.contains(wish) {
        let text =
            format!("invalid endpoint settings:\nno configured subnet or ip-range contain the IP address {wish}");
        return Err(NetError::Invalid(text));
    }
    if wish == subnet.address || wish == subnet.broadcast() || used.contains(&wish) {
        return Err(NetError::AddressInUse);
    }
    Ok(wish)
}
