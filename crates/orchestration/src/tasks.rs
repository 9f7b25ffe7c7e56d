//! Makes tasks from services, and the small questions that every planner asks about tasks and nodes. Called by the
//! planners of services; nothing here is remembered.

use model::{
    Cluster, Endpoint, ID_BYTES, Node, NodeAvailability, NodeId, NodeState, Service, ServiceMode, Task, TaskId,
    TaskState, TaskStatus, Timestamp,
};
use stdx::Rng;
use store::{Object, Transaction, View};

/// What a task says that was just made.
pub const CREATED_MESSAGE: &str = "created";

/// Where in its service a task belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotKey {
    /// A slot of a replicated service (from 1) or of a replicated job (from 0).
    Number(u64),
    /// The node of a global service's or job's task.
    Node(NodeId),
}

/// The kind of a service, without what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A number of slots.
    Replicated,
    /// One task on each eligible node.
    Global,
    /// A number of completions.
    ReplicatedJob,
    /// One completion on each eligible node.
    GlobalJob,
}

impl Mode {
    /// The kind of `service`; one without a mode is replicated.
    pub fn of(service: &Service) -> Self {
        match service.spec.mode {
            None | Some(ServiceMode::Replicated(_)) => Self::Replicated,
            Some(ServiceMode::Global(_)) => Self::Global,
            Some(ServiceMode::ReplicatedJob(_)) => Self::ReplicatedJob,
            Some(ServiceMode::GlobalJob(_)) => Self::GlobalJob,
        }
    }

    /// Whether its tasks shall end.
    pub fn is_job(self) -> bool {
        matches!(self, Self::ReplicatedJob | Self::GlobalJob)
    }

    /// Whether its tasks belong to nodes.
    pub fn is_global(self) -> bool {
        matches!(self, Self::Global | Self::GlobalJob)
    }

    /// The desired state of a task that shall do its work.
    pub fn working_state(self) -> TaskState {
        if self.is_job() { TaskState::Complete } else { TaskState::Running }
    }
}

/// A new identifier, 25 characters of base 36.
pub(crate) fn new_task_id(rng: &mut Rng) -> TaskId {
    let mut bytes = [0; ID_BYTES];
    rng.fill(&mut bytes);
    TaskId::from_random(bytes)
}

/// A new task of `service` in `slot`, as SwarmKit makes it: NEW, with the service's present spec.
pub(crate) fn new_task(
    cluster: Option<&Cluster>,
    service: &Service,
    slot: &SlotKey,
    now: Timestamp,
    rng: &mut Rng,
) -> Task {
    let mode = Mode::of(service);
    let (slot, node_id) = match slot {
        SlotKey::Number(number) => (*number, None),
        SlotKey::Node(node) => (0, Some(node.clone())),
    };
    let default_log_driver = || cluster.and_then(|it| it.spec.task_defaults.log_driver.clone());
    Task {
        id: new_task_id(rng),
        spec: service.spec.task.clone(),
        service_id: Some(service.id.clone()),
        slot,
        node_id,
        service_annotations: service.spec.annotations.clone(),
        status: TaskStatus {
            timestamp: Some(now),
            state: TaskState::New,
            message: CREATED_MESSAGE.to_owned(),
            ..Default::default()
        },
        desired_state: mode.working_state(),
        endpoint: Some(Endpoint { spec: service.spec.endpoint.clone(), ..Default::default() }),
        log_driver: service.spec.task.log_driver.clone().or_else(default_log_driver),
        spec_version: service.spec_version,
        job_iteration: match mode.is_job() {
            true => service.job_status.as_ref().map(|status| status.job_iteration),
            false => None,
        },
        ..Default::default()
    }
}

/// The slot of a task in a service of kind `mode`; `None` for a global one's task without a node.
pub(crate) fn slot_of(mode: Mode, task: &Task) -> Option<SlotKey> {
    match mode.is_global() {
        false => Some(SlotKey::Number(task.slot)),
        true => task.node_id.clone().map(SlotKey::Node),
    }
}

/// Whether a container of the task may be there: it was given to an agent and has not ended.
pub(crate) fn may_have_container(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
}

/// Whether the task has ended, however.
pub(crate) fn has_ended(task: &Task) -> bool {
    task.status.state > TaskState::Running
}

/// Whether tasks cannot stay on the node: it is gone, DOWN or drained.
pub(crate) fn is_invalid(node: Option<&Node>) -> bool {
    node.is_none_or(|node| node.status.state == NodeState::Down || node.spec.availability == NodeAvailability::Drain)
}

/// Whether the task has a node that it cannot stay on.
pub(crate) fn is_on_invalid_node(view: &View, task: &Task) -> bool {
    task.node_id.as_ref().is_some_and(|id| is_invalid(view.node(id).map(|node| &**node)))
}

/// Orders tasks by when they were made or, if that is not known, seen; then by identifier.
pub(crate) fn age(task: &Task) -> (Option<Timestamp>, Option<Timestamp>, TaskId) {
    // A task that is not committed yet has no time of creation: it is the youngest.
    let created = task.meta.created_at.or(Some(Timestamp { seconds: i64::MAX, nanos: 0 }));
    (created, task.status.timestamp, task.id.clone())
}

/// Writes an object that was read from this very transaction.
pub(crate) fn write(transaction: &mut Transaction, object: impl Into<Object>) {
    transaction.update(object).expect("it was read from this transaction, and its name is the same");
}

/// Adds a task with a new identifier.
pub(crate) fn create(transaction: &mut Transaction, task: Task) {
    transaction.create(task).expect("its identifier was looked up when it was made");
}

/// Raises the desired state of a task; it never goes back.
pub(crate) fn raise_desired(transaction: &mut Transaction, id: &TaskId, desired: TaskState) {
    if let Some(task) = transaction.task(id).filter(|task| task.desired_state < desired) {
        let raised = Task { desired_state: desired, ..(**task).clone() };
        write(transaction, raised);
    }
}
