//! Writes, pipelined: each is validated and planned on the speculative view (committed + proposed), proposed in that
//! order, and acknowledged when it is committed and applied here.
//!
//! Invariants: proposals reach the log in the order in which they changed the speculative view; a version is given to
//! one proposal only; when leadership is lost the speculative view is thrown away and every waiter is told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use model::{ObjectVersion, Timestamp};
use store::{Action, Event, Transaction, View, stamp};
use swarm_proto::swarmkit as p;
use tokio::sync::Notify;

use crate::codec::encode_actions;
use crate::error::ControlError;
use crate::shared::Shared;

/// Largest transaction in actions; SwarmKit's limit for one entry.
pub(crate) const MAX_ACTIONS: usize = 200;

/// Leadership was lost before the entry was committed.
#[derive(Clone, Copy, Debug)]
pub struct LostLeadership;

/// The raft log as the writer needs it; `consensus` behind it, a fake in tests.
pub trait Log: Send + Sync + 'static {
    /// Appends a request after all that were given before; ready when it is committed and applied on this manager.
    fn propose(&self, request: p::InternalRaftRequest) -> BoxFuture<'static, Result<(), LostLeadership>>;
    /// The last index that this manager knows to be in its log.
    fn last_index(&self) -> u64;
}

/// The only way into the store.
pub struct Writer {
    shared: Arc<Shared>,
    log: Arc<dyn Log>,
    speculative: Mutex<Speculative>,
    wake_planner: Notify,
}

struct Speculative {
    view: View,
    /// What changed since the planner looked last.
    events: Vec<Event>,
    next_version: u64,
    next_request: u64,
    leading: bool,
    /// Grows whenever the view is thrown away: proposals of an older epoch do not concern it.
    epoch: u64,
}

/// A proposal under way.
pub(crate) struct Pending {
    epoch: u64,
    done: BoxFuture<'static, Result<(), LostLeadership>>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, log: Arc<dyn Log>, first_request: u64) -> Self {
        let speculative = Speculative {
            view: View::new(),
            events: Vec::new(),
            next_version: 0,
            next_request: first_request,
            leading: false,
            epoch: 0,
        };
        Self { shared, log, speculative: Mutex::new(speculative), wake_planner: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Speculative> {
        self.speculative.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The committed state and who watches it.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Starts to accept writes on top of what is committed. Called when this manager leads and has applied its log.
    pub(crate) fn begin(&self) {
        let mut speculative = self.lock();
        speculative.view = self.shared.view();
        speculative.events.clear();
        speculative.next_version = self.log.last_index();
        speculative.leading = true;
        speculative.epoch += 1;
        drop(speculative);
        self.wake_planner.notify_one();
    }

    /// Refuses writes from now on and throws the speculative view away.
    pub(crate) fn end(&self) {
        let mut speculative = self.lock();
        speculative.leading = false;
        speculative.epoch += 1;
        speculative.view = View::new();
        speculative.events.clear();
    }

    /// Whether this manager accepts writes.
    pub fn is_leading(&self) -> bool {
        self.lock().leading
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
        let mut speculative = self.lock();
        if !speculative.leading {
            return Err(ControlError::no_leader().into());
        }
        let mut transaction = Transaction::new(&speculative.view);
        let value = build(&mut transaction)?;
        let actions = transaction.finish();
        if actions.is_empty() {
            return Ok((value, None));
        }
        let pending = self.submit(&mut speculative, actions)?;
        drop(speculative);
        self.wake_planner.notify_one();
        Ok((value, Some(pending)))
    }

    /// Waits for a proposal; if it failed, the writer is set back to what is committed.
    pub(crate) async fn settle(&self, pending: Pending) -> Result<(), ControlError> {
        let Pending { epoch, done } = pending;
        if done.await.is_ok() {
            return Ok(());
        }
        let mut speculative = self.lock();
        if speculative.epoch == epoch {
            speculative.leading = false;
            speculative.epoch += 1;
            speculative.events.clear();
        }
        Err(ControlError::lost_leadership())
    }

    /// Lets the planner plan on the speculative view with what changed since it last did, and proposes its batches.
    pub(crate) fn plan<T>(
        &self,
        plan: impl FnOnce(&View, Vec<Event>) -> (Vec<Vec<Action>>, T),
    ) -> Result<(Vec<Pending>, T), ControlError> {
        let mut speculative = self.lock();
        if !speculative.leading {
            return Err(ControlError::no_leader());
        }
        let events = std::mem::take(&mut speculative.events);
        let view = speculative.view.clone();
        let (batches, rest) = plan(&view, events);
        drop(view);
        let mut pending = Vec::new();
        for batch in batches {
            if !batch.is_empty() {
                pending.push(self.submit(&mut speculative, batch)?);
            }
        }
        Ok((pending, rest))
    }

    /// Waits until something changed the speculative view since the last [`Self::plan`]. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.wake_planner.notified().await;
    }

    fn submit(&self, speculative: &mut Speculative, mut actions: Vec<Action>) -> Result<Pending, ControlError> {
        let version = speculative.next_version.max(self.log.last_index());
        stamp(&mut actions, ObjectVersion(version), now());
        let events = speculative.view.apply(&actions)?;
        speculative.next_version = version + 1;
        speculative.events.extend(events);
        speculative.next_request += 1;
        let request = p::InternalRaftRequest { id: speculative.next_request, action: encode_actions(&actions) };
        Ok(Pending { epoch: speculative.epoch, done: self.log.propose(request) })
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
