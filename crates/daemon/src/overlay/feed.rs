//! Brings what other nodes gossip into the exchange, in the order in which it is told, many changes at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use discovery::{ENDPOINT_TABLE, PEER_TABLE};
use gossip::{Entry, Kind, Name};
use gossip_io::{Handle, Watch, WatchEvent};
use tokio::sync::watch;

use super::exchange::{Exchange, Table, Told};

/// Follows the gossip as it comes and goes; to be spawned.
pub(crate) async fn run(exchange: Exchange, mut handles: watch::Receiver<Option<Handle>>) {
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
            () = follow(&exchange, &handle) => {}
            _ = handles.changed() => continue,
        }
        if handles.changed().await.is_err() {
            return;
        }
    }
}

/// Until the gossip ends.
async fn follow(exchange: &Exchange, handle: &Handle) {
    let mut endpoints = Feed::new(Table::Endpoints, handle.watch(ENDPOINT_TABLE, None));
    let mut links = Feed::new(Table::Links, handle.watch(PEER_TABLE, None));
    loop {
        let event = tokio::select! {
            // Both may be dropped while they wait.
            event = links.watch.next() => event.map(|event| links.take(event)),
            event = endpoints.watch.next() => event.map(|event| endpoints.take(event)),
        };
        let Some(changes) = event else { return };
        let peers = handle.peers().await.unwrap_or_default();
        let keeping: BTreeSet<Name> =
            peers.into_iter().filter(|peer| peer.kind == Kind::Skep).map(|peer| peer.name).collect();
        let told = changes.into_iter().map(|(table, (network, endpoint), entry)| {
            let keeps_clients = entry.as_ref().is_some_and(|entry| keeping.contains(&entry.owner));
            let told = Told { table, network: network.to_string(), endpoint: endpoint.to_string(), keeps_clients };
            (told, entry.map(|entry| entry.value))
        });
        exchange.take(told.collect()).await;
    }
}

type Key = (Name, Name);
type Changes = Vec<(Table, Key, Option<Entry>)>;

/// One table, and what was told of it.
struct Feed {
    table: Table,
    watch: Watch,
    known: BTreeMap<Key, Arc<[u8]>>,
}

impl Feed {
    fn new(table: Table, watch: Watch) -> Self {
        Self { table, watch, known: BTreeMap::new() }
    }

    /// What an event changes.
    fn take(&mut self, event: WatchEvent) -> Changes {
        let mut changes = Changes::new();
        match event {
            WatchEvent::Current(entries) => {
                let mut before = std::mem::take(&mut self.known);
                for (network, endpoint, entry) in entries {
                    let key = (network, endpoint);
                    before.remove(&key);
                    self.known.insert(key.clone(), entry.value.clone());
                    changes.push((self.table, key, Some(entry)));
                }
                changes.extend(before.into_keys().map(|key| (self.table, key, None)));
            }
            WatchEvent::Changed(change) => {
                let key = (change.network, change.key);
                match &change.after {
                    Some(entry) => drop(self.known.insert(key.clone(), entry.value.clone())),
                    None => drop(self.known.remove(&key)),
                }
                changes.push((self.table, key, change.after));
            }
        }
        changes
    }
}
