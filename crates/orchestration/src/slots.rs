//! Slots: the tasks of a service by their place in it, which of them count, and which slots go when there are too many.

use crate::moves;
use crate::restart::Restarts;
use crate::tasks::{Mode, SlotKey, age, has_ended, slot_of};
use model::{NodeId, Service, Task, TaskState, UpdateState};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::View;

/// Tasks of one slot.
pub(crate) type Slot = Vec<Arc<Task>>;

/// The slots of a service.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Slots with the tasks that an update would replace.
    pub(crate) updatable: BTreeMap<SlotKey, Slot>,
    /// Slots in which nothing shall run any more, with all their tasks.
    pub(crate) dead: BTreeMap<SlotKey, Slot>,
}

/// Sorts the tasks of `service` into slots.
pub(crate) fn slots_of(view: &View, restarts: &Restarts, service: &Service) -> Slots {
    let mode = Mode::of(service);
    let mut all: BTreeMap<SlotKey, Slot> = BTreeMap::new();
    for task in view.tasks_of_service(&service.id) {
        if let Some(slot) = slot_of(mode, task) {
            all.entry(slot).or_default().push(task.clone());
        }
    }
    let mut slots = Slots::default();
    for (key, tasks) in all {
        let updatable = updatable(restarts, service, &tasks);
        if updatable.is_empty() {
            slots.dead.insert(key, tasks);
        } else {
            slots.updatable.insert(key, updatable);
        }
    }
    slots
}

/// The tasks of one slot.
pub(crate) fn tasks_of_slot(view: &View, service: &Service, key: &SlotKey) -> Slot {
    match key {
        SlotKey::Number(number) => view.tasks_of_slot(&service.id, *number).cloned().collect(),
        SlotKey::Node(node) => {
            let is_of = |task: &&Arc<Task>| task.service_id.as_ref() == Some(&service.id);
            view.tasks_of_node(node).filter(is_of).cloned().collect()
        }
    }
}

/// Those of a slot's tasks that an update replaces: those that shall run; or, if there is none, the newest if it ended and
/// is not to be restarted (so that a new spec gives it another chance), except while a rollback runs. Tasks that shall be
/// removed do not count: their slot is being given up. Nor do those of a move that have not taken over (see [`moves`]).
pub(crate) fn updatable(restarts: &Restarts, service: &Service, slot: &[Arc<Task>]) -> Slot {
    let is_wanted = |task: &&Arc<Task>| task.desired_state <= TaskState::Running && !moves::is_under_way(slot, task);
    let wanted: Slot = slot.iter().filter(is_wanted).cloned().collect();
    if !wanted.is_empty() || is_rolling_back(service) {
        return wanted;
    }
    let newest = slot.iter().filter(|task| moves::replaced_by(slot, task).is_none()).max_by_key(|task| age(task));
    let newest = newest.filter(|task| task.desired_state != TaskState::Remove);
    newest.filter(|task| !restarts.should_restart(Mode::of(service), task)).cloned().into_iter().collect()
}

/// Whether a rollback of the service is under way.
pub(crate) fn is_rolling_back(service: &Service) -> bool {
    service.update_status.as_ref().is_some_and(|status| status.state == UpdateState::RollbackStarted)
}

/// Orders slots so that those that go first when there are too many are last: by how many copies of the service their
/// node has up to them (running ones are counted first), then slots with no live task on a node, or with several.
pub(crate) fn order_for_scale_down(slots: BTreeMap<SlotKey, Slot>) -> Vec<(SlotKey, Slot)> {
    let mut slots: Vec<_> = slots.into_iter().collect();
    let is_running = |slot: &Slot| slot.iter().any(|task| task.status.state == TaskState::Running);
    slots.sort_by_key(|(key, slot)| (!is_running(slot), key.clone()));
    let mut copies: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut ordered = Vec::with_capacity(slots.len());
    for (key, slot) in slots {
        // One that ended and is not to be restarted has no claim on its node.
        let node = if slot.len() == 1 && !has_ended(&slot[0]) { slot[0].node_id.clone() } else { None };
        let index = node.map_or(u64::MAX, |node| {
            let count = copies.entry(node).or_insert(0);
            *count += 1;
            *count
        });
        // Of slots with the same index those that do not run go first, then the highest numbers.
        ordered.push(((index, !is_running(&slot), key.clone()), (key, slot)));
    }
    ordered.sort_by(|a, b| a.0.cmp(&b.0));
    ordered.into_iter().map(|(_, slot)| slot).collect()
}
