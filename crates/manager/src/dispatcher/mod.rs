//! The dispatcher: registers nodes, expects their heartbeats, hands out assignments and takes statuses. Served over
//! gRPC; the same code serves the node's own agent and remote ones.
//!
//! ```text
//!  unknown ──Session──► ready ──no beat for 3 periods, or leave──► down ──Session──► ready
//!  commits ──► router ──► mailboxes of the nodes concerned ──► their streams
//! ```
//!
//! Invariants: `core` decides, this shell waits and writes; a stream is opened and a session ended under the same lock,
//! so that no stream outlives its session; locks are taken in the order writer, sessions, mailboxes.

pub mod core;
mod mailbox;
mod run;
mod service;
mod statuses;
mod streams;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use consensus::Status as RaftStatus;
use model::{NodeDescription, NodeId, NodeRole, TaskStatus};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Status;

use crate::caller::Caller;
use crate::control::write_removed;
use crate::error::ControlError;
use crate::shared::Commit;
use crate::writer::Writer;
pub use core::ManagerIdentity;
use core::{
    EndReason, Moment, Peers, Refusal, Sessions, Twins, peers_of, route, write_down, write_message, write_ready,
};
use mailbox::{Mailboxes, StreamKind, Subscription};
pub use service::DispatcherService;

/// Status updates that may wait to be written; a node that sends more waits.
const STATUS_QUEUE: usize = 10_000;
/// What the status of a node says that left in order.
const LEFT_MESSAGE: &str = "node left the swarm";

/// One reported status.
#[derive(Debug)]
pub(crate) struct StatusUpdate {
    pub(crate) task: model::TaskId,
    pub(crate) node: NodeId,
    pub(crate) status: TaskStatus,
}

/// The dispatcher of a leading manager.
pub struct Dispatcher {
    writer: Arc<Writer>,
    manager: ManagerIdentity,
    started: Instant,
    sessions: Mutex<Sessions>,
    twins: Mutex<Twins>,
    raft: watch::Receiver<RaftStatus>,
    mailboxes: Arc<Mailboxes>,
    peers: Mutex<Peers>,
    deadline_changed: Notify,
    statuses: mpsc::Sender<StatusUpdate>,
}

impl Dispatcher {
    /// A dispatcher and the loops that it needs: statuses to the store, commits to the nodes, nodes that stopped beating
    /// to DOWN. They end with the returned guard.
    pub(crate) fn start(
        writer: Arc<Writer>,
        manager: ManagerIdentity,
        status: watch::Receiver<RaftStatus>,
        seed: u64,
    ) -> (Arc<Self>, JoinSet<()>) {
        let (sender, receiver) = mpsc::channel(STATUS_QUEUE);
        let peers = peers_of(&status.borrow().members, &manager);
        let commits = writer.shared().watch();
        let dispatcher = Arc::new(Self {
            writer: writer.clone(),
            started: Instant::now(),
            sessions: Mutex::new(Sessions::new(seed)),
            twins: Mutex::default(),
            raft: status.clone(),
            mailboxes: Arc::default(),
            peers: Mutex::new(peers),
            deadline_changed: Notify::new(),
            statuses: sender,
            manager,
        });
        let mut loops = JoinSet::new();
        loops.spawn(statuses::run(writer, receiver, dispatcher.manager.node_id.clone()));
        loops.spawn(run::run_router(dispatcher.clone(), commits, status));
        loops.spawn(run::run_expiry(dispatcher.clone()));
        (dispatcher, loops)
    }

    /// A new leadership: sessions of an earlier one are over, nodes that do not come back are DOWN after a grace.
    pub(crate) fn begin(&self) {
        let view = self.writer.shared().view();
        self.twins().clear();
        self.sessions().begin(self.moment(), &view);
        self.deadline_changed.notify_one();
    }

    /// Ends every session: leadership is lost or the manager stops.
    pub(crate) fn end(&self) {
        self.sessions().end();
        self.mailboxes.end_all();
    }

    /// How many nodes have a session.
    pub fn registered(&self) -> usize {
        self.sessions().registered()
    }

    /// How often a stream was woken by a change that concerns its node, since the start.
    pub fn wakes(&self) -> u64 {
        self.mailboxes.wakes()
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn twins(&self) -> MutexGuard<'_, Twins> {
        self.twins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self) -> Moment {
        self.started.elapsed()
    }

    fn peers(&self) -> Peers {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_peers(&self, peers: Peers) {
        let mut held = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if *held == peers {
            return;
        }
        *held = peers;
        drop(held);
        self.mailboxes.wake_sessions();
    }

    /// Brings a commit to the streams that it concerns.
    fn observe(&self, commit: &Commit) {
        let removed = self.sessions().observe(&commit.events);
        for node in removed {
            self.twins().forget(&node);
            self.mailboxes.end(&node, None, EndReason::Removed);
        }
        self.mailboxes.deliver(route(&commit.view, &commit.events));
    }

    /// Registers the caller, writes what it says of itself and that it is ready, and opens its session's stream.
    async fn register(
        &self,
        caller: &Caller,
        wanted: &str,
        description: Option<NodeDescription>,
    ) -> Result<(String, Subscription), Status> {
        let node = &caller.node_id;
        let address = host_of(caller.address.as_deref().unwrap_or(&self.manager.advertise_addr)).to_owned();
        self.look_for_a_twin(node, wanted, &address);
        let session_id = self.sessions().register(self.moment(), node, wanted, identity::random_id())?;
        self.mailboxes.end(node, Some(&session_id), EndReason::Disconnect);
        self.deadline_changed.notify_one();
        let message = {
            let mut twins = self.twins();
            twins.registered(node, &session_id, &address);
            twins.message(node)
        };
        let written = self.writer.write(|transaction| {
            if write_ready(transaction, node, description, address, message)? {
                Ok(())
            } else {
                Err(ControlError::new(tonic::Code::Unknown, "node not found"))
            }
        });
        if let Err(error) = written.await {
            self.sessions().close(node, &session_id);
            return Err(error.into());
        }
        let subscription = self.open(node, &session_id, StreamKind::Session)?;
        Ok((session_id, subscription))
    }

    /// Takes a beat, and says when the next is due.
    async fn beat(&self, caller: &Caller, session_id: &str) -> Result<Duration, Status> {
        let (node, now) = (&caller.node_id, self.moment());
        let beaten = self.sessions().beat(now, node, session_id);
        match beaten {
            Ok(period) => {
                if self.twins().called(now, node, session_id) {
                    let write = self.writer.write(|transaction| {
                        write_message(transaction, node, String::new()).map_err(ControlError::from)
                    });
                    write.await.map_err(Status::from)?;
                }
                Ok(period)
            }
            Err(refusal) => {
                self.look_for_a_twin(node, session_id, host_of(caller.address.as_deref().unwrap_or_default()));
                Err(refusal.into())
            }
        }
    }

    /// Warns if a call that is not of the node's session shows that two machines use its certificate.
    fn look_for_a_twin(&self, node: &NodeId, session_id: &str, address: &str) {
        let found = self.twins().called_amiss(self.moment(), node, session_id, address);
        if let Some([one, other]) = found {
            tracing::warn!(
                %node, one, other,
                "two machines use the certificate of one node and take each other's place: one of them must leave the swarm and join again"
            );
        }
    }

    /// Opens a stream of a session that lives.
    fn open(&self, node: &NodeId, session_id: &str, kind: StreamKind) -> Result<Subscription, Refusal> {
        let sessions = self.sessions();
        sessions.check(node, session_id)?;
        Ok(self.mailboxes.open(node, session_id, kind))
    }

    /// The node has stopped its tasks and leaves: it is DOWN at once, its session is over.
    async fn leave(&self, node: &NodeId, session_id: &str) -> Result<(), Status> {
        self.sessions().check(node, session_id)?;
        let write =
            self.writer.write(|transaction| write_down(transaction, node, LEFT_MESSAGE).map_err(ControlError::from));
        write.await.map_err(Status::from)?;
        self.sessions().close(node, session_id);
        self.mailboxes.end(node, None, EndReason::Disconnect);
        Ok(())
    }
}

impl Dispatcher {
    /// A node that was to be a manager could not join the group and forgets that it had begun: so does the swarm, where
    /// SwarmKit keeps a node that never was for somebody to demote and remove. Whoever has been more than that only leaves.
    async fn withdraw(&self, node: &NodeId, session_id: &str) -> Result<(), Status> {
        self.sessions().check(node, session_id)?;
        let is_member = self.raft.borrow().members.values().any(|member| member.node_id == node.as_str());
        let write = self.writer.write(|transaction| match transaction.node(node).cloned() {
            Some(stored) if stored.role == NodeRole::Manager && !is_member => write_removed(transaction, &stored),
            _ => write_down(transaction, node, LEFT_MESSAGE).map_err(ControlError::from),
        });
        write.await.map_err(Status::from)?;
        self.sessions().close(node, session_id);
        self.mailboxes.end(node, None, EndReason::Disconnect);
        Ok(())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Stopped => Self::aborted(text),
            Refusal::NotRegistered => Self::not_found(text),
            Refusal::SessionInvalid => Self::invalid_argument(text),
            Refusal::RateLimited(_) => Self::unavailable(text),
        }
    }
}

/// The host of `host:port`, of `[v6]:port`, or of an address without a port.
fn host_of(address: &str) -> &str {
    if let Some(rest) = address.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match address.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => address,
    }
}
