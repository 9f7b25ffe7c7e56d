//! Several cores in one thread, on virtual time. The disk forgets what it was not given time to write.

use std::collections::BTreeSet;

use super::*;

/// What survives a crash, and what does not yet.
#[derive(Default)]
struct Disk {
    snapshot: Option<raftpb::Snapshot>,
    records: Vec<Record>,
    /// Written, not synced, by output.
    pending: Vec<(Output, bool)>,
}

struct Manager {
    member: p::RaftMember,
    core: Option<Core>,
    disk: Disk,
    /// Identifiers of the applied requests, in order; restored from snapshots.
    state: Vec<u64>,
    settled: BTreeMap<Ticket, Result<u64, ChangeError>>,
    /// The disk does nothing.
    stuck: bool,
}

struct Group {
    managers: BTreeMap<u64, Manager>,
    network: VecDeque<raftpb::Message>,
    /// From, to.
    cut: BTreeSet<(u64, u64)>,
    snapshots: SnapshotPolicy,
    pre_vote: bool,
    sent_snapshots: usize,
}

fn member(raft_id: u64) -> p::RaftMember {
    p::RaftMember { raft_id, node_id: format!("n{raft_id}"), addr: format!("m{raft_id}:2377"), status: None }
}

fn state_of(ids: &[u64]) -> p::StoreSnapshot {
    let tasks = ids.iter().map(|id| p::Task { slot: *id, ..Default::default() }).collect();
    p::StoreSnapshot { tasks, ..Default::default() }
}

fn ids_of(state: &p::StoreSnapshot) -> Vec<u64> {
    state.tasks.iter().map(|task| task.slot).collect()
}

fn request(id: u64) -> Vec<u8> {
    p::InternalRaftRequest { id, action: Vec::new() }.encode_to_vec()
}

impl Group {
    /// A group of one, number 1.
    fn found() -> Self {
        let mut group = Self {
            managers: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            snapshots: SnapshotPolicy { interval: 0, keep_entries: 5 },
            pre_vote: true,
            sent_snapshots: 0,
        };
        group.start(1, Beginning::Found);
        group.core(1).campaign();
        group.settle();
        assert!(group.core(1).leads_caught_up());
        group
    }

    /// A group of `count` that has grown from one.
    fn of(count: u64) -> Self {
        let mut group = Self::found();
        for id in 2..=count {
            group.join(id);
        }
        group
    }

    fn start(&mut self, id: u64, beginning: Beginning) {
        let manager = self.managers.entry(id).or_insert_with(|| Manager {
            member: member(id),
            core: None,
            disk: Disk::default(),
            state: Vec::new(),
            settled: BTreeMap::new(),
            stuck: false,
        });
        let mut stored = Stored::from_records(manager.disk.snapshot.clone(), manager.disk.records.clone()).unwrap();
        manager.disk.records.extend(begin(&beginning, &manager.member, &mut stored));
        let known = if let Beginning::Join { members } = beginning { members } else { Vec::new() };
        let config = CoreConfig {
            raft_id: id,
            seed: 7,
            election_ticks: 10,
            heartbeat_ticks: 1,
            pre_vote: self.pre_vote,
            snapshots: self.snapshots,
            known,
        };
        let loaded = Core::load(config, stored).unwrap();
        manager.state = loaded.state.as_ref().map(ids_of).unwrap_or_default();
        manager.core = Some(loaded.core);
        self.settle();
    }

    /// What was not synced is gone; of the oldest unsynced write `torn` records remain.
    fn crash(&mut self, id: u64, torn: usize) {
        let manager = self.managers.get_mut(&id).unwrap();
        manager.core = None;
        manager.stuck = false;
        let pending = std::mem::take(&mut manager.disk.pending);
        if let Some((output, _)) = pending.into_iter().find(|(output, _)| !output.records.is_empty()) {
            manager.disk.records.extend(output.records.into_iter().take(torn));
        }
    }

    fn restart(&mut self, id: u64) {
        self.crash(id, 0);
        self.start(id, Beginning::Restart);
    }

    fn core(&mut self, id: u64) -> &mut Core {
        self.managers.get_mut(&id).unwrap().core.as_mut().unwrap()
    }

    fn leader(&mut self) -> Option<u64> {
        let ids: Vec<_> = self.managers.keys().copied().collect();
        ids.into_iter().find(|id| self.managers[id].core.as_ref().is_some_and(Core::leads_caught_up))
    }

    /// Runs until nobody has anything to do.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let ids: Vec<_> = self.managers.keys().copied().collect();
            let busy = ids.into_iter().any(|id| self.pump(id));
            let Some(message) = self.network.pop_front() else {
                if busy {
                    continue;
                }
                return;
            };
            self.deliver(message);
        }
        panic!("the group does not come to rest");
    }

    fn deliver(&mut self, mut message: raftpb::Message) {
        let (from, to) = (message.from, message.to);
        let reached = !self.cut.contains(&(from, to));
        let snapshot = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()).map(|at| at.index);
        let mut delivered = reached;
        if let Some(index) = snapshot {
            let stored = self.managers[&from].disk.snapshot.clone();
            let stored = stored.filter(|stored| stored.metadata.as_ref().is_some_and(|at| at.index == index));
            delivered &= stored.is_some();
            message.snapshot.as_mut().unwrap().data = stored.map(|stored| stored.data).unwrap_or_default();
        }
        let receiver = self.managers.get_mut(&to).and_then(|manager| manager.core.as_mut());
        delivered &= receiver.is_some();
        if let Some(core) = receiver.filter(|_| delivered) {
            // As between managers: nobody is told but a removed sender.
            core.step(message).ok();
            self.sent_snapshots += usize::from(snapshot.is_some());
        }
        let Some(sender) = self.managers.get_mut(&from).and_then(|manager| manager.core.as_mut()) else { return };
        if snapshot.is_some() {
            sender.report_snapshot(to, if delivered { Delivery::Done } else { Delivery::Failed });
        }
        if !delivered {
            sender.report_unreachable(to);
        }
    }

    /// One manager's shell: returns whether there was anything to do.
    fn pump(&mut self, id: u64) -> bool {
        let manager = self.managers.get_mut(&id).unwrap();
        let Some(core) = &mut manager.core else { return false };
        let mut busy = false;
        while let Some(mut output) = core.output() {
            busy = true;
            self.network.extend(std::mem::take(&mut output.messages));
            for entry in std::mem::take(&mut output.apply) {
                if let Payload::Request(data) = entry.payload {
                    manager.state.push(p::InternalRaftRequest::decode(data.as_slice()).unwrap().id);
                }
            }
            manager.settled.extend(std::mem::take(&mut output.settled));
            if let Some(due) = output.snapshot_due.take() {
                let snapshot = due.with_state(state_of(&manager.state));
                let index = snapshot.metadata.as_ref().unwrap().index;
                let bytes = snapshot.data.len() as u64;
                manager.disk.snapshot = Some(snapshot);
                core.snapshot_stored(index, bytes);
            }
            manager.disk.pending.push((output, false));
        }
        if !manager.stuck && !manager.disk.pending.is_empty() {
            busy = true;
            self.sync(id);
        }
        busy
    }

    /// The disk is done with all that it was given.
    fn sync(&mut self, id: u64) {
        let manager = self.managers.get_mut(&id).unwrap();
        for (output, _) in std::mem::take(&mut manager.disk.pending) {
            manager.disk.records.extend(output.records);
            if let Some(snapshot) = output.install {
                let state = p::Snapshot::decode(snapshot.data.as_slice()).unwrap();
                manager.state = ids_of(&state.store.unwrap());
                manager.disk.snapshot = Some(snapshot);
            }
            if let Some(core) = &mut manager.core {
                core.persisted(output.number);
                self.network.extend(output.after);
            }
        }
    }

    fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            for manager in self.managers.values_mut() {
                if let Some(core) = &mut manager.core {
                    core.tick();
                }
            }
            self.settle();
        }
    }

    fn propose(&mut self, id: u64, request_id: u64) {
        self.core(id).propose(vec![request(request_id)]).unwrap();
        self.settle();
    }

    fn change(&mut self, id: u64, change: MemberChange) -> Result<u64, ChangeError> {
        let ticket = self.core(id).change_membership(change)?;
        self.settle();
        self.managers[&id].settled[&ticket]
    }

    fn join(&mut self, id: u64) {
        let leader = self.leader().unwrap();
        self.change(leader, MemberChange::Add(member(id))).unwrap();
        let members = self.core(leader).membership().members.values().cloned().collect();
        self.start(id, Beginning::Join { members });
        self.ticks(3);
        assert_eq!(self.managers[&id].state, self.managers[&leader].state);
    }

    fn isolate(&mut self, id: u64) {
        let others: Vec<_> = self.managers.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.cut.extend([(id, other), (other, id)]);
        }
    }

    fn check_equal(&mut self) {
        self.ticks(3);
        let running = self.managers.values().filter(|manager| manager.core.as_ref().is_some_and(|c| !c.is_removed()));
        let mut running = running.map(|manager| (&manager.state, manager.core.as_ref().unwrap().membership()));
        let first = running.next().unwrap();
        assert!(running.all(|other| other == first));
    }
}

#[test]
fn a_group_grows_replicates_and_replaces_its_leader() {
    let mut group = Group::of(3);
    assert_eq!(group.core(3).voters(), [1, 2, 3]);
    for id in 1..=20 {
        group.propose(1, id);
    }
    group.check_equal();
    assert_eq!(group.managers[&3].state, (1..=20).collect::<Vec<_>>());
    assert_eq!(group.core(2).membership().members[&1].addr, "m1:2377", "from the founder's own entry");
    group.crash(1, 0);
    group.ticks(25);
    let leader = group.leader().unwrap();
    assert_ne!(leader, 1);
    group.propose(leader, 21);
    group.start(1, Beginning::Restart);
    group.check_equal();
    assert_eq!(group.managers[&1].state.len(), 21);
}

#[test]
fn the_leader_sends_before_its_own_disk_is_done_and_acknowledges_after() {
    let mut group = Group::of(3);
    group.managers.get_mut(&1).unwrap().stuck = true;
    group.propose(1, 1);
    // The others have it, and have it committed; here it is not applied yet.
    assert_eq!(group.core(1).committed_index(), group.core(1).last_index());
    assert!(group.managers[&1].state.is_empty());
    // A slow disk keeps nobody from beating.
    group.ticks(30);
    assert_eq!(group.leader(), Some(1));
    group.managers.get_mut(&1).unwrap().stuck = false;
    group.check_equal();
    assert_eq!(group.managers[&1].state, [1]);
}

#[test]
fn a_follower_acknowledges_nothing_before_its_disk_is_done() {
    let mut group = Group::of(3);
    for id in [2, 3] {
        group.managers.get_mut(&id).unwrap().stuck = true;
    }
    let committed = group.core(1).committed_index();
    group.propose(1, 1);
    group.ticks(30);
    assert_eq!(group.core(1).committed_index(), committed);
    assert_eq!(group.leader(), Some(1), "heartbeats are answered all the same");
    // Crashed before the sync: nothing of it was promised.
    group.crash(2, 1);
    group.start(2, Beginning::Restart);
    group.managers.get_mut(&3).unwrap().stuck = false;
    group.check_equal();
    assert_eq!(group.managers[&2].state, [1]);
}

#[test]
fn a_vote_is_remembered() {
    let mut group = Group::of(3);
    group.pre_vote = false;
    group.isolate(1);
    group.ticks(25);
    let leader = group.leader().unwrap();
    let voter = 5 - leader;
    let term = group.core(leader).term();
    group.restart(voter);
    assert_eq!(group.core(voter).term(), term);
    assert_eq!(group.core(voter).node.raft.vote, leader);
}

#[test]
fn a_leader_without_a_quorum_steps_down_and_its_entries_go() {
    let mut group = Group::of(3);
    group.isolate(1);
    group.propose(1, 66);
    group.ticks(40);
    assert_ne!(group.core(1).role(), Role::Leader);
    let leader = group.leader().unwrap();
    group.propose(leader, 1);
    group.cut.clear();
    group.ticks(20);
    group.check_equal();
    assert_eq!(group.managers[&1].state, [1]);
}

#[test]
fn with_pre_vote_a_manager_that_comes_back_disturbs_nobody() {
    for pre_vote in [true, false] {
        let mut group = Group::found();
        group.pre_vote = pre_vote;
        group.core(1).set_pre_vote(pre_vote);
        group.join(2);
        group.join(3);
        let term = group.core(1).term();
        group.isolate(3);
        group.ticks(100);
        group.cut.clear();
        group.ticks(40);
        assert_eq!(group.core(1).term() == term, pre_vote);
        let leader = group.leader().unwrap();
        group.propose(leader, 1);
        group.check_equal();
    }
}

#[test]
fn one_way_cuts_heal() {
    let mut group = Group::of(3);
    group.cut.extend([(1, 2), (1, 3)]);
    group.ticks(60);
    let leader = group.leader().unwrap();
    assert_ne!(leader, 1);
    group.propose(leader, 1);
    group.cut.clear();
    group.ticks(30);
    group.check_equal();
}

#[test]
fn a_slow_follower_gets_a_snapshot_with_members_and_removed() {
    let mut group = Group::found();
    group.snapshots = SnapshotPolicy { interval: 10, keep_entries: 2 };
    let policy = group.snapshots;
    group.core(1).set_snapshot_policy(policy);
    for id in [2, 3, 4] {
        group.join(id);
    }
    group.isolate(2);
    for id in 1..=30 {
        group.propose(1, id);
    }
    group.change(1, MemberChange::Remove(4)).unwrap();
    for id in 31..=60 {
        group.propose(1, id);
    }
    // Joined after the snapshot that it gets: it must find itself in its configuration.
    group.join(5);
    assert_eq!(group.managers[&5].state.len(), 60);
    group.cut.clear();
    let before = group.sent_snapshots;
    group.ticks(5);
    assert!(group.sent_snapshots > before);
    group.check_equal();
    assert_eq!(group.core(2).membership().removed, [4].into());
    assert_eq!(group.core(2).voters(), [1, 2, 3, 5]);
    for id in [2, 5] {
        group.restart(id);
        group.check_equal();
        assert_eq!(group.core(id).voters(), [1, 2, 3, 5]);
    }
}

#[test]
fn a_snapshot_counts_when_it_is_on_the_disk() {
    let mut group = Group::of(3);
    group.core(1).set_snapshot_policy(SnapshotPolicy { interval: 10, keep_entries: 0 });
    group.isolate(3);
    for id in 1..=40 {
        group.propose(1, id);
    }
    group.managers.get_mut(&3).unwrap().stuck = true;
    group.cut.clear();
    group.ticks(3);
    assert!(group.core(3).installing());
    // Time and messages do nothing until then.
    group.ticks(60);
    let heartbeat = raftpb::Message { kind: 8, to: 3, from: 1, term: 99, ..Default::default() };
    assert_eq!(group.core(3).step(heartbeat), Err(StepError::Installing));
    group.crash(3, 0);
    group.start(3, Beginning::Restart);
    assert_eq!(group.managers[&3].state, [] as [u64; 0]);
    group.check_equal();
    assert_eq!(group.managers[&3].state.len(), 40);
}

/// A request of about this size: what it has too much is a field that nobody knows.
fn large_request(id: u64, bytes: u64) -> Vec<u8> {
    let mut request = request(id);
    prost::encoding::bytes::encode(99, &vec![0; bytes as usize], &mut request);
    request
}

#[test]
fn many_bytes_of_log_call_for_a_snapshot_before_many_entries_do() {
    const STEP: u64 = 4 << 20;
    let mut group = Group::found();
    group.core(1).set_snapshot_policy(SnapshotPolicy { interval: 1_000_000, keep_entries: 1_000_000 });
    // Proposes until there is a snapshot, and says how many bytes of entries that took.
    let until_snapshot = |group: &mut Group| {
        let before = group.core(1).snapshot_index();
        let mut bytes = 0;
        while group.core(1).snapshot_index() == before {
            assert!(bytes <= 4 * MAX_LOG_BYTES, "no snapshot comes");
            bytes += STEP;
            group.core(1).propose(vec![large_request(bytes, STEP)]).unwrap();
            group.settle();
        }
        bytes
    };
    assert_eq!(until_snapshot(&mut group), MAX_LOG_BYTES);
    let kept = raft::Storage::first_index(group.core(1).node.store()).unwrap();
    let in_memory = group.core(1).last_index() + 1 - kept;
    assert_eq!(in_memory, (MAX_KEPT_BYTES / STEP) - 1, "as many as fit with what each has beside its data");
    // As many bytes of log as the snapshot has.
    let index = group.core(1).snapshot_index();
    group.core(1).snapshot_stored(index, MAX_LOG_BYTES + 2 * STEP);
    assert_eq!(until_snapshot(&mut group), MAX_LOG_BYTES + 2 * STEP);
    // A policy of none is one of none.
    group.core(1).set_snapshot_policy(SnapshotPolicy { interval: 0, keep_entries: 0 });
    let index = group.core(1).snapshot_index();
    for id in 0..=MAX_LOG_BYTES / STEP {
        group.core(1).propose(vec![large_request(id, STEP)]).unwrap();
        group.settle();
    }
    assert_eq!(group.core(1).snapshot_index(), index);
}

#[test]
fn addresses_change_without_a_learner() {
    let mut group = Group::of(3);
    let moved = p::RaftMember { addr: "elsewhere:2377".into(), ..member(2) };
    group.change(1, MemberChange::Update(moved.clone())).unwrap();
    group.check_equal();
    for id in 1..=3 {
        assert_eq!(group.core(id).membership().members[&2], moved);
        assert_eq!(group.core(id).voters(), [1, 2, 3]);
    }
    // The mark of a change under way is gone: the next one passes.
    group.join(4);
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let mut group = Group::of(2);
    let mut check = |change, expected| assert_eq!(group.change(1, change), Err(expected));
    check(MemberChange::Add(member(0)), ChangeError::NoNumber);
    check(MemberChange::Add(member(2)), ChangeError::Exists);
    check(MemberChange::Add(p::RaftMember { raft_id: 9, ..member(2) }), ChangeError::Exists);
    check(MemberChange::Update(member(9)), ChangeError::NotMember);
    check(MemberChange::Remove(9), ChangeError::NotMember);
    group.change(1, MemberChange::Remove(2)).unwrap();
    assert_eq!(group.change(1, MemberChange::Remove(1)), Err(ChangeError::LastMember));
    assert_eq!(group.change(1, MemberChange::Add(member(2))), Err(ChangeError::Removed));
    assert_eq!(group.core(2).change_membership(MemberChange::Remove(1)), Err(ChangeError::LostLeadership));
}

#[test]
fn changes_wait_for_each_other_up_to_a_limit() {
    let mut group = Group::of(3);
    let tickets: Vec<_> =
        (10..26).map(|id| group.core(1).change_membership(MemberChange::Add(member(id))).unwrap()).collect();
    let one_more = group.core(1).change_membership(MemberChange::Add(member(99)));
    assert_eq!(one_more, Err(ChangeError::Busy));
    // 4 of 6 never answer: the group stops growing there, and nothing is settled that did not happen.
    group.settle();
    let settled = &group.managers[&1].settled;
    assert!(settled.contains_key(&tickets[0]));
    assert!(!settled.contains_key(&tickets[15]));
    group.ticks(40);
    assert_eq!(group.managers[&1].settled[&tickets[15]], Err(ChangeError::LostLeadership));
}

#[test]
fn a_removed_leader_is_followed_at_once() {
    for removed_by_others in [false, true] {
        let mut group = Group::of(3);
        group.propose(1, 1);
        group.change(1, MemberChange::Remove(1)).unwrap();
        assert!(group.core(1).is_removed());
        assert_eq!(group.core(1).role(), Role::Follower);
        // No tick passed.
        assert_eq!(group.leader(), Some(2));
        if removed_by_others {
            let message = raftpb::Message { kind: 5, to: 2, from: 1, term: 99, ..Default::default() };
            assert_eq!(group.core(2).step(message), Err(StepError::SenderRemoved));
        }
        group.propose(2, 2);
        group.ticks(30);
        assert_eq!(group.leader(), Some(2));
        assert_eq!(group.managers[&3].state, [1, 2]);
        assert_eq!(group.managers[&1].state, [1]);
    }
}

#[test]
fn leadership_is_handed_over() {
    for pre_vote in [true, false] {
        let mut group = Group::of(3);
        group.core(1).set_pre_vote(pre_vote);
        group.core(1).transfer_leadership(3).unwrap();
        group.settle();
        assert_eq!(group.leader(), Some(3));
        assert_eq!(group.core(1).leader(), 3);
        // Nobody answers: it is given up after an election time-out.
        group.isolate(2);
        group.core(3).transfer_leadership(2).unwrap();
        assert_eq!(group.core(3).propose(vec![request(1)]), Err(Dropped));
        group.ticks(12);
        assert_eq!(group.core(3).transferring(), None);
        group.propose(3, 1);
        assert_eq!(group.core(3).transfer_leadership(9), Err(Dropped));
    }
}

#[test]
fn a_lost_quorum_is_replaced_by_a_new_group() {
    let mut group = Group::of(3);
    for id in 1..=5 {
        group.propose(1, id);
    }
    // Entry 6 is on 1 and 2, which acknowledged it; 1 and 3 are lost for ever.
    group.isolate(3);
    group.propose(1, 6);
    assert_eq!(group.managers[&1].state.len(), 6);
    group.isolate(1);
    group.crash(1, 0);
    group.crash(3, 0);
    group.crash(2, 0);
    group.managers.get_mut(&2).unwrap().member.addr = "new:2377".into();
    group.start(2, Beginning::ForceNewCluster);
    group.core(2).campaign();
    group.settle();
    assert!(group.core(2).leads_caught_up());
    assert_eq!(group.core(2).voters(), [2]);
    assert_eq!(group.managers[&2].state, [1, 2, 3, 4, 5, 6]);
    assert_eq!(group.core(2).membership().removed, [1, 3].into());
    assert_eq!(group.core(2).membership().members[&2].addr, "new:2377");
    group.propose(2, 7);
    // The others are told when they come back, and the next ones join.
    let message = raftpb::Message { kind: 5, to: 2, from: 1, term: 99, ..Default::default() };
    assert_eq!(group.core(2).step(message), Err(StepError::SenderRemoved));
    group.managers.retain(|id, _| *id == 2);
    group.cut.clear();
    group.join(8);
    group.restart(2);
    group.ticks(25);
    let leader = group.leader().unwrap();
    group.propose(leader, 8);
    group.check_equal();
}

#[test]
fn a_joiner_never_campaigns_before_it_has_a_configuration() {
    let mut group = Group::found();
    group.start(9, Beginning::Join { members: vec![member(1)] });
    group.ticks(100);
    group.core(9).campaign();
    group.settle();
    assert_eq!((group.core(9).term(), group.core(9).role()), (0, Role::Follower));
}

#[test]
fn messages_that_make_no_sense_are_dropped() {
    let mut group = Group::of(3);
    group.propose(1, 1);
    let term = group.core(1).term();
    let last = group.core(1).last_index();
    let good = raftpb::Message { kind: 8, to: 2, from: 1, term, ..Default::default() };
    let mut check = |expected: &str, message: raftpb::Message| {
        let error = group.core(2).step(message).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let at = |index| raftpb::Entry { index, term, ..Default::default() };
    let snapshot = |metadata, data: &[u8]| Some(raftpb::Snapshot { data: data.to_vec(), metadata: Some(metadata) });
    let voters = |voters: &[u64]| Some(raftpb::ConfState { voters: voters.to_vec(), ..Default::default() });
    let metadata = raftpb::SnapshotMetadata { index: last + 5, term, conf_state: voters(&[1, 2]) };
    check("for 3", raftpb::Message { to: 3, ..good.clone() });
    check("no term", raftpb::Message { term: 0, ..good.clone() });
    check("sender", raftpb::Message { from: 2, ..good.clone() });
    check("sender", raftpb::Message { from: 0, ..good.clone() });
    check("log cut", raftpb::Message { commit: last + 1, ..good.clone() });
    check("kind 2", raftpb::Message { kind: 2, ..good.clone() });
    check("kind 99", raftpb::Message { kind: 99, ..good.clone() });
    check("no member", raftpb::Message { kind: 5, from: 77, ..good.clone() });
    let append = raftpb::Message { kind: 3, index: last, log_term: term, ..good.clone() };
    check("follow", raftpb::Message { entries: vec![at(last + 2)], ..append.clone() });
    let newer = raftpb::Entry { term: term + 1, ..at(last + 1) };
    check("terms", raftpb::Message { entries: vec![newer], ..append.clone() });
    check("log term", raftpb::Message { log_term: 0, ..append.clone() });
    let snap = raftpb::Message { kind: 7, ..good.clone() };
    check("no snapshot", snap.clone());
    let offered = |metadata, data| raftpb::Message { snapshot: snapshot(metadata, data), ..snap.clone() };
    check("data", offered(metadata.clone(), b"\xff\xff"));
    check("configuration", offered(raftpb::SnapshotMetadata { conf_state: voters(&[]), ..metadata.clone() }, b""));
    check("configuration", offered(raftpb::SnapshotMetadata { conf_state: voters(&[1, 1]), ..metadata.clone() }, b""));
    check("term", offered(raftpb::SnapshotMetadata { term: term + 1, ..metadata }, b""));
    let error = group.core(1).step(raftpb::Message { kind: 4, to: 1, from: 2, term, index: 999, ..Default::default() });
    assert_eq!(error, Err(StepError::Malformed("it acknowledges what was never sent")));
    // It answers nothing that was asked, and means nothing.
    group.core(1).step(raftpb::Message { kind: 6, to: 1, from: 2, term, ..Default::default() }).unwrap();
    group.propose(1, 2);
    group.check_equal();
}

#[test]
fn an_entry_of_an_unknown_kind_is_skipped() {
    let mut group = Group::of(2);
    let mut entry = eraftpb::Entry::new();
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    // `ConfChangeV2{changes: [{}]}`: the library asks for one change at least.
    entry.data = vec![0x12, 0x00].into();
    group.core(1).append(vec![entry]).unwrap();
    group.settle();
    group.propose(1, 1);
    group.check_equal();
    assert_eq!(group.managers[&2].state, [1]);
}

#[test]
fn large_batches_are_sent_in_messages_that_fit() {
    let mut group = Group::of(2);
    let big = |id| {
        let task = p::Task { id: "x".repeat(9_000), ..Default::default() };
        let action = p::StoreAction { action: 1, target: Some(p::store_action::Target::Task(task)) };
        p::InternalRaftRequest { id, action: vec![action] }.encode_to_vec()
    };
    let appended = group.core(1).propose((1..=50).map(big).collect()).unwrap();
    assert_eq!(appended.first_index + 49, group.core(1).last_index());
    let output = group.core(1).output().unwrap();
    assert!(output.messages.len() >= 7);
    assert!(output.messages.iter().all(|message| message.encoded_len() <= MAX_MESSAGE_BYTES + 1_024));
    group.network.extend(output.messages);
    for record in output.records {
        group.managers.get_mut(&1).unwrap().disk.records.push(record);
    }
    group.core(1).persisted(output.number);
    group.check_equal();
    assert_eq!(group.managers[&2].state, (1..=50).collect::<Vec<_>>());
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = || {
        let mut group = Group::of(5);
        let mut trace = Vec::new();
        for round in 0..6 {
            let leader = group.leader().unwrap();
            group.propose(leader, round);
            group.crash(leader, 0);
            group.ticks(45);
            group.start(leader, Beginning::Restart);
            group.ticks(5);
            trace.push((leader, group.leader(), group.core(leader).term(), group.core(leader).last_index()));
        }
        trace
    };
    assert_eq!(run(), run());
}

/// Managers fall over again and again, with whatever part of a write on their disks.
#[test]
fn nothing_acknowledged_is_lost_in_crashes() {
    for seed in 0..20_u64 {
        let mut group = Group::of(3);
        group.core(1).set_snapshot_policy(SnapshotPolicy { interval: 15, keep_entries: 3 });
        let mut mix = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: u64| {
            mix ^= mix << 13;
            mix ^= mix >> 7;
            mix ^= mix << 17;
            mix % below
        };
        let mut acknowledged = Vec::new();
        let mut next = 0;
        for _ in 0..60 {
            if let Some(leader) = group.leader() {
                next += 1;
                let slow = 1 + draw(3);
                group.managers.get_mut(&slow).unwrap().stuck = draw(2) == 0;
                group.core(leader).propose(vec![request(next)]).ok();
                group.settle();
                if group.managers[&leader].state.contains(&next) {
                    acknowledged.push(next);
                }
            }
            let victim = 1 + draw(3);
            group.crash(victim, draw(3) as usize);
            group.start(victim, Beginning::Restart);
            group.ticks(draw(30) as usize);
        }
        for manager in group.managers.values_mut() {
            manager.stuck = false;
        }
        group.ticks(60);
        group.check_equal();
        let state = &group.managers[&1].state;
        assert!(acknowledged.iter().all(|id| state.contains(id)), "seed {seed}");
        assert!(acknowledged.len() > 10, "seed {seed}: {}", acknowledged.len());
    }
}
