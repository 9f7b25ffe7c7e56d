//! Which certificates are to be signed, by whom, and what becomes of the results. Pure.

use model::{
    Certificate, Cluster, ClusterId, Duration, IssuanceState, IssuanceStatus, Node, NodeId, NodeMembership, NodeRole,
};
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

/// Who signs, as the cluster stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) cluster_id: ClusterId,
    pub(crate) life: Option<Duration>,
    /// The issuer's certificate, PEM.
    pub(crate) cert: Vec<u8>,
    /// What follows each leaf: the cross-signed certificate while a root takes another's place.
    pub(crate) intermediates: Vec<u8>,
    pub(crate) holder: KeyHolder,
}

/// Where the issuer's key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyHolder {
    /// In the store, PEM.
    Store(Vec<u8>),
    /// With external CAs, the first that answers is good enough.
    External(Vec<String>),
}

impl Authority {
    /// Who signs for this cluster now.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let root = &cluster.root_ca;
        let (cert, key, intermediates) = match &root.root_rotation {
            Some(next) => (&next.ca_cert, &next.ca_key, next.cross_signed_ca_cert.clone()),
            None => (&root.ca_cert, &root.ca_key, Vec::new()),
        };
        let holder = match key.is_empty() {
            false => KeyHolder::Store(key.clone()),
            true => KeyHolder::External(external_urls(cluster, cert)),
        };
        Self {
            cluster_id: cluster.id.clone(),
            life: cluster.spec.ca_config.node_cert_expiry,
            cert: cert.clone(),
            intermediates,
            holder,
        }
    }
}

/// The external CAs that hold the key of this root. One without a certificate of its own stands for the current root.
pub(crate) fn external_urls(cluster: &Cluster, cert: &[u8]) -> Vec<String> {
    let wanted = identity::normalize_certificates(cert);
    let of = |given: &[u8]| match given.is_empty() {
        true => identity::normalize_certificates(&cluster.root_ca.ca_cert),
        false => identity::normalize_certificates(given),
    };
    let external = cluster.spec.ca_config.external_cas.iter();
    external.filter(|external| of(&external.ca_cert) == wanted).map(|external| external.url.clone()).collect()
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
    use model::{ExternalCa, RootRotation};
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

    #[test]
    fn the_next_root_signs_while_it_takes_over() {
        let mut cluster = Cluster::default();
        cluster.root_ca.ca_cert = b"old".to_vec();
        cluster.root_ca.ca_key = b"old key".to_vec();
        let now = Authority::of(&cluster);
        assert_eq!((now.cert, now.holder), (b"old".to_vec(), KeyHolder::Store(b"old key".to_vec())));
        let next = RootRotation {
            ca_cert: b"new".to_vec(),
            ca_key: b"new key".to_vec(),
            cross_signed_ca_cert: b"crossed".to_vec(),
        };
        cluster.root_ca.root_rotation = Some(next);
        let now = Authority::of(&cluster);
        assert_eq!((now.cert, now.intermediates), (b"new".to_vec(), b"crossed".to_vec()));
        assert_eq!(now.holder, KeyHolder::Store(b"new key".to_vec()));
    }

    #[test]
    fn an_external_ca_signs_for_its_root_only() {
        let now = model::Timestamp { seconds: 1_700_000_000, nanos: 0 };
        let old = identity::RootAuthority::generate(now).unwrap().cert_pem;
        let new = identity::RootAuthority::generate(now).unwrap().cert_pem;
        let external = |url: &str, ca_cert: &[u8]| ExternalCa {
            url: url.to_owned(),
            ca_cert: ca_cert.to_vec(),
            ..ExternalCa::default()
        };
        let mut cluster = Cluster::default();
        cluster.root_ca.ca_cert = old.clone();
        cluster.spec.ca_config.external_cas = vec![external("a", b""), external("b", &new), external("c", &old)];
        assert_eq!(external_urls(&cluster, &old), ["a", "c"]);
        assert_eq!(external_urls(&cluster, &new), ["b"]);
        assert_eq!(Authority::of(&cluster).holder, KeyHolder::External(vec!["a".to_owned(), "c".to_owned()]));
    }
}
