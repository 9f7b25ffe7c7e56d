//! Between etcd's raftpb (wire and disk) and the core's own types. ConfChange kinds are etcd's numbers: 2 is UpdateNode
//! there and means something else to the core, so it never reaches it.

use raft::eraftpb;
use swarm_proto::raftpb;

/// An entry for disk, its data already sealed.
pub(crate) fn entry_to_disk(entry: &eraftpb::Entry, data: Vec<u8>) -> raftpb::Entry {
    raftpb::Entry { r#type: entry.get_entry_type() as i32, term: entry.term, index: entry.index, data }
}

/// An entry from disk, its data already opened.
pub(crate) fn entry_from_disk(entry: &raftpb::Entry, data: Vec<u8>) -> eraftpb::Entry {
    let mut out = eraftpb::Entry::new();
    let kind = if entry.r#type == eraftpb::EntryType::EntryConfChange as i32 {
        eraftpb::EntryType::EntryConfChange
    } else {
        eraftpb::EntryType::EntryNormal
    };
    out.set_entry_type(kind);
    out.term = entry.term;
    out.index = entry.index;
    out.data = data.into();
    out
}

/// A hard state for disk.
pub(crate) fn hard_state_to_disk(state: &eraftpb::HardState) -> raftpb::HardState {
    raftpb::HardState { term: state.term, vote: state.vote, commit: state.commit }
}

/// A hard state from disk.
pub(crate) fn hard_state_from_disk(state: &raftpb::HardState) -> eraftpb::HardState {
    let mut out = eraftpb::HardState::new();
    out.term = state.term;
    out.vote = state.vote;
    out.commit = state.commit;
    out
}

/// A configuration for disk.
pub(crate) fn conf_state_to_disk(state: &eraftpb::ConfState) -> raftpb::ConfState {
    raftpb::ConfState { voters: state.voters.clone(), learners: state.learners.clone(), ..Default::default() }
}

/// What a committed configuration change does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// The core must take it.
    Core(eraftpb::ConfChange),
    /// Only an address changes: the core must not see it.
    AddressOnly,
}

/// Reads the data of a configuration change with etcd's numbers.
pub(crate) fn conf_change(change: &raftpb::ConfChange) -> Change {
    let mut out = eraftpb::ConfChange::new();
    out.set_id(change.id);
    out.set_node_id(change.node_id);
    match change.kind {
        0 => out.set_change_type(eraftpb::ConfChangeType::AddNode),
        1 => out.set_change_type(eraftpb::ConfChangeType::RemoveNode),
        3 => out.set_change_type(eraftpb::ConfChangeType::AddLearnerNode),
        _ => return Change::AddressOnly,
    }
    Change::Core(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back() {
        let mut entry = eraftpb::Entry::new();
        entry.set_entry_type(eraftpb::EntryType::EntryConfChange);
        entry.index = 7;
        entry.term = 3;
        entry.data = b"x".to_vec().into();
        let disk = entry_to_disk(&entry, b"x".to_vec());
        assert_eq!(entry_from_disk(&disk, b"x".to_vec()), entry);
    }

    #[test]
    fn an_address_change_never_reaches_the_core() {
        let change = |kind| conf_change(&raftpb::ConfChange { kind, node_id: 5, ..Default::default() });
        assert_eq!(change(2), Change::AddressOnly);
        assert!(matches!(change(0), Change::Core(core) if core.node_id == 5));
        assert!(matches!(change(1), Change::Core(_)));
    }
}
