//! The log in memory as the raft library reads it: entries since the last compaction, and where the stored snapshot is.
//! A snapshot's data is not here; the shell puts it into the message when it is sent.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

/// What an entry takes in a message beside its data, at most.
pub(super) const ENTRY_OVERHEAD: usize = 32;

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) index: u64,
    pub(super) term: u64,
}

/// What the library reads.
#[derive(Default)]
pub(super) struct MemLog {
    /// The last entry that is no longer here.
    base: Position,
    /// The entries after it, without a gap.
    entries: Vec<Entry>,
    /// The newest stored snapshot.
    snapshot: Position,
    /// The configuration that goes with a snapshot that is sent; kept current by the core.
    pub(super) conf_state: ConfState,
    /// Term, vote and commit, kept current by the core.
    pub(super) hard_state: HardState,
}

impl MemLog {
    /// A log after a snapshot. The caller has checked that entries follow it and that the state fits.
    pub(super) fn new(snapshot: Position, conf_state: ConfState, entries: Vec<Entry>, hard_state: HardState) -> Self {
        Self { base: snapshot, entries, snapshot, conf_state, hard_state }
    }

    /// Appends, after cutting what is overwritten.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        debug_assert!(first.index > self.base.index && first.index <= self.last() + 1, "the library leaves no gap");
        self.entries.truncate((first.index - self.base.index - 1) as usize);
        self.entries.extend(entries);
    }

    /// Starts over at a snapshot from the leader.
    pub(super) fn install(&mut self, snapshot: Position) {
        self.base = snapshot;
        self.snapshot = snapshot;
        self.entries.clear();
    }

    /// A snapshot is on the disk.
    pub(super) fn snapshot_stored(&mut self, index: u64) {
        if index > self.snapshot.index && index <= self.last() {
            self.snapshot = Position { index, term: self.term(index).unwrap_or_default() };
        }
    }

    /// Drops the entries up to `index`.
    pub(super) fn compact(&mut self, index: u64) {
        if index <= self.base.index || index > self.last() {
            return;
        }
        let term = self.term(index).unwrap_or_default();
        self.entries.drain(..(index - self.base.index) as usize);
        self.base = Position { index, term };
    }

    /// The newest stored snapshot's index.
    pub(super) fn snapshot_index(&self) -> u64 {
        self.snapshot.index
    }

    fn last(&self) -> u64 {
        self.base.index + self.entries.len() as u64
    }
}

impl Storage for MemLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        let (from, to) = ((low - self.base.index - 1) as usize, (high - self.base.index - 1) as usize);
        let Some(entries) = self.entries.get(from..to) else {
            return Err(Error::Store(StorageError::Unavailable));
        };
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        // One entry at least, or an entry larger than a message would never be sent.
        let fitting = entries.iter().enumerate().take_while(|(at, entry)| {
            size += (entry.data.len() + ENTRY_OVERHEAD) as u64;
            *at == 0 || size <= limit
        });
        Ok(fitting.map(|(_, entry)| entry.clone()).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match index.checked_sub(self.base.index) {
            None => Err(Error::Store(StorageError::Compacted)),
            Some(0) => Ok(self.base.term),
            Some(at) => {
                let entry = self.entries.get(at as usize - 1);
                entry.map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
            }
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        if self.snapshot.index == 0 {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::new();
        snapshot.mut_metadata().index = self.snapshot.index;
        snapshot.mut_metadata().term = self.snapshot.term;
        // The receiver may have joined after the snapshot was made: it must find itself in the configuration.
        snapshot.mut_metadata().set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}
