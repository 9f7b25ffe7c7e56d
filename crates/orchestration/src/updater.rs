//! Rolling updates: replaces the dirty tasks of a service slot by slot, watches the new ones, and pauses or rolls back when
//! too many fail.
//!
//! ```text
//!  slot ─► free worker ─► stop-first:  new (READY) + old SHUTDOWN ─► old stopped: new RUNNING ─┐
//!                         start-first: new RUNNING ─► it runs: old SHUTDOWN ───────────────────┤
//!                         a clean task is there: it is kept, the others SHUTDOWN ──────────────┤
//!                                                        new one runs or has ended ─► delay ─► next slot
//!  last slot done ─► monitor ─► COMPLETED / ROLLBACK_COMPLETED
//!  failures / dirty slots > max_failure_ratio ─► PAUSED / ROLLBACK_PAUSED, or the previous spec and ROLLBACK_STARTED
//! ```
//!
//! Owned by [`crate::services::Services`]. An update is not stored: a new leader starts it anew with the slots that are
//! still dirty.

use crate::dirty::is_task_dirty;
use crate::global::takes_new_tasks;
use crate::plan::Plan;
use crate::restart::{Restarts, Work};
use crate::slots::{Slot, is_rolling_back, tasks_of_slot, updatable};
use crate::tasks::{SlotKey, create, has_ended, may_have_container, raise_desired, write};
use model::{
    Duration, FailureAction, Service, ServiceId, ServiceSpec, SpecVersion, Task, TaskId, TaskState, Timestamp,
    UpdateConfig, UpdateOrder, UpdateState, UpdateStatus,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use store::View;

/// How long new tasks are watched if the spec does not say.
pub const DEFAULT_MONITOR: Duration = Duration::from_secs(5);

/// What a worker does with its slot.
#[derive(Clone, Debug)]
enum Phase {
    /// Waits until the new task runs or has ended.
    Wait(TaskId),
    /// Waits until it may take the next slot.
    Rest(Timestamp),
}

#[derive(Clone, Debug)]
struct Worker {
    slot: SlotKey,
    phase: Phase,
}

/// An update under way.
#[derive(Clone, Debug)]
struct Update {
    spec: ServiceSpec,
    spec_version: Option<SpecVersion>,
    config: UpdateConfig,
    monitor: Duration,
    queue: VecDeque<SlotKey>,
    dirty_slots: usize,
    parallelism: usize,
    workers: Vec<Worker>,
    /// The tasks that this update made: since when they run.
    made: BTreeMap<TaskId, Option<Timestamp>>,
    failures: BTreeSet<TaskId>,
    done_at: Option<Timestamp>,
    /// It failed and there is no previous spec: nothing more is done until the spec changes.
    halted: bool,
}

/// All updates under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Updates {
    updates: BTreeMap<ServiceId, Update>,
    /// Tasks that changed since the last plan, of services with an update.
    touched: BTreeMap<ServiceId, BTreeSet<TaskId>>,
    /// This plan is a new leader's first: what begins now may have begun before.
    pub(crate) adopts: bool,
}

fn is_paused(service: &Service) -> bool {
    let state = service.update_status.as_ref().map(|status| status.state);
    matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused))
}

/// The configuration in force: the default only if the whole of it is absent.
pub(crate) fn config(service: &Service) -> UpdateConfig {
    let config = if is_rolling_back(service) { &service.spec.rollback } else { &service.spec.update };
    config.clone().unwrap_or(UpdateConfig { parallelism: 1, ..Default::default() })
}

fn is_dirty(view: &View, service: &Service, task: &Task) -> bool {
    let node = task.node_id.as_ref().and_then(|id| view.node(id));
    is_task_dirty(service, task, node.map(|node| &**node))
}

fn is_slot_dirty(view: &View, service: &Service, slot: &Slot) -> bool {
    slot.len() > 1 || slot.iter().any(|task| is_dirty(view, service, task))
}

impl Worker {
    /// The task that the worker waits for.
    fn awaited(&self) -> Option<&TaskId> {
        match &self.phase {
            Phase::Wait(task) => Some(task),
            Phase::Rest(_) => None,
        }
    }
}

/// Slots in the midst of an update that a former leader began: so that no more of them are without a running task than
/// the parallelism allows.
fn unfinished(view: &View, service: &Service, slots: &[(SlotKey, Slot)]) -> Vec<Worker> {
    let state = service.update_status.as_ref().map(|status| status.state);
    if !matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted)) {
        return Vec::new();
    }
    let is_unfinished = |task: &Task| task.status.state < TaskState::Running;
    let slots = slots.iter().filter(|(_, slot)| slot.len() == 1 && is_unfinished(&slot[0]));
    let clean = slots.filter(|(_, slot)| !is_slot_dirty(view, service, slot));
    clean.map(|(key, slot)| Worker { slot: key.clone(), phase: Phase::Wait(slot[0].id.clone()) }).collect()
}

/// Whether a new task may be made in the slot: a node may have been drained or paused since the update began.
fn takes_tasks(view: &View, service: &Service, key: &SlotKey) -> bool {
    match key {
        SlotKey::Number(_) => true,
        SlotKey::Node(id) => view.node(id).is_some_and(|node| takes_new_tasks(service, node)),
    }
}

impl Updates {
    /// Brings `slots` (with their updatable tasks) up to the service's spec, unless that is under way already.
    pub(crate) fn begin(&mut self, work: &mut Work<'_>, service: &Service, slots: &[(SlotKey, Slot)]) {
        if is_paused(service) {
            self.cancel(&service.id);
            return;
        }
        let same = |update: &Update| update.spec_version == service.spec_version && update.spec == service.spec;
        if self.updates.get(&service.id).is_some_and(same) {
            return;
        }
        self.cancel(&service.id);
        let view: &View = work.transaction;
        let dirty = slots.iter().filter(|(_, slot)| is_slot_dirty(view, service, slot));
        let queue: VecDeque<SlotKey> = dirty.map(|(key, _)| key.clone()).collect();
        let workers = if self.adopts { unfinished(view, service, slots) } else { Vec::new() };
        if queue.is_empty() && workers.is_empty() {
            complete(work, service);
            return;
        }
        if service.update_status.is_none() {
            let status = UpdateStatus {
                state: UpdateState::Updating,
                started_at: Some(work.now),
                completed_at: None,
                message: "update in progress".to_owned(),
            };
            write_status(work, &service.id, status);
        }
        let config = config(service);
        let mut monitor = config.monitor.unwrap_or(DEFAULT_MONITOR);
        if config.delay >= monitor {
            monitor = Duration::from_nanos(config.delay.total_nanos().saturating_add(1_000_000_000));
        }
        let parallelism = usize::try_from(config.parallelism).unwrap_or(usize::MAX);
        let update = Update {
            spec: service.spec.clone(),
            spec_version: service.spec_version,
            monitor,
            dirty_slots: queue.len() + workers.len(),
            parallelism: if parallelism == 0 { usize::MAX } else { parallelism },
            config,
            queue,
            made: workers.iter().filter_map(|worker| Some((worker.awaited()?.clone(), None))).collect(),
            workers,
            failures: BTreeSet::new(),
            done_at: None,
            halted: false,
        };
        self.updates.insert(service.id.clone(), update);
    }

    /// Forgets the update of a service.
    pub(crate) fn cancel(&mut self, service: &ServiceId) {
        self.updates.remove(service);
        self.touched.remove(service);
    }

    /// Whether the slot is being updated or will be.
    pub(crate) fn is_working_on(&self, service: &ServiceId, slot: &SlotKey) -> bool {
        self.updates.get(service).is_some_and(|update| {
            update.workers.iter().any(|worker| worker.slot == *slot) || update.queue.contains(slot)
        })
    }

    /// A task of a service has changed.
    pub(crate) fn task_changed(&mut self, service: &ServiceId, task: &TaskId) {
        if self.updates.contains_key(service) {
            self.touched.entry(service.clone()).or_default().insert(task.clone());
        }
    }

    /// Takes every update as far as it goes now; says in `plan` when to look again.
    pub(crate) fn advance(&mut self, work: &mut Work<'_>, restarts: &mut Restarts, plan: &mut Plan) {
        let mut over = Vec::new();
        for (id, update) in &mut self.updates {
            let touched = self.touched.remove(id).unwrap_or_default();
            let Some(service) = work.transaction.service(id).cloned() else {
                over.push(id.clone());
                continue;
            };
            if update.halted {
                continue;
            }
            match update.advance(work, restarts, &service, &touched) {
                Progress::Until(deadline) => deadline.into_iter().for_each(|at| plan.wake_at(at)),
                Progress::Over => over.push(id.clone()),
                Progress::Halted => update.halted = true,
            }
        }
        over.iter().for_each(|id| self.cancel(id));
    }
}

/// How far an update is.
enum Progress {
    /// It goes on when something changes or at this time.
    Until(Option<Timestamp>),
    /// There is no update any more.
    Over,
    /// It is stuck until the spec changes.
    Halted,
}

impl Update {
    fn advance(
        &mut self,
        work: &mut Work<'_>,
        restarts: &mut Restarts,
        service: &Service,
        touched: &BTreeSet<TaskId>,
    ) -> Progress {
        if let Some(failed) = self.watch(work, touched) {
            return self.act_on_failure(work, service, &failed);
        }
        self.move_workers(work, restarts, service);
        self.take_slots(work, restarts, service);
        if self.queue.is_empty() && self.workers.is_empty() {
            let done_at = *self.done_at.get_or_insert(work.now.plus(self.monitor));
            if done_at <= work.now {
                complete(work, service);
                return Progress::Over;
            }
            return Progress::Until(Some(done_at));
        }
        let rests = self.workers.iter().filter_map(|worker| match worker.phase {
            Phase::Rest(until) => Some(until),
            Phase::Wait(_) => None,
        });
        Progress::Until(rests.min())
    }

    /// Notes which of the new tasks run; the first whose failure is one too many.
    fn watch(&mut self, work: &Work<'_>, touched: &BTreeSet<TaskId>) -> Option<TaskId> {
        for id in touched {
            let Some(since) = self.made.get_mut(id) else { continue };
            let Some(task) = work.transaction.task(id) else { continue };
            if task.status.state < TaskState::Running {
                continue;
            }
            let failed_early = has_ended(task) && since.is_none_or(|at| work.now.since(at) <= self.monitor);
            since.get_or_insert(work.now);
            if !failed_early || self.config.failure_action == FailureAction::Continue {
                continue;
            }
            if self.failures.insert(id.clone()) {
                let ratio = self.failures.len() as f32 / self.dirty_slots as f32;
                if ratio > self.config.max_failure_ratio {
                    return Some(id.clone());
                }
            }
        }
        None
    }

    fn act_on_failure(&self, work: &mut Work<'_>, service: &Service, failed: &TaskId) -> Progress {
        let Some(status) = service.update_status.clone() else { return Progress::Over };
        let rolling_back = is_rolling_back(service);
        let because = format!("due to failure or early termination of task {failed}");
        if self.config.failure_action == FailureAction::Rollback && !rolling_back {
            let Some(previous) = service.previous_spec.clone() else { return Progress::Halted };
            let message = format!("update rolled back {because}");
            let status = UpdateStatus { state: UpdateState::RollbackStarted, message, ..status };
            let rolled_back = Service {
                spec: previous,
                spec_version: service.previous_spec_version,
                previous_spec: None,
                previous_spec_version: None,
                update_status: Some(status),
                ..service.clone()
            };
            write(work.transaction, rolled_back);
            return Progress::Over;
        }
        let what = match self.config.failure_action {
            FailureAction::Rollback => "rollback",
            _ => "update",
        };
        let state = if rolling_back { UpdateState::RollbackPaused } else { UpdateState::Paused };
        write_status(work, &service.id, UpdateStatus { state, message: format!("{what} paused {because}"), ..status });
        Progress::Over
    }

    /// Workers whose new task runs or has ended rest for the delay, then are free.
    fn move_workers(&mut self, work: &mut Work<'_>, restarts: &Restarts, service: &Service) {
        let delay = self.config.delay;
        self.workers.retain_mut(|worker| {
            if let Phase::Wait(id) = &worker.phase {
                let state = work.transaction.task(id).map(|task| task.status.state);
                if state.is_some_and(|state| state < TaskState::Running) {
                    return true;
                }
                if state == Some(TaskState::Running) {
                    let id = id.clone();
                    shut_down_others(work, restarts, service, &worker.slot, &id);
                }
                worker.phase = Phase::Rest(work.now.plus(delay));
            }
            matches!(worker.phase, Phase::Rest(until) if until > work.now)
        });
    }

    fn take_slots(&mut self, work: &mut Work<'_>, restarts: &mut Restarts, service: &Service) {
        while self.workers.len() < self.parallelism
            && let Some(key) = self.queue.pop_front()
        {
            let tasks = tasks_of_slot(work.transaction, service, &key);
            let slot = updatable(restarts, service, &tasks);
            if !is_slot_dirty(work.transaction, service, &slot) || !takes_tasks(work.transaction, service, &key) {
                continue;
            }
            if let Some(task) = self.update_slot(work, restarts, service, &key, &slot) {
                self.workers.push(Worker { slot: key, phase: Phase::Wait(task) });
            }
        }
    }

    /// Brings one slot up to date; the task to wait for.
    fn update_slot(
        &mut self,
        work: &mut Work<'_>,
        restarts: &mut Restarts,
        service: &Service,
        key: &SlotKey,
        slot: &Slot,
    ) -> Option<TaskId> {
        let view: &View = work.transaction;
        let mut clean = slot.iter().filter(|task| task.desired_state <= TaskState::Running);
        let mut kept: Option<Task> = None;
        // One that shall run already is better than one that waits.
        while let Some(task) = clean.find(|task| !has_ended(task) && !is_dirty(view, service, task)) {
            if kept.as_ref().is_none_or(|kept| kept.desired_state < task.desired_state) {
                kept = Some((**task).clone());
            }
        }
        let starts_first = self.config.order == UpdateOrder::StartFirst;
        let is_new = kept.is_none();
        let task = kept.unwrap_or_else(|| {
            let desired_state = if starts_first { TaskState::Running } else { TaskState::Ready };
            Task { desired_state, ..work.new_task(service, key) }
        });
        let id = task.id.clone();
        if is_new {
            self.made.insert(id.clone(), None);
            create(work.transaction, task.clone());
        }
        if starts_first {
            if !is_new && !restarts.is_waiting(&id) {
                raise_desired(work.transaction, &id, TaskState::Running);
            }
            if task.status.state == TaskState::Running {
                shut_down_others(work, restarts, service, key, &id);
                return None;
            }
            return Some(id);
        }
        shut_down_others(work, restarts, service, key, &id);
        if task.desired_state < TaskState::Running && !restarts.is_waiting(&id) {
            let all = tasks_of_slot(work.transaction, service, key);
            let old = all.iter().filter(|it| it.id != id && may_have_container(it)).map(|it| it.id.clone());
            restarts.start_later(id.clone(), Duration::default(), old.collect(), work.now);
        }
        is_new.then_some(id)
    }
}

/// The other updatable tasks of the slot shall stop.
pub(crate) fn shut_down_others(
    work: &mut Work<'_>,
    restarts: &Restarts,
    service: &Service,
    key: &SlotKey,
    kept: &TaskId,
) {
    let tasks = tasks_of_slot(work.transaction, service, key);
    for task in updatable(restarts, service, &tasks).iter().filter(|task| task.id != *kept) {
        raise_desired(work.transaction, &task.id, TaskState::Shutdown);
    }
}

/// Says that the update or rollback is over, if one was said to be under way.
fn complete(work: &mut Work<'_>, service: &Service) {
    let Some(mut status) = service.update_status.clone() else { return };
    let (state, message) = match status.state {
        UpdateState::Updating => (UpdateState::Completed, "update completed"),
        UpdateState::RollbackStarted => (UpdateState::RollbackCompleted, "rollback completed"),
        _ => return,
    };
    status.state = state;
    status.message = message.to_owned();
    status.completed_at = Some(work.now);
    write_status(work, &service.id, status);
}

fn write_status(work: &mut Work<'_>, id: &ServiceId, status: UpdateStatus) {
    if let Some(service) = work.transaction.service(id) {
        let changed = Service { update_status: Some(status), ..(**service).clone() };
        write(work.transaction, changed);
    }
}
