//! Tasks on nodes that do not come back: after a day DOWN, and at once when the node is deleted, what may have run there is
//! ORPHANED, so that its networks and volumes are free. The [`crate::leader::Leader`] calls it.

use crate::plan::Plan;
use crate::tasks::{may_have_container, write};
use model::{Duration, NodeId, NodeState, Task, TaskState, TaskStatus, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Event, Object, Transaction, View};

/// How long a node is DOWN before its tasks are given up. A new leader counts from its start.
pub const DOWN_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// What a task says whose node was deleted; SwarmKit's text.
pub const NODE_DELETED_MESSAGE: &str = "Task belonged to a node that has been deleted";

/// Which nodes are DOWN, and since when.
#[derive(Clone, Debug, Default)]
pub struct NodeDown {
    down: BTreeMap<NodeId, Timestamp>,
    removed: BTreeSet<NodeId>,
    fresh: BTreeSet<NodeId>,
}

impl NodeDown {
    /// Forgets everything and looks at every node and at tasks whose node is gone.
    pub fn rebuild(&mut self, view: &View) {
        *self = Self::default();
        self.fresh = view.nodes().map(|node| node.id.clone()).collect();
        let gone = view.tasks().filter_map(|task| task.node_id.clone()).filter(|id| view.node(id).is_none());
        self.removed = gone.collect();
    }

    /// Decides what to write for the changes that led to `view`.
    pub fn plan(&mut self, view: &View, events: &[Event], now: Timestamp) -> Plan {
        for event in events {
            match event {
                Event::Remove(Object::Node(node)) => drop(self.removed.insert(node.id.clone())),
                Event::Create(Object::Node(node)) | Event::Update { new: Object::Node(node), .. } => {
                    self.fresh.insert(node.id.clone());
                }
                _ => {}
            }
        }
        for id in std::mem::take(&mut self.fresh) {
            if view.node(&id).is_some_and(|node| node.status.state == NodeState::Down) {
                self.down.entry(id).or_insert(now);
            } else {
                self.down.remove(&id);
            }
        }
        let mut plan = Plan::default();
        let mut transaction = Transaction::new(view);
        for id in std::mem::take(&mut self.removed) {
            if view.node(&id).is_none() {
                self.down.remove(&id);
                orphan(&mut transaction, &id, |task| {
                    let message = NODE_DELETED_MESSAGE.to_owned();
                    task.status = TaskStatus { timestamp: Some(now), message, ..Default::default() };
                });
            }
        }
        self.down.retain(|id, since| {
            let due = since.plus(DOWN_LIMIT);
            if due > now {
                plan.wake_at(due);
                return true;
            }
            orphan(&mut transaction, id, |_| {});
            false
        });
        plan.actions = transaction.finish();
        plan
    }
}

fn orphan(transaction: &mut Transaction, node: &NodeId, edit: impl Fn(&mut Task)) {
    let tasks: Vec<Arc<Task>> =
        transaction.tasks_of_node(node).filter(|task| may_have_container(task)).cloned().collect();
    for task in tasks {
        let mut orphaned = (*task).clone();
        edit(&mut orphaned);
        orphaned.status.state = TaskState::Orphaned;
        write(transaction, orphaned);
    }
}
