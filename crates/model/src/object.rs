//! What every object carries: annotations, meta, drivers, peers, custom resources. The fields are SwarmKit's; `swarm-proto` converts them.

#[allow(unused_imports, reason = "one prelude for all files of the model")]
use crate::prelude::*;
use std::collections::BTreeMap;

/// SwarmKit's `ResourceType`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum ResourceType {
    /// `TASK`.
    #[default]
    Task = 0,
    /// `SECRET`.
    Secret = 1,
    /// `CONFIG`.
    Config = 2,
    /// `VOLUME`.
    Volume = 3,
}

impl ResourceType {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Task,
            1 => Self::Secret,
            2 => Self::Config,
            3 => Self::Volume,
            _ => return None,
        })
    }
}

/// SwarmKit's `IndexEntry`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IndexEntry {
    /// Key.
    pub key: String,
    /// Val.
    pub val: String,
}

/// SwarmKit's `Annotations`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    /// Name: unique per object kind, compared lower-cased (services, networks, secrets, configs, volumes, clusters,
    /// nodes when set).
    pub name: String,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// Indices: used only by custom resources/extensions.
    pub indices: Vec<IndexEntry>,
}

/// SwarmKit's `Driver`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Driver {
    /// Name.
    pub name: String,
    /// Options.
    pub options: BTreeMap<String, String>,
}

/// SwarmKit's `Peer`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peer {
    /// Node id.
    pub node_id: NodeId,
    /// Addr.
    pub addr: String,
}

/// SwarmKit's `WeightedPeer`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightedPeer {
    /// Peer.
    pub peer: Option<Peer>,
    /// Weight.
    pub weight: i64,
}

/// SwarmKit's `ResourceReference`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceReference {
    /// Resource id.
    pub resource_id: String,
    /// Resource type.
    pub resource_type: ResourceType,
}

/// SwarmKit's `Meta`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// Version: raft commit index known to the leader when the write transaction began; optimistic-lock token.
    pub version: ObjectVersion,
    /// Created at.
    pub created_at: Option<Timestamp>,
    /// Updated at.
    pub updated_at: Option<Timestamp>,
}

/// SwarmKit's `Resource`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// Identifier.
    pub id: ResourceId,
    /// Version and times.
    pub meta: Meta,
    /// Annotations.
    pub annotations: Annotations,
    /// Kind.
    pub kind: String,
    /// Payload.
    pub payload: Option<Any>,
}

/// SwarmKit's `Extension`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extension {
    /// Identifier.
    pub id: ExtensionId,
    /// Version and times.
    pub meta: Meta,
    /// Annotations.
    pub annotations: Annotations,
    /// Description.
    pub description: String,
}

/// Any protobuf message, undecoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Any {
    /// What kind of message it is.
    pub type_url: String,
    /// Its encoding.
    pub value: Vec<u8>,
}
