//! The handle that the engine's adapter uses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use futures::StreamExt;

use crate::connect::has_resolver;
use crate::dns::{self, Resolvers};
use crate::etc_files::{self, Hosts};
use crate::fading::Fading;
use crate::firewall::Firewall;
use crate::ipam::{free_subnet, mac_of};
use crate::ipsec::{Ipsec, Void};
use crate::links::Links;
use crate::netns::{self, Namespace};
use crate::open::Surroundings;
use crate::overlay::{OverlayRecord, Turns};
use crate::ports::PortTable;
use crate::reconcile::{ReconcileReport, is_lost};
use crate::state::{GWBRIDGE, State, kernel, new_id, now_unix_ns};
use crate::store::{Folder, NetworkRecord, Networks, SandboxRecord, Single, Store, VirtualRecord};
use crate::watch::{self, Alarms, Watch};
use crate::{
    BridgeNetworkSpec, ClientAddress, Connection, EncryptionKey, Endpoint, EtcFiles, Ipv4Cidr, Names, NetConfig,
    NetError, NetworkInfo, OverlaySpec, Peer, PortGroup, Sandbox, SandboxMode, SandboxSpec,
};

/// The network of this machine. Cheap to clone; every method may be called from many tasks at once. Calls that change
/// something go on to their end if the caller stops waiting.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Inner>,
}

/// Name servers that are started at once after a restart: each waits for the kernel to forget rules (15 ms).
const ADOPTED_AT_ONCE: usize = 32;

/// What all handles share.
pub(crate) struct Inner {
    pub(crate) config: NetConfig,
    pub(crate) store: Store,
    /// The host's route netlink socket.
    pub(crate) links: Arc<Links>,
    /// Index of the default bridge's link.
    pub(crate) bridge_index: u32,
    state: Mutex<State>,
    pub(crate) turns: Turns,
    /// Links that go away with their namespaces.
    pub(crate) fading: Fading,
    /// Name servers of sandboxes.
    pub(crate) dns: Resolvers,
    /// Places where tables were removed.
    pub(crate) alarms: Arc<Alarms>,
    /// Notices when the host's tables are removed; `None` if there are none.
    _watch: Option<Watch>,
    /// What the host has of IPsec.
    pub(crate) ipsec: Arc<Ipsec>,
    /// Where packets of encrypted networks go that are not sealed.
    pub(crate) void: Void,
    /// The encrypted networks' own port, once one is chosen. Held while the void is made or removed.
    pub(crate) own_port: tokio::sync::Mutex<Option<u16>>,
    /// Answers the alarms; ends with this.
    answers: OnceLock<watch::Task>,
    node_name: String,
    warnings: Vec<String>,
}

impl Inner {
    /// What the network's parts are made from.
    pub(crate) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings { config: &self.config, store: &self.store, alarms: &self.alarms, ipsec: &self.ipsec }
    }

    /// The state; the lock is never held while something is awaited.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Net {
    /// Opens the network: makes the bridges, adopts what a former daemon left, writes the firewall anew in one go.
    /// Must run inside a tokio runtime, on a thread in the host's network namespace.
    pub async fn open(config: NetConfig) -> Result<Self, NetError> {
        let inner = crate::open::open(config).await?;
        inner.adopt_resolvers().await;
        let inner = Arc::new(inner);
        let answers = watch::answer(Arc::clone(&inner.alarms), Arc::downgrade(&inner));
        inner.answers.set(answers).expect("an inner that is new has no task yet");
        Ok(Self { inner })
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Things the operator should know, each with its remedy (a `FORWARD` policy of drop, …).
    pub fn warnings(&self) -> Vec<String> {
        self.inner.warnings.clone()
    }

    /// Removes what belongs to containers that are not `known` and forgets them, and writes all tables anew.
    pub async fn reconcile(&self, known: &BTreeSet<String>) -> Result<ReconcileReport, NetError> {
        let (inner, known) = (Arc::clone(&self.inner), known.clone());
        to_the_end(async move { inner.reconcile(&known).await }).await
    }

    /// Makes a container's namespace with its endpoints and opens its ports. Nothing is left if it fails. Asked again for
    /// the same, it returns what is there.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, NetError> {
        to_the_end(Arc::clone(&self.inner).create_sandbox(spec)).await
    }

    /// Removes a container's ports, endpoints and namespace. `Ok` if there is nothing.
    pub async fn remove_sandbox(&self, container_id: &str) -> Result<(), NetError> {
        let (inner, container_id) = (Arc::clone(&self.inner), container_id.to_owned());
        to_the_end(async move { inner.remove_sandbox(&container_id).await }).await
    }

    /// The sandbox of a container, if it has one.
    pub fn sandbox(&self, container_id: &str) -> Option<Sandbox> {
        let state = self.inner.state();
        state.sandboxes.get(container_id).filter(|record| record.is_ready).map(|record| record.sandbox.clone())
    }

    /// Closes a container's host ports but leaves its endpoints.
    pub async fn release_ports(&self, container_id: &str) -> Result<(), NetError> {
        self.inner.release_ports(container_id)
    }

    /// `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` for a container that has a sandbox.
    pub fn etc_files(&self, container_id: &str) -> Result<EtcFiles, NetError> {
        let (spec, sandbox) = {
            let state = self.inner.state();
            let record = state.sandboxes.get(container_id);
            let record = record.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))?;
            (record.spec.clone(), record.sandbox.clone())
        };
        self.inner.etc_files(&spec, &sandbox)
    }

    /// The names that containers can ask for on networks. Whoever knows of endpoints keeps it up to date.
    pub fn names(&self) -> &Arc<Names> {
        &self.inner.dns.names
    }

    /// This node's name among the peers of the swarm's networks: another one each time, and not the swarm's node id.
    pub fn node_name(&self) -> &str {
        &self.inner.node_name
    }

    /// The networks of this machine.
    pub fn networks(&self) -> Vec<NetworkInfo> {
        crate::listing::networks(&self.inner.state(), &self.inner.config)
    }

    /// The address of `docker_gwbridge` on the host; the bridge is made if need be.
    pub async fn gwbridge_address(&self) -> Result<Ipv4Addr, NetError> {
        let inner = Arc::clone(&self.inner);
        to_the_end(async move {
            inner.ensure_gwbridge().await?;
            let address = inner.state().networks.gwbridge.as_ref().and_then(|network| network.address);
            address.map(|address| address.address).ok_or_else(|| NetError::NoNetwork(GWBRIDGE.to_owned()))
        })
        .await
    }

    /// Makes an overlay network on this node, or changes it to `spec`. Idempotent. Containers stay when the tunnel address,
    /// the balancer's address, the name or the MTU change; when the subnets change the network is made anew without them.
    /// With [`OverlaySpec::ingress`] the ingress sandbox is made too, and another ingress network is removed; when its address
    /// changes it is made anew, with the services it had. An encrypted one is refused where it cannot be encrypted; until there
    /// are keys nothing of it leaves the node.
    pub async fn overlay_ensure(&self, spec: OverlaySpec) -> Result<(), NetError> {
        let inner = Arc::clone(&self.inner);
        to_the_end(async move { inner.overlay_ensure(spec).await }).await
    }

    /// Replaces the swarm's keys of encrypted networks. All of them open; the second oldest seals. Nothing is lost when the
    /// other nodes learn of a new set at other times, as long as no set is skipped.
    pub async fn set_encryption_keys(&self, keys: Vec<EncryptionKey>) -> Result<(), NetError> {
        let inner = Arc::clone(&self.inner);
        to_the_end(async move { inner.set_encryption_keys(keys).await }).await
    }

    /// Removes an overlay network from this node, with what is attached to it. `Ok` if there is none.
    pub async fn overlay_remove(&self, network_id: &str) -> Result<(), NetError> {
        let (inner, network_id) = (Arc::clone(&self.inner), network_id.to_owned());
        to_the_end(async move { inner.overlay_remove(&network_id).await }).await
    }

    /// The overlay networks of this node; after a restart those of the former daemon.
    pub fn overlays(&self) -> Vec<OverlaySpec> {
        self.inner.state().overlays.values().map(|overlay| overlay.record.spec.clone()).collect()
    }

    /// Whether this node has an overlay network of this id.
    pub fn is_overlay(&self, network_id: &str) -> bool {
        self.inner.state().overlays.contains_key(network_id)
    }

    /// Replaces all that is known of a network's endpoints on other nodes; those of this node are passed over.
    pub async fn set_peers(&self, network_id: &str, peers: Vec<Peer>) -> Result<(), NetError> {
        let (inner, network_id) = (Arc::clone(&self.inner), network_id.to_owned());
        to_the_end(async move { inner.set_peers(&network_id, peers).await }).await
    }

    /// Adds and removes endpoints of a network on other nodes. Removing one that is known elsewhere by now changes nothing, so
    /// the news of a move may come in any order.
    pub async fn change_peers(&self, network_id: &str, added: Vec<Peer>, removed: Vec<Peer>) -> Result<(), NetError> {
        let (inner, network_id) = (Arc::clone(&self.inner), network_id.to_owned());
        to_the_end(async move { inner.change_peers(&network_id, added, removed).await }).await
    }

    /// What is known of a network's endpoints on other nodes.
    pub fn peers(&self, network_id: &str) -> Vec<Peer> {
        let state = self.inner.state();
        state.overlays.get(network_id).map(|overlay| overlay.peers.all().copied().collect()).unwrap_or_default()
    }

    /// Connects a container that runs to a network. Its default route, its published ports and its name server follow; `links`
    /// are names that it alone knows, as in [`crate::DnsNetwork::aliases`]. Asked again for the same, it returns what is there.
    pub async fn connect(
        &self,
        container_id: &str,
        connection: Connection,
        links: BTreeMap<String, String>,
    ) -> Result<Endpoint, NetError> {
        let (inner, container_id) = (Arc::clone(&self.inner), container_id.to_owned());
        to_the_end(async move { inner.connect(&container_id, connection, links).await }).await
    }

    /// Disconnects a container that runs from a network.
    pub async fn disconnect(&self, container_id: &str, network_id: &str) -> Result<(), NetError> {
        let (inner, container_id, network_id) =
            (Arc::clone(&self.inner), container_id.to_owned(), network_id.to_owned());
        to_the_end(async move { inner.disconnect(&container_id, &network_id).await }).await
    }

    /// Gives a container that runs another name, also among the names of this machine's networks.
    pub fn rename(&self, container_id: &str, name: &str) -> Result<(), NetError> {
        self.inner.rename(container_id, name)
    }

    /// Makes a network of the user's own, a bridge of this machine that lasts until it is removed; returns its id.
    pub async fn create_network(&self, spec: BridgeNetworkSpec) -> Result<String, NetError> {
        let inner = Arc::clone(&self.inner);
        to_the_end(async move { inner.create_bridge_network(spec).await }).await
    }

    /// Removes such a network; not while containers are on it.
    pub async fn remove_network(&self, network_id: &str) -> Result<(), NetError> {
        let (inner, network_id) = (Arc::clone(&self.inner), network_id.to_owned());
        to_the_end(async move { inner.remove_bridge_network(&network_id).await }).await
    }

    /// Removes the ingress network, its sandbox and every service of it. `Ok` if there is none.
    pub async fn ingress_remove(&self) -> Result<(), NetError> {
        let inner = Arc::clone(&self.inner);
        to_the_end(async move { inner.ingress_remove().await }).await
    }

    /// Replaces ports and tasks of one service atomically; returns once the kernel has taken them. Established connections
    /// to a task that is gone go on; UDP flows to it are moved. Ports without tasks refuse connections. Without groups the
    /// service is taken out.
    pub async fn set_service(
        &self,
        service_id: &str,
        groups: Vec<PortGroup>,
        clients: ClientAddress,
    ) -> Result<(), NetError> {
        self.inner.set_service(service_id, groups, clients)
    }

    /// Gives a service its own address on an overlay network, in place of what it had there: each new connection to it goes
    /// to the next of `backends`, from this node's balancer address. As with [`Net::set_service`], established connections
    /// go on, and UDP flows move. Without backends connections are refused.
    pub async fn set_virtual_service(
        &self,
        network_id: &str,
        service_id: &str,
        address: Ipv4Addr,
        backends: Vec<Ipv4Addr>,
    ) -> Result<(), NetError> {
        let (network_id, service_id) = (network_id.to_owned(), service_id.to_owned());
        let (inner, wanted) = (Arc::clone(&self.inner), VirtualRecord { network_id, service_id, address, backends });
        to_the_end(async move { inner.set_virtual_service(wanted).await }).await
    }

    /// Takes a service's own address on a network away. `Ok` if it has none.
    pub async fn remove_virtual_service(&self, network_id: &str, service_id: &str) -> Result<(), NetError> {
        let (inner, network_id, service_id) = (Arc::clone(&self.inner), network_id.to_owned(), service_id.to_owned());
        to_the_end(async move { inner.remove_virtual_service(&network_id, &service_id).await }).await
    }

    /// Services with an address of their own on a network; after a restart those of the former daemon.
    pub fn virtual_services(&self, network_id: &str) -> Vec<String> {
        let state = self.inner.state();
        state.overlays.get(network_id).map(|overlay| overlay.virtual_services()).unwrap_or_default()
    }

    /// How many TCP connections of others to a container are open, whichever way they came; those that are ending in order do
    /// not count, and none does if there is no such container. Reads all of its sockets.
    pub async fn open_connections(&self, container_id: &str) -> Result<usize, NetError> {
        let Some(path) = self.sandbox(container_id).and_then(|sandbox| sandbox.netns) else { return Ok(0) };
        let counted = tokio::task::spawn_blocking(move || match Namespace::pinned(&path)? {
            Some(namespace) => crate::inbound::count(&namespace),
            None => Ok(0),
        });
        counted.await.expect("counting does not panic").map_err(kernel("read a container's connections"))
    }

    /// Takes a service out of the mesh. `Ok` if it is not there.
    pub async fn remove_service(&self, service_id: &str) -> Result<(), NetError> {
        self.inner.remove_service(service_id)
    }

    /// Services that are in the mesh; after a restart those of the former daemon.
    pub fn services(&self) -> Vec<String> {
        let state = self.inner.state();
        state.ingress.iter().flat_map(|ingress| ingress.mesh.services().map(str::to_owned)).collect()
    }

    /// Removes everything from the kernel: sandboxes, ingress, bridges, tables. For the end of an installation.
    pub async fn destroy(&self) -> Result<(), NetError> {
        let inner = Arc::clone(&self.inner);
        to_the_end(async move { inner.destroy().await }).await
    }
}

/// Runs `work` to its end even if the caller goes away: no half-made sandbox may be left behind.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, NetError>> + Send + 'static,
) -> Result<T, NetError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(NetError::Invalid(error.to_string())),
        },
    }
}

/// Parts of [`Inner`], for `open`.
pub(crate) struct Parts {
    pub(crate) config: NetConfig,
    pub(crate) store: Store,
    pub(crate) links: Arc<Links>,
    pub(crate) bridge_index: u32,
    pub(crate) state: State,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) watch: Option<Watch>,
    pub(crate) ipsec: Arc<Ipsec>,
    pub(crate) node_name: String,
    pub(crate) warnings: Vec<String>,
}

impl Inner {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            dns: Resolvers::new(&parts.config.table_prefix),
            ipsec: parts.ipsec,
            void: Void::of(&parts.config),
            own_port: tokio::sync::Mutex::default(),
            config: parts.config,
            store: parts.store,
            links: parts.links,
            bridge_index: parts.bridge_index,
            state: Mutex::new(parts.state),
            turns: Turns::default(),
            fading: Fading::default(),
            alarms: parts.alarms,
            _watch: parts.watch,
            answers: OnceLock::new(),
            node_name: parts.node_name,
            warnings: parts.warnings,
        }
    }

    fn etc_files(&self, spec: &SandboxSpec, sandbox: &Sandbox) -> Result<EtcFiles, NetError> {
        let is_host = spec.mode == SandboxMode::Host;
        let host_hosts = is_host.then(|| read(Path::new("/etc/hosts")));
        let (host_resolv, defaults) = (self.host_resolv_conf(), &self.config.dns);
        // who shares a namespace shares its name server
        let owner = if let SandboxMode::Container(other) = &spec.mode { other } else { &spec.container_id };
        let resolver = self.state().sandboxes.get(owner).filter(|record| has_resolver(record)).cloned();
        let resolv_conf = match resolver {
            Some(resolver) => dns::internal_resolv_conf(&host_resolv, &resolver.spec.dns, defaults).text,
            None => etc_files::resolv_conf(&host_resolv, &spec.dns, defaults, is_host),
        };
        let (bridge, ingress) = {
            let state = self.state();
            (state.networks.bridge.address, state.ingress_id())
        };
        let addresses = etc_files::own_addresses(&sandbox.endpoints, ingress.as_deref());
        Ok(EtcFiles {
            hosts: etc_files::hosts(&Hosts {
                base: host_hosts.as_deref(),
                extra: &spec.extra_hosts,
                host_gateway: bridge.map(|bridge| bridge.address),
                addresses: &addresses,
                hostname: &spec.hostname,
                domainname: &spec.domainname,
            }),
            resolv_conf,
            hostname: etc_files::hostname(&spec.hostname),
        })
    }

    /// The host's `resolv.conf`, or the one that the host's own name server works by.
    fn host_resolv_conf(&self) -> String {
        let text = read(&self.config.host_resolv_conf);
        let is_stub = etc_files::is_resolved_stub(&text);
        let behind = is_stub.then(|| read(Path::new("/run/systemd/resolve/resolv.conf")));
        behind.filter(|behind| !behind.is_empty()).unwrap_or(text)
    }

    /// Starts the name server of a sandbox whose namespace is there, if it is to have one.
    pub(crate) async fn start_resolver(&self, record: &SandboxRecord, age: dns::Age) -> Result<(), NetError> {
        let (spec, Some(netns)) = (&record.spec, &record.sandbox.netns) else { return Ok(()) };
        if !has_resolver(record) {
            return Ok(());
        }
        let plan = dns::Plan {
            container_id: spec.container_id.clone(),
            netns: netns.clone(),
            view: self.dns_view(record),
            age,
        };
        let ports = self.dns.start(plan).await.map_err(kernel("start the name server of a container"))?;
        // written when the sandbox is ready, or here if it was
        let mut state = self.state();
        match state.sandboxes.get_mut(&spec.container_id) {
            Some(record) if record.dns_ports != Some(ports) => {
                record.dns_ports = Some(ports);
                match record.is_ready {
                    true => self.store.write_record(Folder::Sandboxes, &spec.container_id, record),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// What a sandbox's name server answers and whom it asks.
    pub(crate) fn dns_view(&self, record: &SandboxRecord) -> dns::View {
        dns::View {
            networks: record.spec.dns_networks.clone(),
            conf: dns::internal_resolv_conf(&self.host_resolv_conf(), &record.spec.dns, &self.config.dns),
            has_way_out: record.sandbox.endpoints.iter().any(|endpoint| endpoint.gateway.is_some()),
        }
    }

    /// Starts the name servers of sandboxes that a former daemon made. One that fails leaves the others.
    async fn adopt_resolvers(&self) {
        let records: Vec<_> = self.state().sandboxes.values().filter(|record| record.is_ready).cloned().collect();
        let adopt = async |record: SandboxRecord| {
            self.name_sandbox(&record);
            if let Err(error) = self.start_resolver(&record, dns::Age::Adopted(record.dns_ports)).await {
                let container = record.spec.container_id;
                tracing::error!(%error, %container, "container has no name server; restart it");
            }
        };
        futures::stream::iter(records).for_each_concurrent(ADOPTED_AT_ONCE, adopt).await;
    }

    /// Makes the gateway bridge if it is missing, and returns its index.
    pub(crate) async fn ensure_gwbridge(&self) -> Result<u32, NetError> {
        if let Some(index) = self.state().gwbridge_index {
            return Ok(index);
        }
        let found = crate::open::find_bridge_address(&self.links, &self.config.gwbridge_name).await?;
        let mut taken = self.links.route_destinations().await.map_err(kernel("list routes"))?;
        let address = {
            let mut state = self.state();
            taken.extend(state.local_subnets());
            let known = state.networks.gwbridge.as_ref().and_then(|network| network.address);
            let address = match known.or(found) {
                Some(address) => address,
                None => first_address(&self.config, &taken)?,
            };
            if state.networks.gwbridge.as_ref().and_then(|network| network.address) != Some(address) {
                let record = NetworkRecord { id: new_id()?, created_unix_ns: now_unix_ns(), address: Some(address) };
                let mut networks = state.networks.clone();
                networks.gwbridge = Some(record);
                self.store.write(Single::Networks, &networks)?;
                state.networks = networks;
            }
            address
        };
        let index = make_bridge(&self.links, &self.config, &self.config.gwbridge_name, address).await?;
        let mut state = self.state();
        state.write_host(&self.config)?;
        state.gwbridge_index = Some(index);
        Ok(index)
    }

    async fn destroy(&self) -> Result<(), NetError> {
        let containers: Vec<String> = self.state().sandboxes.keys().cloned().collect();
        for container_id in containers {
            self.remove_sandbox(&container_id).await?;
        }
        for (network_id, _) in self.store.read_all::<OverlayRecord>(Folder::Overlays)? {
            self.overlay_remove(&network_id).await?;
        }
        self.ingress_remove().await?;
        self.fading.finish().await;
        let bridges: Vec<String> = self.state().bridges.keys().cloned().collect();
        for network_id in bridges {
            self.remove_bridge_network(&network_id).await?;
        }
        for name in [&self.config.gwbridge_name, &self.config.bridge_name] {
            self.links.remove(name).await.map_err(kernel(format!("remove link {name}")))?;
        }
        let mut state = self.state();
        state.gwbridge_index = None;
        state.firewall.remove().map_err(kernel("remove the firewall"))
    }
}

/// The text of a file; empty if there is none.
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The bridge address of the first free subnet.
pub(crate) fn first_address(config: &NetConfig, taken: &[Ipv4Cidr]) -> Result<Ipv4Cidr, NetError> {
    let subnet = free_subnet(&config.default_address_pools, taken).ok_or(NetError::NoFreeSubnet)?;
    Ok(Ipv4Cidr::new(Ipv4Addr::from(u32::from(subnet.address) + 1), subnet.prefix))
}

/// Makes a bridge of the host with its address and settings, and returns its index.
pub(crate) async fn make_bridge(
    links: &Links,
    config: &NetConfig,
    name: &str,
    address: Ipv4Cidr,
) -> Result<u32, NetError> {
    let made = links.ensure_bridge(name, mac_of(address.address), config.mtu).await;
    let index = made.map_err(kernel(format!("make bridge {name}")))?;
    links.add_address(index, address).await.map_err(kernel(format!("set address of bridge {name}")))?;
    if config.iptables {
        // published ports on 127.0.0.1
        let sysctl = format!("net/ipv4/conf/{name}/route_localnet");
        netns::set_sysctl(&sysctl, "1").map_err(kernel(format!("set {sysctl}")))?;
    }
    Ok(index)
}

/// Networks of a first start.
pub(crate) fn new_networks(bridge: Ipv4Cidr) -> Result<Networks, NetError> {
    let record = |address| -> Result<NetworkRecord, NetError> {
        Ok(NetworkRecord { id: new_id()?, created_unix_ns: now_unix_ns(), address })
    };
    Ok(Networks { bridge: record(Some(bridge))?, host: record(None)?, none: record(None)?, gwbridge: None })
}

/// Reads the sandboxes of a former daemon and takes their ports again.
pub(crate) fn adopt_sandboxes(
    store: &Store,
    ports: &mut PortTable,
) -> Result<BTreeMap<String, SandboxRecord>, NetError> {
    let records: Vec<(String, SandboxRecord)> = store.read_all(Folder::Sandboxes)?;
    let mut sandboxes = BTreeMap::new();
    for (container_id, mut record) in records {
        if is_lost(&record) {
            // no rules, no ports; reconcile removes the rest
            record.is_ready = false;
            record.sandbox.ports.clear();
        } else {
            ports.adopt(&container_id, &record.sandbox.ports);
        }
        sandboxes.insert(container_id, record);
    }
    Ok(sandboxes)
}

/// Opens the firewall in the thread's namespace.
pub(crate) fn open_firewall(config: &NetConfig) -> Result<Firewall, NetError> {
    Firewall::open(&config.table_prefix, config.iptables).map_err(kernel("open the firewall"))
}
