//! Coming into a network. This node sends nothing to others in it before they know the way back, and its tasks there are not
//! announced before it knows the ways to the others: until both is so, or has had its time, the network is closed.
//!
//! A network that a former daemon left is open: the others know this node by what that one told.

use std::time::Duration;

use discovery::PEER_TABLE;
use gossip::Name;
use gossip_io::Handle;
use tokio::time::{Instant, timeout_at};

use super::{Exchange, State};

/// How long it may take to hear of a network, and to be heard of: managers and others may be away.
const LIMIT: Duration = Duration::from_secs(5);

impl Exchange {
    /// Opens a network when it is time.
    pub(super) fn greet(&self, network: &str) {
        let (exchange, network) = (self.clone(), network.to_owned());
        tokio::spawn(async move {
            let deadline = Instant::now() + LIMIT;
            if timeout_at(deadline, exchange.introduce(&network)).await.is_err() {
                tracing::warn!(network, "others may not know this node yet; it takes part in the network all the same");
            }
            exchange.open_network(&network).await;
        });
    }

    /// Until the others know this node's own address on a network.
    async fn introduce(&self, network: &str) {
        let mut gossip = self.0.gossip.subscribe();
        loop {
            let handle = gossip.borrow_and_update().clone();
            let introduced = async {
                match &handle {
                    Some(handle) => self.introduce_to(handle, network).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Begun anew with the next gossip.
                () = introduced => return,
                changed = gossip.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn introduce_to(&self, gossip: &Handle, network: &str) {
        if gossip.heard(network).await.is_err() {
            return std::future::pending().await;
        }
        let links: Vec<(Name, Name, Name)> = {
            let state = self.lock().await;
            let here = state.own.iter().filter(|((id, _), own)| id == network && own.told.contains_key(PEER_TABLE));
            here.map(|(_, own)| (network.into(), PEER_TABLE.into(), own.key.as_str().into())).collect()
        };
        match gossip.push(links).await {
            Ok(pushed) if pushed.silent > 0 => tracing::debug!(network, ?pushed, "not all nodes gave a word"),
            Ok(_) => {}
            Err(_) => std::future::pending().await,
        }
    }

    async fn open_network(&self, network: &str) {
        let mut state = self.lock().await;
        let State { held, tables, .. } = &mut *state;
        let Some(held) = held.get_mut(network) else { return };
        held.is_open = true;
        // With those that are elsewhere.
        tables.tell_services(network);
        self.apply(&mut state).await;
        self.show_open(&state);
    }

    pub(super) fn show_open(&self, state: &State) {
        let open = state.held.iter().filter(|(_, held)| held.is_open).map(|(id, _)| id.clone());
        self.0.open.send_replace(open.collect());
    }

    /// Waits until networks are open, or are gone.
    pub(super) async fn until_open(&self, networks: &[String]) {
        let mut open = self.0.open.subscribe();
        // A network opens in bounded time; the exchange holds the sender.
        let limit = Instant::now() + 2 * LIMIT;
        let all_open = open.wait_for(|open| networks.iter().all(|network| open.contains(network)));
        if timeout_at(limit, all_open).await.is_err() {
            tracing::warn!(?networks, "networks of a task are gone, or do not open");
        }
    }
}
