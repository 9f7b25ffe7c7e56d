//! Snapshots are encoded and stored on a thread of their own, one at a time. A rotation of the key ends when a snapshot
//! under the new key covers the last entry that may have the old one.

use super::*;
use crate::transport::SnapshotSource;

/// The snapshot thread, and the keys.
pub(super) struct Snapshots {
    /// For the disk's thread, snapshots that are read to be sent, and this one.
    keys: Arc<Mutex<Keys>>,
    /// Grows with each rotation: a snapshot that was begun before one has the old key.
    key_generation: u64,
    rotation: Option<Rotation>,
    thread: Option<JoinHandle<()>>,
}

struct Rotation {
    /// Entries up to this index may have the old key.
    until: u64,
    done: Option<oneshot::Sender<Result<(), RotateError>>>,
}

impl Snapshots {
    /// `rotating` is the last index that may have the old key of a rotation that was interrupted.
    pub(super) fn new(keys: Arc<Mutex<Keys>>, rotating: Option<u64>) -> Self {
        let rotation = rotating.map(|until| Rotation { until, done: None });
        Self { keys, key_generation: 0, rotation, thread: None }
    }

    pub(super) fn join(&mut self) {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a raft snapshot panicked");
        }
    }

    fn keys(&self) -> Keys {
        lock(&self.keys).clone()
    }
}

fn lock(keys: &Mutex<Keys>) -> std::sync::MutexGuard<'_, Keys> {
    keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Reads the snapshots that are sent to slow followers.
pub(super) fn source(folder: PathBuf, keys: Arc<Mutex<Keys>>) -> SnapshotSource {
    Arc::new(move |index| {
        let keys = lock(&keys).clone();
        snapshot::load_at(&folder, &keys, index)
    })
}

impl Driver {
    /// Encodes and stores a snapshot elsewhere.
    pub(super) fn make_snapshot(&mut self, due: SnapshotDue) {
        self.snapshots.join();
        let index = due.metadata.index;
        let freeze = self.machine.snapshot();
        let (folder, keys) = (snapshot_folder(&self.config.folder), self.snapshots.keys());
        let key_generation = self.snapshots.key_generation;
        let inbox = self.inbox.clone();
        let work = move || match snapshot::store(&folder, keys.current(), due.with_state(freeze())) {
            Ok(bytes) => inbox.tell(Command::SnapshotStored { index, bytes, key_generation }),
            Err(error) => {
                tracing::error!(%error, "a raft snapshot could not be stored");
                inbox.tell(Command::SnapshotFailed);
            }
        };
        match std::thread::Builder::new().name("raft-snapshot".to_owned()).spawn(work) {
            Ok(thread) => self.snapshots.thread = Some(thread),
            Err(error) => {
                tracing::error!(%error, "no thread for a raft snapshot");
                self.core.snapshot_failed();
            }
        }
    }

    pub(super) fn snapshot_stored(&mut self, index: u64, bytes: u64, key_generation: u64) {
        let until = self.core.snapshot_stored(index, bytes);
        self.jobs.send(Job::Compact(until)).ok();
        let Some(rotation) = &self.snapshots.rotation else { return };
        if key_generation != self.snapshots.key_generation || index < rotation.until {
            self.core.want_snapshot(rotation.until);
            return;
        }
        let mut keys = lock(&self.snapshots.keys);
        *keys = Keys::new(keys.current().clone(), None);
        drop(keys);
        self.status.send_modify(|status| status.rotating_dek = false);
        if let Some(done) = self.snapshots.rotation.take().and_then(|rotation| rotation.done) {
            // Whoever asked reads it from the status, too.
            done.send(Ok(())).ok();
        }
    }

    pub(super) fn rotate_dek(&mut self, dek: Dek, done: oneshot::Sender<Result<(), RotateError>>) {
        if self.snapshots.rotation.is_some() {
            done.send(Err(RotateError::UnderWay)).ok();
            return;
        }
        let old = self.snapshots.keys().current().clone();
        let keys = Keys::new(dek, Some(old));
        *lock(&self.snapshots.keys) = keys.clone();
        self.jobs.send(Job::Keys(keys)).ok();
        let until = self.core.last_index();
        self.snapshots.key_generation += 1;
        self.snapshots.rotation = Some(Rotation { until, done: Some(done) });
        self.status.send_modify(|status| status.rotating_dek = true);
        self.core.want_snapshot(until);
    }
}
