//! Nodes: specs, descriptions, states, certificates. The fields are SwarmKit's; `swarm-proto` converts them.

#[allow(unused_imports, reason = "one prelude for all files of the model")]
use crate::prelude::*;
use std::collections::BTreeMap;

/// SwarmKit's `NodeRole`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum NodeRole {
    /// `WORKER`.
    #[default]
    Worker = 0,
    /// `MANAGER`.
    Manager = 1,
}

impl NodeRole {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Worker,
            1 => Self::Manager,
            _ => return None,
        })
    }
}

/// SwarmKit's `PluginDescription`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginDescription {
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// SwarmKit's `EngineDescription`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineDescription {
    /// Engine version.
    pub engine_version: String,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// Plugins.
    pub plugins: Vec<PluginDescription>,
}

/// SwarmKit's `NodeDescription`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeDescription {
    /// Hostname.
    pub hostname: String,
    /// Platform.
    pub platform: Option<Platform>,
    /// Resources.
    pub resources: Option<Resources>,
    /// Engine.
    pub engine: Option<EngineDescription>,
    /// Tls info.
    pub tls_info: Option<NodeTlsInfo>,
    /// Fips.
    pub fips: bool,
    /// Csi info.
    pub csi_info: Vec<NodeCsiInfo>,
}

/// SwarmKit's `NodeTLSInfo`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeTlsInfo {
    /// Trust root.
    pub trust_root: Vec<u8>,
    /// Cert issuer subject.
    pub cert_issuer_subject: Vec<u8>,
    /// Cert issuer public key.
    pub cert_issuer_public_key: Vec<u8>,
}

/// SwarmKit's `NodeCSIInfo`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeCsiInfo {
    /// Plugin name.
    pub plugin_name: String,
    /// Node id.
    pub node_id: String,
    /// Max volumes per node.
    pub max_volumes_per_node: i64,
    /// Accessible topology.
    pub accessible_topology: Option<Topology>,
}

/// SwarmKit's `RaftMemberStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaftMemberStatus {
    /// Leader.
    pub leader: bool,
    /// Reachability.
    pub reachability: Reachability,
    /// Message.
    pub message: String,
}

/// SwarmKit's `RaftMemberStatus.Reachability`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum Reachability {
    /// `UNKNOWN`.
    #[default]
    Unknown = 0,
    /// `UNREACHABLE`.
    Unreachable = 1,
    /// `REACHABLE`.
    Reachable = 2,
}

impl Reachability {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Unknown,
            1 => Self::Unreachable,
            2 => Self::Reachable,
            _ => return None,
        })
    }
}

/// SwarmKit's `NodeStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeStatus {
    /// State.
    pub state: NodeState,
    /// Message.
    pub message: String,
    /// Addr: remote IP (no port) seen by the dispatcher at registration.
    pub addr: String,
}

/// SwarmKit's `NodeStatus.State`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum NodeState {
    /// `UNKNOWN`.
    #[default]
    Unknown = 0,
    /// `DOWN`.
    Down = 1,
    /// `READY`.
    Ready = 2,
    /// `DISCONNECTED`.
    Disconnected = 3,
}

impl NodeState {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Unknown,
            1 => Self::Down,
            2 => Self::Ready,
            3 => Self::Disconnected,
            _ => return None,
        })
    }
}

/// SwarmKit's `IssuanceStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IssuanceStatus {
    /// State.
    pub state: IssuanceState,
    /// Err.
    pub err: String,
}

/// SwarmKit's `IssuanceStatus.State`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum IssuanceState {
    /// `UNKNOWN`.
    #[default]
    Unknown = 0,
    /// `RENEW`.
    Renew = 1,
    /// `PENDING`.
    Pending = 2,
    /// `ISSUED`.
    Issued = 3,
    /// `FAILED`.
    Failed = 4,
    /// `ROTATE`.
    Rotate = 5,
}

impl IssuanceState {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Unknown,
            1 => Self::Renew,
            2 => Self::Pending,
            3 => Self::Issued,
            4 => Self::Failed,
            5 => Self::Rotate,
            _ => return None,
        })
    }
}

/// SwarmKit's `Certificate`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Certificate {
    /// Role.
    pub role: NodeRole,
    /// Csr.
    pub csr: Vec<u8>,
    /// Status.
    pub status: IssuanceStatus,
    /// Certificate.
    pub certificate: Vec<u8>,
    /// Cn.
    pub cn: String,
}

/// SwarmKit's `ManagerStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManagerStatus {
    /// Raft id.
    pub raft_id: RaftId,
    /// Addr.
    pub addr: String,
    /// Leader.
    pub leader: bool,
    /// Reachability.
    pub reachability: Reachability,
}

/// SwarmKit's `NodeSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSpec {
    /// Annotations.
    pub annotations: Annotations,
    /// Desired role: what the operator asked for; Node.role is what is in force.
    pub desired_role: NodeRole,
    /// Membership: ACCEPTED(1) at creation; becomes PENDING(0) after any API node update (dockerd sends no
    /// membership). Never gate renewals or scheduling on it: only first issuance (certificate state PENDING) requires
    /// ACCEPTED.
    pub membership: NodeMembership,
    /// Availability.
    pub availability: NodeAvailability,
}

/// SwarmKit's `NodeSpec.Membership`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum NodeMembership {
    /// `PENDING`.
    #[default]
    Pending = 0,
    /// `ACCEPTED`.
    Accepted = 1,
}

impl NodeMembership {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Pending,
            1 => Self::Accepted,
            _ => return None,
        })
    }
}

/// SwarmKit's `NodeSpec.Availability`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum NodeAvailability {
    /// `ACTIVE`.
    #[default]
    Active = 0,
    /// `PAUSE`.
    Pause = 1,
    /// `DRAIN`.
    Drain = 2,
}

impl NodeAvailability {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Active,
            1 => Self::Pause,
            2 => Self::Drain,
            _ => return None,
        })
    }
}

/// SwarmKit's `Node`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Identifier.
    pub id: NodeId,
    /// Version and times.
    pub meta: Meta,
    /// What the user asked for.
    pub spec: NodeSpec,
    /// Description.
    pub description: Option<NodeDescription>,
    /// Status.
    pub status: NodeStatus,
    /// Manager status: filled on read from the live raft member list; the stored copy is not authoritative.
    pub manager_status: Option<ManagerStatus>,
    /// Attachment: deprecated; pre-18.09 single ingress attachment; read if attachments empty, written nil.
    pub attachment: Option<NetworkAttachment>,
    /// Certificate: CSR, issued chain and issuance state.
    pub certificate: Certificate,
    /// Role: observed role, changed by the role manager / certificate flow.
    pub role: NodeRole,
    /// Attachments: LB endpoint address of this node on the ingress network and on every overlay network it hosts a
    /// task of.
    pub attachments: Vec<NetworkAttachment>,
    /// Vxlan udp port: copied from Cluster when the node is created; used by the worker as VXLAN destination port.
    pub vxlan_udp_port: u32,
}
