//! Starts and stops a manager: raft, store, leader's loop, dispatcher, log broker.

use std::path::PathBuf;
use std::sync::Arc;

use consensus::{Beginning, SnapshotPolicy};
use model::{Node, NodeId, Reachability};
use swarm_proto::swarmkit as p;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::control::Control;
use crate::dispatcher::{Dispatcher, ManagerIdentity};
use crate::founding::Founding;
use crate::leader::LeaderLoop;
use crate::log_broker::LogBroker;
use crate::machine::{RaftLog, StoreMachine};
use crate::shared::Shared;
use crate::writer::Writer;

/// Entries between snapshots when the cluster does not say.
const SNAPSHOT_INTERVAL: u64 = 10_000;
/// Entries kept for slow followers when the cluster does not say.
const KEEP_ENTRIES: u64 = 500;

/// What a manager is started with.
pub struct ManagerConfig {
    /// This node.
    pub node_id: NodeId,
    /// Its number in the raft group.
    pub raft_id: u64,
    /// Where nodes reach this manager, `host:port`.
    pub advertise_addr: String,
    /// Folder of log and snapshots.
    pub raft_folder: PathBuf,
    /// Key of log and snapshots.
    pub dek: [u8; 32],
    /// The trust root, PEM.
    pub root_ca: Vec<u8>,
    /// Seed of every choice that is made at random.
    pub seed: u64,
    /// Begins a new cluster: the raft folder must be empty. Given again after a crash it is used only if the store is
    /// still empty.
    pub founding: Option<Founding>,
}

/// Why a manager could not start.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Raft could not start.
    #[error("manager could not start")]
    Consensus(#[from] consensus::StartError),
    /// The thread that starts it died.
    #[error("manager could not start: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// A running manager.
pub struct Manager {
    shared: Arc<Shared>,
    writer: Arc<Writer>,
    control: Control,
    dispatcher: Arc<Dispatcher>,
    log_broker: Arc<LogBroker>,
    raft: Arc<consensus::Handle>,
    ready: watch::Receiver<bool>,
    node_id: NodeId,
    /// Ended by [`Manager::stop`] or with the manager.
    loops: std::sync::Mutex<JoinSet<()>>,
}

impl Manager {
    /// Starts on what is on disk. Returns when raft runs, not when there is a leader.
    pub async fn start(config: ManagerConfig) -> Result<Self, ManagerError> {
        let shared = Arc::new(Shared::default());
        let machine = StoreMachine::new(shared.clone());
        let raft_config = raft_config(&config);
        let runtime = tokio::runtime::Handle::current();
        let raft = tokio::task::spawn_blocking(move || {
            consensus::start(raft_config, Box::new(machine), Arc::new(NoPeers), &runtime)
        });
        let raft = Arc::new(raft.await??);
        let log = Arc::new(RaftLog(raft.clone()));
        // Requests of different runs must not share an identifier; SwarmKit draws them from a clock, too.
        let first_request = config.seed & (u64::MAX >> 1);
        let writer = Arc::new(Writer::new(shared.clone(), log, first_request));
        let identity = ManagerIdentity {
            node_id: config.node_id.clone(),
            advertise_addr: config.advertise_addr,
            root_ca: config.root_ca,
        };
        let (dispatcher, mut loops) = Dispatcher::start(writer.clone(), identity, raft.status(), config.seed);
        let (ready_sender, ready) = watch::channel(false);
        let leader = LeaderLoop {
            writer: writer.clone(),
            dispatcher: dispatcher.clone(),
            status: raft.status(),
            founding: config.founding,
            ready: ready_sender,
        };
        loops.spawn(leader.run());
        Ok(Self {
            control: Control::new(writer.clone()),
            log_broker: LogBroker::new(shared.clone()),
            node_id: config.node_id,
            shared,
            writer,
            dispatcher,
            raft,
            ready,
            loops: std::sync::Mutex::new(loops),
        })
    }

    /// The committed state and its changes.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Writes of the control API.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The dispatcher.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    /// The log broker.
    pub fn log_broker(&self) -> &Arc<LogBroker> {
        &self.log_broker
    }

    /// Where the raft group stands.
    pub fn status(&self) -> watch::Receiver<consensus::Status> {
        self.raft.status()
    }

    /// Whether this manager leads and its first writes are committed.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Puts the live member list's view of a manager into its node object, as SwarmKit does when it is read.
    pub fn fill_manager_status(&self, node: &mut Node) {
        let status = self.raft.status();
        let status = status.borrow();
        let Some(member) = status.members.values().find(|member| member.node_id == node.id.as_str()) else { return };
        let reachable = node.id == self.node_id || status.leader != 0;
        node.manager_status = Some(model::ManagerStatus {
            raft_id: model::RaftId(member.raft_id),
            addr: member.addr.clone(),
            leader: status.leader == member.raft_id,
            reachability: if reachable { Reachability::Reachable } else { Reachability::Unreachable },
        });
    }

    /// Ends loops, sessions and the log; what was acknowledged is on disk. Others may still hold the manager: their
    /// writes are refused from now on.
    pub async fn stop(&self) {
        self.writer.end();
        self.dispatcher.end();
        self.loops.lock().unwrap_or_else(std::sync::PoisonError::into_inner).abort_all();
        let raft = self.raft.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || raft.stop()).await {
            tracing::error!(%error, "raft did not stop in order");
        }
    }
}

/// A manager alone reaches nobody.
struct NoPeers;

#[tonic::async_trait]
impl consensus::Dial for NoPeers {
    async fn dial(&self, addr: &str) -> Result<tonic::transport::Channel, consensus::DialError> {
        Err(consensus::DialError { addr: addr.to_owned(), source: "this manager is alone".into() })
    }
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
        beginning: if config.founding.is_some() { Beginning::Found } else { Beginning::Restart },
        dek: consensus::Dek::new(&config.dek),
        old_dek: None,
        seed: config.seed,
        timing: consensus::Timing::SWARMKIT,
        snapshots: SnapshotPolicy { interval: SNAPSHOT_INTERVAL, keep_entries: KEEP_ENTRIES },
    }
}
