//! Writes, pipelined: each is validated and planned on the speculative view (committed + proposed), proposed in that
//! order, and acknowledged when it is committed and applied here.
//!
//! Invariants: proposals reach the log in the order in which they changed the speculative view; a version is given to
//! one proposal only; when leadership is lost the speculative view is thrown away and every waiter is told. Whoever writes
//! or plans waits for its turn without a thread: a plan of many tasks takes long, and heartbeats must be answered meanwhile.

mod speculation;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use model::Timestamp;
use store::{Action, Event, Transaction, View};
use swarm_proto::swarmkit as p;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;

use crate::error::ControlError;
use crate::shared::Shared;
pub use speculation::{Planning, Proposal, Speculation, Stamp};

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
    /// Held while something is built on the speculative view, so that only the end of a leadership changes it meanwhile.
    turn: tokio::sync::Mutex<()>,
    /// Held for moments.
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
        Self { shared, log, turn: tokio::sync::Mutex::default(), speculation, wake_planner: Notify::new() }
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
        let (value, pending) = self.start(build).await?;
        if let Some(pending) = pending {
            self.settle(pending).await?;
        }
        Ok(value)
    }

    /// Like [`Self::write`], but returns as soon as the write is proposed; `None` if there was nothing to write.
    pub(crate) async fn start<T, E>(
        &self,
        build: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<(T, Option<Pending>), E>
    where
        E: From<ControlError>,
    {
        let _turn = self.turn.lock().await;
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
    pub(crate) async fn plan<T>(
        &self,
        plan: impl FnOnce(&View, Vec<Event>) -> (Vec<Vec<Action>>, T),
    ) -> Result<(Vec<Pending>, T), ControlError> {
        let _turn = self.turn.lock().await;
        let Planning { view, events, epoch } = self.lock().begin_plan()?;
        blocking(|| {
            let (batches, rest) = plan(&view, events);
            // Else what the batches change would be copied for the sake of a view that nobody looks at any more.
            drop(view);
            let batches = batches.into_iter().filter(|batch| !batch.is_empty());
            let pending = batches.map(|batch| {
                // Not for all of them at once: they may take seconds to apply and encode.
                let mut speculation = self.lock();
                speculation.planned(self.stamp(), epoch, batch).map(|proposal| self.propose(proposal))
            });
            Ok((pending.collect::<Result<_, _>>()?, rest))
        })
    }

    /// Waits until something changed the speculative view since the last [`Self::plan`]. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.wake_planner.notified().await;
    }
}

/// Runs what takes long. In a runtime of several threads the other tasks of this one go on elsewhere meanwhile.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use model::NodeRole;

    use super::*;
    use crate::test_support::{create, leading_writer, node};

    /// Plans in a task of its own, and stays in it until the sender is used. Returns when it has begun.
    async fn plan_for_long(
        writer: &Arc<Writer>,
        batches: Vec<Vec<Action>>,
    ) -> (std::sync::mpsc::Sender<()>, tokio::task::JoinHandle<Result<usize, ControlError>>) {
        let (go_on, wait) = std::sync::mpsc::channel();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let writer = writer.clone();
        let planner = tokio::spawn(async move {
            let plan = move |_: &View, _| {
                begun.send(()).unwrap();
                wait.recv().unwrap();
                (batches, ())
            };
            writer.plan(plan).await.map(|(pending, ())| pending.len())
        });
        has_begun.await.unwrap();
        (go_on, planner)
    }

    fn created(id: &str) -> Vec<Vec<Action>> {
        vec![vec![Action::Create(node(id, NodeRole::Worker).into())]]
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_long_plan_keeps_its_turn_but_no_thread() {
        let writer = leading_writer().await;
        let (go_on, planner) = plan_for_long(&writer, created("planned")).await;
        let write = tokio::spawn({
            let writer = writer.clone();
            async move { create(&writer, vec![node("written", NodeRole::Worker).into()]).await }
        });
        // The only worker goes through its other tasks, with the planner still at it.
        for _ in 0..10 {
            tokio::spawn(tokio::task::yield_now()).await.unwrap();
        }
        assert!(!write.is_finished() && !planner.is_finished());
        assert!(writer.is_leading(), "nor does it hold up who only asks");
        go_on.send(()).unwrap();
        assert_eq!(planner.await.unwrap().unwrap(), 1);
        write.await.unwrap();
        let view = writer.shared().view();
        let version = |id: &str| view.node(&id.into()).unwrap().meta.version;
        assert!(version("planned") < version("written"), "in the order of their turns");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_plan_of_a_lost_leadership_is_thrown_away() {
        let writer = leading_writer().await;
        let (go_on, planner) = plan_for_long(&writer, created("planned")).await;
        writer.end();
        writer.begin(2).await.unwrap();
        go_on.send(()).unwrap();
        assert!(planner.await.unwrap().is_err());
        assert!(writer.shared().view().node(&"planned".into()).is_none());
        assert!(writer.is_leading(), "the new leadership is none the worse");
    }
}
