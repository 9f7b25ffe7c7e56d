//! Log subscriptions: which nodes must publish, what they published, and when a subscription without `follow` is done.
//!
//! ```text
//!  subscribe ──► subscription ──offered──► nodes that listen ──PublishLogs──► subscriber
//!                      └── closed when every node has finished (no follow), or the subscriber is gone
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use model::{NodeId, Task, TaskState};
use store::View;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::log_broker_server::LogBroker as Service;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::caller::Caller;
use crate::error::ControlError;
use crate::shared::Shared;

/// Messages that wait for a subscriber; publishers wait then.
const SUBSCRIBER_QUEUE: usize = 256;
/// Subscription messages that wait for a node.
const LISTENER_QUEUE: usize = 128;
/// Subscriptions at once.
const MAX_SUBSCRIPTIONS: usize = 1024;

/// The log broker of a leading manager.
pub struct LogBroker {
    shared: Arc<Shared>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    subscriptions: BTreeMap<String, Subscription>,
    listeners: BTreeMap<NodeId, mpsc::Sender<Result<p::SubscriptionMessage, Status>>>,
}

struct Subscription {
    message: p::SubscriptionMessage,
    /// Nodes that have not finished yet.
    open: BTreeSet<NodeId>,
    out: mpsc::Sender<Result<p::LogMessage, String>>,
    follow: bool,
    problems: Vec<String>,
    /// Dropped with the subscription: ends who watches the subscriber.
    _ended: oneshot::Sender<()>,
}

impl LogBroker {
    pub(crate) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes to the logs that the selector picks. The last item is an `Err` if some could not be had.
    pub fn subscribe(
        self: &Arc<Self>,
        selector: p::LogSelector,
        options: p::LogSubscriptionOptions,
    ) -> Result<mpsc::Receiver<Result<p::LogMessage, String>>, ControlError> {
        if selector.service_ids.is_empty() && selector.node_ids.is_empty() && selector.task_ids.is_empty() {
            return Err(ControlError::invalid("log selector must not be empty"));
        }
        let follow = options.follow;
        let (nodes, mut problems) = self.nodes_of(&selector, follow);
        let (out, receiver) = mpsc::channel(SUBSCRIBER_QUEUE);
        let id = identity::random_id();
        let message =
            p::SubscriptionMessage { id: id.clone(), selector: Some(selector), options: Some(options), close: false };
        let mut inner = self.lock();
        inner.subscriptions.retain(|_, subscription| !subscription.out.is_closed());
        if inner.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return Err(ControlError::new(tonic::Code::ResourceExhausted, "too many log subscriptions"));
        }
        let mut open = BTreeSet::new();
        for node in nodes {
            match inner.listeners.get(&node).map(|listener| listener.try_send(Ok(message.clone())).is_ok()) {
                Some(true) => drop(open.insert(node)),
                _ => problems.push(format!("node {node} is not available")),
            }
        }
        let done = open.is_empty() && !follow;
        let (ended_sender, ended) = oneshot::channel();
        let watched = out.clone();
        let subscription = Subscription { message, open, out, follow, problems, _ended: ended_sender };
        inner.subscriptions.insert(id.clone(), subscription);
        drop(inner);
        if done {
            self.finish(&id);
        } else {
            self.watch_subscriber(id, watched, ended);
        }
        Ok(receiver)
    }

    /// The nodes that hold tasks of the selector, and what cannot be had.
    fn nodes_of(&self, selector: &p::LogSelector, follow: bool) -> (BTreeSet<NodeId>, Vec<String>) {
        let view = self.shared.view();
        let mut nodes: BTreeSet<NodeId> = selector.node_ids.iter().map(|id| NodeId::from(id.as_str())).collect();
        let mut problems = Vec::new();
        for task in tasks_of(&view, selector) {
            if !follow && task.status.state < TaskState::Running {
                continue;
            }
            match &task.node_id {
                Some(node) => drop(nodes.insert(node.clone())),
                None if follow => {}
                None => problems.push(format!("task {} has not been scheduled", task.id)),
            }
        }
        (nodes, problems)
    }

    /// A node has finished a subscription, or will never.
    fn node_done(&self, id: &str, node: &NodeId, problem: Option<String>) {
        let mut inner = self.lock();
        let Some(subscription) = inner.subscriptions.get_mut(id) else { return };
        if subscription.open.remove(node) {
            subscription.problems.extend(problem);
        }
        let done = subscription.open.is_empty() && !subscription.follow;
        drop(inner);
        if done {
            self.finish(id);
        }
    }

    /// Ends a subscription; tells the subscriber what is missing, and the nodes that it is over.
    fn finish(&self, id: &str) {
        let mut inner = self.lock();
        let Some(subscription) = inner.subscriptions.remove(id) else { return };
        let close = p::SubscriptionMessage { close: true, ..subscription.message };
        for listener in inner.listeners.values() {
            // A node that cannot take it ends its publisher when it next publishes: the subscription is unknown then.
            listener.try_send(Ok(close.clone())).ok();
        }
        drop(inner);
        if !subscription.problems.is_empty() {
            let text = format!(
                "warning: incomplete log stream. some logs could not be retrieved for the following reasons: {}",
                subscription.problems.join(", ")
            );
            // A subscriber with a full queue that is about to end learns nothing worse than a shorter log.
            subscription.out.try_send(Err(text)).ok();
        }
    }

    /// Ends the subscription when nobody reads it any more. The sender is let go with the subscription: as long as one
    /// lives, the subscriber waits for more.
    fn watch_subscriber(
        self: &Arc<Self>,
        id: String,
        out: mpsc::Sender<Result<p::LogMessage, String>>,
        ended: oneshot::Receiver<()>,
    ) {
        let broker = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::select! {
                // Level-triggered.
                () = out.closed() => {}
                // The subscription is over already.
                _ = ended => return,
            }
            drop(out);
            if let Some(broker) = broker.upgrade() {
                broker.finish(&id);
            }
        });
    }

    /// Takes a node as a listener and offers it every running subscription.
    fn listen(&self, node: &NodeId) -> mpsc::Receiver<Result<p::SubscriptionMessage, Status>> {
        let (sender, receiver) = mpsc::channel(LISTENER_QUEUE);
        let view = self.shared.view();
        let mut inner = self.lock();
        for subscription in inner.subscriptions.values_mut().filter(|subscription| subscription.follow) {
            let selector = subscription.message.selector.clone().unwrap_or_default();
            let here = tasks_of(&view, &selector).any(|task| task.node_id.as_ref() == Some(node));
            if here && sender.try_send(Ok(subscription.message.clone())).is_ok() {
                subscription.open.insert(node.clone());
            }
        }
        inner.listeners.insert(node.clone(), sender);
        receiver
    }

    fn subscriber(&self, id: &str) -> Option<mpsc::Sender<Result<p::LogMessage, String>>> {
        self.lock().subscriptions.get(id).map(|subscription| subscription.out.clone())
    }
}

fn tasks_of<'a>(view: &'a View, selector: &'a p::LogSelector) -> impl Iterator<Item = &'a Arc<Task>> + 'a {
    let services = selector.service_ids.iter().flat_map(|id| view.tasks_of_service(&id.as_str().into()));
    let tasks = selector.task_ids.iter().filter_map(|id| view.task(&id.as_str().into()));
    services.chain(tasks)
}

/// The log broker as a gRPC service.
#[derive(Clone)]
pub struct LogBrokerService(pub Arc<LogBroker>);

#[tonic::async_trait]
impl Service for LogBrokerService {
    type ListenSubscriptionsStream = Pin<Box<dyn Stream<Item = Result<p::SubscriptionMessage, Status>> + Send>>;

    async fn listen_subscriptions(
        &self,
        request: Request<p::ListenSubscriptionsRequest>,
    ) -> Result<Response<Self::ListenSubscriptionsStream>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(self.0.listen(&caller.node_id)))))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<p::PublishLogsMessage>>,
    ) -> Result<Response<p::PublishLogsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let mut stream = request.into_inner();
        let mut current: Option<String> = None;
        let mut problem = Some(format!("node {} disconnected unexpectedly", caller.node_id));
        let result = loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            };
            if message.subscription_id.is_empty() {
                break Err(Status::invalid_argument("missing subscription ID"));
            }
            if current.get_or_insert_with(|| message.subscription_id.clone()) != &message.subscription_id {
                break Err(Status::invalid_argument("different subscription IDs in one session"));
            }
            if message.close {
                problem = None;
                break Ok(());
            }
            if let Err(status) = self.deliver(&caller, message).await {
                break Err(status);
            }
        };
        if let Some(id) = current {
            self.0.node_done(&id, &caller.node_id, problem);
        }
        result.map(|()| Response::new(p::PublishLogsResponse {}))
    }
}

impl LogBrokerService {
    async fn deliver(&self, caller: &Caller, message: p::PublishLogsMessage) -> Result<(), Status> {
        let out = self.0.subscriber(&message.subscription_id);
        let out = out.ok_or_else(|| Status::not_found("unknown subscription ID"))?;
        for log in message.messages {
            let from = log.context.as_ref().map(|context| context.node_id.as_str());
            if from != Some(caller.node_id.as_str()) {
                return Err(Status::permission_denied("log context node_id does not match the caller"));
            }
            out.send(Ok(log)).await.map_err(|_| Status::not_found("unknown subscription ID"))?;
        }
        Ok(())
    }
}
