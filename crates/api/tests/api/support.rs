//! A swarm that keeps its objects in memory and does nothing with them, and a server over a unix socket to reach it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::fake_engine::FakeEngine;
use api::swarm_backend::*;
use async_trait::async_trait;
use docker_types::network::{PeerInfo, ServiceInfo};
use engine::{ErrorKind, NetworkError};
use model::*;
use tokio::sync::{mpsc, oneshot};

type Objects<T> = Mutex<BTreeMap<String, T>>;

/// A swarm of one that is `active` from the start, unless told otherwise.
#[derive(Default)]
pub(crate) struct FakeSwarm {
    pub(crate) refuse: Mutex<Option<SwarmError>>,
    pub(crate) inits: Mutex<Vec<InitRequest>>,
    pub(crate) joins: Mutex<Vec<JoinRequest>>,
    pub(crate) leaves: Mutex<Vec<LeaveMode>>,
    pub(crate) cluster_specs: Mutex<Vec<(ObjectVersion, ClusterSpec, KeyRotation)>>,
    pub(crate) services: Objects<Service>,
    pub(crate) nodes: Objects<Node>,
    pub(crate) tasks: Objects<Task>,
    pub(crate) secrets: Objects<Secret>,
    pub(crate) configs: Objects<Config>,
    pub(crate) networks: Objects<Network>,
    pub(crate) logs: Mutex<Vec<SwarmResult<LogMessage>>>,
    pub(crate) rollbacks: Mutex<Vec<Rollback>>,
    next: AtomicU64,
}

impl FakeSwarm {
    fn ready(&self) -> SwarmResult<()> {
        self.refuse.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn new_id(&self, kind: &str) -> String {
        format!("{kind}{:020}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn get<T: Clone>(&self, objects: &Objects<T>, kind: &str, id: &str) -> SwarmResult<T> {
        self.ready()?;
        let missing = || SwarmError::grpc(GrpcCode::NotFound, format!("{kind} {id} not found"));
        objects.lock().unwrap().get(id).cloned().ok_or_else(missing)
    }

    fn list<T: Clone>(&self, objects: &Objects<T>, matches: impl Fn(&T) -> bool) -> SwarmResult<Vec<T>> {
        self.ready()?;
        Ok(objects.lock().unwrap().values().filter(|object| matches(object)).cloned().collect())
    }

    fn remove<T>(&self, objects: &Objects<T>, id: &str) -> SwarmResult<()> {
        self.ready()?;
        objects.lock().unwrap().remove(id);
        Ok(())
    }
}

fn in_sequence(current: &mut Meta, version: ObjectVersion) -> SwarmResult<()> {
    if current.version != version {
        return Err(SwarmError::grpc(GrpcCode::Unknown, "update out of sequence"));
    }
    current.version.0 += 1;
    Ok(())
}

#[async_trait]
impl SwarmBackend for FakeSwarm {
    async fn init(&self, request: InitRequest) -> SwarmResult<NodeId> {
        self.ready()?;
        self.inits.lock().unwrap().push(request);
        Ok("node1".into())
    }

    async fn join(&self, request: JoinRequest) -> SwarmResult<()> {
        self.ready()?;
        self.joins.lock().unwrap().push(request);
        Ok(())
    }

    async fn leave(&self, mode: LeaveMode) -> SwarmResult<()> {
        self.ready()?;
        self.leaves.lock().unwrap().push(mode);
        Ok(())
    }

    async fn unlock(&self, key: &str) -> SwarmResult<()> {
        if key == "right" { Ok(()) } else { Err(SwarmError::InvalidUnlockKey) }
    }

    async fn unlock_key(&self) -> SwarmResult<String> {
        Ok("SWMKEY-1-x".to_owned())
    }

    async fn info(&self) -> SwarmInfo {
        let active = self.ready().is_ok();
        let state = if active { LocalNodeState::Active } else { LocalNodeState::Inactive };
        SwarmInfo {
            node_id: "node1".to_owned(),
            node_addr: "127.0.0.1".to_owned(),
            local_node_state: state,
            control_available: active,
            nodes: 1,
            managers: 1,
            ..SwarmInfo::default()
        }
    }

    async fn cluster(&self) -> SwarmResult<Cluster> {
        self.ready()?;
        Ok(Cluster { id: "cluster1".into(), ..Cluster::default() })
    }

    async fn update_cluster(
        &self,
        version: ObjectVersion,
        spec: ClusterSpec,
        rotation: KeyRotation,
    ) -> SwarmResult<()> {
        self.ready()?;
        self.cluster_specs.lock().unwrap().push((version, spec, rotation));
        Ok(())
    }

    async fn nodes(&self, filter: NodeFilter) -> SwarmResult<Vec<Node>> {
        self.list(&self.nodes, |node| filter.matches(node))
    }

    async fn node(&self, id: &NodeId) -> SwarmResult<Node> {
        self.get(&self.nodes, "node", id.as_str())
    }

    async fn update_node(&self, id: &NodeId, version: ObjectVersion, spec: NodeSpec) -> SwarmResult<()> {
        let mut node = self.node(id).await?;
        in_sequence(&mut node.meta, version)?;
        node.spec = spec;
        self.nodes.lock().unwrap().insert(id.to_string(), node);
        Ok(())
    }

    async fn remove_node(&self, id: &NodeId, mode: RemoveMode) -> SwarmResult<()> {
        if mode == RemoveMode::Safe {
            let text = format!("node {id} is not down and can't be removed");
            return Err(SwarmError::grpc(GrpcCode::FailedPrecondition, text));
        }
        self.remove(&self.nodes, id.as_str())
    }

    async fn services(&self, filter: ServiceFilter) -> SwarmResult<Vec<Service>> {
        self.list(&self.services, |service| filter.matches(service))
    }

    async fn service(&self, id: &ServiceId, _defaults: InsertDefaults) -> SwarmResult<Service> {
        self.get(&self.services, "service", id.as_str())
    }

    async fn create_service(&self, spec: ServiceSpec) -> SwarmResult<Service> {
        self.ready()?;
        let name = &spec.annotations.name;
        if self.services.lock().unwrap().values().any(|service| service.spec.annotations.name == *name) {
            let text = format!("name conflicts with an existing object: service {name} already exists");
            return Err(SwarmError::grpc(GrpcCode::AlreadyExists, text));
        }
        let id = self.new_id("service");
        let meta = Meta { version: ObjectVersion(10), ..Meta::default() };
        let ports = spec.endpoint.as_ref().map(|endpoint| endpoint.ports.clone()).unwrap_or_default();
        let endpoint = Some(Endpoint { spec: spec.endpoint.clone(), ports, ..Endpoint::default() });
        let service = Service { id: id.as_str().into(), meta, spec, endpoint, ..Service::default() };
        self.services.lock().unwrap().insert(id, service.clone());
        Ok(service)
    }

    async fn update_service(
        &self,
        id: &ServiceId,
        version: ObjectVersion,
        spec: ServiceSpec,
        rollback: Rollback,
    ) -> SwarmResult<Service> {
        let mut service = self.service(id, InsertDefaults::No).await?;
        in_sequence(&mut service.meta, version)?;
        self.rollbacks.lock().unwrap().push(rollback);
        service.previous_spec = Some(std::mem::replace(&mut service.spec, spec));
        self.services.lock().unwrap().insert(id.to_string(), service.clone());
        Ok(service)
    }

    async fn remove_service(&self, id: &ServiceId) -> SwarmResult<()> {
        self.remove(&self.services, id.as_str())
    }

    async fn service_statuses(&self, ids: &[ServiceId]) -> SwarmResult<Vec<ServiceTaskCounts>> {
        let counts = |id: &ServiceId| ServiceTaskCounts {
            service_id: id.clone(),
            desired_tasks: 5,
            running_tasks: 4,
            completed_tasks: 0,
        };
        Ok(ids.iter().map(counts).collect())
    }

    async fn tasks(&self, filter: TaskFilter) -> SwarmResult<Vec<Task>> {
        self.list(&self.tasks, |task| filter.matches(task))
    }

    async fn task(&self, id: &TaskId) -> SwarmResult<Task> {
        self.get(&self.tasks, "task", id.as_str())
    }

    async fn secrets(&self, filter: ObjectFilter) -> SwarmResult<Vec<Secret>> {
        self.list(&self.secrets, |secret| filter.matches_secret(secret))
    }

    async fn secret(&self, id: &SecretId) -> SwarmResult<Secret> {
        self.get(&self.secrets, "secret", id.as_str())
    }

    async fn create_secret(&self, spec: SecretSpec) -> SwarmResult<SecretId> {
        self.ready()?;
        let name = &spec.annotations.name;
        if self.secrets.lock().unwrap().values().any(|secret| secret.spec.annotations.name == *name) {
            return Err(SwarmError::grpc(GrpcCode::AlreadyExists, format!("secret {name} already exists")));
        }
        let id = self.new_id("secret");
        let secret = Secret { id: id.as_str().into(), spec, ..Secret::default() };
        self.secrets.lock().unwrap().insert(id.clone(), secret);
        Ok(id.into())
    }

    async fn update_secret(&self, id: &SecretId, version: ObjectVersion, spec: SecretSpec) -> SwarmResult<()> {
        let mut secret = self.secret(id).await?;
        in_sequence(&mut secret.meta, version)?;
        secret.spec.annotations.labels = spec.annotations.labels;
        self.secrets.lock().unwrap().insert(id.to_string(), secret);
        Ok(())
    }

    async fn remove_secret(&self, id: &SecretId) -> SwarmResult<()> {
        self.remove(&self.secrets, id.as_str())
    }

    async fn configs(&self, filter: ObjectFilter) -> SwarmResult<Vec<Config>> {
        self.list(&self.configs, |config| filter.matches_config(config))
    }

    async fn config(&self, id: &ConfigId) -> SwarmResult<Config> {
        self.get(&self.configs, "config", id.as_str())
    }

    async fn create_config(&self, spec: ConfigSpec) -> SwarmResult<ConfigId> {
        self.ready()?;
        let id = self.new_id("config");
        let config = Config { id: id.as_str().into(), spec, ..Config::default() };
        self.configs.lock().unwrap().insert(id.clone(), config);
        Ok(id.into())
    }

    async fn update_config(&self, id: &ConfigId, version: ObjectVersion, spec: ConfigSpec) -> SwarmResult<()> {
        let mut config = self.config(id).await?;
        in_sequence(&mut config.meta, version)?;
        config.spec.annotations.labels = spec.annotations.labels;
        self.configs.lock().unwrap().insert(id.to_string(), config);
        Ok(())
    }

    async fn remove_config(&self, id: &ConfigId) -> SwarmResult<()> {
        self.remove(&self.configs, id.as_str())
    }

    async fn networks(&self, filter: ObjectFilter) -> SwarmResult<Vec<Network>> {
        self.list(&self.networks, |network| filter.matches_network(network))
    }

    async fn network(&self, id: &NetworkId) -> SwarmResult<Network> {
        self.get(&self.networks, "network", id.as_str())
    }

    async fn create_network(&self, spec: NetworkSpec) -> SwarmResult<NetworkId> {
        self.ready()?;
        let id = self.new_id("network");
        let network = Network { id: id.as_str().into(), spec, ..Network::default() };
        self.networks.lock().unwrap().insert(id.clone(), network);
        Ok(id.into())
    }

    async fn remove_network(&self, id: &NetworkId) -> SwarmResult<()> {
        self.remove(&self.networks, id.as_str())
    }

    async fn logs(
        &self,
        _selector: LogSelector,
        _options: LogOptions,
    ) -> SwarmResult<mpsc::Receiver<SwarmResult<LogMessage>>> {
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE_LIMIT);
        for message in self.logs.lock().unwrap().drain(..) {
            sender.try_send(message).unwrap();
        }
        Ok(receiver)
    }

    fn events(&self) -> mpsc::Receiver<SwarmEvent> {
        mpsc::channel(STREAM_QUEUE_LIMIT).1
    }
}

/// A doctor that finds nothing wrong.
struct Well;

#[async_trait]
impl api::Checkup for Well {
    async fn report(&self) -> doctor::Report {
        doctor::judge(&doctor::Observations::default())
    }
}

/// A machine with the default bridge, and networks of the user's own.
#[derive(Default)]
struct Bridge(Mutex<BTreeMap<String, net::BridgeNetworkSpec>>);

#[async_trait]
impl api::LocalNetworks for Bridge {
    fn networks(&self) -> Vec<net::NetworkInfo> {
        let info = |name: &str, driver: &str| net::NetworkInfo {
            id: format!("{name}-id"),
            name: name.to_owned(),
            created_unix_ns: 1_500_000_000,
            driver: driver.to_owned(),
            scope: "local".to_owned(),
            ..net::NetworkInfo::default()
        };
        let subnet = |subnet: &str, gateway: &str| net::SubnetInfo {
            subnet: subnet.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            range: None,
            reserved: BTreeMap::new(),
            is_chosen: false,
        };
        let mut bridge = info("bridge", "bridge");
        bridge.subnets.push(subnet("172.17.0.0/16", "172.17.0.1"));
        bridge.containers.push(net::NetworkContainer {
            container_id: "c1".to_owned(),
            name: "web".to_owned(),
            endpoint_id: "e1".to_owned(),
            mac: "02:42:ac:11:00:02".to_owned(),
            address: "172.17.0.2/16".parse().unwrap(),
        });
        let mut ingress = info("ingress", "overlay");
        (ingress.scope, ingress.ingress) = ("swarm".to_owned(), true);
        let own = self.0.lock().unwrap();
        let own = own.values().map(|spec| net::NetworkInfo {
            internal: spec.internal,
            labels: spec.labels.clone(),
            subnets: vec![subnet("10.9.0.0/24", "10.9.0.1")],
            ..info(&spec.name, "bridge")
        });
        [bridge, info("host", "host"), info("none", "null"), ingress].into_iter().chain(own).collect()
    }

    async fn of_swarm(&self, _: &str) -> Option<Network> {
        None
    }

    async fn create(&self, spec: net::BridgeNetworkSpec) -> Result<String, NetworkError> {
        if spec.name == "overlapping" {
            let text = "invalid pool request: Pool overlaps with other one on this address space";
            return Err(NetworkError::new(ErrorKind::Forbidden, text));
        }
        let id = format!("{}-id", spec.name);
        self.0.lock().unwrap().insert(id.clone(), spec);
        Ok(id)
    }

    async fn remove(&self, network_id: &str) -> Result<(), NetworkError> {
        if network_id == "busy-id" {
            return Err(NetworkError::new(ErrorKind::Forbidden, "network busy has active endpoints (name:\"c\")"));
        }
        self.0.lock().unwrap().remove(network_id);
        Ok(())
    }

    async fn peers(&self, network_id: &str) -> Vec<PeerInfo> {
        let peer = PeerInfo { name: "0123456789ab".to_owned(), ip: "192.0.2.1".to_owned() };
        if network_id == "ingress-id" { vec![peer] } else { Vec::new() }
    }

    async fn services(&self, _: &str) -> BTreeMap<String, ServiceInfo> {
        BTreeMap::new()
    }
}

/// A server on a unix socket of its own, ended when dropped.
pub(crate) struct Server {
    pub(crate) swarm: Arc<FakeSwarm>,
    pub(crate) engine: FakeEngine,
    pub(crate) socket: PathBuf,
    _dir: tempfile::TempDir,
    _data: Option<tempfile::TempDir>,
    _stop: Stop,
}

/// Stops the server when dropped.
struct Stop(Option<oneshot::Sender<()>>);

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_else(|| panic!("no message: {self:?}")).to_owned()
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Arc::new(FakeSwarm::default())).await
    }

    pub(crate) async fn start_with(swarm: Arc<FakeSwarm>) -> Self {
        Self::start_on(swarm, Vec::new()).await
    }

    /// On a unix socket, and on these.
    pub(crate) async fn start_on(swarm: Arc<FakeSwarm>, listeners: Vec<api::listen::Listener>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = image::ImageStore::open(&dir.path().join("data"), image::Config::default()).unwrap();
        let engine = FakeEngine::default();
        let server = Self::start_of(swarm, Arc::new(engine.clone()), images, listeners).await;
        Self { engine, _data: Some(dir), ..server }
    }

    /// With an engine and images of one's own; `engine` of the server is not used then.
    pub(crate) async fn start_of(
        swarm: Arc<FakeSwarm>,
        engine: Arc<dyn api::EngineBackend>,
        images: image::ImageStore,
        mut listeners: Vec<api::listen::Listener>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        listeners.push(api::listen::bind_unix(&socket, None).await.unwrap());
        let state = api::ApiState {
            engine,
            images,
            networks: Arc::new(Bridge::default()),
            doctor: Arc::new(Well),
            swarm: swarm.clone(),
            settings: api::Settings { log_driver: "json-file".to_owned(), ..api::Settings::default() },
            about: api::About::default(),
        };
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(api::serve(listeners, state, async {
            // An error means that the server was dropped, which stops it too.
            let _ = stopped.await;
        }));
        Self { swarm, engine: FakeEngine::default(), socket, _dir: dir, _data: None, _stop: Stop(Some(stop)) }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path).header("host", "docker");
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        send(&self.socket, request.body(http_body_util::Full::from(body.to_vec())).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, body.as_bytes()).await
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if let Some(stop) = self.0.take() {
            let _ = stop.send(());
        }
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(socket: &Path, request: http::Request<http_body_util::Full<bytes::Bytes>>) -> Answer {
    use http_body_util::BodyExt;
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}
