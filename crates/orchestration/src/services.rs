//! The planner of services: which tasks there shall be and which of them shall run. It sorts what changed, and calls the
//! parts in this order: removed services and nodes, services by their kind, ended tasks, updates, starts that are due. What
//! one part writes comes back as events in the next call. The [`crate::leader::Leader`] calls it.

use crate::dirty::is_task_dirty;
use crate::global;
use crate::jobs;
use crate::moves;
use crate::plan::Plan;
use crate::replicated;
use crate::restart::{Restarts, Work};
use crate::slots::{tasks_of_slot, updatable};
use crate::tasks::{Mode, has_ended, is_invalid, is_on_invalid_node, raise_desired, slot_of};
use crate::updater::{Updates, shut_down_others};
use model::{Node, NodeId, Service, ServiceId, Task, TaskId, TaskState, Timestamp, UpdateState};
use std::collections::BTreeSet;
use std::sync::Arc;
use stdx::Rng;
use store::{Event, Object, Transaction, View};

/// What is looked at in the next plan.
#[derive(Clone, Debug, Default)]
struct Dirty {
    services: BTreeSet<ServiceId>,
    removed_services: BTreeSet<ServiceId>,
    removed_nodes: BTreeSet<NodeId>,
    /// Tasks that may have to be replaced.
    ended: BTreeSet<TaskId>,
    /// Tasks that came to run.
    running: BTreeSet<TaskId>,
}

/// The planner of services.
#[derive(Clone, Debug)]
pub struct Services {
    rng: Rng,
    restarts: Restarts,
    updates: Updates,
    dirty: Dirty,
    adopts: bool,
}

/// Whether a change of a node matters to services.
fn node_changed(old: &Node, new: &Node) -> bool {
    old.status != new.status || old.spec != new.spec || old.role != new.role || old.description != new.description
}

/// Whether a change of a service matters here; allocations do not.
fn service_changed(old: &Service, new: &Service) -> bool {
    old.spec_version != new.spec_version
        || old.update_status != new.update_status
        || old.job_status != new.job_status
        || old.spec != new.spec
}

impl Services {
    /// One that knows nothing yet; `seed` (random in a swarm) makes the tasks' identifiers.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            restarts: Restarts::default(),
            updates: Updates::default(),
            dirty: Dirty::default(),
            adopts: false,
        }
    }

    /// Forgets everything and takes every object of `view` as changed.
    pub fn rebuild(&mut self, view: &View) {
        *self = Self::new(self.rng.next_u64());
        self.adopts = true;
        self.dirty.services = view.services().map(|service| service.id.clone()).collect();
        for task in view.tasks() {
            match &task.service_id {
                Some(service) if view.service(service).is_none() => {
                    self.dirty.removed_services.insert(service.clone());
                }
                _ => self.observe_task(view, task),
            }
        }
    }

    /// Decides what to write for the changes that led to `view`.
    pub fn plan(&mut self, view: &View, events: &[Event], now: Timestamp) -> Plan {
        let adopts = std::mem::take(&mut self.adopts);
        if adopts {
            self.restarts.adopt(view, now);
        }
        self.updates.adopts = adopts;
        events.iter().for_each(|event| self.observe(view, event));
        let mut plan = Plan::default();
        let mut transaction = Transaction::new(view);
        let mut work = Work { transaction: &mut transaction, now, rng: &mut self.rng };
        let dirty = std::mem::take(&mut self.dirty);
        for service in dirty.removed_services {
            remove_tasks(&mut work, &service);
        }
        for node in dirty.removed_nodes.iter().filter(|id| view.node(id).is_none()) {
            global::delete_tasks_of(&mut work, node);
        }
        for id in dirty.services {
            reconcile(&mut work, &mut self.restarts, &mut self.updates, &id);
        }
        // Before the updates: what failed is replaced with the spec that failed, and a rollback finds it dirty.
        for id in dirty.ended {
            replace(&mut work, &mut self.restarts, &id);
        }
        for id in dirty.running {
            keep_only(&mut work, &self.restarts, &self.updates, &id);
        }
        self.updates.advance(&mut work, &mut self.restarts, &mut plan);
        self.restarts.start_due(&mut work, &mut plan);
        plan.actions = transaction.finish();
        plan
    }

    fn observe(&mut self, view: &View, event: &Event) {
        match event {
            Event::Update { old: Object::Service(old), new: Object::Service(new) } if service_changed(old, new) => {
                self.dirty.services.insert(new.id.clone());
            }
            Event::Create(Object::Service(service)) => drop(self.dirty.services.insert(service.id.clone())),
            Event::Remove(Object::Service(service)) => {
                self.dirty.removed_services.insert(service.id.clone());
                self.updates.cancel(&service.id);
                self.restarts.service_removed(&service.id);
            }
            Event::Update { old: Object::Node(old), new: Object::Node(new) } if node_changed(old, new) => {
                self.observe_node(view, &new.id);
            }
            Event::Create(Object::Node(node)) => self.observe_node(view, &node.id),
            Event::Remove(Object::Node(node)) => {
                self.dirty.removed_nodes.insert(node.id.clone());
                self.observe_node(view, &node.id);
            }
            Event::Create(Object::Task(task)) | Event::Update { new: Object::Task(task), .. } => {
                self.observe_task(view, task);
            }
            Event::Remove(Object::Task(task)) => self.observe_removed_task(view, task),
            _ => {}
        }
    }

    /// Global services look at all nodes again; tasks on an invalid node are replaced.
    fn observe_node(&mut self, view: &View, id: &NodeId) {
        let global = view.services().filter(|service| Mode::of(service).is_global());
        self.dirty.services.extend(global.map(|service| service.id.clone()));
        let invalid = is_invalid(view.node(id).map(|node| &**node));
        for task in view.tasks_of_node(id) {
            self.restarts.task_changed(&task.id);
            if invalid && task.desired_state <= TaskState::Complete {
                self.dirty.ended.insert(task.id.clone());
            }
        }
    }

    fn observe_task(&mut self, view: &View, task: &Arc<Task>) {
        self.restarts.task_changed(&task.id);
        let Some(service) = task.service_id.as_ref().and_then(|id| view.service(id)) else { return };
        self.updates.task_changed(&service.id, &task.id);
        if Mode::of(service).is_job() {
            if has_ended(task) {
                self.dirty.services.insert(service.id.clone());
            }
        } else if task.desired_state == TaskState::Running && task.status.state == TaskState::Running {
            self.dirty.running.insert(task.id.clone());
        }
        if task.desired_state <= TaskState::Complete && (has_ended(task) || is_on_invalid_node(view, task)) {
            self.dirty.ended.insert(task.id.clone());
        }
    }

    fn observe_removed_task(&mut self, view: &View, task: &Task) {
        self.restarts.task_removed(&task.id);
        let Some(service) = task.service_id.as_ref().and_then(|id| view.service(id)) else { return };
        self.updates.task_changed(&service.id, &task.id);
        if task.desired_state <= TaskState::Complete {
            self.dirty.services.insert(service.id.clone());
        }
    }
}

fn reconcile(work: &mut Work<'_>, restarts: &mut Restarts, updates: &mut Updates, id: &ServiceId) {
    let Some(service) = work.transaction.service(id).cloned() else { return };
    match Mode::of(&service) {
        Mode::Replicated => replicated::reconcile(work, restarts, updates, &service),
        Mode::Global => global::reconcile(work, restarts, updates, &service),
        Mode::ReplicatedJob => jobs::reconcile_replicated(work, restarts, &service),
        Mode::GlobalJob => jobs::reconcile_global(work, restarts, &service),
    }
}

/// The service is gone: its tasks shall go.
fn remove_tasks(work: &mut Work<'_>, service: &ServiceId) {
    if work.transaction.service(service).is_some() {
        return;
    }
    let tasks: Vec<TaskId> = work.transaction.tasks_of_service(service).map(|task| task.id.clone()).collect();
    tasks.iter().for_each(|task| raise_desired(work.transaction, task, TaskState::Remove));
}

/// Replaces a task that ended or whose node is lost.
fn replace(work: &mut Work<'_>, restarts: &mut Restarts, id: &TaskId) {
    let Some(task) = work.transaction.task(id).cloned() else { return };
    let Some(service) = task.service_id.as_ref().and_then(|id| work.transaction.service(id)).cloned() else { return };
    match Mode::of(&service) {
        Mode::Replicated => {
            let shall_run = task.desired_state <= TaskState::Running;
            if !shall_run || !moves::settle_ended(work, restarts, &service, &task) {
                restarts.restart(work, &service, &task);
            }
        }
        Mode::Global => {
            let is_wanted = task.desired_state <= TaskState::Running;
            if is_wanted && !restarts.is_waiting(id) && !global::shut_down_instead(work, &service, &task) {
                restarts.restart(work, &service, &task);
            }
        }
        Mode::ReplicatedJob if !has_ended(&task) => restarts.restart(work, &service, &task),
        // The job's own planner has seen to it.
        Mode::ReplicatedJob | Mode::GlobalJob => {}
    }
}

/// A task came to run: if it is up to date, others of its slot (whose replacement it was, but whose update did not wait
/// for it) shall stop.
fn keep_only(work: &mut Work<'_>, restarts: &Restarts, updates: &Updates, id: &TaskId) {
    let view: &View = work.transaction;
    let Some(task) = view.task(id).filter(|task| task.desired_state == TaskState::Running) else { return };
    let Some(service) = task.service_id.as_ref().and_then(|id| view.service(id)).cloned() else { return };
    let Some(key) = slot_of(Mode::of(&service), task) else { return };
    if moves::is_replacement(task) {
        let task = task.clone();
        if moves::settle_running(work, &service, &task) {
            return;
        }
    }
    let view: &View = work.transaction;
    let Some(task) = view.task(id) else { return };
    let slot = updatable(restarts, &service, &tasks_of_slot(view, &service, &key));
    let state = service.update_status.as_ref().map(|status| status.state);
    let is_paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    let node = task.node_id.as_ref().and_then(|id| view.node(id));
    let is_clean = !is_task_dirty(&service, task, node.map(|node| &**node));
    if slot.len() > 1 && is_clean && !is_paused && !updates.is_working_on(&service.id, &key) {
        shut_down_others(work, restarts, &service, &key, id);
    }
}
