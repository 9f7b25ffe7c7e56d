//! What the Engine API asks of the swarm: one trait in `model` types, implemented by `daemon` over the node and its
//! manager. Calls reach the leader wherever it is. `api` resolves names and prefixes itself, so every `id` here is whole.

use std::collections::BTreeMap;

use async_trait::async_trait;
use model::{
    Cluster, ClusterSpec, Config, ConfigId, ConfigSpec, Network, NetworkId, NetworkSpec, Node, NodeAvailability,
    NodeId, NodeSpec, ObjectVersion, Peer, Secret, SecretId, SecretSpec, Service, ServiceId, ServiceSpec, Task, TaskId,
    Timestamp,
};
use tokio::sync::mpsc;

pub use crate::swarm_error::{AddressProblem, GrpcCode, LeaveRefusal, NotManager, SwarmError};
pub use crate::swarm_filter::{NodeFilter, ObjectFilter, ServiceFilter, TaskFilter, task_name};

/// What every call gives back.
pub type SwarmResult<T> = Result<T, SwarmError>;

/// How many messages may wait between the swarm and one client that reads logs or events.
pub const STREAM_QUEUE_LIMIT: usize = 256;

/// The swarm as the Engine API sees it.
#[async_trait]
pub trait SwarmBackend: Send + Sync + 'static {
    /// Makes this node the first manager of a new swarm and returns when the manager answers. `request.spec` is merged
    /// with [`docker_types::swarm::Spec::merge_into`] over SwarmKit's defaults.
    async fn init(&self, request: InitRequest) -> SwarmResult<NodeId>;
    /// Joins a swarm; gives up waiting (not joining) after 20 s with [`SwarmError::JoinTimeout`].
    async fn join(&self, request: JoinRequest) -> SwarmResult<()>;
    /// Leaves the swarm, and removes service containers and state.
    async fn leave(&self, mode: LeaveMode) -> SwarmResult<()>;
    /// Opens a locked manager with the text that [`Self::unlock_key`] gave.
    async fn unlock(&self, key: &str) -> SwarmResult<()>;
    /// The unlock key's text (`SWMKEY-1-…`), empty when autolock is off.
    async fn unlock_key(&self) -> SwarmResult<String>;
    /// What this node is in the swarm. Never waits for the leader: `/_ping` and `/info` ask it.
    async fn info(&self) -> SwarmInfo;

    /// The cluster object.
    async fn cluster(&self) -> SwarmResult<Cluster>;
    /// Replaces the cluster's spec, if `version` is the current one.
    async fn update_cluster(&self, version: ObjectVersion, spec: ClusterSpec, rotation: KeyRotation)
    -> SwarmResult<()>;

    /// Nodes that match.
    async fn nodes(&self, filter: NodeFilter) -> SwarmResult<Vec<Node>>;
    /// One node, with its manager status filled in from the live member list.
    async fn node(&self, id: &NodeId) -> SwarmResult<Node>;
    /// Replaces a node's spec, if `version` is the current one.
    async fn update_node(&self, id: &NodeId, version: ObjectVersion, spec: NodeSpec) -> SwarmResult<()>;
    /// Removes a node.
    async fn remove_node(&self, id: &NodeId, mode: RemoveMode) -> SwarmResult<()>;

    /// Services that match.
    async fn services(&self, filter: ServiceFilter) -> SwarmResult<Vec<Service>>;
    /// One service.
    async fn service(&self, id: &ServiceId, defaults: InsertDefaults) -> SwarmResult<Service>;
    /// Creates a service; network targets are identifiers already.
    async fn create_service(&self, spec: ServiceSpec) -> SwarmResult<Service>;
    /// Replaces a service's spec, or swaps it with the previous one.
    async fn update_service(
        &self,
        id: &ServiceId,
        version: ObjectVersion,
        spec: ServiceSpec,
        rollback: Rollback,
    ) -> SwarmResult<Service>;
    /// Removes a service.
    async fn remove_service(&self, id: &ServiceId) -> SwarmResult<()>;
    /// How many tasks each of these services should have and has; an unknown service is left out.
    async fn service_statuses(&self, ids: &[ServiceId]) -> SwarmResult<Vec<ServiceTaskCounts>>;

    /// Tasks that match.
    async fn tasks(&self, filter: TaskFilter) -> SwarmResult<Vec<Task>>;
    /// One task.
    async fn task(&self, id: &TaskId) -> SwarmResult<Task>;

    /// Secrets that match, without data and without internal ones.
    async fn secrets(&self, filter: ObjectFilter) -> SwarmResult<Vec<Secret>>;
    /// One secret, without data.
    async fn secret(&self, id: &SecretId) -> SwarmResult<Secret>;
    /// Creates a secret.
    async fn create_secret(&self, spec: SecretSpec) -> SwarmResult<SecretId>;
    /// Replaces a secret's labels.
    async fn update_secret(&self, id: &SecretId, version: ObjectVersion, spec: SecretSpec) -> SwarmResult<()>;
    /// Removes a secret.
    async fn remove_secret(&self, id: &SecretId) -> SwarmResult<()>;

    /// Configs that match.
    async fn configs(&self, filter: ObjectFilter) -> SwarmResult<Vec<Config>>;
    /// One config.
    async fn config(&self, id: &ConfigId) -> SwarmResult<Config>;
    /// Creates a config.
    async fn create_config(&self, spec: ConfigSpec) -> SwarmResult<ConfigId>;
    /// Replaces a config's labels.
    async fn update_config(&self, id: &ConfigId, version: ObjectVersion, spec: ConfigSpec) -> SwarmResult<()>;
    /// Removes a config.
    async fn remove_config(&self, id: &ConfigId) -> SwarmResult<()>;

    /// Networks of the swarm that match, the predefined copies of bridge and host too (`api` hides them).
    async fn networks(&self, filter: ObjectFilter) -> SwarmResult<Vec<Network>>;
    /// One network of the swarm.
    async fn network(&self, id: &NetworkId) -> SwarmResult<Network>;
    /// Creates a network of the swarm.
    async fn create_network(&self, spec: NetworkSpec) -> SwarmResult<NetworkId>;
    /// Removes a network of the swarm.
    async fn remove_network(&self, id: &NetworkId) -> SwarmResult<()>;

    /// Logs of tasks on any node. The stream ends when the sender is dropped; an `Err` before that is the last item and
    /// tells that logs are missing. Dropping the receiver ends the subscription.
    async fn logs(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> SwarmResult<mpsc::Receiver<SwarmResult<LogMessage>>>;
    /// Changes of the swarm's objects from now on, on managers; elsewhere a stream that waits until this node is one.
    /// A client that cannot keep up loses events rather than holding up the swarm.
    fn events(&self) -> mpsc::Receiver<SwarmEvent>;
}

/// How to make a swarm. `api` has checked what needs no knowledge of this machine: a listen address is given, the spec's
/// name is "default".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InitRequest {
    /// IP address or interface, with optional port.
    pub listen_addr: String,
    /// IP address or interface, with optional port; empty: to be found.
    pub advertise_addr: String,
    /// IP address or interface; empty: as advertised.
    pub data_path_addr: String,
    /// 0: 4789.
    pub data_path_port: u32,
    /// Pools that overlay subnets are cut from; empty: 10.0.0.0/8.
    pub default_address_pool: Vec<String>,
    /// 0: 24.
    pub subnet_size: u32,
    /// Start again from this node's state, alone.
    pub force_new_cluster: bool,
    /// Encrypt the manager's key at rest.
    pub auto_lock_managers: bool,
    /// Availability of this node.
    pub availability: NodeAvailability,
    /// What the user set; merged over the defaults.
    pub spec: docker_types::swarm::Spec,
}

/// How to join a swarm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinRequest {
    /// IP address or interface, with optional port.
    pub listen_addr: String,
    /// IP address or interface, with optional port; empty: to be found.
    pub advertise_addr: String,
    /// IP address or interface; empty: as advertised.
    pub data_path_addr: String,
    /// Managers; at least one.
    pub remote_addrs: Vec<String>,
    /// `SWMTKN-1-…`.
    pub join_token: String,
    /// Availability of this node.
    pub availability: NodeAvailability,
}

/// Whether leaving may lose data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveMode {
    /// Refuse where state or quorum would be lost.
    Safe,
    /// Leave whatever it costs.
    Force,
}

/// Whether a node may be removed while it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveMode {
    /// Only when down.
    Safe,
    /// Also when up.
    Force,
}

/// Whether defaults are written into the spec that is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertDefaults {
    /// The spec as stored.
    No,
    /// With defaults in the place of what is absent.
    Yes,
}

/// Whether an update swaps the spec with the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollback {
    /// Take the given spec.
    None,
    /// Swap with the previous spec, the given one is ignored.
    Previous,
}

/// Which keys an update of the cluster makes anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyRotation {
    /// The workers' join token.
    pub worker_join_token: bool,
    /// The managers' join token.
    pub manager_join_token: bool,
    /// The key that unlocks managers.
    pub manager_unlock_key: bool,
}

/// What this node is in the swarm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SwarmInfo {
    /// Empty outside a swarm.
    pub node_id: String,
    /// This node's advertised IP address; empty outside a swarm.
    pub node_addr: String,
    /// Where this node stands.
    pub local_node_state: LocalNodeState,
    /// Whether the control API answers here.
    pub control_available: bool,
    /// Why the state is `Error` or `Pending`.
    pub error: String,
    /// Managers this node knows.
    pub remote_managers: Vec<Peer>,
    /// Nodes of the cluster; managers only.
    pub nodes: u64,
    /// Managers of the cluster; managers only.
    pub managers: u64,
    /// The cluster; managers only.
    pub cluster: Option<Cluster>,
}

/// Docker's `LocalNodeState`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalNodeState {
    /// Not in a swarm.
    #[default]
    Inactive,
    /// Joining, or starting.
    Pending,
    /// In a swarm.
    Active,
    /// In a swarm, but failed.
    Error,
    /// Waiting for the unlock key.
    Locked,
}

/// SwarmKit's `ListServiceStatusesResponse.ServiceStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTaskCounts {
    /// Which service.
    pub service_id: ServiceId,
    /// Tasks that should run.
    pub desired_tasks: u64,
    /// Tasks that run.
    pub running_tasks: u64,
    /// Tasks of the current job iteration that have completed.
    pub completed_tasks: u64,
}

/// Whose logs; at least one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSelector {
    /// All tasks of these services.
    pub service_ids: Vec<ServiceId>,
    /// All tasks on these nodes.
    pub node_ids: Vec<NodeId>,
    /// These tasks.
    pub task_ids: Vec<TaskId>,
}

/// Which part of the logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on with what is written from now.
    pub follow: bool,
    /// The last so many lines of each task; `None`: all.
    pub tail: Option<u64>,
    /// Only from then on.
    pub since: Option<Timestamp>,
}

/// One line of a task's log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogMessage {
    /// Service of the task; empty for tasks without one.
    pub service_id: ServiceId,
    /// Node the task runs on.
    pub node_id: NodeId,
    /// The task.
    pub task_id: TaskId,
    /// When it was written.
    pub timestamp: Option<Timestamp>,
    /// Where it was written.
    pub stream: LogStream,
    /// The line with its newline, if it had one.
    pub data: Vec<u8>,
    /// The log driver's details.
    pub attrs: BTreeMap<String, String>,
}

/// Which of a process's streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// One change of one of the swarm's objects.
#[derive(Clone, Debug, PartialEq)]
pub struct SwarmEvent {
    /// When the object was changed; of a removal, when it was seen.
    pub at: Timestamp,
    /// What was done.
    pub action: SwarmEventAction,
    /// The object: as it is now, for removals as it was last.
    pub object: SwarmObject,
    /// For updates: the object before, of the same kind.
    pub old: Option<SwarmObject>,
    /// For services: the move of one of its tasks that this tells of, if it is not a change of the service itself.
    pub moved: Option<TaskMove>,
}

/// A step of a task's move to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskMove {
    /// The task that was made, or that is to stop.
    pub task_id: TaskId,
    /// What happens, in words.
    pub text: String,
}

/// What was done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwarmEventAction {
    /// It is new.
    Create,
    /// It was changed.
    Update,
    /// It is gone.
    Remove,
}

/// The kinds of objects whose changes are Docker events.
#[derive(Clone, Debug, PartialEq)]
pub enum SwarmObject {
    /// A node.
    Node(Box<Node>),
    /// A service.
    Service(Box<Service>),
    /// A network.
    Network(Box<Network>),
    /// A secret.
    Secret(Box<Secret>),
    /// A config.
    Config(Box<Config>),
}
