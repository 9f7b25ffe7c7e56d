//! The steps of a root rotation that runs. Pure. What an update of the cluster makes of its root is `identity`'s.

use identity::IssuerInfo;
use model::{IssuanceState, Node, NodeId};
use store::View;

/// Nodes that are told to renew at once; SwarmKit's number.
const ROTATE_AT_ONCE: usize = 30;

/// What a running rotation needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// No rotation runs.
    Idle,
    /// These nodes are to renew their certificates; more will follow. Empty: those that are at it are waited for.
    Renew(Vec<NodeId>),
    /// All nodes have certificates of the new root.
    Finish,
}

/// The next step of the rotation, if one runs. Nodes that are down are waited for, too: they would be shut out.
pub(crate) fn next_step(view: &View) -> Step {
    let cluster = view.the_cluster();
    let Some(next) = cluster.and_then(|cluster| cluster.root_ca.root_rotation.as_ref()) else { return Step::Idle };
    // A rotation begins with a certificate that could be read.
    let Ok(issuer) = IssuerInfo::of_ca(&next.ca_cert) else { return Step::Renew(Vec::new()) };
    let mut missing = view.nodes().filter(|node| !is_issued_by(node, &issuer)).peekable();
    if missing.peek().is_none() {
        return Step::Finish;
    }
    let idle = missing.filter(|node| !is_renewing(node)).map(|node| node.id.clone());
    Step::Renew(idle.take(ROTATE_AT_ONCE).collect())
}

fn is_issued_by(node: &Node, issuer: &IssuerInfo) -> bool {
    let told = node.description.as_ref().and_then(|description| description.tls_info.as_ref());
    told.is_some_and(|told| issuer.is_reported_by(told))
}

pub(super) fn is_renewing(node: &Node) -> bool {
    matches!(node.certificate.status.state, IssuanceState::Renew | IssuanceState::Pending | IssuanceState::Rotate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::RootAuthority;
    use model::{Cluster, NodeDescription, RootCa, RootRotation, Timestamp};
    use store::Action;

    fn root() -> RootAuthority {
        RootAuthority::generate(Timestamp { seconds: 1_800_000_000, nanos: 0 }).unwrap()
    }

    fn node(id: usize, issuer: &RootAuthority, state: IssuanceState) -> Node {
        let tls_info = Some(identity::tls_info(&[], &issuer.cert_pem).unwrap());
        let description = Some(NodeDescription { tls_info, ..NodeDescription::default() });
        let mut node = Node { id: format!("n{id:03}").into(), description, ..Node::default() };
        node.certificate.status.state = state;
        node
    }

    #[test]
    fn nodes_renew_thirty_at_a_time_and_all_are_waited_for() {
        let (current, new) = (root(), root());
        let root_ca = RootCa { ca_cert: current.cert_pem.clone(), ..RootCa::default() };
        let stored = Cluster { id: "c".into(), root_ca, ..Cluster::default() };
        let mut view = View::new();
        let mut actions = vec![Action::Create(stored.clone().into())];
        actions.extend((0..40).map(|id| Action::Create(node(id, &current, IssuanceState::Issued).into())));
        view.apply(&actions).unwrap();
        assert_eq!(next_step(&view), Step::Idle);
        let mut rotating = stored;
        rotating.root_ca.root_rotation =
            Some(RootRotation { ca_cert: new.cert_pem.clone(), ..RootRotation::default() });
        view.apply(&[Action::Update(rotating.into())]).unwrap();
        let Step::Renew(first) = next_step(&view) else { panic!("no step") };
        assert_eq!((first.len(), first[0].as_str()), (30, "n000"));
        let mut update = |range: std::ops::Range<usize>, issuer, state| {
            let nodes = range.map(|id| Action::Update(node(id, issuer, state).into())).collect::<Vec<_>>();
            view.apply(&nodes).unwrap();
            next_step(&view)
        };
        let Step::Renew(rest) = update(0..30, &current, IssuanceState::Rotate) else { panic!("no step") };
        assert_eq!((rest.len(), rest[0].as_str()), (10, "n030"));
        let waiting = update(30..40, &current, IssuanceState::Renew);
        assert_eq!(waiting, Step::Renew(Vec::new()), "those that are at it are waited for");
        assert_eq!(update(0..40, &new, IssuanceState::Issued), Step::Finish);
        // A joiner has told nothing of its certificate yet.
        view.apply(&[Action::Create(Node { id: "joiner".into(), ..Node::default() }.into())]).unwrap();
        assert_eq!(next_step(&view), Step::Renew(vec!["joiner".into()]));
    }
}
