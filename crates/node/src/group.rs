//! Becoming a member of the managers' raft group: what a node does between its manager certificate and its manager.

use std::time::Duration;

use identity::ServerRole;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::raft_membership_client::RaftMembershipClient;
use tonic::{Code, Status};

use crate::broker::Broker;
use crate::remotes::Experience;

/// How long the leader may take to propose and commit a member: SwarmKit's request time-out.
const JOIN_TIMEOUT: Duration = Duration::from_secs(25);
/// Managers that are asked in turn when they cannot be reached.
const JOIN_TRIES: usize = 3;

/// Why the group did not take this node.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// No other manager is known.
    #[error("no manager is known to join the group through")]
    NoManager,
    /// The manager could not be reached.
    #[error(transparent)]
    Dial(#[from] identity::DialError),
    /// It did not answer in time.
    #[error("{addr} has not answered within {} s", JOIN_TIMEOUT.as_secs())]
    Timeout {
        /// Whom.
        addr: String,
    },
    /// It refused; the text is its own.
    #[error("{}", .0.message())]
    Refused(Status),
}

/// Asks a manager to have the group take this node, which listens at `addr`. Asking again is harmless: a member keeps its
/// number.
pub(crate) async fn join(broker: &Broker, addr: &str) -> Result<p::JoinResponse, GroupError> {
    let mut last = GroupError::NoManager;
    for _ in 0..JOIN_TRIES {
        let Some(manager) = broker.pick() else { break };
        last = match ask(broker, &manager.addr, addr).await {
            Ok(answer) => {
                broker.learn(&manager.addr, Experience::Good);
                return Ok(answer);
            }
            Err(error) => error,
        };
        broker.learn(&manager.addr, Experience::Bad);
        match &last {
            GroupError::Dial(_) => {}
            // No leader at this moment, or a follower that lost it.
            GroupError::Refused(status) if status.code() == Code::Unavailable => {}
            _ => break,
        }
    }
    Err(last)
}

async fn ask(broker: &Broker, manager: &str, addr: &str) -> Result<p::JoinResponse, GroupError> {
    let channel = identity::connect(manager, ServerRole::Manager, broker.credentials()).await?;
    let mut client = RaftMembershipClient::new(channel);
    let call = client.join(p::JoinRequest { addr: addr.to_owned() });
    match tokio::time::timeout(JOIN_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(GroupError::Refused(status)),
        Err(_) => Err(GroupError::Timeout { addr: manager.to_owned() }),
    }
}
