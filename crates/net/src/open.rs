//! Start: bridges, what a former daemon left, the firewall.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bridges;
use crate::ingress;
use crate::ipsec::Ipsec;
use crate::links::Links;
use crate::net::{Inner, Parts, adopt_sandboxes, first_address, make_bridge, new_networks, open_firewall};
use crate::netns::{self, Namespace};
use crate::nft;
use crate::overlay;
use crate::ports::PortTable;
use crate::state::{State, kernel};
use crate::store::{Networks, SandboxRecord, Single, Store};
use crate::warnings;
use crate::watch::{Alarms, Site, Watch};
use crate::{Ipv4Cidr, NetConfig, NetError};

/// Longest link name of the kernel.
const LINK_NAME_BYTES: usize = 15;

/// What the network's parts are made from.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) config: &'a NetConfig,
    pub(crate) store: &'a Store,
    pub(crate) alarms: &'a Arc<Alarms>,
    pub(crate) ipsec: &'a Arc<Ipsec>,
}

/// See [`crate::Net::open`].
pub(crate) async fn open(config: NetConfig) -> Result<Inner, NetError> {
    check(&config)?;
    let store = Store::open(&config.data_root)?;
    let host = Namespace::current().map_err(kernel("open the host's network namespace"))?;
    let links = Arc::new(Links::open_in(&host).map_err(kernel("open a route netlink socket"))?);
    if config.ip_forward {
        netns::set_sysctl("net.ipv4.ip_forward", "1").map_err(kernel("switch on IPv4 forwarding"))?;
    }
    let networks = load_networks(&config, &store, &links).await?;
    let bridge = networks.bridge.address.ok_or(NetError::NoFreeSubnet)?;
    let bridge_index = make_bridge(&links, &config, &config.bridge_name, bridge).await?;
    let gateway = networks.gwbridge.as_ref().and_then(|network| network.address);
    let gwbridge_index = match gateway {
        Some(address) => Some(make_bridge(&links, &config, &config.gwbridge_name, address).await?),
        None => None,
    };
    let bridges = bridges::adopt(&config, &store, &links).await?;
    let mut ports = PortTable::default();
    let sandboxes = adopt_sandboxes(&store, &mut ports)?;
    let last_address = last_addresses(&sandboxes);
    let alarms = Arc::new(Alarms::default());
    let news = config.iptables.then(|| host.enter(nft::news).and_then(|news| Watch::start(news, Site::Host, &alarms)));
    let watch = news.transpose().map_err(kernel("watch the firewall"))?;
    let ipsec = Ipsec::new(host);
    let of = Surroundings { config: &config, store: &store, alarms: &alarms, ipsec: &ipsec };
    let overlays = overlay::adopt(&of, &links).await?;
    let ingress = ingress::adopt(&of)?.filter(|ingress| overlays.contains_key(&ingress.record.network_id));
    if let Some(ingress) = &ingress {
        ingress.hold_ports(&mut ports);
    }
    let mut firewall = open_firewall(&config)?;
    let warnings = warnings::find(&config, &mut firewall);
    let mut state = State {
        networks,
        bridges,
        sandboxes,
        ports,
        firewall,
        ingress,
        overlays,
        gwbridge_index,
        last_address,
        ipsec_watch: None,
    };
    state.write_host(&config)?;
    let mut node_name = crate::state::new_id()?;
    node_name.truncate(NODE_NAME_DIGITS);
    let parts = Parts { alarms, watch, ipsec, config, store, links, bridge_index, state, node_name, warnings };
    let inner = Inner::new(parts);
    inner.adopt_encryption().await?;
    Ok(inner)
}

/// Digits of a node's name among its peers.
const NODE_NAME_DIGITS: usize = 12;

fn check(config: &NetConfig) -> Result<(), NetError> {
    for name in [&config.bridge_name, &config.gwbridge_name] {
        let is_valid = !name.is_empty()
            && name.len() <= LINK_NAME_BYTES
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
        if !is_valid {
            return Err(NetError::Invalid(format!("invalid bridge name {name:?}")));
        }
    }
    if config.bridge_name == config.gwbridge_name {
        return Err(NetError::Invalid(format!("two bridges are named {}", config.bridge_name)));
    }
    Ok(())
}

/// Reads the local networks, or chooses them at the first start. The default bridge's address is `--bip`, that of a link
/// which is there already, that of the last start, or the first free one, in this order.
async fn load_networks(config: &NetConfig, store: &Store, links: &Links) -> Result<Networks, NetError> {
    let known: Option<Networks> = store.read(Single::Networks)?;
    let found = find_bridge_address(links, &config.bridge_name).await?;
    let before = known.as_ref().and_then(|networks| networks.bridge.address);
    let address = match config.bridge_address.or(found).or(before) {
        Some(address) => address,
        None => {
            let taken = links.route_destinations().await.map_err(kernel("list routes"))?;
            first_address(config, &taken)?
        }
    };
    let networks = match known {
        Some(networks) if networks.bridge.address == Some(address) => return Ok(networks),
        Some(mut networks) => {
            networks.bridge.address = Some(address);
            networks
        }
        None => new_networks(address)?,
    };
    store.write(Single::Networks, &networks)?;
    Ok(networks)
}

/// The address of a bridge that is there already.
pub(crate) async fn find_bridge_address(links: &Links, name: &str) -> Result<Option<Ipv4Cidr>, NetError> {
    let action = || kernel(format!("read the addresses of {name}"));
    match links.index(name).await.map_err(action())? {
        Some(index) => Ok(links.addresses(index).await.map_err(action())?.into_iter().next()),
        None => Ok(None),
    }
}

/// The address given last on each network, so that serial choice goes on where it stopped.
fn last_addresses(sandboxes: &BTreeMap<String, SandboxRecord>) -> BTreeMap<String, std::net::Ipv4Addr> {
    let mut newest: Vec<&SandboxRecord> = sandboxes.values().collect();
    newest.sort_by_key(|record| record.created_unix_ns);
    let endpoints = newest.iter().flat_map(|record| &record.sandbox.endpoints);
    endpoints.map(|endpoint| (endpoint.network_id.clone(), endpoint.address.address)).collect()
}
