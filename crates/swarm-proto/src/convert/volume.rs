//! Conversions of `model::volume`: one field a line, nothing decided.

use model as m;

use super::{ConvertError, FromProto, ToProto, list_from_proto, list_to_proto, option_from_proto, option_to_proto};
use crate::swarmkit as p;

impl ToProto for m::VolumeAccessMode {
    type Proto = p::VolumeAccessMode;
    fn to_proto(&self) -> p::VolumeAccessMode {
        p::VolumeAccessMode {
            scope: self.scope as i32,
            sharing: self.sharing as i32,
            access_type: self.access_type.as_ref().map(|v| match v {
                m::VolumeAccessModeType::Block(v) => p::volume_access_mode::AccessType::Block(v.to_proto()),
                m::VolumeAccessModeType::Mount(v) => p::volume_access_mode::AccessType::Mount(v.to_proto()),
            }),
        }
    }
}

impl FromProto for m::VolumeAccessMode {
    type Proto = p::VolumeAccessMode;
    fn from_proto(p: p::VolumeAccessMode) -> Result<Self, ConvertError> {
        Ok(m::VolumeAccessMode {
            scope: m::VolumeScope::from_number(p.scope)
                .ok_or(ConvertError { field: "VolumeAccessMode.scope", number: p.scope })?,
            sharing: m::VolumeSharing::from_number(p.sharing)
                .ok_or(ConvertError { field: "VolumeAccessMode.sharing", number: p.sharing })?,
            access_type: match p.access_type {
                None => None,
                Some(v) => Some(match v {
                    p::volume_access_mode::AccessType::Block(v) => {
                        m::VolumeAccessModeType::Block(FromProto::from_proto(v)?)
                    }
                    p::volume_access_mode::AccessType::Mount(v) => {
                        m::VolumeAccessModeType::Mount(FromProto::from_proto(v)?)
                    }
                }),
            },
        })
    }
}

impl ToProto for m::AccessBlock {
    type Proto = p::AccessBlock;
    fn to_proto(&self) -> p::AccessBlock {
        p::AccessBlock {}
    }
}

impl FromProto for m::AccessBlock {
    type Proto = p::AccessBlock;
    fn from_proto(_: p::AccessBlock) -> Result<Self, ConvertError> {
        Ok(m::AccessBlock)
    }
}

impl ToProto for m::AccessMount {
    type Proto = p::AccessMount;
    fn to_proto(&self) -> p::AccessMount {
        p::AccessMount { fs_type: self.fs_type.clone(), mount_flags: self.mount_flags.clone() }
    }
}

impl FromProto for m::AccessMount {
    type Proto = p::AccessMount;
    fn from_proto(p: p::AccessMount) -> Result<Self, ConvertError> {
        Ok(m::AccessMount { fs_type: p.fs_type, mount_flags: p.mount_flags })
    }
}

impl ToProto for m::VolumeSecret {
    type Proto = p::VolumeSecret;
    fn to_proto(&self) -> p::VolumeSecret {
        p::VolumeSecret { key: self.key.clone(), secret: self.secret.clone() }
    }
}

impl FromProto for m::VolumeSecret {
    type Proto = p::VolumeSecret;
    fn from_proto(p: p::VolumeSecret) -> Result<Self, ConvertError> {
        Ok(m::VolumeSecret { key: p.key, secret: p.secret })
    }
}

impl ToProto for m::VolumePublishStatus {
    type Proto = p::VolumePublishStatus;
    fn to_proto(&self) -> p::VolumePublishStatus {
        p::VolumePublishStatus {
            node_id: self.node_id.to_string(),
            state: self.state as i32,
            publish_context: self.publish_context.clone().into_iter().collect(),
            message: self.message.clone(),
        }
    }
}

impl FromProto for m::VolumePublishStatus {
    type Proto = p::VolumePublishStatus;
    fn from_proto(p: p::VolumePublishStatus) -> Result<Self, ConvertError> {
        Ok(m::VolumePublishStatus {
            node_id: p.node_id.into(),
            state: m::VolumePublishState::from_number(p.state)
                .ok_or(ConvertError { field: "VolumePublishStatus.state", number: p.state })?,
            publish_context: p.publish_context.into_iter().collect(),
            message: p.message,
        })
    }
}

impl ToProto for m::VolumeInfo {
    type Proto = p::VolumeInfo;
    fn to_proto(&self) -> p::VolumeInfo {
        p::VolumeInfo {
            capacity_bytes: self.capacity_bytes,
            volume_context: self.volume_context.clone().into_iter().collect(),
            volume_id: self.volume_id.clone(),
            accessible_topology: list_to_proto(&self.accessible_topology),
        }
    }
}

impl FromProto for m::VolumeInfo {
    type Proto = p::VolumeInfo;
    fn from_proto(p: p::VolumeInfo) -> Result<Self, ConvertError> {
        Ok(m::VolumeInfo {
            capacity_bytes: p.capacity_bytes,
            volume_context: p.volume_context.into_iter().collect(),
            volume_id: p.volume_id,
            accessible_topology: list_from_proto(p.accessible_topology)?,
        })
    }
}

impl ToProto for m::CapacityRange {
    type Proto = p::CapacityRange;
    fn to_proto(&self) -> p::CapacityRange {
        p::CapacityRange { required_bytes: self.required_bytes, limit_bytes: self.limit_bytes }
    }
}

impl FromProto for m::CapacityRange {
    type Proto = p::CapacityRange;
    fn from_proto(p: p::CapacityRange) -> Result<Self, ConvertError> {
        Ok(m::CapacityRange { required_bytes: p.required_bytes, limit_bytes: p.limit_bytes })
    }
}

impl ToProto for m::VolumeAssignment {
    type Proto = p::VolumeAssignment;
    fn to_proto(&self) -> p::VolumeAssignment {
        p::VolumeAssignment {
            id: self.id.clone(),
            volume_id: self.volume_id.clone(),
            driver: option_to_proto(self.driver.as_ref()),
            volume_context: self.volume_context.clone().into_iter().collect(),
            publish_context: self.publish_context.clone().into_iter().collect(),
            access_mode: option_to_proto(self.access_mode.as_ref()),
            secrets: list_to_proto(&self.secrets),
        }
    }
}

impl FromProto for m::VolumeAssignment {
    type Proto = p::VolumeAssignment;
    fn from_proto(p: p::VolumeAssignment) -> Result<Self, ConvertError> {
        Ok(m::VolumeAssignment {
            id: p.id,
            volume_id: p.volume_id,
            driver: option_from_proto(p.driver)?,
            volume_context: p.volume_context.into_iter().collect(),
            publish_context: p.publish_context.into_iter().collect(),
            access_mode: option_from_proto(p.access_mode)?,
            secrets: list_from_proto(p.secrets)?,
        })
    }
}

impl ToProto for m::VolumeAttachment {
    type Proto = p::VolumeAttachment;
    fn to_proto(&self) -> p::VolumeAttachment {
        p::VolumeAttachment { id: self.id.clone(), source: self.source.clone(), target: self.target.clone() }
    }
}

impl FromProto for m::VolumeAttachment {
    type Proto = p::VolumeAttachment;
    fn from_proto(p: p::VolumeAttachment) -> Result<Self, ConvertError> {
        Ok(m::VolumeAttachment { id: p.id, source: p.source, target: p.target })
    }
}

impl ToProto for m::TopologyRequirement {
    type Proto = p::TopologyRequirement;
    fn to_proto(&self) -> p::TopologyRequirement {
        p::TopologyRequirement { requisite: list_to_proto(&self.requisite), preferred: list_to_proto(&self.preferred) }
    }
}

impl FromProto for m::TopologyRequirement {
    type Proto = p::TopologyRequirement;
    fn from_proto(p: p::TopologyRequirement) -> Result<Self, ConvertError> {
        Ok(m::TopologyRequirement {
            requisite: list_from_proto(p.requisite)?,
            preferred: list_from_proto(p.preferred)?,
        })
    }
}

impl ToProto for m::Topology {
    type Proto = p::Topology;
    fn to_proto(&self) -> p::Topology {
        p::Topology { segments: self.segments.clone().into_iter().collect() }
    }
}

impl FromProto for m::Topology {
    type Proto = p::Topology;
    fn from_proto(p: p::Topology) -> Result<Self, ConvertError> {
        Ok(m::Topology { segments: p.segments.into_iter().collect() })
    }
}

impl ToProto for m::VolumeCapability {
    type Proto = p::VolumeCapability;
    fn to_proto(&self) -> p::VolumeCapability {
        p::VolumeCapability {
            access_type: self.access_type.as_ref().map(|v| match v {
                m::VolumeCapabilityType::Block(v) => p::volume_capability::AccessType::Block(v.to_proto()),
                m::VolumeCapabilityType::Mount(v) => p::volume_capability::AccessType::Mount(v.to_proto()),
            }),
            access_mode: option_to_proto(self.access_mode.as_ref()),
        }
    }
}

impl FromProto for m::VolumeCapability {
    type Proto = p::VolumeCapability;
    fn from_proto(p: p::VolumeCapability) -> Result<Self, ConvertError> {
        Ok(m::VolumeCapability {
            access_type: match p.access_type {
                None => None,
                Some(v) => Some(match v {
                    p::volume_capability::AccessType::Block(v) => {
                        m::VolumeCapabilityType::Block(FromProto::from_proto(v)?)
                    }
                    p::volume_capability::AccessType::Mount(v) => {
                        m::VolumeCapabilityType::Mount(FromProto::from_proto(v)?)
                    }
                }),
            },
            access_mode: option_from_proto(p.access_mode)?,
        })
    }
}

impl ToProto for m::CapabilityBlock {
    type Proto = p::CapabilityBlock;
    fn to_proto(&self) -> p::CapabilityBlock {
        p::CapabilityBlock {}
    }
}

impl FromProto for m::CapabilityBlock {
    type Proto = p::CapabilityBlock;
    fn from_proto(_: p::CapabilityBlock) -> Result<Self, ConvertError> {
        Ok(m::CapabilityBlock)
    }
}

impl ToProto for m::CapabilityMount {
    type Proto = p::CapabilityMount;
    fn to_proto(&self) -> p::CapabilityMount {
        p::CapabilityMount { fs_type: self.fs_type.clone(), mount_flags: self.mount_flags.clone() }
    }
}

impl FromProto for m::CapabilityMount {
    type Proto = p::CapabilityMount;
    fn from_proto(p: p::CapabilityMount) -> Result<Self, ConvertError> {
        Ok(m::CapabilityMount { fs_type: p.fs_type, mount_flags: p.mount_flags })
    }
}

impl ToProto for m::CapabilityAccessMode {
    type Proto = p::CapabilityAccessMode;
    fn to_proto(&self) -> p::CapabilityAccessMode {
        p::CapabilityAccessMode { mode: self.mode as i32 }
    }
}

impl FromProto for m::CapabilityAccessMode {
    type Proto = p::CapabilityAccessMode;
    fn from_proto(p: p::CapabilityAccessMode) -> Result<Self, ConvertError> {
        Ok(m::CapabilityAccessMode {
            mode: m::CapabilityMode::from_number(p.mode)
                .ok_or(ConvertError { field: "VolumeCapability.AccessMode.mode", number: p.mode })?,
        })
    }
}

impl ToProto for m::VolumeSpec {
    type Proto = p::VolumeSpec;
    fn to_proto(&self) -> p::VolumeSpec {
        p::VolumeSpec {
            annotations: Some(self.annotations.to_proto()),
            group: self.group.clone(),
            driver: option_to_proto(self.driver.as_ref()),
            access_mode: option_to_proto(self.access_mode.as_ref()),
            secrets: list_to_proto(&self.secrets),
            accessibility_requirements: option_to_proto(self.accessibility_requirements.as_ref()),
            capacity_range: option_to_proto(self.capacity_range.as_ref()),
            availability: self.availability as i32,
        }
    }
}

impl FromProto for m::VolumeSpec {
    type Proto = p::VolumeSpec;
    fn from_proto(p: p::VolumeSpec) -> Result<Self, ConvertError> {
        Ok(m::VolumeSpec {
            annotations: FromProto::from_proto(p.annotations.unwrap_or_default())?,
            group: p.group,
            driver: option_from_proto(p.driver)?,
            access_mode: option_from_proto(p.access_mode)?,
            secrets: list_from_proto(p.secrets)?,
            accessibility_requirements: option_from_proto(p.accessibility_requirements)?,
            capacity_range: option_from_proto(p.capacity_range)?,
            availability: m::VolumeAvailability::from_number(p.availability)
                .ok_or(ConvertError { field: "VolumeSpec.availability", number: p.availability })?,
        })
    }
}

impl ToProto for m::Volume {
    type Proto = p::Volume;
    fn to_proto(&self) -> p::Volume {
        p::Volume {
            id: self.id.to_string(),
            meta: Some(self.meta.to_proto()),
            spec: Some(self.spec.to_proto()),
            publish_status: list_to_proto(&self.publish_status),
            volume_info: option_to_proto(self.volume_info.as_ref()),
            pending_delete: self.pending_delete,
        }
    }
}

impl FromProto for m::Volume {
    type Proto = p::Volume;
    fn from_proto(p: p::Volume) -> Result<Self, ConvertError> {
        Ok(m::Volume {
            id: p.id.into(),
            meta: FromProto::from_proto(p.meta.unwrap_or_default())?,
            spec: FromProto::from_proto(p.spec.unwrap_or_default())?,
            publish_status: list_from_proto(p.publish_status)?,
            volume_info: option_from_proto(p.volume_info)?,
            pending_delete: p.pending_delete,
        })
    }
}
