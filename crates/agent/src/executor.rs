//! What the agent asks of the engine. The agent owns these traits; `daemon` implements them over `engine` and `net`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use model::{ContainerStatus, EncryptionKey, Node, NodeDescription, PortStatus, Task, TaskId, Timestamp};

use crate::Dependencies;

/// A node's part in the swarm's network: what it needs to gossip with the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkPart {
    /// Where this node is.
    pub addresses: Option<NodeAddresses>,
    /// Keys of the gossip and of encrypted overlay networks.
    pub keys: Vec<EncryptionKey>,
    /// Where the managers are reached, `host:port`.
    pub managers: Vec<String>,
}

/// A node's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    /// It listens on this one; unspecified for all.
    pub listen: IpAddr,
    /// Others are told this one.
    pub advertise: IpAddr,
    /// Packets of overlay networks go to this one.
    pub data_path: IpAddr,
}

/// Makes controllers for tasks and tells what this machine is.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Host name, platform, resources, plugins and labels of this machine.
    async fn describe(&self) -> Result<NodeDescription, ExecutorError>;

    /// Takes the node object as the managers have it: addresses on the ingress and overlay networks among others.
    async fn configure(&self, node: Arc<Node>) -> Result<(), ExecutorError>;

    /// Takes this node's part in the swarm's network; called in each session, and when it changes.
    async fn set_network(&self, part: NetworkPart) -> Result<(), ExecutorError>;

    /// Takes the set of all tasks of this node, after each complete set of assignments: what is left of others is
    /// removed.
    async fn retain(&self, tasks: BTreeSet<TaskId>);

    /// A controller for one task. Must not block; work starts with [`Controller::prepare`].
    fn controller(&self, task: Arc<Task>, dependencies: Dependencies) -> Result<Arc<dyn Controller>, ControllerError>;
}

/// Drives the container of one task. Each call is one restartable step: called again after a crash it finds what is
/// there and goes on. Dropping a call's future must leave nothing half-made that the next call cannot find.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// A newer version of the task, same container.
    async fn update(&self, task: Arc<Task>) -> Result<(), ControllerError>;
    /// Makes everything ready but running: image, network, container.
    async fn prepare(&self) -> Result<(), ControllerError>;
    /// Starts it, and returns when it runs and, with a health check, is healthy.
    async fn start(&self) -> Result<(), ControllerError>;
    /// Returns when it has ended: `Ok` for exit code 0.
    async fn wait(&self) -> Result<(), ControllerError>;
    /// Takes it out of service, then stops it within its grace period. `Ok` if there is nothing to stop.
    async fn shutdown(&self) -> Result<(), ControllerError>;
    /// Removes all that is left of it. `Ok` if there is nothing.
    async fn remove(&self) -> Result<(), ControllerError>;
    /// What is known of the container now.
    async fn container_status(&self) -> Option<ContainerStatus>;
    /// The host-mode ports it holds.
    async fn port_status(&self) -> Option<PortStatus>;
    /// Its log.
    async fn logs(&self, request: LogRequest) -> Result<BoxStream<'static, LogLine>, ControllerError>;
}

/// Why a machine could not be described or configured.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ExecutorError(pub String);

/// Why a step of a task failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ControllerError {
    /// Worth another try; the text is reported meanwhile.
    #[error("{0}")]
    Temporary(String),
    /// The task cannot go on.
    #[error("{0}")]
    Fatal(String),
    /// The container ended by itself with this code, which is not 0.
    #[error("{text}")]
    Exited {
        /// The exit code.
        code: i32,
        /// dockerd's text, `task: non-zero exit (N)`.
        text: String,
    },
}

/// Which part of a log is wanted.
#[derive(Clone, Debug, Default)]
pub struct LogRequest {
    /// Standard output too.
    pub stdout: bool,
    /// Standard error too.
    pub stderr: bool,
    /// Go on with lines that are still to come.
    pub follow: bool,
    /// Only the last so many lines; `None` for all.
    pub tail: Option<u64>,
    /// Only lines not older than this.
    pub since: Option<Timestamp>,
}

/// One line of a container's log.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// When it was written.
    pub timestamp: Timestamp,
    /// From standard error, not standard output.
    pub stderr: bool,
    /// The line with its line feed, at most 16 KiB.
    pub data: Vec<u8>,
    /// Attributes that the log driver was told to add.
    pub attrs: Vec<(String, String)>,
}
