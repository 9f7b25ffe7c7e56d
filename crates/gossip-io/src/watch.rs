//! Watching a table: what there is, then each change. A watch that falls too far behind is not waited for: it gets what
//! there is again, so it never misses the end of a story, only steps of it.

use gossip::{Change, Entry, Name};
use tokio::sync::mpsc;

use crate::handle::Handle;

/// Changes that a watch may be behind before it starts anew.
pub(crate) const BEHIND: usize = 1024;

/// An entry with the network and the key that it is at.
pub(crate) type Placed = (Name, Name, Entry);

/// What there is, and the changes after it.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) current: Vec<Placed>,
    pub(crate) changes: mpsc::Receiver<Change>,
}

/// The task's end of a watch.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) table: Name,
    pub(crate) network: Option<Name>,
    pub(crate) changes: mpsc::Sender<Change>,
}

impl Watcher {
    /// Passes a change on; false if the watch has gone or is too far behind.
    pub(crate) fn pass(&self, change: &Change) -> bool {
        let wanted = change.table == self.table && self.network.as_ref().is_none_or(|it| *it == change.network);
        if wanted { self.changes.try_send(change.clone()).is_ok() } else { !self.changes.is_closed() }
    }
}

/// What a watch tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WatchEvent {
    /// All that there is, as network, key and entry: at first, and again after the watch was too far behind. It replaces
    /// all that was told before.
    Current(Vec<(Name, Name, Entry)>),
    /// One change.
    Changed(Change),
}

/// See the module's description.
#[derive(Debug)]
pub struct Watch {
    handle: Handle,
    table: Name,
    network: Option<Name>,
    changes: Option<mpsc::Receiver<Change>>,
}

impl Watch {
    pub(crate) fn new(handle: Handle, table: Name, network: Option<Name>) -> Self {
        Self { handle, table, network, changes: None }
    }

    /// The next event; nothing any more once gossip has stopped. It may be dropped while it waits, and nothing is lost.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        if let Some(changes) = &mut self.changes
            && let Some(change) = changes.recv().await
        {
            return Some(WatchEvent::Changed(change));
        }
        self.changes = None;
        let subscription = self.handle.subscribe(self.table.clone(), self.network.clone()).await.ok()?;
        self.changes = Some(subscription.changes);
        Some(WatchEvent::Current(subscription.current))
    }
}
