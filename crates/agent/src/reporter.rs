//! Keeps the newest status of each task until a manager has taken it, and on disk until the task is gone. One owner of the
//! book; senders borrow batches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{TaskId, TaskStatus};
use tokio::sync::Notify;

use crate::task_files::TaskFiles;

/// Statuses sent in one call at the most.
const MAX_BATCH: usize = 100;

/// The statuses of this node's tasks, and which of them no manager has yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reporter {
    book: Arc<Mutex<Book>>,
    wake: Arc<Notify>,
    files: Option<TaskFiles>,
}

#[derive(Debug, Default)]
struct Book {
    known: BTreeMap<TaskId, TaskStatus>,
    /// Sequence of the last change of each task that is still to be sent.
    unsent: BTreeMap<TaskId, u64>,
    sequence: u64,
}

/// Statuses to send, and what to tell [`Reporter::taken`] when a manager has them.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) statuses: Vec<(TaskId, TaskStatus)>,
    sequences: Vec<u64>,
}

impl Batch {
    /// The same statuses, each in a batch of its own.
    pub(crate) fn singles(&self) -> impl Iterator<Item = Batch> + '_ {
        let one = |(status, sequence): (&(TaskId, TaskStatus), &u64)| Batch {
            statuses: vec![status.clone()],
            sequences: vec![*sequence],
        };
        self.statuses.iter().zip(&self.sequences).map(one)
    }
}

impl Reporter {
    /// A book that is kept on disk, too.
    pub(crate) fn kept_in(files: TaskFiles) -> Self {
        Self { files: Some(files), ..Self::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task's newest status.
    pub(crate) fn report(&self, task: &TaskId, status: TaskStatus) {
        if let Some(files) = &self.files {
            files.put_status(task, &status);
        }
        let mut book = self.book();
        book.sequence += 1;
        let sequence = book.sequence;
        book.known.insert(task.clone(), status);
        book.unsent.insert(task.clone(), sequence);
        drop(book);
        self.wake.notify_one();
    }

    /// Forgets a task that is no longer assigned here.
    pub(crate) fn forget(&self, task: &TaskId) {
        let mut book = self.book();
        book.known.remove(task);
        book.unsent.remove(task);
    }

    /// A new session: every known status is to be sent again.
    pub(crate) fn resend_all(&self) {
        let mut book = self.book();
        book.sequence += 1;
        let sequence = book.sequence;
        book.unsent = book.known.keys().map(|id| (id.clone(), sequence)).collect();
        drop(book);
        self.wake.notify_one();
    }

    /// Waits until there is something to send. Cancel-safe: nothing is taken out of the book.
    pub(crate) async fn next_batch(&self) -> Batch {
        loop {
            if let Some(batch) = self.batch() {
                return batch;
            }
            self.wake.notified().await;
        }
    }

    fn batch(&self) -> Option<Batch> {
        let book = self.book();
        let mut batch = Batch { statuses: Vec::new(), sequences: Vec::new() };
        for (id, sequence) in book.unsent.iter().take(MAX_BATCH) {
            if let Some(status) = book.known.get(id) {
                batch.statuses.push((id.clone(), status.clone()));
                batch.sequences.push(*sequence);
            }
        }
        (!batch.statuses.is_empty()).then_some(batch)
    }

    /// A manager has these; what changed since stays to be sent.
    pub(crate) fn taken(&self, batch: &Batch) {
        let mut book = self.book();
        for ((id, _), sequence) in batch.statuses.iter().zip(&batch.sequences) {
            if book.unsent.get(id) == Some(sequence) {
                book.unsent.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reporter;
    use model::{TaskId, TaskState, TaskStatus};

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus { state, ..Default::default() }
    }

    #[tokio::test]
    async fn a_status_that_changes_while_sent_is_sent_again() {
        let reporter = Reporter::default();
        let id = TaskId::from("t");
        reporter.report(&id, status(TaskState::Starting));
        let batch = reporter.next_batch().await;
        reporter.report(&id, status(TaskState::Running));
        reporter.taken(&batch);
        let batch = reporter.next_batch().await;
        assert_eq!(batch.statuses[0].1.state, TaskState::Running);
        reporter.taken(&batch);
        assert!(reporter.batch().is_none());
        reporter.resend_all();
        assert!(reporter.batch().is_some());
        reporter.forget(&id);
        assert!(reporter.batch().is_none());
    }
}
