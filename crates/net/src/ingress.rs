//! The ingress network of this node.
//!
//! ```text
//! host                        namespace ingress_sbox               namespace 1-<network>        a task's namespace
//! port -> sandbox   ┌─ eth1 ──  service -> backend  ── eth0 ─┐
//! docker_gwbridge ──┤          (source address kept)         ├── br0 (gateway; later vxlan) ── eth0   rules: task_rules
//!                   └────────────────────────────────────────────────────────────────────────  eth1 (default route)
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ipam::{mac_of, mac_text};
use crate::links::{BridgePort, Links, Veth};
use crate::mesh::{GATEWAY_LINK, Mesh, PortChange};
use crate::net::Inner;
use crate::netns::{self, Namespace};
use crate::nft::Socket;
use crate::ports::PortTable;
use crate::sandbox::near_name;
use crate::state::{GWBRIDGE, State, kernel, new_id, now_unix_ns};
use crate::store::{Folder, IngressRecord, NearLink, Place, ServiceRecord, Single, Store};
use crate::{Backend, Endpoint, IngressPort, IngressSpec, Ipv4Cidr, NetConfig, NetError, Protocol, PublishedPort};

const SANDBOX: &str = "ingress_sbox";
const BRIDGE: &str = "br0";
/// What VXLAN adds to a packet.
const VXLAN_BYTES: u32 = 50;

/// The ingress network as it stands.
pub(crate) struct Ingress {
    pub(crate) record: IngressRecord,
    links: Arc<Links>,
    bridge_index: u32,
    mesh: Mesh,
}

/// What a task's end on the ingress network is made with.
pub(crate) struct MeshLink {
    pub(crate) network_name: String,
    pub(crate) network_id: String,
    pub(crate) bridge_index: u32,
    pub(crate) mtu: u32,
    pub(crate) links: Arc<Links>,
}

impl Ingress {
    /// How a task is attached.
    pub(crate) fn mesh_link(&self) -> MeshLink {
        MeshLink {
            network_name: self.record.spec.name.clone(),
            network_id: self.record.spec.network_id.clone(),
            bridge_index: self.bridge_index,
            mtu: self.record.spec.mtu,
            links: Arc::clone(&self.links),
        }
    }

    /// Writes the mesh anew as it should be.
    pub(crate) fn restore(&mut self) -> Result<(), NetError> {
        self.mesh.restore().map_err(kernel("write the mesh"))
    }

    /// Services of the mesh.
    pub(crate) fn services(&self) -> &BTreeMap<String, ServiceRecord> {
        self.mesh.services()
    }

    /// Which service has which port.
    pub(crate) fn port_owners(&self) -> &BTreeMap<(Protocol, u16), String> {
        self.mesh.owners()
    }

    /// Holds the published ports of all services.
    pub(crate) fn hold_ports(&self, ports: &mut PortTable) {
        for key in self.mesh.owners().keys() {
            ports.adopt(&owner(*key), &[published(*key)]);
        }
    }
}

/// Key of a service's port in the port table.
fn owner((protocol, port): (Protocol, u16)) -> String {
    format!("ingress {protocol} {port}")
}

fn published((protocol, port): (Protocol, u16)) -> PublishedPort {
    let host_address = std::net::Ipv4Addr::UNSPECIFIED;
    PublishedPort { protocol, container_port: port, host_address, host_port: port }
}

fn paths(config: &NetConfig, spec: &IngressSpec) -> [PathBuf; 2] {
    let folder = config.exec_root.join("netns");
    let short: String = spec.network_id.chars().take(10).collect();
    [folder.join(format!("1-{short}")), folder.join(SANDBOX)]
}

/// Finds the ingress network that a former daemon left; `None`, and no records, if it is not whole.
pub(crate) async fn adopt(config: &NetConfig, store: &Store) -> Result<Option<Ingress>, NetError> {
    let Some(record) = store.read::<IngressRecord>(Single::Ingress)? else { return Ok(None) };
    let pinned =
        |path: &PathBuf| Namespace::pinned(path).map_err(|source| NetError::File { path: path.clone(), source });
    let [network, sandbox] = paths(config, &record.spec);
    let (Some(network), Some(sandbox)) = (pinned(&network)?, pinned(&sandbox)?) else { return Ok(None) };
    let links = Links::open_in(&network).map_err(kernel("open a route netlink socket"))?;
    let Some(bridge_index) = links.index(BRIDGE).await.map_err(kernel("find the ingress bridge"))? else {
        return Ok(None);
    };
    let services = store.read_all(Folder::Services)?.into_iter().collect();
    let socket = sandbox.enter(Socket::open).map_err(kernel("open a firewall socket"))?;
    let mesh = Mesh::replace(socket, &config.table_prefix, services).map_err(kernel("write the mesh"))?;
    Ok(Some(Ingress { record, links: Arc::new(links), bridge_index, mesh }))
}

impl Inner {
    /// The namespaces of the ingress network.
    pub(crate) fn ingress_paths(&self, spec: &IngressSpec) -> [PathBuf; 2] {
        paths(&self.config, spec)
    }

    /// See [`crate::Net::ingress_ensure`].
    pub(crate) async fn ingress_ensure(&self, mut spec: IngressSpec) -> Result<(), NetError> {
        if spec.mtu == 0 {
            spec.mtu = self.config.mtu.saturating_sub(VXLAN_BYTES);
        }
        let turn = self.ingress_turn.lock().await;
        if self.state().ingress.as_ref().is_some_and(|ingress| ingress.record.spec == spec) {
            return Ok(());
        }
        self.remove_ingress_locked().await?;
        let gateway_index = self.ensure_gwbridge().await?;
        let made = self.make_ingress(spec, gateway_index).await;
        if made.is_err() {
            self.remove_ingress_locked().await?;
        }
        drop(turn);
        made
    }

    /// See [`crate::Net::ingress_remove`].
    pub(crate) async fn ingress_remove(&self) -> Result<(), NetError> {
        let _turn = self.ingress_turn.lock().await;
        self.remove_ingress_locked().await
    }

    async fn remove_ingress_locked(&self) -> Result<(), NetError> {
        let Some(record) = self.store.read::<IngressRecord>(Single::Ingress)? else { return Ok(()) };
        {
            let mut state = self.state();
            if let Some(ingress) = state.ingress.take() {
                let keys: Vec<_> = ingress.port_owners().keys().copied().collect();
                keys.into_iter().for_each(|key| state.ports.release(&owner(key)));
            }
            let rules = state.host_rules(&self.config);
            state.firewall.replace(&rules).map_err(kernel("write the firewall"))?;
        }
        for (service_id, _) in self.store.read_all::<ServiceRecord>(Folder::Services)? {
            self.store.remove_record(Folder::Services, &service_id)?;
        }
        let ends = record.links.iter().filter(|near| near.place == Place::Host);
        let ends = ends.map(|near| (near.name.clone(), Arc::clone(&self.links)));
        self.fading.add(ends.collect());
        for path in self.ingress_paths(&record.spec) {
            netns::remove(&path).map_err(|source| NetError::File { path, source })?;
        }
        self.store.remove(Single::Ingress)
    }

    fn reserve_ingress(&self, spec: IngressSpec) -> Result<IngressRecord, NetError> {
        let mut state = self.state();
        let network = state.networks.gwbridge.clone();
        let (id, bridge) = network
            .and_then(|network| Some((network.id, network.address?)))
            .ok_or_else(|| NetError::NoNetwork(GWBRIDGE.to_owned()))?;
        let own = state.take_address(&id, GWBRIDGE, bridge)?;
        let (mesh_id, gateway_id) = (new_id()?, new_id()?);
        let links = [(&mesh_id, Place::Ingress), (&gateway_id, Place::Host)];
        let record = IngressRecord {
            created_unix_ns: now_unix_ns(),
            links: links.map(|(id, place)| NearLink { name: near_name(id), place }).to_vec(),
            mesh: Endpoint {
                network_name: spec.name.clone(),
                network_id: spec.network_id.clone(),
                endpoint_id: mesh_id,
                link: "eth0".to_owned(),
                mac: mac_text(mac_of(spec.lb_address)),
                address: Ipv4Cidr::new(spec.lb_address, spec.subnet.prefix),
                gateway: None,
            },
            gateway: Endpoint {
                network_name: GWBRIDGE.to_owned(),
                network_id: id,
                endpoint_id: gateway_id,
                link: GATEWAY_LINK.to_owned(),
                mac: mac_text(mac_of(own.address)),
                address: own,
                gateway: Some(bridge.address),
            },
            spec,
        };
        self.store.write(Single::Ingress, &record)?;
        Ok(record)
    }

    async fn make_ingress(&self, spec: IngressSpec, gateway_index: u32) -> Result<(), NetError> {
        let record = self.reserve_ingress(spec)?;
        let [network_path, sandbox_path] = self.ingress_paths(&record.spec);
        let (_network, links) = make_namespace(network_path, &NETWORK_SYSCTLS).await?;
        let links = Arc::new(links);
        let bridge_index = self.make_mesh_bridge(&links, &record.spec).await?;
        let (sandbox, inside) = make_namespace(sandbox_path, &SANDBOX_SYSCTLS).await?;
        inside.set_up(1).await.map_err(kernel("bring up the loopback link"))?;
        let ends = [
            (&record.mesh, &record.links[0], bridge_index, &links),
            (&record.gateway, &record.links[1], gateway_index, &self.links),
        ];
        for (endpoint, near, bridge, links) in ends {
            let veth = Veth {
                name: &near.name,
                bridge,
                peer_name: &endpoint.link,
                peer_mac: mac_of(endpoint.address.address),
                mtu: record.spec.mtu,
                // tasks may reach the sandbox: with br_netfilter, that is how they use a published port of their own host
                port: BridgePort::Plain,
            };
            links.add_veth(&veth, &sandbox).await.map_err(kernel("make a veth pair"))?;
            let started = inside.start(veth.peer_name, endpoint.address, endpoint.gateway).await;
            started.map_err(kernel(format!("configure link {}", endpoint.link)))?;
        }
        let socket = sandbox.enter(Socket::open).map_err(kernel("open a firewall socket"))?;
        let mesh = Mesh::replace(socket, &self.config.table_prefix, BTreeMap::new());
        let mesh = mesh.map_err(kernel("write the mesh"))?;
        let mut state = self.state();
        state.ingress = Some(Ingress { record, links, bridge_index, mesh });
        let rules = state.host_rules(&self.config);
        state.firewall.replace(&rules).map_err(kernel("write the firewall"))
    }

    async fn make_mesh_bridge(&self, links: &Links, spec: &IngressSpec) -> Result<u32, NetError> {
        links.set_up(1).await.map_err(kernel("bring up the loopback link"))?;
        let index = links.ensure_bridge(BRIDGE, mac_of(spec.gateway), spec.mtu).await;
        let index = index.map_err(kernel("make the ingress bridge"))?;
        let address = Ipv4Cidr::new(spec.gateway, spec.subnet.prefix);
        links.add_address(index, address).await.map_err(kernel("set the ingress gateway"))?;
        Ok(index)
    }

    /// See [`crate::Net::set_service`].
    pub(crate) fn set_service(
        &self,
        service_id: &str,
        ports: Vec<IngressPort>,
        mut backends: Vec<Backend>,
    ) -> Result<(), NetError> {
        check_service(service_id)?;
        backends.sort_unstable();
        backends.dedup();
        let service = ServiceRecord { ports, backends };
        let mut state = self.state();
        let ingress = state.ingress.as_mut().ok_or_else(|| NetError::NoNetwork("ingress".to_owned()))?;
        if ingress.services().get(service_id) == Some(&service) {
            return Ok(());
        }
        // first: a daemon that dies in between writes it into the kernel when it starts
        self.store.write_record(Folder::Services, service_id, &service)?;
        let change = ingress.mesh.set(service_id, service).map_err(kernel("write the mesh"))?;
        apply_ports(&self.config, &mut state, &change)
    }

    /// See [`crate::Net::open_connections`].
    pub(crate) fn open_connections(&self, backend: Ipv4Addr) -> Result<usize, NetError> {
        let mut state = self.state();
        let Some(ingress) = state.ingress.as_mut() else { return Ok(0) };
        ingress.mesh.open_connections(backend).map_err(kernel("read the mesh's connections"))
    }

    /// See [`crate::Net::remove_service`].
    pub(crate) fn remove_service(&self, service_id: &str) -> Result<(), NetError> {
        check_service(service_id)?;
        let mut state = self.state();
        let Some(ingress) = state.ingress.as_mut() else { return Ok(()) };
        self.store.remove_record(Folder::Services, service_id)?;
        let change = ingress.mesh.remove(service_id).map_err(kernel("write the mesh"))?;
        apply_ports(&self.config, &mut state, &change)
    }
}

/// Opens and closes ports of the host after the mesh knows of them.
fn apply_ports(config: &NetConfig, state: &mut State, change: &PortChange) -> Result<(), NetError> {
    for key in &change.removed {
        state.ports.release(&owner(*key));
    }
    for key in &change.added {
        state.ports.adopt(&owner(*key), &[published(*key)]);
    }
    state.change_ingress_ports(config, change)
}

fn check_service(service_id: &str) -> Result<(), NetError> {
    let is_id = (1..=64).contains(&service_id.len()) && service_id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id { Ok(()) } else { Err(NetError::Invalid(format!("invalid service id {service_id:?}"))) }
}

async fn make_namespace(
    path: PathBuf,
    sysctls: &'static [(&'static str, &'static str)],
) -> Result<(Namespace, Links), NetError> {
    let runtime = tokio::runtime::Handle::current();
    let action = format!("make network namespace {}", path.display());
    let make = move || {
        Namespace::create(&path, || {
            sysctls.iter().try_for_each(|(name, value)| netns::set_sysctl_if_present(name, value))?;
            Links::open_here(&runtime)
        })
    };
    let made = tokio::task::spawn_blocking(make).await;
    made.expect("making a namespace does not panic").map_err(kernel(action))
}

const NETWORK_SYSCTLS: [(&str, &str); 5] = [
    // nothing is filtered where frames are only passed on
    ("net.bridge.bridge-nf-call-iptables", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.neigh.default.gc_thresh1", "8192"),
    ("net.ipv4.neigh.default.gc_thresh2", "49152"),
    ("net.ipv4.neigh.default.gc_thresh3", "65536"),
];

const SANDBOX_SYSCTLS: [(&str, &str); 5] = [
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    // no socket is here: looking for one with each packet that is only forwarded is work for nothing
    ("net.ipv4.ip_early_demux", "0"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];
