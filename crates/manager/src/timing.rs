//! Which timing raft keeps, decided alike by every manager from what the log says. Pure. See `docs/design/0006`.

use std::collections::BTreeMap;

use model::{Node, NodeRole};
use store::View;
use swarm_proto::swarmkit as p;

/// What Skep's engine version carries behind Docker's.
const OURS: &str = "+skep";

/// How fast managers miss their leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// Elections within a second, asked for before they are held. Only among managers of this program.
    Fast,
    /// SwarmKit's: ticks of a second, elections after ten to twenty of them.
    #[default]
    SwarmKit,
}

/// The timing for a group with these members. A manager that is to join has a node object before it is a member: as long
/// as that says nothing of its engine, or names another, the timing is SwarmKit's. So the log says so before it says
/// that the member is there.
pub(crate) fn decide(view: &View, members: &BTreeMap<u64, p::RaftMember>) -> Timing {
    if first_foreign(view, members).is_none() { Timing::Fast } else { Timing::SwarmKit }
}

/// A manager, or one to be, that is not known to be of this program.
pub(crate) fn first_foreign(view: &View, members: &BTreeMap<u64, p::RaftMember>) -> Option<String> {
    let is_known = |member: &&p::RaftMember| {
        let node = view.get_str::<Node>(&member.node_id);
        node.is_some_and(|node| is_ours(node))
    };
    if let Some(member) = members.values().find(|member| !is_known(member)) {
        return Some(member.node_id.clone());
    }
    let is_manager = |node: &Node| node.role == NodeRole::Manager || node.spec.desired_role == NodeRole::Manager;
    view.nodes().find(|node| is_manager(node) && !is_ours(node)).map(|node| node.id.to_string())
}

fn is_ours(node: &Node) -> bool {
    let engine = node.description.as_ref().and_then(|description| description.engine.as_ref());
    engine.is_some_and(|engine| engine.engine_version.contains(OURS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{EngineDescription, NodeDescription};
    use store::Action;

    fn node(id: &str, role: NodeRole, desired: NodeRole, version: Option<&str>) -> Node {
        let engine = version
            .map(|version| EngineDescription { engine_version: version.to_owned(), ..EngineDescription::default() });
        let mut node = Node { id: id.into(), role, ..Node::default() };
        node.spec.desired_role = desired;
        node.description = engine.map(|engine| NodeDescription { engine: Some(engine), ..NodeDescription::default() });
        node
    }

    fn check(nodes: Vec<Node>, members: &[&str], expected: Timing) {
        let mut view = View::new();
        view.apply(&nodes.into_iter().map(|node| Action::Create(node.into())).collect::<Vec<_>>()).unwrap();
        let member = |(at, id): (usize, &&str)| {
            (at as u64 + 1, p::RaftMember { node_id: (*id).to_owned(), ..p::RaftMember::default() })
        };
        assert_eq!(decide(&view, &members.iter().enumerate().map(member).collect()), expected);
    }

    #[test]
    fn fast_only_while_every_manager_that_is_or_will_be_is_ours() {
        use NodeRole::{Manager, Worker};
        let ours = || node("a", Manager, Manager, Some("28.5.2+skep0.1"));
        let with = |other: Node| vec![ours(), other];
        check(vec![ours()], &["a"], Timing::Fast);
        check(with(node("b", Manager, Manager, Some("28.5.2+skep0.1"))), &["a", "b"], Timing::Fast);
        check(with(node("b", Manager, Manager, Some("28.5.2"))), &["a", "b"], Timing::SwarmKit);
        // It has a token and no session yet: who knows what it is.
        check(with(node("b", Manager, Manager, None)), &["a"], Timing::SwarmKit);
        // A dockerd worker that is to be promoted.
        check(with(node("b", Worker, Manager, Some("28.5.2"))), &["a"], Timing::SwarmKit);
        // A dockerd manager on its way down is a member still.
        check(with(node("b", Manager, Worker, Some("28.5.2"))), &["a", "b"], Timing::SwarmKit);
        check(with(node("b", Worker, Worker, Some("28.5.2"))), &["a", "b"], Timing::SwarmKit);
        check(with(node("b", Worker, Worker, Some("28.5.2"))), &["a"], Timing::Fast);
        check(vec![ours()], &["a", "nobody knows"], Timing::SwarmKit);
    }
}
