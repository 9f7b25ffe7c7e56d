//! What the store says of a service's tasks: which move, which may move, and whether it is the time. Read by
//! [`super::Rebalance`] each time it looks at the service.

use crate::dirty::is_task_dirty;
use crate::moves;
use crate::tasks::{is_invalid, may_have_container};
use model::{NodeState, Service, Task, TaskState, Timestamp};
use std::sync::Arc;
use store::View;

/// How a service stands, as the store has it.
#[derive(Debug, Default)]
pub(super) struct Situation {
    /// Replacements that do not run yet, and what they replace.
    pub(super) under_way: Vec<(Arc<Task>, Arc<Task>)>,
    /// Tasks of former moves that may still run.
    pub(super) stopping: usize,
    /// When a moved task last came to run.
    pub(super) last_taken_over: Option<Timestamp>,
    /// Tasks that run well and are on nodes where they may stay.
    pub(super) movable: Vec<Arc<Task>>,
    /// Some are not of the service's present spec.
    pub(super) is_outdated: bool,
    /// Some shall run and do not.
    pub(super) is_unsettled: bool,
}

/// When the task's present status was written.
pub(super) fn seen_at(task: &Task) -> Option<Timestamp> {
    task.status.applied_at.or(task.status.timestamp)
}

impl Situation {
    /// Reads the tasks of `service`.
    pub(super) fn of(view: &View, service: &Service) -> Self {
        let mut situation = Self::default();
        let mut slot: Vec<Arc<Task>> = Vec::new();
        for task in view.tasks_of_service(&service.id) {
            if slot.first().is_some_and(|first| first.slot != task.slot) {
                situation.add_slot(view, service, &slot);
                slot.clear();
            }
            slot.push(task.clone());
        }
        situation.add_slot(view, service, &slot);
        situation
    }

    fn add_slot(&mut self, view: &View, service: &Service, slot: &[Arc<Task>]) {
        for task in slot {
            let node = task.node_id.as_ref().and_then(|id| view.node(id)).map(|node| &**node);
            if task.desired_state > TaskState::Running {
                let is_down = node.is_none_or(|node| node.status.state == NodeState::Down);
                self.stopping += usize::from(moves::reason(task).is_some() && may_have_container(task) && !is_down);
            } else if let Some(old) = moves::replaced_by(slot, task).filter(|_| moves::is_under_way(slot, task)) {
                self.under_way.push((old.clone(), task.clone()));
            } else if task.status.state != TaskState::Running || task.desired_state != TaskState::Running {
                self.is_unsettled = true;
            } else {
                if moves::is_replacement(task) {
                    self.last_taken_over = self.last_taken_over.max(seen_at(task));
                }
                self.is_outdated |= is_task_dirty(service, task, node);
                if moves::successor(slot, task).is_none() && !is_invalid(node) {
                    self.movable.push(task.clone());
                }
            }
        }
    }
}
