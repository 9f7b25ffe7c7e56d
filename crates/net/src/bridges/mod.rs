//! Networks that are bridges of this machine: the default one, `docker_gwbridge`, and those of the user.
//!
//! ```text
//! create: name, subnet, link name chosen (one at a time) ─► record on disk ─► link with its address ─► firewall ─► known
//!                                                              any failure ─► link and record removed
//! ```
//! A network of the user's is on disk before it is made, and made anew at each start; it goes when the user removes it, and
//! not while a container is on it.

mod endpoints;
mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

pub(crate) use endpoints::Wish;
pub(crate) use spec::Settings;
pub use spec::{BridgeEndpointSpec, BridgeNetworkSpec};

use crate::firewall::BridgeRules;
use crate::ipam::{Bounds, free_subnet, next_address};
use crate::links::Links;
use crate::net::{Inner, make_bridge};
use crate::state::{BRIDGE, GWBRIDGE, State, kernel, new_id, now_unix_ns};
use crate::store::{Folder, Store};
use crate::{Ipv4Cidr, NetConfig, NetError};

/// Names that no network of the user's can have.
const PREDEFINED: [&str; 4] = [BRIDGE, "host", "none", GWBRIDGE];
/// What a link's name begins with; 12 digits of the network's id follow.
const LINK_PREFIX: &str = "br-";
/// Key of the turn in which networks are made and removed.
const TURN: &str = "bridges";

/// A network of the user's as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BridgeRecord {
    pub(crate) id: String,
    pub(crate) created_unix_ns: i64,
    pub(crate) spec: BridgeNetworkSpec,
    /// The bridge's address with the subnet's prefix.
    pub(crate) address: Ipv4Cidr,
    pub(crate) link: String,
    /// The link is ours, and goes with the network.
    pub(crate) is_own_link: bool,
}

/// A network of the user's as it stands.
pub(crate) struct UserBridge {
    pub(crate) record: BridgeRecord,
    pub(crate) settings: Settings,
    /// Index of the link; `None` if it could not be made.
    pub(crate) index: Option<u32>,
}

impl BridgeRecord {
    /// The addresses that may be given.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds::of(self.address.network(), self.spec.range)
    }
}

impl UserBridge {
    /// As the firewall sees it.
    pub(crate) fn rules(&self) -> BridgeRules {
        BridgeRules {
            link: self.record.link.clone(),
            subnet: self.record.address,
            icc: self.settings.icc,
            masquerade: self.settings.masquerade && !self.record.spec.internal,
            internal: self.record.spec.internal,
        }
    }
}

/// Makes the networks of a former daemon anew. One that cannot be made is known all the same, so that it can be removed.
pub(crate) async fn adopt(
    config: &NetConfig,
    store: &Store,
    links: &Links,
) -> Result<BTreeMap<String, UserBridge>, NetError> {
    let mut bridges = BTreeMap::new();
    for (id, record) in store.read_all::<BridgeRecord>(Folder::Networks)? {
        let settings = Settings::read(&record.spec.options)?;
        let made = make_link(links, config, &record, &settings).await;
        let index = made.inspect_err(|error| {
            tracing::error!(network = record.spec.name, %error, "a network could not be made anew");
        });
        bridges.insert(id, UserBridge { record, settings, index: index.ok() });
    }
    Ok(bridges)
}

async fn make_link(
    links: &Links,
    config: &NetConfig,
    record: &BridgeRecord,
    settings: &Settings,
) -> Result<u32, NetError> {
    let config = NetConfig { mtu: settings.mtu.unwrap_or(config.mtu), ..config.clone() };
    make_bridge(links, &config, &record.link, record.address).await
}

impl State {
    /// Subnets of this machine's networks.
    pub(crate) fn local_subnets(&self) -> impl Iterator<Item = Ipv4Cidr> {
        let fixed = [Some(&self.networks.bridge), self.networks.gwbridge.as_ref()];
        let fixed = fixed.into_iter().flatten().filter_map(|network| network.address);
        fixed.chain(self.bridges.values().map(|bridge| bridge.record.address))
    }

    fn check_names(&self, config: &NetConfig, name: &str, link: &str) -> Result<(), NetError> {
        let is_taken = PREDEFINED.contains(&name)
            || self.bridges.values().any(|bridge| bridge.record.spec.name == name)
            || self.overlays.values().any(|overlay| overlay.record.spec.name == name);
        if is_taken {
            return Err(NetError::NetworkExists(name.to_owned()));
        }
        let links = self.bridges.values().map(|bridge| &bridge.record.link);
        if links.chain([&config.bridge_name, &config.gwbridge_name]).any(|other| other == link) {
            return Err(NetError::Invalid(format!("bridge name {link} is another network's")));
        }
        Ok(())
    }

    /// The bridge's address in a subnet that is free; `routes` are those of the host.
    fn choose_address(
        &self,
        config: &NetConfig,
        spec: &BridgeNetworkSpec,
        routes: &[Ipv4Cidr],
    ) -> Result<Ipv4Cidr, NetError> {
        let subnet = match spec.subnet {
            Some(subnet) if self.local_subnets().any(|other| other.overlaps(subnet)) => {
                return Err(NetError::PoolOverlap);
            }
            Some(subnet) => subnet.network(),
            None => {
                let taken: Vec<_> = self.local_subnets().chain(routes.iter().copied()).collect();
                free_subnet(&config.default_address_pools, &taken).ok_or(NetError::NoFreeSubnet)?
            }
        };
        let reserved: BTreeSet<Ipv4Addr> = spec.reserved.values().copied().collect();
        let first = || next_address(Bounds::of(subnet, spec.range), &reserved, None);
        let gateway = spec.gateway.or_else(first);
        let gateway = gateway.ok_or_else(|| NetError::NoFreeAddress { network: spec.name.clone() })?;
        Ok(Ipv4Cidr::new(gateway, subnet.prefix))
    }

    /// Containers on a network, as dockerd names them in a refusal.
    fn users_of(&self, network_id: &str) -> Vec<String> {
        let mut users = Vec::new();
        for record in self.sandboxes.values() {
            let own = record.sandbox.endpoints.iter().filter(|endpoint| endpoint.network_id == network_id);
            let short = |id: &str| id.chars().take(12).collect::<String>();
            users.extend(
                own.map(|endpoint| format!("name:{:?} id:{:?}", record.sandbox.name, short(&endpoint.endpoint_id))),
            );
        }
        users
    }
}

impl Inner {
    /// See [`crate::Net::create_network`].
    pub(crate) async fn create_bridge_network(&self, spec: BridgeNetworkSpec) -> Result<String, NetError> {
        spec.check()?;
        let settings = Settings::read(&spec.options)?;
        let turn = self.turns.of(TURN);
        let _turn = turn.lock().await;
        let routes = self.links.route_destinations().await.map_err(kernel("list routes"))?;
        let id = new_id()?;
        let link = settings.link.clone().unwrap_or_else(|| format!("{LINK_PREFIX}{}", &id[..12]));
        let is_own_link = self.links.index(&link).await.map_err(kernel("find a link"))?.is_none();
        let record = {
            let state = self.state();
            state.check_names(&self.config, &spec.name, &link)?;
            let address = state.choose_address(&self.config, &spec, &routes)?;
            BridgeRecord { id: id.clone(), created_unix_ns: now_unix_ns(), spec, address, link, is_own_link }
        };
        self.store.write_record(Folder::Networks, &id, &record)?;
        let made = match make_link(&self.links, &self.config, &record, &settings).await {
            Ok(index) => self.show_bridge(UserBridge { record: record.clone(), settings, index: Some(index) }),
            Err(error) => Err(error),
        };
        if made.is_err()
            && let Err(error) = self.forget_bridge(&record).await
        {
            tracing::warn!(%error, network = record.spec.name, "network left over");
        }
        made.map(|()| id)
    }

    fn show_bridge(&self, bridge: UserBridge) -> Result<(), NetError> {
        let mut state = self.state();
        state.bridges.insert(bridge.record.id.clone(), bridge);
        state.write_host(&self.config)
    }

    /// Takes a network out of the kernel and off the disk.
    async fn forget_bridge(&self, record: &BridgeRecord) -> Result<(), NetError> {
        {
            let mut state = self.state();
            if state.bridges.remove(&record.id).is_some() {
                state.write_host(&self.config)?;
            }
        }
        if record.is_own_link {
            self.links.remove(&record.link).await.map_err(kernel(format!("remove link {}", record.link)))?;
        }
        self.store.remove_record(Folder::Networks, &record.id)
    }

    /// See [`crate::Net::remove_network`].
    pub(crate) async fn remove_bridge_network(&self, network_id: &str) -> Result<(), NetError> {
        let turn = self.turns.of(TURN);
        let _turn = turn.lock().await;
        let record = {
            let state = self.state();
            let bridge = state.bridges.get(network_id);
            let record = bridge.ok_or_else(|| NetError::NoNetwork(network_id.to_owned()))?.record.clone();
            let users = state.users_of(network_id);
            if !users.is_empty() {
                return Err(NetError::NetworkInUse { network: record.spec.name, endpoints: users.join(", ") });
            }
            record
        };
        self.forget_bridge(&record).await?;
        self.dns.names.drop_network(network_id);
        Ok(())
    }
}
