//! Which certificates are to be signed, and what becomes of the results. Pure.

use model::{Certificate, IssuanceState, IssuanceStatus, Node, NodeId, NodeMembership, NodeRole};
use store::{StoreError, Transaction};

/// Whether a node waits for a certificate. A first one needs an accepted node; a renewal does not, since any update of
/// a node by a client of SwarmKit's makes its membership pending.
pub(crate) fn is_waiting(node: &Node) -> bool {
    match node.certificate.status.state {
        IssuanceState::Pending => node.spec.membership == NodeMembership::Accepted,
        IssuanceState::Renew => true,
        _ => false,
    }
}

/// One request to sign. The role is the node object's, not the one that was noted when the request came: a demotion in
/// between must count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) node_id: NodeId,
    pub(crate) role: NodeRole,
    pub(crate) csr: Vec<u8>,
}

impl Job {
    pub(crate) fn of(node: &Node) -> Self {
        Self { node_id: node.id.clone(), role: node.role, csr: node.certificate.csr.clone() }
    }
}

/// What signing a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    /// The leaf and what follows it, PEM.
    Chain(Vec<u8>),
    /// It will never work; the node is told.
    Refused(String),
    /// It may work later.
    Later(String),
}

/// Writes a result, if it is still the answer to what the node asks: it was removed, asked anew, or changed its role
/// otherwise.
pub(crate) fn apply(transaction: &mut Transaction, job: &Job, signed: &Signed) -> Result<(), StoreError> {
    let Some(stored) = transaction.node(&job.node_id) else { return Ok(()) };
    if !is_waiting(stored) || Job::of(stored) != *job {
        return Ok(());
    }
    let mut node = Node::clone(stored);
    match signed {
        Signed::Later(_) => return Ok(()),
        Signed::Chain(chain) => {
            node.certificate.certificate = chain.clone();
            node.certificate.role = job.role;
            node.certificate.status = status(IssuanceState::Issued, String::new());
        }
        Signed::Refused(text) => node.certificate.status = status(IssuanceState::Failed, text.clone()),
    }
    transaction.update(node)
}

/// The entry of a node that asks for its next certificate.
pub(crate) fn renewal(node: &Node, csr: Vec<u8>) -> Certificate {
    Certificate {
        csr,
        cn: node.id.to_string(),
        role: node.role,
        status: status(IssuanceState::Renew, String::new()),
        certificate: Vec::new(),
    }
}

/// The entry of a node that asks for its first certificate.
pub(crate) fn first(node_id: &NodeId, role: NodeRole, csr: Vec<u8>) -> Certificate {
    Certificate {
        csr,
        cn: node_id.to_string(),
        role,
        status: status(IssuanceState::Pending, String::new()),
        certificate: Vec::new(),
    }
}

/// Whether a waiting node learns this.
pub(crate) fn is_final(state: IssuanceState) -> bool {
    matches!(state, IssuanceState::Issued | IssuanceState::Failed | IssuanceState::Rotate)
}

fn status(state: IssuanceState, err: String) -> IssuanceStatus {
    IssuanceStatus { state, err }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Action, View};

    fn node(state: IssuanceState, role: NodeRole) -> Node {
        let mut node = Node { id: "n".into(), role, ..Node::default() };
        node.certificate = Certificate {
            csr: b"csr".to_vec(),
            status: status(state, String::new()),
            ..first(&"n".into(), role, Vec::new())
        };
        node
    }

    fn applied(stored: Node, job: &Job, signed: &Signed) -> Node {
        let mut view = View::new();
        view.apply(&[Action::Create(stored.into())]).unwrap();
        let mut transaction = Transaction::new(&view);
        apply(&mut transaction, job, signed).unwrap();
        Node::clone(transaction.node(&"n".into()).unwrap())
    }

    #[test]
    fn a_first_certificate_needs_an_accepted_node_a_renewal_does_not() {
        let mut pending = node(IssuanceState::Pending, NodeRole::Worker);
        assert!(!is_waiting(&pending));
        pending.spec.membership = NodeMembership::Accepted;
        assert!(is_waiting(&pending));
        assert!(is_waiting(&node(IssuanceState::Renew, NodeRole::Worker)));
        for state in [IssuanceState::Issued, IssuanceState::Failed, IssuanceState::Rotate, IssuanceState::Unknown] {
            assert!(!is_waiting(&node(state, NodeRole::Worker)), "{state:?}");
        }
    }

    #[test]
    fn a_result_is_written_only_if_it_answers_what_the_node_asks() {
        let stored = node(IssuanceState::Renew, NodeRole::Manager);
        let job = Job::of(&stored);
        let chain = Signed::Chain(b"chain".to_vec());
        let issued = applied(stored.clone(), &job, &chain);
        assert_eq!(issued.certificate.status.state, IssuanceState::Issued);
        assert_eq!(issued.certificate.certificate, b"chain");
        // Demoted while the request was signed: the manager's certificate never reaches the store.
        let demoted = Node { role: NodeRole::Worker, ..stored.clone() };
        assert_eq!(applied(demoted.clone(), &job, &chain), demoted);
        let mut other_csr = stored.clone();
        other_csr.certificate.csr = b"another".to_vec();
        assert_eq!(applied(other_csr.clone(), &job, &chain), other_csr);
        let failed = applied(stored.clone(), &job, &Signed::Refused("no".to_owned()));
        assert_eq!(failed.certificate.status, status(IssuanceState::Failed, "no".to_owned()));
        assert_eq!(applied(stored.clone(), &job, &Signed::Later("busy".to_owned())), stored);
    }

    #[test]
    fn a_request_is_signed_for_the_role_that_the_node_has_now() {
        let mut node = node(IssuanceState::Renew, NodeRole::Worker);
        node.certificate.role = NodeRole::Manager;
        assert_eq!(Job::of(&node).role, NodeRole::Worker);
        assert_eq!(renewal(&node, Vec::new()).role, NodeRole::Worker);
    }
}
