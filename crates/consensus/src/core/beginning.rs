//! How a manager begins: what must be in its log before the core is loaded.

use std::collections::BTreeSet;

use prost::Message;
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;

use super::load::{Record, Stored};
use super::membership::{MemberChange, Membership};

/// How a manager begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Beginning {
    /// A new group of one. A log that holds something is a founding that was interrupted: it is gone on with.
    Found,
    /// An empty log that the leader will fill. The members are those that answered the Join.
    Join {
        /// All members with their addresses.
        members: Vec<p::RaftMember>,
    },
    /// From what is on the disk.
    Restart,
    /// From what is on the disk, alone: every other member is removed.
    ForceNewCluster,
}

/// The records that a beginning puts behind what is stored; they must be on the disk before the core is loaded from
/// both. `stored` is changed to what a load after that would find.
pub fn begin(beginning: &Beginning, member: &p::RaftMember, stored: &mut Stored) -> Vec<Record> {
    let records = match beginning {
        Beginning::Found if stored.is_empty() => founding(member),
        Beginning::ForceNewCluster if !stored.is_empty() => alone(member, stored),
        Beginning::Found | Beginning::ForceNewCluster | Beginning::Join { .. } | Beginning::Restart => Vec::new(),
    };
    for record in &records {
        match record {
            Record::HardState(state) => stored.hard_state = *state,
            Record::Entry(entry) => stored.entries.push(entry.clone()),
            Record::Installed { .. } => {}
        }
    }
    records
}

/// The founder's membership is the first entry, as etcd's `StartNode` writes it: joiners learn of the founder from it.
fn founding(member: &p::RaftMember) -> Vec<Record> {
    let change = MemberChange::Add(member.clone()).to_conf_change(member.raft_id);
    vec![
        Record::HardState(raftpb::HardState { term: 1, vote: 0, commit: 1 }),
        Record::Entry(conf_change_entry(1, 1, &change)),
    ]
}

/// Removes everybody else.
///
/// SwarmKit drops the entries that its hard state does not call committed. Here they stay and are committed: this manager
/// may have acknowledged them as a follower, or as the leader before the commit index reached the disk.
fn alone(member: &p::RaftMember, stored: &Stored) -> Vec<Record> {
    let (voters, membership) = replay(stored);
    let last_term = stored.entries.last().map_or(0, |entry| entry.term);
    let term = stored.hard_state.term.max(last_term);
    let mut changes: Vec<_> =
        voters.iter().filter(|id| **id != member.raft_id).map(|id| MemberChange::Remove(*id)).collect();
    match membership.members.get(&member.raft_id) {
        Some(known) if voters.contains(&member.raft_id) => {
            if known.addr != member.addr {
                changes.push(MemberChange::Update(member.clone()));
            }
        }
        // First, so that the group is never empty.
        _ => changes.insert(0, MemberChange::Add(member.clone())),
    }
    let mut index = stored.last_index();
    let mut entries = Vec::new();
    for change in changes {
        index += 1;
        // Unique in this log, and that is all that is asked of it.
        let change = change.to_conf_change(index ^ member.raft_id);
        entries.push(Record::Entry(conf_change_entry(index, term, &change)));
    }
    let state = raftpb::HardState { term, commit: index, ..stored.hard_state };
    std::iter::once(Record::HardState(state)).chain(entries).collect()
}

/// Voters and members at the end of the log.
fn replay(stored: &Stored) -> (BTreeSet<u64>, Membership) {
    let mut voters = BTreeSet::new();
    let mut membership = Membership::default();
    if let Some(snapshot) = &stored.snapshot {
        let conf_state = snapshot.metadata.as_ref().and_then(|metadata| metadata.conf_state.as_ref());
        voters.extend(conf_state.into_iter().flat_map(|state| state.voters.iter().copied()));
        let state = p::Snapshot::decode(snapshot.data.as_slice()).unwrap_or_default();
        membership = Membership::from_snapshot(state.membership.unwrap_or_default());
    }
    for entry in stored.entries.iter().filter(|entry| entry.r#type == 1) {
        let Ok(change) = raftpb::ConfChange::decode(entry.data.as_slice()) else { continue };
        membership.apply(&change);
        match change.kind {
            0 if change.node_id != 0 => drop(voters.insert(change.node_id)),
            1 => drop(voters.remove(&change.node_id)),
            _ => {}
        }
    }
    (voters, membership)
}

fn conf_change_entry(index: u64, term: u64, change: &raftpb::ConfChange) -> raftpb::Entry {
    raftpb::Entry { r#type: 1, term, index, data: change.encode_to_vec() }
}
