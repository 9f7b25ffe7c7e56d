//! Making and removing sandboxes.
//!
//! ```text
//! reserve (lock)            build                                       open (lock)
//! addresses, ports, record  namespace, links, task rules, name server   port rules, record ready
//!        │ fails: nothing          │ fails ────────┐                           │ fails
//!        └ kept                    └───────────────┴──────────► remove ◄───────┘
//! ```
//! The record is on disk before anything is made, so that a daemon that dies in between finds what to remove.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::bridges::Wish;
use crate::dns;
use crate::ipam::parse_mac;
use crate::links::{BridgePort, Links, Veth};
use crate::net::Inner;
use crate::netns::{self, Namespace};
use crate::overlay;
use crate::ports::Asker;
use crate::state::{State, kernel, new_id, now_unix_ns, way_out};
use crate::store::{Folder, NearLink, SandboxRecord};
use crate::task_rules::{self, TaskMesh};
use crate::{
    BridgeEndpointSpec, Endpoint, Ipv4Cidr, NetError, OverlayEndpointSpec, PublishedPort, Sandbox, SandboxMode,
    SandboxSpec,
};

/// One endpoint to be built.
pub(crate) struct Plan {
    pub(crate) endpoint: Endpoint,
    pub(crate) near: NearLink,
    pub(crate) bridge_index: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) port: BridgePort,
    pub(crate) links: Arc<Links>,
    /// Networks behind a gateway on this link; the default route is set by [`set_way_out`].
    pub(crate) routes: Vec<(Ipv4Cidr, Ipv4Addr)>,
}

impl Plan {
    /// Makes the link of a namespace, with its addresses and routes.
    pub(crate) async fn build(&self, namespace: &Namespace, inside: &Links) -> Result<(), NetError> {
        let veth = Veth {
            name: &self.near.name,
            bridge: self.bridge_index,
            peer_name: &self.endpoint.link,
            peer_mac: self.mac,
            mtu: self.mtu,
            port: self.port,
        };
        self.links.add_veth(&veth, namespace).await.map_err(kernel("make a veth pair"))?;
        let action = || kernel(format!("configure link {}", self.endpoint.link));
        if self.endpoint.address6.is_some() {
            let sysctl = format!("net/ipv6/conf/{}/disable_ipv6", self.endpoint.link);
            namespace.enter(|| netns::set_sysctl(&sysctl, "0")).map_err(action())?;
        }
        inside.start(veth.peer_name, self.endpoint.address, None).await.map_err(action())?;
        if let Some((address, prefix)) = self.endpoint.address6 {
            inside.add_address6(veth.peer_name, address, prefix).await.map_err(action())?;
        }
        for (network, gateway) in &self.routes {
            inside.add_route(*network, *gateway).await.map_err(action())?;
        }
        Ok(())
    }
}

impl Inner {
    /// See [`crate::Net::create_sandbox`].
    pub(crate) async fn create_sandbox(self: Arc<Self>, spec: SandboxSpec) -> Result<Sandbox, NetError> {
        check(&spec)?;
        if let Some(sandbox) = self.existing(&spec)? {
            return Ok(sandbox);
        }
        let gateway_index = if self.wants_gateway(&spec)? { Some(self.ensure_gwbridge().await?) } else { None };
        let (record, plans) = self.reserve(spec, gateway_index)?;
        let container_id = record.spec.container_id.clone();
        let built = match self.build(&record, plans).await {
            Ok(()) => self.open_ports(&container_id),
            Err(error) => Err(error),
        };
        match built {
            Ok(sandbox) => Ok(sandbox),
            Err(error) => {
                if let Err(second) = self.remove_sandbox(&container_id).await {
                    tracing::warn!(error = %second, container = %container_id, "sandbox left over");
                }
                Err(error)
            }
        }
    }

    /// The sandbox of an earlier, equal request: a step that is tried again finds it.
    fn existing(&self, spec: &SandboxSpec) -> Result<Option<Sandbox>, NetError> {
        let state = self.state();
        match state.sandboxes.get(&spec.container_id) {
            None => Ok(None),
            Some(record) if record.is_ready && record.spec == *spec => Ok(Some(record.sandbox.clone())),
            Some(_) => Err(NetError::SandboxExists(spec.container_id.clone())),
        }
    }

    /// Where a container's namespace is pinned.
    pub(crate) fn netns_path(&self, name: &str) -> PathBuf {
        self.config.exec_root.join("netns").join(name)
    }

    /// Takes addresses and ports, and writes the record.
    fn reserve(&self, spec: SandboxSpec, gateway_index: Option<u32>) -> Result<(SandboxRecord, Vec<Plan>), NetError> {
        let mut state = self.state();
        if state.sandboxes.contains_key(&spec.container_id) {
            return Err(NetError::SandboxExists(spec.container_id));
        }
        let plans = self.plan(&mut state, &spec, gateway_index)?;
        let netns = match &spec.mode {
            SandboxMode::Host => None,
            SandboxMode::Container(other) => {
                let other = state.sandboxes.get(other).ok_or_else(|| NetError::NoSandbox(other.clone()))?;
                other.sandbox.netns.clone()
            }
            _ => Some(self.netns_path(&spec.container_id)),
        };
        let sandbox_id = new_id()?;
        let endpoints: Vec<Endpoint> = plans.iter().map(|plan| plan.endpoint.clone()).collect();
        let ports = self.take_ports(&mut state, &spec, &endpoints)?;
        let record = SandboxRecord {
            sandbox: Sandbox {
                container_id: spec.container_id.clone(),
                name: spec.name.clone(),
                sandbox_id,
                mode: spec.mode.clone(),
                netns,
                endpoints,
                ports,
            },
            links: plans.iter().map(|plan| plan.near.clone()).collect(),
            created_unix_ns: now_unix_ns(),
            dns_ports: None,
            is_ready: false,
            spec,
        };
        let container_id = &record.spec.container_id;
        if let Err(error) = self.store.write_record(Folder::Sandboxes, container_id, &record) {
            state.ports.release(container_id);
            return Err(error);
        }
        state.sandboxes.insert(container_id.clone(), record.clone());
        Ok((record, plans))
    }

    /// Takes the ports that a sandbox wants opened; none as long as it has no way out.
    pub(crate) fn take_ports(
        &self,
        state: &mut State,
        spec: &SandboxSpec,
        endpoints: &[Endpoint],
    ) -> Result<Vec<PublishedPort>, NetError> {
        let Some(endpoint) = way_out(endpoints).filter(|_| self.config.iptables) else { return Ok(Vec::new()) };
        let asker = Asker { owner: &spec.container_id, name: &spec.name, endpoint_id: &endpoint.endpoint_id };
        let binding = state.bridges.get(&endpoint.network_id).and_then(|bridge| bridge.settings.binding);
        state.ports.take(asker, binding.unwrap_or(self.config.default_bind_address), &spec.ports)
    }

    /// Whether a sandbox needs an endpoint on the gateway bridge: networks over machines lead no way out by themselves.
    fn wants_gateway(&self, spec: &SandboxSpec) -> Result<bool, NetError> {
        let state = self.state();
        let attachments = state.attachments(&spec.overlays)?;
        let leads_out =
            |endpoint: &BridgeEndpointSpec| self.host_network(&state, &endpoint.network_id).map(|it| !it.internal);
        let has_other = match spec.mode {
            SandboxMode::Swarm => false,
            SandboxMode::Networks => spec.bridges.iter().map(leads_out).collect::<Result<Vec<_>, _>>()?.contains(&true),
            _ => true,
        };
        Ok(!has_other && (spec.ingress.is_some() || attachments.iter().any(|(attachment, _)| !attachment.internal)))
    }

    /// Chooses the endpoints and their addresses: the ingress first, networks as they sort, the way out last.
    fn plan(&self, state: &mut State, spec: &SandboxSpec, gateway_index: Option<u32>) -> Result<Vec<Plan>, NetError> {
        let mut plans = Vec::new();
        let is_plain_task = spec.mode == SandboxMode::Swarm && spec.ingress.is_none() && spec.overlays.is_empty();
        if spec.mode == SandboxMode::Bridge || is_plain_task {
            let wish = Wish { mac: spec.mac_address.as_deref().and_then(parse_mac), ..Wish::default() };
            let network = self.default_bridge(state)?;
            plans.push(self.host_plan(state, network, wish)?);
        }
        if let Some(attachment) = &spec.ingress {
            let endpoint = OverlayEndpointSpec::new(&attachment.network_id, attachment.address);
            let overlay = state.overlay(&attachment.network_id)?;
            if !overlay.record.spec.ingress {
                return Err(NetError::NoNetwork(attachment.network_id.clone()));
            }
            plans.push(overlay::plan(overlay.attachment(attachment.address.address)?, &endpoint)?);
        }
        // those that lead out come first, then by name, as dockerd sorts them
        let mut others = Vec::new();
        for (attachment, endpoint) in state.attachments(&spec.overlays)? {
            others.push((attachment.internal, overlay::plan(attachment, endpoint)?));
        }
        for endpoint in &spec.bridges {
            let network = self.host_network(state, &endpoint.network_id)?;
            others.push((network.internal, self.host_plan(state, network, endpoint.wish())?));
        }
        others.sort_by(|(a, one), (b, other)| (a, &one.endpoint.network_name).cmp(&(b, &other.endpoint.network_name)));
        plans.extend(others.into_iter().map(|(_, plan)| plan));
        if let Some(index) = gateway_index {
            let network = self.gateway_bridge(state, index)?;
            let mut gateway = self.host_plan(state, network, Wish::default())?;
            if spec.ingress.is_some() {
                // replies to the mesh are cut for the default route before they are sent the other way
                gateway.mtu = gateway.mtu.min(plans[0].mtu);
            }
            plans.push(gateway);
        }
        for (index, plan) in plans.iter_mut().enumerate() {
            plan.endpoint.link = format!("eth{index}");
        }
        Ok(plans)
    }

    /// Makes namespace and links.
    async fn build(&self, record: &SandboxRecord, plans: Vec<Plan>) -> Result<(), NetError> {
        let path = match (&record.sandbox.netns, &record.spec.mode) {
            (None, _) | (_, SandboxMode::Container(_)) => return Ok(()),
            (Some(path), _) => path.clone(),
        };
        let (namespace, inside) = make_namespace(path, record.spec.ingress.is_some()).await?;
        inside.set_up(1).await.map_err(kernel("bring up the loopback link"))?;
        for plan in &plans {
            plan.build(&namespace, &inside).await?;
        }
        set_way_out(&inside, way_out(&record.sandbox.endpoints)).await?;
        if let (Some(attachment), [mesh, .., gateway]) = (&record.spec.ingress, plans.as_slice()) {
            let mesh = TaskMesh {
                address: mesh.endpoint.address,
                gateway_address: gateway.endpoint.address.address,
                ports: &attachment.ports,
            };
            task_rules::install(&self.config, &namespace, &inside, &mesh).await?;
        }
        let sysctls = record.spec.sysctls.clone();
        if !sysctls.is_empty() {
            let set = tokio::task::spawn_blocking(move || namespace.enter(|| set_sysctls(&sysctls)));
            set.await.expect("setting sysctls does not panic").map_err(kernel("set a sysctl"))?;
        }
        self.start_resolver(record, dns::Age::New).await
    }

    /// Opens the ports of a sandbox that is built, and marks it ready.
    fn open_ports(&self, container_id: &str) -> Result<Sandbox, NetError> {
        let mut state = self.state();
        state.publish(&self.config, container_id)?;
        // removed while it was built
        let record = state.sandboxes.get(container_id);
        let record = record.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))?;
        self.store.write_record(Folder::Sandboxes, container_id, record)?;
        self.name_sandbox(record);
        Ok(record.sandbox.clone())
    }

    /// Says the names of a sandbox on networks of the user's.
    pub(crate) fn name_sandbox(&self, record: &SandboxRecord) {
        for spec in &record.spec.bridges {
            let of_it = record.sandbox.endpoints.iter().find(|endpoint| endpoint.network_id == spec.network_id);
            if let Some(endpoint) = of_it {
                self.name_endpoint(endpoint, &spec.names);
            }
        }
    }

    /// See [`crate::Net::release_ports`].
    pub(crate) fn release_ports(&self, container_id: &str) -> Result<(), NetError> {
        let mut state = self.state();
        let was_ready = state.sandboxes.get(container_id).is_some_and(|record| record.is_ready);
        state.unpublish(&self.config, container_id)?;
        state.ports.release(container_id);
        let Some(record) = state.sandboxes.get_mut(container_id) else { return Ok(()) };
        record.is_ready = was_ready;
        record.sandbox.ports.clear();
        self.store.write_record(Folder::Sandboxes, container_id, record)
    }

    /// See [`crate::Net::remove_sandbox`].
    pub(crate) async fn remove_sandbox(&self, container_id: &str) -> Result<(), NetError> {
        // first: of a sandbox that was removed while it was built, this may be all there is
        self.dns.stop(container_id).await;
        let record = {
            let mut state = self.state();
            state.unpublish(&self.config, container_id)?;
            state.ports.release(container_id);
            let Some(record) = state.sandboxes.get(container_id) else { return Ok(()) };
            record.clone()
        };
        record.sandbox.endpoints.iter().for_each(|endpoint| self.unname_endpoint(endpoint));
        let ends = record.links.iter().filter_map(|near| Some((near.name.clone(), self.links_at(&near.place)?)));
        let ends: Vec<_> = ends.collect();
        if !matches!(record.spec.mode, SandboxMode::Container(_))
            && let Some(path) = &record.sandbox.netns
        {
            netns::remove(path).map_err(|source| NetError::File { path: path.clone(), source })?;
        }
        // last: a crash until here finds the record and starts over
        self.store.remove_record(Folder::Sandboxes, container_id)?;
        self.state().sandboxes.remove(container_id);
        self.fading.add(ends);
        Ok(())
    }
}

/// Gives a namespace its default route, or none.
pub(crate) async fn set_way_out(inside: &Links, endpoint: Option<&Endpoint>) -> Result<(), NetError> {
    let set = match endpoint.and_then(|endpoint| endpoint.gateway) {
        Some(gateway) => inside.set_default_route(gateway).await,
        None => inside.remove_default_route().await,
    };
    set.map_err(kernel("set a container's default route"))
}

/// The near end's name, as dockerd forms it.
pub(crate) fn near_name(endpoint_id: &str) -> String {
    format!("veth{}", &endpoint_id[..7])
}

fn check(spec: &SandboxSpec) -> Result<(), NetError> {
    let id = &spec.container_id;
    let is_name =
        !id.is_empty() && id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_name {
        return Err(NetError::Invalid(format!("invalid container id {id:?}")));
    }
    if spec.ingress.is_some() && spec.mode != SandboxMode::Swarm {
        return Err(NetError::Invalid("only a task can be on the ingress network".to_owned()));
    }
    let has_own = matches!(spec.mode, SandboxMode::Swarm | SandboxMode::Bridge | SandboxMode::Networks);
    if !(has_own || spec.overlays.is_empty() && spec.bridges.is_empty()) {
        return Err(NetError::Invalid("a container without a network of its own cannot be on others".to_owned()));
    }
    if !spec.dns_networks.is_empty() && matches!(spec.mode, SandboxMode::Host | SandboxMode::Container(_)) {
        return Err(NetError::Invalid("a container without a namespace of its own has no name server".to_owned()));
    }
    if let Some(mac) = spec.mac_address.as_deref().filter(|mac| parse_mac(mac).is_none()) {
        return Err(NetError::Invalid(format!("{mac} is not a valid mac address")));
    }
    Ok(())
}

/// Makes and pins a namespace with the settings every container has.
async fn make_namespace(path: PathBuf, is_on_ingress: bool) -> Result<(Namespace, Links), NetError> {
    let runtime = tokio::runtime::Handle::current();
    let action = format!("make network namespace {}", path.display());
    let make = move || {
        Namespace::create(&path, || {
            for (name, value) in CONTAINER_SYSCTLS {
                netns::set_sysctl_if_present(name, value)?;
            }
            if is_on_ingress {
                // packets of the mesh come by another link than their sender's route says
                netns::set_sysctl("net.ipv4.conf.all.rp_filter", "0")?;
                netns::set_sysctl("net.ipv4.conf.default.rp_filter", "0")?;
                // see `task_rules`: without it each reply is routed twice, and goes the right way all the same
                netns::set_sysctl_if_present("net.ipv4.tcp_fwmark_accept", "1")?;
            }
            Links::open_here(&runtime)
        })
    };
    let made = tokio::task::spawn_blocking(make).await;
    made.expect("making a namespace does not panic").map_err(kernel(action))
}

/// dockerd's settings of a container's namespace; no IPv6 addresses appear on links that have none.
const CONTAINER_SYSCTLS: [(&str, &str); 3] = [
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0\t2147483647"),
];

fn set_sysctls(sysctls: &BTreeMap<String, String>) -> io::Result<()> {
    sysctls.iter().try_for_each(|(name, value)| {
        if !name.starts_with("net.") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("sysctl {name} is not of the network")));
        }
        netns::set_sysctl(name, value)
    })
}
