//! What the engine wants of a network. The daemon implements [`NetworkBackend`] over `net`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ErrorKind;

/// A network operation that failed; the text goes to the user.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct NetworkError {
    /// What sort of failure it is.
    pub kind: ErrorKind,
    /// The text.
    pub text: String,
}

impl NetworkError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// What dockerd leaves unclassified.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, text)
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Reads `tcp`, `udp` or `sctp`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// How a container is joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// On the networks that are asked for, and on no other.
    Networks,
    /// In the host's namespace.
    Host,
    /// Only a loopback link.
    None,
    /// In the namespace of another container, by its id.
    Container(String),
    /// A swarm task.
    Swarm,
}

/// A task's place on the ingress network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressAttachment {
    /// Id of the ingress network.
    pub network_id: String,
    /// Address with the subnet's prefix: `10.0.0.5/24`.
    pub address: String,
    /// Ports of the service in ingress mode.
    pub ports: Vec<IngressPort>,
}

/// A port of a service on the ingress network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressPort {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port of every node.
    pub published: u16,
    /// Port in the container.
    pub target: u16,
}

/// A container's place on an overlay network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayAttachment {
    /// Id of the network.
    pub network_id: String,
    /// Name of the network.
    pub network_name: String,
    /// Address with the subnet's prefix: `10.0.1.5/24`.
    pub address: String,
    /// The same for IPv6.
    pub address_v6: Option<String>,
    /// Further names on it.
    pub aliases: Vec<String>,
}

/// A network that a container shall be on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachmentRequest {
    /// Its name or id.
    pub network: String,
    /// Address on it; `None` for any.
    pub address: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub address_v6: Option<Ipv6Addr>,
    /// Hardware address; `None` for the usual one.
    pub mac_address: Option<[u8; 6]>,
    /// The user's further names for the container there.
    pub aliases: Vec<String>,
    /// Names that only this container knows, each with the name there that it stands for.
    pub links: BTreeMap<String, String>,
    /// Of several gateways that of the highest priority is used.
    pub gateway_priority: i64,
}

/// Who is connected to a network while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkMember {
    /// Container.
    pub container_id: String,
    /// Its name, without `/`.
    pub name: String,
    /// Its host name.
    pub hostname: String,
}

/// A port of the container to open on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port in the container.
    pub container_port: u16,
    /// Only on this address of the host; `None` for every one.
    pub host_address: Option<Ipv4Addr>,
    /// Port of the host; 0 for a free one.
    pub host_port: u16,
    /// Last port of a range to choose from; `host_port` for a single one.
    pub host_port_end: u16,
}

/// What a container's network shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Container.
    pub container_id: String,
    /// Its name, without `/`.
    pub name: String,
    /// Its host name.
    pub hostname: String,
    /// Its domain name, empty for none.
    pub domainname: String,
    /// How it is joined.
    pub mode: NetworkMode,
    /// Ingress attachment of a task; only with [`NetworkMode::Swarm`].
    pub ingress: Option<IngressAttachment>,
    /// Other overlay networks of a task.
    pub overlays: Vec<OverlayAttachment>,
    /// Networks of a container that is no task; only with [`NetworkMode::Networks`].
    pub attachments: Vec<AttachmentRequest>,
    /// Ports to open on the host.
    pub ports: Vec<PortRequest>,
    /// `--dns`.
    pub dns_servers: Vec<String>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--add-host`: name and address, or `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// `net.*` sysctls: name with dots, and value. The network's owner writes them, not the runtime.
    pub sysctls: BTreeMap<String, String>,
}

/// A port that is open on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port in the container.
    pub container_port: u16,
    /// Address of the host; 0.0.0.0 for every one.
    pub host_address: Ipv4Addr,
    /// Port of the host.
    pub host_port: u16,
}

/// A container's attachment to one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEndpoint {
    /// Name of the network.
    pub network_name: String,
    /// Id of the network.
    pub network_id: String,
    /// Id of the attachment; empty if there is no link (host, none).
    pub endpoint_id: String,
    /// Hardware address, empty without a link.
    pub mac: String,
    /// Address and the length of its prefix.
    pub address: Option<(Ipv4Addr, u8)>,
    /// The same for IPv6.
    pub address_v6: Option<(Ipv6Addr, u8)>,
    /// Gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Driver of the network.
    pub driver: NetworkDriver,
}

/// What makes a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkDriver {
    /// A bridge of this machine.
    #[default]
    Bridge,
    /// The host's own network.
    Host,
    /// A loopback link.
    Null,
    /// The swarm.
    Overlay,
}

impl NetworkDriver {
    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
            Self::Overlay => "overlay",
        }
    }
}

/// What a network is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkName {
    /// For users.
    pub name: String,
    /// For programs.
    pub id: String,
    /// Driver.
    pub driver: NetworkDriver,
    /// Subnets that the user chose, each as `10.0.1.0/24`.
    pub chosen_subnets: Vec<String>,
}

/// A container's network as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerNetwork {
    /// `SandboxID` of inspect.
    pub sandbox_id: String,
    /// Namespace to join; `None` for the host's.
    pub netns: Option<PathBuf>,
    /// Attachments.
    pub endpoints: Vec<NetworkEndpoint>,
    /// Ports that are open on the host.
    pub ports: Vec<PublishedPort>,
}

/// Contents of the files that are bound over those of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcFiles {
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// `/etc/hostname`.
    pub hostname: String,
}

/// The network of containers.
#[async_trait::async_trait]
pub trait NetworkBackend: Send + Sync + 'static {
    /// Makes a container's network; idempotent for one container id.
    async fn create(&self, request: NetworkRequest) -> Result<ContainerNetwork, NetworkError>;
    /// Takes it down; idempotent.
    async fn remove(&self, container_id: &str) -> Result<(), NetworkError>;
    /// Connects a container that runs to a network, and returns its place there.
    async fn connect(
        &self,
        member: NetworkMember,
        attachment: AttachmentRequest,
    ) -> Result<NetworkEndpoint, NetworkError>;
    /// Disconnects a container that runs from a network, by its id.
    async fn disconnect(&self, container_id: &str, network_id: &str) -> Result<(), NetworkError>;
    /// A container that runs has another name.
    async fn rename(&self, member: NetworkMember) -> Result<(), NetworkError>;
    /// A network that this machine has, asked for by its name, its id, or the beginning of one.
    fn network(&self, term: &str) -> Option<NetworkName>;
    /// The network of a container, `None` if it has none now.
    fn get(&self, container_id: &str) -> Option<ContainerNetwork>;
    /// Closes the ports on the host; the links stay.
    async fn release_ports(&self, container_id: &str) -> Result<(), NetworkError>;
    /// The files of `/etc` of a container whose network is made.
    fn etc_files(&self, container_id: &str) -> Result<EtcFiles, NetworkError>;
    /// Takes down the networks of all containers but these.
    async fn reconcile(&self, running: &BTreeSet<String>) -> Result<(), NetworkError>;
}
