//! Who is in the group and who was: the address book that every manager builds from the log and from snapshots.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;

/// Members and removed ones, by raft identifier. Nobody is in both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    /// All members; their status is empty.
    pub members: BTreeMap<u64, p::RaftMember>,
    /// All that were members; an identifier is never used again.
    pub removed: BTreeSet<u64>,
}

/// A wish to change the group.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberChange {
    /// A new member.
    Add(p::RaftMember),
    /// A member's new address.
    Update(p::RaftMember),
    /// A member goes, by raft identifier.
    Remove(u64),
}

impl Membership {
    /// As a snapshot holds it.
    pub fn from_snapshot(snapshot: p::ClusterSnapshot) -> Self {
        let members = snapshot.members.into_iter().map(|member| (member.raft_id, member)).collect();
        Self { members, removed: snapshot.removed.into_iter().collect() }
    }

    /// For a snapshot.
    pub fn to_snapshot(&self) -> p::ClusterSnapshot {
        p::ClusterSnapshot {
            members: self.members.values().cloned().collect(),
            removed: self.removed.iter().copied().collect(),
        }
    }

    /// Takes a committed change.
    pub(super) fn apply(&mut self, change: &raftpb::ConfChange) {
        // etcd's mark of a change that was refused.
        if change.node_id == 0 {
            return;
        }
        match change.kind {
            1 => {
                self.members.remove(&change.node_id);
                self.removed.insert(change.node_id);
            }
            2 if !self.members.contains_key(&change.node_id) => {
                tracing::warn!(raft_id = change.node_id, "the address of an unknown member is not taken");
            }
            _ if self.removed.contains(&change.node_id) => {
                tracing::error!(raft_id = change.node_id, "a removed member was added again");
            }
            _ => {
                let member = p::RaftMember::decode(change.context.as_slice()).unwrap_or_default();
                let member = p::RaftMember { raft_id: change.node_id, status: None, ..member };
                self.members.insert(change.node_id, member);
            }
        }
    }
}

impl MemberChange {
    /// Whom it is about.
    pub fn raft_id(&self) -> u64 {
        match self {
            Self::Add(member) | Self::Update(member) => member.raft_id,
            Self::Remove(raft_id) => *raft_id,
        }
    }

    /// As it stands in the log: etcd's numbers, the member without its status.
    pub(super) fn to_conf_change(&self, id: u64) -> raftpb::ConfChange {
        let (kind, context) = match self {
            Self::Add(member) => (0, without_status(member)),
            Self::Remove(_) => (1, Vec::new()),
            Self::Update(member) => (2, without_status(member)),
        };
        raftpb::ConfChange { id, kind, node_id: self.raft_id(), context }
    }
}

fn without_status(member: &p::RaftMember) -> Vec<u8> {
    p::RaftMember { status: None, ..member.clone() }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(raft_id: u64, addr: &str) -> p::RaftMember {
        p::RaftMember { raft_id, node_id: format!("n{raft_id}"), addr: addr.to_owned(), status: None }
    }

    #[test]
    fn changes_and_snapshots_keep_members_and_removed() {
        let mut membership = Membership::default();
        let mut apply = |change: MemberChange| membership.apply(&change.to_conf_change(9));
        apply(MemberChange::Add(member(1, "a")));
        apply(MemberChange::Add(member(2, "b")));
        apply(MemberChange::Update(member(2, "c")));
        apply(MemberChange::Update(member(3, "x")));
        apply(MemberChange::Remove(1));
        apply(MemberChange::Add(member(1, "again")));
        membership.apply(&raftpb::ConfChange::default());
        assert_eq!(membership.members.into_iter().collect::<Vec<_>>(), [(2, member(2, "c"))]);
        let membership = Membership { members: [(2, member(2, "c"))].into(), removed: membership.removed };
        assert_eq!(membership.removed, [1].into());
        assert_eq!(Membership::from_snapshot(membership.to_snapshot()), membership);
    }
}
