//! What running operations need although no image refers to it yet, and who may download or unpack a thing at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use oci_types::Digest;

/// Counts of users, by digest of a blob or chain.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<BTreeMap<Digest, usize>>);

/// Keeps blobs and layers while it lives.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Arc<Pins>,
    digests: Vec<Digest>,
}

impl Pins {
    pub(crate) fn pin(self: &Arc<Self>, digests: Vec<Digest>) -> Pin {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &digests {
            *counts.entry(digest.clone()).or_default() += 1;
        }
        drop(counts);
        Pin { pins: self.clone(), digests }
    }

    /// Runs `remove` on each unpinned candidate; nothing can be pinned meanwhile.
    pub(crate) fn remove_unpinned(&self, candidates: Vec<Digest>, mut remove: impl FnMut(&Digest)) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for candidate in candidates.iter().filter(|candidate| !counts.contains_key(*candidate)) {
            remove(candidate);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut counts = self.pins.0.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}

/// One lock for each digest that somebody works on.
#[derive(Debug, Default)]
pub(crate) struct KeyedLocks(Mutex<BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl KeyedLocks {
    fn get(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(digest).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        locks.insert(digest.clone(), Arc::downgrade(&lock));
        lock
    }

    /// Waits until nobody else works on it. The guard may move to another thread.
    pub(crate) async fn lock(&self, digest: &Digest) -> tokio::sync::OwnedMutexGuard<()> {
        self.get(digest).lock_owned().await
    }

    /// Whether somebody works on it now.
    pub(crate) fn is_locked(&self, digest: &Digest) -> bool {
        self.get(digest).try_lock().is_err()
    }

    /// As `lock`, from a blocking thread.
    pub(crate) fn lock_blocking(&self, digest: &Digest) -> tokio::sync::OwnedMutexGuard<()> {
        self.get(digest).blocking_lock_owned()
    }
}
