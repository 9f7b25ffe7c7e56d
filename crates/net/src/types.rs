//! What callers ask for and get: sandboxes, endpoints, ports, networks, the ingress.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{BridgeEndpointSpec, Ipv4Cidr, OverlayEndpointSpec};

/// A transport protocol that can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP; published by address translation only, no port is held.
    Sctp,
}

/// How a container is joined to the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxMode {
    /// On the default bridge.
    Bridge,
    /// In the host's namespace: nothing is made.
    Host,
    /// Only a loopback link.
    None,
    /// In the namespace of another container, by its id.
    Container(String),
    /// On the networks that are listed, and on no other but `docker_gwbridge`, where one is needed to get out.
    Networks,
    /// A task: on the ingress network and on others if endpoints are given, and on `docker_gwbridge` unless all are
    /// internal; without endpoints on the default bridge, as dockerd does.
    Swarm,
}

/// A port of the container to be opened on the host (`-p`, or a host-mode port of a service).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port inside the container.
    pub container_port: u16,
    /// Only on this address of the host; `None` or 0.0.0.0 for every one.
    pub host_address: Option<Ipv4Addr>,
    /// Port of the host; 0 for a free one of 32768..=60999.
    pub host_port: u16,
    /// Last port of a range to choose from; equal to `host_port` or 0 for a single port.
    pub host_port_end: u16,
}

/// A port that is open on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port inside the container.
    pub container_port: u16,
    /// Address of the host; 0.0.0.0 for every one.
    pub host_address: Ipv4Addr,
    /// Port of the host, never 0.
    pub host_port: u16,
}

/// A published port of a service on the ingress network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IngressPort {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port of every node, and of the task's ingress address.
    pub published_port: u16,
    /// Port the task's program listens on.
    pub target_port: u16,
}

/// A task's attachment to the ingress network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressEndpointSpec {
    /// Id of the ingress network.
    pub network_id: String,
    /// The task's address with the subnet's prefix, from the managers' allocator.
    pub address: Ipv4Cidr,
    /// Ports of its service in ingress mode.
    pub ports: Vec<IngressPort>,
}

/// `--dns`, `--dns-search`, `--dns-option`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains; a single `.` clears them.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// A network whose names a container can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsNetwork {
    /// Id of the network, as in [`crate::NameRecord::network_id`].
    pub id: String,
    /// Its name: `web.<name>` is `web` on this network.
    pub name: String,
    /// Names that only this container knows, each with the name that it stands for (`--link`).
    pub aliases: BTreeMap<String, String>,
}

/// What a container's network shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Container id, 64 hex digits; names the sandbox.
    pub container_id: String,
    /// Container name without `/`, for error texts and listings.
    pub name: String,
    /// Host name as the container will have it.
    pub hostname: String,
    /// Domain name, empty for none.
    pub domainname: String,
    /// How it is joined.
    pub mode: SandboxMode,
    /// The ingress attachment of a task; only with [`SandboxMode::Swarm`].
    pub ingress: Option<IngressEndpointSpec>,
    /// Attachments to other overlay networks, in any order; not with [`SandboxMode::Host`] and such.
    #[serde(default)]
    pub overlays: Vec<OverlayEndpointSpec>,
    /// Attachments to networks that are bridges of this machine, likewise.
    #[serde(default)]
    pub bridges: Vec<BridgeEndpointSpec>,
    /// Ports to open on the host.
    pub ports: Vec<PortBinding>,
    /// Own DNS settings; empty lists fall back to the daemon's, then the host's.
    pub dns: DnsConfig,
    /// Networks with names, in the order in which they are asked: their members find each other through a name server of
    /// the container's own. Empty for none, as on the default bridge.
    #[serde(default)]
    pub dns_networks: Vec<DnsNetwork>,
    /// `--add-host`: name and address (`host-gateway` stands for the bridge's gateway).
    pub extra_hosts: Vec<(String, String)>,
    /// `--mac-address` on the default bridge.
    pub mac_address: Option<String>,
    /// `--sysctl net.*`: name (with dots) and value, written in the namespace.
    pub sysctls: BTreeMap<String, String>,
}

impl SandboxSpec {
    /// A sandbox on the default bridge without ports.
    pub fn new(container_id: &str, name: &str, mode: SandboxMode) -> Self {
        Self {
            container_id: container_id.to_owned(),
            name: name.to_owned(),
            hostname: container_id.chars().take(12).collect(),
            domainname: String::new(),
            mode,
            ingress: None,
            overlays: Vec::new(),
            bridges: Vec::new(),
            ports: Vec::new(),
            dns: DnsConfig::default(),
            dns_networks: Vec::new(),
            extra_hosts: Vec::new(),
            mac_address: None,
            sysctls: BTreeMap::new(),
        }
    }
}

/// A container's attachment to one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name of the network.
    pub network_name: String,
    /// Id of the network.
    pub network_id: String,
    /// Id of the attachment, 64 hex digits.
    pub endpoint_id: String,
    /// Link name inside the container.
    pub link: String,
    /// Hardware address, `02:42:…`.
    pub mac: String,
    /// Address with the subnet's prefix.
    pub address: Ipv4Cidr,
    /// IPv6 address with its prefix length.
    #[serde(default)]
    pub address6: Option<(Ipv6Addr, u8)>,
    /// Gateway; `None` where the network gives no default route.
    pub gateway: Option<Ipv4Addr>,
    /// Of several gateways that of the highest priority is used (`gw-priority`).
    #[serde(default)]
    pub gateway_priority: i64,
}

/// A container's network as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Container id.
    pub container_id: String,
    /// Container name.
    pub name: String,
    /// Id of the sandbox (`SandboxID` of inspect), 64 hex digits.
    pub sandbox_id: String,
    /// How it is joined.
    pub mode: SandboxMode,
    /// The pinned namespace to join (`SandboxKey`); `None` for the host's.
    pub netns: Option<PathBuf>,
    /// Attachments in link order; for host and none one entry without an address is *not* made.
    pub endpoints: Vec<Endpoint>,
    /// Ports that are open on the host.
    pub ports: Vec<PublishedPort>,
}

/// Contents of the three files of `/etc` that the engine mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcFiles {
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// `/etc/hostname`.
    pub hostname: String,
}

/// The node of a task behind a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendNode {
    /// This one.
    Here,
    /// Another one, that lets a client's address through and answers to the node that was asked.
    Keeping,
    /// Another one, that takes requests only from the ingress address of the node that was asked, as dockerd does.
    Foreign,
}

/// One task behind a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Backend {
    /// The task's address on the ingress network.
    pub address: Ipv4Addr,
    /// The task's node.
    pub node: BackendNode,
}

impl Backend {
    /// A task of this node.
    pub fn here(address: Ipv4Addr) -> Self {
        Self { address, node: BackendNode::Here }
    }
}

/// Published ports of a service with the same tasks behind them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortGroup {
    /// The ports.
    pub ports: Vec<IngressPort>,
    /// The tasks, in any order.
    pub backends: Vec<Backend>,
}

/// What a service's tasks see of their clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAddress {
    /// The client's own address, wherever the task's node can do that.
    #[default]
    Kept,
    /// The ingress address of the node that was asked.
    Hidden,
}

/// A container as a network lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkContainer {
    /// Container id (`ingress-sbox`, `gateway_ingress-sbox` are listed under their names).
    pub container_id: String,
    /// Container name.
    pub name: String,
    /// Endpoint id.
    pub endpoint_id: String,
    /// Hardware address.
    pub mac: String,
    /// Address with prefix.
    pub address: Ipv4Cidr,
}

/// A subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetInfo {
    /// Subnet.
    pub subnet: Ipv4Cidr,
    /// Gateway.
    pub gateway: Ipv4Addr,
    /// The part that addresses are given from; `None` for all of it.
    pub range: Option<Ipv4Cidr>,
    /// Addresses that are not given, with their names.
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// Somebody has chosen it, so that addresses may be asked for.
    pub is_chosen: bool,
}

/// A network of this machine, for `GET /networks` and inspect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkInfo {
    /// Id: 64 hex digits, the same as long as the network exists; ingress has the swarm's id.
    pub id: String,
    /// Name.
    pub name: String,
    /// When it was made, nanoseconds since 1970.
    pub created_unix_ns: i128,
    /// `bridge`, `host`, `null` or `overlay`.
    pub driver: String,
    /// `local` or `swarm`.
    pub scope: String,
    /// Subnets; none for host and none.
    pub subnets: Vec<SubnetInfo>,
    /// Options such as `com.docker.network.bridge.name`.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Containers get no way out through it.
    pub internal: bool,
    /// Containers that are no tasks may be put on it, as its creator said; networks of this machine are open to them anyway.
    pub attachable: bool,
    /// Whether it is the ingress network.
    pub ingress: bool,
    /// What is attached.
    pub containers: Vec<NetworkContainer>,
}
