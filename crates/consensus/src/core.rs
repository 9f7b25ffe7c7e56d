//! The raft core: pure. Messages, ticks, proposals and word of the disk go in; records to write, messages to send and
//! committed entries come out. No clock, no files, no threads: the driver and the simulation run the same code.
//!
//! ```text
//!  step, tick, propose, persisted ──► Core ──► Output { number, install, records, messages, after, apply, … }
//!                                       ▲          │ messages: at once
//!                                       │          │ install, records: to the disk, in order
//!                 persisted(number) ────┘◄─────────┘ then: `after` may be sent, the installed snapshot is the state
//! ```
//!
//! Rules for who runs it:
//! * Take [`Core::output`] until there is none, after each round of input. Outputs are numbered; their records go to the
//!   disk in that order, and several may be under way.
//! * `messages` may go at once. `after` goes when this output and all before it are on the disk: then call
//!   [`Core::persisted`] with the number, for outputs without records too.
//! * `apply` may be applied at once, in order: it is committed and on this disk. An `install` replaces the state, and it
//!   counts only when it is on the disk; until then the core takes no message and knows no time.
//!
//! Equal seeds and equal input give equal output, election time-outs included.

mod beginning;
mod changes;
mod check;
pub(crate) mod load;
mod mapping;
mod membership;
mod output;
mod storage;

use std::collections::{BTreeMap, VecDeque};

use prost::Message;
use raft::eraftpb::{self, EntryType};
use raft::{RawNode, StateRole};
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;

pub use beginning::{Beginning, begin};
pub use changes::{ChangeError, Ticket};
pub use check::StepError;
pub(crate) use check::{check_sender, is_vote};
pub use load::{LoadError, Record, Stored};
pub use membership::{MemberChange, Membership};
pub use output::{Committed, Output, Payload, SnapshotDue};

use changes::PendingChange;
use storage::MemLog;

/// Bytes of entries in one message between managers; etcd's setting in SwarmKit.
const MAX_MESSAGE_BYTES: usize = 65_535;
/// Appends on their way to one peer; SwarmKit's setting.
const MAX_INFLIGHT: usize = 256;
/// Bytes of entries that may wait for their commit.
const MAX_UNCOMMITTED_BYTES: usize = 256 << 20;

/// Ticks between a snapshot that failed and the next try.
const SNAPSHOT_PAUSE_TICKS: usize = 100;

/// Bytes of entries that call for a snapshot before their number does. A store whose snapshot is larger waits until there
/// are as many bytes of entries, so that writing snapshots costs no more than writing the log. The log is in memory, too.
const MAX_LOG_BYTES: u64 = 64 << 20;
/// Bytes of entries kept behind a snapshot for slow followers, whatever their number.
const MAX_KEPT_BYTES: u64 = 32 << 20;

/// When snapshots are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// Applied entries between snapshots, unless they are large; 0 for never.
    pub interval: u64,
    /// Entries kept behind a snapshot for slow followers.
    pub keep_entries: u64,
}

/// What a core is made with.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This manager's number in the group; not 0.
    pub raft_id: u64,
    /// Seed of the election time-outs.
    pub seed: u64,
    /// Ticks without a leader before an election; at random up to twice as many.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Ask whether an election could be won before disturbing anybody with it.
    pub pre_vote: bool,
    /// When snapshots are made.
    pub snapshots: SnapshotPolicy,
    /// Members that are known before the log tells of them: those that answered a Join.
    pub known: Vec<p::RaftMember>,
}

/// A core and the state it goes on from.
pub struct Loaded {
    /// The core.
    pub core: Core,
    /// What the state machine is to be set to first.
    pub state: Option<p::StoreSnapshot>,
}

/// Whether this manager leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It follows, or there is nobody to follow.
    Follower,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
}

/// What became of a snapshot on its way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The peer has it.
    Done,
    /// It has not.
    Failed,
}

/// Proposals are not taken: this manager does not lead, or is handing leadership over, or too much waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proposal was dropped")]
pub struct Dropped;

/// Where proposals stand in the log: the first index, and the term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Index of the first.
    pub first_index: u64,
    /// Term of all.
    pub term: u64,
}

/// One manager's raft.
pub struct Core {
    config: CoreConfig,
    node: RawNode<MemLog>,
    membership: Membership,
    /// The last index given out to be applied.
    applied: u64,
    /// All that earlier leaders committed has been given out, and this manager leads.
    caught_up: bool,
    /// The snapshot of the leader's that is on its way to the disk: number of its output, its index.
    installing: Option<(u64, u64)>,
    /// The snapshot of the leader's that the library has taken and that has not been put out.
    offered: Option<raftpb::Snapshot>,
    /// Index of a snapshot that the shell is making.
    snapshotting: Option<u64>,
    /// Ticks until a snapshot is asked for again after one failed.
    snapshot_pause_ticks: usize,
    /// A snapshot at this index or later is wanted, whatever the policy says.
    snapshot_wanted: Option<u64>,
    /// Size of the newest snapshot.
    snapshot_bytes: u64,
    /// Wishes to change the group, oldest first; only the first may be in the log.
    changes: VecDeque<PendingChange>,
    settled: Vec<(Ticket, Result<u64, ChangeError>)>,
    /// Tells campaigns of one term apart, so that each has a time-out of its own.
    campaigns: u64,
    tickets: u64,
    /// This manager applied its own removal.
    removed: bool,
    /// The leader was removed, and it is on this manager to follow it.
    succeed: bool,
}

impl Core {
    /// A core on what a disk holds.
    pub fn load(config: CoreConfig, stored: Stored) -> Result<Loaded, LoadError> {
        let start = stored.position().index;
        let mut membership = Membership::default();
        let mut state = None;
        let snapshot_bytes = stored.snapshot.as_ref().map_or(0, |snapshot| snapshot.data.len() as u64);
        if let Some(snapshot) = &stored.snapshot {
            let decoded = p::Snapshot::decode(snapshot.data.as_slice())
                .map_err(|error| LoadError::Snapshot { index: start, reason: error.to_string() })?;
            membership = Membership::from_snapshot(decoded.membership.unwrap_or_default());
            state = Some(decoded.store.unwrap_or_default());
        }
        for member in config.known.iter().filter(|member| !membership.removed.contains(&member.raft_id)) {
            membership.members.entry(member.raft_id).or_insert_with(|| member.clone());
        }
        let settings = raft::Config {
            id: config.raft_id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: start,
            max_size_per_msg: MAX_MESSAGE_BYTES as u64,
            max_inflight_msgs: MAX_INFLIGHT,
            check_quorum: true,
            pre_vote: config.pre_vote,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES as u64,
            ..Default::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&settings, stored.into_log(), &logger);
        let node = node.map_err(|error| LoadError::Core(error.to_string()))?;
        let mut core = Self {
            config,
            node,
            membership,
            applied: start,
            caught_up: false,
            installing: None,
            offered: None,
            snapshotting: None,
            snapshot_pause_ticks: 0,
            snapshot_wanted: None,
            snapshot_bytes,
            changes: VecDeque::new(),
            settled: Vec::new(),
            campaigns: 0,
            tickets: 0,
            removed: false,
            succeed: false,
        };
        core.pin_election_timeout();
        Ok(Loaded { core, state })
    }

    /// This manager's number in the group.
    pub fn raft_id(&self) -> u64 {
        self.config.raft_id
    }

    /// Takes a message from a peer.
    pub fn step(&mut self, mut message: raftpb::Message) -> Result<(), StepError> {
        check::check(self, &message)?;
        let kind = message.kind;
        // The library sees a snapshot's place only.
        let data = message.snapshot.as_mut().map(|snapshot| std::mem::take(&mut snapshot.data));
        let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.clone());
        let message = mapping::message_to_core(message).ok_or(StepError::KindNotTaken(kind))?;
        let stepped = self.node.step(message).map_err(|error| StepError::Refused(error.to_string()));
        if let (Some(data), Some(metadata), Some(taken)) = (data, metadata, self.node.snap())
            && (taken.get_metadata().index, taken.get_metadata().term) == (metadata.index, metadata.term)
        {
            self.offered = Some(raftpb::Snapshot { data, metadata: Some(metadata) });
        }
        self.pin_election_timeout();
        stepped
    }

    /// A tick has passed.
    pub fn tick(&mut self) {
        self.snapshot_pause_ticks = self.snapshot_pause_ticks.saturating_sub(1);
        // Alone, an election is won at once, and what is won must be on the disk.
        let hasty = self.is_alone() && !self.leads() && self.has_unpersisted();
        if self.installing.is_some() || self.removed || hasty {
            return;
        }
        self.node.tick();
        if self.role() == Role::Candidate && self.node.raft.election_elapsed == 0 {
            self.campaigns += 1;
        }
        self.pin_election_timeout();
    }

    /// Ticks until the next one that does something, if nothing happens before.
    pub fn next_deadline_ticks(&self) -> usize {
        let raft = &self.node.raft;
        match self.role() {
            Role::Leader => raft.heartbeat_timeout().saturating_sub(raft.heartbeat_elapsed()).max(1),
            _ => raft.randomized_election_timeout().saturating_sub(raft.election_elapsed).max(1),
        }
    }

    /// Appends requests, all or none. They are acknowledged when they come back as [`Output::apply`] with their term.
    pub fn propose(&mut self, requests: Vec<Vec<u8>>) -> Result<Appended, Dropped> {
        let raft = &self.node.raft;
        if !self.leads() || raft.lead_transferee.is_some() || self.removed {
            return Err(Dropped);
        }
        let bytes: usize = requests.iter().map(Vec::len).sum();
        if raft.uncommitted_size().saturating_add(bytes) > MAX_UNCOMMITTED_BYTES {
            return Err(Dropped);
        }
        let appended = Appended { first_index: raft.raft_log.last_index() + 1, term: raft.term };
        let mut batch = Vec::new();
        let mut bytes = 0;
        for request in requests {
            let size = request.len() + storage::ENTRY_OVERHEAD;
            // A batch is sent as one message: a larger one would wait for the answer to its first part.
            if !batch.is_empty() && bytes + size > MAX_MESSAGE_BYTES {
                self.append(std::mem::take(&mut batch))?;
                bytes = 0;
            }
            let mut entry = eraftpb::Entry::new();
            entry.data = request.into();
            batch.push(entry);
            bytes += size;
        }
        self.append(batch)?;
        Ok(appended)
    }

    fn append(&mut self, entries: Vec<eraftpb::Entry>) -> Result<(), Dropped> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut message = eraftpb::Message::new();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.config.raft_id;
        message.entries = entries.into();
        self.node.raft.step(message).map_err(|_| Dropped)
    }

    /// Stands for election now.
    pub fn campaign(&mut self) {
        // The library lets one without a configuration win its own vote, and falls over it.
        let able = self.node.raft.promotable() && self.installing.is_none() && !self.removed;
        if !able || (self.is_alone() && self.has_unpersisted()) {
            return;
        }
        self.campaigns += 1;
        // One that has changes of the group to apply first stays what it is.
        self.node.campaign().ok();
        self.pin_election_timeout();
    }

    /// Begins to hand leadership over. It has happened when [`Self::leader`] changes, and has failed when
    /// [`Self::transferring`] ends without that.
    pub fn transfer_leadership(&mut self, to: u64) -> Result<(), Dropped> {
        if !self.leads() || to == self.config.raft_id || !self.voters().contains(&to) {
            return Err(Dropped);
        }
        self.node.transfer_leader(to);
        Ok(())
    }

    /// Whom leadership is being handed to.
    pub fn transferring(&self) -> Option<u64> {
        self.node.raft.lead_transferee
    }

    /// A message to a peer was lost.
    pub fn report_unreachable(&mut self, raft_id: u64) {
        self.node.report_unreachable(raft_id);
    }

    /// A snapshot reached a peer, or did not.
    pub fn report_snapshot(&mut self, raft_id: u64, delivery: Delivery) {
        let status = match delivery {
            Delivery::Done => raft::SnapshotStatus::Finish,
            Delivery::Failed => raft::SnapshotStatus::Failure,
        };
        self.node.report_snapshot(raft_id, status);
    }

    /// Switches pre-votes, for all elections from now on.
    pub fn set_pre_vote(&mut self, pre_vote: bool) {
        self.config.pre_vote = pre_vote;
        self.node.raft.pre_vote = pre_vote;
    }

    /// Changes when snapshots are made.
    pub fn set_snapshot_policy(&mut self, policy: SnapshotPolicy) {
        self.config.snapshots = policy;
    }

    /// Asks for a snapshot as soon as `index` is applied, whatever the policy says.
    pub fn want_snapshot(&mut self, index: u64) {
        self.snapshot_wanted = Some(self.snapshot_wanted.map_or(index, |wanted| wanted.max(index)));
    }

    /// A snapshot of so many bytes is on the disk. Returns up to where the log on disk may be dropped.
    pub fn snapshot_stored(&mut self, index: u64, bytes: u64) -> u64 {
        self.snapshotting = None;
        if index >= self.snapshot_index() {
            self.snapshot_bytes = bytes;
        }
        self.snapshot_wanted.take_if(|wanted| *wanted <= index);
        self.node.mut_store().snapshot_stored(index);
        // The snapshot's own entry stays: at a restart it tells that what follows belongs to the snapshot.
        let few = index.saturating_sub(self.config.snapshots.keep_entries);
        let until = few.max(self.node.store().drop_until(index, MAX_KEPT_BYTES)).min(index.saturating_sub(1));
        self.node.mut_store().compact(until);
        until
    }

    /// A snapshot could not be made; it is asked for again some time later.
    pub fn snapshot_failed(&mut self) {
        self.snapshotting = None;
        self.snapshot_pause_ticks = SNAPSHOT_PAUSE_TICKS;
    }

    /// The last index in the log.
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// The last index that is known to be committed.
    pub fn committed_index(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// The last index given out to be applied.
    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    /// The index of the newest stored snapshot.
    pub fn snapshot_index(&self) -> u64 {
        self.node.store().snapshot_index()
    }

    /// The term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// What this manager is.
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        }
    }

    /// Whether it leads and all that earlier leaders committed has been given out.
    pub fn leads_caught_up(&self) -> bool {
        self.caught_up && self.leads()
    }

    fn leads(&self) -> bool {
        self.role() == Role::Leader
    }

    /// The leader's number; 0 for none.
    pub fn leader(&self) -> u64 {
        self.node.raft.leader_id
    }

    /// Members and removed ones.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Who votes, sorted.
    pub fn voters(&self) -> Vec<u64> {
        mapping::conf_state_from_core(&self.node.raft.prs().conf().to_conf_state()).voters
    }

    /// Whether this manager is the only voter, so that nobody needs to be waited for.
    pub fn is_alone(&self) -> bool {
        self.node.raft.prs().is_singleton() && self.node.raft.promotable()
    }

    /// Whether this manager has applied its own removal. It takes part in nothing from then on.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    fn installing(&self) -> bool {
        self.installing.is_some()
    }

    /// How far each peer's log matches, as the leader knows it; for tests and status.
    pub fn progress(&self) -> BTreeMap<u64, u64> {
        self.node.raft.prs().iter().map(|(id, progress)| (*id, progress.matched)).collect()
    }

    /// The library draws time-outs from its thread's generator; ours come from the seed, so that a run can be repeated.
    fn pin_election_timeout(&mut self) {
        let ticks = self.config.election_ticks as u64;
        let mut mix = self.config.seed ^ self.config.raft_id.rotate_left(17) ^ self.campaigns.rotate_left(43);
        for word in [self.node.raft.term, self.campaigns, self.config.raft_id] {
            mix = (mix ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mix ^= mix >> 29;
        }
        self.node.raft.set_randomized_election_timeout((ticks + mix % ticks) as usize);
    }
}

#[cfg(test)]
mod tests;
