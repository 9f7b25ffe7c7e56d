//! What may come from a peer. The raft library panics on messages that no sane peer sends; they end here.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use raft::Storage;
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;

use super::Core;

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The sender was removed; it must learn of that.
    #[error("raft: member was removed from the cluster")]
    SenderRemoved,
    /// A vote is asked for by somebody who is no member.
    #[error("a vote was asked for by {0:x}, which is no member")]
    UnknownCandidate(u64),
    /// Proposals are never forwarded, and other kinds have no business between managers.
    #[error("a raft message of kind {0} is not taken from a peer")]
    KindNotTaken(i32),
    /// It is meant for another member.
    #[error("a raft message for {0:x} came here")]
    NotForUs(u64),
    /// No sane peer sends this.
    #[error("a raft message makes no sense: {0}")]
    Malformed(&'static str),
    /// A snapshot is being put on the disk; the sender will try again.
    #[error("raft is putting a snapshot on the disk")]
    Installing,
    /// The raft library did not take it.
    #[error("raft: {0}")]
    Refused(String),
}

/// Who may send what to whom, in SwarmKit's order.
pub(crate) fn check_sender(
    raft_id: u64,
    removed: &BTreeSet<u64>,
    members: &BTreeMap<u64, p::RaftMember>,
    message: &raftpb::Message,
) -> Result<(), StepError> {
    use raftpb::MessageType as Kind;
    if removed.contains(&message.from) {
        return Err(StepError::SenderRemoved);
    }
    if is_vote(message) && !members.contains_key(&message.from) {
        return Err(StepError::UnknownCandidate(message.from));
    }
    match Kind::try_from(message.kind) {
        Ok(Kind::MsgApp | Kind::MsgAppResp | Kind::MsgVote | Kind::MsgVoteResp | Kind::MsgSnap) => {}
        Ok(Kind::MsgHeartbeat | Kind::MsgHeartbeatResp | Kind::MsgTimeoutNow) => {}
        Ok(Kind::MsgPreVote | Kind::MsgPreVoteResp) => {}
        _ => return Err(StepError::KindNotTaken(message.kind)),
    }
    if message.to != raft_id {
        return Err(StepError::NotForUs(message.to));
    }
    Ok(())
}

/// Whether a message asks for a vote.
pub(crate) fn is_vote(message: &raftpb::Message) -> bool {
    use raftpb::MessageType as Kind;
    message.kind == Kind::MsgVote as i32 || message.kind == Kind::MsgPreVote as i32
}

/// All that can be said of a message before the library sees it.
pub(super) fn check(core: &Core, message: &raftpb::Message) -> Result<(), StepError> {
    use raftpb::MessageType as Kind;
    let membership = &core.membership;
    check_sender(core.raft_id(), &membership.removed, &membership.members, message)?;
    let kind = Kind::try_from(message.kind).map_err(|_| StepError::KindNotTaken(message.kind))?;
    if message.from == 0 || message.from == core.raft_id() {
        return Err(StepError::Malformed("its sender"));
    }
    // The library takes a message without a term for a local one.
    if message.term == 0 {
        return Err(StepError::Malformed("it has no term"));
    }
    if core.installing() {
        return Err(StepError::Installing);
    }
    match kind {
        Kind::MsgApp => check_append(message),
        Kind::MsgSnap => check_snapshot(message),
        Kind::MsgHeartbeat if message.term >= core.node.raft.term && message.commit > core.last_index() => {
            // etcd stops here: either the peer is mad or this manager's log was cut.
            Err(StepError::Malformed("it commits what is not in this log; was the log cut?"))
        }
        Kind::MsgAppResp if !message.reject && message.index > core.last_index() => {
            Err(StepError::Malformed("it acknowledges what was never sent"))
        }
        // Nobody can have been asked for a vote before this log was on the disk.
        Kind::MsgVoteResp | Kind::MsgPreVoteResp if core.has_unpersisted() => {
            Err(StepError::Malformed("it answers a vote that was not asked for"))
        }
        _ => Ok(()),
    }
}

fn check_append(message: &raftpb::Message) -> Result<(), StepError> {
    if message.log_term > message.term || (message.index > 0) != (message.log_term > 0) {
        return Err(StepError::Malformed("its log term"));
    }
    let mut term = message.log_term;
    for (at, entry) in message.entries.iter().enumerate() {
        if Some(entry.index) != message.index.checked_add(1 + at as u64) {
            return Err(StepError::Malformed("its entries do not follow each other"));
        }
        if entry.term < term.max(1) || entry.term > message.term {
            return Err(StepError::Malformed("the terms of its entries"));
        }
        term = entry.term;
    }
    Ok(())
}

fn check_snapshot(message: &raftpb::Message) -> Result<(), StepError> {
    let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let Some(metadata) = metadata.filter(|metadata| metadata.index > 0) else {
        return Err(StepError::Malformed("it has no snapshot"));
    };
    if metadata.term == 0 || metadata.term > message.term {
        return Err(StepError::Malformed("its snapshot's term"));
    }
    let conf = metadata.conf_state.clone().unwrap_or_default();
    let voters: BTreeSet<_> = conf.voters.iter().copied().filter(|id| *id != 0).collect();
    let joint = !conf.voters_outgoing.is_empty() || !conf.learners.is_empty() || !conf.learners_next.is_empty();
    if voters.is_empty() || voters.len() != conf.voters.len() || joint {
        return Err(StepError::Malformed("its snapshot's configuration"));
    }
    let data = message.snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.data);
    p::Snapshot::decode(data).map_err(|_| StepError::Malformed("its snapshot's data")).map(drop)
}

impl Core {
    /// Whether an entry is not known to be on the disk.
    pub(super) fn has_unpersisted(&self) -> bool {
        let log = &self.node.raft.raft_log;
        log.persisted < log.store().last_index().unwrap_or_default().max(log.last_index())
    }
}
