//! The shell around the raft core: one thread owns core and state machine. What comes in goes to the core in batches;
//! what comes out goes to the disk's thread, to the peers and to the state machine.
//!
//! ```text
//!  Handle, peers ──► inbox ──► raft thread: Core ──► messages ──► transport ──► peers
//!                      ▲                     │ └──► committed ──► StateMachine ──► acknowledged
//!                      └── Persisted(n) ◄── disk thread: seal, append, fdatasync ◄──┘ records
//! ```
//!
//! The leader sends entries before they are on its own disk; what promises something about the disk waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prost::Message;
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;
use tokio::sync::{oneshot, watch};

use crate::cipher::{CipherError, Dek, Keys};
use crate::core::{
    Beginning, ChangeError, Committed, Core, CoreConfig, LoadError, Output, Payload, SnapshotDue, SnapshotPolicy,
    Stored, Ticket, begin,
};
use crate::disk::{Disk, Job, log_folder, snapshot_folder};
use crate::handle::Handle;
use crate::inbox::{Command, Inbox, Outbox, inbox};
use crate::log::{Log, LogError};
use crate::snapshot;
use crate::status::Status;
use crate::transport::{Dial, Peers, Transport};

mod commands;
mod snapshots;

/// Ticks without a leader before an election; SwarmKit's setting.
const ELECTION_TICKS: usize = 10;
/// Ticks between heartbeats; SwarmKit's setting.
const HEARTBEAT_TICKS: usize = 1;
/// Commands taken together into one round of the core.
const MAX_BATCH: usize = 4_096;
/// A disk that does not answer for this long is dead: time stands still here, and others take the lead.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// How fast raft's clock runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Length of a tick: heartbeats come every tick, elections after 10 to 19 without one.
    pub tick: Duration,
    /// Ask whether an election could be won before disturbing anybody with it.
    pub pre_vote: bool,
}

impl Timing {
    /// SwarmKit's timing, for groups with managers that are not Skep.
    pub const SWARMKIT: Self = Self { tick: Duration::from_secs(1), pre_vote: false };
    /// Among Skep managers: a dead leader is replaced within a second.
    pub const FAST: Self = Self { tick: Duration::from_millis(50), pre_vote: true };
}

/// What a manager's raft needs.
#[derive(Clone)]
pub struct Config {
    /// State folder: `log/` and `snap/` are made in it.
    pub folder: PathBuf,
    /// This manager in the group; its status is left empty.
    pub member: p::RaftMember,
    /// How it begins.
    pub beginning: Beginning,
    /// The key of log and snapshots: of all that is written.
    pub dek: Dek,
    /// The key before it, if a rotation is not finished: of what may still be read.
    pub old_dek: Option<Dek>,
    /// Seed of the election time-outs.
    pub seed: u64,
    /// How fast the clock runs.
    pub timing: Timing,
    /// When snapshots are made.
    pub snapshots: SnapshotPolicy,
}

/// What the log is applied to, in log order, on the driver's thread.
pub trait StateMachine: Send + 'static {
    /// Applies a committed request.
    fn apply(&mut self, index: u64, request: p::InternalRaftRequest);
    /// Freezes the state in O(1); the returned work encodes it elsewhere.
    fn snapshot(&self) -> Box<dyn FnOnce() -> p::StoreSnapshot + Send>;
    /// Replaces the state.
    fn restore(&mut self, state: p::StoreSnapshot) -> Result<(), String>;
}

/// Why a manager's raft could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What log and snapshots hold does not fit together.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A snapshot cannot be used.
    #[error("raft snapshots in {folder}")]
    Snapshot {
        /// Where they are.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An entry cannot be decrypted, or not encrypted.
    #[error("raft entry {index}")]
    Cipher {
        /// Which.
        index: u64,
        /// Why.
        #[source]
        source: CipherError,
    },
    /// The stored state cannot be taken.
    #[error("raft state: {0}")]
    State(String),
    /// A thread could not be started.
    #[error("no thread for raft")]
    Thread(#[source] std::io::Error),
    /// A bug.
    #[error("raft panicked: {0}")]
    Panicked(String),
}

/// Why a proposal is not known to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Leadership was lost before, or this manager never led.
    #[error("raft: failed to process the request: node lost leader status")]
    LostLeadership,
    /// The request is larger than SwarmKit takes.
    #[error("raft: raft message is too large and can't be sent: {0} bytes")]
    TooLarge(usize),
    /// Too many wait.
    #[error("raft's queue is full")]
    Busy,
}

/// Why leadership was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This manager does not lead.
    #[error("this manager does not lead")]
    NotLeader,
    /// Nobody else can be reached.
    #[error("no other manager can be reached")]
    NoPeer,
    /// The other one did not take it in time.
    #[error("leadership was not taken in time")]
    NotTaken,
    /// The driver has ended.
    #[error("raft is stopped")]
    Stopped,
}

/// Why the key was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotateError {
    /// The rotation before is not finished.
    #[error("a rotation of the raft key is under way")]
    UnderWay,
    /// The driver has ended; the new key may or may not be in use.
    #[error("raft is stopped")]
    Stopped,
}

/// Starts the driver: on what is on disk, or as the beginning says. Peers are reached through `dial`, on `runtime`.
pub fn start(
    config: Config,
    mut machine: Box<dyn StateMachine>,
    dial: Arc<dyn Dial>,
    runtime: &tokio::runtime::Handle,
) -> Result<Handle, StartError> {
    let (mut disk, mut stored) = read(&config)?;
    disk.write_now(begin(&config.beginning, &config.member, &mut stored))?;
    let loaded = Core::load(core_config(&config), stored)?;
    if let Some(state) = loaded.state {
        machine.restore(state).map_err(StartError::State)?;
    }
    let core = loaded.core;
    let (inbox, outbox) = inbox();
    let last_index = Arc::new(AtomicU64::new(core.last_index()));
    let (status_sender, status) = watch::channel(Status {
        raft_id: config.member.raft_id,
        applied: core.applied_index(),
        members: core.membership().members.clone(),
        removed: core.membership().removed.clone(),
        rotating_dek: config.old_dek.is_some(),
        ..Default::default()
    });
    let peers = Arc::new(Peers::new(dial, status.clone()));
    let keys = Arc::new(Mutex::new(disk.keys.clone()));
    let source = snapshots::source(snapshot_folder(&config.folder), keys.clone());
    let transport = Transport::new(peers.clone(), inbox.clone(), source, runtime.clone());
    let (jobs, disk_thread) = disk.start(inbox.clone()).map_err(StartError::Thread)?;
    let driver = Driver::new(config, core, machine, inbox.clone(), jobs, transport, keys, status_sender, &last_index);
    let run = move || {
        driver.run(&outbox);
        // Its queue has ended with the driver.
        if disk_thread.join().is_err() {
            tracing::error!("the thread of raft's disk panicked");
        }
    };
    let thread = std::thread::Builder::new().name("raft".to_owned()).spawn(run).map_err(StartError::Thread)?;
    Ok(Handle { inbox, last_index, status, peers, thread: Mutex::new(Some(thread)) })
}

fn core_config(config: &Config) -> CoreConfig {
    let known = match &config.beginning {
        Beginning::Join { members } => members.clone(),
        Beginning::Found | Beginning::Restart | Beginning::ForceNewCluster => Vec::new(),
    };
    CoreConfig {
        raft_id: config.member.raft_id,
        seed: config.seed,
        election_ticks: ELECTION_TICKS,
        heartbeat_ticks: HEARTBEAT_TICKS,
        pre_vote: config.timing.pre_vote,
        snapshots: config.snapshots,
        known,
    }
}

/// Reads log and snapshots. Only what survives is decrypted: the rest may have a key that is long gone.
fn read(config: &Config) -> Result<(Disk, Stored), StartError> {
    let keys = Keys::new(config.dek.clone(), config.old_dek.clone());
    let (log, records) = Log::open(&log_folder(&config.folder))?;
    let folder = snapshot_folder(&config.folder);
    let snapshot =
        snapshot::load(&folder, &keys).map_err(|source| StartError::Snapshot { folder: folder.clone(), source })?;
    let mut stored = Stored::from_records(snapshot, records)?;
    for entry in stored.entries.iter_mut().filter(|entry| !entry.data.is_empty()) {
        let opened = keys.open(&entry.data);
        entry.data = opened.map_err(|source| StartError::Cipher { index: entry.index, source })?;
    }
    Ok((Disk { log, snapshots: folder, keys }, stored))
}

struct Proposal {
    data: Vec<u8>,
    /// The term it was made for.
    term: u64,
    done: oneshot::Sender<Result<u64, ProposeError>>,
}

struct Waiter {
    index: u64,
    term: u64,
    done: oneshot::Sender<Result<u64, ProposeError>>,
}

/// An output that is not known to be on the disk.
struct Unpersisted {
    number: u64,
    /// It has nothing for the disk: it is done when those before it are.
    empty: bool,
    since: Instant,
    install: Option<Arc<raftpb::Snapshot>>,
    after: Vec<raftpb::Message>,
}

struct Driver {
    config: Config,
    core: Core,
    machine: Box<dyn StateMachine>,
    inbox: Inbox,
    jobs: SyncSender<Job>,
    transport: Transport,
    status: watch::Sender<Status>,
    last_index: Arc<AtomicU64>,
    /// Proposals of this round, not yet given to the core.
    proposals: Vec<Proposal>,
    waiters: VecDeque<Waiter>,
    changes: BTreeMap<Ticket, oneshot::Sender<Result<u64, ChangeError>>>,
    transfers: Vec<oneshot::Sender<Result<(), TransferError>>>,
    unpersisted: VecDeque<Unpersisted>,
    snapshots: snapshots::Snapshots,
    next_tick: Instant,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Go,
    Stop,
}

impl Driver {
    #[allow(clippy::too_many_arguments, reason = "the parts of one struct, put together in one place")]
    fn new(
        config: Config,
        core: Core,
        machine: Box<dyn StateMachine>,
        inbox: Inbox,
        jobs: SyncSender<Job>,
        transport: Transport,
        keys: Arc<Mutex<Keys>>,
        status: watch::Sender<Status>,
        last_index: &Arc<AtomicU64>,
    ) -> Self {
        let next_tick = Instant::now() + config.timing.tick;
        let rotating = config.old_dek.is_some().then(|| core.last_index());
        let snapshots = snapshots::Snapshots::new(keys, rotating);
        Self {
            config,
            core,
            machine,
            inbox,
            jobs,
            transport,
            status,
            last_index: last_index.clone(),
            proposals: Vec::new(),
            waiters: VecDeque::new(),
            changes: BTreeMap::new(),
            transfers: Vec::new(),
            unpersisted: VecDeque::new(),
            snapshots,
            next_tick,
        }
    }

    fn run(mut self, outbox: &Outbox) {
        // The raft library panics where it finds itself in a state that cannot be; that must not look like silence.
        let served = catch_unwind(AssertUnwindSafe(|| self.serve(outbox)));
        let failed = match served {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
                Some(StartError::Panicked(text.to_owned()))
            }
        };
        if let Some(error) = &failed {
            tracing::error!(error = %chain(error), "raft cannot go on");
        }
        let removed = self.core.is_removed();
        self.status.send_modify(|status| {
            status.leading = false;
            status.leader = 0;
            status.removed_from_group |= removed;
            status.failed = failed.map(|error| chain(&error));
        });
        self.fail_waiters();
        self.snapshots.join();
    }

    fn serve(&mut self, outbox: &Outbox) -> Result<(), StartError> {
        if self.config.old_dek.is_some() {
            self.core.want_snapshot(self.core.last_index());
        }
        self.transport.set_members(self.core.raft_id(), &self.core.membership().members);
        self.pump()?;
        // Nobody is to be waited for.
        if self.core.is_alone() {
            self.core.campaign();
            self.pump()?;
        }
        loop {
            let first = outbox.next(self.next_tick.saturating_duration_since(Instant::now()));
            let Ok(first) = first else { return Ok(()) };
            let rest = std::iter::from_fn(|| outbox.try_next());
            for command in first.into_iter().chain(rest).take(MAX_BATCH) {
                if self.take(command)? == Next::Stop {
                    return Ok(());
                }
            }
            self.propose_all();
            // After the messages: a thread that was not let run for long must not take that for silence of the others.
            self.tick_if_due();
            self.pump()?;
            if self.core.is_removed() {
                return Ok(());
            }
        }
    }

    fn tick_if_due(&mut self) {
        let now = Instant::now();
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + self.config.timing.tick;
        let waited = self.unpersisted.front().map_or(Duration::ZERO, |oldest| now - oldest.since);
        if waited < DISK_PATIENCE {
            self.core.tick();
        }
    }

    /// Does what the core wants done, until it wants nothing.
    fn pump(&mut self) -> Result<(), StartError> {
        while let Some(output) = self.core.output() {
            self.handle(output)?;
        }
        self.last_index.store(self.core.last_index(), Ordering::Release);
        self.publish();
        Ok(())
    }

    fn handle(&mut self, output: Output) -> Result<(), StartError> {
        let Output { number, install, records, messages, after, apply, settled, snapshot_due } = output;
        self.transport.send(messages);
        let install = install.map(Arc::new);
        let empty = records.is_empty();
        if !empty {
            // A disk that has ended has said why, and its word is on the way.
            self.jobs.send(Job::Write { number, install: install.clone(), records }).ok();
        }
        self.unpersisted.push_back(Unpersisted { number, empty, since: Instant::now(), install, after });
        for entry in apply {
            self.apply(entry);
        }
        for (ticket, result) in settled {
            if let Some(done) = self.changes.remove(&ticket) {
                // Whoever asked may have gone.
                done.send(result).ok();
            }
        }
        if let Some(due) = snapshot_due {
            self.make_snapshot(due);
        }
        self.release(0)
    }

    /// What waited for the disk goes on: all up to this output, and the empty ones behind it.
    fn release(&mut self, persisted: u64) -> Result<(), StartError> {
        while self.unpersisted.front().is_some_and(|front| front.empty || front.number <= persisted) {
            let Some(done) = self.unpersisted.pop_front() else { break };
            self.core.persisted(done.number);
            self.transport.send(done.after);
            if let Some(snapshot) = done.install {
                self.install(&snapshot)?;
            }
        }
        Ok(())
    }

    fn install(&mut self, snapshot: &raftpb::Snapshot) -> Result<(), StartError> {
        let state = p::Snapshot::decode(snapshot.data.as_slice());
        let state = state.map_err(|error| StartError::State(error.to_string()))?;
        self.machine.restore(state.store.unwrap_or_default()).map_err(StartError::State)
    }

    fn apply(&mut self, entry: Committed) {
        if let Payload::Request(data) = &entry.payload {
            // Every manager finds the same bytes, so all skip them alike.
            match p::InternalRaftRequest::decode(data.as_slice()) {
                Ok(request) => self.machine.apply(entry.index, request),
                Err(error) => tracing::error!(index = entry.index, %error, "a raft entry is skipped"),
            }
        }
        while let Some(waiter) = self.waiters.pop_front_if(|waiter| waiter.index <= entry.index) {
            let committed = waiter.index == entry.index && waiter.term == entry.term;
            // A proposer that gave up does not want to know.
            waiter.done.send(if committed { Ok(entry.index) } else { Err(ProposeError::LostLeadership) }).ok();
        }
    }

    fn fail_waiters(&mut self) {
        for waiter in self.waiters.drain(..) {
            waiter.done.send(Err(ProposeError::LostLeadership)).ok();
        }
        for proposal in self.proposals.drain(..) {
            proposal.done.send(Err(ProposeError::LostLeadership)).ok();
        }
        for done in std::mem::take(&mut self.changes).into_values() {
            done.send(Err(ChangeError::LostLeadership)).ok();
        }
        self.end_transfers(Err(TransferError::Stopped));
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
