//! Starts and stops a manager: raft, store, leader's loop and duties, dispatcher, log broker, and the gRPC services in
//! front of them.

use std::path::PathBuf;
use std::sync::Arc;

use identity::{Credentials, ServerRole};
use model::{Node, NodeId, NodeRole};
use swarm_proto::swarmkit as p;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::Channel;

use crate::allowance::Allowances;
use crate::ca::CaService;
use crate::control::{Control, LocalControl, fill_manager_status};
use crate::control_service::ControlService;
use crate::dispatcher::{Dispatcher, ManagerIdentity};
use crate::duties::Duties;
use crate::error::ControlError;
use crate::founding::Founding;
use crate::gate::{GateKeeper, GuestPlaces};
use crate::health::HealthService;
use crate::leader::LeaderLoop;
use crate::leadership::{self, Leadership};
use crate::log_broker::LogBroker;
use crate::machine::{RaftLog, StoreMachine};
use crate::membership::MembershipService;
use crate::resource_allocator::ResourceAllocatorService;
use crate::routes::{self, OwnRaftService, Services};
use crate::shared::{Shared, Watch};
use crate::timing::Timing;
use crate::tuning;
use crate::writer::Writer;

/// How a manager begins.
#[derive(Clone, Debug)]
pub enum Beginning {
    /// A new cluster. Given again after a crash it goes on with what is there.
    Found(Box<Founding>),
    /// From its log.
    Restart,
    /// As the member that the group's leader took by its answer to `Join`.
    Join {
        /// All members that the answer names.
        members: Vec<p::RaftMember>,
    },
    /// From its log, alone: all other managers are removed from the group.
    ForceNewCluster,
}

impl Beginning {
    /// What a founder writes.
    fn founding(self) -> Option<Founding> {
        match self {
            Self::Found(founding) => Some(*founding),
            Self::Restart | Self::Join { .. } | Self::ForceNewCluster => None,
        }
    }
}

/// What a manager is started with.
pub struct ManagerConfig {
    /// This node.
    pub node_id: NodeId,
    /// Its number in the raft group; the answer to `Join` gives a joiner's.
    pub raft_id: u64,
    /// Where nodes reach this manager, `host:port`.
    pub advertise_addr: String,
    /// Folder of log and snapshots.
    pub raft_folder: PathBuf,
    /// Key of log and snapshots: of all that is written.
    pub dek: [u8; 32],
    /// The key before it, while what it sealed is still on disk.
    pub old_dek: Option<[u8; 32]>,
    /// The node's live TLS identity.
    pub credentials: Credentials,
    /// Seed of every choice that is made at random.
    pub seed: u64,
    /// How it begins.
    pub beginning: Beginning,
}

/// Why a manager could not start.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Raft could not start.
    #[error("manager could not start")]
    Consensus(#[from] consensus::StartError),
    /// The node has no certificate.
    #[error("manager could not start: this node has no certificate")]
    NoCertificate,
    /// The thread that starts it died.
    #[error("manager could not start: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// A running manager.
pub struct Manager {
    shared: Arc<Shared>,
    writer: Arc<Writer>,
    control: Control,
    services: Services,
    raft: Arc<consensus::Handle>,
    /// The last index of the log that it was started on.
    log_found: u64,
    /// From before the first commit, for the first who asks.
    news: std::sync::Mutex<Option<Watch>>,
    leadership: Arc<Leadership>,
    ready: watch::Receiver<bool>,
    timing: watch::Receiver<Timing>,
    /// Ended by [`Manager::stop`] or with the manager.
    loops: std::sync::Mutex<JoinSet<()>>,
}

impl Manager {
    /// Starts on what is on disk, or as its beginning says. Returns when raft runs, not when there is a leader.
    pub async fn start(config: ManagerConfig) -> Result<Self, ManagerError> {
        let credentials = config.credentials.clone();
        let certificate = credentials.current().node.clone().ok_or(ManagerError::NoCertificate)?;
        let shared = Arc::new(Shared::default());
        let raft = start_raft(&config, &shared).await?;
        let log_found = raft.last_index();
        let news = std::sync::Mutex::new(Some(shared.watch()));
        // Requests of different runs must not share an identifier; SwarmKit draws them from a clock, too.
        let first_request = config.seed & (u64::MAX >> 1);
        let writer = Arc::new(Writer::new(shared.clone(), Arc::new(RaftLog(raft.clone())), first_request));
        let identity = ManagerIdentity {
            node_id: config.node_id.clone(),
            advertise_addr: config.advertise_addr,
            root_ca: credentials.current().roots.pem().to_vec(),
        };
        let (dispatcher, mut loops) = Dispatcher::start(writer.clone(), identity, raft.status(), config.seed);
        let (ready_sender, ready) = watch::channel(false);
        let founding = config.beginning.founding();
        let duties = Duties { writer: writer.clone(), raft: raft.clone(), credentials: credentials.clone() };
        let leader = LeaderLoop {
            writer: writer.clone(),
            dispatcher: dispatcher.clone(),
            status: raft.status(),
            duties,
            founding,
            ready: ready_sender,
        };
        loops.spawn(leader.run());
        let (timing_sender, timing) = watch::channel(Timing::SwarmKit);
        loops.spawn(tuning::run(shared.clone(), raft.clone(), timing_sender));
        let (clock, leaderless_since) = leadership::clock();
        loops.spawn(leadership::run_clock(raft.status(), clock));
        let leadership = Arc::new(Leadership::new(raft.status(), ready.clone(), leaderless_since, credentials.clone()));
        let cluster_id = certificate.identity().cluster_id.clone();
        let control = LocalControl::new(writer.clone(), raft.status(), credentials.clone());
        let log_broker = LogBroker::new(shared.clone(), leadership.clone(), ready.clone());
        loops.spawn(log_broker.clone().run());
        let keeper = GateKeeper {
            node_id: config.node_id.clone(),
            cluster_id,
            shared: shared.clone(),
            leadership: leadership.clone(),
            guests: GuestPlaces::default(),
            allowances: Allowances::default(),
        };
        let services = Services {
            keeper: Arc::new(keeper),
            dispatcher,
            log_broker,
            control: ControlService::new(control.clone()),
            allocator: ResourceAllocatorService::new(writer.clone()),
            ca: CaService::new(writer.clone()),
            membership: MembershipService::new(writer.clone(), raft.clone(), credentials.clone()),
            health: HealthService { status: raft.status() },
            raft: Arc::new(OwnRaftService::new(raft.clone(), routes::let_managers_in)),
        };
        Ok(Self {
            control: Control::new(control, leadership.clone()),
            services,
            shared,
            writer,
            raft,
            log_found,
            news,
            leadership,
            ready,
            timing,
            loops: std::sync::Mutex::new(loops),
        })
    }

    /// The committed state and its changes.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The committed state and its changes: for the first who asks since this manager started, so that nobody needs to be
    /// quicker than a founder's first commits to hear of them.
    pub fn news(&self) -> Watch {
        let first = self.news.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        first.unwrap_or_else(|| self.shared.watch())
    }

    /// The last index of the log that was on the disk at the start: commits up to it are no news.
    pub fn log_found(&self) -> u64 {
        self.log_found
    }

    /// Waits until somebody leads, for as long as SwarmKit does; an error when nobody does.
    pub async fn await_leader(&self) -> Result<(), ControlError> {
        self.control.await_leader().await
    }

    /// What calls fail with at present because nobody leads; does not wait.
    pub fn leader_missing(&self) -> Option<ControlError> {
        self.leadership.missing()
    }

    /// Writes of the control API.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// All gRPC services of port 2377, each method behind its role check. Whoever serves them puts an
    /// [`identity::PeerInfo`] into each request's extensions: without one a caller is a stranger.
    pub fn remote_routes(&self) -> Routes {
        self.services.remote()
    }

    /// The services for this node's own agent, over a pipe that nobody else can reach: the caller is this node.
    pub fn local_routes(&self) -> Routes {
        self.services.local()
    }

    /// The dispatcher.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.services.dispatcher
    }

    /// The log broker.
    pub fn log_broker(&self) -> &Arc<LogBroker> {
        &self.services.log_broker
    }

    /// Where the raft group stands.
    pub fn status(&self) -> watch::Receiver<consensus::Status> {
        self.raft.status()
    }

    /// Whether this manager leads and its first writes are committed.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// How fast this manager misses its leader.
    pub fn timing(&self) -> watch::Receiver<Timing> {
        self.timing.clone()
    }

    /// Ready when this manager is no member of the raft group any more: it was demoted, or its node removed.
    pub fn removed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut status = self.raft.status();
        async move {
            if status.wait_for(|status| status.removed_from_group).await.is_err() {
                // Raft ended otherwise.
                std::future::pending().await
            }
        }
    }

    /// Seals log and snapshots with another key from now on. It must be in the key file as the pending one already; when
    /// this returns, the old one is needed no more.
    pub async fn rotate_dek(&self, dek: &[u8; 32]) -> Result<(), consensus::RotateError> {
        self.raft.rotate_dek(consensus::Dek::new(dek)).await
    }

    /// Puts the live member list's view of a manager into its node object, as SwarmKit does when it is read.
    pub fn fill_manager_status(&self, node: &mut Node) {
        fill_manager_status(&self.raft.status().borrow(), node);
    }

    /// As [`Self::fill_manager_status`], with what the leader knows where that is another manager.
    pub async fn fill_manager_statuses(&self, nodes: &mut [Node]) -> Result<(), ControlError> {
        if nodes.iter().all(|node| node.role != NodeRole::Manager) {
            return Ok(());
        }
        match self.control.leaders_manager_statuses().await? {
            None => nodes.iter_mut().for_each(|node| self.fill_manager_status(node)),
            Some(mut statuses) => nodes.iter_mut().for_each(|node| node.manager_status = statuses.remove(&node.id)),
        }
        Ok(())
    }

    /// Ends loops, sessions and the log; what was acknowledged is on disk. Others may still hold the manager: their
    /// writes are refused from now on.
    pub async fn stop(&self) {
        self.writer.end();
        self.services.dispatcher.end();
        self.loops.lock().unwrap_or_else(std::sync::PoisonError::into_inner).abort_all();
        let raft = self.raft.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || raft.stop()).await {
            tracing::error!(%error, "raft did not stop in order");
        }
    }
}

async fn start_raft(config: &ManagerConfig, shared: &Arc<Shared>) -> Result<Arc<consensus::Handle>, ManagerError> {
    let machine = StoreMachine::new(shared.clone());
    let raft_config = raft_config(config);
    let dial = Arc::new(ManagerDial(config.credentials.clone()));
    let runtime = tokio::runtime::Handle::current();
    // Reads the whole log.
    let started =
        tokio::task::spawn_blocking(move || consensus::start(raft_config, Box::new(machine), dial, &runtime)).await?;
    Ok(Arc::new(started?))
}

fn raft_config(config: &ManagerConfig) -> consensus::Config {
    consensus::Config {
        folder: config.raft_folder.clone(),
        member: p::RaftMember {
            raft_id: config.raft_id,
            node_id: config.node_id.to_string(),
            addr: config.advertise_addr.clone(),
            status: None,
        },
        beginning: match &config.beginning {
            Beginning::Found(_) => consensus::Beginning::Found,
            Beginning::Restart => consensus::Beginning::Restart,
            Beginning::Join { members } => consensus::Beginning::Join { members: members.clone() },
            Beginning::ForceNewCluster => consensus::Beginning::ForceNewCluster,
        },
        dek: consensus::Dek::new(&config.dek),
        old_dek: config.old_dek.as_ref().map(consensus::Dek::new),
        seed: config.seed,
        timing: consensus::Timing::SWARMKIT,
        snapshots: tuning::snapshots(&store::View::new()),
    }
}

/// Calls other managers as this node.
struct ManagerDial(Credentials);

#[async_trait::async_trait]
impl consensus::Dial for ManagerDial {
    async fn dial(&self, addr: &str) -> Result<Channel, consensus::DialError> {
        let connected = identity::connect(addr, ServerRole::Manager, &self.0).await;
        connected.map_err(|error| consensus::DialError { addr: addr.to_owned(), source: Box::new(error) })
    }
}
