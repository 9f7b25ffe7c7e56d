//! Writes, pipelined: each is validated and planned on the speculative view (committed + proposed), proposed in that
//! order, and acknowledged when it is committed and applied here.
//!
//! Invariants: proposals reach the log in the order in which they changed the speculative view; a version is given to
//! one proposal only; when leadership is lost the speculative view is thrown away and every waiter is told.

mod speculation;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use model::Timestamp;
use store::{Action, Event, Transaction, View};
use swarm_proto::swarmkit as p;
use tokio::sync::Notify;

use crate::error::ControlError;
use crate::shared::Shared;
pub use speculation::{Proposal, Speculation, Stamp};

/// Largest transaction in actions; SwarmKit's limit for one entry.
pub const MAX_ACTIONS: usize = 200;

/// Leadership was lost before the entry was committed.
#[derive(Clone, Copy, Debug)]
pub struct LostLeadership;

/// The raft log as the writer needs it; `consensus` behind it, a fake in tests.
pub trait Log: Send + Sync + 'static {
    /// Appends a request after all that were given before, unless `term` is over; ready when it is committed and applied
    /// on this manager.
    fn propose(&self, term: u64, request: p::InternalRaftRequest) -> BoxFuture<'static, Result<(), LostLeadership>>;
    /// The last index that this manager knows to be in its log.
    fn last_index(&self) -> u64;
}

/// The only way into the store.
pub struct Writer {
    shared: Arc<Shared>,
    log: Arc<dyn Log>,
    speculation: Mutex<Speculation>,
    wake_planner: Notify,
}

/// A proposal under way.
pub(crate) struct Pending {
    epoch: u64,
    done: BoxFuture<'static, Result<(), LostLeadership>>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, log: Arc<dyn Log>, first_request: u64) -> Self {
        let speculation = Mutex::new(Speculation::new(first_request));
        Self { shared, log, speculation, wake_planner: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Speculation> {
        self.speculation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The committed state and who watches it.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Starts to accept writes on top of what is committed. Called when this manager leads in `term` and has applied its
    /// log.
    pub(crate) async fn begin(&self, term: u64) -> Result<(), ControlError> {
        // What an earlier turn proposed in this very term may still be on its way, if that turn did not end with the
        // leadership. An empty request goes behind all of it.
        let before = self.log.propose(term, p::InternalRaftRequest::default());
        before.await.map_err(|LostLeadership| ControlError::lost_leadership())?;
        self.lock().begin(term, self.shared.view(), self.log.last_index());
        self.wake_planner.notify_one();
        Ok(())
    }

    /// Refuses writes from now on and throws the speculative view away.
    pub(crate) fn end(&self) {
        self.lock().end();
    }

    /// Whether this manager accepts writes.
    pub fn is_leading(&self) -> bool {
        self.lock().is_leading()
    }

    fn stamp(&self) -> Stamp {
        Stamp { last_index: self.log.last_index(), now: now() }
    }

    /// Runs `build` on the speculative view, proposes what it wrote and waits for the commit. A `build` that fails
    /// writes nothing.
    pub async fn write<T, E>(&self, build: impl FnOnce(&mut Transaction) -> Result<T, E>) -> Result<T, E>
    where
        E: From<ControlError>,
    {
        let (value, pending) = self.start(build)?;
        if let Some(pending) = pending {
            self.settle(pending).await?;
        }
        Ok(value)
    }

    /// Like [`Self::write`], but returns as soon as the write is proposed; `None` if there was nothing to write.
    pub(crate) fn start<T, E>(
        &self,
        build: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<(T, Option<Pending>), E>
    where
        E: From<ControlError>,
    {
        let mut speculation = self.lock();
        let (value, proposal) = speculation.start(self.stamp(), build)?;
        let Some(proposal) = proposal else { return Ok((value, None)) };
        let pending = self.propose(proposal);
        drop(speculation);
        self.wake_planner.notify_one();
        Ok((value, Some(pending)))
    }

    /// Called with the speculation locked, so that the log has the order of the view.
    fn propose(&self, proposal: Proposal) -> Pending {
        Pending { epoch: proposal.epoch, done: self.log.propose(proposal.term, proposal.request) }
    }

    /// Waits for a proposal; if it failed, the writer is set back to what is committed.
    pub(crate) async fn settle(&self, pending: Pending) -> Result<(), ControlError> {
        let Pending { epoch, done } = pending;
        if done.await.is_ok() {
            return Ok(());
        }
        self.lock().failed(epoch);
        // The leader's loop must begin anew, or nothing could be written until its next deadline.
        self.wake_planner.notify_one();
        Err(ControlError::lost_leadership())
    }

    /// Lets the planner plan on the speculative view with what changed since it last did, and proposes its batches.
    pub(crate) fn plan<T>(
        &self,
        plan: impl FnOnce(&View, Vec<Event>) -> (Vec<Vec<Action>>, T),
    ) -> Result<(Vec<Pending>, T), ControlError> {
        let mut speculation = self.lock();
        let (proposals, rest) = speculation.plan(self.stamp(), plan)?;
        Ok((proposals.into_iter().map(|proposal| self.propose(proposal)).collect(), rest))
    }

    /// Waits until something changed the speculative view since the last [`Self::plan`]. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.wake_planner.notified().await;
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
