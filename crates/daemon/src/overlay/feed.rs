//! Brings what other nodes gossip into the exchange, in the order in which it is told, many changes at a time.

use std::collections::BTreeSet;

use discovery::{ENDPOINT_TABLE, PEER_TABLE};
use gossip::{Change, Entry, Kind, Name};
use gossip_io::{Handle, Watch, WatchEvent};
use tokio::sync::watch;

use super::exchange::{Exchange, Table, Told};

/// Follows the gossip as it comes and goes; to be spawned.
pub(crate) async fn run(exchange: Exchange, own: String, mut handles: watch::Receiver<Option<Handle>>) {
    let own = Name::from(own);
    loop {
        let handle = handles.borrow_and_update().clone();
        exchange.set_gossip(handle.clone()).await;
        let Some(handle) = handle else {
            if handles.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            // What is lost with the gossip is told again by the next.
            () = follow(&exchange, &own, &handle) => {}
            _ = handles.changed() => continue,
        }
        if handles.changed().await.is_err() {
            return;
        }
    }
}

/// Until the gossip ends.
async fn follow(exchange: &Exchange, own: &Name, handle: &Handle) {
    let mut endpoints = Feed::new(Table::Endpoints, handle.watch(ENDPOINT_TABLE, None));
    let mut links = Feed::new(Table::Links, handle.watch(PEER_TABLE, None));
    loop {
        let (feed, event) = tokio::select! {
            // Both may be dropped while they wait.
            event = links.watch.next() => (&mut links, event),
            event = endpoints.watch.next() => (&mut endpoints, event),
        };
        let changes = match event {
            None => return,
            // What was told before has been taken. If it could not be applied, who waits is not told that it was.
            Some(WatchEvent::Confirm(confirm)) => {
                if std::mem::replace(&mut feed.applied, true) {
                    confirm.done();
                }
                continue;
            }
            Some(WatchEvent::Current(entries)) => feed.current(entries, own),
            Some(WatchEvent::Changed(change)) if is_of(&change, own) => continue,
            Some(WatchEvent::Changed(change)) => vec![feed.changed(change)],
        };
        let peers = handle.peers().await.unwrap_or_default();
        let keeping: BTreeSet<Name> =
            peers.into_iter().filter(|peer| peer.kind == Kind::Skep).map(|peer| peer.name).collect();
        let told = changes.into_iter().map(|(table, (network, endpoint), entry)| {
            let keeps_clients = entry.as_ref().is_some_and(|entry| keeping.contains(&entry.owner));
            let told = Told { table, network: network.to_string(), endpoint: endpoint.to_string(), keeps_clients };
            (told, entry.map(|entry| entry.value))
        });
        feed.applied &= exchange.take(told.collect()).await;
    }
}

type Key = (Name, Name);
type Changes = Vec<(Table, Key, Option<Entry>)>;

/// One table, and what was told of it.
struct Feed {
    table: Table,
    watch: Watch,
    known: BTreeSet<Key>,
    /// Nothing has failed since somebody asked last.
    applied: bool,
}

impl Feed {
    fn new(table: Table, watch: Watch) -> Self {
        Self { table, watch, known: BTreeSet::new(), applied: true }
    }

    /// What all that there is changes.
    fn current(&mut self, entries: Vec<(Name, Name, Entry)>, own: &Name) -> Changes {
        let mut changes = Changes::new();
        let mut before = std::mem::take(&mut self.known);
        for (network, endpoint, entry) in entries.into_iter().filter(|(_, _, entry)| entry.owner != *own) {
            let key = (network, endpoint);
            before.remove(&key);
            self.known.insert(key.clone());
            changes.push((self.table, key, Some(entry)));
        }
        changes.extend(before.into_iter().map(|key| (self.table, key, None)));
        changes
    }

    fn changed(&mut self, change: Change) -> (Table, Key, Option<Entry>) {
        let key = (change.network, change.key);
        match &change.after {
            Some(_) => self.known.insert(key.clone()),
            None => self.known.remove(&key),
        };
        (self.table, key, change.after)
    }
}

/// Whether a change is one of this node's own entries.
fn is_of(change: &Change, own: &Name) -> bool {
    change.after.as_ref().or(change.before.as_ref()).is_some_and(|entry| entry.owner == *own)
}
