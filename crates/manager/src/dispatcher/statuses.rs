//! Writes reported statuses, as many as wait in one transaction: at once when idle, in batches under load.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use model::{NodeId, TaskId};
use tokio::sync::mpsc;

use super::StatusUpdate;
use super::core::write_statuses;
use crate::error::ControlError;
use crate::writer::{MAX_ACTIONS, Pending, Writer, now};

/// Transactions that wait for their commit; further statuses gather until one is through.
const MAX_UNDER_WAY: usize = 8;

/// Runs until the dispatcher is dropped.
pub(crate) async fn run(writer: Arc<Writer>, mut inbox: mpsc::Receiver<StatusUpdate>, applied_by: NodeId) {
    let mut under_way = FuturesUnordered::new();
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            // `recv_many` is cancel-safe.
            count = inbox.recv_many(&mut waiting, MAX_ACTIONS), if under_way.len() < MAX_UNDER_WAY => {
                if count == 0 {
                    break;
                }
                match start(&writer, waiting.drain(..), &applied_by).await {
                    Ok(pending) => under_way.extend(pending.map(|pending| settle(writer.clone(), pending))),
                    Err(error) => warn(&error),
                }
            }
            // What is not taken stays in the set.
            Some(settled) = under_way.next() => {
                if let Err(error) = settled {
                    warn(&error);
                }
            }
        }
    }
}

/// Every node reports all it has at its next session, so nothing is lost for good.
fn warn(error: &ControlError) {
    tracing::warn!(%error, "reported statuses could not be written");
}

async fn settle(writer: Arc<Writer>, pending: Pending) -> Result<(), ControlError> {
    writer.settle(pending).await
}

/// Proposes the newest status of each task.
async fn start(
    writer: &Writer,
    reported: impl Iterator<Item = StatusUpdate> + Send,
    applied_by: &NodeId,
) -> Result<Option<Pending>, ControlError> {
    let mut newest: BTreeMap<TaskId, StatusUpdate> = BTreeMap::new();
    for update in reported {
        match newest.get(&update.task) {
            Some(held) if held.status.state > update.status.state => {}
            _ => drop(newest.insert(update.task.clone(), update)),
        }
    }
    let newest = newest.into_values().map(|update| (update.task, update.node, update.status));
    let started =
        writer.start(|transaction| write_statuses(transaction, newest, applied_by, now()).map_err(ControlError::from));
    let ((), pending) = started.await?;
    Ok(pending)
}
