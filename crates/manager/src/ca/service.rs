//! The gRPC services `CA` and `NodeCA` of the leader. Joiners call without a certificate; for everybody else the gate has
//! established who calls.

use std::sync::Arc;
use std::time::Duration;

use model::{Certificate, Node, NodeAvailability, NodeId, NodeMembership, NodeRole, NodeSpec};
use store::Transaction;
use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;
use tonic::{Code, Request, Response, Status};

use super::signing;
use crate::caller::Caller;
use crate::error::ControlError;
use crate::writer::Writer;

/// Largest request for a certificate; one with an RSA key of 8 192 bits has less than 4 KiB.
const MAX_CSR_BYTES: usize = 64 * 1024;
/// How long a node may wait for its certificate in one call; clients give up after five seconds and ask again.
const HOLD: Duration = Duration::from_secs(60);
/// How often a new random identifier may be taken already.
const MAX_ID_TRIES: usize = 4;

/// Both services.
#[derive(Clone)]
pub(crate) struct CaService {
    writer: Arc<Writer>,
}

impl CaService {
    pub(crate) fn new(writer: Arc<Writer>) -> Self {
        Self { writer }
    }

    fn check_running(&self) -> Result<(), Status> {
        if self.writer.is_leading() { Ok(()) } else { Err(Status::aborted("CA signer is stopped")) }
    }

    fn cluster(&self) -> Result<Arc<model::Cluster>, Status> {
        let view = self.writer.shared().view();
        view.the_cluster().cloned().ok_or_else(|| Status::aborted("CA signer is still starting"))
    }

    /// A node's certificate once its state is final, or as it is after [`HOLD`].
    async fn settled(&self, node_id: &NodeId) -> Result<Certificate, Status> {
        let mut watch = self.writer.shared().watch();
        let found = watch.until(|view| match view.node(node_id) {
            None => Some(None),
            Some(node) => signing::is_final(node.certificate.status.state).then(|| Some(node.certificate.clone())),
        });
        let found = match tokio::time::timeout(HOLD, found).await {
            Ok(found) => found.ok_or_else(|| Status::aborted("CA signer is stopped"))?,
            Err(_) => self.writer.shared().view().node(node_id).map(|node| node.certificate.clone()),
        };
        found.ok_or_else(|| Status::not_found("NotFound"))
    }

    /// A node asks for its next certificate; it gets the role that its object has.
    async fn renew(&self, node_id: NodeId, csr: Vec<u8>) -> Result<NodeMembership, Status> {
        let written = self.writer.write(|transaction| {
            let text = || format!("node {node_id} not found when attempting to renew certificate");
            let stored = transaction.node(&node_id).ok_or_else(|| ControlError::new(Code::NotFound, text()))?;
            let mut node = Node::clone(stored);
            node.certificate = signing::renewal(&node, csr);
            let membership = node.spec.membership;
            transaction.update(node)?;
            Ok::<_, ControlError>(membership)
        });
        written.await.map_err(Status::from)
    }

    /// A joiner asks for its first certificate; its token decides its role.
    async fn admit(
        &self,
        token: &str,
        csr: Vec<u8>,
        availability: NodeAvailability,
    ) -> Result<(NodeId, NodeMembership), Status> {
        let mut ids = (0..MAX_ID_TRIES).map(|_| NodeId::from(identity::random_id()));
        let written = self.writer.write(|transaction| {
            let free = ids.find(|id| transaction.node(id).is_none());
            let id = free.ok_or_else(|| ControlError::new(Code::Unknown, "no identifier is free for the node"))?;
            let node = admitted(transaction, id.clone(), token, csr, availability)?;
            let membership = node.spec.membership;
            transaction.create(node)?;
            Ok::<_, ControlError>((id, membership))
        });
        written.await.map_err(Status::from)
    }
}

/// The object of a node that shows this token. Read in the transaction, so that a token that was rotated before counts no
/// more.
fn admitted(
    transaction: &Transaction,
    id: NodeId,
    token: &str,
    csr: Vec<u8>,
    availability: NodeAvailability,
) -> Result<Node, ControlError> {
    let cluster = transaction.the_cluster();
    let cluster = cluster.ok_or_else(|| ControlError::new(Code::Aborted, "CA signer is still starting"))?;
    let tokens = &cluster.root_ca.join_tokens;
    let role = if identity::tokens_equal(token, &tokens.manager) {
        NodeRole::Manager
    } else if identity::tokens_equal(token, &tokens.worker) {
        NodeRole::Worker
    } else {
        return Err(ControlError::invalid("A valid join token is necessary to join this cluster"));
    };
    Ok(Node {
        role,
        spec: NodeSpec {
            desired_role: role,
            membership: NodeMembership::Accepted,
            availability,
            ..NodeSpec::default()
        },
        certificate: signing::first(&id, role, csr),
        vxlan_udp_port: cluster.vxlan_udp_port,
        id,
        ..Node::default()
    })
}

#[tonic::async_trait]
impl p::ca_server::Ca for CaService {
    async fn get_root_ca_certificate(
        &self,
        _: Request<p::GetRootCaCertificateRequest>,
    ) -> Result<Response<p::GetRootCaCertificateResponse>, Status> {
        // The bytes whose digest stands in the tokens.
        let certificate = self.cluster()?.root_ca.ca_cert.clone();
        Ok(Response::new(p::GetRootCaCertificateResponse { certificate }))
    }

    async fn get_unlock_key(
        &self,
        request: Request<p::GetUnlockKeyRequest>,
    ) -> Result<Response<p::GetUnlockKeyResponse>, Status> {
        Caller::of(&request)?;
        let cluster = self.cluster()?;
        let unlock_key = crate::control::unlock_key(&cluster).map(|key| key.to_vec()).unwrap_or_default();
        let version = Some(p::Version { index: cluster.meta.version.0 });
        Ok(Response::new(p::GetUnlockKeyResponse { unlock_key, version }))
    }
}

#[tonic::async_trait]
impl p::node_ca_server::NodeCa for CaService {
    async fn issue_node_certificate(
        &self,
        request: Request<p::IssueNodeCertificateRequest>,
    ) -> Result<Response<p::IssueNodeCertificateResponse>, Status> {
        let caller = Caller::known(&request);
        // The request's role is SwarmKit's of old and means nothing.
        let p::IssueNodeCertificateRequest { csr, token, availability, .. } = request.into_inner();
        if csr.is_empty() || csr.len() > MAX_CSR_BYTES {
            return Err(Status::invalid_argument("InvalidArgument"));
        }
        self.check_running()?;
        let (node_id, membership) = match caller {
            Some(caller) => (caller.node_id.clone(), self.renew(caller.node_id, csr).await?),
            None => {
                let availability = NodeAvailability::from_number(availability);
                let availability = availability.ok_or_else(|| Status::invalid_argument("InvalidArgument"))?;
                self.admit(&token, csr, availability).await?
            }
        };
        let response =
            p::IssueNodeCertificateResponse { node_id: node_id.to_string(), node_membership: membership as i32 };
        Ok(Response::new(response))
    }

    async fn node_certificate_status(
        &self,
        request: Request<p::NodeCertificateStatusRequest>,
    ) -> Result<Response<p::NodeCertificateStatusResponse>, Status> {
        let node_id = NodeId::from(request.into_inner().node_id);
        if node_id.as_str().is_empty() {
            return Err(Status::invalid_argument("InvalidArgument"));
        }
        self.check_running()?;
        let certificate = self.settled(&node_id).await?.to_proto();
        let status = certificate.status.clone();
        Ok(Response::new(p::NodeCertificateStatusResponse { status, certificate: Some(certificate) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Cluster;
    use store::{Action, View};

    fn join(token: &str) -> Result<Node, ControlError> {
        let mut cluster = Cluster { id: "c".into(), vxlan_udp_port: 4790, ..Cluster::default() };
        cluster.root_ca.join_tokens =
            model::JoinTokens { worker: "SWMTKN-1-x-worker".to_owned(), manager: "SWMTKN-1-x-manager".to_owned() };
        let mut view = View::new();
        view.apply(&[Action::Create(cluster.into())]).unwrap();
        admitted(&Transaction::new(&view), "n".into(), token, b"csr".to_vec(), NodeAvailability::Drain)
    }

    #[test]
    fn the_whole_token_decides_the_role() {
        let worker = join("SWMTKN-1-x-worker").unwrap();
        assert_eq!((worker.role, worker.spec.desired_role), (NodeRole::Worker, NodeRole::Worker));
        assert_eq!(worker.spec.availability, NodeAvailability::Drain);
        assert_eq!(worker.vxlan_udp_port, 4790);
        assert_eq!(join("SWMTKN-1-x-manager").unwrap().role, NodeRole::Manager);
        for token in ["", "SWMTKN-1-x-", "SWMTKN-1-x-manager ", "SWMTKN-1-y-manager", "worker"] {
            let refused = join(token).unwrap_err();
            assert_eq!(refused.desc, "A valid join token is necessary to join this cluster", "{token:?}");
        }
    }

    #[test]
    fn no_token_opens_a_cluster_without_tokens() {
        let mut view = View::new();
        view.apply(&[Action::Create(Cluster { id: "c".into(), ..Cluster::default() }.into())]).unwrap();
        let transaction = Transaction::new(&view);
        let refused = admitted(&transaction, "n".into(), "", b"csr".to_vec(), NodeAvailability::Active).unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument);
    }
}
