//! Cluster volumes (CSI). The fields are SwarmKit's; `swarm-proto` converts them.

#[allow(unused_imports, reason = "one prelude for all files of the model")]
use crate::prelude::*;
use std::collections::BTreeMap;

/// SwarmKit's `VolumeAccessMode`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeAccessMode {
    /// Scope.
    pub scope: VolumeScope,
    /// Sharing.
    pub sharing: VolumeSharing,
    /// Which one of the kinds it is, if any.
    pub access_type: Option<VolumeAccessModeType>,
}

/// The `access_type` of a [`VolumeAccessMode`].
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeAccessModeType {
    /// `block`.
    Block(AccessBlock),
    /// `mount`.
    Mount(AccessMount),
}

/// SwarmKit's `VolumeAccessMode.Scope`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum VolumeScope {
    /// `SINGLE_NODE`.
    #[default]
    SingleNode = 0,
    /// `MULTI_NODE`.
    MultiNode = 1,
}

impl VolumeScope {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::SingleNode,
            1 => Self::MultiNode,
            _ => return None,
        })
    }
}

/// SwarmKit's `VolumeAccessMode.Sharing`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum VolumeSharing {
    /// `NONE`.
    #[default]
    None = 0,
    /// `READ_ONLY`.
    ReadOnly = 1,
    /// `ONE_WRITER`.
    OneWriter = 2,
    /// `ALL`.
    All = 3,
}

impl VolumeSharing {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::ReadOnly,
            2 => Self::OneWriter,
            3 => Self::All,
            _ => return None,
        })
    }
}

/// SwarmKit's `VolumeAccessMode.BlockVolume`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessBlock;

/// SwarmKit's `VolumeAccessMode.MountVolume`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessMount {
    /// Fs type.
    pub fs_type: String,
    /// Mount flags.
    pub mount_flags: Vec<String>,
}

/// SwarmKit's `VolumeSecret`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeSecret {
    /// Key.
    pub key: String,
    /// Secret.
    pub secret: String,
}

/// SwarmKit's `VolumePublishStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumePublishStatus {
    /// Node id.
    pub node_id: NodeId,
    /// State.
    pub state: VolumePublishState,
    /// Publish context.
    pub publish_context: BTreeMap<String, String>,
    /// Message.
    pub message: String,
}

/// SwarmKit's `VolumePublishStatus.State`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum VolumePublishState {
    /// `PENDING_PUBLISH`.
    #[default]
    PendingPublish = 0,
    /// `PUBLISHED`.
    Published = 1,
    /// `PENDING_NODE_UNPUBLISH`.
    PendingNodeUnpublish = 2,
    /// `PENDING_UNPUBLISH`.
    PendingUnpublish = 3,
}

impl VolumePublishState {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::PendingPublish,
            1 => Self::Published,
            2 => Self::PendingNodeUnpublish,
            3 => Self::PendingUnpublish,
            _ => return None,
        })
    }
}

/// SwarmKit's `VolumeInfo`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeInfo {
    /// Capacity bytes.
    pub capacity_bytes: i64,
    /// Volume context.
    pub volume_context: BTreeMap<String, String>,
    /// Volume id.
    pub volume_id: String,
    /// Accessible topology.
    pub accessible_topology: Vec<Topology>,
}

/// SwarmKit's `CapacityRange`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CapacityRange {
    /// Required bytes.
    pub required_bytes: i64,
    /// Limit bytes.
    pub limit_bytes: i64,
}

/// SwarmKit's `VolumeAssignment`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeAssignment {
    /// Identifier.
    pub id: String,
    /// Volume id.
    pub volume_id: String,
    /// Driver.
    pub driver: Option<Driver>,
    /// Volume context.
    pub volume_context: BTreeMap<String, String>,
    /// Publish context.
    pub publish_context: BTreeMap<String, String>,
    /// Access mode.
    pub access_mode: Option<VolumeAccessMode>,
    /// Secrets.
    pub secrets: Vec<VolumeSecret>,
}

/// SwarmKit's `VolumeAttachment`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeAttachment {
    /// Identifier.
    pub id: String,
    /// Source.
    pub source: String,
    /// Target.
    pub target: String,
}

/// SwarmKit's `TopologyRequirement`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopologyRequirement {
    /// Requisite.
    pub requisite: Vec<Topology>,
    /// Preferred.
    pub preferred: Vec<Topology>,
}

/// SwarmKit's `Topology`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// Segments.
    pub segments: BTreeMap<String, String>,
}

/// SwarmKit's `VolumeCapability`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeCapability {
    /// Which one of the kinds it is, if any.
    pub access_type: Option<VolumeCapabilityType>,
    /// Access mode.
    pub access_mode: Option<CapabilityAccessMode>,
}

/// The `access_type` of a [`VolumeCapability`].
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeCapabilityType {
    /// `block`.
    Block(CapabilityBlock),
    /// `mount`.
    Mount(CapabilityMount),
}

/// SwarmKit's `VolumeCapability.BlockVolume`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilityBlock;

/// SwarmKit's `VolumeCapability.MountVolume`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CapabilityMount {
    /// Fs type.
    pub fs_type: String,
    /// Mount flags.
    pub mount_flags: Vec<String>,
}

/// SwarmKit's `VolumeCapability.AccessMode`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CapabilityAccessMode {
    /// Mode.
    pub mode: CapabilityMode,
}

/// SwarmKit's `VolumeCapability.AccessMode.Mode`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum CapabilityMode {
    /// `UNKNOWN`.
    #[default]
    Unknown = 0,
    /// `SINGLE_NODE_WRITER`.
    SingleNodeWriter = 1,
    /// `SINGLE_NODE_READER_ONLY`.
    SingleNodeReaderOnly = 2,
    /// `MULTI_NODE_READER_ONLY`.
    MultiNodeReaderOnly = 3,
    /// `MULTI_NODE_SINGLE_WRITER`.
    MultiNodeSingleWriter = 4,
    /// `MULTI_NODE_MULTI_WRITER`.
    MultiNodeMultiWriter = 5,
}

impl CapabilityMode {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Unknown,
            1 => Self::SingleNodeWriter,
            2 => Self::SingleNodeReaderOnly,
            3 => Self::MultiNodeReaderOnly,
            4 => Self::MultiNodeSingleWriter,
            5 => Self::MultiNodeMultiWriter,
            _ => return None,
        })
    }
}

/// SwarmKit's `VolumeSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeSpec {
    /// Annotations.
    pub annotations: Annotations,
    /// Group.
    pub group: String,
    /// Driver.
    pub driver: Option<Driver>,
    /// Access mode.
    pub access_mode: Option<VolumeAccessMode>,
    /// Secrets.
    pub secrets: Vec<VolumeSecret>,
    /// Accessibility requirements.
    pub accessibility_requirements: Option<TopologyRequirement>,
    /// Capacity range.
    pub capacity_range: Option<CapacityRange>,
    /// Availability.
    pub availability: VolumeAvailability,
}

/// SwarmKit's `VolumeSpec.VolumeAvailability`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum VolumeAvailability {
    /// `ACTIVE`.
    #[default]
    Active = 0,
    /// `PAUSE`.
    Pause = 1,
    /// `DRAIN`.
    Drain = 2,
}

impl VolumeAvailability {
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

/// SwarmKit's `Volume`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volume {
    /// Identifier.
    pub id: VolumeId,
    /// Version and times.
    pub meta: Meta,
    /// What the user asked for.
    pub spec: VolumeSpec,
    /// Publish status.
    pub publish_status: Vec<VolumePublishStatus>,
    /// Volume info.
    pub volume_info: Option<VolumeInfo>,
    /// Pending delete.
    pub pending_delete: bool,
}
