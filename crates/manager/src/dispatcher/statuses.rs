//! Writes reported statuses, as many as wait in one transaction: at once when idle, in batches under load.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{NodeId, Task, TaskId};
use tokio::sync::mpsc;

use super::{StatusUpdate, is_news};
use crate::error::ControlError;
use crate::writer::{MAX_ACTIONS, Writer, now};

/// Runs until the dispatcher is dropped.
pub(crate) async fn run(writer: Arc<Writer>, mut inbox: mpsc::Receiver<StatusUpdate>, applied_by: NodeId) {
    let mut waiting = Vec::new();
    while inbox.recv_many(&mut waiting, MAX_ACTIONS).await > 0 {
        let mut newest: BTreeMap<TaskId, StatusUpdate> = BTreeMap::new();
        for update in waiting.drain(..) {
            match newest.get(&update.task) {
                Some(held) if held.status.state > update.status.state => {}
                _ => drop(newest.insert(update.task.clone(), update)),
            }
        }
        let written = writer.write(|transaction| {
            for update in newest.into_values() {
                let Some(task) = transaction.task(&update.task) else { continue };
                if task.node_id.as_ref() != Some(&update.node) || !is_news(&task.status, &update.status) {
                    continue;
                }
                let mut task = Task::clone(task);
                task.status = update.status;
                task.status.applied_by = applied_by.to_string();
                task.status.applied_at = Some(now());
                transaction.update(task).map_err(ControlError::from)?;
            }
            Ok::<_, ControlError>(())
        });
        if let Err(error) = written.await {
            // Every node reports all it has at its next session, so nothing is lost for good.
            tracing::warn!(%error, "reported statuses could not be written");
        }
    }
}
