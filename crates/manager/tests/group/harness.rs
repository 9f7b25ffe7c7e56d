//! Managers of one cluster in one process, each with its own port on the loopback and its own certificate. Everything
//! between them is TLS over TCP.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use identity::{
    CertificateRequest, Credentials, Expiry, JoinToken, ListenLimits, NodeCredential, NodeKey, PeerListener,
    RemoteList, RootAuthority, RootBundle, ServerRole, system_now,
};
use manager::{Beginning, Founding, Manager, ManagerConfig};
use model::{NodeAvailability, NodeId, NodeRole};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::dispatcher_client::DispatcherClient;
use swarm_proto::swarmkit::raft_membership_client::RaftMembershipClient;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Server};
use tonic::{Response, Status, Streaming};

/// Longest wait for anything here; only a broken chain reaches it.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A node's identity and its way to managers.
pub(crate) struct Member {
    pub(crate) credentials: Credentials,
    pub(crate) node_id: NodeId,
}

/// A node with a running manager.
pub(crate) struct Peer {
    pub(crate) member: Member,
    pub(crate) addr: String,
    pub(crate) manager: Arc<Manager>,
    tasks: Mutex<JoinSet<()>>,
    _folder: TempDir,
}

/// Waits until `found` gives something.
pub(crate) async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(LONG, async {
        loop {
            if let Some(value) = found().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} did not come"))
}

impl Member {
    fn new(credentials: Credentials) -> Self {
        let node_id = credentials.current().node.as_ref().unwrap().identity().node_id.clone();
        Self { credentials, node_id }
    }

    /// Joins through the manager at `addr` with a token, as a new node does.
    pub(crate) async fn join(addr: &str, token: &str) -> Self {
        let remotes = RemoteList::new(vec![addr.to_owned()]);
        let token = JoinToken::parse(token).unwrap();
        let roots = identity::fetch_root(&remotes, &token).await.unwrap();
        let request = CertificateRequest::Join { token: &token, availability: NodeAvailability::Active, roots: &roots };
        let granted = identity::request_certificate(&remotes, request).await.unwrap();
        Self::new(Credentials::new(roots, Some(granted.credential)))
    }

    pub(crate) fn role(&self) -> NodeRole {
        self.credentials.current().node.as_ref().unwrap().identity().role
    }

    /// Gets the next certificate with the present one.
    pub(crate) async fn renew(&self, addr: &str) {
        let remotes = RemoteList::new(vec![addr.to_owned()]);
        let request = CertificateRequest::Renew { credentials: &self.credentials };
        let granted = identity::request_certificate(&remotes, request).await.unwrap();
        self.credentials.set_node(granted.credential);
    }

    pub(crate) async fn channel(&self, addr: &str) -> Channel {
        identity::connect(addr, ServerRole::Manager, &self.credentials).await.unwrap()
    }

    /// Opens a session as a node of this engine version.
    pub(crate) async fn session(
        &self,
        addr: &str,
        engine_version: &str,
    ) -> Result<Streaming<p::SessionMessage>, Status> {
        let info = self.credentials.current().node.as_ref().unwrap().tls_info().clone();
        let description = p::NodeDescription {
            hostname: self.node_id.to_string(),
            engine: Some(p::EngineDescription { engine_version: engine_version.to_owned(), ..Default::default() }),
            tls_info: Some(p::NodeTlsInfo {
                trust_root: info.trust_root,
                cert_issuer_subject: info.cert_issuer_subject,
                cert_issuer_public_key: info.cert_issuer_public_key,
            }),
            ..Default::default()
        };
        let mut client = DispatcherClient::new(self.channel(addr).await);
        let request = p::SessionRequest { description: Some(description), session_id: String::new() };
        client.session(request).await.map(Response::into_inner)
    }
}

impl Peer {
    /// The first manager of a new cluster.
    pub(crate) async fn found() -> Self {
        let now = system_now();
        let root = RootAuthority::generate(now).unwrap();
        let (cluster_id, node_id) = (identity::random_id(), NodeId::from(identity::random_id()));
        let issued = root.issue(&node_id, NodeRole::Manager, &cluster_id.as_str().into(), None, now).unwrap();
        let roots = RootBundle::parse(&root.cert_pem).unwrap();
        let key = NodeKey { pem: issued.key_pem };
        let credential = NodeCredential::load(&issued.cert_pem, &key, &roots, now, Expiry::Refuse).unwrap();
        let member = Member::new(Credentials::new(roots, Some(credential)));
        let founding = Founding {
            cluster_id: cluster_id.as_str().into(),
            node_id,
            availability: NodeAvailability::Active,
            spec: manager::default_cluster_spec(),
            join_tokens: (identity::new_join_token(&root.cert_pem), identity::new_join_token(&root.cert_pem)),
            ca_cert: root.cert_pem,
            ca_key: root.key_pem,
            default_address_pool: Vec::new(),
            subnet_size: 24,
            data_path_port: 4789,
            unlock_key: None,
        };
        let peer = Self::start(member, async |_| (1, Beginning::Found(Box::new(founding)))).await;
        let mut ready = peer.manager.ready();
        tokio::time::timeout(LONG, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
        peer
    }

    /// A node with a manager's certificate becomes a member of the group through the manager at `through`.
    pub(crate) async fn join_group(member: Member, through: &str) -> Self {
        let channel = member.channel(through).await;
        let ask = async move |addr: String| {
            let mut client = RaftMembershipClient::new(channel);
            let answer = client.join(p::JoinRequest { addr }).await.unwrap().into_inner();
            (answer.raft_id, Beginning::Join { members: answer.members })
        };
        Self::start(member, ask).await
    }

    /// Joins with the manager's token and then the group.
    pub(crate) async fn join(through: &Self, engine_version: &str) -> Self {
        let member = Member::join(&through.addr, &through.tokens().1).await;
        assert_eq!(member.role(), NodeRole::Manager);
        let peer = Self::join_group(member, &through.addr).await;
        drop(peer.member.session(&through.addr, engine_version).await.unwrap());
        peer
    }

    async fn start(member: Member, begin: impl AsyncFnOnce(String) -> (u64, Beginning)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let incoming = PeerListener::start(listener, &member.credentials, ListenLimits::default()).unwrap();
        let switch = Switch::default();
        let cluster_id = member.credentials.current().node.as_ref().unwrap().identity().cluster_id.clone();
        switch.set(manager::joining_routes(cluster_id));
        let routes = Routes::from(Routes::default().into_axum_router().fallback_service(switch.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            Server::builder().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
        });
        let (raft_id, beginning) = begin(addr.clone()).await;
        let folder = tempfile::tempdir().unwrap();
        let config = ManagerConfig {
            node_id: member.node_id.clone(),
            raft_id,
            advertise_addr: addr.clone(),
            raft_folder: folder.path().join("raft"),
            dek: identity::new_dek(),
            old_dek: None,
            credentials: member.credentials.clone(),
            seed: u64::from_le_bytes(identity::random_bytes()),
            beginning,
        };
        let manager = Arc::new(Manager::start(config).await.unwrap());
        switch.set(manager.remote_routes());
        Self { member, addr, manager, tasks: Mutex::new(tasks), _folder: folder }
    }

    /// The worker's and the manager's token.
    pub(crate) fn tokens(&self) -> (String, String) {
        let cluster = self.manager.shared().view().the_cluster().unwrap().clone();
        (cluster.root_ca.join_tokens.worker.clone(), cluster.root_ca.join_tokens.manager.clone())
    }

    pub(crate) fn leads(&self) -> bool {
        *self.manager.ready().borrow()
    }

    /// Dies: nothing of it answers any more.
    pub(crate) async fn kill(&self) {
        self.tasks.lock().unwrap().abort_all();
        self.manager.stop().await;
    }

    /// The node's object in this manager's store.
    pub(crate) fn node(&self, id: &NodeId) -> Option<Arc<model::Node>> {
        self.manager.shared().view().node(id).cloned()
    }

    /// Says what a node is to be, on the leader.
    pub(crate) async fn set_role(&self, id: &NodeId, desired_role: NodeRole) {
        // The leader must have heard of the others before it lets one go.
        until("the group to be well", async || {
            let status = self.manager.status();
            let status = status.borrow();
            let member = status.members.values().find(|member| member.node_id == id.as_str());
            member.is_some_and(|member| status.can_remove(member.raft_id)).then_some(())
        })
        .await;
        let node = self.node(id).unwrap();
        let spec = model::NodeSpec { desired_role, ..node.spec.clone() };
        self.manager.control().update_node(id, node.meta.version, spec).await.unwrap();
    }
}

/// The one of `peers` that leads; waits for one.
pub(crate) async fn leader<'a>(peers: &[&'a Peer]) -> &'a Peer {
    until("a leader", async || peers.iter().find(|peer| peer.leads()).copied()).await
}

/// The routes that count.
#[derive(Clone, Default)]
struct Switch(Arc<RwLock<Routes>>);

impl Switch {
    fn set(&self, routes: Routes) {
        *self.0.write().unwrap() = routes;
    }
}

impl<B> tower::Service<http::Request<B>> for Switch
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let routes = self.0.read().unwrap().clone();
        Box::pin(tower::ServiceExt::oneshot(routes, request))
    }
}
