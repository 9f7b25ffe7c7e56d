//! Tasks: specs, states and what was seen of them. The fields are SwarmKit's; `swarm-proto` converts them.

#[allow(unused_imports, reason = "one prelude for all files of the model")]
use crate::prelude::*;
use std::sync::Arc;

/// SwarmKit's `TaskState`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum TaskState {
    /// `NEW`.
    #[default]
    New = 0,
    /// `PENDING`.
    Pending = 64,
    /// `ASSIGNED`.
    Assigned = 192,
    /// `ACCEPTED`.
    Accepted = 256,
    /// `PREPARING`.
    Preparing = 320,
    /// `READY`.
    Ready = 384,
    /// `STARTING`.
    Starting = 448,
    /// `RUNNING`.
    Running = 512,
    /// `COMPLETE`.
    Complete = 576,
    /// `SHUTDOWN`.
    Shutdown = 640,
    /// `FAILED`.
    Failed = 704,
    /// `REJECTED`.
    Rejected = 768,
    /// `REMOVE`.
    Remove = 800,
    /// `ORPHANED`.
    Orphaned = 832,
}

impl TaskState {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::New,
            64 => Self::Pending,
            192 => Self::Assigned,
            256 => Self::Accepted,
            320 => Self::Preparing,
            384 => Self::Ready,
            448 => Self::Starting,
            512 => Self::Running,
            576 => Self::Complete,
            640 => Self::Shutdown,
            704 => Self::Failed,
            768 => Self::Rejected,
            800 => Self::Remove,
            832 => Self::Orphaned,
            _ => return None,
        })
    }
}

/// SwarmKit's `ContainerStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerStatus {
    /// Container id.
    pub container_id: String,
    /// Pid.
    pub pid: i32,
    /// Exit code.
    pub exit_code: i32,
}

/// SwarmKit's `PortStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortStatus {
    /// Ports.
    pub ports: Vec<PortConfig>,
}

/// SwarmKit's `TaskStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskStatus {
    /// Timestamp.
    pub timestamp: Option<Timestamp>,
    /// State.
    pub state: TaskState,
    /// Message.
    pub message: String,
    /// Err.
    pub err: String,
    /// Container.
    pub container: Option<ContainerStatus>,
    /// Port status.
    pub port_status: Option<PortStatus>,
    /// Applied by.
    pub applied_by: String,
    /// Applied at.
    pub applied_at: Option<Timestamp>,
}

/// SwarmKit's `TaskSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskSpec {
    /// Which one of the kinds it is, if any.
    pub runtime: Option<TaskRuntime>,
    /// Resources.
    pub resources: Option<ResourceRequirements>,
    /// Restart.
    pub restart: Option<RestartPolicy>,
    /// Placement.
    pub placement: Option<Placement>,
    /// Log driver.
    pub log_driver: Option<Driver>,
    /// Networks.
    pub networks: Vec<NetworkAttachmentConfig>,
    /// Force update: counter; bumping it makes every task dirty.
    pub force_update: u64,
    /// Resource references: extra secrets/configs/tasks the task may read.
    pub resource_references: Vec<ResourceReference>,
}

/// The `runtime` of a [`TaskSpec`].
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all tasks are containers, and specs are shared")]
pub enum TaskRuntime {
    /// `container`.
    Container(ContainerSpec),
    /// `attachment`.
    Attachment(NetworkAttachmentSpec),
    /// `generic`.
    Generic(GenericRuntimeSpec),
}

/// SwarmKit's `GenericRuntimeSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenericRuntimeSpec {
    /// Kind.
    pub kind: String,
    /// Payload.
    pub payload: Option<Any>,
}

/// SwarmKit's `NetworkAttachmentSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkAttachmentSpec {
    /// Container id.
    pub container_id: String,
}

/// SwarmKit's `Task`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// Identifier.
    pub id: TaskId,
    /// Version and times.
    pub meta: Meta,
    /// What the user asked for: copy of Service.spec.task.
    pub spec: Arc<TaskSpec>,
    /// Service id.
    pub service_id: Option<ServiceId>,
    /// Slot: 1..n for replicated, 0 for global, 0..total-1 for replicated jobs.
    pub slot: u64,
    /// Node id.
    pub node_id: Option<NodeId>,
    /// Annotations: name normally empty.
    pub annotations: Annotations,
    /// Service annotations: copy of Service.spec.annotations at creation.
    pub service_annotations: Annotations,
    /// Status.
    pub status: TaskStatus,
    /// Desired state.
    pub desired_state: TaskState,
    /// Networks: allocated attachments; each carries a full Network object.
    pub networks: Vec<NetworkAttachment>,
    /// Endpoint: at creation {spec = copy of Service.spec.endpoint, may be absent inside}; the allocator replaces it
    /// with a copy of Service.endpoint before PENDING.
    pub endpoint: Option<Endpoint>,
    /// Log driver: resolved default: spec.log_driver else cluster task_defaults.log_driver.
    pub log_driver: Option<Driver>,
    /// Spec version.
    pub spec_version: Option<SpecVersion>,
    /// Assigned generic resources: chosen by the scheduler.
    pub assigned_generic_resources: Vec<GenericResource>,
    /// Job iteration.
    pub job_iteration: Option<JobIteration>,
    /// Volumes: cluster volumes chosen by the scheduler.
    pub volumes: Vec<VolumeAttachment>,
}
