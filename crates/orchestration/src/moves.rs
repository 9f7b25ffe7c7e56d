//! Moves: a running task of a replicated service is replaced, start-first, by one of its slot on a named node.
//!
//! ```text
//!  old RUNNING ── new: same slot, node given, desired RUNNING, label REPLACES = old
//!       │              ├─ it runs ─────────────► old: desired SHUTDOWN, label REASON          (taken over)
//!       │              ├─ it ends, is refused, … ► new: desired SHUTDOWN, label REASON        (given up)
//!       └─ old ends or loses its node first ───► old: desired SHUTDOWN, label REASON; new is its restart
//! ```
//!
//! All of a move is in the store, in labels of the two tasks (`Task.annotations`, which SwarmKit carries and does not
//! read): a new leader goes on where the former one was, and one that knows nothing of moves sees two tasks of one slot, as
//! in an update that starts first. While a move is under way its new task counts for nothing else: neither updates nor
//! scaling see it. Begun by [`crate::rebalance`], gone on with by [`crate::services`].

use crate::restart::{Restarts, Work};
use crate::slots::tasks_of_slot;
use crate::tasks::{Mode, has_ended, slot_of, write};
use model::{Node, NodeId, Service, Task, TaskState};
use std::fmt;
use std::sync::Arc;
use store::{Transaction, View};

/// On a task that was made by a move: the task that it replaces.
pub const REPLACES_LABEL: &str = "skep.rebalance.replaces";
/// On a task that a move has shut down, old or new: why, in words.
pub const REASON_LABEL: &str = "skep.rebalance.reason";

/// Why a move came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// The new task ended before it ran.
    Failed,
    /// Its node is gone, DOWN or drained.
    NodeLost,
    /// Its node has no room for it any more.
    Refused,
    /// It did not come to run in time.
    TooSlow,
    /// Rebalancing was switched off.
    SwitchedOff,
    /// The service was changed.
    ServiceChanged,
    /// The old task ended and is not to be restarted.
    SlotOver,
}

impl GivenUp {
    const ALL: [Self; 7] = [
        Self::Failed,
        Self::NodeLost,
        Self::Refused,
        Self::TooSlow,
        Self::SwitchedOff,
        Self::ServiceChanged,
        Self::SlotOver,
    ];

    /// Whether moving did not work, as opposed to being no longer wanted.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::NodeLost | Self::Refused | Self::TooSlow)
    }

    /// Why `task` was given up, if it was.
    pub fn of(task: &Task) -> Option<Self> {
        let text = task.annotations.labels.get(REASON_LABEL)?;
        Self::ALL.into_iter().find(|why| why.to_string() == *text)
    }
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rebalance given up: ")?;
        f.write_str(match self {
            Self::Failed => "the new task failed",
            Self::NodeLost => "its node is lost",
            Self::Refused => "its node has no room any more",
            Self::TooSlow => "the new task did not come to run in time",
            Self::SwitchedOff => "it was switched off",
            Self::ServiceChanged => "the service was changed",
            Self::SlotOver => "the old task ended and is not restarted",
        })
    }
}

/// Why the task was shut down by a move, if it was.
pub(crate) fn reason(task: &Task) -> Option<&str> {
    task.annotations.labels.get(REASON_LABEL).map(String::as_str)
}

/// Whether the task was made by a move.
pub(crate) fn is_replacement(task: &Task) -> bool {
    task.annotations.labels.contains_key(REPLACES_LABEL)
}

/// Of the tasks of its slot, the one that `new` was made to replace and did not (yet).
pub(crate) fn replaced_by<'a>(slot: &'a [Arc<Task>], new: &Task) -> Option<&'a Arc<Task>> {
    let old = new.annotations.labels.get(REPLACES_LABEL)?;
    slot.iter().find(|task| task.id.as_str() == old && reason(task).is_none())
}

/// Whether `new` is about to replace a task that still shall run.
pub(crate) fn is_under_way(slot: &[Arc<Task>], new: &Task) -> bool {
    new.desired_state <= TaskState::Running
        && replaced_by(slot, new).is_some_and(|old| old.desired_state <= TaskState::Running)
}

/// The task that is about to replace `old`.
pub(crate) fn successor<'a>(slot: &'a [Arc<Task>], old: &Task) -> Option<&'a Arc<Task>> {
    slot.iter().find(|new| is_under_way(slot, new) && replaced_by(slot, new).is_some_and(|it| it.id == old.id))
}

/// What a change of a task tells of a move, in words: that one begins, has been taken over, was given up. From what every
/// manager has, so that all tell the same.
pub fn told(view: &View, old: Option<&Task>, new: &Task) -> Option<String> {
    let why = reason(new);
    if why.is_some() && why != old.and_then(reason) {
        return why.map(str::to_owned);
    }
    let replaced = new.annotations.labels.get(REPLACES_LABEL).filter(|_| old.is_none())?;
    let name = |id: Option<&NodeId>| node_name(id.and_then(|id| view.node(id)).map(|node| &**node)).to_owned();
    let from = view.get_str::<Task>(replaced).and_then(|task| task.node_id.as_ref());
    Some(format!("moves slot {} from node {} to node {}", new.slot, name(from), name(new.node_id.as_ref())))
}

/// What people call the node.
pub(crate) fn node_name(node: Option<&Node>) -> &str {
    let Some(node) = node else { return "that is gone" };
    match node.description.as_ref().map_or("", |it| &it.hostname) {
        "" => node.id.as_str(),
        hostname => hostname,
    }
}

fn shut_down(transaction: &mut Transaction, task: &Task, why: String) {
    let mut stopped = task.clone();
    stopped.desired_state = stopped.desired_state.max(TaskState::Shutdown);
    if !has_ended(task) {
        stopped.status.message.clone_from(&why);
    }
    stopped.annotations.labels.insert(REASON_LABEL.to_owned(), why);
    write(transaction, stopped);
}

/// The new task runs, or the old one cannot go on: the old one shall stop.
pub(crate) fn take_over(transaction: &mut Transaction, old: &Task, new: &Task) {
    let node = new.node_id.as_ref().and_then(|id| transaction.node(id)).cloned();
    let why = format!("rebalanced: moved to node {}", node_name(node.as_deref()));
    shut_down(transaction, old, why);
}

/// The new task shall stop, the old one stays.
pub(crate) fn give_up(transaction: &mut Transaction, new: &Task, why: GivenUp) {
    shut_down(transaction, new, why.to_string());
}

/// A service has changed: moves that were begun before are given up, so that updates find slots as they left them.
pub(crate) fn give_up_outdated(work: &mut Work<'_>, service: &Service) {
    let view: &View = work.transaction;
    let made = view.tasks_of_service(&service.id).filter(|task| is_replacement(task));
    let outdated = made.filter(|task| task.spec_version != service.spec_version).filter(|task| {
        let slot: Vec<_> = view.tasks_of_slot(&service.id, task.slot).cloned().collect();
        is_under_way(&slot, task)
    });
    let outdated: Vec<Arc<Task>> = outdated.cloned().collect();
    outdated.iter().for_each(|task| give_up(work.transaction, task, GivenUp::ServiceChanged));
}

/// A task of a replicated service came to run: if it was to replace another one, it does so now.
pub(crate) fn settle_running(work: &mut Work<'_>, service: &Service, task: &Task) -> bool {
    let slot: Vec<_> = work.transaction.tasks_of_slot(&service.id, task.slot).cloned().collect();
    let old = replaced_by(&slot, task).filter(|_| is_under_way(&slot, task));
    if let Some(old) = old {
        take_over(work.transaction, old, task);
    }
    old.is_some()
}

/// A task of a replicated service ended or lost its node. If it is part of a move, that settles what becomes of it: no
/// restart is counted for a new task, and an old one has its restart already.
pub(crate) fn settle_ended(work: &mut Work<'_>, restarts: &mut Restarts, service: &Service, task: &Task) -> bool {
    let Some(key) = slot_of(Mode::Replicated, task) else { return false };
    let slot = tasks_of_slot(work.transaction, service, &key);
    if is_under_way(&slot, task) {
        let why = if has_ended(task) { GivenUp::Failed } else { GivenUp::NodeLost };
        give_up(work.transaction, task, why);
        return true;
    }
    let Some(new) = successor(&slot, task) else { return false };
    if restarts.should_restart(Mode::Replicated, task) {
        restarts.record(&key, new, work.now);
        take_over(work.transaction, task, new);
    } else {
        give_up(work.transaction, new, GivenUp::SlotOver);
        crate::tasks::raise_desired(work.transaction, &task.id, TaskState::Shutdown);
    }
    true
}
