//! Near ends of removed sandboxes. The kernel takes a link down with the namespace its peer is in, many at a time and
//! without holding others up; to remove one by name costs a grace period of RCU under the lock of all links (25 ms). So
//! they are left to the kernel, and removed only if they are still there after a while: a process may keep a namespace.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::links::Links;

/// How long the kernel has.
const GRACE: Duration = Duration::from_secs(2);

type Ends = Arc<Mutex<BTreeMap<String, Arc<Links>>>>;

/// The ends that should be going away.
#[derive(Default)]
pub(crate) struct Fading {
    ends: Ends,
    /// One task a removal; ends with this.
    watches: Mutex<JoinSet<()>>,
}

impl Fading {
    /// Watches links until they are gone.
    pub(crate) fn add(&self, ends: Vec<(String, Arc<Links>)>) {
        if ends.is_empty() {
            return;
        }
        let names: Vec<String> = ends.iter().map(|(name, _)| name.clone()).collect();
        lock(&self.ends).extend(ends);
        let shared = Arc::clone(&self.ends);
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        while watches.try_join_next().is_some() {}
        watches.spawn(async move {
            tokio::time::sleep(GRACE).await;
            for name in names {
                remove(&shared, &name).await;
            }
        });
    }

    /// Names of the ends that may still be there.
    pub(crate) fn names(&self) -> Vec<String> {
        lock(&self.ends).keys().cloned().collect()
    }

    /// Removes all at once.
    pub(crate) async fn finish(&self) {
        for name in self.names() {
            remove(&self.ends, &name).await;
        }
    }
}

async fn remove(ends: &Ends, name: &str) {
    let Some(links) = lock(ends).remove(name) else { return };
    if let Err(error) = links.remove(name).await {
        tracing::warn!(%error, link = name, "link left over");
    }
}

fn lock(ends: &Ends) -> MutexGuard<'_, BTreeMap<String, Arc<Links>>> {
    ends.lock().unwrap_or_else(PoisonError::into_inner)
}
