//! The node: founds, joins, starts, leaves. Transitions happen one at a time; readers see the last finished one.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use agent::{Executor, SessionInfo};
use identity::{CertificateFiles, DiskError, Expiry, KeyFile, KeyFileError, RootAuthority, system_now};
use manager::{Beginning, Founding, Manager};
use model::{ClusterSpec, NodeAvailability, NodeId, NodeRole};
use tokio::sync::{Mutex, watch};

use crate::address::{self, Addresses, Wanted};
use crate::error::{LeaveError, NodeError, StartError, UnlockError, chain};
use crate::joining::{self, Joining};
use crate::keeper::{Keeper, KeeperError};
use crate::leaving::{LeaveMode, Managers, Standing, may_leave};
use crate::life::{Ending, Life, Running, Start, expiry};
use crate::remotes::RemoteManager;
use crate::state::{Saved, StateFolder};

/// How long init, join and unlock wait for the swarm. dockerd's.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the start of the engine waits for the manager to read its log, so that whoever comes first finds the swarm.
const LOG_PATIENCE: Duration = Duration::from_secs(5);
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

/// How to join a swarm.
#[derive(Clone, Debug, Default)]
pub struct JoinRequest {
    /// IP address or interface, with optional port.
    pub listen_addr: String,
    /// IP address or interface, with optional port; empty: as the managers see it.
    pub advertise_addr: String,
    /// IP address or interface; empty: as advertised.
    pub data_path_addr: String,
    /// Managers, `host:port`.
    pub remote_addrs: Vec<String>,
    /// `SWMTKN-1-…`.
    pub join_token: String,
    /// Availability of this node.
    pub availability: NodeAvailability,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// In no swarm.
    #[default]
    Inactive,
    /// Joining, or in a swarm and not heard of yet in this run.
    Pending,
    /// In a swarm.
    Active,
    /// In a swarm, but could not start, or its manager could not.
    Failed,
    /// In a swarm, but its certificate has expired.
    Expired,
    /// In a swarm, its manager waits for the unlock key.
    Locked,
}

/// What a node tells of itself.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Where it stands.
    pub state: NodeState,
    /// What it is by its certificate; a worker outside a swarm.
    pub role: NodeRole,
    /// Its identifier; empty outside a swarm.
    pub node_id: String,
    /// The swarm's; empty outside one.
    pub cluster_id: String,
    /// The IP address that others are told; empty outside a swarm.
    pub advertise_ip: String,
    /// Where its manager is reached, `host:port`; empty outside a swarm.
    pub advertise_addr: String,
    /// Managers that it knows.
    pub managers: Vec<RemoteManager>,
    /// Why it failed.
    pub error: String,
    /// Last session of its agent.
    pub session: SessionInfo,
}

/// What this node is doing. Owned by whoever holds the lock.
pub(crate) enum Stage {
    /// In no swarm.
    Out,
    /// Asking for its first certificate.
    Joining(Joining),
    /// In a swarm.
    In(Box<Running>),
    /// In a swarm, its key file locked.
    Locked(Saved),
    /// In a swarm, and could not start.
    Failed(Saved),
}

/// What readers see.
#[derive(Clone, Default)]
pub(crate) enum Shown {
    #[default]
    Out,
    Joining(Saved),
    In(Arc<Life>, watch::Receiver<SessionInfo>),
    Locked(Saved),
    Failed(Saved, NodeState, String),
}

/// This machine in the swarm.
pub struct SwarmNode(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: NodeConfig,
    pub(crate) folder: StateFolder,
    pub(crate) stage: Mutex<Stage>,
    shown: RwLock<Shown>,
    managers: watch::Sender<Option<Arc<Manager>>>,
}

impl Inner {
    pub(crate) fn show(&self, shown: Shown) {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    pub(crate) fn shown(&self) -> Shown {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn files(&self) -> CertificateFiles {
        CertificateFiles::new(self.folder.path())
    }

    /// Starts to live with this identity.
    pub(crate) async fn live(
        &self,
        keeper: Keeper,
        saved: Saved,
        beginning: Option<Beginning>,
    ) -> Result<Running, StartError> {
        let start = Start {
            config: self.config.clone(),
            folder: self.folder.clone(),
            keeper,
            saved,
            beginning,
            managers: self.managers.clone(),
        };
        let running = Running::start(start).await?;
        self.show(Shown::In(running.life.clone(), running.session.clone()));
        Ok(running)
    }

    /// A life that could not start; the state stays.
    pub(crate) fn failed(&self, saved: Saved, error: &NodeError) -> Stage {
        let text = chain(error);
        tracing::error!(error = text, "this node's swarm could not be started");
        let expired = matches!(
            error,
            NodeError::Start(StartError::Keeper(KeeperError::Chain(identity::ChainError::Expired { .. })))
        );
        let state = if expired { NodeState::Expired } else { NodeState::Failed };
        self.show(Shown::Failed(saved.clone(), state, text));
        Stage::Failed(saved)
    }

    /// Forgets the swarm.
    pub(crate) fn forget(&self) -> Result<(), crate::state::StateError> {
        self.show(Shown::Out);
        self.folder.remove()
    }

    pub(crate) fn addresses(&self, wanted: &Wanted<'_>) -> Result<Addresses, NodeError> {
        let local = address::local_addresses().map_err(NodeError::Address)?;
        address::resolve(wanted, &local).map_err(NodeError::Address)
    }
}

impl SwarmNode {
    /// Starts what this node was. A swarm that cannot be started is told by [`SwarmNode::info`]: the engine must come up
    /// all the same.
    pub async fn open(config: NodeConfig) -> Self {
        let folder = StateFolder::new(config.folder.clone());
        let inner = Arc::new(Inner {
            config,
            folder,
            stage: Mutex::new(Stage::Out),
            shown: RwLock::default(),
            managers: watch::channel(None).0,
        });
        let mut stage = inner.stage.lock().await;
        *stage = match inner.folder.load() {
            Ok(None) => Stage::Out,
            Ok(Some(_)) if !inner.files().exists() => {
                tracing::warn!("this node had begun to join a swarm and has no certificate: it is in none");
                if let Err(error) = inner.forget() {
                    tracing::error!(error = chain(&error), "the state of a swarm could not be removed");
                }
                Stage::Out
            }
            Ok(Some(saved)) => inner.reopen(saved).await,
            Err(error) => inner.failed(Saved::default(), &error.into()),
        };
        drop(stage);
        Self(inner)
    }

    /// Founds a swarm and returns when its manager answers.
    pub async fn init(&self, request: InitRequest) -> Result<NodeId, NodeError> {
        let inner = &self.0;
        let mut stage = inner.stage.lock().await;
        let in_swarm = !matches!(*stage, Stage::Out);
        if in_swarm && !request.force_new_cluster {
            return Err(NodeError::InSwarm);
        }
        if request.data_path_port != 0 && !DATA_PATH_PORTS.contains(&request.data_path_port) {
            return Err(NodeError::DataPathPort(request.data_path_port));
        }
        let addresses = inner.addresses(&Wanted {
            listen: &request.listen_addr,
            advertise: &request.advertise_addr,
            default_advertise: &inner.config.default_advertise_addr,
            data_path: &request.data_path_addr,
        })?;
        if in_swarm {
            return inner.alone(&mut stage, addresses).await;
        }
        let saved = Saved {
            listen_addr: addresses.listen,
            advertise_addr: addresses.advertise,
            data_path_addr: addresses.data_path,
            default_address_pool: Some(request.default_address_pool.clone()),
            subnet_size: request.subnet_size,
            data_path_port: request.data_path_port,
            raft_id: identity::random_raft_id(),
            ..Saved::default()
        };
        match inner.found(request, saved).await {
            Ok(running) => {
                let node_id = running.life.keeper.node_id();
                *stage = Stage::In(Box::new(running));
                Ok(node_id)
            }
            Err(error) => {
                if let Err(left) = inner.forget() {
                    tracing::error!(error = chain(&left), "a swarm that could not be founded left files behind");
                }
                Err(error)
            }
        }
    }

    /// Joins a swarm. Waits for some time; after that the join goes on in the background.
    pub async fn join(&self, request: JoinRequest) -> Result<(), NodeError> {
        joining::join(&self.0, request).await
    }

    /// Opens a locked manager, and waits for some time until it answers.
    pub async fn unlock(&self, key: &[u8; 32]) -> Result<(), UnlockError> {
        let inner = &self.0;
        let mut stage = inner.stage.lock().await;
        let saved = match &*stage {
            Stage::Locked(saved) => saved.clone(),
            Stage::Out => return Err(UnlockError::NotInSwarm),
            _ => return Err(UnlockError::NotLocked),
        };
        let mut readiness = match inner.resume(saved.clone(), Some(*key)).await {
            Ok(running) => {
                let readiness = running.readiness();
                *stage = Stage::In(Box::new(running));
                readiness
            }
            Err(NodeError::Start(StartError::Keeper(KeeperError::Disk(DiskError::Key(KeyFileError::WrongKey))))) => {
                return Err(UnlockError::WrongKey);
            }
            Err(error) => {
                *stage = inner.failed(saved, &error);
                return Err(UnlockError::Start(error));
            }
        };
        drop(stage);
        match tokio::time::timeout(CONNECT_TIMEOUT, readiness.ready()).await {
            Ok(Err(error)) => Err(UnlockError::Start(NodeError::Manager(error))),
            // It is open; that the others do not answer is seen in its state.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Leaves the swarm: stops and removes its tasks, tells a manager, forgets its state.
    pub async fn leave(&self, mode: LeaveMode) -> Result<(), LeaveError> {
        let inner = &self.0;
        let mut stage = inner.stage.lock().await;
        let standing = match &*stage {
            Stage::Out => return Err(LeaveError::NotInSwarm),
            Stage::Locked(_) => Standing::Locked,
            Stage::Joining(_) => Standing::Worker,
            Stage::In(running) => running.life.leave_standing(),
            Stage::Failed(_) => inner.failed_standing(),
        };
        may_leave(mode, standing)?;
        match std::mem::replace(&mut *stage, Stage::Out) {
            Stage::In(running) => running.end(Ending::Leave).await,
            Stage::Joining(joining) => joining.end().await,
            Stage::Out | Stage::Locked(_) | Stage::Failed(_) => {}
        }
        inner.forget()?;
        Ok(())
    }

    /// Ends manager and agent; tasks run on.
    pub async fn stop(&self) {
        let mut stage = self.0.stage.lock().await;
        match std::mem::replace(&mut *stage, Stage::Out) {
            Stage::In(running) => running.end(Ending::Detach).await,
            Stage::Joining(joining) => joining.end().await,
            Stage::Out | Stage::Locked(_) | Stage::Failed(_) => {}
        }
        self.0.show(Shown::Out);
    }

    /// The manager, if this node is one that runs.
    pub fn manager(&self) -> Option<Arc<Manager>> {
        self.0.managers.borrow().clone()
    }

    /// The manager as it comes and goes.
    pub fn managers(&self) -> watch::Receiver<Option<Arc<Manager>>> {
        self.0.managers.subscribe()
    }

    /// What this node is in the swarm.
    pub fn info(&self) -> NodeInfo {
        match self.0.shown() {
            Shown::Out => NodeInfo::default(),
            Shown::Joining(saved) => NodeInfo { state: NodeState::Pending, ..addresses_of(&saved) },
            Shown::Locked(saved) => NodeInfo { state: NodeState::Locked, ..addresses_of(&saved) },
            Shown::Failed(saved, state, error) => NodeInfo { state, error, ..addresses_of(&saved) },
            Shown::In(life, session) => life.info(session.borrow().clone()),
        }
    }
}

impl Life {
    fn info(&self, session: SessionInfo) -> NodeInfo {
        let role = self.keeper.role();
        let standing = self.standing.borrow().clone();
        let expired = expiry(&self.keeper);
        let ready = if role == NodeRole::Manager { standing.ready } else { session.registered };
        let state = match (&expired, &standing.error) {
            (Some(_), _) => NodeState::Expired,
            (None, Some(_)) => NodeState::Failed,
            (None, None) if ready => NodeState::Active,
            (None, None) => NodeState::Pending,
        };
        let error = match (expired, standing.error) {
            (Some(error), _) => error.to_string(),
            (None, Some(error)) => chain(&*error),
            (None, None) => String::new(),
        };
        NodeInfo {
            state,
            role,
            node_id: self.keeper.node_id().to_string(),
            cluster_id: self.keeper.cluster_id().to_string(),
            managers: self.broker.managers(),
            error,
            session,
            ..addresses_of(&self.saved())
        }
    }

    fn leave_standing(&self) -> Standing {
        if self.keeper.role() == NodeRole::Worker {
            return Standing::Worker;
        }
        let standing = self.standing.borrow().clone();
        let Some(manager) = standing.manager.filter(|_| standing.ready) else { return Standing::InactiveManager };
        let view = manager.shared().view();
        let mut nodes: Vec<_> = view.nodes().map(|node| model::Node::clone(node)).collect();
        nodes.iter_mut().for_each(|node| manager.fill_manager_status(node));
        Standing::ActiveManager(Managers::count(nodes.iter(), &self.keeper.node_id()))
    }
}

fn addresses_of(saved: &Saved) -> NodeInfo {
    let advertise: Option<SocketAddr> = saved.advertise_addr.parse().ok();
    NodeInfo {
        advertise_ip: advertise.map_or_else(|| saved.local_addr.clone(), |addr| addr.ip().to_string()),
        advertise_addr: saved.advertise_addr.clone(),
        ..NodeInfo::default()
    }
}

impl Inner {
    /// Comes back after a restart of the daemon.
    async fn reopen(&self, saved: Saved) -> Stage {
        match self.resume(saved.clone(), None).await {
            Ok(running) => {
                // A manager that goes on from its log is up in a moment, unless the log is large; one that has yet to join
                // may wait for long.
                if running.life.keeper.role() == NodeRole::Manager && self.folder.has_raft_log() {
                    let started = tokio::time::timeout(LOG_PATIENCE, running.readiness().started()).await;
                    if started.is_err() {
                        tracing::info!("the manager still reads its log; the engine does not wait for it");
                    }
                }
                Stage::In(Box::new(running))
            }
            Err(NodeError::Start(StartError::Keeper(KeeperError::Disk(DiskError::Key(KeyFileError::Locked))))) => {
                tracing::info!("this node's manager waits for its unlock key");
                self.show(Shown::Locked(saved.clone()));
                Stage::Locked(saved)
            }
            Err(error) => self.failed(saved, &error),
        }
    }

    async fn resume(&self, saved: Saved, kek: Option<[u8; 32]>) -> Result<Running, NodeError> {
        let keeper = Keeper::open(self.files(), kek, Expiry::Refuse)?;
        Ok(self.live(keeper, saved, None).await?)
    }

    async fn found(&self, request: InitRequest, saved: Saved) -> Result<Running, NodeError> {
        self.folder.create()?;
        let kek = request.spec.encryption_config.auto_lock_managers.then(identity::new_kek);
        let founding = make_identity(&self.files(), request, kek)?;
        let keeper = Keeper::open(self.files(), kek, Expiry::Refuse)?;
        let running = self.live(keeper, saved.clone(), Some(Beginning::Found(Box::new(founding)))).await?;
        let ready = match tokio::time::timeout(CONNECT_TIMEOUT, running.readiness().ready()).await {
            Ok(Ok(())) => self.folder.save(&saved).map_err(NodeError::from),
            Ok(Err(error)) => Err(NodeError::Manager(error)),
            Err(_) => Err(NodeError::Timeout),
        };
        match ready {
            Ok(()) => Ok(running),
            Err(error) => {
                running.end(Ending::Detach).await;
                Err(error)
            }
        }
    }

    /// `--force-new-cluster`: this manager goes on alone from what it has, even with an expired certificate.
    async fn alone(&self, stage: &mut Stage, addresses: Addresses) -> Result<NodeId, NodeError> {
        if !self.folder.has_raft_log() {
            return Err(NodeError::NoManagerState);
        }
        let (saved, kek) = match &*stage {
            Stage::In(running) => (running.life.saved(), running.life.keeper.kek()),
            Stage::Failed(saved) => (saved.clone(), None),
            Stage::Out | Stage::Joining(_) | Stage::Locked(_) => return Err(NodeError::InSwarm),
        };
        if let Stage::In(running) = std::mem::replace(stage, Stage::Failed(saved.clone())) {
            running.end(Ending::Detach).await;
        }
        let saved = Saved {
            listen_addr: addresses.listen,
            advertise_addr: addresses.advertise,
            data_path_addr: addresses.data_path,
            join_in_progress: false,
            ..saved
        };
        let started = async {
            let keeper = Keeper::open(self.files(), kek, Expiry::Allow)?;
            self.folder.save(&saved)?;
            Ok::<_, NodeError>(self.live(keeper, saved.clone(), Some(Beginning::ForceNewCluster)).await?)
        };
        let running = match started.await {
            Ok(running) => running,
            Err(error) => {
                *stage = self.failed(saved, &error);
                return Err(error);
            }
        };
        let (node_id, mut readiness) = (running.life.keeper.node_id(), running.readiness());
        *stage = Stage::In(Box::new(running));
        match tokio::time::timeout(CONNECT_TIMEOUT, readiness.ready()).await {
            Ok(Ok(())) => Ok(node_id),
            Ok(Err(error)) => Err(NodeError::Manager(error)),
            Err(_) => Err(NodeError::Timeout),
        }
    }

    /// A node that could not start leaves freely if it was a worker, or if its certificate has expired: the way back is
    /// to join again. A manager's state is not thrown away unasked.
    fn failed_standing(&self) -> Standing {
        let expired = matches!(self.shown(), Shown::Failed(_, NodeState::Expired, _));
        if expired || !self.folder.has_raft_log() { Standing::Worker } else { Standing::InactiveManager }
    }
}

/// This machine's address on the way to another; empty if there is none.
pub(crate) fn local_address_towards(remote: &str) -> String {
    let towards = |from: &str| {
        let socket = UdpSocket::bind(from)?;
        // Nothing is sent: the kernel only chooses a route.
        socket.connect(remote)?;
        socket.local_addr()
    };
    let found = towards("0.0.0.0:0").or_else(|_| towards("[::]:0"));
    found.map(|addr| addr.ip().to_string()).unwrap_or_default()
}

/// The founder's CA, certificate, keys and the objects that it will write.
fn make_identity(files: &CertificateFiles, request: InitRequest, kek: Option<[u8; 32]>) -> Result<Founding, NodeError> {
    let made = |error: &dyn std::error::Error| NodeError::Identity(chain(error));
    let cluster_id = model::ClusterId::from(identity::random_id());
    let node_id = NodeId::from(identity::random_id());
    let now = system_now();
    let root = RootAuthority::generate(now).map_err(|error| made(&error))?;
    let life = request.spec.ca_config.node_cert_expiry;
    let issued = root.issue(&node_id, NodeRole::Manager, &cluster_id, life, now).map_err(|error| made(&error))?;
    let key = KeyFile { key_pem: issued.key_pem, dek: Some(identity::new_dek()), ..KeyFile::default() };
    files.store(&root.cert_pem, &issued.cert_pem, &key, kek.as_ref()).map_err(KeeperError::from)?;
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
        unlock_key: kek,
    })
}
