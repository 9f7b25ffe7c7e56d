//! Makes roles what they are to be: a node becomes a manager at once, and a worker once it is out of the raft group;
//! members whose node is gone go, too. The plan is pure; the loop around it runs on the leader.
//!
//! ```text
//!  desired MANAGER, role WORKER ─► role := MANAGER ─► the node renews its certificate and joins the group
//!  desired WORKER, role MANAGER ─► quorum without it? ─► out of the group ─► role := WORKER ─► it renews
//!                                        └ it is the leader: hands over first, its successor does the rest
//! ```

use std::sync::Arc;
use std::time::Duration;

use consensus::{Status as RaftStatus, TransferError};
use model::{Node, NodeId, NodeRole};
use store::{Event, Object, View};
use swarm_proto::swarmkit as p;
use tokio::time::timeout;

use crate::error::ControlError;
use crate::shared::Next;
use crate::writer::Writer;

/// Time between two tries; SwarmKit's.
const RETRY: Duration = Duration::from_secs(5);
/// How long a removal may take; SwarmKit's.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The node's role is this from now on, if `desired` still is.
    SetRole {
        /// Which node.
        node: NodeId,
        /// What it is to be.
        desired: NodeRole,
    },
    /// This member leaves the group.
    Remove {
        /// Its number.
        raft_id: u64,
        /// Its node.
        node: String,
    },
    /// This manager is to go: another is to lead first.
    HandOver,
}

/// What roles need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolePlan {
    /// At most one of them changes the group: the next is planned when it has.
    pub steps: Vec<Step>,
    /// Members that are to go and cannot yet, since too few would be left.
    pub waiting: Vec<String>,
}

/// What roles need next.
pub fn plan(view: &View, group: &RaftStatus) -> RolePlan {
    let mut plan = RolePlan::default();
    let member_of = |node: &Node| group.members.values().any(|member| member.node_id == node.id.as_str());
    for node in view.nodes() {
        let desired = node.spec.desired_role;
        if node.role != desired && (desired == NodeRole::Manager || !member_of(node)) {
            plan.steps.push(Step::SetRole { node: node.id.clone(), desired });
        }
    }
    let to_go = |member: &&p::RaftMember| {
        let node = view.get_str::<Node>(&member.node_id);
        node.is_none_or(|node| node.spec.desired_role == NodeRole::Worker)
    };
    let mut leaving: Vec<_> = group.members.values().filter(to_go).collect();
    // This manager is the last to go: it can do the work for the others.
    leaving.sort_by_key(|member| (member.raft_id == group.raft_id, member.raft_id));
    let mut changes_group = false;
    for member in leaving {
        if !group.can_remove(member.raft_id) {
            plan.waiting.push(member.node_id.clone());
        } else if !changes_group {
            changes_group = true;
            plan.steps.push(if member.raft_id == group.raft_id {
                Step::HandOver
            } else {
                Step::Remove { raft_id: member.raft_id, node: member.node_id.clone() }
            });
        }
    }
    plan
}

/// Runs while this manager leads.
pub(crate) async fn run(writer: Arc<Writer>, raft: Arc<consensus::Handle>) {
    let mut watch = writer.shared().watch();
    let mut status = raft.status();
    loop {
        let plan = plan(&watch.view, &status.borrow_and_update());
        for node in &plan.waiting {
            tracing::warn!(node, "a manager cannot leave the raft group yet: too few would be left");
        }
        for step in plan.steps.iter().filter(|_| status.borrow().leading) {
            if let Err(reason) = take(&writer, &raft, step).await {
                tracing::warn!(?step, reason, "a change of roles is tried again");
            }
        }
        // What was done comes back as a commit or a change of the group, and the next step is planned then.
        let retry = async {
            if plan == RolePlan::default() { std::future::pending().await } else { tokio::time::sleep(RETRY).await }
        };
        tokio::pin!(retry);
        loop {
            tokio::select! {
                // A broadcast receiver keeps its place.
                next = watch.next() => match next {
                    Some(next) if concerns_roles(&next) => break,
                    Some(_) => {}
                    None => return,
                },
                // Keeps what was not seen.
                changed = status.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                // Pinned: the same timer each turn.
                () = &mut retry => break,
            }
        }
    }
}

fn concerns_roles(next: &Next) -> bool {
    let Next::Commit(commit) = next else { return true };
    commit.events.iter().any(|event| match event {
        Event::Create(Object::Node(_)) | Event::Remove(Object::Node(_)) => true,
        Event::Update { old: Object::Node(old), new: Object::Node(new) } => {
            (old.role, old.spec.desired_role) != (new.role, new.spec.desired_role)
        }
        _ => false,
    })
}

async fn take(writer: &Writer, raft: &consensus::Handle, step: &Step) -> Result<(), String> {
    match step {
        Step::SetRole { node, desired } => {
            let written = writer.write(|transaction| set_role(transaction, node, *desired));
            written.await.map_err(|error| error.desc)
        }
        Step::Remove { raft_id, node } => {
            let removed = timeout(REMOVAL_TIMEOUT, raft.remove_member(*raft_id)).await;
            removed
                .map_err(|_| "the removal was not committed in time".to_owned())?
                .map_err(|error| error.to_string())?;
            tracing::info!(node, "a manager left the raft group");
            Ok(())
        }
        Step::HandOver => match raft.transfer_leadership().await {
            // The successor does the rest; this loop ends with the leadership.
            Ok(()) | Err(TransferError::NotLeader | TransferError::Stopped) => Ok(()),
            Err(error @ (TransferError::NoPeer | TransferError::NotTaken)) => {
                tracing::warn!(%error, "leadership could not be handed over; this manager leaves the group as it is");
                let own = raft.status().borrow().raft_id;
                raft.remove_member(own).await.map(drop).map_err(|error| error.to_string())
            }
        },
    }
}

/// Makes a node what it is to be, if that is still so.
pub fn set_role(transaction: &mut store::Transaction, id: &NodeId, desired: NodeRole) -> Result<(), ControlError> {
    let Some(stored) = transaction.node(id) else { return Ok(()) };
    if stored.spec.desired_role != desired || stored.role == desired {
        return Ok(());
    }
    let node = Node { role: desired, ..Node::clone(stored) };
    transaction.update(node).map_err(ControlError::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeRole::{Manager, Worker};
    use std::collections::BTreeMap;
    use store::Action;

    struct Case {
        nodes: Vec<(&'static str, NodeRole, NodeRole)>,
        members: Vec<&'static str>,
        silent: Vec<u64>,
    }

    fn check(case: &Case, steps: &[Step], waiting: &[&str]) {
        let mut view = View::new();
        let create = |(id, role, desired): &(&str, NodeRole, NodeRole)| {
            let mut node = Node { id: (*id).into(), role: *role, ..Node::default() };
            node.spec.desired_role = *desired;
            Action::Create(node.into())
        };
        view.apply(&case.nodes.iter().map(create).collect::<Vec<_>>()).unwrap();
        let member = |(at, id): (usize, &&str)| {
            let raft_id = at as u64 + 1;
            (raft_id, p::RaftMember { raft_id, node_id: (*id).to_owned(), ..p::RaftMember::default() })
        };
        let members: BTreeMap<_, _> = case.members.iter().enumerate().map(member).collect();
        let heard = members.keys().filter(|id| **id != 1 && !case.silent.contains(id));
        let active_since = heard.map(|id| (*id, std::time::Instant::now())).collect();
        let group = RaftStatus { raft_id: 1, members, active_since, ..RaftStatus::default() };
        let found = plan(&view, &group);
        assert_eq!(
            (found.steps.as_slice(), found.waiting),
            (steps, waiting.iter().map(|id| (*id).to_owned()).collect())
        );
    }

    fn set(node: &str, desired: NodeRole) -> Step {
        Step::SetRole { node: node.into(), desired }
    }

    fn remove(raft_id: u64, node: &str) -> Step {
        Step::Remove { raft_id, node: node.to_owned() }
    }

    #[test]
    fn a_promotion_goes_ahead_at_once() {
        let nodes = vec![("a", Manager, Manager), ("b", Worker, Manager), ("c", Worker, Worker)];
        check(&Case { nodes, members: vec!["a"], silent: vec![] }, &[set("b", Manager)], &[]);
    }

    #[test]
    fn a_demoted_manager_leaves_the_group_before_it_is_a_worker() {
        let nodes = vec![("a", Manager, Manager), ("b", Manager, Worker), ("c", Manager, Manager)];
        let case = Case { nodes, members: vec!["a", "b", "c"], silent: vec![] };
        check(&case, &[remove(2, "b")], &[]);
        check(&Case { members: vec!["a", "c"], ..case }, &[set("b", Worker)], &[]);
    }

    #[test]
    fn nobody_goes_if_too_few_would_be_left() {
        let nodes = || vec![("a", Manager, Manager), ("b", Manager, Worker), ("c", Manager, Manager)];
        let of = |silent| Case { nodes: nodes(), members: vec!["a", "b", "c"], silent };
        check(&of(vec![3]), &[], &["b"]);
        // The silent one itself may go.
        check(&of(vec![2]), &[remove(2, "b")], &[]);
        let two = Case { nodes: nodes(), members: vec!["a", "b"], silent: vec![2] };
        check(&two, &[remove(2, "b")], &[]);
        let alone = Case { nodes: vec![("a", Manager, Worker)], members: vec!["a"], silent: vec![] };
        check(&alone, &[], &["a"]);
    }

    #[test]
    fn members_without_a_node_and_members_that_are_workers_go() {
        let nodes = || vec![("a", Manager, Manager), ("b", Worker, Worker), ("c", Manager, Manager)];
        let case = Case { nodes: nodes(), members: vec!["a", "b", "c", "gone"], silent: vec![4] };
        // One at a time.
        check(&case, &[remove(2, "b")], &[]);
        check(&Case { members: vec!["a", "c", "gone"], silent: vec![3], nodes: nodes() }, &[remove(3, "gone")], &[]);
    }

    #[test]
    fn the_leader_goes_last_and_hands_over() {
        let nodes = || vec![("a", Manager, Worker), ("b", Manager, Worker), ("c", Manager, Manager)];
        check(&Case { nodes: nodes(), members: vec!["a", "b", "c"], silent: vec![] }, &[remove(2, "b")], &[]);
        let one_gone = Case { nodes: nodes(), members: vec!["a", "c"], silent: vec![] };
        let steps = [set("b", Worker), Step::HandOver];
        check(&one_gone, &steps, &[]);
    }
}
