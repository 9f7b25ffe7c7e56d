//! What can go wrong, with dockerd's words where a user sees them.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::Protocol;

/// Why a network operation failed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A port is held by another container of this daemon.
    #[error(
        "driver failed programming external connectivity on endpoint {name} ({endpoint_id}): \
         Bind for {address}:{port} failed: port is already allocated"
    )]
    PortAllocated {
        /// Container name.
        name: String,
        /// Endpoint id.
        endpoint_id: String,
        /// Host address asked for.
        address: Ipv4Addr,
        /// Host port asked for.
        port: u16,
    },
    /// A port is held by another program of the host.
    #[error(
        "driver failed programming external connectivity on endpoint {name} ({endpoint_id}): \
         listen {protocol}4 {address}:{port}: bind: {reason}"
    )]
    PortInUse {
        /// Container name.
        name: String,
        /// Endpoint id.
        endpoint_id: String,
        /// Transport protocol.
        protocol: Protocol,
        /// Host address asked for.
        address: Ipv4Addr,
        /// Host port asked for.
        port: u16,
        /// The system's words, such as `address already in use`.
        reason: String,
    },
    /// No port of the range is free.
    #[error(
        "driver failed programming external connectivity on endpoint {name} ({endpoint_id}): \
         all ports are allocated"
    )]
    NoFreePort {
        /// Container name.
        name: String,
        /// Endpoint id.
        endpoint_id: String,
    },
    /// The subnet has no free address.
    #[error("no available IPv4 addresses on this network's address pools: {network}")]
    NoFreeAddress {
        /// Network name.
        network: String,
    },
    /// The address that was asked for is somebody's.
    #[error("Address already in use")]
    AddressInUse,
    /// The subnet that was asked for is another network's.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    PoolOverlap,
    /// There is a network of this name.
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    /// The network cannot be removed: containers are on it.
    #[error("network {network} has active endpoints ({endpoints})")]
    NetworkInUse {
        /// Network name.
        network: String,
        /// Containers and endpoints, in words.
        endpoints: String,
    },
    /// The container is on the network already, in another place.
    #[error("endpoint with name {name} already exists in network {network}")]
    EndpointExists {
        /// Container name.
        name: String,
        /// Network name.
        network: String,
    },
    /// What was asked for is not built.
    #[error("{0} is not supported by Skep yet")]
    NotBuilt(String),
    /// Every subnet of the default pools overlaps a route or a network.
    #[error("all predefined address pools have been fully subnetted")]
    NoFreeSubnet,
    /// The container has no sandbox.
    #[error("sandbox of container {0} not found")]
    NoSandbox(String),
    /// The container has a sandbox already.
    #[error("container {0} has a network sandbox already")]
    SandboxExists(String),
    /// The node has no such ingress network (yet).
    #[error("network {0} not found")]
    NoNetwork(String),
    /// Another device of this machine has the VXLAN id.
    #[error("network {network} cannot be made here: VXLAN id {vni} on UDP port {port} belongs to {owner}")]
    VniInUse {
        /// Network name.
        network: String,
        /// VXLAN id.
        vni: u32,
        /// UDP port.
        port: u16,
        /// Whose it is, as far as can be seen.
        owner: String,
    },
    /// The network is to be encrypted, and cannot be here.
    #[error("network {network} is to be encrypted, which this machine cannot do: {reason}; nothing of it is sent")]
    NoEncryption {
        /// Network name.
        network: String,
        /// What the machine lacks.
        reason: String,
    },
    /// The request contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// The kernel refused.
    #[error("{action}: {source}")]
    Kernel {
        /// What was attempted.
        action: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}
