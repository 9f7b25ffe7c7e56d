//! Managers of one group in one process, over gRPC on loopback: each a driver behind a bare Raft service. Shared by tests
//! and benches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use consensus::{
    Beginning, Config, Dek, Dial, DialError, Handle, ReceiveError, SnapshotAssembler, SnapshotPolicy, StartError,
    StateMachine, StepError, Timing, start,
};
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// Dials without TLS.
pub struct Plain;

#[tonic::async_trait]
impl Dial for Plain {
    async fn dial(&self, addr: &str) -> Result<Channel, DialError> {
        let failed = |error: tonic::transport::Error| DialError { addr: addr.to_owned(), source: Box::new(error) };
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(failed)?.tcp_nodelay(true);
        endpoint.connect().await.map_err(failed)
    }
}

/// Keeps the identifiers of the requests that it was given; none is 0.
#[derive(Clone, Default)]
pub struct Applied {
    pub ids: Arc<Mutex<Vec<u64>>>,
    /// Bytes that snapshots are larger for.
    ballast: usize,
    /// It keeps nothing: the bench does not measure it.
    idle: bool,
}

impl StateMachine for Applied {
    fn apply(&mut self, _: u64, request: p::InternalRaftRequest) {
        if !self.idle {
            self.ids.lock().expect("state").push(request.id);
        }
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> p::StoreSnapshot + Send> {
        let ids = self.ids.lock().expect("state").clone();
        let ballast = p::Task { id: "x".repeat(self.ballast), ..Default::default() };
        Box::new(move || p::StoreSnapshot {
            tasks: ids.iter().map(|id| p::Task { slot: *id, ..Default::default() }).chain([ballast]).collect(),
            ..Default::default()
        })
    }

    fn restore(&mut self, state: p::StoreSnapshot) -> Result<(), String> {
        *self.ids.lock().expect("state") = state.tasks.iter().map(|task| task.slot).filter(|id| *id != 0).collect();
        Ok(())
    }
}

/// How the services answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// As SwarmKit.
    Streams,
    /// As a SwarmKit that knows no streams.
    Unary,
}

struct Service {
    raft: Arc<Handle>,
    speaks: Speaks,
}

impl Service {
    async fn take(&self, message: raftpb::Message) -> Result<(), Status> {
        match self.raft.receive(message).await {
            Err(ReceiveError::Step(error @ StepError::SenderRemoved)) => Err(Status::not_found(error.to_string())),
            // Connections outlive a manager that was killed here, as they would not in a process of its own.
            Err(error @ ReceiveError::Stopped) => Err(Status::unavailable(error.to_string())),
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl p::raft_server::Raft for Service {
    async fn process_raft_message(
        &self,
        request: Request<p::ProcessRaftMessageRequest>,
    ) -> Result<Response<p::ProcessRaftMessageResponse>, Status> {
        self.take(request.into_inner().message.unwrap_or_default()).await?;
        Ok(Response::new(p::ProcessRaftMessageResponse {}))
    }

    async fn stream_raft_message(
        &self,
        request: Request<Streaming<p::StreamRaftMessageRequest>>,
    ) -> Result<Response<p::StreamRaftMessageResponse>, Status> {
        if self.speaks == Speaks::Unary {
            return Err(Status::unimplemented("not here"));
        }
        let mut stream = request.into_inner();
        let mut parts = SnapshotAssembler::default();
        while let Some(part) = stream.message().await? {
            let pushed = parts.push(part.message.unwrap_or_default());
            pushed.map_err(|error| Status::invalid_argument(error.to_string()))?;
        }
        self.take(parts.finish().unwrap_or_default()).await?;
        Ok(Response::new(p::StreamRaftMessageResponse {}))
    }

    async fn resolve_address(
        &self,
        request: Request<p::ResolveAddressRequest>,
    ) -> Result<Response<p::ResolveAddressResponse>, Status> {
        let addr = self.raft.resolve_address(request.into_inner().raft_id);
        let addr = addr.ok_or_else(|| Status::not_found("member not found"))?;
        Ok(Response::new(p::ResolveAddressResponse { addr }))
    }
}

/// Says whether raft is served; tests switch it.
struct Health(Arc<AtomicBool>);

#[tonic::async_trait]
impl p::health_server::Health for Health {
    async fn check(&self, _: Request<p::HealthCheckRequest>) -> Result<Response<p::HealthCheckResponse>, Status> {
        let serving = self.0.load(Ordering::Relaxed);
        let status = if serving { p::ServingStatus::Serving } else { p::ServingStatus::NotServing };
        Ok(Response::new(p::HealthCheckResponse { status: status as i32 }))
    }
}

/// One manager.
pub struct Manager {
    pub raft: Arc<Handle>,
    pub applied: Applied,
    /// What its health service says.
    pub serving: Arc<AtomicBool>,
    server: JoinHandle<()>,
}

/// Managers by number; their folders stay when they stop.
pub struct Group {
    pub managers: BTreeMap<u64, Manager>,
    pub snapshots: SnapshotPolicy,
    pub timing: Timing,
    pub speaks: Speaks,
    /// Bytes that snapshots are larger for.
    pub ballast: usize,
    /// The state machines keep nothing.
    pub idle: bool,
    folder: tempfile::TempDir,
    addresses: BTreeMap<u64, String>,
}

impl Group {
    /// A group without managers, in a folder of its own under `parent`.
    pub fn new(parent: &Path) -> Self {
        Self {
            managers: BTreeMap::new(),
            snapshots: SnapshotPolicy { interval: 10_000, keep_entries: 500 },
            timing: Timing::FAST,
            speaks: Speaks::Streams,
            ballast: 0,
            idle: false,
            folder: tempfile::tempdir_in(parent).expect("folder"),
            addresses: BTreeMap::new(),
        }
    }

    /// A group of `count` that lead each other.
    pub async fn of(parent: &Path, count: u64) -> Self {
        let mut group = Self::new(parent);
        group.grow(count).await;
        group
    }

    /// Founds the group and lets others join.
    pub async fn grow(&mut self, count: u64) {
        self.begin(1, Beginning::Found).await.expect("founder");
        self.leader().await;
        for id in 2..=count {
            self.join(id).await;
        }
    }

    pub fn folder(&self, id: u64) -> PathBuf {
        self.folder.path().join(id.to_string())
    }

    pub fn config(&self, id: u64, addr: String, beginning: Beginning) -> Config {
        Config {
            folder: self.folder(id),
            member: p::RaftMember { raft_id: id, node_id: format!("n{id}"), addr, status: None },
            beginning,
            dek: Dek::new(&[id as u8; 32]),
            old_dek: None,
            seed: 5,
            timing: self.timing,
            snapshots: self.snapshots,
        }
    }

    /// The address of a manager: the same each time it starts.
    async fn listen(&mut self, id: u64) -> TcpListener {
        let addr = self.addresses.get(&id).cloned().unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let listener = TcpListener::bind(addr).await.expect("listener");
        self.addresses.insert(id, listener.local_addr().expect("address").to_string());
        listener
    }

    pub fn address(&self, id: u64) -> String {
        self.addresses[&id].clone()
    }

    /// The next start is at another address.
    pub fn forget_address(&mut self, id: u64) {
        self.addresses.remove(&id);
    }

    /// Starts a manager.
    pub async fn begin(&mut self, id: u64, beginning: Beginning) -> Result<(), StartError> {
        let listener = self.listen(id).await;
        let config = self.config(id, self.addresses[&id].clone(), beginning);
        self.begin_with(config, listener).await
    }

    /// Starts a manager with a configuration of one's own.
    pub async fn begin_configured(&mut self, config: Config) -> Result<(), StartError> {
        let listener = self.listen(config.member.raft_id).await;
        self.begin_with(config, listener).await
    }

    async fn begin_with(&mut self, config: Config, listener: TcpListener) -> Result<(), StartError> {
        let id = config.member.raft_id;
        let applied = Applied { ballast: self.ballast, idle: self.idle, ..Default::default() };
        let raft =
            Arc::new(start(config, Box::new(applied.clone()), Arc::new(Plain), &tokio::runtime::Handle::current())?);
        let serving = Arc::new(AtomicBool::new(true));
        let service = Service { raft: raft.clone(), speaks: self.speaks };
        let server = Server::builder()
            .tcp_nodelay(true)
            .add_service(p::raft_server::RaftServer::new(service))
            .add_service(p::health_server::HealthServer::new(Health(serving.clone())));
        let incoming = TcpListenerStream::new(listener);
        let server = tokio::spawn(async move { server.serve_with_incoming(incoming).await.expect("server") });
        self.managers.insert(id, Manager { raft, applied, serving, server });
        Ok(())
    }

    /// Adds a manager and waits until it has caught up.
    pub async fn join(&mut self, id: u64) {
        // Its address must be known before it is a member.
        drop(self.listen(id).await);
        let leader = self.leader().await;
        let addr = self.addresses[&id].clone();
        let raft = self.managers[&leader].raft.clone();
        let member = p::RaftMember { raft_id: id, node_id: format!("n{id}"), addr, status: None };
        let added = raft.add_member(member).await.expect("added");
        let members = raft.status().borrow().members.values().cloned().collect();
        self.begin(id, Beginning::Join { members }).await.expect("joins");
        self.reached(id, added).await;
    }

    /// Waits until a manager has applied an index.
    pub async fn reached(&self, id: u64, index: u64) {
        let raft = self.managers[&id].raft.clone();
        self.until(&format!("{id} has applied {index}"), || raft.status().borrow().applied >= index).await;
    }

    /// Ends a manager as a crash would for its peers; its folder stays.
    pub async fn kill(&mut self, id: u64) {
        let manager = self.managers.remove(&id).expect("it runs");
        manager.server.abort();
        manager.server.await.ok();
        let raft = manager.raft;
        tokio::task::spawn_blocking(move || raft.stop()).await.expect("stops");
    }

    /// Waits for a leader that all running members agree on.
    pub async fn leader(&self) -> u64 {
        let mut leader = 0;
        self.until("there is a leader", || {
            let leading = self.managers.iter().find(|(_, manager)| manager.raft.status().borrow().leading);
            leader = leading.map_or(0, |(id, _)| *id);
            let agree = |manager: &Manager| manager.raft.status().borrow().leader == leader;
            leader != 0 && self.managers.values().all(agree)
        })
        .await;
        leader
    }

    /// Proposes on whoever leads, again and again until it is acknowledged.
    pub async fn write(&self, id: u64) {
        let request = p::InternalRaftRequest { id, action: Vec::new() };
        loop {
            let leader = self.leader().await;
            if let Ok(Ok(_)) = self.managers[&leader].raft.propose(&request).await {
                return;
            }
        }
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// Waits until all running members have applied the same, and returns it.
    pub async fn equal(&self) -> Vec<u64> {
        let states = || self.managers.values().map(|manager| manager.applied.ids.lock().expect("state").clone());
        self.until("all are equal", || {
            let mut states = states();
            let first = states.next();
            states.all(|state| Some(&state) == first.as_ref())
        })
        .await;
        states().next().unwrap_or_default()
    }
}
