//! Between etcd's raftpb (wire and disk) and the raft library's own types. No byte of a peer goes through the library's
//! codec, and three differences end here: kinds of ConfChange are etcd's numbers (2 is UpdateNode and would add a learner
//! in the library), and fields 13 and 14 of a message mean other things to the two and are never carried over.

use raft::eraftpb;
use swarm_proto::raftpb;

/// An entry of the library's.
pub(super) fn entry_to_core(entry: raftpb::Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry::new();
    out.set_entry_type(match entry.r#type {
        1 => eraftpb::EntryType::EntryConfChange,
        2 => eraftpb::EntryType::EntryConfChangeV2,
        _ => eraftpb::EntryType::EntryNormal,
    });
    out.term = entry.term;
    out.index = entry.index;
    out.data = entry.data.into();
    out
}

/// An entry of etcd's.
pub(super) fn entry_from_core(entry: &eraftpb::Entry) -> raftpb::Entry {
    let data = entry.data.to_vec();
    raftpb::Entry { r#type: entry.get_entry_type() as i32, term: entry.term, index: entry.index, data }
}

/// A hard state of the library's.
pub(super) fn hard_state_to_core(state: &raftpb::HardState) -> eraftpb::HardState {
    let mut out = eraftpb::HardState::new();
    out.term = state.term;
    out.vote = state.vote;
    out.commit = state.commit;
    out
}

/// A hard state of etcd's.
pub(super) fn hard_state_from_core(state: &eraftpb::HardState) -> raftpb::HardState {
    raftpb::HardState { term: state.term, vote: state.vote, commit: state.commit }
}

/// A configuration of the library's.
pub(super) fn conf_state_to_core(state: &raftpb::ConfState) -> eraftpb::ConfState {
    let mut out = eraftpb::ConfState::new();
    out.voters = state.voters.clone();
    out.learners = state.learners.clone();
    out.voters_outgoing = state.voters_outgoing.clone();
    out.learners_next = state.learners_next.clone();
    out.auto_leave = state.auto_leave;
    out
}

/// A configuration of etcd's, sorted as etcd does.
pub(super) fn conf_state_from_core(state: &eraftpb::ConfState) -> raftpb::ConfState {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    raftpb::ConfState {
        voters: sorted(&state.voters),
        learners: sorted(&state.learners),
        voters_outgoing: sorted(&state.voters_outgoing),
        learners_next: sorted(&state.learners_next),
        auto_leave: state.auto_leave,
    }
}

/// A snapshot of the library's. Its data stays behind: the library needs none.
pub(super) fn snapshot_to_core(metadata: &raftpb::SnapshotMetadata) -> eraftpb::Snapshot {
    let mut out = eraftpb::Snapshot::new();
    out.mut_metadata().index = metadata.index;
    out.mut_metadata().term = metadata.term;
    out.mut_metadata().set_conf_state(conf_state_to_core(&metadata.conf_state.clone().unwrap_or_default()));
    out
}

/// A message of the library's. The snapshot goes without its data, and an empty one (dockerd 28 writes it into every
/// message) is none. `None` for a kind that has no meaning between managers.
pub(super) fn message_to_core(message: raftpb::Message) -> Option<eraftpb::Message> {
    let kind = message.kind;
    let mut out = eraftpb::Message::new();
    out.set_msg_type(kind_to_core(raftpb::MessageType::try_from(kind).ok()?)?);
    out.to = message.to;
    out.from = message.from;
    out.term = message.term;
    out.log_term = message.log_term;
    out.index = message.index;
    out.entries = message.entries.into_iter().map(entry_to_core).collect::<Vec<_>>().into();
    out.commit = message.commit;
    if let Some(metadata) = message.snapshot.and_then(|snapshot| snapshot.metadata)
        && metadata.index > 0
    {
        out.set_snapshot(snapshot_to_core(&metadata));
    }
    out.reject = message.reject;
    out.reject_hint = message.reject_hint;
    out.context = message.context.into();
    Some(out)
}

/// The kinds that managers send each other; everything else is local or a forwarded proposal.
fn kind_to_core(kind: raftpb::MessageType) -> Option<eraftpb::MessageType> {
    use eraftpb::MessageType as Core;
    use raftpb::MessageType as Wire;
    Some(match kind {
        Wire::MsgApp => Core::MsgAppend,
        Wire::MsgAppResp => Core::MsgAppendResponse,
        Wire::MsgVote => Core::MsgRequestVote,
        Wire::MsgVoteResp => Core::MsgRequestVoteResponse,
        Wire::MsgSnap => Core::MsgSnapshot,
        Wire::MsgHeartbeat => Core::MsgHeartbeat,
        Wire::MsgHeartbeatResp => Core::MsgHeartbeatResponse,
        Wire::MsgTimeoutNow => Core::MsgTimeoutNow,
        Wire::MsgPreVote => Core::MsgRequestPreVote,
        Wire::MsgPreVoteResp => Core::MsgRequestPreVoteResponse,
        _ => return None,
    })
}

/// A message of etcd's: fields 13 and 14 stay empty, and so does what the library adds beyond them.
pub(super) fn message_from_core(message: &eraftpb::Message) -> raftpb::Message {
    let snapshot = message.has_snapshot().then(|| {
        let metadata = message.get_snapshot().get_metadata();
        raftpb::Snapshot {
            data: Vec::new(),
            metadata: Some(raftpb::SnapshotMetadata {
                conf_state: Some(conf_state_from_core(metadata.get_conf_state())),
                index: metadata.index,
                term: metadata.term,
            }),
        }
    });
    raftpb::Message {
        // The numbers of kinds 0 to 18 are the same in both.
        kind: message.get_msg_type() as i32,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(entry_from_core).collect(),
        commit: commit_for_etcd(message),
        snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.to_vec(),
        vote: 0,
        responses: Vec::new(),
    }
}

/// etcd leaves the commit index out of votes and answers; the library uses it there for extensions of its own.
fn commit_for_etcd(message: &eraftpb::Message) -> u64 {
    use eraftpb::MessageType as Core;
    match message.get_msg_type() {
        Core::MsgAppend | Core::MsgHeartbeat => message.commit,
        _ => 0,
    }
}

/// What a committed configuration change does to the library's configuration.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// It must take it.
    Voters(eraftpb::ConfChange),
    /// Only an address changes: it must not see it.
    AddressOnly,
}

/// Reads a configuration change with etcd's numbers.
pub(super) fn conf_change(change: &raftpb::ConfChange) -> Change {
    let mut out = eraftpb::ConfChange::new();
    out.set_id(change.id);
    out.set_node_id(change.node_id);
    match change.kind {
        0 => out.set_change_type(eraftpb::ConfChangeType::AddNode),
        1 => out.set_change_type(eraftpb::ConfChangeType::RemoveNode),
        3 => out.set_change_type(eraftpb::ConfChangeType::AddLearnerNode),
        _ => return Change::AddressOnly,
    }
    Change::Voters(out)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn entries_of_every_type_come_back() {
        for kind in 0..=2 {
            let entry = raftpb::Entry { r#type: kind, term: 3, index: 7, data: b"x".to_vec() };
            assert_eq!(entry_from_core(&entry_to_core(entry.clone())), entry);
        }
    }

    #[test]
    fn an_address_change_never_reaches_the_library() {
        let change = |kind| conf_change(&raftpb::ConfChange { kind, node_id: 5, ..Default::default() });
        assert_eq!(change(2), Change::AddressOnly);
        assert!(matches!(change(0), Change::Voters(core) if core.node_id == 5));
        assert!(matches!(change(1), Change::Voters(_)));
    }

    #[test]
    fn messages_come_back_and_local_ones_do_not_pass() {
        let entry = raftpb::Entry { r#type: 0, term: 2, index: 9, data: b"data".to_vec() };
        let message = raftpb::Message {
            kind: raftpb::MessageType::MsgApp as i32,
            to: 1,
            from: 2,
            term: 3,
            log_term: 2,
            index: 8,
            entries: vec![entry],
            commit: 8,
            context: b"CampaignTransfer".to_vec(),
            ..Default::default()
        };
        assert_eq!(message_from_core(&message_to_core(message.clone()).unwrap()), message);
        for kind in [0, 1, 2, 10, 11, 12, 13, 15, 16, 19, 20, 21, 22, 23, 77] {
            let message = raftpb::Message { kind, ..message.clone() };
            assert_eq!(message_to_core(message), None, "{kind}");
        }
    }

    /// dockerd 29 writes field 13, dockerd 28 an empty snapshot; neither must mean anything here.
    #[test]
    fn fields_that_only_one_side_knows_are_dropped() {
        let mut bytes = raftpb::Message { kind: 8, to: 1, from: 2, term: 3, ..Default::default() }.encode_to_vec();
        bytes.extend([0x4a, 0x0a, 0x12, 0x08, 0x0a, 0x02, 0x28, 0x00, 0x10, 0x00, 0x18, 0x00]);
        bytes.extend([0x68, 0x07]);
        let message = raftpb::Message::decode(bytes.as_slice()).unwrap();
        assert_eq!(message.vote, 7);
        let core = message_to_core(message).unwrap();
        assert_eq!(core.request_snapshot, 0);
        assert!(!core.has_snapshot());
        let mut vote = eraftpb::Message::new();
        vote.set_msg_type(eraftpb::MessageType::MsgRequestVote);
        (vote.commit, vote.commit_term, vote.priority, vote.deprecated_priority) = (5, 2, 4, 4);
        let wire = message_from_core(&vote);
        assert_eq!((wire.commit, wire.vote, wire.responses.len()), (0, 0, 0));
    }
}
