//! Tasks, and the task template of services.

use std::collections::BTreeMap;

use model as m;
use serde::{Deserialize, Serialize};

use crate::container_spec::ContainerSpec;
use crate::json::is_zero;
use crate::network::{NetworkAttachment, PortConfig};
use crate::service::SpecError;
use crate::swarm::Version;
use crate::time::Time;
use crate::words::Word;

/// SwarmKit's `Driver`: of logs, networks, volumes, secrets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Driver {
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub options: BTreeMap<String, String>,
}

impl Driver {
    pub(crate) fn to_model(&self) -> m::Driver {
        m::Driver { name: self.name.clone(), options: self.options.clone() }
    }

    pub(crate) fn from_model(driver: &m::Driver) -> Self {
        Self { name: driver.name.clone(), options: driver.options.clone() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskSpec {
    #[serde(skip_serializing_if = "is_zero")]
    pub container_spec: Option<ContainerSpec>,
    #[serde(skip_serializing_if = "is_zero")]
    pub plugin_spec: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "is_zero")]
    pub network_attachment_spec: Option<NetworkAttachmentSpec>,
    #[serde(skip_serializing_if = "is_zero")]
    pub resources: Option<ResourceRequirements>,
    #[serde(skip_serializing_if = "is_zero")]
    pub restart_policy: Option<RestartPolicy>,
    #[serde(skip_serializing_if = "is_zero")]
    pub placement: Option<Placement>,
    #[serde(skip_serializing_if = "is_zero")]
    pub networks: Vec<NetworkAttachmentConfig>,
    #[serde(skip_serializing_if = "is_zero")]
    pub log_driver: Option<Driver>,
    pub force_update: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub runtime: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkAttachmentSpec {
    #[serde(rename = "ContainerID")]
    pub container_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkAttachmentConfig {
    #[serde(skip_serializing_if = "is_zero")]
    pub target: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub aliases: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub driver_opts: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ResourceRequirements {
    #[serde(skip_serializing_if = "is_zero")]
    pub limits: Option<Limit>,
    #[serde(skip_serializing_if = "is_zero")]
    pub reservations: Option<Resources>,
    #[serde(skip_serializing_if = "is_zero")]
    pub swap_bytes: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_swappiness: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Limit {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_zero")]
    pub nano_cpus: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub pids: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Resources {
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_zero")]
    pub nano_cpus: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_bytes: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub generic_resources: Vec<GenericResource>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GenericResource {
    #[serde(skip_serializing_if = "is_zero")]
    pub named_resource_spec: Option<NamedGenericResource>,
    #[serde(skip_serializing_if = "is_zero")]
    pub discrete_resource_spec: Option<DiscreteGenericResource>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NamedGenericResource {
    #[serde(skip_serializing_if = "is_zero")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiscreteGenericResource {
    #[serde(skip_serializing_if = "is_zero")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    #[serde(skip_serializing_if = "is_zero")]
    pub condition: String,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_attempts: Option<u64>,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub window: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Placement {
    #[serde(skip_serializing_if = "is_zero")]
    pub constraints: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub preferences: Vec<PlacementPreference>,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_replicas: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub platforms: Vec<Platform>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PlacementPreference {
    pub spread: Option<SpreadOver>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SpreadOver {
    pub spread_descriptor: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Platform {
    #[serde(skip_serializing_if = "is_zero")]
    pub architecture: String,
    #[serde(rename = "OS", skip_serializing_if = "is_zero")]
    pub os: String,
}

/// `GET /tasks/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Task {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: Version,
    pub created_at: Time,
    pub updated_at: Time,
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub spec: TaskSpec,
    #[serde(rename = "ServiceID", skip_serializing_if = "is_zero")]
    pub service_id: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub slot: u64,
    #[serde(rename = "NodeID", skip_serializing_if = "is_zero")]
    pub node_id: String,
    pub status: TaskStatus,
    #[serde(skip_serializing_if = "is_zero")]
    pub desired_state: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub networks_attachments: Vec<NetworkAttachment>,
    #[serde(skip_serializing_if = "is_zero")]
    pub generic_resources: Vec<GenericResource>,
    #[serde(skip_serializing_if = "is_zero")]
    pub job_iteration: Option<Version>,
    pub volumes: Option<Vec<VolumeAttachment>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskStatus {
    pub timestamp: Time,
    #[serde(skip_serializing_if = "is_zero")]
    pub state: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub message: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub err: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub container_status: Option<ContainerStatus>,
    pub port_status: PortStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    #[serde(rename = "PID")]
    pub pid: i32,
    pub exit_code: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortStatus {
    #[serde(skip_serializing_if = "is_zero")]
    pub ports: Vec<PortConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeAttachment {
    #[serde(rename = "ID", skip_serializing_if = "is_zero")]
    pub id: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub source: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub target: String,
}

impl TaskSpec {
    /// What it means in the model; only containers are taken, as dockerd does without experimental features.
    pub fn to_model(&self) -> Result<m::TaskSpec, SpecError> {
        let mut container = match (self.runtime.as_str(), &self.container_spec) {
            ("" | "container", Some(container)) => container.to_model()?,
            ("" | "container", None) => return Err(SpecError::MismatchedRuntime),
            ("plugin", _) => return Err(SpecError::PluginRuntime),
            _ => return Err(SpecError::UnsupportedRuntime),
        };
        if let Some(limits) = self.resources.as_ref().and_then(|resources| resources.limits.as_ref()) {
            container.pids_limit = limits.pids;
        }
        Ok(m::TaskSpec {
            runtime: Some(m::TaskRuntime::Container(container)),
            resources: self.resources.as_ref().map(ResourceRequirements::to_model),
            restart: self.restart_policy.as_ref().map(RestartPolicy::to_model).transpose()?,
            placement: self.placement.as_ref().map(Placement::to_model),
            log_driver: self.log_driver.as_ref().map(Driver::to_model),
            networks: self.networks.iter().map(NetworkAttachmentConfig::to_model).collect(),
            force_update: self.force_update,
            resource_references: Vec::new(),
        })
    }

    /// How it is shown in a task.
    pub fn from_model(spec: &m::TaskSpec) -> Self {
        let container = match &spec.runtime {
            Some(m::TaskRuntime::Container(container)) => Some(container),
            _ => None,
        };
        let (runtime, attachment) = match &spec.runtime {
            Some(m::TaskRuntime::Attachment(attachment)) => {
                ("attachment".to_owned(), Some(NetworkAttachmentSpec { container_id: attachment.container_id.clone() }))
            }
            _ => (String::new(), None),
        };
        Self {
            container_spec: container.map(ContainerSpec::from_model),
            plugin_spec: None,
            network_attachment_spec: attachment,
            resources: ResourceRequirements::from_model(
                spec.resources.as_ref(),
                container.map_or(0, |container| container.pids_limit),
            ),
            restart_policy: spec.restart.as_ref().map(RestartPolicy::from_model),
            placement: spec.placement.as_ref().map(Placement::from_model),
            networks: spec.networks.iter().map(NetworkAttachmentConfig::from_model).collect(),
            log_driver: spec.log_driver.as_ref().map(Driver::from_model),
            force_update: spec.force_update,
            runtime,
        }
    }
}

impl NetworkAttachmentConfig {
    pub(crate) fn to_model(&self) -> m::NetworkAttachmentConfig {
        m::NetworkAttachmentConfig {
            target: self.target.clone(),
            aliases: self.aliases.clone(),
            addresses: Vec::new(),
            driver_attachment_opts: self.driver_opts.clone(),
        }
    }

    pub(crate) fn from_model(config: &m::NetworkAttachmentConfig) -> Self {
        Self {
            target: config.target.clone(),
            aliases: config.aliases.clone(),
            driver_opts: config.driver_attachment_opts.clone(),
        }
    }
}

impl ResourceRequirements {
    fn to_model(&self) -> m::ResourceRequirements {
        m::ResourceRequirements {
            limits: self.limits.as_ref().map(|limits| m::Resources {
                nano_cpus: limits.nano_cpus,
                memory_bytes: limits.memory_bytes,
                generic: Vec::new(),
            }),
            reservations: self.reservations.as_ref().map(|reservations| m::Resources {
                nano_cpus: reservations.nano_cpus,
                memory_bytes: reservations.memory_bytes,
                generic: reservations.generic_resources.iter().map(GenericResource::to_model).collect(),
            }),
            swap_bytes: self.swap_bytes,
            memory_swappiness: self.memory_swappiness,
        }
    }

    /// The container's process limit is shown here.
    fn from_model(resources: Option<&m::ResourceRequirements>, pids: i64) -> Option<Self> {
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        if resources.is_none() && pids == 0 {
            return None;
        }
        let limits = (limits.is_some() || pids != 0).then(|| Limit {
            nano_cpus: limits.map_or(0, |limits| limits.nano_cpus),
            memory_bytes: limits.map_or(0, |limits| limits.memory_bytes),
            pids,
        });
        Some(Self {
            limits,
            reservations: resources.and_then(|resources| resources.reservations.as_ref()).map(Resources::from_model),
            swap_bytes: resources.and_then(|resources| resources.swap_bytes),
            memory_swappiness: resources.and_then(|resources| resources.memory_swappiness),
        })
    }
}

impl Resources {
    pub(crate) fn from_model(resources: &m::Resources) -> Self {
        Self {
            nano_cpus: resources.nano_cpus,
            memory_bytes: resources.memory_bytes,
            generic_resources: resources.generic.iter().map(GenericResource::from_model).collect(),
        }
    }
}

impl GenericResource {
    fn to_model(&self) -> m::GenericResource {
        let resource = match (&self.named_resource_spec, &self.discrete_resource_spec) {
            (Some(named), _) => Some(m::GenericResourceKind::NamedResourceSpec(m::NamedGenericResource {
                kind: named.kind.clone(),
                value: named.value.clone(),
            })),
            (None, Some(discrete)) => Some(m::GenericResourceKind::DiscreteResourceSpec(m::DiscreteGenericResource {
                kind: discrete.kind.clone(),
                value: discrete.value,
            })),
            (None, None) => None,
        };
        m::GenericResource { resource }
    }

    pub(crate) fn from_model(resource: &m::GenericResource) -> Self {
        match &resource.resource {
            Some(m::GenericResourceKind::NamedResourceSpec(named)) => Self {
                named_resource_spec: Some(NamedGenericResource {
                    kind: named.kind.clone(),
                    value: named.value.clone(),
                }),
                discrete_resource_spec: None,
            },
            Some(m::GenericResourceKind::DiscreteResourceSpec(discrete)) => Self {
                named_resource_spec: None,
                discrete_resource_spec: Some(DiscreteGenericResource {
                    kind: discrete.kind.clone(),
                    value: discrete.value,
                }),
            },
            None => Self::default(),
        }
    }
}

impl RestartPolicy {
    fn to_model(&self) -> Result<m::RestartPolicy, SpecError> {
        let condition = match self.condition.as_str() {
            "" => m::RestartCondition::Any,
            word => m::RestartCondition::from_word(word)
                .ok_or_else(|| SpecError::RestartCondition(self.condition.clone()))?,
        };
        Ok(m::RestartPolicy {
            condition,
            delay: self.delay.map(m::Duration::from_nanos),
            max_attempts: self.max_attempts.unwrap_or(0),
            window: self.window.map(m::Duration::from_nanos),
        })
    }

    fn from_model(policy: &m::RestartPolicy) -> Self {
        Self {
            condition: policy.condition.word().to_owned(),
            delay: policy.delay.map(m::Duration::total_nanos),
            max_attempts: Some(policy.max_attempts),
            window: policy.window.map(m::Duration::total_nanos),
        }
    }
}

impl Placement {
    fn to_model(&self) -> m::Placement {
        m::Placement {
            constraints: self.constraints.clone(),
            preferences: self
                .preferences
                .iter()
                .filter_map(|preference| preference.spread.as_ref())
                .map(|spread| m::PlacementPreference {
                    spread: Some(m::SpreadOver { spread_descriptor: spread.spread_descriptor.clone() }),
                })
                .collect(),
            platforms: self.platforms.iter().map(Platform::to_model).collect(),
            max_replicas: self.max_replicas,
        }
    }

    fn from_model(placement: &m::Placement) -> Self {
        Self {
            constraints: placement.constraints.clone(),
            preferences: placement
                .preferences
                .iter()
                .filter_map(|preference| preference.spread.as_ref())
                .map(|spread| PlacementPreference {
                    spread: Some(SpreadOver { spread_descriptor: spread.spread_descriptor.clone() }),
                })
                .collect(),
            max_replicas: placement.max_replicas,
            platforms: placement.platforms.iter().map(Platform::from_model).collect(),
        }
    }
}

impl Platform {
    fn to_model(&self) -> m::Platform {
        m::Platform { architecture: self.architecture.clone(), os: self.os.clone() }
    }

    pub(crate) fn from_model(platform: &m::Platform) -> Self {
        Self { architecture: platform.architecture.clone(), os: platform.os.clone() }
    }
}

impl Task {
    /// How a task is shown.
    pub fn from_model(task: &m::Task) -> Self {
        let volumes = (!task.volumes.is_empty()).then(|| {
            let shown = |volume: &m::VolumeAttachment| VolumeAttachment {
                id: volume.id.clone(),
                source: volume.source.clone(),
                target: volume.target.clone(),
            };
            task.volumes.iter().map(shown).collect()
        });
        Self {
            id: task.id.to_string(),
            version: Version { index: task.meta.version.0 },
            created_at: task.meta.created_at.into(),
            updated_at: task.meta.updated_at.into(),
            name: task.annotations.name.clone(),
            labels: task.annotations.labels.clone(),
            spec: TaskSpec::from_model(&task.spec),
            service_id: task.service_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            slot: task.slot,
            node_id: task.node_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            status: TaskStatus::from_model(&task.status),
            desired_state: task.desired_state.word().to_owned(),
            networks_attachments: task.networks.iter().map(NetworkAttachment::from_model).collect(),
            generic_resources: task.assigned_generic_resources.iter().map(GenericResource::from_model).collect(),
            job_iteration: task.job_iteration.map(|iteration| Version { index: iteration.0 }),
            volumes,
        }
    }
}

impl TaskStatus {
    fn from_model(status: &m::TaskStatus) -> Self {
        let ports = status.port_status.as_ref().map(|status| status.ports.as_slice()).unwrap_or_default();
        Self {
            timestamp: status.timestamp.into(),
            state: status.state.word().to_owned(),
            message: status.message.clone(),
            err: status.err.clone(),
            container_status: status.container.as_ref().map(|container| ContainerStatus {
                container_id: container.container_id.clone(),
                pid: container.pid,
                exit_code: container.exit_code,
            }),
            port_status: PortStatus { ports: ports.iter().map(PortConfig::from_model).collect() },
        }
    }
}
