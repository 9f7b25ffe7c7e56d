//! What the gossip finds out, in the daemon's log: members that come and go, and tables that were not the same.

use gossip::Event;
use gossip_io::Handle;
use tokio::sync::{broadcast, watch};

/// Tells until the daemon ends; to be spawned.
pub(crate) async fn tell(mut handles: watch::Receiver<Option<Handle>>) {
    loop {
        let Some(handle) = handles.borrow_and_update().clone() else {
            if handles.changed().await.is_err() {
                return;
            }
            continue;
        };
        tell_of(handle.notices()).await;
        // The gossip has ended; its place is cleared a moment later.
        if handles.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_of(mut notices: broadcast::Receiver<Event>) {
    loop {
        match notices.recv().await {
            Ok(event) => tell_event(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "notices of the gossip were missed")
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn tell_event(event: Event) {
    match event {
        Event::PeerUp(peer) => tracing::info!(name = %peer.name, address = %peer.address, "a node gossips"),
        Event::PeerDown(name) => tracing::info!(%name, "a node does not gossip any more"),
        Event::Joined(seed) => tracing::info!(%seed, "joined the gossip of the swarm"),
        Event::Diverged { network, peer } => {
            tracing::warn!(%network, %peer, "tables of a network were not the same on two nodes; they are brought together");
        }
        Event::Conflict { name, address } => tracing::warn!(%name, %address, "two nodes gossip under one name"),
        Event::Refuted(what) => tracing::debug!(?what, "something false was told of this node, and contradicted"),
        Event::Changed(_)
        | Event::Pushed { .. }
        | Event::Left
        | Event::Probed { .. }
        | Event::Answered { .. }
        | Event::Noted { .. } => {}
    }
}
