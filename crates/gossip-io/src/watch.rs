//! Watching a table: what there is, then each change. A watch that falls too far behind is not waited for: it gets what
//! there is again, so it never misses the end of a story, only steps of it.

use gossip::{Change, Entry, Name};
use tokio::sync::{mpsc, oneshot};

use crate::handle::Handle;

/// Changes that a watch may be behind before it starts anew.
pub(crate) const BEHIND: usize = 1024;

/// An entry with the network and the key that it is at.
pub(crate) type Placed = (Name, Name, Entry);

/// What there is, and the changes after it.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) current: Vec<Placed>,
    pub(crate) changes: mpsc::Receiver<Item>,
}

/// What goes to a watch.
#[derive(Debug)]
pub(crate) enum Item {
    Change(Change),
    Confirm(oneshot::Sender<()>),
}

/// The task's end of a watch.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) table: Name,
    pub(crate) network: Option<Name>,
    pub(crate) changes: mpsc::Sender<Item>,
}

impl Watcher {
    /// Passes a change on; false if the watch has gone or is too far behind.
    pub(crate) fn pass(&self, change: &Change) -> bool {
        let wanted = change.table == self.table && self.network.as_ref().is_none_or(|it| *it == change.network);
        if wanted { self.changes.try_send(Item::Change(change.clone())).is_ok() } else { !self.changes.is_closed() }
    }

    /// Asks for a word when all before has been worked by; it never comes from a watch that is too far behind.
    pub(crate) fn confirmed(&self) -> oneshot::Receiver<()> {
        let (confirm, confirmed) = oneshot::channel();
        let _ = self.changes.try_send(Item::Confirm(confirm));
        confirmed
    }
}

/// What a watch tells.
#[derive(Debug)]
pub enum WatchEvent {
    /// All that there is, as network, key and entry: at first, and again after the watch was too far behind. It replaces
    /// all that was told before.
    Current(Vec<(Name, Name, Entry)>),
    /// One change.
    Changed(Change),
    /// A member waits for what was told so far to be applied.
    Confirm(Confirm),
}

/// The word that another member waits for; dropped, it is not given.
#[derive(Debug)]
pub struct Confirm(oneshot::Sender<()>);

impl Confirm {
    /// All that the watch has told before is applied.
    pub fn done(self) {
        // Who waited for it may have given up.
        let _ = self.0.send(());
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct Watch {
    handle: Handle,
    table: Name,
    network: Option<Name>,
    changes: Option<mpsc::Receiver<Item>>,
}

impl Watch {
    pub(crate) fn new(handle: Handle, table: Name, network: Option<Name>) -> Self {
        Self { handle, table, network, changes: None }
    }

    /// The next event; nothing any more once gossip has stopped. It may be dropped while it waits, and nothing is lost.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        if let Some(changes) = &mut self.changes
            && let Some(item) = changes.recv().await
        {
            return Some(match item {
                Item::Change(change) => WatchEvent::Changed(change),
                Item::Confirm(confirm) => WatchEvent::Confirm(Confirm(confirm)),
            });
        }
        self.changes = None;
        let subscription = self.handle.subscribe(self.table.clone(), self.network.clone()).await.ok()?;
        self.changes = Some(subscription.changes);
        Some(WatchEvent::Current(subscription.current))
    }
}
