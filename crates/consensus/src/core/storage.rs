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
    /// For each entry, how many bytes this log has taken up to its end.
    ends: Vec<u64>,
    /// The same up to the end of `base`.
    base_end: u64,
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
        let mut log = Self { base: snapshot, snapshot, conf_state, hard_state, ..Self::default() };
        log.append(entries);
        log
    }

    /// Appends, after cutting what is overwritten.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        debug_assert!(first.index > self.base.index && first.index <= self.last() + 1, "the library leaves no gap");
        let kept = (first.index - self.base.index - 1) as usize;
        self.entries.truncate(kept);
        self.ends.truncate(kept);
        let mut end = self.ends.last().copied().unwrap_or(self.base_end);
        self.ends.extend(entries.iter().map(|entry| {
            end += (entry.data.len() + ENTRY_OVERHEAD) as u64;
            end
        }));
        self.entries.extend(entries);
    }

    /// Where an entry ends, counted in bytes.
    fn end(&self, index: u64) -> u64 {
        let at = index.saturating_sub(self.base.index).min(self.ends.len() as u64);
        if at == 0 { self.base_end } else { self.ends[at as usize - 1] }
    }

    /// How many bytes of entries there are behind the snapshot, up to `index`.
    pub(super) fn bytes_since_snapshot(&self, index: u64) -> u64 {
        self.end(index).saturating_sub(self.end(self.snapshot.index))
    }

    /// The last entry to be dropped, if those after it up to `index` are to take no more than `limit` bytes.
    pub(super) fn drop_until(&self, index: u64, limit: u64) -> u64 {
        let dispensable = self.end(index).saturating_sub(limit);
        if self.base_end >= dispensable {
            return self.base.index;
        }
        self.base.index + 1 + self.ends.partition_point(|end| *end < dispensable) as u64
    }

    /// Starts over at a snapshot from the leader.
    pub(super) fn install(&mut self, snapshot: Position) {
        self.base = snapshot;
        self.snapshot = snapshot;
        self.entries.clear();
        self.ends.clear();
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
        self.base_end = self.end(index);
        self.entries.drain(..(index - self.base.index) as usize);
        self.ends.drain(..(index - self.base.index) as usize);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(indexes: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<Entry> {
        let entry = |index| Entry { index, term: 1, data: vec![0; bytes - ENTRY_OVERHEAD].into(), ..Entry::default() };
        indexes.map(entry).collect()
    }

    #[test]
    fn bytes_are_counted_through_cuts_compactions_and_snapshots() {
        let start = Position { index: 4, term: 1 };
        let mut log = MemLog::new(start, ConfState::default(), entries(5..=8, 100), HardState::default());
        assert_eq!(
            (log.bytes_since_snapshot(8), log.bytes_since_snapshot(6), log.bytes_since_snapshot(4)),
            (400, 200, 0)
        );
        log.append(entries(7..=10, 50));
        assert_eq!(log.bytes_since_snapshot(10), 400, "two of a hundred, four of fifty");
        log.snapshot_stored(6);
        assert_eq!(log.bytes_since_snapshot(10), 200);
        assert_eq!(log.drop_until(10, 200), 6);
        assert_eq!(log.drop_until(10, 199), 7);
        assert_eq!(log.drop_until(10, 1000), 4, "all fit");
        assert_eq!(log.drop_until(10, 0), 10);
        log.compact(8);
        assert_eq!((log.bytes_since_snapshot(10), log.drop_until(10, 50)), (100, 9));
        log.install(Position { index: 20, term: 2 });
        assert_eq!(log.bytes_since_snapshot(20), 0);
        log.append(entries(21..=21, 70));
        assert_eq!(log.bytes_since_snapshot(21), 70);
    }
}
