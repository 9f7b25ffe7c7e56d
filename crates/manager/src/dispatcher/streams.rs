//! The streams that nodes hold open. Each is pulled by its connection: nothing is made before it can be sent, and no task
//! or queue of its own waits beside it.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use model::NodeId;
use swarm_proto::swarmkit as p;
use tonic::Status;

use super::Dispatcher;
use super::core::{AssignmentFeed, EndReason, MESSAGE_CHANGES, Pace, SessionFeed, assigned_tasks};
use super::mailbox::Subscription;

/// A stream of messages to a node.
pub(super) type BoxedStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The session's messages: the whole at once, then whenever a part of it changes, and once more when the session ends.
pub(super) fn session(
    dispatcher: Arc<Dispatcher>,
    subscription: Subscription,
    feed: SessionFeed,
) -> BoxedStream<p::SessionMessage> {
    let state = SessionStream { dispatcher, subscription, feed, ending: None, done: false };
    Box::pin(stream::unfold(state, |mut state| async move { state.next().await.map(|item| (item, state)) }))
}

struct SessionStream {
    dispatcher: Arc<Dispatcher>,
    subscription: Subscription,
    feed: SessionFeed,
    ending: Option<EndReason>,
    done: bool,
}

impl SessionStream {
    async fn next(&mut self) -> Option<Result<p::SessionMessage, Status>> {
        if self.done {
            return None;
        }
        while self.ending.is_none() {
            self.ending = self.subscription.ended();
            let (view, peers) = (self.dispatcher.writer.shared().view(), self.dispatcher.peers());
            let message = match self.ending {
                None => self.feed.next(&view, &peers),
                Some(EndReason::Disconnect) => self.feed.last(&peers),
                Some(EndReason::Removed) => None,
            };
            if let Some(message) = message {
                return Some(Ok(message));
            }
            if self.ending.is_none() && self.subscription.news().await.is_ok() {
                self.subscription.take(MESSAGE_CHANGES);
            }
        }
        self.done = true;
        self.ending.map(|reason| Err(ended(reason, self.subscription.node())))
    }
}

/// The node's assignments: the complete set, then changes.
pub(super) fn assignments(
    dispatcher: Arc<Dispatcher>,
    subscription: Subscription,
) -> BoxedStream<p::AssignmentsMessage> {
    let feed = AssignmentFeed::new(subscription.node().clone());
    let state = ChangeStream::new(dispatcher, subscription, feed);
    Box::pin(stream::unfold(state, |mut state| async move { state.next().await.map(|item| (item, state)) }))
}

/// The node's tasks, all in each message: what agents that do not know Assignments open.
pub(super) fn tasks(dispatcher: Arc<Dispatcher>, subscription: Subscription) -> BoxedStream<p::TasksMessage> {
    let state = ChangeStream::new(dispatcher, subscription, ());
    Box::pin(stream::unfold(state, |mut state| async move { state.next().await.map(|item| (item, state)) }))
}

struct ChangeStream<F> {
    dispatcher: Arc<Dispatcher>,
    subscription: Subscription,
    feed: F,
    pace: Pace,
    begun: bool,
    done: bool,
}

impl<F> ChangeStream<F> {
    fn new(dispatcher: Arc<Dispatcher>, subscription: Subscription, feed: F) -> Self {
        let pace = Pace::new(dispatcher.moment());
        Self { dispatcher, subscription, feed, pace, begun: false, done: false }
    }

    /// Waits for changes, and for the time at which they may be sent.
    async fn wait(&mut self) -> Result<(), Status> {
        let over = |reason| ended(reason, self.subscription.node());
        self.subscription.news().await.map_err(over)?;
        let wait = self.pace.wait(self.dispatcher.moment());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }
}

impl ChangeStream<AssignmentFeed> {
    async fn next(&mut self) -> Option<Result<p::AssignmentsMessage, Status>> {
        if self.done {
            return None;
        }
        if !std::mem::replace(&mut self.begun, true) {
            return Some(Ok(self.feed.first(&self.dispatcher.writer.shared().view())));
        }
        loop {
            if let Err(status) = self.wait().await {
                self.done = true;
                return Some(Err(status));
            }
            // Taken first: what changes after this is put in again, what changed before is in the view.
            let dirt = self.subscription.take(MESSAGE_CHANGES);
            if let Some(message) = self.feed.next(&self.dispatcher.writer.shared().view(), &dirt) {
                self.pace.sent(self.dispatcher.moment());
                return Some(Ok(message));
            }
        }
    }
}

impl ChangeStream<()> {
    async fn next(&mut self) -> Option<Result<p::TasksMessage, Status>> {
        if self.done {
            return None;
        }
        if std::mem::replace(&mut self.begun, true) {
            if let Err(status) = self.wait().await {
                self.done = true;
                return Some(Err(status));
            }
            while !self.subscription.take(MESSAGE_CHANGES).is_empty() {}
            self.pace.sent(self.dispatcher.moment());
        }
        Some(Ok(assigned_tasks(self.subscription.node(), &self.dispatcher.writer.shared().view())))
    }
}

fn ended(reason: EndReason, node: &NodeId) -> Status {
    match reason {
        EndReason::Disconnect => Status::aborted("node must disconnect"),
        EndReason::Removed => {
            Status::permission_denied(format!("Permission denied: node {node} was removed from swarm"))
        }
    }
}
