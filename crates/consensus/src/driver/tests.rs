//! A lone manager's raft: founding, restart, group commit, snapshots, a wrong key.

use std::sync::{Arc, Mutex};

use super::*;

#[derive(Clone, Default)]
struct Counter(Arc<Mutex<Vec<u64>>>);

impl StateMachine for Counter {
    fn apply(&mut self, _: u64, request: p::InternalRaftRequest) {
        self.0.lock().unwrap().push(request.id);
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> p::StoreSnapshot + Send> {
        let ids = self.0.lock().unwrap().clone();
        Box::new(move || p::StoreSnapshot {
            tasks: ids.iter().map(|id| p::Task { slot: *id, ..Default::default() }).collect(),
            ..Default::default()
        })
    }

    fn restore(&mut self, state: p::StoreSnapshot) -> Result<(), String> {
        *self.0.lock().unwrap() = state.tasks.iter().map(|task| task.slot).collect();
        Ok(())
    }
}

fn config(folder: &Path, key: u8) -> Config {
    Config {
        folder: folder.to_owned(),
        member: p::RaftMember { raft_id: 77, node_id: "n".into(), addr: "127.0.0.1:2377".into(), status: None },
        dek: Dek::new(&[key; 32]),
        seed: 1,
        tick: Duration::from_millis(50),
        election_ticks: 10,
        heartbeat_ticks: 1,
        snapshot_interval: 100,
        keep_entries: 10,
    }
}

fn request(id: u64) -> p::InternalRaftRequest {
    p::InternalRaftRequest { id, action: Vec::new() }
}

fn leading(handle: &Handle) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut status = handle.status();
    runtime.block_on(async { status.wait_for(|status| status.leading).await.map(drop) }).unwrap();
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    found(&config(folder.path(), 1)).unwrap();
    let machine = Counter::default();
    let handle = start(config(folder.path(), 1), Box::new(machine.clone())).unwrap();
    leading(&handle);
    assert_eq!(handle.status().borrow().members[&77].node_id, "n");
    let proposed: Vec<_> = (1..=50).map(|id| handle.propose(&request(id))).collect();
    for proposal in proposed {
        proposal.blocking_recv().unwrap().unwrap();
    }
    handle.stop();
    assert_eq!(*machine.0.lock().unwrap(), (1..=50).collect::<Vec<_>>());
    let again = Counter::default();
    let handle = start(config(folder.path(), 1), Box::new(again.clone())).unwrap();
    leading(&handle);
    assert_eq!(*again.0.lock().unwrap(), (1..=50).collect::<Vec<_>>());
    handle.propose(&request(51)).blocking_recv().unwrap().unwrap();
    assert_eq!(again.0.lock().unwrap().len(), 51);
}

#[test]
fn snapshots_carry_the_state_and_the_members() {
    let folder = tempfile::tempdir().unwrap();
    found(&config(folder.path(), 1)).unwrap();
    let handle = start(config(folder.path(), 1), Box::new(Counter::default())).unwrap();
    leading(&handle);
    for id in 1..=350 {
        handle.propose(&request(id)).blocking_recv().unwrap().unwrap();
    }
    handle.stop();
    let snapshots = snapshot_folder(folder.path());
    // The snapshot's own thread may still be at it when the driver has stopped.
    while !snapshots.exists() || std::fs::read_dir(&snapshots).unwrap().count() != 1 {
        std::thread::yield_now();
    }
    let again = Counter::default();
    let handle = start(config(folder.path(), 1), Box::new(again.clone())).unwrap();
    leading(&handle);
    assert_eq!(*again.0.lock().unwrap(), (1..=350).collect::<Vec<_>>());
    assert_eq!(handle.status().borrow().members[&77].node_id, "n");
}

#[test]
fn a_wrong_key_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    found(&config(folder.path(), 1)).unwrap();
    let wrong = start(config(folder.path(), 2), Box::new(Counter::default()));
    assert!(matches!(wrong, Err(StartError::Cipher { index: 1, .. })));
    let handle = start(config(folder.path(), 1), Box::new(Counter::default())).unwrap();
    leading(&handle);
}
