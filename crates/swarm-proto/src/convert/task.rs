//! Conversions of `model::task`: one field a line, nothing decided.

use std::sync::Arc;

use model as m;

use super::{ConvertError, FromProto, ToProto, list_from_proto, list_to_proto, option_from_proto, option_to_proto};
use crate::swarmkit as p;

impl ToProto for m::ContainerStatus {
    type Proto = p::ContainerStatus;
    fn to_proto(&self) -> p::ContainerStatus {
        p::ContainerStatus { container_id: self.container_id.clone(), pid: self.pid, exit_code: self.exit_code }
    }
}

impl FromProto for m::ContainerStatus {
    type Proto = p::ContainerStatus;
    fn from_proto(p: p::ContainerStatus) -> Result<Self, ConvertError> {
        Ok(m::ContainerStatus { container_id: p.container_id, pid: p.pid, exit_code: p.exit_code })
    }
}

impl ToProto for m::PortStatus {
    type Proto = p::PortStatus;
    fn to_proto(&self) -> p::PortStatus {
        p::PortStatus { ports: list_to_proto(&self.ports) }
    }
}

impl FromProto for m::PortStatus {
    type Proto = p::PortStatus;
    fn from_proto(p: p::PortStatus) -> Result<Self, ConvertError> {
        Ok(m::PortStatus { ports: list_from_proto(p.ports)? })
    }
}

impl ToProto for m::TaskStatus {
    type Proto = p::TaskStatus;
    fn to_proto(&self) -> p::TaskStatus {
        p::TaskStatus {
            timestamp: option_to_proto(self.timestamp.as_ref()),
            state: self.state as i32,
            message: self.message.clone(),
            err: self.err.clone(),
            runtime_status: self.container.as_ref().map(|v| p::task_status::RuntimeStatus::Container(v.to_proto())),
            port_status: option_to_proto(self.port_status.as_ref()),
            applied_by: self.applied_by.clone(),
            applied_at: option_to_proto(self.applied_at.as_ref()),
        }
    }
}

impl FromProto for m::TaskStatus {
    type Proto = p::TaskStatus;
    fn from_proto(p: p::TaskStatus) -> Result<Self, ConvertError> {
        Ok(m::TaskStatus {
            timestamp: option_from_proto(p.timestamp)?,
            state: m::TaskState::from_number(p.state)
                .ok_or(ConvertError { field: "TaskStatus.state", number: p.state })?,
            message: p.message,
            err: p.err,
            container: match p.runtime_status {
                Some(p::task_status::RuntimeStatus::Container(v)) => Some(FromProto::from_proto(v)?),
                None => None,
            },
            port_status: option_from_proto(p.port_status)?,
            applied_by: p.applied_by,
            applied_at: option_from_proto(p.applied_at)?,
        })
    }
}

impl ToProto for m::TaskSpec {
    type Proto = p::TaskSpec;
    fn to_proto(&self) -> p::TaskSpec {
        p::TaskSpec {
            runtime: self.runtime.as_ref().map(|v| match v {
                m::TaskRuntime::Container(v) => p::task_spec::Runtime::Container(v.to_proto()),
                m::TaskRuntime::Attachment(v) => p::task_spec::Runtime::Attachment(v.to_proto()),
                m::TaskRuntime::Generic(v) => p::task_spec::Runtime::Generic(v.to_proto()),
            }),
            resources: option_to_proto(self.resources.as_ref()),
            restart: option_to_proto(self.restart.as_ref()),
            placement: option_to_proto(self.placement.as_ref()),
            log_driver: option_to_proto(self.log_driver.as_ref()),
            networks: list_to_proto(&self.networks),
            force_update: self.force_update,
            resource_references: list_to_proto(&self.resource_references),
        }
    }
}

impl FromProto for m::TaskSpec {
    type Proto = p::TaskSpec;
    fn from_proto(p: p::TaskSpec) -> Result<Self, ConvertError> {
        Ok(m::TaskSpec {
            runtime: match p.runtime {
                None => None,
                Some(v) => Some(match v {
                    p::task_spec::Runtime::Container(v) => m::TaskRuntime::Container(FromProto::from_proto(v)?),
                    p::task_spec::Runtime::Attachment(v) => m::TaskRuntime::Attachment(FromProto::from_proto(v)?),
                    p::task_spec::Runtime::Generic(v) => m::TaskRuntime::Generic(FromProto::from_proto(v)?),
                }),
            },
            resources: option_from_proto(p.resources)?,
            restart: option_from_proto(p.restart)?,
            placement: option_from_proto(p.placement)?,
            log_driver: option_from_proto(p.log_driver)?,
            networks: list_from_proto(p.networks)?,
            force_update: p.force_update,
            resource_references: list_from_proto(p.resource_references)?,
        })
    }
}

impl ToProto for m::GenericRuntimeSpec {
    type Proto = p::GenericRuntimeSpec;
    fn to_proto(&self) -> p::GenericRuntimeSpec {
        p::GenericRuntimeSpec { kind: self.kind.clone(), payload: option_to_proto(self.payload.as_ref()) }
    }
}

impl FromProto for m::GenericRuntimeSpec {
    type Proto = p::GenericRuntimeSpec;
    fn from_proto(p: p::GenericRuntimeSpec) -> Result<Self, ConvertError> {
        Ok(m::GenericRuntimeSpec { kind: p.kind, payload: option_from_proto(p.payload)? })
    }
}

impl ToProto for m::NetworkAttachmentSpec {
    type Proto = p::NetworkAttachmentSpec;
    fn to_proto(&self) -> p::NetworkAttachmentSpec {
        p::NetworkAttachmentSpec { container_id: self.container_id.clone() }
    }
}

impl FromProto for m::NetworkAttachmentSpec {
    type Proto = p::NetworkAttachmentSpec;
    fn from_proto(p: p::NetworkAttachmentSpec) -> Result<Self, ConvertError> {
        Ok(m::NetworkAttachmentSpec { container_id: p.container_id })
    }
}

impl ToProto for m::Task {
    type Proto = p::Task;
    fn to_proto(&self) -> p::Task {
        p::Task {
            id: self.id.to_string(),
            meta: Some(self.meta.to_proto()),
            spec: Some(self.spec.to_proto()),
            service_id: self.service_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            slot: self.slot,
            node_id: self.node_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            annotations: Some(self.annotations.to_proto()),
            service_annotations: Some(self.service_annotations.to_proto()),
            status: Some(self.status.to_proto()),
            desired_state: self.desired_state as i32,
            networks: list_to_proto(&self.networks),
            endpoint: option_to_proto(self.endpoint.as_ref()),
            log_driver: option_to_proto(self.log_driver.as_ref()),
            spec_version: self.spec_version.map(|v| p::Version { index: v.0 }),
            assigned_generic_resources: list_to_proto(&self.assigned_generic_resources),
            job_iteration: self.job_iteration.map(|v| p::Version { index: v.0 }),
            volumes: list_to_proto(&self.volumes),
        }
    }
}

impl FromProto for m::Task {
    type Proto = p::Task;
    fn from_proto(p: p::Task) -> Result<Self, ConvertError> {
        Ok(m::Task {
            id: p.id.into(),
            meta: FromProto::from_proto(p.meta.unwrap_or_default())?,
            spec: Arc::new(FromProto::from_proto(p.spec.unwrap_or_default())?),
            service_id: (!p.service_id.is_empty()).then(|| p.service_id.into()),
            slot: p.slot,
            node_id: (!p.node_id.is_empty()).then(|| p.node_id.into()),
            annotations: FromProto::from_proto(p.annotations.unwrap_or_default())?,
            service_annotations: FromProto::from_proto(p.service_annotations.unwrap_or_default())?,
            status: FromProto::from_proto(p.status.unwrap_or_default())?,
            desired_state: m::TaskState::from_number(p.desired_state)
                .ok_or(ConvertError { field: "Task.desired_state", number: p.desired_state })?,
            networks: list_from_proto(p.networks)?,
            endpoint: option_from_proto(p.endpoint)?,
            log_driver: option_from_proto(p.log_driver)?,
            spec_version: p.spec_version.map(|v| m::SpecVersion(v.index)),
            assigned_generic_resources: list_from_proto(p.assigned_generic_resources)?,
            job_iteration: p.job_iteration.map(|v| m::JobIteration(v.index)),
            volumes: list_from_proto(p.volumes)?,
        })
    }
}
