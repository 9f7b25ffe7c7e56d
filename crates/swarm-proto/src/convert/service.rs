//! Conversions of `model::service`: one field a line, nothing decided.

use std::sync::Arc;

use model as m;

use super::{ConvertError, FromProto, ToProto, list_from_proto, list_to_proto, option_from_proto, option_to_proto};
use crate::swarmkit as p;

impl ToProto for m::RestartPolicy {
    type Proto = p::RestartPolicy;
    fn to_proto(&self) -> p::RestartPolicy {
        p::RestartPolicy {
            condition: self.condition as i32,
            delay: option_to_proto(self.delay.as_ref()),
            max_attempts: self.max_attempts,
            window: option_to_proto(self.window.as_ref()),
        }
    }
}

impl FromProto for m::RestartPolicy {
    type Proto = p::RestartPolicy;
    fn from_proto(p: p::RestartPolicy) -> Result<Self, ConvertError> {
        Ok(m::RestartPolicy {
            condition: m::RestartCondition::from_number(p.condition)
                .ok_or(ConvertError { field: "RestartPolicy.condition", number: p.condition })?,
            delay: option_from_proto(p.delay)?,
            max_attempts: p.max_attempts,
            window: option_from_proto(p.window)?,
        })
    }
}

impl ToProto for m::UpdateConfig {
    type Proto = p::UpdateConfig;
    fn to_proto(&self) -> p::UpdateConfig {
        p::UpdateConfig {
            parallelism: self.parallelism,
            delay: Some(self.delay.to_proto()),
            failure_action: self.failure_action as i32,
            monitor: option_to_proto(self.monitor.as_ref()),
            max_failure_ratio: self.max_failure_ratio,
            order: self.order as i32,
        }
    }
}

impl FromProto for m::UpdateConfig {
    type Proto = p::UpdateConfig;
    fn from_proto(p: p::UpdateConfig) -> Result<Self, ConvertError> {
        Ok(m::UpdateConfig {
            parallelism: p.parallelism,
            delay: FromProto::from_proto(p.delay.unwrap_or_default())?,
            failure_action: m::FailureAction::from_number(p.failure_action)
                .ok_or(ConvertError { field: "UpdateConfig.failure_action", number: p.failure_action })?,
            monitor: option_from_proto(p.monitor)?,
            max_failure_ratio: p.max_failure_ratio,
            order: m::UpdateOrder::from_number(p.order)
                .ok_or(ConvertError { field: "UpdateConfig.order", number: p.order })?,
        })
    }
}

impl ToProto for m::UpdateStatus {
    type Proto = p::UpdateStatus;
    fn to_proto(&self) -> p::UpdateStatus {
        p::UpdateStatus {
            state: self.state as i32,
            started_at: option_to_proto(self.started_at.as_ref()),
            completed_at: option_to_proto(self.completed_at.as_ref()),
            message: self.message.clone(),
        }
    }
}

impl FromProto for m::UpdateStatus {
    type Proto = p::UpdateStatus;
    fn from_proto(p: p::UpdateStatus) -> Result<Self, ConvertError> {
        Ok(m::UpdateStatus {
            state: m::UpdateState::from_number(p.state)
                .ok_or(ConvertError { field: "UpdateStatus.state", number: p.state })?,
            started_at: option_from_proto(p.started_at)?,
            completed_at: option_from_proto(p.completed_at)?,
            message: p.message,
        })
    }
}

impl ToProto for m::SpreadOver {
    type Proto = p::SpreadOver;
    fn to_proto(&self) -> p::SpreadOver {
        p::SpreadOver { spread_descriptor: self.spread_descriptor.clone() }
    }
}

impl FromProto for m::SpreadOver {
    type Proto = p::SpreadOver;
    fn from_proto(p: p::SpreadOver) -> Result<Self, ConvertError> {
        Ok(m::SpreadOver { spread_descriptor: p.spread_descriptor })
    }
}

impl ToProto for m::PlacementPreference {
    type Proto = p::PlacementPreference;
    fn to_proto(&self) -> p::PlacementPreference {
        p::PlacementPreference {
            preference: self.spread.as_ref().map(|v| p::placement_preference::Preference::Spread(v.to_proto())),
        }
    }
}

impl FromProto for m::PlacementPreference {
    type Proto = p::PlacementPreference;
    fn from_proto(p: p::PlacementPreference) -> Result<Self, ConvertError> {
        Ok(m::PlacementPreference {
            spread: match p.preference {
                Some(p::placement_preference::Preference::Spread(v)) => Some(FromProto::from_proto(v)?),
                None => None,
            },
        })
    }
}

impl ToProto for m::Placement {
    type Proto = p::Placement;
    fn to_proto(&self) -> p::Placement {
        p::Placement {
            constraints: self.constraints.clone(),
            preferences: list_to_proto(&self.preferences),
            platforms: list_to_proto(&self.platforms),
            max_replicas: self.max_replicas,
        }
    }
}

impl FromProto for m::Placement {
    type Proto = p::Placement;
    fn from_proto(p: p::Placement) -> Result<Self, ConvertError> {
        Ok(m::Placement {
            constraints: p.constraints,
            preferences: list_from_proto(p.preferences)?,
            platforms: list_from_proto(p.platforms)?,
            max_replicas: p.max_replicas,
        })
    }
}

impl ToProto for m::JobStatus {
    type Proto = p::JobStatus;
    fn to_proto(&self) -> p::JobStatus {
        p::JobStatus {
            job_iteration: Some(p::Version { index: self.job_iteration.0 }),
            last_execution: option_to_proto(self.last_execution.as_ref()),
        }
    }
}

impl FromProto for m::JobStatus {
    type Proto = p::JobStatus;
    fn from_proto(p: p::JobStatus) -> Result<Self, ConvertError> {
        Ok(m::JobStatus {
            job_iteration: m::JobIteration(p.job_iteration.unwrap_or_default().index),
            last_execution: option_from_proto(p.last_execution)?,
        })
    }
}

impl ToProto for m::ServiceSpec {
    type Proto = p::ServiceSpec;
    fn to_proto(&self) -> p::ServiceSpec {
        p::ServiceSpec {
            annotations: Some(self.annotations.to_proto()),
            task: Some(self.task.to_proto()),
            mode: self.mode.as_ref().map(|v| match v {
                m::ServiceMode::Replicated(v) => p::service_spec::Mode::Replicated(v.to_proto()),
                m::ServiceMode::Global(v) => p::service_spec::Mode::Global(v.to_proto()),
                m::ServiceMode::ReplicatedJob(v) => p::service_spec::Mode::ReplicatedJob(v.to_proto()),
                m::ServiceMode::GlobalJob(v) => p::service_spec::Mode::GlobalJob(v.to_proto()),
            }),
            update: option_to_proto(self.update.as_ref()),
            networks: list_to_proto(&self.networks),
            endpoint: option_to_proto(self.endpoint.as_ref()),
            rollback: option_to_proto(self.rollback.as_ref()),
        }
    }
}

impl FromProto for m::ServiceSpec {
    type Proto = p::ServiceSpec;
    fn from_proto(p: p::ServiceSpec) -> Result<Self, ConvertError> {
        Ok(m::ServiceSpec {
            annotations: FromProto::from_proto(p.annotations.unwrap_or_default())?,
            task: Arc::new(FromProto::from_proto(p.task.unwrap_or_default())?),
            mode: match p.mode {
                None => None,
                Some(v) => Some(match v {
                    p::service_spec::Mode::Replicated(v) => m::ServiceMode::Replicated(FromProto::from_proto(v)?),
                    p::service_spec::Mode::Global(v) => m::ServiceMode::Global(FromProto::from_proto(v)?),
                    p::service_spec::Mode::ReplicatedJob(v) => m::ServiceMode::ReplicatedJob(FromProto::from_proto(v)?),
                    p::service_spec::Mode::GlobalJob(v) => m::ServiceMode::GlobalJob(FromProto::from_proto(v)?),
                }),
            },
            update: option_from_proto(p.update)?,
            networks: list_from_proto(p.networks)?,
            endpoint: option_from_proto(p.endpoint)?,
            rollback: option_from_proto(p.rollback)?,
        })
    }
}

impl ToProto for m::ReplicatedService {
    type Proto = p::ReplicatedService;
    fn to_proto(&self) -> p::ReplicatedService {
        p::ReplicatedService { replicas: self.replicas }
    }
}

impl FromProto for m::ReplicatedService {
    type Proto = p::ReplicatedService;
    fn from_proto(p: p::ReplicatedService) -> Result<Self, ConvertError> {
        Ok(m::ReplicatedService { replicas: p.replicas })
    }
}

impl ToProto for m::GlobalService {
    type Proto = p::GlobalService;
    fn to_proto(&self) -> p::GlobalService {
        p::GlobalService {}
    }
}

impl FromProto for m::GlobalService {
    type Proto = p::GlobalService;
    fn from_proto(_: p::GlobalService) -> Result<Self, ConvertError> {
        Ok(m::GlobalService)
    }
}

impl ToProto for m::ReplicatedJob {
    type Proto = p::ReplicatedJob;
    fn to_proto(&self) -> p::ReplicatedJob {
        p::ReplicatedJob { max_concurrent: self.max_concurrent, total_completions: self.total_completions }
    }
}

impl FromProto for m::ReplicatedJob {
    type Proto = p::ReplicatedJob;
    fn from_proto(p: p::ReplicatedJob) -> Result<Self, ConvertError> {
        Ok(m::ReplicatedJob { max_concurrent: p.max_concurrent, total_completions: p.total_completions })
    }
}

impl ToProto for m::GlobalJob {
    type Proto = p::GlobalJob;
    fn to_proto(&self) -> p::GlobalJob {
        p::GlobalJob {}
    }
}

impl FromProto for m::GlobalJob {
    type Proto = p::GlobalJob;
    fn from_proto(_: p::GlobalJob) -> Result<Self, ConvertError> {
        Ok(m::GlobalJob)
    }
}

impl ToProto for m::Service {
    type Proto = p::Service;
    fn to_proto(&self) -> p::Service {
        p::Service {
            id: self.id.to_string(),
            meta: Some(self.meta.to_proto()),
            spec: Some(self.spec.to_proto()),
            endpoint: option_to_proto(self.endpoint.as_ref()),
            update_status: option_to_proto(self.update_status.as_ref()),
            previous_spec: option_to_proto(self.previous_spec.as_ref()),
            pending_delete: self.pending_delete,
            spec_version: self.spec_version.map(|v| p::Version { index: v.0 }),
            previous_spec_version: self.previous_spec_version.map(|v| p::Version { index: v.0 }),
            job_status: option_to_proto(self.job_status.as_ref()),
        }
    }
}

impl FromProto for m::Service {
    type Proto = p::Service;
    fn from_proto(p: p::Service) -> Result<Self, ConvertError> {
        Ok(m::Service {
            id: p.id.into(),
            meta: FromProto::from_proto(p.meta.unwrap_or_default())?,
            spec: FromProto::from_proto(p.spec.unwrap_or_default())?,
            endpoint: option_from_proto(p.endpoint)?,
            update_status: option_from_proto(p.update_status)?,
            previous_spec: option_from_proto(p.previous_spec)?,
            pending_delete: p.pending_delete,
            spec_version: p.spec_version.map(|v| m::SpecVersion(v.index)),
            previous_spec_version: p.previous_spec_version.map(|v| m::SpecVersion(v.index)),
            job_status: option_from_proto(p.job_status)?,
        })
    }
}
