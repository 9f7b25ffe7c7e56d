//! The speculative view: committed state plus all that this leadership has proposed. Pure: the writer around it proposes
//! and waits, the simulation does the same on virtual time.
//!
//! Invariants: proposals leave in the order in which they changed the view, and each carries a version of its own, which
//! is larger than all before; nothing is planned on a view of another leadership.

use model::{ObjectVersion, Timestamp};
use store::{Action, Event, Transaction, View, stamp};
use swarm_proto::swarmkit as p;

use crate::codec::encode_actions;
use crate::error::ControlError;

/// What the writes of one call are stamped with.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The last index that is known to be in the log.
    pub last_index: u64,
    /// The wall clock.
    pub now: Timestamp,
}

/// What is to be proposed, in the term of its leadership.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Which view it was planned on.
    pub epoch: u64,
    /// The term of the leadership; in another one it must not reach the log.
    pub term: u64,
    /// The request.
    pub request: p::InternalRaftRequest,
}

/// What a plan is made on.
pub struct Planning {
    /// All that is committed and proposed.
    pub view: View,
    /// What changed since the planner looked last.
    pub events: Vec<Event>,
    /// Which view this is.
    pub epoch: u64,
}

/// Committed and proposed state of a leader.
pub struct Speculation {
    view: View,
    /// What changed since the planner looked last.
    events: Vec<Event>,
    next_version: u64,
    next_request: u64,
    leading: bool,
    term: u64,
    /// Grows whenever the view is thrown away: proposals of an older epoch do not concern it.
    epoch: u64,
}

impl Speculation {
    /// One that accepts nothing yet. Requests are numbered from the number after `first_request`.
    pub fn new(first_request: u64) -> Self {
        Self {
            view: View::new(),
            events: Vec::new(),
            next_version: 0,
            next_request: first_request,
            leading: false,
            term: 0,
            epoch: 0,
        }
    }

    /// Starts to accept writes on top of what is committed. All that this manager proposed before must have been applied
    /// or refused.
    pub fn begin(&mut self, term: u64, committed: View, last_index: u64) {
        self.view = committed;
        self.events.clear();
        self.next_version = last_index;
        self.leading = true;
        self.term = term;
        self.epoch += 1;
    }

    /// Refuses writes from now on and throws the view away.
    pub fn end(&mut self) {
        self.leading = false;
        self.epoch += 1;
        self.view = View::new();
        self.events.clear();
    }

    /// Whether writes are accepted.
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// Runs `build` on the view and says what to propose; `None` if it wrote nothing. A `build` that fails writes nothing.
    pub fn start<T, E>(
        &mut self,
        stamp: Stamp,
        build: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<(T, Option<Proposal>), E>
    where
        E: From<ControlError>,
    {
        if !self.leading {
            return Err(ControlError::no_leader().into());
        }
        let mut transaction = Transaction::new(&self.view);
        let value = build(&mut transaction)?;
        let actions = transaction.finish();
        if actions.is_empty() {
            return Ok((value, None));
        }
        Ok((value, Some(self.submit(stamp, actions)?)))
    }

    /// What the planner plans on. Until its last batch is in [`Self::planned`] nothing else may be built on the view, but
    /// the leadership may end.
    pub fn begin_plan(&mut self) -> Result<Planning, ControlError> {
        if !self.leading {
            return Err(ControlError::no_leader());
        }
        Ok(Planning { view: self.view.clone(), events: std::mem::take(&mut self.events), epoch: self.epoch })
    }

    /// Takes a batch of the planner's, the next in its order, and says what to propose. A plan on a view that was thrown
    /// away since is thrown away, too.
    pub fn planned(&mut self, stamp: Stamp, epoch: u64, batch: Vec<Action>) -> Result<Proposal, ControlError> {
        if !self.leading || self.epoch != epoch {
            return Err(ControlError::lost_leadership());
        }
        let proposal = self.submit(stamp, batch);
        if proposal.is_err() {
            // The view may hold a part of the batch, which will never be proposed.
            self.end();
        }
        proposal
    }

    /// A proposal was not committed: nothing that was planned on its view may be.
    pub fn failed(&mut self, epoch: u64) {
        if self.epoch == epoch {
            self.leading = false;
            self.epoch += 1;
            self.events.clear();
        }
    }

    fn submit(&mut self, with: Stamp, mut actions: Vec<Action>) -> Result<Proposal, ControlError> {
        let version = self.next_version.max(with.last_index);
        stamp(&mut actions, ObjectVersion(version), with.now);
        let events = self.view.apply(&actions)?;
        self.next_version = version + 1;
        self.events.extend(events);
        self.next_request += 1;
        let request = p::InternalRaftRequest { id: self.next_request, action: encode_actions(&actions) };
        Ok(Proposal { epoch: self.epoch, term: self.term, request })
    }
}
