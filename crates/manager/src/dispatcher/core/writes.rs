//! What the dispatcher writes: nodes that registered or fell silent, tasks that reported. Each runs on a
//! transaction, so that it decides on what is true when it is written.

use model::{Node, NodeDescription, NodeId, NodeState, Task, TaskId, TaskState, TaskStatus, Timestamp};
use store::{StoreError, Transaction};

/// The node has registered: stores what it says of itself. `Ok(false)`: there is no such node.
pub fn write_ready(
    transaction: &mut Transaction,
    node: &NodeId,
    description: Option<NodeDescription>,
    address: String,
    message: String,
) -> Result<bool, StoreError> {
    let Some(stored) = transaction.node(node).cloned() else { return Ok(false) };
    let mut ready = Node::clone(&stored);
    ready.description = description.or(ready.description);
    ready.status.state = NodeState::Ready;
    ready.status.message = message;
    ready.status.addr = address;
    if ready != *stored {
        transaction.update(ready)?;
    }
    Ok(true)
}

/// What there is to say of a node that is otherwise as it was.
pub fn write_message(transaction: &mut Transaction, node: &NodeId, message: String) -> Result<(), StoreError> {
    let Some(stored) = transaction.node(node).filter(|node| node.status.message != message) else { return Ok(()) };
    let mut node = Node::clone(stored);
    node.status.message = message;
    transaction.update(node)
}

/// The node is down, if it is not so already.
pub fn write_down(transaction: &mut Transaction, node: &NodeId, message: &str) -> Result<(), StoreError> {
    let Some(stored) = transaction.node(node).filter(|node| node.status.state != NodeState::Down) else {
        return Ok(());
    };
    let mut down = Node::clone(stored);
    down.status.state = NodeState::Down;
    down.status.message = message.to_owned();
    transaction.update(down)
}

/// Statuses that nodes reported, the newest of each task. Those of tasks that are gone or of another node, and those that
/// are no news, are dropped.
pub fn write_statuses(
    transaction: &mut Transaction,
    reported: impl IntoIterator<Item = (TaskId, NodeId, TaskStatus)>,
    applied_by: &NodeId,
    now: Timestamp,
) -> Result<(), StoreError> {
    for (id, node, status) in reported {
        let Some(task) = transaction.task(&id) else { continue };
        if task.node_id.as_ref() != Some(&node) || !is_news(&task.status, &status) {
            continue;
        }
        let mut task = Task::clone(task);
        task.status = status;
        task.status.applied_by = applied_by.to_string();
        task.status.applied_at = Some(now);
        transaction.update(task)?;
    }
    Ok(())
}

/// Whether a reported status may replace the stored one: states never go back, and news must be news.
pub fn is_news(stored: &TaskStatus, reported: &TaskStatus) -> bool {
    if reported.state < stored.state || reported.state == TaskState::Remove {
        return false;
    }
    let mut same = reported.clone();
    same.applied_by = stored.applied_by.clone();
    same.applied_at = stored.applied_at;
    same != *stored
}
