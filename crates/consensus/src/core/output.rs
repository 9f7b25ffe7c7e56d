//! What comes out of the core.

use super::*;

/// What the shell has to do. See the rules in the module's description.
#[derive(Debug, Default)]
pub struct Output {
    /// For [`Core::persisted`]; grows by one with each output.
    pub number: u64,
    /// A snapshot from the leader: on the disk before `records`, and the state once both are there.
    pub install: Option<raftpb::Snapshot>,
    /// To be written to the log, in this order.
    pub records: Vec<Record>,
    /// To be sent now. A MsgSnap lacks its data: the shell adds that of the stored snapshot with this index.
    pub messages: Vec<raftpb::Message>,
    /// To be sent when this output and all before it are on the disk.
    pub after: Vec<raftpb::Message>,
    /// To be applied now, in this order.
    pub apply: Vec<Committed>,
    /// Changes of the group that came to an end: the index they were applied at.
    pub settled: Vec<(Ticket, Result<u64, ChangeError>)>,
    /// A snapshot is due when `apply` has been applied.
    pub snapshot_due: Option<SnapshotDue>,
}

/// A committed entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Its place.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What it holds.
    pub payload: Payload,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Nothing for the state machine: a leader's first entry, or a change of the group, which the core has taken.
    Nothing,
    /// An encoded request.
    Request(Vec<u8>),
}

/// What a snapshot needs besides the state.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotDue {
    /// Index, term and configuration.
    pub metadata: raftpb::SnapshotMetadata,
    /// Members and removed ones.
    pub membership: p::ClusterSnapshot,
}

impl SnapshotDue {
    /// The snapshot, with the state as it is after the entry at its index.
    pub fn with_state(self, state: p::StoreSnapshot) -> raftpb::Snapshot {
        let data = p::Snapshot { version: 0, membership: Some(self.membership), store: Some(state) };
        raftpb::Snapshot { data: data.encode_to_vec(), metadata: Some(self.metadata) }
    }
}

impl Core {
    /// What is to be done now; `None` when there is nothing until the next input.
    pub fn output(&mut self) -> Option<Output> {
        self.succeed_if_due();
        self.propose_next_change();
        if !self.node.has_ready() && self.settled.is_empty() && !self.snapshot_is_due() {
            return None;
        }
        let mut ready = self.node.ready();
        let mut output = Output { number: ready.number(), ..Default::default() };
        self.take_records(&mut ready, &mut output);
        self.take_messages(&mut ready, &mut output);
        let committed = ready.take_committed_entries();
        self.node.advance_append_async(ready);
        for entry in committed {
            output.apply.push(self.take_committed(entry));
        }
        if !output.apply.is_empty() {
            self.node.advance_apply_to(self.applied);
        }
        if !self.leads() {
            self.caught_up = false;
            self.fail_changes();
        }
        output.settled = std::mem::take(&mut self.settled);
        output.snapshot_due = self.take_snapshot_due();
        self.pin_election_timeout();
        Some(output)
    }

    /// All outputs up to this number are on the disk.
    pub fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
        if let Some((_, index)) = self.installing.take_if(|(waiting, _)| *waiting <= number) {
            self.node.advance_apply_to(index);
        }
        self.pin_election_timeout();
    }

    fn take_records(&mut self, ready: &mut raft::Ready, output: &mut Output) {
        if let Some(state) = ready.hs() {
            self.node.mut_store().hard_state = state.clone();
        }
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata();
            let (index, term) = (metadata.index, metadata.term);
            output.install = self.offered.take();
            debug_assert!(output.install.is_some(), "the library restores what was offered last");
            self.snapshot_bytes = output.install.as_ref().map_or(0, |snapshot| snapshot.data.len() as u64);
            output.records.push(Record::Installed { index, term });
            self.node.mut_store().install(storage::Position { index, term });
            self.installing = Some((output.number, index));
            self.applied = index;
            self.install_membership(output.install.as_ref());
        }
        // A commit index alone is not worth a write: it is found again. It goes with the next one, and first, so that a
        // torn write leaves no entry of a term that is not known.
        if ready.must_sync() {
            let state = mapping::hard_state_from_core(&self.node.store().hard_state);
            output.records.push(Record::HardState(state));
        }
        let entries = ready.take_entries();
        output.records.extend(entries.iter().map(|entry| Record::Entry(mapping::entry_from_core(entry))));
        self.node.mut_store().append(entries);
    }

    /// The snapshot's members, and those that joined after it: they are in its configuration (see [`MemLog::snapshot`]),
    /// and the log will tell of them; until then their known addresses are used.
    ///
    /// [`MemLog::snapshot`]: raft::Storage::snapshot
    fn install_membership(&mut self, snapshot: Option<&raftpb::Snapshot>) {
        let data = snapshot.map_or(&[][..], |snapshot| &snapshot.data);
        let state = p::Snapshot::decode(data).unwrap_or_default();
        let before = std::mem::take(&mut self.membership);
        self.membership = Membership::from_snapshot(state.membership.unwrap_or_default());
        for id in self.voters() {
            if let Some(member) = before.members.get(&id).filter(|_| !self.membership.removed.contains(&id)) {
                self.membership.members.entry(id).or_insert_with(|| member.clone());
            }
        }
    }

    fn take_messages(&mut self, ready: &mut raft::Ready, output: &mut Output) {
        let conf_state = self.node.raft.prs().conf().to_conf_state();
        let wire = |mut message: eraftpb::Message| {
            if message.has_snapshot() {
                message.mut_snapshot().mut_metadata().set_conf_state(conf_state.clone());
            }
            mapping::message_from_core(&message)
        };
        output.messages = ready.take_messages().into_iter().map(wire).collect();
        let after = ready.take_persisted_messages().into_iter().map(wire);
        // An answer to a heartbeat promises nothing about the disk, and a slow one must not look like a dead manager.
        let prompt = |message: &raftpb::Message| message.kind == raftpb::MessageType::MsgHeartbeatResp as i32;
        let (now, after): (Vec<_>, Vec<_>) = after.partition(prompt);
        output.messages.extend(now);
        output.after = after;
    }

    fn take_committed(&mut self, entry: eraftpb::Entry) -> Committed {
        self.applied = entry.index;
        let payload = match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => {
                self.caught_up |= self.leads() && entry.term == self.node.raft.term;
                Payload::Nothing
            }
            EntryType::EntryNormal => Payload::Request(entry.data.to_vec()),
            EntryType::EntryConfChange => {
                self.apply_change(&entry);
                Payload::Nothing
            }
            EntryType::EntryConfChangeV2 => {
                tracing::error!(index = entry.index, "a raft entry of a type that SwarmKit never writes is skipped");
                Payload::Nothing
            }
        };
        Committed { index: entry.index, term: entry.term, payload }
    }

    fn snapshot_is_due(&self) -> bool {
        let busy = self.snapshotting.is_some() || self.installing.is_some() || self.snapshot_pause_ticks > 0;
        if busy || self.applied == 0 {
            return false;
        }
        let policy = self.config.snapshots;
        let many = self.applied - self.snapshot_index().min(self.applied) >= policy.interval;
        let large = || self.node.store().bytes_since_snapshot(self.applied) >= MAX_LOG_BYTES.max(self.snapshot_bytes);
        (policy.interval > 0 && (many || large())) || self.snapshot_wanted.is_some_and(|wanted| wanted <= self.applied)
    }

    fn take_snapshot_due(&mut self) -> Option<SnapshotDue> {
        if !self.snapshot_is_due() {
            return None;
        }
        let index = self.applied;
        // Compacted, or the entry is there: it was applied.
        let term = self.node.raft.raft_log.term(index).unwrap_or_default();
        self.snapshotting = Some(index);
        let conf_state = mapping::conf_state_from_core(&self.node.raft.prs().conf().to_conf_state());
        let metadata = raftpb::SnapshotMetadata { conf_state: Some(conf_state), index, term };
        Some(SnapshotDue { metadata, membership: self.membership.to_snapshot() })
    }
}
