//! Log subscriptions: which nodes must publish, what they published, and when a subscription without `follow` is done.
//!
//! ```text
//!  subscribe ──► subscription ──offered──► nodes that listen ──PublishLogs──► subscriber
//!                      ├── closed when every node has finished (no follow), or the subscriber is gone
//!                      └── a node that hangs up or goes down has finished, and its part is missing
//! ```
//!
//! A subscriber on a manager that follows is served by the leader's broker. Invariant: views are read and subscriptions
//! entered under one lock, which commits take after they are visible, so no task is missed between the two.

mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{NodeId, NodeState, Task, TaskState};
use store::{Event, Object, View};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::logs_client::LogsClient;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::control::FindLeader;
use crate::error::ControlError;
use crate::leadership::Leader;
use crate::shared::{Commit, Next, Shared, Watch};
pub use service::LogBrokerService;

/// Messages that wait for a subscriber; publishers wait then.
const SUBSCRIBER_QUEUE: usize = 256;
/// Subscription messages that wait for a node.
const LISTENER_QUEUE: usize = 128;
/// Subscriptions at once.
const MAX_SUBSCRIPTIONS: usize = 1024;

/// What a subscriber reads. The last item is an `Err` if some logs could not be had.
pub type LogReceiver = mpsc::Receiver<Result<p::LogMessage, String>>;

/// The log broker of a leading manager, and the way to the leader's for a manager that follows.
pub struct LogBroker {
    shared: Arc<Shared>,
    leader: Arc<dyn FindLeader>,
    /// Whether this manager leads.
    ready: watch::Receiver<bool>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    subscriptions: BTreeMap<String, Subscription>,
    listeners: BTreeMap<NodeId, Listener>,
    next_listener: u64,
}

struct Listener {
    number: u64,
    out: mpsc::Sender<Result<p::SubscriptionMessage, Status>>,
}

/// One ListenSubscriptions stream.
pub(crate) struct ListenerId {
    node: NodeId,
    number: u64,
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

fn disconnected(node: &NodeId) -> String {
    format!("node {node} disconnected unexpectedly")
}

impl LogBroker {
    pub(crate) fn new(shared: Arc<Shared>, leader: Arc<dyn FindLeader>, ready: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self { shared, leader, ready, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> View {
        self.shared.view()
    }

    /// Follows commits, and the leadership, which takes all subscriptions with it. Runs until the manager ends.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut commits: Watch = self.shared.watch();
        let mut ready = self.ready.clone();
        loop {
            tokio::select! {
                // A broadcast receiver keeps its place.
                next = commits.next() => match next {
                    Some(Next::Commit(commit)) => self.observe(&commit),
                    Some(Next::Anew) => self.offer_all(),
                    None => return,
                },
                // Level-triggered: what is seen is read below.
                changed = ready.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if !*ready.borrow_and_update() {
                        self.end_all();
                    }
                }
            }
        }
    }

    /// Subscribes to the logs that the selector picks, on the leader.
    pub async fn subscribe(
        self: &Arc<Self>,
        selector: p::LogSelector,
        options: p::LogSubscriptionOptions,
    ) -> Result<LogReceiver, ControlError> {
        match self.leader.find().await? {
            Leader::Here => self.subscribe_here(selector, options),
            Leader::There(remote) => subscribe_there(remote.channel, selector, options).await,
        }
    }

    /// Subscribes on this manager, which leads.
    pub(crate) fn subscribe_here(
        self: &Arc<Self>,
        selector: p::LogSelector,
        options: p::LogSubscriptionOptions,
    ) -> Result<LogReceiver, ControlError> {
        if selector.service_ids.is_empty() && selector.node_ids.is_empty() && selector.task_ids.is_empty() {
            return Err(ControlError::invalid("log selector must not be empty"));
        }
        self.check_running()?;
        let follow = options.follow;
        let (out, receiver) = mpsc::channel(SUBSCRIBER_QUEUE);
        let id = identity::random_id();
        let mut inner = self.lock();
        inner.subscriptions.retain(|_, subscription| !subscription.out.is_closed());
        if inner.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return Err(ControlError::new(Code::ResourceExhausted, "too many log subscriptions"));
        }
        let (nodes, problems) = nodes_of(&self.view(), &selector, follow);
        let message =
            p::SubscriptionMessage { id: id.clone(), selector: Some(selector), options: Some(options), close: false };
        let (ended_sender, ended) = oneshot::channel();
        let watched = out.clone();
        let mut subscription =
            Subscription { message, open: BTreeSet::new(), out, follow, problems, _ended: ended_sender };
        for node in nodes {
            if !subscription.offer(&inner.listeners, &node) {
                subscription.problems.push(format!("node {node} is not available"));
            }
        }
        let done = subscription.is_done();
        inner.subscriptions.insert(id.clone(), subscription);
        drop(inner);
        if done {
            self.finish(&id);
        } else {
            self.watch_subscriber(id, watched, ended);
        }
        Ok(receiver)
    }

    fn check_running(&self) -> Result<(), ControlError> {
        if *self.ready.borrow() { Ok(()) } else { Err(ControlError::new(Code::Unknown, "broker is not running")) }
    }

    /// Offers subscriptions that follow to nodes that get a matching task; what a node that is down has not published
    /// is missing.
    fn observe(&self, commit: &Commit) {
        for event in &commit.events {
            match event {
                Event::Create(Object::Task(task)) | Event::Update { new: Object::Task(task), .. } => {
                    self.offer_to_new_node(task);
                }
                Event::Update { new: Object::Node(node), .. } if node.status.state == NodeState::Down => {
                    self.node_gone(&node.id);
                }
                Event::Remove(Object::Node(node)) => self.node_gone(&node.id),
                _ => {}
            }
        }
    }

    fn offer_to_new_node(&self, task: &Task) {
        let Some(node) = &task.node_id else { return };
        let mut inner = self.lock();
        let Inner { subscriptions, listeners, .. } = &mut *inner;
        for subscription in subscriptions.values_mut() {
            if subscription.follow && !subscription.open.contains(node) && subscription.picks(task) {
                subscription.offer(listeners, node);
            }
        }
    }

    fn offer_all(&self) {
        let view = self.view();
        for task in view.tasks() {
            self.offer_to_new_node(task);
        }
    }

    /// A node will publish no more: for every subscription that waits for it, its part is missing.
    fn node_gone(&self, node: &NodeId) {
        let waiting: Vec<String> = {
            let inner = self.lock();
            let open = inner.subscriptions.iter().filter(|(_, subscription)| subscription.open.contains(node));
            open.map(|(id, _)| id.clone()).collect()
        };
        for id in waiting {
            self.node_done(&id, node, Some(disconnected(node)));
        }
    }

    /// A node has finished a subscription, or will never.
    fn node_done(&self, id: &str, node: &NodeId, problem: Option<String>) {
        let mut inner = self.lock();
        let Some(subscription) = inner.subscriptions.get_mut(id) else { return };
        if subscription.open.remove(node) {
            subscription.problems.extend(problem);
        }
        let done = subscription.is_done();
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
            listener.out.try_send(Ok(close.clone())).ok();
        }
        drop(inner);
        if !subscription.problems.is_empty() {
            let text = format!(
                "warning: incomplete log stream. some logs could not be retrieved for the following reasons: {}",
                subscription.problems.join(", ")
            );
            say_last(subscription.out, text);
        }
    }

    /// This manager leads no more: all is over.
    fn end_all(&self) {
        let mut inner = self.lock();
        let ended = std::mem::take(&mut inner.subscriptions);
        inner.listeners.clear();
        drop(inner);
        for subscription in ended.into_values() {
            say_last(subscription.out, "the manager that collected the logs leads no more".to_owned());
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

    /// Takes a node as a listener and offers it the running subscriptions that concern it.
    fn listen(
        &self,
        node: &NodeId,
    ) -> Result<(ListenerId, mpsc::Receiver<Result<p::SubscriptionMessage, Status>>), ControlError> {
        self.check_running()?;
        let (out, receiver) = mpsc::channel(LISTENER_QUEUE);
        let mut inner = self.lock();
        inner.next_listener += 1;
        let number = inner.next_listener;
        inner.listeners.insert(node.clone(), Listener { number, out });
        let view = self.view();
        let Inner { subscriptions, listeners, .. } = &mut *inner;
        for subscription in subscriptions.values_mut().filter(|subscription| subscription.follow) {
            let selector = subscription.message.selector.clone().unwrap_or_default();
            let named = selector.node_ids.iter().any(|id| id == node.as_str());
            if named || tasks_of(&view, &selector).any(|task| task.node_id.as_ref() == Some(node)) {
                subscription.offer(listeners, node);
            }
        }
        Ok((ListenerId { node: node.clone(), number }, receiver))
    }

    /// A node listens no more on this stream.
    fn hung_up(&self, id: &ListenerId) {
        let mut inner = self.lock();
        // It may have opened another since.
        if inner.listeners.get(&id.node).is_none_or(|listener| listener.number != id.number) {
            return;
        }
        inner.listeners.remove(&id.node);
        drop(inner);
        self.node_gone(&id.node);
    }

    fn subscriber(&self, id: &str) -> Option<mpsc::Sender<Result<p::LogMessage, String>>> {
        self.lock().subscriptions.get(id).map(|subscription| subscription.out.clone())
    }
}

impl Subscription {
    /// Asks a node to publish; `false` if it cannot be asked.
    fn offer(&mut self, listeners: &BTreeMap<NodeId, Listener>, node: &NodeId) -> bool {
        let asked = listeners.get(node).is_some_and(|it| it.out.try_send(Ok(self.message.clone())).is_ok());
        if asked {
            self.open.insert(node.clone());
        }
        asked
    }

    fn is_done(&self) -> bool {
        self.open.is_empty() && !self.follow
    }

    fn picks(&self, task: &Task) -> bool {
        let Some(selector) = &self.message.selector else { return false };
        let service = task.service_id.as_ref();
        selector.task_ids.iter().any(|id| id == task.id.as_str())
            || selector.service_ids.iter().any(|id| service.is_some_and(|service| id == service.as_str()))
    }
}

/// Gives a subscriber its last item, however long it takes to read up to there.
fn say_last(out: mpsc::Sender<Result<p::LogMessage, String>>, text: String) {
    match out.try_send(Err(text)) {
        // It is there, or nobody reads.
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
        Err(mpsc::error::TrySendError::Full(item)) => {
            // Ends with the subscriber at the latest.
            tokio::spawn(async move { out.send(item).await.ok() });
        }
    }
}

/// The nodes that hold tasks of the selector, and what cannot be had.
fn nodes_of(view: &View, selector: &p::LogSelector, follow: bool) -> (BTreeSet<NodeId>, Vec<String>) {
    let mut nodes: BTreeSet<NodeId> = selector.node_ids.iter().map(|id| NodeId::from(id.as_str())).collect();
    let mut problems = Vec::new();
    for task in tasks_of(view, selector) {
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

fn tasks_of<'a>(view: &'a View, selector: &'a p::LogSelector) -> impl Iterator<Item = &'a Arc<Task>> + 'a {
    let services = selector.service_ids.iter().flat_map(|id| view.tasks_of_service(&id.as_str().into()));
    let tasks = selector.task_ids.iter().filter_map(|id| view.task(&id.as_str().into()));
    services.chain(tasks)
}

/// Subscribes on the leader; its messages come through a queue of the same kind as here.
async fn subscribe_there(
    channel: Channel,
    selector: p::LogSelector,
    options: p::LogSubscriptionOptions,
) -> Result<LogReceiver, ControlError> {
    let request = p::SubscribeLogsRequest { selector: Some(selector), options: Some(options) };
    let mut client = LogsClient::new(channel).max_decoding_message_size(i32::MAX as usize);
    let stream = client.subscribe_logs(request).await?.into_inner();
    let (out, receiver) = mpsc::channel(SUBSCRIBER_QUEUE);
    tokio::spawn(pass_on(stream, out));
    Ok(receiver)
}

/// Ends with the stream or the subscriber.
async fn pass_on(mut stream: Streaming<p::SubscribeLogsMessage>, out: mpsc::Sender<Result<p::LogMessage, String>>) {
    loop {
        let message = tokio::select! {
            // Cancel-safe: what is not whole stays in the stream.
            message = stream.message() => message,
            // Level-triggered.
            () = out.closed() => return,
        };
        let items: Vec<_> = match message {
            Ok(Some(message)) => message.messages.into_iter().map(Ok).collect(),
            Ok(None) => return,
            Err(status) => return say_last(out, status.message().to_owned()),
        };
        for item in items {
            if out.send(item).await.is_err() {
                return;
            }
        }
    }
}
