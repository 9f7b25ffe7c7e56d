//! Services.

use std::collections::BTreeMap;
use std::sync::Arc;

use model as m;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::json::{Empty, is_zero};
use crate::network::{Endpoint, EndpointSpec};
use crate::swarm::Version;
use crate::task::{NetworkAttachmentConfig, TaskSpec};
use crate::time::Time;
use crate::version::ApiVersion;
use crate::words::Word;

/// Why a spec was refused before it reached the cluster; the texts are dockerd's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    #[error("mismatched Runtime and *Spec fields")]
    MismatchedRuntime,
    #[error("unsupported runtime")]
    UnsupportedRuntime,
    #[error("runtime type \"plugin\" only supported in experimental")]
    PluginRuntime,
    #[error("must specify only one service mode")]
    SeveralModes,
    #[error("invalid RestartCondition: {0:?}")]
    RestartCondition(String),
    #[error("unrecognized update failure action {0}")]
    FailureAction(String),
    #[error("unrecognized update order {0}")]
    UpdateOrder(String),
    #[error("invalid resolution mode: {0:?}")]
    ResolutionMode(String),
    #[error("invalid MountType: {0:?}")]
    MountType(String),
    #[error("invalid MountPropagation: {0:?}")]
    MountPropagation(String),
    #[error("invalid mount consistency: {0:?}")]
    MountConsistency(String),
    #[error("invalid seccomp mode: {0:?}")]
    SeccompMode(String),
    #[error("unknown AppArmor mode: {0:?}")]
    AppArmorMode(String),
    #[error(
        "invalid CredentialSpec: must either provide \"file\", \"registry\", or \"config\" option for credential spec"
    )]
    CredentialSpecMissing,
    #[error("invalid CredentialSpec: cannot specify both \"config\" and \"file\" or \"registry\" for credential spec")]
    CredentialSpecAmbiguous,
    #[error("invalid config: cannot specify both File and Runtime")]
    ConfigTargetAmbiguous,
    #[error("invalid Role: {0:?}")]
    NodeRole(String),
    #[error("invalid Availability: {0:?}")]
    NodeAvailability(String),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceSpec {
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub task_template: TaskSpec,
    pub mode: ServiceMode,
    #[serde(skip_serializing_if = "is_zero")]
    pub update_config: Option<UpdateConfig>,
    #[serde(skip_serializing_if = "is_zero")]
    pub rollback_config: Option<UpdateConfig>,
    /// Deprecated: networks of the task template are meant.
    #[serde(skip_serializing_if = "is_zero")]
    pub networks: Vec<NetworkAttachmentConfig>,
    #[serde(skip_serializing_if = "is_zero")]
    pub endpoint_spec: Option<EndpointSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceMode {
    #[serde(skip_serializing_if = "is_zero")]
    pub replicated: Option<ReplicatedService>,
    #[serde(skip_serializing_if = "is_zero")]
    pub global: Option<Empty>,
    #[serde(skip_serializing_if = "is_zero")]
    pub replicated_job: Option<ReplicatedJob>,
    #[serde(skip_serializing_if = "is_zero")]
    pub global_job: Option<Empty>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ReplicatedService {
    #[serde(skip_serializing_if = "is_zero")]
    pub replicas: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ReplicatedJob {
    #[serde(skip_serializing_if = "is_zero")]
    pub max_concurrent: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub total_completions: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateConfig {
    pub parallelism: u64,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub failure_action: String,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub monitor: i64,
    #[serde(serialize_with = "crate::json::go_float")]
    pub max_failure_ratio: f32,
    pub order: String,
}

/// `GET /services/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Service {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: Version,
    pub created_at: Time,
    pub updated_at: Time,
    pub spec: ServiceSpec,
    #[serde(skip_serializing_if = "is_zero")]
    pub previous_spec: Option<ServiceSpec>,
    pub endpoint: Endpoint,
    #[serde(skip_serializing_if = "is_zero")]
    pub update_status: Option<UpdateStatus>,
    #[serde(skip_serializing_if = "is_zero")]
    pub service_status: Option<ServiceStatus>,
    #[serde(skip_serializing_if = "is_zero")]
    pub job_status: Option<JobStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateStatus {
    #[serde(skip_serializing_if = "is_zero")]
    pub state: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub started_at: Option<Time>,
    #[serde(skip_serializing_if = "is_zero")]
    pub completed_at: Option<Time>,
    #[serde(skip_serializing_if = "is_zero")]
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceStatus {
    pub running_tasks: u64,
    pub desired_tasks: u64,
    pub completed_tasks: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JobStatus {
    pub job_iteration: Version,
    pub last_execution: Time,
}

/// `POST /services/create`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceCreateResponse {
    #[serde(rename = "ID", skip_serializing_if = "is_zero")]
    pub id: String,
    #[serde(rename = "Warnings")]
    pub warnings: Option<Vec<String>>,
}

/// `POST /services/{id}/update`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceUpdateResponse {
    pub warnings: Option<Vec<String>>,
}

impl ServiceSpec {
    /// Drops what a client of that API version cannot have meant.
    pub fn adjust_for(&mut self, version: ApiVersion) {
        let below = |minor| version < ApiVersion::new(1, minor);
        if let Some(container) = &mut self.task_template.container_spec {
            if below(46) {
                container.mounts.iter_mut().filter_map(|mount| mount.tmpfs_options.as_mut()).for_each(|options| {
                    options.options.clear();
                });
                container.oom_score_adj = 0;
            }
            if let Some(privileges) = container.privileges.as_mut().filter(|_| below(44)) {
                privileges.seccomp = None;
                privileges.app_armor = None;
                privileges.no_new_privileges = false;
            }
            if below(41) {
                container.capability_add.clear();
                container.capability_drop.clear();
                container.ulimits.clear();
            }
            if below(40) {
                container.sysctls.clear();
                container.configs.iter_mut().for_each(|config| config.runtime = None);
                let credential_spec =
                    container.privileges.as_mut().and_then(|privileges| privileges.credential_spec.as_mut());
                if let Some(spec) = credential_spec {
                    spec.config.clear();
                }
            }
        }
        if below(41) {
            if let Some(limits) = self.task_template.resources.as_mut().and_then(|all| all.limits.as_mut()) {
                limits.pids = 0;
            }
            self.mode.replicated_job = None;
            self.mode.global_job = None;
        }
        if let Some(placement) = self.task_template.placement.as_mut().filter(|_| below(40)) {
            placement.max_replicas = 0;
        }
    }

    /// What it means in the model. The name may be empty, the caller finds one then.
    pub fn to_model(&self) -> Result<m::ServiceSpec, SpecError> {
        Ok(m::ServiceSpec {
            annotations: annotations(&self.name, &self.labels),
            task: Arc::new(self.task_template.to_model()?),
            mode: Some(self.mode.to_model()?),
            update: self.update_config.as_ref().map(UpdateConfig::to_model).transpose()?,
            networks: self.networks.iter().map(NetworkAttachmentConfig::to_model).collect(),
            endpoint: self.endpoint_spec.as_ref().map(EndpointSpec::to_model).transpose()?,
            rollback: self.rollback_config.as_ref().map(UpdateConfig::to_model).transpose()?,
        })
    }

    /// How it is shown.
    pub fn from_model(spec: &m::ServiceSpec) -> Self {
        let mut task_template = TaskSpec::from_model(&spec.task);
        if let Some(m::TaskRuntime::Container(_)) = spec.task.runtime {
            task_template.runtime = "container".to_owned();
        }
        Self {
            name: spec.annotations.name.clone(),
            labels: spec.annotations.labels.clone(),
            task_template,
            mode: ServiceMode::from_model(spec.mode.as_ref()),
            update_config: spec.update.as_ref().map(UpdateConfig::from_model),
            rollback_config: spec.rollback.as_ref().map(UpdateConfig::from_model),
            networks: spec.networks.iter().map(NetworkAttachmentConfig::from_model).collect(),
            endpoint_spec: spec.endpoint.as_ref().map(EndpointSpec::from_model),
        }
    }
}

pub(crate) fn annotations(name: &str, labels: &BTreeMap<String, String>) -> m::Annotations {
    m::Annotations { name: name.to_owned(), labels: labels.clone(), indices: Vec::new() }
}

impl ServiceMode {
    fn to_model(&self) -> Result<m::ServiceMode, SpecError> {
        let given = [
            self.replicated.is_some(),
            self.global.is_some(),
            self.replicated_job.is_some(),
            self.global_job.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() > 1 {
            return Err(SpecError::SeveralModes);
        }
        if self.global.is_some() {
            return Ok(m::ServiceMode::Global(m::GlobalService));
        }
        if self.global_job.is_some() {
            return Ok(m::ServiceMode::GlobalJob(m::GlobalJob));
        }
        if let Some(job) = &self.replicated_job {
            let max_concurrent = job.max_concurrent.unwrap_or(1);
            let total_completions = job.total_completions.unwrap_or(max_concurrent);
            return Ok(m::ServiceMode::ReplicatedJob(m::ReplicatedJob { max_concurrent, total_completions }));
        }
        let replicas = self.replicated.as_ref().and_then(|replicated| replicated.replicas).unwrap_or(1);
        Ok(m::ServiceMode::Replicated(m::ReplicatedService { replicas }))
    }

    fn from_model(mode: Option<&m::ServiceMode>) -> Self {
        let mut shown = Self::default();
        match mode {
            Some(m::ServiceMode::Replicated(replicated)) => {
                shown.replicated = Some(ReplicatedService { replicas: Some(replicated.replicas) });
            }
            Some(m::ServiceMode::Global(_)) => shown.global = Some(Empty),
            Some(m::ServiceMode::ReplicatedJob(job)) => {
                shown.replicated_job = Some(ReplicatedJob {
                    max_concurrent: Some(job.max_concurrent),
                    total_completions: Some(job.total_completions),
                });
            }
            Some(m::ServiceMode::GlobalJob(_)) => shown.global_job = Some(Empty),
            None => {}
        }
        shown
    }
}

impl UpdateConfig {
    fn to_model(&self) -> Result<m::UpdateConfig, SpecError> {
        let failure_action = match self.failure_action.as_str() {
            "" => m::FailureAction::Pause,
            word => m::FailureAction::from_word(word).ok_or_else(|| SpecError::FailureAction(word.to_owned()))?,
        };
        let order = match self.order.as_str() {
            "" => m::UpdateOrder::StopFirst,
            word => m::UpdateOrder::from_word(word).ok_or_else(|| SpecError::UpdateOrder(word.to_owned()))?,
        };
        Ok(m::UpdateConfig {
            parallelism: self.parallelism,
            delay: m::Duration::from_nanos(self.delay),
            failure_action,
            monitor: (self.monitor != 0).then(|| m::Duration::from_nanos(self.monitor)),
            max_failure_ratio: self.max_failure_ratio,
            order,
        })
    }

    fn from_model(config: &m::UpdateConfig) -> Self {
        Self {
            parallelism: config.parallelism,
            delay: config.delay.total_nanos(),
            failure_action: config.failure_action.word().to_owned(),
            monitor: config.monitor.map_or(0, m::Duration::total_nanos),
            max_failure_ratio: config.max_failure_ratio,
            order: config.order.word().to_owned(),
        }
    }
}

impl Service {
    /// How a service is shown, without counts of its tasks.
    pub fn from_model(service: &m::Service) -> Self {
        Self {
            id: service.id.to_string(),
            version: Version { index: service.meta.version.0 },
            created_at: service.meta.created_at.into(),
            updated_at: service.meta.updated_at.into(),
            spec: ServiceSpec::from_model(&service.spec),
            previous_spec: service.previous_spec.as_ref().map(ServiceSpec::from_model),
            endpoint: Endpoint::from_model(service.endpoint.as_ref()),
            update_status: service.update_status.as_ref().map(UpdateStatus::from_model),
            service_status: None,
            job_status: service.job_status.as_ref().map(|status| JobStatus {
                job_iteration: Version { index: status.job_iteration.0 },
                last_execution: status.last_execution.into(),
            }),
        }
    }
}

impl UpdateStatus {
    fn from_model(status: &m::UpdateStatus) -> Self {
        let seen = |at: Option<m::Timestamp>| at.filter(|at| at.seconds != 0).map(Time::from);
        Self {
            state: status.state.word().to_owned(),
            started_at: seen(status.started_at),
            completed_at: seen(status.completed_at),
            message: status.message.clone(),
        }
    }
}
