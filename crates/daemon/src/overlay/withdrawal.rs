//! Waiting until no node sends connections to a task that stops.

use std::time::Duration;

use gossip::Name;
use gossip_io::{Handle, Pushed};
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long a stop waits for the others: a node that is gone, or that gives no word, holds it up no longer. dockerd waits
/// this long always.
const LIMIT: Duration = Duration::from_secs(2);

/// What others were told of a task that stops.
pub(crate) struct Withdrawal {
    gossip: Option<Handle>,
    entries: Vec<(Name, Name, Name)>,
}

impl Withdrawal {
    /// There is nobody to tell.
    pub(super) fn nobody() -> Self {
        Self { gossip: None, entries: Vec::new() }
    }

    /// These entries have changed.
    pub(super) fn new(gossip: Handle, entries: Vec<(Name, Name, Name)>) -> Self {
        Self { gossip: Some(gossip), entries }
    }

    /// Waits until every other node has it in its tables, or for two seconds.
    pub(crate) async fn known(self) {
        let Some(gossip) = self.gossip.filter(|_| !self.entries.is_empty()) else { return };
        let deadline = Instant::now() + LIMIT;
        match timeout_at(deadline, gossip.push(self.entries)).await {
            Ok(Ok(Pushed { silent: 0, foreign: 0 })) | Ok(Err(_)) => {}
            Ok(Ok(Pushed { silent, foreign })) => {
                // What they were told they also hear by gossip.
                tracing::debug!(silent, foreign, "nodes gave no word that they know of a task's stop");
                sleep_until(deadline).await;
            }
            Err(_) => tracing::debug!("nodes gave no word in time that they know of a task's stop"),
        }
    }
}
