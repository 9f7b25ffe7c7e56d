//! Keeps raft at what the cluster asks for: when snapshots are made, and how fast elections are. Runs on every manager,
//! from the committed state, so that all come to the same.

use std::sync::Arc;
use std::time::Duration;

use consensus::{SnapshotPolicy, Status as RaftStatus};
use model::Node;
use store::{Event, Object, View};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::shared::{Next, Shared};
use crate::timing::{self, Timing};

/// Entries between snapshots when there is no cluster yet; SwarmKit's.
const SNAPSHOT_INTERVAL: u64 = 10_000;
/// Entries kept for slow followers when there is no cluster yet; SwarmKit's.
const KEEP_ENTRIES: u64 = 500;
/// How much longer the leader keeps its heartbeats fast than its followers need them: longer than they take to hear of
/// the change.
const LEADER_LAST: Duration = Duration::from_secs(2);
/// How much later than the leader followers become impatient: longer than one of SwarmKit's heartbeats takes.
const FOLLOWERS_LAST: Duration = Duration::from_secs(2);

/// When snapshots are made in the present state.
pub(crate) fn snapshots(view: &View) -> SnapshotPolicy {
    match view.the_cluster() {
        None => SnapshotPolicy { interval: SNAPSHOT_INTERVAL, keep_entries: KEEP_ENTRIES },
        Some(cluster) => SnapshotPolicy {
            interval: cluster.spec.raft.snapshot_interval,
            keep_entries: cluster.spec.raft.log_entries_for_slow_followers,
        },
    }
}

/// How long a manager waits with a decided timing. Heartbeats must never be rarer than patience is long: when ticks get
/// longer the leader is last, when they get shorter it is first.
fn patience(to: Timing, leads: bool) -> Duration {
    match (to, leads) {
        (Timing::SwarmKit, true) => LEADER_LAST,
        (Timing::Fast, false) => FOLLOWERS_LAST,
        (Timing::SwarmKit, false) | (Timing::Fast, true) => Duration::ZERO,
    }
}

fn raft_timing(timing: Timing) -> consensus::Timing {
    match timing {
        Timing::Fast => consensus::Timing::FAST,
        Timing::SwarmKit => consensus::Timing::SWARMKIT,
    }
}

/// Runs until raft ends, and tells the timing that is kept. Raft was started with [`Timing::SwarmKit`].
pub(crate) async fn run(shared: Arc<Shared>, raft: Arc<consensus::Handle>, told: watch::Sender<Timing>) {
    let mut watch = shared.watch();
    let mut status = raft.status();
    let mut kept = Timing::SwarmKit;
    // Since when something else than `kept` is wanted.
    let mut since: Option<Instant> = None;
    let mut policy = None;
    let (mut wanted, mut leads) = decide(&watch.view, &status.borrow_and_update());
    loop {
        let wanted_policy = snapshots(&watch.view);
        if policy != Some(wanted_policy) {
            policy = Some(wanted_policy);
            raft.set_snapshot_policy(wanted_policy);
        }
        since = (wanted != kept).then(|| since.unwrap_or_else(Instant::now));
        let due = since.map(|since| since + patience(wanted, leads));
        if due.is_some_and(|due| due <= Instant::now()) {
            let because = timing::first_foreign(&watch.view, &status.borrow().members);
            tracing::info!(timing = ?wanted, because, "raft's timing changes");
            raft.set_timing(raft_timing(wanted));
            (kept, since) = (wanted, None);
            told.send_replace(kept);
            continue;
        }
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A broadcast receiver keeps its place.
            next = watch.next() => match next {
                Some(next) if !concerns_timing(&next) => continue,
                Some(_) => {}
                None => return,
            },
            // Keeps what was not seen.
            changed = status.changed() => if changed.is_err() { return },
            // A deadline, not a duration.
            () = wait => {}
        }
        (wanted, leads) = decide(&watch.view, &status.borrow_and_update());
    }
}

/// Whether a commit may change what is decided: looking at all nodes at every commit would cost too much.
fn concerns_timing(next: &Next) -> bool {
    let Next::Commit(commit) = next else { return true };
    let engine = |node: &Node| {
        let description = node.description.as_ref();
        description.and_then(|description| description.engine.as_ref()).map(|engine| engine.engine_version.clone())
    };
    commit.events.iter().any(|event| match event {
        Event::Create(Object::Node(_)) | Event::Remove(Object::Node(_)) => true,
        Event::Update { old: Object::Node(old), new: Object::Node(new) } => {
            (old.role, old.spec.desired_role) != (new.role, new.spec.desired_role) || engine(old) != engine(new)
        }
        _ => false,
    })
}

fn decide(view: &View, status: &RaftStatus) -> (Timing, bool) {
    (timing::decide(view, &status.members), status.leader == status.raft_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_are_never_rarer_than_patience_is_long() {
        let later = |to, leads| patience(to, leads) > patience(to, !leads);
        assert!(later(Timing::SwarmKit, true), "the leader slows down last");
        assert!(later(Timing::Fast, false), "the followers hurry last");
        assert!(FOLLOWERS_LAST > consensus::Timing::SWARMKIT.tick);
    }

    #[test]
    fn a_cluster_says_when_snapshots_are_made() {
        let mut view = View::new();
        assert_eq!(snapshots(&view), SnapshotPolicy { interval: 10_000, keep_entries: 500 });
        let mut cluster = model::Cluster { id: "c".into(), ..model::Cluster::default() };
        cluster.spec.raft.snapshot_interval = 7;
        view.apply(&[store::Action::Create(cluster.into())]).unwrap();
        assert_eq!(snapshots(&view), SnapshotPolicy { interval: 7, keep_entries: 0 });
    }
}
