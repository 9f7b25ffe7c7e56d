//! What every planner takes and gives. A planner is a pure state machine over a view:
//!
//! * `rebuild(&mut self, view)`: on becoming leader; forgets all it knew and takes every object as changed;
//! * `plan(&mut self, view, events, now) -> Plan`: `events` are the changes that led to `view` since the last call, in
//!   order, **including those of the planner's own actions** (the leader applies a plan's actions to its speculative view
//!   and hands the resulting events to every planner). A planner is idempotent about its own events. When a plan's
//!   actions are not applied (leadership lost), the planner must be rebuilt.

use model::Timestamp;
use store::{Action, ObjectId};

/// What a planner wants done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be proposed and applied in this order. No object occurs twice.
    pub actions: Vec<Action>,
    /// When the planner must be called again even if nothing changes.
    pub deadline: Option<Timestamp>,
    /// Why something is not done yet.
    pub reasons: Vec<Reason>,
}

/// Why something about an object is not done yet, for logs and for users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The object that waits.
    pub object: ObjectId,
    /// What it waits for.
    pub text: String,
}

impl Plan {
    /// Whether there is nothing to do now or later.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.deadline.is_none() && self.reasons.is_empty()
    }

    /// Asks to be called again at `at` or earlier.
    pub fn wake_at(&mut self, at: Timestamp) {
        self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
    }
}
