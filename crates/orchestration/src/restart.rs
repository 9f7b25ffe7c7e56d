//! The restart supervisor: replaces tasks that ended, and starts replacements when their time has come.
//!
//! ```text
//!  task ends ──► old: desired SHUTDOWN ──┬─ not to be restarted: that is all
//!                                        └─ new: NEW, desired READY (it already prepares)
//!                                             │ delay over, old one stopped (1 min at most, not if its node is DOWN)
//!                                             ├─ it ended meanwhile, or its node is lost: replaced in its turn
//!                                             └─ desired RUNNING (COMPLETE for jobs)
//! ```
//!
//! Owned by [`crate::services::Services`]. The updater uses the same waiting starts for the tasks that it makes. All of it
//! can be found again in the store: `Restarts::adopt`.

use crate::dirty::is_task_dirty;
use crate::global::shut_down_instead;
use crate::moves::is_replacement;
use crate::plan::Plan;
use crate::slots::tasks_of_slot;
use crate::tasks::{
    Mode, SlotKey, age, create, has_ended, is_on_invalid_node, may_have_container, new_task, new_task_id,
    raise_desired, slot_of,
};
use crate::updater::config;
use model::{
    Duration, Node, NodeAvailability, NodeState, RestartCondition, RestartPolicy, Service, ServiceId, SpecVersion,
    Task, TaskId, TaskState, Timestamp, UpdateOrder,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use stdx::Rng;
use store::{Transaction, View};

/// How long a replacement waits that names no delay.
pub const DEFAULT_DELAY: Duration = Duration::from_secs(5);
/// How long a replacement waits at most for the old task to stop, from its creation.
pub const OLD_TASK_TIMEOUT: Duration = Duration::from_secs(60);
/// How many restarts of a slot are remembered for a policy with a window.
const HISTORY_LIMIT: usize = 1_000;

/// A replacement that waits.
#[derive(Clone, Debug)]
struct Start {
    /// Not before this.
    at: Timestamp,
    /// Then even if the old tasks have not stopped.
    give_up_at: Timestamp,
    /// The tasks that must have stopped.
    old: Vec<TaskId>,
}

/// The restarts of a slot.
#[derive(Clone, Debug, Default)]
struct History {
    spec_version: Option<SpecVersion>,
    total: u64,
    times: VecDeque<Timestamp>,
}

/// What the planners of services share while they plan.
pub(crate) struct Work<'a> {
    pub(crate) transaction: &'a mut Transaction,
    pub(crate) now: Timestamp,
    pub(crate) rng: &'a mut Rng,
}

impl Work<'_> {
    /// Makes a task of `service`; it is not stored yet.
    pub(crate) fn new_task(&mut self, service: &Service, slot: &SlotKey) -> Task {
        let cluster = self.transaction.the_cluster().cloned();
        let mut task = new_task(cluster.as_deref(), service, slot, self.now, self.rng);
        // Only a leader that was given the same seed twice meets an identifier again.
        while self.transaction.task(&task.id).is_some() {
            task.id = new_task_id(self.rng);
        }
        task
    }
}

/// The supervisor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restarts {
    starts: BTreeMap<TaskId, Start>,
    timers: BTreeSet<(Timestamp, TaskId)>,
    /// Which replacements wait for a task.
    waits_for: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// Replacements to look at in the next plan.
    check: BTreeSet<TaskId>,
    history: BTreeMap<ServiceId, BTreeMap<SlotKey, History>>,
}

/// The restart policy of a task: the default if its spec has none.
fn policy(task: &Task) -> RestartPolicy {
    let default = || RestartPolicy { condition: RestartCondition::Any, ..Default::default() };
    task.spec.restart.clone().unwrap_or_else(default)
}

impl Restarts {
    /// Takes over what a former leader has left: counts past restarts, and starts what waits with desired state READY.
    pub(crate) fn adopt(&mut self, view: &View, now: Timestamp) {
        for service in view.services() {
            let mode = Mode::of(service);
            let mut slots: BTreeMap<SlotKey, Vec<&Arc<Task>>> = BTreeMap::new();
            for task in view.tasks_of_service(&service.id) {
                if let Some(slot) = slot_of(mode, task) {
                    slots.entry(slot).or_default().push(task);
                }
            }
            for (slot, mut tasks) in slots {
                tasks.sort_by_key(|task| age(task));
                // The first of a spec version was made by an update, and what replaces one that ran well by a move.
                let is_restart =
                    |pair: &&[&Arc<Task>]| pair[0].spec_version == pair[1].spec_version && !is_replacement(pair[1]);
                for pair in tasks.windows(2).filter(is_restart) {
                    let task = pair[1];
                    self.record(&slot, task, task.meta.created_at.or(task.status.timestamp).unwrap_or(now));
                }
                let waiting = tasks.iter().filter(|task| task.desired_state == TaskState::Ready);
                for task in waiting {
                    self.adopt_start(task, &tasks, now);
                }
            }
        }
    }

    /// Starts a waiting task after what is left of its delay, counted from its last status.
    fn adopt_start(&mut self, task: &Task, slot: &[&Arc<Task>], now: Timestamp) {
        let delay = policy(task).delay.unwrap_or(DEFAULT_DELAY);
        let seen = task.status.applied_at.or(task.status.timestamp).unwrap_or(now);
        let at = seen.plus(delay).min(now.plus(delay));
        let old = slot.iter().filter(|it| it.id != task.id && it.desired_state > TaskState::Complete);
        let old = old.filter(|it| may_have_container(it)).map(|it| it.id.clone()).collect();
        let give_up_at = task.meta.created_at.unwrap_or(now).plus(OLD_TASK_TIMEOUT).min(now.plus(OLD_TASK_TIMEOUT));
        self.wait(task.id.clone(), Start { at, give_up_at, old });
    }

    /// Whether the policy lets `task` be replaced, now that it has ended.
    pub(crate) fn should_restart(&self, mode: Mode, task: &Task) -> bool {
        let policy = policy(task);
        let failed = task.status.state != TaskState::Complete;
        let wanted = match policy.condition {
            RestartCondition::None => false,
            RestartCondition::OnFailure => failed,
            RestartCondition::Any => failed || !mode.is_job(),
        };
        if !wanted || policy.max_attempts == 0 {
            return wanted;
        }
        let slots = task.service_id.as_ref().and_then(|id| self.history.get(id));
        let slot = slot_of(mode, task);
        let Some(history) = slots.zip(slot).and_then(|(slots, slot)| slots.get(&slot)) else { return true };
        if task.spec_version.is_some() && task.spec_version != history.spec_version {
            return true;
        }
        match policy.window.filter(|window| window.total_nanos() != 0) {
            None => history.total < policy.max_attempts,
            Some(window) => {
                let ended = task.status.applied_at.or(task.status.timestamp).unwrap_or_default();
                let from = ended.plus(Duration::from_nanos(window.total_nanos().saturating_neg()));
                let recent = history.times.iter().filter(|at| **at > from && **at < ended).count() as u64;
                recent < policy.max_attempts
            }
        }
    }

    /// Counts an attempt.
    pub(crate) fn record(&mut self, slot: &SlotKey, replacement: &Task, now: Timestamp) {
        let policy = policy(replacement);
        let Some(service) = replacement.service_id.clone().filter(|_| policy.max_attempts > 0) else { return };
        let history = self.history.entry(service).or_default().entry(slot.clone()).or_default();
        if history.spec_version != replacement.spec_version {
            *history = History { spec_version: replacement.spec_version, ..Default::default() };
        }
        history.total += 1;
        if policy.window.is_some_and(|window| window.total_nanos() != 0) {
            if history.times.len() == HISTORY_LIMIT {
                history.times.pop_front();
            }
            history.times.push_back(now);
        }
    }

    /// Shuts `task` down, and replaces it if its policy wants that. One whose start still waits is replaced when its time
    /// has come, so that what cannot be prepared is not tried in a tight loop.
    pub(crate) fn restart(&mut self, work: &mut Work<'_>, service: &Service, task: &Task) {
        let mode = Mode::of(service);
        if task.desired_state > mode.working_state() || self.starts.contains_key(&task.id) {
            return;
        }
        raise_desired(work.transaction, &task.id, TaskState::Shutdown);
        let Some(slot) = slot_of(mode, task) else { return };
        if !self.should_restart(mode, task) || has_successor(work.transaction, service, &slot, task) {
            return;
        }
        let node = task.node_id.as_ref().and_then(|id| work.transaction.node(id));
        let drained = node.is_some_and(|node| node.spec.availability == NodeAvailability::Drain);
        let delay = if drained { Duration::default() } else { policy(task).delay.unwrap_or(DEFAULT_DELAY) };
        let replacement = Task { desired_state: TaskState::Ready, ..work.new_task(service, &slot) };
        self.record(&slot, &replacement, work.now);
        let old = to_wait_for(work.transaction, service, &slot, task);
        self.start_later(replacement.id.clone(), delay, old, work.now);
        create(work.transaction, replacement);
    }

    /// Raises the desired state of `task` after `delay` and when the `old` ones have stopped.
    pub(crate) fn start_later(&mut self, task: TaskId, delay: Duration, old: Vec<TaskId>, now: Timestamp) {
        self.wait(task, Start { at: now.plus(delay), give_up_at: now.plus(OLD_TASK_TIMEOUT), old });
    }

    /// Makes a task for a slot in which nothing shall run. Where the service stops first, it waits for what was told to end
    /// there and may still run.
    pub(crate) fn create(&mut self, work: &mut Work<'_>, service: &Service, slot: &SlotKey, mut task: Task) {
        let mut old = ending(work.transaction, service, slot);
        old.retain(|it| it.desired_state == TaskState::Shutdown && must_wait_for(work.transaction, &it.id));
        if !old.is_empty() {
            task.desired_state = TaskState::Ready;
            let old = old.iter().map(|it| it.id.clone()).collect();
            self.start_later(task.id.clone(), Duration::default(), old, work.now);
        }
        create(work.transaction, task);
    }

    fn wait(&mut self, task: TaskId, start: Start) {
        for old in &start.old {
            self.waits_for.entry(old.clone()).or_default().insert(task.clone());
        }
        self.check.insert(task.clone());
        self.starts.insert(task, start);
    }

    /// Whether the start of a task waits.
    pub(crate) fn is_waiting(&self, task: &TaskId) -> bool {
        self.starts.contains_key(task)
    }

    /// The task's start no longer waits.
    fn cancel(&mut self, task: &TaskId) -> Option<Start> {
        let start = self.starts.remove(task)?;
        for old in &start.old {
            if let Some(waiting) = self.waits_for.get_mut(old) {
                waiting.remove(task);
                if waiting.is_empty() {
                    self.waits_for.remove(old);
                }
            }
        }
        Some(start)
    }

    /// A task has changed or is gone: who waits for it is looked at.
    pub(crate) fn task_changed(&mut self, task: &TaskId) {
        if let Some(waiting) = self.waits_for.get(task) {
            self.check.extend(waiting.iter().cloned());
        }
    }

    /// A task is gone.
    pub(crate) fn task_removed(&mut self, task: &TaskId) {
        self.task_changed(task);
        self.cancel(task);
    }

    /// A service is gone.
    pub(crate) fn service_removed(&mut self, service: &ServiceId) {
        self.history.remove(service);
    }

    /// Starts what may start now; says in `plan` when to look again.
    pub(crate) fn start_due(&mut self, work: &mut Work<'_>, plan: &mut Plan) {
        while let Some((at, _)) = self.timers.first()
            && *at <= work.now
        {
            let (_, task) = self.timers.pop_first().expect("it was just seen");
            self.check.insert(task);
        }
        for id in std::mem::take(&mut self.check) {
            self.look_at(work, id);
        }
        if let Some((at, _)) = self.timers.first() {
            plan.wake_at(*at);
        }
    }

    fn look_at(&mut self, work: &mut Work<'_>, id: TaskId) {
        let Some(start) = self.starts.get(&id) else { return };
        let view: &View = work.transaction;
        let stopped = start.old.iter().all(|old| !must_wait_for(view, old));
        if work.now < start.at {
            self.timers.insert((start.at, id));
            return;
        }
        if !stopped && work.now < start.give_up_at {
            self.timers.insert((start.give_up_at, id));
            return;
        }
        self.cancel(&id);
        let Some(task) = work.transaction.task(&id).cloned() else { return };
        let service = task.service_id.as_ref().and_then(|service| work.transaction.service(service)).cloned();
        let Some(service) = service.filter(|_| task.desired_state == TaskState::Ready) else { return };
        if has_ended(&task) || is_on_invalid_node(work.transaction, &task) {
            if !Mode::of(&service).is_global() || !shut_down_instead(work, &service, &task) {
                self.restart(work, &service, &task);
            }
        } else {
            raise_desired(work.transaction, &id, Mode::of(&service).working_state());
        }
    }
}

/// Whether the task may still run and its node may still say when it has stopped.
/// Whether an update has put a task of a newer spec into the slot of this one, beside which it need not come back.
fn has_successor(view: &View, service: &Service, slot: &SlotKey, task: &Task) -> bool {
    let node = task.node_id.as_ref().and_then(|id| view.node(id));
    if Mode::of(service).is_job() || !is_task_dirty(service, task, node.map(AsRef::as_ref)) {
        return false;
    }
    let takes_over = |it: &Arc<Task>| {
        let shall_run = it.desired_state <= TaskState::Running && !has_ended(it);
        it.id != task.id && shall_run && it.spec_version == service.spec_version && !is_replacement(it)
    };
    service.spec_version.is_some() && tasks_of_slot(view, service, slot).iter().any(takes_over)
}

/// Whose end the replacement of a task has to wait for: that of the task, and where the service stops first, that of all
/// others of the slot that are told to end. Else the failure of an update's new task would let its replacement run beside
/// the old one.
fn to_wait_for(view: &View, service: &Service, slot: &SlotKey, task: &Task) -> Vec<TaskId> {
    let mut ids: Vec<_> = ending(view, service, slot).iter().map(|it| it.id.clone()).collect();
    if may_have_container(task) && !ids.contains(&task.id) {
        ids.push(task.id.clone());
    }
    ids
}

/// What is told to end in a slot and may still run, where the service stops first.
fn ending(view: &View, service: &Service, slot: &SlotKey) -> Vec<Arc<Task>> {
    if config(service).order != UpdateOrder::StopFirst || Mode::of(service).is_job() {
        return Vec::new();
    }
    let mut tasks = tasks_of_slot(view, service, slot);
    tasks.retain(|it| it.desired_state > TaskState::Complete && may_have_container(it));
    tasks
}

fn must_wait_for(view: &View, id: &TaskId) -> bool {
    let is_down = |node: &Arc<Node>| node.status.state == NodeState::Down;
    view.task(id).is_some_and(|task| {
        may_have_container(task)
            && task.node_id.as_ref().and_then(|node| view.node(node)).is_some_and(|node| !is_down(node))
    })
}
