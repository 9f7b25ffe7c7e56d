//! Owns one assigned task: takes the next step towards its desired state, one at a time, and reports each status.
//!
//! ```text
//!  assigned ─► accepted ─► preparing ─► ready ─┬─► starting ─► running ─► complete
//!                              │  (desired     │       │           │  └──► failed
//!                              ▼   running)────┘       ▼           ▼
//!                          rejected                 failed     shutdown (desired shutdown or remove, at any time)
//! ```
//!
//! A newer task wakes it; a step in flight is dropped only when the task is now to be stopped. Called by `worker`.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use lifecycle::task::{Outcome, Step, after_step, next_step};
use model::{Task, TaskState, TaskStatus, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::reporter::Reporter;
use crate::{Controller, ControllerError};

/// First pause after a temporary error; doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between tries of a step.
const MAX_PAUSE: Duration = Duration::from_secs(16);
/// Newer versions of a task that may wait for the owner.
const UPDATE_QUEUE: usize = 16;

/// Handle of a task's owner.
pub(crate) struct TaskManager {
    updates: mpsc::Sender<Arc<Task>>,
    join: JoinHandle<()>,
    pub(crate) controller: Arc<dyn Controller>,
    pub(crate) task: Arc<Task>,
}

impl TaskManager {
    /// Starts the owner of `task` at the state that the managers last saw.
    pub(crate) fn start(task: Arc<Task>, controller: Arc<dyn Controller>, reporter: Reporter) -> Self {
        let (updates, inbox) = mpsc::channel(UPDATE_QUEUE);
        let owner = Owner {
            status: task.status.clone(),
            task: task.clone(),
            controller: controller.clone(),
            reporter,
            pause: FIRST_PAUSE,
        };
        Self { updates, join: tokio::spawn(owner.run(inbox)), controller, task }
    }

    /// Hands a newer version to the owner.
    pub(crate) async fn update(&mut self, task: Arc<Task>) {
        self.task = task.clone();
        // An owner that has gone needs no update: its task ended and stays as it is.
        if self.updates.send(task).await.is_err() {
            tracing::debug!(task = %self.task.id, "update for a task whose owner has ended");
        }
    }

    /// Ends the owner where it stands and removes what the controller made.
    pub(crate) async fn remove(self) {
        self.join.abort();
        if let Err(error) = self.join.await
            && !error.is_cancelled()
        {
            tracing::error!(task = %self.task.id, %error, "the owner of a task broke");
        }
        if let Err(error) = self.controller.remove().await {
            tracing::warn!(task = %self.task.id, %error, "remains of a task could not be removed");
        }
    }

    /// Ends the owner and leaves the container alone.
    pub(crate) async fn detach(self) {
        self.join.abort();
        if let Err(error) = self.join.await
            && !error.is_cancelled()
        {
            tracing::error!(task = %self.task.id, %error, "the owner of a task broke");
        }
    }
}

struct Owner {
    task: Arc<Task>,
    status: TaskStatus,
    controller: Arc<dyn Controller>,
    reporter: Reporter,
    pause: Duration,
}

/// What ended the wait for a step.
enum Turn {
    Done(Result<(), ControllerError>),
    Update(Option<Arc<Task>>),
}

impl Owner {
    async fn run(mut self, mut inbox: mpsc::Receiver<Arc<Task>>) {
        if self.status.state >= TaskState::Starting && self.status.state <= TaskState::Running {
            self.report().await;
        }
        loop {
            let step = next_step(self.task.desired_state, self.status.state);
            if step == Step::Nothing {
                match inbox.recv().await {
                    Some(task) => self.take_update(task).await,
                    None => return,
                }
                continue;
            }
            let mut work = self.work(step);
            let result = loop {
                let turn = tokio::select! {
                    // The step's own future is kept across turns, so nothing of it is lost.
                    result = &mut work => Turn::Done(result),
                    // `recv` is cancel-safe.
                    update = inbox.recv() => Turn::Update(update),
                };
                match turn {
                    Turn::Done(result) => break Some(result),
                    Turn::Update(None) => return,
                    Turn::Update(Some(task)) => {
                        self.take_update(task).await;
                        if next_step(self.task.desired_state, self.status.state) != step {
                            break None;
                        }
                    }
                }
            };
            if let Some(result) = result {
                self.finish(step, result, &mut inbox).await;
            }
        }
    }

    fn work(&self, step: Step) -> BoxFuture<'static, Result<(), ControllerError>> {
        let controller = self.controller.clone();
        Box::pin(async move {
            match step {
                Step::Prepare => controller.prepare().await,
                Step::Start => controller.start().await,
                Step::Wait => controller.wait().await,
                Step::Shutdown => controller.shutdown().await,
                Step::Accept | Step::BeginPrepare | Step::BeginStart | Step::Nothing => Ok(()),
            }
        })
    }

    async fn take_update(&mut self, task: Arc<Task>) {
        if let Err(error) = self.controller.update(task.clone()).await {
            tracing::warn!(task = %task.id, %error, "task update refused by its controller");
        }
        self.task = task;
    }

    /// Moves the status on by what the step came to, and reports it.
    async fn finish(&mut self, step: Step, result: Result<(), ControllerError>, inbox: &mut mpsc::Receiver<Arc<Task>>) {
        let outcome = match result {
            Ok(()) => Outcome::Done,
            Err(ControllerError::Temporary(text)) => Outcome::Temporary(text),
            Err(ControllerError::Fatal(text)) => Outcome::Fatal(text),
            Err(ControllerError::Exited { text, .. }) => Outcome::Fatal(text),
        };
        let pausing = matches!(outcome, Outcome::Temporary(_));
        self.status = after_step(step, &self.status, outcome, now());
        self.report().await;
        if pausing {
            let pause = tokio::time::sleep(self.pause);
            self.pause = (self.pause * 2).min(MAX_PAUSE);
            tokio::select! {
                // A pause is only a delay; nothing is lost when an update ends it.
                () = pause => {}
                // `recv` is cancel-safe.
                update = inbox.recv() => if let Some(task) = update { self.take_update(task).await },
            }
        } else {
            self.pause = FIRST_PAUSE;
        }
    }

    async fn report(&mut self) {
        if self.status.state >= TaskState::Starting {
            if let Some(container) = self.controller.container_status().await {
                self.status.container = Some(container);
            }
            self.status.port_status = self.controller.port_status().await.or(self.status.port_status.take());
        }
        self.reporter.report(&self.task.id, self.status.clone());
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
