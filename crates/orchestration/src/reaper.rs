//! Deletes tasks: those that shall be removed once they have stopped, orphans without a service, and the oldest of a slot
//! beyond the history limit. The [`crate::leader::Leader`] calls it.
//!
//! History is looked at when a task is created in its slot; neither the end of a task nor a new limit starts it, but a
//! slot in which more than one task may run stays queued.

use crate::plan::Plan;
use crate::slots::tasks_of_slot;
use crate::tasks::{Mode, SlotKey, age, slot_of};
use model::{Service, ServiceId, Task, TaskId, TaskState, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Event, Object, Transaction, View};

/// How many tasks a slot keeps if the cluster does not say.
pub const DEFAULT_HISTORY_LIMIT: i64 = 5;

/// What is looked at in the next plan.
#[derive(Clone, Debug, Default)]
pub struct Reaper {
    slots: BTreeSet<(ServiceId, SlotKey)>,
    tasks: BTreeSet<TaskId>,
}

/// Whether nobody needs the task any more.
fn is_to_be_deleted(view: &View, task: &Task) -> bool {
    let state = task.status.state;
    let stopped = state < TaskState::Assigned || state >= TaskState::Complete;
    let is_service_gone = || task.service_id.as_ref().is_none_or(|id| view.service(id).is_none());
    (task.desired_state == TaskState::Remove && stopped) || (state == TaskState::Orphaned && is_service_gone())
}

/// Whether the task may be deleted from its slot's history.
fn is_removable(task: &Task) -> bool {
    let state = task.status.state;
    state > TaskState::Running || (state < TaskState::Assigned && task.desired_state > TaskState::Running)
}

impl Reaper {
    /// Forgets everything and looks at every task.
    pub fn rebuild(&mut self, view: &View) {
        *self = Self::default();
        for task in view.tasks() {
            self.queue_task(task);
            self.queue_slot(view, task);
        }
    }

    /// Decides what to write for the changes that led to `view`.
    pub fn plan(&mut self, view: &View, events: &[Event], _now: Timestamp) -> Plan {
        for event in events {
            match event {
                Event::Create(Object::Task(task)) => {
                    self.queue_task(task);
                    self.queue_slot(view, task);
                }
                Event::Update { new: Object::Task(task), .. } => self.queue_task(task),
                _ => {}
            }
        }
        let mut transaction = Transaction::new(view);
        for id in std::mem::take(&mut self.tasks) {
            if view.task(&id).is_some_and(|task| is_to_be_deleted(view, task)) {
                transaction.remove::<Task>(&id).expect("it was just seen");
            }
        }
        self.slots.retain(|(service, key)| {
            let service = view.service(service).cloned();
            service.is_some_and(|service| reap_slot(&mut transaction, &service, key) == Slot::StaysQueued)
        });
        Plan { actions: transaction.finish(), ..Default::default() }
    }

    fn queue_task(&mut self, task: &Task) {
        if task.desired_state == TaskState::Remove || task.status.state == TaskState::Orphaned {
            self.tasks.insert(task.id.clone());
        }
    }

    fn queue_slot(&mut self, view: &View, task: &Task) {
        let Some(service) = task.service_id.as_ref().and_then(|id| view.service(id)) else { return };
        let mode = Mode::of(service);
        if let Some(key) = slot_of(mode, task).filter(|_| !mode.is_job()) {
            self.slots.insert((service.id.clone(), key));
        }
    }
}

#[derive(PartialEq, Eq)]
enum Slot {
    Done,
    StaysQueued,
}

fn history_limit(view: &View, service: &Service) -> i64 {
    let attempts = service.spec.task.restart.as_ref().map_or(0, |restart| restart.max_attempts);
    if attempts > 0 {
        return i64::try_from(attempts).map_or(i64::MAX, |attempts| attempts.saturating_add(1));
    }
    view.the_cluster().map_or(DEFAULT_HISTORY_LIMIT, |it| it.spec.orchestration.task_history_retention_limit)
}

/// Deletes the oldest removable tasks until the slot is within its limit.
fn reap_slot(transaction: &mut Transaction, service: &Service, key: &SlotKey) -> Slot {
    let limit = history_limit(transaction, service);
    let Ok(limit) = usize::try_from(limit) else { return Slot::Done };
    if let SlotKey::Number(number) = key
        && transaction.tasks_of_slot(&service.id, *number).nth(limit).is_none()
    {
        return Slot::Done;
    }
    let mut tasks: Vec<Arc<Task>> = tasks_of_slot(transaction, service, key);
    if tasks.len() <= limit {
        return Slot::Done;
    }
    tasks.sort_by_key(|task| age(task));
    let mut surplus = tasks.len() - limit;
    let mut live = 0;
    for task in tasks {
        if !is_removable(&task) {
            live += 1;
        } else if surplus > 0 {
            surplus -= 1;
            transaction.remove::<Task>(&task.id).expect("it was read from this transaction");
        }
    }
    if live > 1 { Slot::StaysQueued } else { Slot::Done }
}
