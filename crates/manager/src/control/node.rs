//! Nodes: labels, availability, role; removal.

use model::{Cluster, Node, NodeId, NodeRole, NodeSpec, NodeState, ObjectVersion, Task, TaskState};
use tonic::Code;

use super::Control;
use crate::blacklist;
use crate::error::ControlError;
use crate::writer::now;

/// Whether a node may be removed while it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveKind {
    /// Only when it is down.
    Safe,
    /// Also when it is up.
    Force,
}

impl Control {
    /// Replaces a node's spec, if `version` is the current one.
    pub async fn update_node(&self, id: &NodeId, version: ObjectVersion, spec: NodeSpec) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let stored = transaction.node(id).ok_or_else(|| ControlError::not_found("node", id))?;
            let mut node = Node::clone(stored);
            let demoted = node.spec.desired_role == NodeRole::Manager && spec.desired_role == NodeRole::Worker;
            let is_manager = |node: &Node| node.spec.desired_role == NodeRole::Manager;
            if demoted && transaction.nodes().filter(|node| is_manager(node)).count() == 1 {
                return Err(ControlError::precondition("attempting to demote the last manager of the swarm"));
            }
            node.meta.version = version;
            node.spec = spec;
            transaction.update(node).map_err(ControlError::from)
        });
        written.await
    }

    /// Removes a node that is down or, with force, any worker. Its tasks are orphaned, its certificate is refused from
    /// now on.
    pub async fn remove_node(&self, id: &NodeId, kind: RemoveKind) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let node = transaction.node(id).ok_or_else(|| ControlError::not_found("node", id))?.clone();
            if node.spec.desired_role == NodeRole::Manager {
                return Err(ControlError::precondition(format!(
                    "node {id} is a cluster manager and is a member of the raft cluster. \
                     It must be demoted to worker before removal"
                )));
            }
            if kind == RemoveKind::Safe && node.status.state == NodeState::Ready {
                return Err(ControlError::precondition(format!("node {id} is not down and can't be removed")));
            }
            let cluster = transaction.the_cluster().ok_or_else(|| ControlError::new(Code::NotFound, "no cluster"))?;
            let mut cluster = Cluster::clone(cluster);
            blacklist::forget_expired(&mut cluster, now());
            blacklist::refuse(&mut cluster, &node);
            transaction.update(cluster)?;
            let tasks: Vec<_> = transaction.tasks_of_node(id).cloned().collect();
            for task in tasks.iter().filter(|task| task.status.state < TaskState::Complete) {
                let mut task = Task::clone(task);
                task.status.state = TaskState::Orphaned;
                task.status.timestamp = Some(now());
                task.status.message = "Task belonged to a node that has been deleted".to_owned();
                transaction.update(task)?;
            }
            transaction.remove::<Node>(id).map_err(ControlError::from)
        });
        written.await
    }
}
