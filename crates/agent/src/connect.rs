//! The way to a manager, as `node` gives it: its own one through a pipe, or one of those that it knows.

use async_trait::async_trait;
use tonic::transport::Channel;

/// Gives connections to managers and learns how they went.
#[async_trait]
pub trait Connect: Send + Sync + 'static {
    /// A connection to some manager, made anew or shared.
    async fn connect(&self) -> Result<Connection, String>;

    /// How a session over a connection of this broker went, so that the next choice is a better one.
    fn observe(&self, manager: &ManagerAddress, outcome: Outcome);
}

/// A connection and where it leads.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The connection.
    pub channel: Channel,
    /// Where it leads.
    pub manager: ManagerAddress,
}

/// Where a connection leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManagerAddress {
    /// To this node's own manager.
    Local,
    /// To `host:port`.
    Remote(String),
}

/// How a session went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was opened.
    Opened,
    /// It could not be opened, or broke.
    Broken,
}
