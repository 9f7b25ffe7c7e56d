//! Networks, endpoints and published ports. The fields are SwarmKit's; `swarm-proto` converts them.

#[allow(unused_imports, reason = "one prelude for all files of the model")]
use crate::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// SwarmKit's `NetworkAttachmentConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkAttachmentConfig {
    /// Target.
    pub target: String,
    /// Aliases.
    pub aliases: Vec<String>,
    /// Addresses.
    pub addresses: Vec<String>,
    /// Driver attachment opts.
    pub driver_attachment_opts: BTreeMap<String, String>,
}

/// SwarmKit's `IPAMConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IpamConfig {
    /// Family.
    pub family: AddressFamily,
    /// Subnet.
    pub subnet: String,
    /// Range.
    pub range: String,
    /// Gateway.
    pub gateway: String,
    /// Reserved.
    pub reserved: BTreeMap<String, String>,
}

/// SwarmKit's `IPAMConfig.AddressFamily`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum AddressFamily {
    /// `UNKNOWN`.
    #[default]
    Unknown = 0,
    /// `IPV4`.
    Ipv4 = 4,
    /// `IPV6`.
    Ipv6 = 6,
}

impl AddressFamily {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Unknown,
            4 => Self::Ipv4,
            6 => Self::Ipv6,
            _ => return None,
        })
    }
}

/// SwarmKit's `PortConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortConfig {
    /// Name.
    pub name: String,
    /// Protocol.
    pub protocol: PortProtocol,
    /// Target port.
    pub target_port: u32,
    /// Published port: 0 asks for a dynamic port (ingress only).
    pub published_port: u32,
    /// Publish mode.
    pub publish_mode: PublishMode,
}

/// SwarmKit's `PortConfig.Protocol`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum PortProtocol {
    /// `TCP`.
    #[default]
    Tcp = 0,
    /// `UDP`.
    Udp = 1,
    /// `SCTP`.
    Sctp = 2,
}

impl PortProtocol {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Tcp,
            1 => Self::Udp,
            2 => Self::Sctp,
            _ => return None,
        })
    }
}

/// SwarmKit's `PortConfig.PublishMode`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum PublishMode {
    /// `INGRESS`.
    #[default]
    Ingress = 0,
    /// `HOST`.
    Host = 1,
}

impl PublishMode {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Ingress,
            1 => Self::Host,
            _ => return None,
        })
    }
}

/// SwarmKit's `IPAMOptions`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IpamOptions {
    /// Driver.
    pub driver: Option<Driver>,
    /// Configs.
    pub configs: Vec<IpamConfig>,
}

/// SwarmKit's `EndpointSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointSpec {
    /// Mode.
    pub mode: ResolutionMode,
    /// Ports.
    pub ports: Vec<PortConfig>,
}

/// SwarmKit's `EndpointSpec.ResolutionMode`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum ResolutionMode {
    /// `VIP`.
    #[default]
    Vip = 0,
    /// `DNSRR`.
    Dnsrr = 1,
}

impl ResolutionMode {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Vip,
            1 => Self::Dnsrr,
            _ => return None,
        })
    }
}

/// SwarmKit's `NetworkSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkSpec {
    /// Annotations.
    pub annotations: Annotations,
    /// Driver config.
    pub driver_config: Option<Driver>,
    /// Ipv6 enabled.
    pub ipv6_enabled: bool,
    /// Internal.
    pub internal: bool,
    /// Ipam.
    pub ipam: Option<IpamOptions>,
    /// Attachable.
    pub attachable: bool,
    /// Ingress: marks the routing-mesh network.
    pub ingress: bool,
    /// Network: name of a node-local config-only network (config-from).
    pub network: Option<String>,
}

/// SwarmKit's `Endpoint`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoint {
    /// What the user asked for.
    pub spec: Option<EndpointSpec>,
    /// Ports.
    pub ports: Vec<PortConfig>,
    /// Virtual ips.
    pub virtual_ips: Vec<VirtualIp>,
}

/// SwarmKit's `Endpoint.VirtualIP`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualIp {
    /// Network id.
    pub network_id: NetworkId,
    /// Addr: CIDR string; empty for node-local networks (file 04 §10.2).
    pub addr: String,
}

/// SwarmKit's `NetworkAttachment`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkAttachment {
    /// Network.
    pub network: Option<Arc<Network>>,
    /// Addresses: CIDR strings ("10.0.1.5/24").
    pub addresses: Vec<String>,
    /// Aliases: extra DNS names of the service on that network.
    pub aliases: Vec<String>,
    /// Driver attachment opts.
    pub driver_attachment_opts: BTreeMap<String, String>,
}

/// SwarmKit's `Network`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// Identifier.
    pub id: NetworkId,
    /// Version and times.
    pub meta: Meta,
    /// What the user asked for.
    pub spec: NetworkSpec,
    /// Driver state: driver name + options after allocation; overlay needs option
    /// com.docker.network.driver.overlay.vxlanid_list.
    pub driver_state: Option<Driver>,
    /// Ipam: resolved IPAM driver and subnets/gateways.
    pub ipam: Option<IpamOptions>,
    /// Pending delete.
    pub pending_delete: bool,
    /// Extra: swarmkit >= 2.1 only.
    pub extra: Option<Any>,
}
