//! Global services: one task on each eligible node. Called by [`crate::services::Services`] when a service or a node has
//! changed.

use crate::dirty::meets_constraints;
use crate::restart::{Restarts, Work};
use crate::slots::{Slot, Slots, slots_of};
use crate::tasks::{SlotKey, is_invalid, raise_desired};
use crate::updater::Updates;
use model::{Node, NodeAvailability, NodeId, Service, Task, TaskState};
use std::sync::Arc;

/// Whether the service has a task on `node`: it is there, neither DOWN nor drained, and meets the constraints.
pub(crate) fn is_eligible(service: &Service, node: Option<&Node>) -> bool {
    !is_invalid(node) && meets_constraints(&service.spec.task, node)
}

/// Whether a new task of the service may be made for `node`: it is eligible and not paused.
pub(crate) fn takes_new_tasks(service: &Service, node: &Node) -> bool {
    is_eligible(service, Some(node)) && node.spec.availability != NodeAvailability::Pause
}

/// Creates and shuts down tasks as nodes come and go, and hands the others to the updater. Paused nodes keep what they
/// have, as it is.
pub(crate) fn reconcile(work: &mut Work<'_>, restarts: &mut Restarts, updates: &mut Updates, service: &Service) {
    let Slots { mut updatable, .. } = slots_of(work.transaction, restarts, service);
    let nodes: Vec<Arc<Node>> =
        work.transaction.nodes().filter(|node| is_eligible(service, Some(node))).cloned().collect();
    let mut kept: Vec<(SlotKey, Slot)> = Vec::new();
    for node in nodes {
        let key = SlotKey::Node(node.id.clone());
        let slot = updatable.remove(&key);
        if node.spec.availability == NodeAvailability::Pause {
            continue;
        }
        match slot {
            Some(slot) => kept.push((key, slot)),
            None => {
                let task = work.new_task(service, &key);
                restarts.create(work, service, &key, task);
            }
        }
    }
    for task in updatable.into_values().flatten() {
        raise_desired(work.transaction, &task.id, TaskState::Shutdown);
    }
    updates.begin(work, service, &kept);
}

/// A task ended on its node: on one that gets no new tasks it is only shut down. Whether that was so.
pub(crate) fn shut_down_instead(work: &mut Work<'_>, service: &Service, task: &Task) -> bool {
    let node = task.node_id.as_ref().and_then(|id| work.transaction.node(id)).cloned();
    let refuses = !node.is_some_and(|node| takes_new_tasks(service, &node));
    if refuses {
        raise_desired(work.transaction, &task.id, TaskState::Shutdown);
    }
    refuses
}

/// The node is gone: so are its global tasks.
pub(crate) fn delete_tasks_of(work: &mut Work<'_>, node: &NodeId) {
    let tasks: Vec<Arc<Task>> = work.transaction.tasks_of_node(node).cloned().collect();
    for task in tasks {
        let service = task.service_id.as_ref().and_then(|id| work.transaction.service(id));
        if service.is_some_and(|service| crate::tasks::Mode::of(service) == crate::tasks::Mode::Global) {
            work.transaction.remove::<Task>(&task.id).expect("it was read from this transaction");
        }
    }
}
