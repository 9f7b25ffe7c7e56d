//! A lone manager's raft: founding, restart, group commit, snapshots, a wrong key.

use std::path::Path;
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
        beginning: Beginning::Found,
        dek: Dek::new(&[key; 32]),
        old_dek: None,
        seed: 1,
        timing: Timing::FAST,
        snapshots: SnapshotPolicy { interval: 100, keep_entries: 10 },
    }
}

struct NoPeers;

#[async_trait::async_trait]
impl Dial for NoPeers {
    async fn dial(&self, addr: &str) -> Result<tonic::transport::Channel, crate::DialError> {
        Err(crate::DialError { addr: addr.to_owned(), source: "there are none".into() })
    }
}

/// A lone manager needs no runtime that runs.
fn begin_alone(config: Config, machine: Counter) -> Result<Handle, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    start(config, Box::new(machine), Arc::new(NoPeers), runtime.handle())
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
    let machine = Counter::default();
    let handle = begin_alone(config(folder.path(), 1), machine.clone()).unwrap();
    leading(&handle);
    assert_eq!(handle.status().borrow().members[&77].node_id, "n");
    let proposed: Vec<_> = (1..=50).map(|id| handle.propose(&request(id))).collect();
    for proposal in proposed {
        proposal.blocking_recv().unwrap().unwrap();
    }
    handle.stop();
    assert_eq!(*machine.0.lock().unwrap(), (1..=50).collect::<Vec<_>>());
    let again = Counter::default();
    let handle = begin_alone(config(folder.path(), 1), again.clone()).unwrap();
    leading(&handle);
    assert_eq!(*again.0.lock().unwrap(), (1..=50).collect::<Vec<_>>());
    handle.propose(&request(51)).blocking_recv().unwrap().unwrap();
    assert_eq!(again.0.lock().unwrap().len(), 51);
}

#[test]
fn snapshots_carry_the_state_and_the_members() {
    let folder = tempfile::tempdir().unwrap();
    let handle = begin_alone(config(folder.path(), 1), Counter::default()).unwrap();
    leading(&handle);
    for id in 1..=350 {
        handle.propose(&request(id)).blocking_recv().unwrap().unwrap();
    }
    handle.stop();
    assert_eq!(std::fs::read_dir(snapshot_folder(folder.path())).unwrap().count(), 1);
    let again = Counter::default();
    let handle = begin_alone(config(folder.path(), 1), again.clone()).unwrap();
    leading(&handle);
    assert_eq!(*again.0.lock().unwrap(), (1..=350).collect::<Vec<_>>());
    assert_eq!(handle.status().borrow().members[&77].node_id, "n");
}

#[test]
fn a_wrong_key_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    drop(begin_alone(config(folder.path(), 1), Counter::default()).unwrap());
    let wrong = begin_alone(config(folder.path(), 2), Counter::default());
    assert!(matches!(wrong, Err(StartError::Cipher { index: 1, .. })));
    let handle = begin_alone(config(folder.path(), 1), Counter::default()).unwrap();
    leading(&handle);
}

fn write(handle: &Handle, ids: std::ops::RangeInclusive<u64>) {
    for id in ids {
        handle.propose(&request(id)).blocking_recv().unwrap().unwrap();
    }
}

#[test]
fn damage_in_the_log_is_refused_with_a_clear_word() {
    let folder = tempfile::tempdir().unwrap();
    let handle = begin_alone(config(folder.path(), 1), Counter::default()).unwrap();
    leading(&handle);
    write(&handle, 1..=20);
    handle.stop();
    let path = std::fs::read_dir(log_folder(folder.path())).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[300] ^= 0x10;
    std::fs::write(&path, &bytes).unwrap();
    let error = begin_alone(config(folder.path(), 1), Counter::default()).map(drop).unwrap_err();
    assert!(matches!(error, StartError::Log(LogError::Damaged { .. })), "{error}");
    assert!(error.to_string().contains("is damaged at byte"), "{error}");
}

#[test]
fn a_broken_snapshot_is_made_up_for_by_the_log_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let handle = begin_alone(config(folder.path(), 1), Counter::default()).unwrap();
    leading(&handle);
    write(&handle, 1..=250);
    handle.stop();
    let path = std::fs::read_dir(snapshot_folder(folder.path())).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, &bytes).unwrap();
    // The log's first segment still holds everything.
    let again = Counter::default();
    let handle = begin_alone(config(folder.path(), 1), again.clone()).unwrap();
    leading(&handle);
    assert_eq!(again.0.lock().unwrap().len(), 250);
    handle.stop();
    assert!(path.with_extension("snap.broken").exists());
}

#[test]
fn what_is_planned_in_one_term_is_not_written_in_another() {
    let folder = tempfile::tempdir().unwrap();
    let handle = begin_alone(config(folder.path(), 1), Counter::default()).unwrap();
    leading(&handle);
    let term = handle.status().borrow().term;
    let early = handle.propose_in_term(term - 1, &request(1)).blocking_recv().unwrap();
    assert_eq!(early, Err(ProposeError::LostLeadership));
    handle.propose_in_term(term, &request(2)).blocking_recv().unwrap().unwrap();
    let large = p::StoreAction {
        action: 1,
        target: Some(p::store_action::Target::Task(p::Task {
            id: "x".repeat(crate::MAX_REQUEST_BYTES),
            ..Default::default()
        })),
    };
    let large = p::InternalRaftRequest { id: 3, action: vec![large] };
    assert!(matches!(handle.propose(&large).blocking_recv().unwrap(), Err(ProposeError::TooLarge(_))));
    handle.stop();
    assert_eq!(handle.propose(&request(4)).blocking_recv().unwrap(), Err(ProposeError::LostLeadership));
}
