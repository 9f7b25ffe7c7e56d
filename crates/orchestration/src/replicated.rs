//! Replicated services: as many slots as replicas. Called by [`crate::services::Services`] when a service has changed.

use crate::moves::give_up_outdated;
use crate::restart::{Restarts, Work};
use crate::slots::{Slot, Slots, order_for_scale_down, slots_of, tasks_of_slot};
use crate::tasks::{SlotKey, may_have_container, raise_desired};
use crate::updater::Updates;
use model::{Service, ServiceMode, Task, TaskState};
use std::collections::BTreeMap;

/// How many slots the service shall have.
fn replicas(service: &Service) -> u64 {
    match &service.spec.mode {
        Some(ServiceMode::Replicated(mode)) => mode.replicas,
        // The API's default.
        _ => 1,
    }
}

/// Creates tasks for missing slots, gives up surplus ones, and hands the others to the updater.
pub(crate) fn reconcile(work: &mut Work<'_>, restarts: &mut Restarts, updates: &mut Updates, service: &Service) {
    give_up_outdated(work, service);
    let wanted = usize::try_from(replicas(service)).unwrap_or(usize::MAX);
    let Slots { updatable, mut dead } = slots_of(work.transaction, restarts, service);
    let mut kept: Vec<(SlotKey, Slot)> = if updatable.len() > wanted {
        let mut ordered = order_for_scale_down(updatable);
        for (key, _) in ordered.split_off(wanted) {
            // With its history: else the slot would count again if its tasks are not to be restarted.
            for task in tasks_of_slot(work.transaction, service, &key) {
                raise_desired(work.transaction, &task.id, TaskState::Remove);
            }
        }
        ordered
    } else {
        add_tasks(work, restarts, service, &updatable, &mut dead, wanted);
        updatable.into_iter().collect()
    };
    delete_dead(work, dead);
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    updates.begin(work, service, &kept);
}

/// The lowest free slot numbers get new tasks; dead slots that are used again keep their history.
fn add_tasks(
    work: &mut Work<'_>,
    restarts: &mut Restarts,
    service: &Service,
    used: &BTreeMap<SlotKey, Slot>,
    dead: &mut BTreeMap<SlotKey, Slot>,
    wanted: usize,
) {
    let free = (1..).map(SlotKey::Number).filter(|key| !used.contains_key(key));
    for key in free.take(wanted.saturating_sub(used.len())) {
        dead.remove(&key);
        let task = work.new_task(service, &key);
        restarts.create(work, service, &key, task);
    }
}

/// Removes what is left in slots that nobody wants. A task that may still run is not taken from its agent's hands but told
/// to go; the reaper deletes it once it has stopped.
fn delete_dead(work: &mut Work<'_>, dead: BTreeMap<SlotKey, Slot>) {
    for task in dead.into_values().flatten() {
        if may_have_container(&task) {
            raise_desired(work.transaction, &task.id, TaskState::Remove);
        } else {
            work.transaction.remove::<Task>(&task.id).expect("it was read from this transaction");
        }
    }
}
