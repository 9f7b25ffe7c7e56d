//! The dispatcher's loops: commits to the nodes that they concern, time to nodes that fell silent.

use std::sync::Arc;

use consensus::Status;
use tokio::sync::watch;

use super::Dispatcher;
use super::core::{EndReason, Silent, peers_of, write_down};
use crate::error::ControlError;
use crate::shared::{Next, Watch};
use crate::writer::MAX_ACTIONS;

/// Brings every commit, and every change of the managers, to the streams that it concerns. Runs until the manager ends.
pub(super) async fn run_router(dispatcher: Arc<Dispatcher>, mut commits: Watch, mut status: watch::Receiver<Status>) {
    loop {
        dispatcher.set_peers(peers_of(&status.borrow_and_update().members, &dispatcher.manager));
        tokio::select! {
            // A broadcast receiver keeps its place.
            next = commits.next() => match next {
                Some(Next::Commit(commit)) => dispatcher.observe(&commit),
                Some(Next::Anew) => dispatcher.mailboxes.wake_all(),
                None => return,
            },
            // Level-triggered: what is seen is read at the next turn.
            changed = status.changed() => if changed.is_err() { return },
        }
    }
}

/// Marks nodes DOWN whose time is over. Runs until dropped.
pub(super) async fn run_expiry(dispatcher: Arc<Dispatcher>) {
    loop {
        let deadline = dispatcher.sessions().deadline();
        let wait = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(dispatcher.started + at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A timer made anew each turn.
            () = wait => {}
            // A permit of `notify_one` is kept until it is taken.
            () = dispatcher.deadline_changed.notified() => continue,
        }
        let silent = dispatcher.sessions().take_silent(dispatcher.moment());
        for silent in &silent {
            dispatcher.mailboxes.end(&silent.node, None, EndReason::Disconnect);
        }
        dispatcher.mark_down(&silent).await;
    }
}

impl Dispatcher {
    async fn mark_down(&self, silent: &[Silent]) {
        for nodes in silent.chunks(MAX_ACTIONS) {
            let written = self.writer.write(|transaction| {
                for Silent { node, message } in nodes {
                    // It may have come back since.
                    if !self.sessions().is_registered(node) {
                        write_down(transaction, node, message)?;
                    }
                }
                Ok::<_, ControlError>(())
            });
            if let Err(error) = written.await {
                tracing::warn!(%error, "nodes that are down could not be marked so");
            }
        }
    }
}
