//! When a new daemon may take out of the kernel what nobody tells of any more.

use std::time::Duration;

use gossip_io::Handle;
use tokio::sync::watch;

use super::exchange::Exchange;

/// Time that tasks here and nodes elsewhere have to tell of their endpoints.
const GRACE: Duration = Duration::from_secs(15);
/// Time between two looks for other members, as long as there is none.
const LOOK: Duration = Duration::from_secs(5);
/// Looks until this node counts as alone.
const LOOKS: u32 = 60;

/// Settles once; to be spawned at the start. A node that hears of nobody keeps for some minutes what it knew: its managers
/// may be away, and the others' tasks run all the same.
pub(crate) async fn run(exchange: Exchange, handles: watch::Receiver<Option<Handle>>) {
    tokio::time::sleep(GRACE).await;
    for _ in 0..LOOKS {
        if !exchange.waits_for_others().await || has_peers(&handles).await {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    exchange.settle().await;
}

async fn has_peers(handles: &watch::Receiver<Option<Handle>>) -> bool {
    let handle = handles.borrow().clone();
    match handle {
        Some(handle) => handle.peers().await.is_ok_and(|peers| !peers.is_empty()),
        None => false,
    }
}
