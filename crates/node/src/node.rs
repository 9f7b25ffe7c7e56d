//! The node: founds, starts, leaves. Transitions happen one at a time; readers see the last finished one.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use agent::{AgentConfig, AgentHandle, Executor, SessionInfo};
use identity::{CertificateFiles, DiskError, KeyFile, KeyFileError, RootAuthority};
use manager::{Founding, Manager, ManagerConfig};
use model::{ClusterSpec, NodeAvailability, NodeId, NodeRole};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::address::{self, AddressError, Wanted};
use crate::key_file::{self, unlock_key_of};
use crate::local;
use crate::state::{Saved, StateError, StateFolder};

/// How long init waits for the new manager's first writes.
const FOUNDING_TIMEOUT: Duration = Duration::from_secs(20);
/// Data path ports that dockerd allows.
const DATA_PATH_PORTS: std::ops::RangeInclusive<u32> = 1024..=49151;

/// What a node needs.
#[derive(Clone)]
pub struct NodeConfig {
    /// Folder of the swarm's state.
    pub folder: PathBuf,
    /// The engine.
    pub executor: Arc<dyn Executor>,
    /// The daemon's `--swarm-default-advertise-addr`, may be empty.
    pub default_advertise_addr: String,
}

/// How to found a swarm.
#[derive(Clone, Debug, Default)]
pub struct InitRequest {
    /// IP address or interface, with optional port.
    pub listen_addr: String,
    /// IP address or interface, with optional port; empty: to be found.
    pub advertise_addr: String,
    /// IP address or interface; empty: as advertised.
    pub data_path_addr: String,
    /// 0: 4789.
    pub data_path_port: u32,
    /// Pools that overlay subnets are cut from; empty: 10.0.0.0/8.
    pub default_address_pool: Vec<String>,
    /// 0: 24.
    pub subnet_size: u32,
    /// Take this node's state and go on alone.
    pub force_new_cluster: bool,
    /// Availability of this node.
    pub availability: NodeAvailability,
    /// The cluster's spec.
    pub spec: ClusterSpec,
}

/// Why a swarm could not be founded.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// This node is in a swarm.
    #[error("this node is in a swarm")]
    InSwarm,
    /// An address.
    #[error("an address cannot be used: {0:?}")]
    Address(AddressError),
    /// The data path port is out of range.
    #[error("data path port {0} is out of range")]
    DataPathPort(u32),
    /// The file system.
    #[error(transparent)]
    State(#[from] StateError),
    /// Certificates on disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Keys and certificates.
    #[error("certificates could not be made: {0}")]
    Identity(String),
    /// The manager.
    #[error(transparent)]
    Manager(#[from] manager::ManagerError),
    /// The stored state lacks something.
    #[error("swarm state: {0}")]
    Incomplete(&'static str),
    /// The new manager did not answer in time.
    #[error("the manager did not become ready in time")]
    Timeout,
    /// Other managers would be cut off.
    #[error("a new cluster can be forced only from a swarm of one manager so far")]
    OtherManagers,
}

/// Whether leaving may lose data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveMode {
    /// Refuse where state would be lost.
    Safe,
    /// Leave whatever it costs.
    Force,
}

/// Why leaving was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// This node is in no swarm.
    #[error("this node is in no swarm")]
    NotInSwarm,
    /// It is the only manager: the swarm would be lost.
    #[error("the last manager leaves only with force")]
    LastManager,
    /// Its manager is locked: what the swarm would lose is unknown.
    #[error("a locked manager leaves only with force")]
    Locked,
    /// Its manager does not run: what the swarm would lose is unknown.
    #[error("a manager that does not run leaves only with force")]
    InactiveManager,
    /// The file system.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why a manager was not unlocked.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// This node is in no swarm.
    #[error("this node is in no swarm")]
    NotInSwarm,
    /// It is not locked.
    #[error("the manager is not locked")]
    NotLocked,
    /// The key is another one.
    #[error("the unlock key is another one")]
    WrongKey,
    /// It was unlocked and could not start.
    #[error(transparent)]
    Start(NodeError),
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// In no swarm.
    #[default]
    Inactive,
    /// In a swarm, its manager has not led yet.
    Pending,
    /// In a swarm.
    Active,
    /// In a swarm, but could not start.
    Failed,
    /// In a swarm, its manager waits for the unlock key.
    Locked,
}

/// What a node tells of itself.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Where it stands.
    pub state: NodeState,
    /// Its identifier; empty outside a swarm.
    pub node_id: String,
    /// The IP address that others are told; empty outside a swarm.
    pub advertise_ip: String,
    /// Where its manager is reached, `host:port`; empty outside a swarm.
    pub advertise_addr: String,
    /// Why it failed.
    pub error: String,
    /// Last session of its agent.
    pub session: SessionInfo,
}

/// What runs while the node is in a swarm.
struct Running {
    agent: AgentHandle,
    _services: JoinSet<()>,
}

/// What readers see.
#[derive(Clone, Default)]
struct Current {
    node_id: Option<NodeId>,
    saved: Saved,
    manager: Option<Arc<Manager>>,
    session: Option<watch::Receiver<SessionInfo>>,
    error: String,
    locked: bool,
}

/// This machine in the swarm.
pub struct SwarmNode {
    config: NodeConfig,
    folder: StateFolder,
    running: Mutex<Option<Running>>,
    current: RwLock<Current>,
    managers: watch::Sender<Option<Arc<Manager>>>,
}

impl SwarmNode {
    /// Starts what this node was. A swarm that cannot be started is told by [`SwarmNode::info`]: the engine must come up
    /// all the same.
    pub async fn open(config: NodeConfig) -> Self {
        let folder = StateFolder::new(config.folder.clone());
        let node = Self {
            config,
            folder,
            running: Mutex::new(None),
            current: RwLock::default(),
            managers: watch::channel(None).0,
        };
        let mut running = node.running.lock().await;
        match node.folder.load() {
            Ok(None) => {}
            Ok(Some(saved)) => match node.start(saved.clone(), None, None).await {
                Ok(started) => *running = Some(started),
                Err(NodeError::Disk(DiskError::Key(KeyFileError::Locked))) => {
                    tracing::info!("this node's manager waits for its unlock key");
                    node.set(Current { saved, locked: true, ..Current::default() });
                }
                Err(error) => node.failed(saved, &error),
            },
            Err(error) => node.failed(Saved::default(), &error.into()),
        }
        drop(running);
        node
    }

    fn failed(&self, saved: Saved, error: &NodeError) {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        tracing::error!(error = text, "this node's swarm could not be started");
        self.set(Current { saved, error: text, ..Current::default() });
    }

    fn set(&self, current: Current) {
        self.managers.send_replace(current.manager.clone());
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Founds a swarm and returns when its manager answers.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId, NodeError> {
        let mut running = self.running.lock().await;
        let current = self.current();
        if running.is_some() || current.locked || !current.error.is_empty() {
            if request.force_new_cluster && running.is_some() {
                return self.restart_alone(&mut running, current).await;
            }
            return Err(NodeError::InSwarm);
        }
        if request.data_path_port != 0 && !DATA_PATH_PORTS.contains(&request.data_path_port) {
            return Err(NodeError::DataPathPort(request.data_path_port));
        }
        let wanted = Wanted {
            listen: &request.listen_addr,
            advertise: &request.advertise_addr,
            default_advertise: &self.config.default_advertise_addr,
            data_path: &request.data_path_addr,
        };
        let local = address::local_addresses().map_err(NodeError::Address)?;
        let addresses = address::resolve(&wanted, &local).map_err(NodeError::Address)?;
        let saved = Saved {
            listen_addr: addresses.listen,
            advertise_addr: addresses.advertise,
            data_path_addr: addresses.data_path,
            raft_id: identity::random_raft_id(),
        };
        match self.found(request, saved).await {
            Ok((started, node_id)) => {
                *running = Some(started);
                Ok(node_id)
            }
            Err(error) => {
                self.set(Current::default());
                if let Err(left) = self.folder.remove() {
                    tracing::error!(error = %left, "a swarm that could not be founded left files behind");
                }
                Err(error)
            }
        }
    }

    async fn found(&self, request: InitRequest, saved: Saved) -> Result<(Running, NodeId), NodeError> {
        self.folder.create()?;
        let founding = make_identity(&self.folder, request)?;
        let node_id = founding.node_id.clone();
        let kek = founding.unlock_key;
        let started = self.start(saved.clone(), Some(founding), kek).await?;
        let manager = self.current().manager.ok_or(NodeError::Incomplete("no manager"))?;
        let mut ready = manager.ready();
        let waited = tokio::time::timeout(FOUNDING_TIMEOUT, ready.wait_for(|ready| *ready)).await;
        let is_ready = matches!(waited, Ok(Ok(_)));
        drop(waited);
        let saved = if is_ready { self.folder.save(&saved).map_err(NodeError::from) } else { Err(NodeError::Timeout) };
        if let Err(error) = saved {
            started.agent.detach().await;
            manager.stop().await;
            return Err(error);
        }
        Ok((started, node_id))
    }

    /// `--force-new-cluster` of a lone manager: it starts again from what it has.
    async fn restart_alone(&self, running: &mut Option<Running>, current: Current) -> Result<NodeId, NodeError> {
        let manager = current.manager.clone().ok_or(NodeError::Incomplete("no manager"))?;
        if manager.status().borrow().members.len() > 1 {
            return Err(NodeError::OtherManagers);
        }
        if let Some(old) = running.take() {
            old.agent.detach().await;
        }
        self.set(Current::default());
        drop(current.manager);
        manager.stop().await;
        match self.start(current.saved.clone(), None, unlock_key_of(&manager)).await {
            Ok(started) => *running = Some(started),
            Err(error) => {
                self.failed(current.saved, &error);
                return Err(error);
            }
        }
        current.node_id.ok_or(NodeError::Incomplete("no node identifier"))
    }

    /// Opens a locked manager.
    pub async fn unlock(&self, key: &[u8; 32]) -> Result<(), UnlockError> {
        let mut running = self.running.lock().await;
        let current = self.current();
        if !current.locked {
            return Err(if running.is_some() || !current.error.is_empty() {
                UnlockError::NotLocked
            } else {
                UnlockError::NotInSwarm
            });
        }
        match self.start(current.saved.clone(), None, Some(*key)).await {
            Ok(started) => *running = Some(started),
            Err(NodeError::Disk(DiskError::Key(KeyFileError::WrongKey))) => return Err(UnlockError::WrongKey),
            Err(error) => {
                self.failed(current.saved, &error);
                return Err(UnlockError::Start(error));
            }
        }
        Ok(())
    }

    async fn start(
        &self,
        saved: Saved,
        founding: Option<Founding>,
        kek: Option<[u8; 32]>,
    ) -> Result<Running, NodeError> {
        let files = CertificateFiles::new(self.folder.path());
        let found = files.load(kek.as_ref())?;
        let identity = found.ok_or(NodeError::Incomplete("the node's certificate is missing"))?;
        let dek = identity.key.dek.ok_or(NodeError::Incomplete("the node's key file holds no raft key"))?;
        // One CA, so its certificate is the trust root and the issuer.
        let tls_info = identity::tls_info(&identity.root_pem, &identity.root_pem);
        let tls_info = tls_info.map_err(|error| NodeError::Identity(error.to_string()))?;
        let manager = Manager::start(ManagerConfig {
            node_id: identity.node_id.clone(),
            raft_id: saved.raft_id,
            advertise_addr: saved.advertise_addr.clone(),
            raft_folder: self.folder.raft(),
            dek,
            root_ca: identity.root_pem,
            seed: u64::from_le_bytes(identity::random_bytes()),
            founding,
        });
        let manager = Arc::new(manager.await?);
        let (connect, mut services) = local::serve(&manager, identity.node_id.clone());
        services.spawn(key_file::keep(manager.shared().watch(), files, identity.key, kek));
        let agent = agent::start(AgentConfig {
            node_id: identity.node_id.clone(),
            connect,
            executor: self.config.executor.clone(),
            tls_info: Some(tls_info),
            seed: u64::from_le_bytes(identity::random_bytes()),
        });
        self.set(Current {
            node_id: Some(identity.node_id),
            saved,
            manager: Some(manager),
            session: Some(agent.info()),
            ..Current::default()
        });
        Ok(Running { agent, _services: services })
    }

    /// Leaves the swarm: stops and removes its tasks, forgets its state.
    pub async fn leave(&self, mode: LeaveMode) -> Result<(), LeaveError> {
        let mut running = self.running.lock().await;
        let current = self.current();
        if running.is_none() && !current.locked && current.error.is_empty() {
            return Err(LeaveError::NotInSwarm);
        }
        if mode == LeaveMode::Safe {
            return Err(match &current.manager {
                Some(_) => LeaveError::LastManager,
                None if current.locked => LeaveError::Locked,
                None => LeaveError::InactiveManager,
            });
        }
        if let Some(old) = running.take() {
            old.agent.leave().await;
        }
        self.set(Current::default());
        if let Some(manager) = current.manager {
            manager.stop().await;
        }
        self.folder.remove()?;
        Ok(())
    }

    /// Ends manager and agent; tasks run on.
    pub async fn stop(&self) {
        let mut running = self.running.lock().await;
        let current = self.current();
        if let Some(old) = running.take() {
            old.agent.detach().await;
        }
        self.set(Current::default());
        if let Some(manager) = current.manager {
            manager.stop().await;
        }
    }

    /// The manager, if this node is one that runs.
    pub fn manager(&self) -> Option<Arc<Manager>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).manager.clone()
    }

    /// The manager as it comes and goes.
    pub fn managers(&self) -> watch::Receiver<Option<Arc<Manager>>> {
        self.managers.subscribe()
    }

    /// What this node is in the swarm.
    pub fn info(&self) -> NodeInfo {
        let current = self.current();
        let state = match (&current.manager, current.error.is_empty()) {
            _ if current.locked => NodeState::Locked,
            (_, false) => NodeState::Failed,
            (None, true) => NodeState::Inactive,
            (Some(manager), true) if *manager.ready().borrow() => NodeState::Active,
            (Some(_), true) => NodeState::Pending,
        };
        let advertise: Option<std::net::SocketAddr> = current.saved.advertise_addr.parse().ok();
        NodeInfo {
            state,
            node_id: current.node_id.map(|id| id.to_string()).unwrap_or_default(),
            advertise_ip: advertise.map(|addr| addr.ip().to_string()).unwrap_or_default(),
            advertise_addr: current.saved.advertise_addr,
            error: current.error,
            session: current.session.map(|session| session.borrow().clone()).unwrap_or_default(),
        }
    }
}

/// The founder's CA, certificate, keys and the objects that it will write.
fn make_identity(folder: &StateFolder, request: InitRequest) -> Result<Founding, NodeError> {
    let now = identity::system_now();
    let cluster_id = model::ClusterId::from(identity::random_id());
    let node_id = NodeId::from(identity::random_id());
    let root = RootAuthority::generate(now).map_err(|error| NodeError::Identity(error.to_string()))?;
    let life = request.spec.ca_config.node_cert_expiry;
    let issued = root.issue(&node_id, NodeRole::Manager, &cluster_id, life, now);
    let issued = issued.map_err(|error| NodeError::Identity(error.to_string()))?;
    let key = KeyFile { key_pem: issued.key_pem, dek: Some(identity::new_dek()), ..KeyFile::default() };
    let unlock_key = request.spec.encryption_config.auto_lock_managers.then(identity::new_kek);
    CertificateFiles::new(folder.path()).store(&root.cert_pem, &issued.cert_pem, &key, unlock_key.as_ref())?;
    let tokens = (identity::new_join_token(&root.cert_pem), identity::new_join_token(&root.cert_pem));
    Ok(Founding {
        cluster_id,
        node_id,
        availability: request.availability,
        spec: request.spec,
        ca_cert: root.cert_pem,
        ca_key: root.key_pem,
        join_tokens: tokens,
        default_address_pool: request.default_address_pool,
        subnet_size: if request.subnet_size == 0 { 24 } else { request.subnet_size },
        data_path_port: request.data_path_port,
        unlock_key,
    })
}
