//! How many queries may be on their way to other servers at once: a limit for the machine, shared so that no container
//! keeps the others from theirs.
//!
//! A sandbox may have one more under way as long as it has fewer than are still free. One that asks without end so gets half
//! of all, a second one half of the rest, and something stays free for whoever comes. No shares have to be set, none lie
//! idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

/// The machine's queries under way.
#[derive(Debug)]
pub(super) struct Pool {
    limit: usize,
    taken: AtomicUsize,
    /// For sandboxes that have none under way; each waits at most once.
    freed: Notify,
}

impl Pool {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, taken: AtomicUsize::new(0), freed: Notify::new() }
    }
}

/// A sandbox's queries under way.
#[derive(Debug)]
pub(super) struct Share {
    pool: Arc<Pool>,
    own: AtomicUsize,
    /// Those who wait, first come, first served; only the first looks at the rest.
    turn: Mutex<()>,
    ended: Notify,
}

/// The right to have one query under way.
#[derive(Debug)]
pub(super) struct Permit<'a>(&'a Share);

impl Share {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, own: AtomicUsize::new(0), turn: Mutex::new(()), ended: Notify::new() }
    }

    /// Waits until one more query may go; `None` if that takes longer than `patience`.
    pub(super) async fn take(&self, patience: Duration) -> Option<Permit<'_>> {
        timeout(patience, self.take_in_turn()).await.ok()
    }

    async fn take_in_turn(&self) -> Permit<'_> {
        let _turn = self.turn.lock().await;
        loop {
            if let Some(permit) = self.try_take() {
                return permit;
            }
            // A stored wake-up of `Notify` makes up for what ends between the look and the wait.
            match self.own.load(Ordering::Acquire) {
                0 => self.pool.freed.notified().await,
                _ => self.ended.notified().await,
            }
        }
    }

    fn try_take(&self) -> Option<Permit<'_>> {
        let own = self.own.load(Ordering::Acquire);
        let may_take = |taken: usize| (own < self.pool.limit.saturating_sub(taken)).then_some(taken + 1);
        self.pool.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, may_take).ok()?;
        self.own.fetch_add(1, Ordering::AcqRel);
        Some(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.own.fetch_sub(1, Ordering::AcqRel);
        self.0.pool.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_one();
        self.0.pool.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    async fn take_all(share: &Share) -> Vec<Permit<'_>> {
        let mut permits = Vec::new();
        while let Some(permit) = share.take(NOW).await {
            permits.push(permit);
        }
        permits
    }

    #[tokio::test]
    async fn the_greedy_leave_something_for_the_others() {
        let pool = Arc::new(Pool::new(1024));
        let shares: Vec<_> = (0..4).map(|_| Share::new(Arc::clone(&pool))).collect();
        let mut held = Vec::new();
        for share in &shares {
            held.push(take_all(share).await);
        }
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(counts, [512, 256, 128, 64]);
        held.clear();
        assert_eq!(pool.taken.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn the_limit_holds_for_all_together() {
        let pool = Arc::new(Pool::new(3));
        let shares: Vec<_> = (0..5).map(|_| Share::new(Arc::clone(&pool))).collect();
        let mut held = Vec::new();
        for share in &shares {
            held.extend(take_all(share).await);
        }
        assert_eq!(held.len(), 3);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let pool = Arc::new(Pool::new(1));
        let (busy, other) = (Share::new(Arc::clone(&pool)), Share::new(Arc::clone(&pool)));
        let permit = busy.take(NOW).await.unwrap();
        let minute = Duration::from_secs(60);
        // of each, one waits for a free place and one behind it
        let waiting = [&busy, &busy, &other, &other].map(|share| async {
            drop(share.take(minute).await.expect("woken"));
        });
        let release = async {
            tokio::task::yield_now().await;
            drop(permit);
        };
        let all = async { tokio::join!(futures::future::join_all(waiting), release) };
        timeout(Duration::from_secs(5), all).await.expect("nobody is forgotten");
        assert_eq!(pool.taken.load(Ordering::Acquire), 0);
    }
}
