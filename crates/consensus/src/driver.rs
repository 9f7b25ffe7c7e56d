//! The loop around the raft core. One thread owns core, log and state machine; commands come in on a bounded queue, and
//! all that wait are proposed together, so that they share one `fdatasync`.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prost::Message;
use raft::eraftpb::{self, EntryType};
use raft::storage::MemStorage;
use raft::{RawNode, StateRole};
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;
use tokio::sync::{oneshot, watch};

use crate::cipher::{CipherError, Dek};
use crate::log::{Log, LogError, Record};
use crate::{mapping, snapshot};

/// Proposals that may wait; more are refused.
const QUEUE: usize = 65_536;
/// Commands taken together into one write.
const MAX_BATCH: usize = 4_096;
/// Bytes of entries in one message between managers; etcd's setting in SwarmKit.
const MAX_MESSAGE_BYTES: u64 = 65_535;

/// What a manager's raft needs.
#[derive(Clone)]
pub struct Config {
    /// State folder: `log/` and `snap/` are made in it.
    pub folder: PathBuf,
    /// This manager in the group; its status is left empty.
    pub member: p::RaftMember,
    /// The key of log and snapshots.
    pub dek: Dek,
    /// Seed of the election time-outs.
    pub seed: u64,
    /// Length of a tick.
    pub tick: Duration,
    /// Ticks without a leader before an election.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Applied entries between snapshots.
    pub snapshot_interval: u64,
    /// Entries kept behind a snapshot for slow followers.
    pub keep_entries: u64,
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

/// Where the group stands, as this manager sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// This manager leads and has applied all that earlier leaders committed.
    pub leading: bool,
    /// The leader's raft identifier; 0 for none.
    pub leader: u64,
    /// The term.
    pub term: u64,
    /// The last applied index.
    pub applied: u64,
    /// All members by raft identifier.
    pub members: BTreeMap<u64, p::RaftMember>,
    /// Why the driver ended, if it did by itself.
    pub failed: Option<String>,
}

/// Why a manager's raft could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A snapshot cannot be used.
    #[error("raft snapshots in {folder}")]
    Snapshot {
        /// Where they are.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An entry cannot be decrypted.
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
    /// The core refused.
    #[error("raft core: {0}")]
    Core(#[from] raft::Error),
    /// The thread could not be started.
    #[error("no thread for raft")]
    Thread(#[source] std::io::Error),
}

/// What becomes of a proposal: `Ok` when it is committed and applied here.
pub type Proposed = oneshot::Receiver<Result<u64, LostLeadership>>;

/// The proposal was not committed by this leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("raft: failed to process the request: node lost leader status")]
pub struct LostLeadership;

enum Command {
    Propose { data: Vec<u8>, done: oneshot::Sender<Result<u64, LostLeadership>> },
    SnapshotStored { index: u64 },
    Stop,
}

/// Handle of a running driver. Dropping it stops the driver.
pub struct Handle {
    commands: SyncSender<Command>,
    last_index: Arc<AtomicU64>,
    status: watch::Receiver<Status>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    /// Appends a request after all that were given before.
    pub fn propose(&self, request: &p::InternalRaftRequest) -> Proposed {
        let (done, proposed) = oneshot::channel();
        let command = Command::Propose { data: request.encode_to_vec(), done };
        if let Err(
            TrySendError::Full(Command::Propose { done, .. })
            | TrySendError::Disconnected(Command::Propose { done, .. }),
        ) = self.commands.try_send(command)
        {
            done.send(Err(LostLeadership)).ok();
        }
        proposed
    }

    /// The last index in this manager's log.
    pub fn last_index(&self) -> u64 {
        self.last_index.load(Ordering::Acquire)
    }

    /// Where the group stands.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Stops the driver and waits for its thread; blocks for one disk write at the most.
    /// Later calls do nothing.
    pub fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        // A full queue is being drained; a gone thread needs no word.
        self.commands.send(Command::Stop).ok();
        if thread.join().is_err() {
            tracing::error!("the raft thread panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

fn log_folder(folder: &Path) -> PathBuf {
    folder.join("log")
}

fn snapshot_folder(folder: &Path) -> PathBuf {
    folder.join("snap")
}

/// Writes the first entry of a new group: the founder's membership, as etcd's `StartNode` does.
pub fn found(config: &Config) -> Result<(), StartError> {
    let change = raftpb::ConfChange {
        id: config.member.raft_id,
        kind: raftpb::ConfChangeType::ConfChangeAddNode as i32,
        node_id: config.member.raft_id,
        context: config.member.encode_to_vec(),
    };
    let data = config.dek.seal(&change.encode_to_vec()).map_err(|source| StartError::Cipher { index: 1, source })?;
    let entry = raftpb::Entry { r#type: raftpb::EntryType::EntryConfChange as i32, term: 1, index: 1, data };
    let (mut log, _) = Log::open(&log_folder(&config.folder))?;
    let state = raftpb::HardState { term: 1, vote: 0, commit: 1 };
    log.append(&[Record::Entry(entry), Record::HardState(state)])?;
    Ok(())
}

/// Starts the driver on what is on disk.
pub fn start(config: Config, mut machine: Box<dyn StateMachine>) -> Result<Handle, StartError> {
    let (log, records) = Log::open(&log_folder(&config.folder))?;
    let folder = snapshot_folder(&config.folder);
    let stored = snapshot::load(&folder, &config.dek);
    let stored = stored.map_err(|source| StartError::Snapshot { folder, source })?;
    let mut members = BTreeMap::new();
    let storage = MemStorage::new();
    let mut start_index = 0;
    if let Some(stored) = stored {
        start_index = restore(&storage, stored, machine.as_mut(), &mut members)?;
    }
    load_entries(&storage, records, start_index, &config.dek)?;
    let last = raft::Storage::last_index(&storage)?;
    let core = raft::Config {
        id: config.member.raft_id,
        election_tick: config.election_ticks,
        heartbeat_tick: config.heartbeat_ticks,
        applied: start_index,
        max_size_per_msg: MAX_MESSAGE_BYTES,
        max_inflight_msgs: 256,
        check_quorum: true,
        pre_vote: false,
        ..Default::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let node = RawNode::new(&core, storage, &logger)?;
    let (commands, inbox) = sync_channel(QUEUE);
    let last_index = Arc::new(AtomicU64::new(last));
    let (status_sender, status) = watch::channel(Status { members, applied: start_index, ..Default::default() });
    let driver = Driver {
        config,
        node,
        log,
        machine,
        commands: commands.clone(),
        waiters: VecDeque::new(),
        last_index: last_index.clone(),
        status: status_sender,
        applied: start_index,
        snapshot_index: start_index,
        snapshotting: false,
    };
    let thread = std::thread::Builder::new().name("raft".to_owned()).spawn(move || driver.run(&inbox));
    let thread = thread.map_err(StartError::Thread)?;
    Ok(Handle { commands, last_index, status, thread: Mutex::new(Some(thread)) })
}

fn restore(
    storage: &MemStorage,
    stored: raftpb::Snapshot,
    machine: &mut dyn StateMachine,
    members: &mut BTreeMap<u64, p::RaftMember>,
) -> Result<u64, StartError> {
    let state = p::Snapshot::decode(stored.data.as_slice()).map_err(|error| StartError::State(error.to_string()))?;
    let membership = state.membership.unwrap_or_default();
    members.extend(membership.members.into_iter().map(|member| (member.raft_id, member)));
    machine.restore(state.store.unwrap_or_default()).map_err(StartError::State)?;
    let metadata = stored.metadata.unwrap_or_default();
    let mut core = eraftpb::Snapshot::new();
    let conf = metadata.conf_state.unwrap_or_default();
    core.mut_metadata().mut_conf_state().voters = conf.voters;
    core.mut_metadata().mut_conf_state().learners = conf.learners;
    core.mut_metadata().index = metadata.index;
    core.mut_metadata().term = metadata.term;
    storage.wl().apply_snapshot(core)?;
    Ok(metadata.index)
}

/// Puts the log's entries after `start` and its last hard state into the core's storage.
fn load_entries(storage: &MemStorage, records: Vec<Record>, start: u64, dek: &Dek) -> Result<(), StartError> {
    let mut entries: Vec<eraftpb::Entry> = Vec::new();
    let mut hard_state = None;
    for record in records {
        match record {
            Record::HardState(state) => hard_state = Some(state),
            Record::Entry(entry) if entry.index <= start => {}
            Record::Entry(entry) => {
                let data = if entry.data.is_empty() { Ok(Vec::new()) } else { dek.open(&entry.data) };
                let data = data.map_err(|source| StartError::Cipher { index: entry.index, source })?;
                while entries.last().is_some_and(|last| last.index >= entry.index) {
                    entries.pop();
                }
                entries.push(mapping::entry_from_disk(&entry, data));
            }
        }
    }
    let last = entries.last().map_or(start, |entry| entry.index);
    if !entries.is_empty() {
        storage.wl().append(&entries)?;
    }
    if let Some(mut state) = hard_state {
        state.commit = state.commit.clamp(start, last);
        storage.wl().set_hardstate(mapping::hard_state_from_disk(&state));
    }
    Ok(())
}

struct Waiter {
    index: u64,
    term: u64,
    done: oneshot::Sender<Result<u64, LostLeadership>>,
}

struct Driver {
    config: Config,
    node: RawNode<MemStorage>,
    log: Log,
    machine: Box<dyn StateMachine>,
    commands: SyncSender<Command>,
    waiters: VecDeque<Waiter>,
    last_index: Arc<AtomicU64>,
    status: watch::Sender<Status>,
    applied: u64,
    snapshot_index: u64,
    snapshotting: bool,
}

impl Driver {
    fn run(mut self, inbox: &Receiver<Command>) {
        if let Err(error) = self.serve(inbox) {
            tracing::error!(%error, "raft cannot go on");
            self.status.send_modify(|status| {
                status.leading = false;
                status.failed = Some(error.to_string());
            });
        }
        self.fail_waiters();
    }

    fn serve(&mut self, inbox: &Receiver<Command>) -> Result<(), StartError> {
        let mut next_tick = Instant::now() + self.config.tick;
        self.drain_ready()?;
        if self.alone() {
            self.node.campaign()?;
            self.drain_ready()?;
        }
        loop {
            let first = match inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let rest = std::iter::from_fn(|| inbox.try_recv().ok());
            for command in first.into_iter().chain(rest).take(MAX_BATCH) {
                match command {
                    Command::Propose { data, done } => self.propose(data, done),
                    Command::SnapshotStored { index } => self.compact(index)?,
                    Command::Stop => return Ok(()),
                }
            }
            if Instant::now() >= next_tick {
                self.node.tick();
                self.pin_election_timeout();
                next_tick = Instant::now() + self.config.tick;
            }
            self.drain_ready()?;
        }
    }

    /// Whether this manager is the only voter, so that nothing is to be waited for.
    fn alone(&self) -> bool {
        let voters = &self.node.raft.prs().conf().to_conf_state().voters;
        voters.len() == 1 && voters.contains(&self.config.member.raft_id)
    }

    /// The core draws time-outs from its thread's generator; ours come from the seed, so that a run can be repeated.
    fn pin_election_timeout(&mut self) {
        let ticks = self.config.election_ticks as u64;
        let mix =
            self.config.seed ^ self.config.member.raft_id.rotate_left(17) ^ self.node.raft.term.wrapping_mul(0x9e37);
        let timeout = ticks + mix.wrapping_mul(0x9e37_79b9_7f4a_7c15) % ticks;
        self.node.raft.set_randomized_election_timeout(timeout as usize);
    }

    fn propose(&mut self, data: Vec<u8>, done: oneshot::Sender<Result<u64, LostLeadership>>) {
        if self.node.raft.state != StateRole::Leader || self.node.propose(Vec::new(), data).is_err() {
            done.send(Err(LostLeadership)).ok();
            return;
        }
        let index = self.node.raft.raft_log.last_index();
        self.last_index.store(index, Ordering::Release);
        self.waiters.push_back(Waiter { index, term: self.node.raft.term, done });
    }

    fn drain_ready(&mut self) -> Result<(), StartError> {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            if let Some(soft) = ready.ss() {
                let leads = soft.raft_state == StateRole::Leader;
                let leader = soft.leader_id;
                self.status.send_modify(|status| {
                    status.leader = leader;
                    status.leading &= leads;
                });
                if !leads {
                    self.fail_waiters();
                }
            }
            let committed = ready.take_committed_entries();
            self.apply(committed)?;
            self.persist(&ready)?;
            let mut light = self.node.advance(ready);
            if let Some(commit) = light.commit_index() {
                self.node.mut_store().wl().mut_hard_state().commit = commit;
            }
            let committed = light.take_committed_entries();
            self.apply(committed)?;
            self.node.advance_apply();
        }
        self.last_index.store(self.node.raft.raft_log.last_index(), Ordering::Release);
        self.maybe_snapshot();
        Ok(())
    }

    /// Entries and hard state are on the disk when this returns.
    fn persist(&mut self, ready: &raft::Ready) -> Result<(), StartError> {
        let mut records = Vec::new();
        for entry in ready.entries() {
            let sealed = if entry.data.is_empty() { Ok(Vec::new()) } else { self.config.dek.seal(&entry.data) };
            let sealed = sealed.map_err(|source| StartError::Cipher { index: entry.index, source })?;
            records.push(Record::Entry(mapping::entry_to_disk(entry, sealed)));
        }
        if let Some(state) = ready.hs() {
            self.node.mut_store().wl().set_hardstate(state.clone());
        }
        if !records.is_empty() || ready.hs().is_some() {
            // The hard state goes with every write, so that each segment of the log holds one.
            let state = mapping::hard_state_to_disk(self.node.store().rl().hard_state());
            records.push(Record::HardState(state));
            self.log.append(&records)?;
        }
        if !ready.entries().is_empty() {
            self.node.mut_store().wl().append(ready.entries())?;
        }
        Ok(())
    }

    fn apply(&mut self, entries: Vec<eraftpb::Entry>) -> Result<(), StartError> {
        for entry in entries {
            self.applied = entry.index;
            match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => self.led(entry.term),
                EntryType::EntryNormal => {
                    let request = p::InternalRaftRequest::decode(&*entry.data);
                    let request = request.map_err(|error| StartError::State(error.to_string()))?;
                    self.machine.apply(entry.index, request);
                }
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => self.apply_conf_change(&entry)?,
            }
            self.acknowledge(&entry);
        }
        let applied = self.applied;
        let term = self.node.raft.term;
        self.status.send_if_modified(|status| {
            let leadership_changed = status.term != term;
            status.applied = applied;
            status.term = term;
            leadership_changed
        });
        Ok(())
    }

    /// The first entry of a term is applied: everything before it is too.
    fn led(&mut self, term: u64) {
        if self.node.raft.state == StateRole::Leader && term == self.node.raft.term {
            self.status.send_modify(|status| status.leading = true);
        }
    }

    fn apply_conf_change(&mut self, entry: &eraftpb::Entry) -> Result<(), StartError> {
        let change = raftpb::ConfChange::decode(&*entry.data).map_err(|error| StartError::State(error.to_string()))?;
        let member = p::RaftMember::decode(change.context.as_slice()).unwrap_or_default();
        self.status.send_modify(|status| match change.kind {
            1 => drop(status.members.remove(&change.node_id)),
            _ => drop(status.members.insert(change.node_id, member)),
        });
        if let mapping::Change::Core(core) = mapping::conf_change(&change) {
            let state = self.node.apply_conf_change(&core)?;
            self.node.mut_store().wl().set_conf_state(state);
        }
        Ok(())
    }

    fn acknowledge(&mut self, entry: &eraftpb::Entry) {
        while let Some(waiter) = self.waiters.front() {
            if waiter.index > entry.index {
                break;
            }
            let Some(waiter) = self.waiters.pop_front() else { break };
            let committed = waiter.index == entry.index && waiter.term == entry.term;
            // A proposer that gave up does not want to know.
            waiter.done.send(if committed { Ok(entry.index) } else { Err(LostLeadership) }).ok();
        }
    }

    fn fail_waiters(&mut self) {
        for waiter in self.waiters.drain(..) {
            waiter.done.send(Err(LostLeadership)).ok();
        }
    }

    /// Encodes and stores a snapshot on a thread of its own when enough was applied since the last one.
    fn maybe_snapshot(&mut self) {
        if self.snapshotting || self.applied - self.snapshot_index < self.config.snapshot_interval.max(1) {
            return;
        }
        self.snapshotting = true;
        let index = self.applied;
        let term = raft::Storage::term(self.node.store(), index).unwrap_or(self.node.raft.term);
        let conf_state = mapping::conf_state_to_disk(&self.node.raft.prs().conf().to_conf_state());
        let members = self.status.borrow().members.values().cloned().collect();
        let freeze = self.machine.snapshot();
        let (folder, dek) = (snapshot_folder(&self.config.folder), self.config.dek.clone());
        let commands = self.commands.clone();
        let work = move || {
            let membership = p::ClusterSnapshot { members, removed: Vec::new() };
            let state = p::Snapshot { version: 0, membership: Some(membership), store: Some(freeze()) };
            let metadata = raftpb::SnapshotMetadata { conf_state: Some(conf_state), index, term };
            let snapshot = raftpb::Snapshot { data: state.encode_to_vec(), metadata: Some(metadata) };
            match snapshot::store(&folder, &dek, snapshot) {
                // A driver that has stopped loads the snapshot at its next start.
                Ok(()) => drop(commands.send(Command::SnapshotStored { index })),
                Err(error) => tracing::error!(%error, "a raft snapshot could not be stored"),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("raft-snapshot".to_owned()).spawn(work) {
            tracing::error!(%error, "no thread for a raft snapshot");
            self.snapshotting = false;
        }
    }

    fn compact(&mut self, index: u64) -> Result<(), StartError> {
        self.snapshotting = false;
        self.snapshot_index = index;
        let keep_from = index.saturating_sub(self.config.keep_entries);
        let first = raft::Storage::first_index(self.node.store())?;
        if keep_from > first {
            self.node.mut_store().wl().compact(keep_from)?;
            self.log.compact(keep_from)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
