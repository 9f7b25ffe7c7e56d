//! Drivers over gRPC on loopback: kill and restart, catching up by snapshot, removal, transfer, new groups, keys.

#[allow(dead_code, unreachable_pub, reason = "shared with the bench")]
mod group;

use std::path::Path;

use consensus::{Beginning, ChangeError, Dek, RotateError, SnapshotPolicy, TransferError};
use group::{Group, Speaks};
use swarm_proto::swarmkit as p;

fn parent() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_every_leader() {
    let parent = parent();
    let mut group = Group::of(parent.path(), 3).await;
    let mut next = 0;
    for _ in 0..4 {
        for _ in 0..20 {
            next += 1;
            group.write(next).await;
        }
        let leader = group.leader().await;
        group.kill(leader).await;
        next += 1;
        group.write(next).await;
        group.begin(leader, Beginning::Restart).await.unwrap();
    }
    group.leader().await;
    let mut state = group.equal().await;
    // A proposal that was not acknowledged may be there once more.
    state.dedup();
    assert_eq!(state, (1..=next).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_away_gets_a_large_snapshot_in_parts() {
    let parent = parent();
    let mut group = Group::new(parent.path());
    group.snapshots = SnapshotPolicy { interval: 50, keep_entries: 5 };
    // Three gRPC messages.
    group.ballast = 10 << 20;
    group.begin(1, Beginning::Found).await.unwrap();
    group.leader().await;
    group.join(2).await;
    group.join(3).await;
    let leader = group.leader().await;
    let away = if leader == 3 { 2 } else { 3 };
    group.kill(away).await;
    for id in 1..=120 {
        group.write(id).await;
    }
    group.begin(away, Beginning::Restart).await.unwrap();
    group.write(121).await;
    assert_eq!(group.equal().await, (1..=121).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_without_streams_are_spoken_to_message_by_message() {
    let parent = parent();
    let mut group = Group::new(parent.path());
    group.speaks = Speaks::Unary;
    group.begin(1, Beginning::Found).await.unwrap();
    group.leader().await;
    group.join(2).await;
    group.join(3).await;
    group.write(1).await;
    assert_eq!(group.equal().await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_members_learn_of_it_and_the_others_go_on() {
    let parent = parent();
    let mut group = Group::of(parent.path(), 3).await;
    let leader = group.leader().await;
    let raft = group.managers[&leader].raft.clone();
    let gone = if leader == 3 { 2 } else { 3 };
    group.until("all can be reached", || (1..=3).all(|id| raft.status().borrow().is_reachable(id))).await;
    assert!(raft.status().borrow().can_remove(gone));
    // Away while it is removed: it learns of it from the answer to its first message.
    group.kill(gone).await;
    group.until("it cannot be reached", || !raft.status().borrow().is_reachable(gone)).await;
    let third = 6 - leader - gone;
    assert!(!raft.status().borrow().can_remove(third));
    raft.remove_member(gone).await.unwrap();
    assert_eq!(raft.remove_member(gone).await, Err(ChangeError::NotMember));
    assert_eq!(raft.status().borrow().removed, [gone].into());
    group.begin(gone, Beginning::Restart).await.unwrap();
    let away = group.managers[&gone].raft.clone();
    group.until("it knows", || away.status().borrow().removed_from_group).await;
    group.kill(gone).await;
    group.write(1).await;
    // The leader goes by itself.
    raft.remove_member(leader).await.unwrap();
    group.until("it has left", || raft.status().borrow().removed_from_group).await;
    group.kill(leader).await;
    group.write(2).await;
    assert_eq!(group.leader().await, third);
    assert_eq!(group.equal().await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_to_the_one_that_is_reachable() {
    let parent = parent();
    let mut group = Group::of(parent.path(), 3).await;
    for _ in 0..3 {
        let leader = group.leader().await;
        let raft = group.managers[&leader].raft.clone();
        group.until("somebody can be reached", || raft.status().borrow().longest_active().is_some()).await;
        raft.transfer_leadership().await.unwrap();
        assert_ne!(group.leader().await, leader);
        assert_eq!(raft.transfer_leadership().await, Err(TransferError::NotLeader));
    }
    group.write(1).await;
    let alone = Group::of(parent.path(), 1).await;
    assert_eq!(alone.managers[&1].raft.transfer_leadership().await, Err(TransferError::NoPeer));
    group.kill(1).await;
    group.write(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_nobody_can_reach_is_not_elected() {
    let parent = parent();
    let mut group = Group::of(parent.path(), 3).await;
    for _ in 0..2 {
        let leader = group.leader().await;
        let mut others = (1..=3).filter(|id| *id != leader);
        let (unreachable, reachable) = (others.next().unwrap(), others.next().unwrap());
        group.managers[&unreachable].serving.store(false, std::sync::atomic::Ordering::Relaxed);
        group.kill(leader).await;
        assert_eq!(group.leader().await, reachable);
        group.managers[&unreachable].serving.store(true, std::sync::atomic::Ordering::Relaxed);
        group.begin(leader, Beginning::Restart).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_moves_to_another_address() {
    let parent = parent();
    let mut group = Group::of(parent.path(), 3).await;
    let leader = group.leader().await;
    let raft = group.managers[&leader].raft.clone();
    let moved = if leader == 3 { 2 } else { 3 };
    group.kill(moved).await;
    group.forget_address(moved);
    group.begin(moved, Beginning::Restart).await.unwrap();
    let addr = group.address(moved);
    let member = p::RaftMember { raft_id: moved, node_id: format!("n{moved}"), addr: addr.clone(), status: None };
    let index = raft.update_member(member).await.unwrap();
    group.reached(moved, index).await;
    for manager in group.managers.values() {
        assert_eq!(manager.raft.resolve_address(moved), Some(addr.clone()));
    }
    group.write(1).await;
    assert_eq!(group.equal().await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_is_replaced() {
    let parent = parent();
    let mut group = Group::of(parent.path(), 3).await;
    for id in 1..=30 {
        group.write(id).await;
    }
    for id in [1, 2] {
        group.kill(id).await;
    }
    let raft = group.managers[&3].raft.clone();
    group.until("nobody leads", || raft.status().borrow().leader == 0).await;
    group.kill(3).await;
    group.begin(3, Beginning::ForceNewCluster).await.unwrap();
    group.write(31).await;
    assert_eq!(group.equal().await, (1..=31).collect::<Vec<_>>());
    group.join(4).await;
    group.write(32).await;
    // An old member that comes back is told.
    group.begin(1, Beginning::Restart).await.unwrap();
    let old = group.managers[&1].raft.clone();
    group.until("it knows", || old.status().borrow().removed_from_group).await;
    group.kill(1).await;
    assert_eq!(group.equal().await.len(), 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_changes_under_way() {
    let parent = parent();
    let mut group = Group::of(parent.path(), 3).await;
    for id in 1..=10 {
        group.write(id).await;
    }
    let leader = group.leader().await;
    let follower = if leader == 3 { 2 } else { 3 };
    for id in [leader, follower] {
        let raft = group.managers[&id].raft.clone();
        let (first, second) = tokio::join!(raft.rotate_dek(Dek::new(&[90; 32])), raft.rotate_dek(Dek::new(&[91; 32])));
        assert_eq!((first, second), (Ok(()), Err(RotateError::UnderWay)));
        assert!(!raft.status().borrow().rotating_dek);
    }
    group.write(11).await;
    for id in [follower, leader] {
        group.kill(id).await;
        // The old key opens nothing any more; the new one alone opens all.
        assert!(group.begin(id, Beginning::Restart).await.is_err());
        let mut config = group.config(id, group.address(id), Beginning::Restart);
        config.dek = Dek::new(&[90; 32]);
        group.begin_configured(config).await.unwrap();
        group.leader().await;
    }
    // One that was interrupted goes on at the next start.
    let third = 6 - leader - follower;
    group.kill(third).await;
    let mut config = group.config(third, group.address(third), Beginning::Restart);
    config.old_dek = Some(config.dek);
    config.dek = Dek::new(&[92; 32]);
    group.begin_configured(config.clone()).await.unwrap();
    let raft = group.managers[&third].raft.clone();
    group.until("the old key is not needed", || !raft.status().borrow().rotating_dek).await;
    group.kill(third).await;
    config.old_dek = None;
    group.begin_configured(config).await.unwrap();
    group.write(12).await;
    assert_eq!(group.equal().await, (1..=12).collect::<Vec<_>>());
}

/// A file system of a few megabytes that goes when the test does.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = Some("size=20m");
        nix::mount::mount(Some("tmpfs"), folder.path(), Some("tmpfs"), nix::mount::MsFlags::empty(), size).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_driver_and_loses_nothing() {
    let disk = SmallDisk::new();
    let mut group = Group::of(disk.path(), 1).await;
    let task = p::Task { id: "x".repeat(1 << 20), ..Default::default() };
    let action = p::StoreAction { action: 1, target: Some(p::store_action::Target::Task(task)) };
    let mut acknowledged = Vec::new();
    let raft = group.managers[&1].raft.clone();
    for id in 1.. {
        let request = p::InternalRaftRequest { id, action: vec![action.clone()] };
        if !matches!(raft.propose(&request).await, Ok(Ok(_))) {
            break;
        }
        acknowledged.push(id);
    }
    group.until("it has ended", || raft.status().borrow().failed.is_some()).await;
    let failed = raft.status().borrow().failed.clone().unwrap();
    assert!(failed.contains("raft log") && failed.contains("No space left"), "{failed}");
    assert!(!raft.status().borrow().leading);
    group.kill(1).await;
    group.begin(1, Beginning::Restart).await.unwrap();
    group.leader().await;
    let state = group.equal().await;
    assert!(state.starts_with(&acknowledged), "{} of {}", state.len(), acknowledged.len());
}
