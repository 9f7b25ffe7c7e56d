//! Nodes: labels, availability, role; removal.

use consensus::Status as RaftStatus;
use model::{
    Cluster, ManagerStatus, Node, NodeId, NodeRole, NodeSpec, NodeState, ObjectVersion, RaftId, Reachability, Task,
    TaskState,
};
use store::Transaction;
use tonic::Code;

use super::LocalControl;
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

impl LocalControl {
    /// Replaces a node's spec, if `version` is the current one.
    pub(crate) async fn update_node(
        &self,
        id: &NodeId,
        version: ObjectVersion,
        spec: NodeSpec,
    ) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let stored = transaction.node(id).ok_or_else(|| ControlError::not_found("node", id))?;
            let mut node = Node::clone(stored);
            let demoted = node.spec.desired_role == NodeRole::Manager && spec.desired_role == NodeRole::Worker;
            let is_manager = |node: &Node| node.spec.desired_role == NodeRole::Manager;
            if demoted {
                if transaction.nodes().filter(|node| is_manager(node)).count() == 1 {
                    return Err(ControlError::precondition("attempting to demote the last manager of the swarm"));
                }
                self.member_may_go(id)?;
            }
            node.meta.version = version;
            node.spec = spec;
            transaction.update(node).map_err(ControlError::from)
        });
        written.await
    }

    /// Removes a node that is down or, with force, any worker. Its tasks are orphaned, its certificate is refused from
    /// now on.
    pub(crate) async fn remove_node(&self, id: &NodeId, kind: RemoveKind) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let node = transaction.node(id).ok_or_else(|| ControlError::not_found("node", id))?.clone();
            // One that was demoted a moment ago is a member still, and would stay one without a node.
            if self.member(id).is_some() {
                return Err(ControlError::precondition(format!(
                    "node {id} is a cluster manager and is a member of the raft cluster. \
                     It must be demoted to worker before removal"
                )));
            }
            if kind == RemoveKind::Safe && node.status.state == NodeState::Ready {
                return Err(ControlError::precondition(format!("node {id} is not down and can't be removed")));
            }
            write_removed(transaction, &node)
        });
        written.await
    }

    /// The raft identifier of a node that is a member of the group.
    fn member(&self, id: &NodeId) -> Option<u64> {
        let group = self.group();
        group.members.values().find(|member| member.node_id == id.as_str()).map(|member| member.raft_id)
    }

    /// Whether the group keeps its quorum without this manager.
    fn member_may_go(&self, id: &NodeId) -> Result<(), ControlError> {
        let not_found = || ControlError::new(Code::NotFound, "can't find manager in raft memberlist");
        let raft_id = self.member(id).ok_or_else(not_found)?;
        if self.group().can_remove(raft_id) {
            return Ok(());
        }
        let text = "can't remove member from the raft: this would result in a loss of quorum";
        Err(ControlError::precondition(text))
    }
}

/// A node is gone: its tasks are orphaned, its certificate is refused from now on.
pub(crate) fn write_removed(transaction: &mut Transaction, node: &Node) -> Result<(), ControlError> {
    let cluster = transaction.the_cluster().ok_or_else(|| ControlError::new(Code::NotFound, "no cluster"))?;
    let mut cluster = Cluster::clone(cluster);
    blacklist::forget_expired(&mut cluster, now());
    blacklist::refuse(&mut cluster, node);
    transaction.update(cluster)?;
    let tasks: Vec<_> = transaction.tasks_of_node(&node.id).cloned().collect();
    for task in tasks.iter().filter(|task| task.status.state < TaskState::Complete) {
        let mut task = Task::clone(task);
        task.status.state = TaskState::Orphaned;
        task.status.timestamp = Some(now());
        task.status.message = "Task belonged to a node that has been deleted".to_owned();
        transaction.update(task)?;
    }
    transaction.remove::<Node>(&node.id).map_err(ControlError::from)
}

/// Puts the live member list's view of a manager into its node object, as SwarmKit does when it is read.
pub(crate) fn fill_manager_status(group: &RaftStatus, node: &mut Node) {
    let Some(member) = group.members.values().find(|member| member.node_id == node.id.as_str()) else { return };
    // Only the leader hears of all.
    let reachable = match group.leader == group.raft_id {
        true => group.is_reachable(member.raft_id),
        false => member.raft_id == group.raft_id || group.leader != 0,
    };
    node.manager_status = Some(ManagerStatus {
        raft_id: RaftId(member.raft_id),
        addr: member.addr.clone(),
        leader: group.leader == member.raft_id,
        reachability: if reachable { Reachability::Reachable } else { Reachability::Unreachable },
    });
}
