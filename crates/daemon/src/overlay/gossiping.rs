//! The gossip of this node, from the first keys that a session brings until the node leaves the swarm.
//!
//! A daemon that ends says nothing to the others: its containers run on, and what it told of them stays true until the
//! next daemon tells it again, under a new name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::{NetworkPart, NodeAddresses};
use discovery::seed;
use gossip::limits::{MAX_KEYS, MAX_SEEDS, PACKET_BYTES, PORT};
use gossip_io::{Handle, Running, Settings};
use model::EncryptionKey;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::errors::chain;

/// What keys of the gossip are called.
const GOSSIP_SUBSYSTEM: &str = "networking:gossip";
/// Time between two tries to listen, when another process has the port.
const BIND_AGAIN: Duration = Duration::from_secs(10);

/// The gossip, or that there is none.
#[derive(Clone)]
pub(crate) struct Gossiping(Arc<Shared>);

struct Shared {
    /// This member's name, new in every run.
    name: String,
    current: Mutex<Option<Current>>,
    handle: watch::Sender<Option<Handle>>,
}

struct Current {
    addresses: NodeAddresses,
    part: watch::Sender<NetworkPart>,
    task: JoinHandle<Option<Running>>,
    stop: watch::Sender<bool>,
}

impl Gossiping {
    /// None yet. `name` is the name of this run of the daemon.
    pub(crate) fn new(name: &str) -> Self {
        Self(Arc::new(Shared { name: name.to_owned(), current: Mutex::new(None), handle: watch::channel(None).0 }))
    }

    /// The gossip as it comes and goes.
    pub(crate) fn handle(&self) -> watch::Receiver<Option<Handle>> {
        self.0.handle.subscribe()
    }

    /// Takes keys and managers; starts to gossip at the first keys.
    pub(crate) async fn set(&self, part: NetworkPart) {
        let mut current = self.0.current.lock().await;
        let Some(addresses) = part.addresses.filter(|_| !gossip_keys(&part.keys).is_empty()) else { return };
        if let Some(running) = current.as_ref().filter(|running| running.addresses == addresses) {
            running.part.send_replace(part);
            return;
        }
        end(current.take()).await;
        let (part, parts) = watch::channel(part);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(self.0.clone(), addresses, parts, stopped));
        *current = Some(Current { addresses, part, task, stop });
    }

    /// Says to the others that this node leaves, and ends.
    pub(crate) async fn leave(&self) {
        end(self.0.current.lock().await.take()).await;
    }
}

async fn end(current: Option<Current>) {
    let Some(Current { task, stop, .. }) = current else { return };
    stop.send_replace(true);
    match task.await {
        Ok(Some(running)) => running.leave().await,
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "the gossip broke"),
    }
}

/// Gossips until it is stopped; what runs comes back, to leave in order.
async fn run(
    shared: Arc<Shared>,
    addresses: NodeAddresses,
    mut parts: watch::Receiver<NetworkPart>,
    mut stopped: watch::Receiver<bool>,
) -> Option<Running> {
    let running = tokio::select! {
        // A start that is given up has bound nothing that outlives it.
        running = start(&shared.name, addresses, &parts) => running,
        _ = stopped.wait_for(|stop| *stop) => return None,
    };
    let handle = running.handle().clone();
    // Its seeds first: without any it would count as the first of all.
    let part = parts.borrow().clone();
    follow(&handle, &part).await;
    shared.handle.send_replace(Some(handle.clone()));
    tracing::info!(name = shared.name, advertise = %handle.advertise(), "gossip has begun");
    loop {
        let part = parts.borrow_and_update().clone();
        follow(&handle, &part).await;
        tokio::select! {
            // Level-triggered, both.
            changed = parts.changed() => if changed.is_err() { break },
            _ = stopped.wait_for(|stop| *stop) => break,
        }
    }
    shared.handle.send_replace(None);
    Some(running)
}

/// Listens; as long as another process has the port it is said once, and tried again.
async fn start(name: &str, addresses: NodeAddresses, parts: &watch::Receiver<NetworkPart>) -> Running {
    let mut told = false;
    loop {
        let (keys, primary) = sealing(&parts.borrow().keys);
        let started = gossip_io::start(Settings {
            name: name.to_owned(),
            bind: SocketAddr::new(addresses.listen, PORT),
            advertise: addresses.advertise,
            packet_bytes: PACKET_BYTES,
            keys,
            primary,
        });
        match started.await {
            Ok(running) => return running,
            Err(error) if told => tracing::debug!(error = chain(&error), "no gossip"),
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "this node does not gossip: networks of the swarm end at it until the port is free"
                );
                told = true;
            }
        }
        tokio::time::sleep(BIND_AGAIN).await;
    }
}

/// Brings keys and seeds up to date.
async fn follow(handle: &Handle, part: &NetworkPart) {
    let (keys, primary) = sealing(&part.keys);
    if let Err(error) = handle.set_keys(keys, primary).await {
        tracing::error!(error = chain(&error), "the gossip does not take the swarm's keys");
    }
    let own = handle.advertise();
    let seeds = part.managers.iter().filter_map(|manager| seed(manager, PORT));
    let seeds: Vec<_> = seeds.filter(|seed| *seed != own).take(MAX_SEEDS).collect();
    if handle.join(seeds).await.is_err() {
        tracing::debug!("the gossip has ended");
    }
}

/// Keys of the gossip by Lamport time.
fn gossip_keys(keys: &[EncryptionKey]) -> Vec<&EncryptionKey> {
    let mut keys: Vec<_> = keys.iter().filter(|key| key.subsystem == GOSSIP_SUBSYSTEM).collect();
    keys.sort_by_key(|key| key.lamport_time);
    keys
}

/// The keys, and which of them seals: the second, as all nodes have had that one since the rotation before.
fn sealing(keys: &[EncryptionKey]) -> (Vec<Vec<u8>>, usize) {
    let keys: Vec<_> = gossip_keys(keys).into_iter().take(MAX_KEYS).map(|key| key.key.clone()).collect();
    let primary = keys.len().saturating_sub(1).min(1);
    (keys, primary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(subsystem: &str, lamport_time: u64) -> EncryptionKey {
        let key = vec![u8::try_from(lamport_time).unwrap(); 16];
        EncryptionKey { subsystem: subsystem.to_owned(), key, lamport_time, ..EncryptionKey::default() }
    }

    #[test]
    fn the_second_oldest_key_seals() {
        let keys =
            [key(GOSSIP_SUBSYSTEM, 3), key("networking:ipsec", 1), key(GOSSIP_SUBSYSTEM, 1), key(GOSSIP_SUBSYSTEM, 2)];
        assert_eq!(sealing(&keys), (vec![vec![1; 16], vec![2; 16], vec![3; 16]], 1));
        assert_eq!(sealing(&keys[..1]), (vec![vec![3; 16]], 0));
        assert_eq!(sealing(&[]), (vec![], 0));
    }

    #[tokio::test]
    async fn gossip_begins_with_keys_and_ends_with_the_node() {
        let addresses = NodeAddresses {
            listen: "127.0.0.77".parse().unwrap(),
            advertise: "127.0.0.77".parse().unwrap(),
            data_path: "127.0.0.77".parse().unwrap(),
        };
        let gossiping = Gossiping::new("0123456789ab");
        let mut handle = gossiping.handle();
        let mut part = NetworkPart { addresses: Some(addresses), ..NetworkPart::default() };
        gossiping.set(part.clone()).await;
        assert!(handle.borrow().is_none(), "nothing is told in the clear");
        part.keys = vec![key(GOSSIP_SUBSYSTEM, 1), key(GOSSIP_SUBSYSTEM, 2), key(GOSSIP_SUBSYSTEM, 3)];
        gossiping.set(part.clone()).await;
        handle.wait_for(Option::is_some).await.unwrap();
        // Keys rotate while it runs.
        part.keys = vec![key(GOSSIP_SUBSYSTEM, 2), key(GOSSIP_SUBSYSTEM, 3), key(GOSSIP_SUBSYSTEM, 4)];
        gossiping.set(part).await;
        gossiping.leave().await;
        assert!(handle.borrow_and_update().is_none());
        gossiping.leave().await;
    }
}
