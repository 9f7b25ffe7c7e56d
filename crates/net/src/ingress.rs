//! The ingress sandbox of this node: where published ports of services come in.
//!
//! ```text
//! host                        namespace ingress_sbox               namespace 1-<network>        a task's namespace
//! port -> sandbox   ┌─ eth1 ──  service -> backend  ── eth0 ─┐
//! docker_gwbridge ──┤          (source address kept)         ├── bridge ── vxlan, eth0          rules: task_rules
//!                   └────────────────────────────────────────────────────────────────────────  eth1 (default route)
//! ```

use std::path::PathBuf;

use crate::balance::{Balance, KeyChange, Service};
use crate::ipam::{mac_of, mac_text};
use crate::links::{BridgePort, Veth};
use crate::mesh::{self, GATEWAY_LINK, Port, PublishedPorts};
use crate::net::Inner;
use crate::netns::{self, Namespace};
use crate::nft::{self, Socket, Table};
use crate::open::Surroundings;
use crate::overlay::{OverlayRecord, make_namespace};
use crate::ports::PortTable;
use crate::sandbox::near_name;
use crate::state::{State, kernel, new_id};
use crate::store::{Folder, IngressRecord, NearLink, Place, ServiceRecord, Single};
use crate::watch::{Site, Watch};
use crate::{ClientAddress, Endpoint, NetConfig, NetError, PortGroup, PublishedPort};

const SANDBOX: &str = "ingress_sbox";

/// Tasks behind one port, or behind one address, of one service.
pub(crate) const BACKENDS_MAX: usize = 1 << 14;

/// The ingress sandbox as it stands.
pub(crate) struct Ingress {
    pub(crate) record: IngressRecord,
    pub(crate) mesh: Balance<PublishedPorts>,
    /// Notices when the mesh's table is removed.
    _watch: Watch,
}

impl Ingress {
    /// Opens the sandbox with the services on disk.
    fn open(of: &Surroundings<'_>, record: IngressRecord, sandbox: &Namespace) -> Result<Self, NetError> {
        let Surroundings { config, store, alarms, .. } = *of;
        let services: Vec<(String, ServiceRecord)> = store.read_all(Folder::Services)?;
        let services = services.into_iter().map(|(service_id, service)| (service_id, mesh::service(&service)));
        let kind = PublishedPorts { own: record.mesh.address.address, near: record.gateway.address.network() };
        let table = Table::ip(format!("{}-mesh", config.table_prefix));
        let socket = sandbox.enter(Socket::open).map_err(kernel("open a firewall socket"))?;
        let mesh = Balance::replace(kind, socket, table, services).map_err(kernel("write the mesh"))?;
        let watch = sandbox.enter(nft::news).and_then(|news| Watch::start(news, Site::Ingress, alarms));
        Ok(Self { record, mesh, _watch: watch.map_err(kernel("watch the mesh"))? })
    }

    /// Holds the published ports of all services.
    pub(crate) fn hold_ports(&self, ports: &mut PortTable) {
        for key in self.mesh.keys() {
            ports.adopt(&owner(key), &[published(key)]);
        }
    }
}

/// Key of a service's port in the port table.
fn owner((protocol, port): Port) -> String {
    format!("ingress {protocol} {port}")
}

fn published((protocol, port): Port) -> PublishedPort {
    let host_address = std::net::Ipv4Addr::UNSPECIFIED;
    PublishedPort { protocol, container_port: port, host_address, host_port: port }
}

/// Where the sandbox is pinned.
pub(crate) fn sandbox_path(config: &NetConfig) -> PathBuf {
    config.exec_root.join("netns").join(SANDBOX)
}

/// Finds the ingress sandbox that a former daemon left; `None` if it is not whole.
pub(crate) fn adopt(of: &Surroundings<'_>) -> Result<Option<Ingress>, NetError> {
    let Surroundings { config, store, .. } = *of;
    let Some(record) = store.read::<IngressRecord>(Single::Ingress)? else { return Ok(None) };
    let path = sandbox_path(config);
    let sandbox = Namespace::pinned(&path).map_err(|source| NetError::File { path, source })?;
    let Some(sandbox) = sandbox else { return Ok(None) };
    Ingress::open(of, record, &sandbox).map(Some)
}

impl Inner {
    /// Removes the ingress sandbox; services stay on disk for the next one. `Ok` if there is none.
    pub(crate) fn remove_ingress(&self) -> Result<(), NetError> {
        let Some(record) = self.store.read::<IngressRecord>(Single::Ingress)? else { return Ok(()) };
        {
            let mut state = self.state();
            if let Some(ingress) = state.ingress.take() {
                ingress.mesh.keys().for_each(|key| state.ports.release(&owner(key)));
            }
            state.write_host(&self.config)?;
        }
        let ends = record.links.iter().filter_map(|near| Some((near.name.clone(), self.links_at(&near.place)?)));
        self.fading.add(ends.collect());
        let path = sandbox_path(&self.config);
        netns::remove(&path).map_err(|source| NetError::File { path, source })?;
        self.store.remove(Single::Ingress)
    }

    /// Forgets all services of the mesh.
    pub(crate) fn forget_services(&self) -> Result<(), NetError> {
        let records = self.store.read_all::<ServiceRecord>(Folder::Services)?;
        records.iter().try_for_each(|(service_id, _)| self.store.remove_record(Folder::Services, service_id))
    }

    fn reserve_ingress(&self, overlay: &OverlayRecord, gateway_index: u32) -> Result<IngressRecord, NetError> {
        let spec = &overlay.spec;
        let mesh = spec.lb_cidr().ok_or_else(|| NetError::NoNetwork(spec.name.clone()))?;
        let mut state = self.state();
        let network = self.gateway_bridge(&state, gateway_index)?;
        let own = state.take_address(&network, None)?;
        let (mesh_id, gateway_id) = (new_id()?, new_id()?);
        let links = [(&mesh_id, Place::Network(spec.network_id.clone())), (&gateway_id, Place::Host)];
        let record = IngressRecord {
            network_id: spec.network_id.clone(),
            links: links.map(|(id, place)| NearLink { name: near_name(id), place }).to_vec(),
            mesh: Endpoint {
                network_name: spec.name.clone(),
                network_id: spec.network_id.clone(),
                endpoint_id: mesh_id,
                link: "eth0".to_owned(),
                mac: mac_text(mac_of(mesh.address)),
                address: mesh,
                address6: None,
                gateway: None,
                gateway_priority: 0,
            },
            gateway: Endpoint {
                network_name: network.name,
                network_id: network.id,
                endpoint_id: gateway_id,
                link: GATEWAY_LINK.to_owned(),
                mac: mac_text(mac_of(own.address)),
                address: own,
                address6: None,
                gateway: Some(network.address.address),
                gateway_priority: 0,
            },
        };
        self.store.write(Single::Ingress, &record)?;
        Ok(record)
    }

    /// Makes the ingress sandbox on a network whose devices are there.
    pub(crate) async fn make_ingress(&self, overlay: &OverlayRecord) -> Result<(), NetError> {
        let gateway_index = self.ensure_gwbridge().await?;
        let record = self.reserve_ingress(overlay, gateway_index)?;
        let (bridge_index, links) = {
            let state = self.state();
            let attachment = state.overlay(&record.network_id)?.attachment(record.mesh.address.address)?;
            (attachment.bridge_index, attachment.links)
        };
        let (sandbox, inside) = make_namespace(sandbox_path(&self.config), &SANDBOX_SYSCTLS).await?;
        inside.set_up(1).await.map_err(kernel("bring up the loopback link"))?;
        let ends = [
            (&record.mesh, &record.links[0], bridge_index, &links, BridgePort::Fixed),
            // tasks may reach the sandbox: with br_netfilter, that is how they use a published port of their own host
            (&record.gateway, &record.links[1], gateway_index, &self.links, BridgePort::Plain),
        ];
        for (endpoint, near, bridge, links, port) in ends {
            let veth = Veth {
                name: &near.name,
                bridge,
                peer_name: &endpoint.link,
                peer_mac: mac_of(endpoint.address.address),
                mtu: overlay.mtu,
                port,
            };
            links.add_veth(&veth, &sandbox).await.map_err(kernel("make a veth pair"))?;
            let started = inside.start(veth.peer_name, endpoint.address, endpoint.gateway).await;
            started.map_err(kernel(format!("configure link {}", endpoint.link)))?;
        }
        let mut state = self.state();
        let ingress = Ingress::open(&self.surroundings(), record, &sandbox)?;
        ingress.hold_ports(&mut state.ports);
        state.ingress = Some(ingress);
        state.write_host(&self.config)
    }

    /// See [`crate::Net::set_service`].
    pub(crate) fn set_service(
        &self,
        service_id: &str,
        groups: Vec<PortGroup>,
        clients: ClientAddress,
    ) -> Result<(), NetError> {
        if groups.is_empty() {
            return self.remove_service(service_id);
        }
        check_service(service_id)?;
        groups.iter().try_for_each(|group| check_backends(service_id, group.backends.len()))?;
        let record = ServiceRecord { groups, clients };
        let service = mesh::service(&record);
        let mut state = self.state();
        let ingress = state.ingress.as_mut().ok_or_else(|| NetError::NoNetwork("ingress".to_owned()))?;
        if ingress.mesh.service(service_id) == Some(&service) {
            return Ok(());
        }
        // first: a daemon that dies in between writes it into the kernel when it starts
        self.store.write_record(Folder::Services, service_id, &record)?;
        let change = ingress.mesh.set(service_id, service).map_err(kernel("write the mesh"))?;
        self.look_later(&Site::Ingress, ingress.mesh.may_strand());
        apply_ports(&self.config, &mut state, &change)
    }

    /// See [`crate::Net::remove_service`].
    pub(crate) fn remove_service(&self, service_id: &str) -> Result<(), NetError> {
        check_service(service_id)?;
        let mut state = self.state();
        self.store.remove_record(Folder::Services, service_id)?;
        let Some(ingress) = state.ingress.as_mut() else { return Ok(()) };
        let change = ingress.mesh.set(service_id, Service::default()).map_err(kernel("write the mesh"))?;
        self.look_later(&Site::Ingress, ingress.mesh.may_strand());
        apply_ports(&self.config, &mut state, &change)
    }
}

/// Opens and closes ports of the host after the mesh knows of them.
fn apply_ports(config: &NetConfig, state: &mut State, change: &KeyChange<Port>) -> Result<(), NetError> {
    for key in &change.removed {
        state.ports.release(&owner(*key));
    }
    for key in &change.added {
        state.ports.adopt(&owner(*key), &[published(*key)]);
    }
    state.change_ingress_ports(config, change)
}

pub(crate) fn check_service(service_id: &str) -> Result<(), NetError> {
    let is_id = (1..=64).contains(&service_id.len()) && service_id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id { Ok(()) } else { Err(NetError::Invalid(format!("invalid service id {service_id:?}"))) }
}

pub(crate) fn check_backends(service_id: &str, count: usize) -> Result<(), NetError> {
    if count > BACKENDS_MAX {
        return Err(NetError::Invalid(format!("service {service_id} has {count} tasks; {BACKENDS_MAX} are possible")));
    }
    Ok(())
}

const SANDBOX_SYSCTLS: [(&str, &str); 5] = [
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    // no socket is here: looking for one with each packet that is only forwarded is work for nothing
    ("net.ipv4.ip_early_demux", "0"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];
