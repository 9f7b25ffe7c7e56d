//! Where the group stands, as one manager sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use swarm_proto::swarmkit as p;

/// Where the group stands, as this manager sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// This manager's number in the group.
    pub raft_id: u64,
    /// This manager leads and has applied all that earlier leaders committed.
    pub leading: bool,
    /// The leader's raft identifier; 0 for none.
    pub leader: u64,
    /// The term.
    pub term: u64,
    /// The last applied index. Changes of it alone wake nobody.
    pub applied: u64,
    /// All members by raft identifier.
    pub members: BTreeMap<u64, p::RaftMember>,
    /// All that were members.
    pub removed: BTreeSet<u64>,
    /// Since when each other member has taken every message. One that did not take the last is not in here; neither is
    /// one that nothing was sent to yet. Only the leader sends to all.
    pub active_since: BTreeMap<u64, Instant>,
    /// This manager is no member any more, by the log or by a peer's word. Its driver has ended.
    pub removed_from_group: bool,
    /// The old DEK is still needed to read what is on the disk.
    pub rotating_dek: bool,
    /// Why the driver ended, if it did by itself.
    pub failed: Option<String>,
}

impl Status {
    /// Whether a member can be reached: this manager, or one that takes our messages.
    pub fn is_reachable(&self, raft_id: u64) -> bool {
        raft_id == self.raft_id || self.active_since.contains_key(&raft_id)
    }

    /// Whether the group keeps its quorum when this member goes: of those who stay, enough can be reached.
    pub fn can_remove(&self, raft_id: u64) -> bool {
        let stay = self.members.keys().filter(|id| **id != raft_id);
        let reachable = stay.filter(|id| self.is_reachable(**id)).count();
        let quorum = self.members.len().saturating_sub(1) / 2 + 1;
        reachable >= quorum
    }

    /// The member that has been taking our messages for the longest time.
    pub fn longest_active(&self) -> Option<u64> {
        let known = self.active_since.iter().filter(|(id, _)| self.members.contains_key(id));
        known.min_by_key(|(id, since)| (**since, **id)).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(members: u64, reachable: &[u64], remove: u64, expected: bool) {
        let members = (1..=members).map(|id| (id, p::RaftMember { raft_id: id, ..Default::default() })).collect();
        let active_since = reachable.iter().map(|id| (*id, Instant::now())).collect();
        let status = Status { raft_id: 1, members, active_since, ..Default::default() };
        assert_eq!(status.can_remove(remove), expected, "{reachable:?} without {remove}");
    }

    #[test]
    fn a_removal_must_leave_a_quorum_that_can_be_reached() {
        check(3, &[2, 3], 3, true);
        check(3, &[2], 3, true);
        check(3, &[2], 2, false);
        check(3, &[], 3, false);
        check(2, &[2], 2, true);
        check(2, &[], 2, true);
        check(5, &[2, 3], 4, true);
        check(5, &[2], 4, false);
        check(1, &[], 1, false);
    }

    #[test]
    fn the_longest_active_member_is_asked() {
        let now = Instant::now();
        let later = now + std::time::Duration::from_secs(1);
        let member = |id| (id, p::RaftMember { raft_id: id, ..Default::default() });
        let status = Status {
            raft_id: 1,
            members: [member(1), member(2), member(3)].into(),
            active_since: [(2, later), (3, now), (9, now)].into(),
            ..Default::default()
        };
        assert_eq!(status.longest_active(), Some(3));
    }
}
