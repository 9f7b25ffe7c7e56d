//! From what a disk holds to what counts: which entries survive, in the order in which records were written.

use raft::eraftpb;
use swarm_proto::raftpb;

use super::mapping;
use super::storage::{MemLog, Position};

/// What is written to the log, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Term, vote and commit.
    HardState(raftpb::HardState),
    /// An entry; it takes the place of all that were at its index or after.
    Entry(raftpb::Entry),
    /// A snapshot from the leader took the place of all entries before this record.
    Installed {
        /// Index of the snapshot.
        index: u64,
        /// Its term.
        term: u64,
    },
}

/// What a manager starts from. Entries may still be sealed: nothing here looks into them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The newest snapshot.
    pub snapshot: Option<raftpb::Snapshot>,
    /// The entries after it, without a gap.
    pub entries: Vec<raftpb::Entry>,
    /// Term, vote and commit; the commit index lies within snapshot and entries.
    pub hard_state: raftpb::HardState,
}

/// What to do about a log that cannot be used. Putting back an older copy is no way where other managers go on: this one
/// would deny votes and entries that they count on.
pub(crate) const MENDING: &str =
    "; if other managers have a quorum, leave with --force and join again, else restore a backup";

/// Why what is on the disk cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The log goes on after a snapshot that is not there.
    #[error("the raft log goes on after the snapshot at index {index}, which is missing{}", MENDING)]
    SnapshotMissing {
        /// Where the snapshot should be.
        index: u64,
    },
    /// Entries are missing.
    #[error("the raft log lacks the entries from {expected} to {found}{}", MENDING)]
    Gap {
        /// The first index that is missing.
        expected: u64,
        /// The first index that is there again.
        found: u64,
    },
    /// The snapshot cannot be read.
    #[error("the raft snapshot at index {index} cannot be read: {reason}")]
    Snapshot {
        /// Its index.
        index: u64,
        /// Why.
        reason: String,
    },
    /// The raft library refused.
    #[error("raft core: {0}")]
    Core(String),
}

impl Stored {
    /// Sorts out what counts of a log's records. Records of an append that was torn are simply not there.
    pub fn from_records(snapshot: Option<raftpb::Snapshot>, records: Vec<Record>) -> Result<Self, LoadError> {
        let mut log = Survivors::default();
        for record in records {
            log.take(record)?;
        }
        let position = snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        let position =
            position.map_or_else(Position::default, |metadata| Position { index: metadata.index, term: metadata.term });
        let entries = log.after(position)?;
        let last = entries.last().map_or(position.index, |entry| entry.index);
        let mut hard_state = log.hard_state;
        hard_state.commit = hard_state.commit.clamp(position.index, last);
        hard_state.term = hard_state.term.max(position.term);
        Ok(Self { snapshot, entries, hard_state })
    }

    /// Nothing was ever written.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Where the snapshot stands.
    pub(super) fn position(&self) -> Position {
        let metadata = self.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        metadata.map_or_else(Position::default, |metadata| Position { index: metadata.index, term: metadata.term })
    }

    /// The last index.
    pub(super) fn last_index(&self) -> u64 {
        self.entries.last().map_or(self.position().index, |entry| entry.index)
    }

    /// For the raft library.
    pub(super) fn into_log(self) -> MemLog {
        let metadata = self.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        let conf_state = metadata.and_then(|metadata| metadata.conf_state.as_ref());
        let conf_state = conf_state.map_or_else(eraftpb::ConfState::new, mapping::conf_state_to_core);
        let position = self.position();
        let entries = self.entries.into_iter().map(mapping::entry_to_core).collect();
        MemLog::new(position, conf_state, entries, mapping::hard_state_to_core(&self.hard_state))
    }
}

#[derive(Default)]
struct Survivors {
    /// The last snapshot from a leader that the log knows of.
    installed: Position,
    entries: Vec<raftpb::Entry>,
    hard_state: raftpb::HardState,
}

impl Survivors {
    fn take(&mut self, record: Record) -> Result<(), LoadError> {
        match record {
            Record::HardState(state) => self.hard_state = state,
            Record::Installed { index, term } => {
                self.installed = Position { index, term };
                self.entries.clear();
            }
            Record::Entry(entry) => {
                if let Some(first) = self.entries.first().map(|first| first.index) {
                    let keep = entry.index.saturating_sub(first).min(self.entries.len() as u64);
                    self.entries.truncate(keep as usize);
                }
                if let Some(last) = self.entries.last().filter(|last| last.index + 1 != entry.index) {
                    return Err(LoadError::Gap { expected: last.index + 1, found: entry.index });
                }
                self.entries.push(entry);
            }
        }
        Ok(())
    }

    /// The entries that follow a snapshot.
    ///
    /// A crash may fall between a snapshot from the leader and its record in the log. The entries are then those from
    /// before it; they continue the snapshot only if they hold its own last entry.
    fn after(&mut self, snapshot: Position) -> Result<Vec<raftpb::Entry>, LoadError> {
        if self.installed.index > snapshot.index {
            return Err(LoadError::SnapshotMissing { index: self.installed.index });
        }
        let mut entries = std::mem::take(&mut self.entries);
        let Some(first) = entries.first().map(|entry| entry.index) else { return Ok(entries) };
        if first > snapshot.index + 1 {
            return Err(LoadError::Gap { expected: snapshot.index + 1, found: first });
        }
        if first == snapshot.index + 1 {
            return Ok(entries);
        }
        match entries.get((snapshot.index - first) as usize) {
            Some(entry) if entry.term == snapshot.term => Ok(entries.split_off((snapshot.index + 1 - first) as usize)),
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> raftpb::Entry {
        raftpb::Entry { index, term, ..Default::default() }
    }

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Record> {
        range.map(|index| Record::Entry(entry(index, term))).collect()
    }

    fn snapshot(index: u64, term: u64) -> Option<raftpb::Snapshot> {
        let metadata = raftpb::SnapshotMetadata { index, term, ..Default::default() };
        Some(raftpb::Snapshot { data: Vec::new(), metadata: Some(metadata) })
    }

    fn check(snap: Option<raftpb::Snapshot>, records: Vec<Record>, expected: &[(u64, u64)]) {
        let stored = Stored::from_records(snap, records).unwrap();
        let found: Vec<_> = stored.entries.iter().map(|entry| (entry.index, entry.term)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn later_records_overwrite() {
        let mut records = entries(1..=5, 1);
        records.extend(entries(3..=4, 2));
        check(None, records.clone(), &[(1, 1), (2, 1), (3, 2), (4, 2)]);
        check(snapshot(3, 2), records.clone(), &[(4, 2)]);
        check(snapshot(9, 3), records, &[]);
    }

    #[test]
    fn entries_from_before_an_installed_snapshot_never_come_back() {
        // Crash after the snapshot, before its record: the tail belongs to another history.
        check(snapshot(3, 5), entries(1..=6, 1), &[]);
        // With its record, what follows counts and what came before does not.
        let mut records = entries(1..=6, 1);
        records.push(Record::Installed { index: 4, term: 5 });
        records.extend(entries(5..=6, 5));
        check(snapshot(4, 5), records.clone(), &[(5, 5), (6, 5)]);
        // A later snapshot of our own.
        check(snapshot(5, 5), records.clone(), &[(6, 5)]);
        let missing = Stored::from_records(None, records);
        assert_eq!(missing, Err(LoadError::SnapshotMissing { index: 4 }));
    }

    #[test]
    fn a_gap_is_refused_and_the_commit_index_is_kept_inside() {
        let gap = Stored::from_records(snapshot(3, 1), entries(6..=7, 1));
        assert_eq!(gap, Err(LoadError::Gap { expected: 4, found: 6 }));
        let gap = Stored::from_records(None, [entries(1..=2, 1), entries(5..=5, 1)].concat());
        assert_eq!(gap, Err(LoadError::Gap { expected: 3, found: 5 }));
        let mut records = entries(1..=2, 1);
        records.push(Record::HardState(raftpb::HardState { term: 1, vote: 1, commit: 9 }));
        assert_eq!(Stored::from_records(None, records).unwrap().hard_state.commit, 2);
        let stored = Stored::from_records(snapshot(8, 4), Vec::new()).unwrap();
        assert_eq!((stored.hard_state.commit, stored.hard_state.term), (8, 4));
    }
}
