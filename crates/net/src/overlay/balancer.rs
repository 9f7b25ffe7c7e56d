//! This node's balancer on a network: a namespace that has the services' own addresses, and spreads what is sent to them.
//!
//! ```text
//! a task ── bridge ── eth0  lb_<network>: virtual address -> backend, from the node's address on the network
//!             │
//!             └ backends, here or behind the tunnel
//! ```
//! It is made with the network's first service and goes with the network. What cannot be changed is made anew from the
//! records on disk. Every call here is made under the network's turn.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Overlay, OverlayRecord, OverlaySpec, make_namespace};
use crate::balance::{Balance, KeyChange, Service};
use crate::ingress::{check_backends, check_service};
use crate::ipam::{mac_of, mac_text};
use crate::links::{BridgePort, Links, Veth};
use crate::net::Inner;
use crate::netns::{self, Namespace};
use crate::nft::{self, Socket, Table};
use crate::open::Surroundings;
use crate::sandbox::near_name;
use crate::state::{kernel, new_id};
use crate::store::{BalancerRecord, Folder, NearLink, Place, Store, VirtualRecord};
use crate::vips::{self, VirtualAddresses};
use crate::watch::{Site, Watch};
use crate::{Endpoint, Ipv4Cidr, NetConfig, NetError};

const LINK: &str = "eth0";

/// The balancer as it stands.
pub(crate) struct Balancer {
    pub(crate) vips: Balance<VirtualAddresses>,
    /// The socket in its namespace.
    links: Arc<Links>,
    /// Its link there.
    index: u32,
    /// Notices when its table is removed.
    _watch: Watch,
}

/// Where a network's balancer is pinned, under dockerd's name for it.
pub(crate) fn balancer_path(config: &NetConfig, network_id: &str) -> PathBuf {
    let short: String = network_id.chars().take(9).collect();
    config.exec_root.join("netns").join(format!("lb_{short}"))
}

/// The services of a network on disk.
fn records(store: &Store, network_id: &str) -> Result<Vec<VirtualRecord>, NetError> {
    let all: Vec<(String, VirtualRecord)> = store.read_all(Folder::Virtual)?;
    Ok(all.into_iter().map(|(_, record)| record).filter(|record| record.network_id == network_id).collect())
}

impl Balancer {
    /// Opens a balancer whose namespace and link are there, with the services on disk.
    async fn open(of: &Surroundings<'_>, overlay: &OverlayRecord, namespace: &Namespace) -> Result<Self, NetError> {
        let Surroundings { config, store, alarms, .. } = *of;
        let links = Links::open_in(namespace).map_err(kernel("open a route netlink socket"))?;
        let index = links.existing_index(LINK).await.map_err(kernel("find a balancer's link"))?;
        let own = overlay.spec.lb_address.ok_or_else(|| no_address(&overlay.spec))?;
        let services = records(store, &overlay.spec.network_id)?;
        let services = services.iter().map(|record| (record.service_id.clone(), vips::service(record)));
        let socket = namespace.enter(Socket::open).map_err(kernel("open a firewall socket"))?;
        let table = Table::ip(format!("{}-vips", config.table_prefix));
        let vips = Balance::replace(VirtualAddresses { own }, socket, table, services);
        let vips = vips.map_err(kernel("write a balancer's table"))?;
        let site = Site::Balancer(overlay.spec.network_id.clone());
        let watch = namespace.enter(nft::news).and_then(|news| Watch::start(news, site, alarms));
        let watch = watch.map_err(kernel("watch a balancer's table"))?;
        Ok(Self { vips, links: Arc::new(links), index, _watch: watch })
    }
}

/// Finds the balancer that a former daemon left; `None` if it is not whole: then it is made anew when it is mended.
pub(super) async fn adopt(of: &Surroundings<'_>, overlay: &OverlayRecord) -> Option<Balancer> {
    overlay.balancer.as_ref()?;
    let path = balancer_path(of.config, &overlay.spec.network_id);
    let namespace = Namespace::pinned(&path).ok().flatten()?;
    let opened = Balancer::open(of, overlay, &namespace).await;
    opened.inspect_err(|error| tracing::warn!(%error, network = overlay.spec.name, "a balancer is made anew")).ok()
}

fn no_address(spec: &OverlaySpec) -> NetError {
    NetError::Invalid(format!("this node has no address for a balancer on network {}", spec.name))
}

impl Inner {
    /// See [`crate::Net::set_virtual_service`].
    pub(crate) async fn set_virtual_service(&self, mut wanted: VirtualRecord) -> Result<(), NetError> {
        check_service(&wanted.service_id)?;
        check_backends(&wanted.service_id, wanted.backends.len())?;
        wanted.backends.sort_unstable();
        wanted.backends.dedup();
        let turn = self.overlay_turn(&wanted.network_id);
        let _turn = turn.lock().await;
        let service = vips::service(&wanted);
        let has_balancer = {
            let state = self.state();
            let overlay = state.overlay(&wanted.network_id)?;
            check_address(&overlay.record.spec, wanted.address)?;
            if let Some(balancer) = &overlay.balancer
                && balancer.vips.service(&wanted.service_id) == Some(&service)
            {
                return Ok(());
            }
            overlay.balancer.is_some()
        };
        let name = VirtualRecord::name(&wanted.network_id, &wanted.service_id);
        // first: whoever makes the balancer anew finds it
        self.store.write_record(Folder::Virtual, &name, &wanted)?;
        if !has_balancer {
            return self.make_balancer(&wanted.network_id).await;
        }
        self.change_balancer(&wanted.network_id, &wanted.service_id, service).await
    }

    /// See [`crate::Net::remove_virtual_service`].
    pub(crate) async fn remove_virtual_service(&self, network_id: &str, service_id: &str) -> Result<(), NetError> {
        check_service(service_id)?;
        super::spec::check_network_id(network_id)?;
        let turn = self.overlay_turn(network_id);
        let _turn = turn.lock().await;
        self.store.remove_record(Folder::Virtual, &VirtualRecord::name(network_id, service_id))?;
        let has_balancer = self.state().overlays.get(network_id).is_some_and(|overlay| overlay.balancer.is_some());
        if has_balancer { self.change_balancer(network_id, service_id, Service::default()).await } else { Ok(()) }
    }

    /// Writes a service into a balancer that is there, or makes that anew with it.
    async fn change_balancer(
        &self,
        network_id: &str,
        service_id: &str,
        service: Service<Ipv4Addr>,
    ) -> Result<(), NetError> {
        let changed = match self.change_vips(network_id, service_id, service) {
            Ok(change) => self.change_addresses(network_id, &change).await,
            Err(error) => Err(error),
        };
        let Err(error) = changed else { return Ok(()) };
        tracing::warn!(%error, network_id, "a balancer could not be changed and is made anew");
        self.remake_balancer(network_id).await
    }

    fn change_vips(
        &self,
        network_id: &str,
        service_id: &str,
        service: Service<Ipv4Addr>,
    ) -> Result<KeyChange<Ipv4Addr>, NetError> {
        let mut state = self.state();
        let overlay = state.overlays.get_mut(network_id);
        let balancer = overlay.and_then(|overlay| overlay.balancer.as_mut());
        let balancer = balancer.ok_or_else(|| NetError::NoNetwork(network_id.to_owned()))?;
        let change = balancer.vips.set(service_id, service).map_err(kernel("write a balancer's table"))?;
        self.look_later(&Site::Balancer(network_id.to_owned()), balancer.vips.may_strand());
        Ok(change)
    }

    /// The balancer answers for an address after it knows where to send what comes, and no longer than it does.
    async fn change_addresses(&self, network_id: &str, change: &KeyChange<Ipv4Addr>) -> Result<(), NetError> {
        if change.added.is_empty() && change.removed.is_empty() {
            return Ok(());
        }
        let (links, index, spec, network_links) = {
            let state = self.state();
            let overlay = state.overlay(network_id)?;
            let balancer = overlay.balancer.as_ref().ok_or_else(|| NetError::NoNetwork(network_id.to_owned()))?;
            let links = Arc::clone(&balancer.links);
            (links, balancer.index, overlay.record.spec.clone(), Arc::clone(&overlay.links))
        };
        let work = async {
            for address in &change.removed {
                let host = Ipv4Cidr::new(*address, 32);
                links.remove_address(index, host).await?;
                if relay(&spec, *address).is_some() {
                    network_links.remove_route(host).await?;
                }
            }
            for address in &change.added {
                let host = Ipv4Cidr::new(*address, 32);
                links.add_address(index, host).await?;
                if let Some(own) = relay(&spec, *address) {
                    network_links.add_route(host, own).await?;
                }
            }
            Ok(())
        };
        work.await.map_err(kernel("set the addresses of a balancer"))
    }

    async fn remake_balancer(&self, network_id: &str) -> Result<(), NetError> {
        self.remove_balancer(network_id).await?;
        self.make_balancer(network_id).await
    }

    /// Makes the balancer of a network that has its devices, with the services on disk.
    async fn make_balancer(&self, network_id: &str) -> Result<(), NetError> {
        let made = self.build_balancer(network_id).await;
        if made.is_err()
            && let Err(error) = self.remove_balancer(network_id).await
        {
            tracing::warn!(%error, network_id, "a balancer is left over");
        }
        made
    }

    async fn build_balancer(&self, network_id: &str) -> Result<(), NetError> {
        let (record, attachment) = {
            let mut state = self.state();
            let overlay = state.overlays.get_mut(network_id);
            let overlay = overlay.ok_or_else(|| NetError::NoNetwork(network_id.to_owned()))?;
            overlay.record.balancer = Some(new_record(&overlay.record.spec)?);
            self.store.write_record(Folder::Overlays, network_id, &overlay.record)?;
            let own = overlay.record.spec.lb_address.ok_or_else(|| no_address(&overlay.record.spec))?;
            (overlay.record.clone(), overlay.attachment(own)?)
        };
        let balancer = record.balancer.as_ref().ok_or_else(|| no_address(&record.spec))?;
        let path = balancer_path(&self.config, network_id);
        let (namespace, inside) = make_namespace(path, &BALANCER_SYSCTLS).await?;
        inside.set_up(1).await.map_err(kernel("bring up the loopback link"))?;
        let veth = Veth {
            name: &balancer.link.name,
            bridge: attachment.bridge_index,
            peer_name: LINK,
            peer_mac: mac_of(balancer.endpoint.address.address),
            mtu: attachment.mtu,
            port: BridgePort::Fixed,
        };
        attachment.links.add_veth(&veth, &namespace).await.map_err(kernel("make a veth pair"))?;
        let configured = async {
            inside.start(LINK, balancer.endpoint.address, None).await?;
            for (network, gateway) in &attachment.routes {
                inside.add_route(*network, *gateway).await?;
            }
            Ok(())
        };
        configured.await.map_err(kernel("configure a balancer's link"))?;
        let balancer = Balancer::open(&self.surroundings(), &record, &namespace).await?;
        let added = balancer.vips.keys().collect();
        if let Some(overlay) = self.state().overlays.get_mut(network_id) {
            overlay.balancer = Some(balancer);
        }
        self.change_addresses(network_id, &KeyChange { added, removed: Vec::new() }).await
    }

    /// Removes a network's balancer; its services stay on disk. `Ok` if there is none.
    pub(super) async fn remove_balancer(&self, network_id: &str) -> Result<(), NetError> {
        let (record, routes) = {
            let mut state = self.state();
            let Some(overlay) = state.overlays.get_mut(network_id) else { return Ok(()) };
            let Some(record) = overlay.record.balancer.take() else { return Ok(()) };
            let balancer = overlay.balancer.take();
            self.store.write_record(Folder::Overlays, network_id, &overlay.record)?;
            let keys = balancer.iter().flat_map(|balancer| balancer.vips.keys());
            let relayed = keys.filter(|address| relay(&overlay.record.spec, *address).is_some());
            (record, relayed.collect::<Vec<_>>())
        };
        let path = balancer_path(&self.config, network_id);
        netns::remove(&path).map_err(|source| NetError::File { path, source })?;
        let Some(links) = self.links_at(&record.link.place) else { return Ok(()) };
        let work = async {
            for address in routes {
                links.remove_route(Ipv4Cidr::new(address, 32)).await?;
            }
            // at once: the next balancer has the same hardware address
            links.remove(&record.link.name).await
        };
        work.await.map_err(kernel("remove a balancer's link"))
    }

    /// Makes good what is missing of a network's balancer.
    pub(super) async fn mend_balancer(&self, network_id: &str) -> Result<(), NetError> {
        let (record, balancer) = {
            let state = self.state();
            let overlay = state.overlay(network_id)?;
            let balancer = overlay.balancer.as_ref().map(|balancer| (Arc::clone(&balancer.links), balancer.index));
            (overlay.record.clone(), balancer)
        };
        let wants_one =
            !record.spec.ingress && record.spec.lb_address.is_some() && !records(&self.store, network_id)?.is_empty();
        let is_pinned = matches!(Namespace::pinned(&balancer_path(&self.config, network_id)), Ok(Some(_)));
        let (links, index) = match balancer {
            Some(balancer) if is_pinned && self.has_ends(&record, &balancer.0).await? => balancer,
            _ if wants_one => return self.remake_balancer(network_id).await,
            _ => return self.remove_balancer(network_id).await,
        };
        let wanted: Vec<Ipv4Addr> = {
            let mut state = self.state();
            let overlay = state.overlays.get_mut(network_id);
            let Some(balancer) = overlay.and_then(|overlay| overlay.balancer.as_mut()) else { return Ok(()) };
            balancer.vips.restore().map_err(kernel("write a balancer's table"))?;
            balancer.vips.keys().collect()
        };
        let found = links.addresses(index).await.map_err(kernel("read a balancer's addresses"))?;
        let found = found.into_iter().map(|address| address.address);
        let strange = found.filter(|address| Some(*address) != record.spec.lb_address && !wanted.contains(address));
        self.change_addresses(network_id, &KeyChange { removed: strange.collect(), added: wanted }).await
    }

    /// Whether both ends of a balancer's link are there.
    async fn has_ends(&self, record: &OverlayRecord, inside: &Links) -> Result<bool, NetError> {
        let Some(balancer) = &record.balancer else { return Ok(false) };
        let Some(outside) = self.links_at(&balancer.link.place) else { return Ok(false) };
        let action = || kernel("find a balancer's link");
        let near = outside.index(&balancer.link.name).await.map_err(action())?;
        Ok(near.is_some() && inside.index(LINK).await.map_err(action())?.is_some())
    }

    /// Forgets the services of a network.
    pub(super) fn forget_virtual(&self, network_id: &str) -> Result<(), NetError> {
        records(&self.store, network_id)?.iter().try_for_each(|record| {
            self.store.remove_record(Folder::Virtual, &VirtualRecord::name(network_id, &record.service_id))
        })
    }
}

/// The balancer's own address, if another subnet's address is relayed to it: the network's gateway answers for that.
fn relay(spec: &OverlaySpec, address: Ipv4Addr) -> Option<Ipv4Addr> {
    let own = spec.lb_address?;
    (spec.subnet_of(own) != spec.subnet_of(address)).then_some(own)
}

fn check_address(spec: &OverlaySpec, address: Ipv4Addr) -> Result<(), NetError> {
    let invalid = |text: &str| Err(NetError::Invalid(format!("network {}: {text} {address}", spec.name)));
    if spec.ingress {
        return invalid("services are asked by their ports on the ingress network, not at");
    }
    let own = spec.lb_address.ok_or_else(|| no_address(spec))?;
    let is_taken = address == own || spec.subnets.iter().any(|subnet| subnet.gateway == address);
    match spec.subnet_of(address) {
        None => invalid("no subnet has"),
        Some(_) if is_taken => invalid("no service can have"),
        Some(_) => Ok(()),
    }
}

fn new_record(spec: &OverlaySpec) -> Result<BalancerRecord, NetError> {
    let address = spec.lb_cidr().ok_or_else(|| no_address(spec))?;
    let endpoint_id = new_id()?;
    Ok(BalancerRecord {
        link: NearLink { name: near_name(&endpoint_id), place: Place::Network(spec.network_id.clone()) },
        endpoint: Endpoint {
            network_name: spec.name.clone(),
            network_id: spec.network_id.clone(),
            endpoint_id,
            link: LINK.to_owned(),
            mac: mac_text(mac_of(address.address)),
            address,
            address6: None,
            gateway: None,
            gateway_priority: 0,
        },
    })
}

impl Overlay {
    /// Services with an address of their own.
    pub(crate) fn virtual_services(&self) -> Vec<String> {
        let services = self.balancer.iter().flat_map(|balancer| balancer.vips.services());
        services.map(str::to_owned).collect()
    }
}

const BALANCER_SYSCTLS: [(&str, &str); 8] = [
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    // no socket is here: looking for one with each packet that is only forwarded is work for nothing
    ("net.ipv4.ip_early_demux", "0"),
    ("net.ipv4.ip_forward", "1"),
    // client and backend are on the same link: neither is to be told of the other
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    // an address that is only a service's is never the one that a neighbour is asked for with
    ("net.ipv4.conf.all.arp_announce", "2"),
];
