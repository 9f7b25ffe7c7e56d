//! Services: specs, update and restart policies, placement. The fields are SwarmKit's; `swarm-proto` converts them.

#[allow(unused_imports, reason = "one prelude for all files of the model")]
use crate::prelude::*;
use std::sync::Arc;

/// SwarmKit's `RestartPolicy`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RestartPolicy {
    /// Condition.
    pub condition: RestartCondition,
    /// Delay.
    pub delay: Option<Duration>,
    /// Max attempts: 0 = unlimited.
    pub max_attempts: u64,
    /// Window.
    pub window: Option<Duration>,
}

/// SwarmKit's `RestartPolicy.RestartCondition`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum RestartCondition {
    /// `NONE`.
    #[default]
    None = 0,
    /// `ON_FAILURE`.
    OnFailure = 1,
    /// `ANY`.
    Any = 2,
}

impl RestartCondition {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::OnFailure,
            2 => Self::Any,
            _ => return None,
        })
    }
}

/// SwarmKit's `UpdateConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateConfig {
    /// Parallelism.
    pub parallelism: u64,
    /// Delay: always present.
    pub delay: Duration,
    /// Failure action.
    pub failure_action: FailureAction,
    /// Monitor: absent = default 5 s.
    pub monitor: Option<Duration>,
    /// Max failure ratio.
    pub max_failure_ratio: f32,
    /// Order.
    pub order: UpdateOrder,
}

/// SwarmKit's `UpdateConfig.FailureAction`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum FailureAction {
    /// `PAUSE`.
    #[default]
    Pause = 0,
    /// `CONTINUE`.
    Continue = 1,
    /// `ROLLBACK`.
    Rollback = 2,
}

impl FailureAction {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Pause,
            1 => Self::Continue,
            2 => Self::Rollback,
            _ => return None,
        })
    }
}

/// SwarmKit's `UpdateConfig.UpdateOrder`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum UpdateOrder {
    /// `STOP_FIRST`.
    #[default]
    StopFirst = 0,
    /// `START_FIRST`.
    StartFirst = 1,
}

impl UpdateOrder {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::StopFirst,
            1 => Self::StartFirst,
            _ => return None,
        })
    }
}

/// SwarmKit's `UpdateStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateStatus {
    /// State.
    pub state: UpdateState,
    /// Started at.
    pub started_at: Option<Timestamp>,
    /// Completed at.
    pub completed_at: Option<Timestamp>,
    /// Message.
    pub message: String,
}

/// SwarmKit's `UpdateStatus.UpdateState`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum UpdateState {
    /// `UNKNOWN`.
    #[default]
    Unknown = 0,
    /// `UPDATING`.
    Updating = 1,
    /// `PAUSED`.
    Paused = 2,
    /// `COMPLETED`.
    Completed = 3,
    /// `ROLLBACK_STARTED`.
    RollbackStarted = 4,
    /// `ROLLBACK_PAUSED`.
    RollbackPaused = 5,
    /// `ROLLBACK_COMPLETED`.
    RollbackCompleted = 6,
}

impl UpdateState {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Unknown,
            1 => Self::Updating,
            2 => Self::Paused,
            3 => Self::Completed,
            4 => Self::RollbackStarted,
            5 => Self::RollbackPaused,
            6 => Self::RollbackCompleted,
            _ => return None,
        })
    }
}

/// SwarmKit's `SpreadOver`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpreadOver {
    /// Spread descriptor.
    pub spread_descriptor: String,
}

/// SwarmKit's `PlacementPreference`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlacementPreference {
    /// Spread.
    pub spread: Option<SpreadOver>,
}

/// SwarmKit's `Placement`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// Constraints.
    pub constraints: Vec<String>,
    /// Preferences.
    pub preferences: Vec<PlacementPreference>,
    /// Platforms.
    pub platforms: Vec<Platform>,
    /// Max replicas.
    pub max_replicas: u64,
}

/// SwarmKit's `JobStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobStatus {
    /// Job iteration.
    pub job_iteration: JobIteration,
    /// Last execution.
    pub last_execution: Option<Timestamp>,
}

/// SwarmKit's `ServiceSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceSpec {
    /// Annotations.
    pub annotations: Annotations,
    /// Task.
    pub task: Arc<TaskSpec>,
    /// Which one of the kinds it is, if any.
    pub mode: Option<ServiceMode>,
    /// Update.
    pub update: Option<UpdateConfig>,
    /// Networks: deprecated.
    pub networks: Vec<NetworkAttachmentConfig>,
    /// Endpoint.
    pub endpoint: Option<EndpointSpec>,
    /// Rollback.
    pub rollback: Option<UpdateConfig>,
}

/// The `mode` of a [`ServiceSpec`].
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceMode {
    /// `replicated`.
    Replicated(ReplicatedService),
    /// `global`.
    Global(GlobalService),
    /// `replicated_job`.
    ReplicatedJob(ReplicatedJob),
    /// `global_job`.
    GlobalJob(GlobalJob),
}

/// SwarmKit's `ReplicatedService`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicatedService {
    /// Replicas.
    pub replicas: u64,
}

/// SwarmKit's `GlobalService`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalService;

/// SwarmKit's `ReplicatedJob`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicatedJob {
    /// Max concurrent.
    pub max_concurrent: u64,
    /// Total completions.
    pub total_completions: u64,
}

/// SwarmKit's `GlobalJob`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalJob;

/// SwarmKit's `Service`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Identifier.
    pub id: ServiceId,
    /// Version and times.
    pub meta: Meta,
    /// What the user asked for.
    pub spec: ServiceSpec,
    /// Endpoint: allocated VIPs and resolved published ports.
    pub endpoint: Option<Endpoint>,
    /// Update status.
    pub update_status: Option<UpdateStatus>,
    /// Previous spec: for rollback.
    pub previous_spec: Option<ServiceSpec>,
    /// Pending delete: reserved, not used by the released versions.
    pub pending_delete: bool,
    /// Spec version: present from creation as {index 0}; at an update set to the Meta.version passed by the updater;
    /// task.spec_version is compared with it.
    pub spec_version: Option<SpecVersion>,
    /// Previous spec version.
    pub previous_spec_version: Option<SpecVersion>,
    /// Job status: job modes only: {job_iteration {index 0}, last_execution now} at creation.
    pub job_status: Option<JobStatus>,
}
