//! Makes roles what they are to be: a node becomes a manager at once, and a worker once it is out of the raft group;
//! members whose node is gone go, too. The plan is pure; the loop around it runs on the leader.
//!
//! ```text
//!  desired MANAGER, role WORKER ─► role := MANAGER ─► the node renews its certificate and joins the group
//!  desired WORKER, role MANAGER ─► quorum without it? ─► out of the group ─► role := WORKER ─► it renews
//!                                        └ it is the leader: hands over first, its successor does the rest
//! ```

use std::collections::BTreeMap;

use model::{Node, NodeId, NodeRole};
use store::View;
use swarm_proto::swarmkit as p;

/// The raft group, as the leader sees it.
pub(crate) struct Group<'a> {
    /// This manager.
    pub(crate) own: u64,
    pub(crate) members: &'a BTreeMap<u64, p::RaftMember>,
    /// Whether the leader hears of a member.
    pub(crate) is_active: &'a dyn Fn(u64) -> bool,
}

impl Group<'_> {
    /// Whether those that are heard of are still enough without this member.
    pub(crate) fn can_lose(&self, raft_id: u64) -> bool {
        let heard = |id: &&u64| **id != raft_id && (**id == self.own || (self.is_active)(**id));
        self.members.keys().filter(heard).count() > (self.members.len().saturating_sub(1)) / 2
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The node's role is this from now on, if `desired` still is.
    SetRole { node: NodeId, desired: NodeRole },
    /// This member leaves the group.
    Remove { raft_id: u64, node: String },
    /// This manager is to go: another is to lead first.
    HandOver,
}

/// What roles need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RolePlan {
    /// At most one of them changes the group: the next is planned when it has.
    pub(crate) steps: Vec<Step>,
    /// Members that are to go and cannot yet, since too few would be left.
    pub(crate) waiting: Vec<String>,
}

/// What roles need next.
pub(crate) fn plan(view: &View, group: &Group<'_>) -> RolePlan {
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
    leaving.sort_by_key(|member| (member.raft_id == group.own, member.raft_id));
    let mut changes_group = false;
    for member in leaving {
        if !group.can_lose(member.raft_id) {
            plan.waiting.push(member.node_id.clone());
        } else if !changes_group {
            changes_group = true;
            plan.steps.push(if member.raft_id == group.own {
                Step::HandOver
            } else {
                Step::Remove { raft_id: member.raft_id, node: member.node_id.clone() }
            });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeRole::{Manager, Worker};
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
        let members = case.members.iter().enumerate().map(member).collect();
        let group = Group { own: 1, members: &members, is_active: &|id| !case.silent.contains(&id) };
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

    #[test]
    fn quorum_is_counted_as_swarmkit_does() {
        let members = |count: u64| (1..=count).map(|id| (id, p::RaftMember::default())).collect::<BTreeMap<_, _>>();
        let can_lose = |count: u64, heard: &[u64], id: u64| {
            let members = members(count);
            Group { own: 1, members: &members, is_active: &|id| heard.contains(&id) }.can_lose(id)
        };
        assert!(can_lose(3, &[2, 3], 3) && can_lose(3, &[2], 3) && !can_lose(3, &[3], 3));
        assert!(can_lose(5, &[2, 3], 4) && !can_lose(5, &[2], 4) && !can_lose(5, &[2, 4], 4));
        assert!(can_lose(2, &[], 2) && !can_lose(1, &[], 1));
        assert!(can_lose(4, &[2], 4), "two of three are enough");
    }
}
