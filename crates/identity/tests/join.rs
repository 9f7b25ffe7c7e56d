//! A node gets its certificate from a manager, over real sockets: joining, renewal, and what goes wrong on the way.

mod fixture;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use fixture::{CLUSTER, Ca};
use identity::{
    CertificateRequest, Credentials, JoinError, JoinToken, LeafRequest, ListenLimits, Outcome, PeerInfo, PeerListener,
    RemoteList, Remotes, TokenError, UnlockKey, fetch_root, new_join_token, request_certificate,
};
use model::{NodeAvailability, NodeRole};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::ca_server::{Ca as CaService, CaServer};
use swarm_proto::swarmkit::node_ca_server::{NodeCa, NodeCaServer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::{Code, Request, Response, Status};

/// What the CA answers to a question about a certificate, before the real answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Pending,
    Failed,
    Older,
    Error(Code),
}

/// A leader's CA as a dockerd would answer, and the lies that a test wants.
struct Leader {
    ca: Ca,
    token: String,
    manager_token: String,
    nodes: Mutex<BTreeMap<String, (Vec<u8>, NodeRole)>>,
    /// Answers to give first.
    script: Mutex<Vec<Before>>,
    calls: Mutex<Vec<String>>,
    unlock_key: Result<Vec<u8>, Code>,
    cluster: &'static str,
    /// Signs for this node, whoever asks.
    mixes_up: Option<&'static str>,
}

impl Leader {
    fn new() -> Self {
        let ca = Ca::new();
        Self {
            token: new_join_token(&ca.root.cert_pem),
            manager_token: new_join_token(&ca.root.cert_pem),
            ca,
            nodes: Mutex::default(),
            script: Mutex::default(),
            calls: Mutex::default(),
            unlock_key: Ok(Vec::new()),
            cluster: CLUSTER,
            mixes_up: None,
        }
    }

    fn called(&self, name: &str, request: &Request<impl Sized>) {
        let peer = request.extensions().get::<PeerInfo>().unwrap();
        let who = peer.identity.as_ref().map_or("nobody".to_owned(), |peer| peer.node_id.to_string());
        self.calls.lock().unwrap().push(format!("{name} by {who}"));
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

#[derive(Clone)]
struct Shared(Arc<Leader>);

#[tonic::async_trait]
impl CaService for Shared {
    async fn get_root_ca_certificate(
        &self,
        request: Request<p::GetRootCaCertificateRequest>,
    ) -> Result<Response<p::GetRootCaCertificateResponse>, Status> {
        self.0.called("root", &request);
        Ok(Response::new(p::GetRootCaCertificateResponse { certificate: self.0.ca.root.cert_pem.clone() }))
    }

    async fn get_unlock_key(
        &self,
        request: Request<p::GetUnlockKeyRequest>,
    ) -> Result<Response<p::GetUnlockKeyResponse>, Status> {
        self.0.called("unlock", &request);
        let unlock_key = self.0.unlock_key.clone().map_err(|code| Status::new(code, "no key"))?;
        Ok(Response::new(p::GetUnlockKeyResponse { unlock_key, version: Some(p::Version { index: 42 }) }))
    }
}

#[tonic::async_trait]
impl NodeCa for Shared {
    async fn issue_node_certificate(
        &self,
        request: Request<p::IssueNodeCertificateRequest>,
    ) -> Result<Response<p::IssueNodeCertificateResponse>, Status> {
        self.0.called("issue", &request);
        let caller = request.extensions().get::<PeerInfo>().unwrap().identity.clone();
        let asked = request.into_inner();
        let (node_id, role) = match asked.token.as_str() {
            token if identity::tokens_equal(token, &self.0.token) => (identity::random_id(), NodeRole::Worker),
            token if identity::tokens_equal(token, &self.0.manager_token) => (identity::random_id(), NodeRole::Manager),
            _ => match caller {
                Some(peer) => (peer.node_id.to_string(), peer.role),
                None => {
                    let text = "A valid join token is necessary to join this cluster";
                    return Err(Status::invalid_argument(text));
                }
            },
        };
        self.0.nodes.lock().unwrap().insert(node_id.clone(), (asked.csr, role));
        Ok(Response::new(p::IssueNodeCertificateResponse { node_id, node_membership: 1 }))
    }

    async fn node_certificate_status(
        &self,
        request: Request<p::NodeCertificateStatusRequest>,
    ) -> Result<Response<p::NodeCertificateStatusResponse>, Status> {
        self.0.called("status", &request);
        assert_eq!(request.metadata().get("grpc-timeout").map(|text| text.is_empty()), Some(false));
        let node = request.into_inner().node_id;
        let (csr, role) = self.0.nodes.lock().unwrap().get(&node).cloned().ok_or(Status::not_found("NotFound"))?;
        let mut script = self.0.script.lock().unwrap();
        let before = (!script.is_empty()).then(|| script.remove(0));
        let named = self.0.mixes_up.unwrap_or(&node);
        let leaf = LeafRequest { csr_pem: &csr, node: &named.into(), role, cluster: &self.0.cluster.into() };
        let certificate = self.0.ca.signer().sign_csr(leaf, None, identity::system_now()).unwrap();
        let (state, csr) = match before {
            Some(Before::Error(code)) => return Err(Status::new(code, "not now")),
            Some(Before::Pending) => (p::IssuanceState::Pending, csr),
            Some(Before::Failed) => (p::IssuanceState::Failed, csr),
            Some(Before::Older) => (p::IssuanceState::Issued, b"another".to_vec()),
            None => (p::IssuanceState::Issued, csr),
        };
        Ok(Response::new(p::NodeCertificateStatusResponse {
            status: Some(p::IssuanceStatus { state: state as i32, err: String::new() }),
            certificate: Some(p::Certificate { csr, certificate, ..Default::default() }),
        }))
    }
}

/// A running leader; it ends when dropped.
struct Running {
    leader: Arc<Leader>,
    addr: String,
    _task: JoinSet<()>,
}

async fn start(leader: Leader) -> Running {
    let leader = Arc::new(leader);
    let credentials = leader.ca.credentials("leader", NodeRole::Manager);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = PeerListener::start(listener, &credentials, ListenLimits::default()).unwrap();
    let addr = listener.local_addr().to_string();
    let mut task = JoinSet::new();
    let shared = Shared(leader.clone());
    task.spawn(async move {
        let mut server = tonic::transport::Server::builder();
        let router = server.add_service(CaServer::new(shared.clone())).add_service(NodeCaServer::new(shared));
        router.serve_with_incoming(listener).await.unwrap();
    });
    Running { leader, addr, _task: task }
}

fn closed_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

async fn join(running: &Running, token: &str, remotes: &dyn Remotes) -> Result<identity::Granted, JoinError> {
    let token = JoinToken::parse(token).unwrap();
    let roots = fetch_root(remotes, &token).await?;
    assert_eq!(roots.pem(), running.leader.ca.root.cert_pem);
    let availability = NodeAvailability::default();
    request_certificate(remotes, CertificateRequest::Join { token: &token, availability, roots: &roots }).await
}

#[tokio::test]
async fn a_worker_joins_renews_and_asks_for_no_unlock_key() {
    let running = start(Leader::new()).await;
    let remotes = RemoteList::new(vec![running.addr.clone()]);
    let granted = join(&running, &running.leader.token, &remotes).await.unwrap();
    let node = granted.credential.identity().node_id.to_string();
    assert_eq!(granted.credential.identity().role, NodeRole::Worker);
    assert_eq!(granted.unlock_key, UnlockKey::default());
    assert_eq!(running.leader.calls(), ["root by nobody", "issue by nobody", "status by nobody"]);

    let credentials = Credentials::new(running.leader.ca.bundle.clone(), Some(granted.credential.clone()));
    let renewed = request_certificate(&remotes, CertificateRequest::Renew { credentials: &credentials }).await.unwrap();
    assert_eq!(renewed.credential.identity().node_id.as_str(), node);
    assert_ne!(renewed.key, granted.key, "each certificate has a key of its own");
    assert_eq!(running.leader.calls(), [format!("issue by {node}"), format!("status by {node}")]);
}

#[tokio::test]
async fn a_manager_asks_with_its_new_certificate_for_the_unlock_key() {
    let check = async |unlock_key: Result<Vec<u8>, Code>| {
        let running = start(Leader { unlock_key, ..Leader::new() }).await;
        let remotes = RemoteList::new(vec![running.addr.clone()]);
        let granted = join(&running, &running.leader.manager_token, &remotes).await;
        let calls = running.leader.calls();
        granted.map(|granted| {
            assert_eq!(granted.credential.identity().role, NodeRole::Manager);
            assert_eq!(calls[3], format!("unlock by {}", granted.credential.identity().node_id));
            granted.unlock_key
        })
    };
    assert_eq!(check(Ok(Vec::new())).await.unwrap(), UnlockKey { key: None, version: 42 });
    assert_eq!(check(Ok(vec![7; 32])).await.unwrap(), UnlockKey { key: Some([7; 32]), version: 42 });
    assert_eq!(check(Err(Code::Unimplemented)).await.unwrap(), UnlockKey::default(), "an old leader has none");
    assert!(matches!(check(Ok(vec![7; 31])).await, Err(JoinError::UnlockKey(31))));
}

#[tokio::test]
async fn only_the_answer_to_this_request_counts() {
    let script = vec![Before::Older, Before::Failed];
    let running = start(Leader { script: Mutex::new(script), ..Leader::new() }).await;
    let remotes = RemoteList::new(vec![running.addr.clone()]);
    join(&running, &running.leader.token, &remotes).await.unwrap();
    let calls = running.leader.calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("status")).count(), 3, "{calls:?}");
    assert_eq!(calls.iter().filter(|call| call.starts_with("issue")).count(), 1, "{calls:?}");
}

#[tokio::test]
async fn a_manager_that_fails_is_left_for_another() {
    let script = vec![Before::Error(Code::Unavailable), Before::Pending];
    let running = start(Leader { script: Mutex::new(script), ..Leader::new() }).await;
    // The first address is dead; the second works, then does not know, then the list has come round to it again.
    let remotes = RemoteList::new(vec![closed_port(), running.addr.clone(), running.addr.clone()]);
    join(&running, &running.leader.token, &remotes).await.unwrap();
    let calls = running.leader.calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("issue")).count(), 1, "the node stays the same: {calls:?}");
    assert_eq!(calls.iter().filter(|call| call.starts_with("status")).count(), 3, "{calls:?}");
}

#[tokio::test]
async fn a_wrong_token_is_refused_at_once() {
    let running = start(Leader::new()).await;
    let remotes = RemoteList::new(vec![running.addr.clone()]);
    let old = new_join_token(&running.leader.ca.root.cert_pem);
    let refused = join(&running, &old, &remotes).await.unwrap_err();
    assert_eq!(refused.to_string(), "A valid join token is necessary to join this cluster");
    let calls = running.leader.calls();
    assert_eq!(calls, ["root by nobody", "issue by nobody"]);

    let fips = running.leader.token.replacen("-1-", "-2-1-", 1);
    assert!(matches!(join(&running, &fips, &remotes).await, Err(JoinError::Token(TokenError::Fips))));
    assert_eq!(running.leader.calls(), Vec::<String>::new(), "nobody is asked");
}

/// Has an address for the first tries only.
struct Few(Mutex<Vec<String>>, Mutex<Vec<Outcome>>);

impl Remotes for Few {
    fn select(&self) -> Option<String> {
        self.0.lock().unwrap().pop()
    }

    fn observe(&self, _addr: &str, outcome: Outcome) {
        self.1.lock().unwrap().push(outcome);
    }
}

#[tokio::test]
async fn a_foreign_root_is_not_taken() {
    let running = start(Leader::new()).await;
    let token = JoinToken::parse(&new_join_token(&Ca::new().root.cert_pem)).unwrap();
    let remotes = Few(Mutex::new(vec![running.addr.clone()]), Mutex::default());
    let refused = fetch_root(&remotes, &token).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("remote CA does not match fingerprint. Expected: {}", token.digest()));
    assert_eq!(*remotes.1.lock().unwrap(), [Outcome::Bad]);
    let nobody = RemoteList::new(Vec::new());
    assert_eq!(fetch_root(&nobody, &token).await.unwrap_err().to_string(), "no remote hosts provided");
}

#[tokio::test]
async fn another_nodes_certificate_is_not_taken() {
    let check = async |leader: Leader| {
        let running = start(leader).await;
        let remotes = RemoteList::new(vec![running.addr.clone()]);
        let credentials = running.leader.ca.credentials("w1", NodeRole::Worker);
        request_certificate(&remotes, CertificateRequest::Renew { credentials: &credentials }).await
    };
    assert!(check(Leader::new()).await.is_ok());
    let mixed = check(Leader { mixes_up: Some("w2"), ..Leader::new() }).await;
    assert!(matches!(mixed, Err(JoinError::AnotherNode { .. })), "{mixed:?}");
    let fips = check(Leader { cluster: "FIPS.cluster", ..Leader::new() }).await;
    assert!(matches!(fips, Err(JoinError::Token(TokenError::Fips))), "{fips:?}");
}
