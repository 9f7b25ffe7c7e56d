//! Why a node cannot be what it should be in a swarm. The API chooses statuses and texts.

use identity::JoinError;

use crate::address::AddressError;
use crate::group::GroupError;
use crate::keeper::KeeperError;
use crate::leaving::LeaveRefusal;
use crate::state::StateError;

/// Why a node, or the manager on it, could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state on disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// Who the node is.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The port of the swarm.
    #[error("failed to listen on remote API address: listen tcp {addr}: bind")]
    Listen {
        /// Where.
        addr: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The managers did not take this one.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The manager itself.
    #[error(transparent)]
    Manager(#[from] manager::ManagerError),
    /// It ran, and broke.
    #[error("{0}")]
    Broken(String),
    /// The node left the swarm, or the daemon ends.
    #[error("the node has left meanwhile")]
    Ended,
}

/// Why a swarm could not be founded or joined.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// This node is in a swarm.
    #[error("this node is in a swarm")]
    InSwarm,
    /// An address.
    #[error("an address cannot be used: {0:?}")]
    Address(AddressError),
    /// The data path port is out of range.
    #[error("data path port {0} is out of range")]
    DataPathPort(u32),
    /// The token has no known form, or asks for what this node is not.
    #[error(transparent)]
    Token(#[from] identity::TokenError),
    /// No certificate.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Keys and certificates of a founder.
    #[error("certificates could not be made: {0}")]
    Identity(String),
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its manager could not start, and is not tried again.
    #[error(transparent)]
    Manager(std::sync::Arc<StartError>),
    /// The new manager did not answer in time.
    #[error("the manager did not become ready in time")]
    Timeout,
    /// The join goes on in the background.
    #[error("the node has not joined in time and goes on to try")]
    JoinTimeout,
    /// Only a manager's state can be made a cluster of its own.
    #[error("this node holds no state of a manager")]
    NoManagerState,
}

/// Why leaving was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// This node is in no swarm.
    #[error("this node is in no swarm")]
    NotInSwarm,
    /// It needs force.
    #[error(transparent)]
    Refused(#[from] LeaveRefusal),
    /// The file system.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why a manager was not unlocked.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// This node is in no swarm.
    #[error("this node is in no swarm")]
    NotInSwarm,
    /// It is not locked.
    #[error("the manager is not locked")]
    NotLocked,
    /// The key is another one.
    #[error("the unlock key is another one")]
    WrongKey,
    /// It was unlocked and could not start.
    #[error(transparent)]
    Start(NodeError),
}

impl From<StateError> for NodeError {
    fn from(error: StateError) -> Self {
        Self::Start(error.into())
    }
}

impl From<KeeperError> for NodeError {
    fn from(error: KeeperError) -> Self {
        Self::Start(error.into())
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
