//! The committed view and who watches it. Readers clone the view in O(1); a watcher gets a view and every commit after
//! it, with no gap in between. Written by the log's apply thread alone.

use std::sync::{Arc, PoisonError, RwLock};

use store::{Event, View};
use tokio::sync::broadcast;

/// Commits that a slow watcher may lag behind before it has to start anew from the current view.
const WATCH_QUEUE: usize = 4096;

/// One committed transaction.
pub struct Commit {
    /// Its place in the raft log.
    pub index: u64,
    /// The store with it.
    pub view: View,
    /// What it changed.
    pub events: Vec<Event>,
}

/// The committed state of the cluster on this manager.
pub struct Shared {
    view: RwLock<View>,
    commits: broadcast::Sender<Published>,
}

/// What the log did to the store.
#[derive(Clone)]
enum Published {
    /// A transaction.
    Commit(Arc<Commit>),
    /// A snapshot from the leader took the place of everything.
    Replaced(Box<View>),
}

/// A view and the commits that follow it.
pub struct Watch {
    /// The state at the start, or after [`Watch::next`] said to start anew.
    pub view: View,
    commits: broadcast::Receiver<Published>,
    shared: Arc<Shared>,
}

/// What a watcher learns next.
pub enum Next {
    /// The next commit.
    Commit(Arc<Commit>),
    /// The watcher was too slow, or a snapshot replaced the store: `view` is the state now, all may have changed.
    Anew,
}

impl Default for Shared {
    fn default() -> Self {
        Self { view: RwLock::new(View::new()), commits: broadcast::channel(WATCH_QUEUE).0 }
    }
}

impl Shared {
    /// The committed state now.
    pub fn view(&self) -> View {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The committed state and all commits after it.
    pub fn watch(self: &Arc<Self>) -> Watch {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        Watch { view: view.clone(), commits: self.commits.subscribe(), shared: self.clone() }
    }

    /// Makes a commit visible.
    pub(crate) fn publish(&self, index: u64, view: View, events: Vec<Event>) {
        let mut held = self.view.write().unwrap_or_else(PoisonError::into_inner);
        *held = view.clone();
        // Nobody watching is fine: the view holds everything.
        self.commits.send(Published::Commit(Arc::new(Commit { index, view, events }))).ok();
    }

    /// Puts a snapshot's state in the place of everything.
    pub(crate) fn replace(&self, view: View) {
        let mut held = self.view.write().unwrap_or_else(PoisonError::into_inner);
        *held = view.clone();
        // As above.
        self.commits.send(Published::Replaced(Box::new(view))).ok();
    }
}

impl Watch {
    /// The next commit; `None` when the manager is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Next> {
        match self.commits.recv().await {
            Ok(Published::Commit(commit)) => {
                self.view = commit.view.clone();
                Some(Next::Commit(commit))
            }
            Ok(Published::Replaced(view)) => {
                self.view = *view;
                Some(Next::Anew)
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let fresh = self.shared.watch();
                self.view = fresh.view;
                self.commits = fresh.commits;
                Some(Next::Anew)
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// Waits until the committed state satisfies `found`. `None` when the manager is gone.
    pub async fn until<T>(&mut self, mut found: impl FnMut(&View) -> Option<T>) -> Option<T> {
        loop {
            if let Some(value) = found(&self.view) {
                return Some(value);
            }
            self.next().await?;
        }
    }
}
