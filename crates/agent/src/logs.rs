//! Answers log subscriptions: reads the logs of the tasks that a subscription selects and publishes them. One tokio
//! task a subscription, owned by the session; it ends with the session, the subscription or the logs.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::SelectAll;
use model::{NodeId, Task, Timestamp};
use swarm_proto::swarmkit as p;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::{Controller, LogLine, LogRequest};

/// Log messages that wait for the connection.
const PUBLISH_QUEUE: usize = 64;
/// Subscriptions served at once; more are refused with a log line.
const MAX_SUBSCRIPTIONS: usize = 128;

/// The log subscriptions of a session as they come. A manager of Go's sends nothing, not even headers, before the first
/// one, so nobody may wait for the call to be answered.
pub(crate) enum Subscriptions {
    /// Called, not answered.
    Opening(BoxFuture<'static, Result<Streaming<p::SubscriptionMessage>, Status>>),
    /// Answered.
    Open(Box<Streaming<p::SubscriptionMessage>>),
    /// There are none in this session.
    None,
}

impl Subscriptions {
    /// Asks for them.
    pub(crate) fn open(channel: Channel) -> Self {
        let mut broker = p::log_broker_client::LogBrokerClient::new(channel);
        Self::Opening(Box::pin(async move {
            let answered = broker.listen_subscriptions(p::ListenSubscriptionsRequest {}).await?;
            Ok(answered.into_inner())
        }))
    }

    /// The next one; never, when there are none. Cancel-safe: what is under way stays here.
    pub(crate) async fn next(&mut self) -> Result<p::SubscriptionMessage, Status> {
        loop {
            *self = match self {
                Self::Opening(call) => match call.await {
                    Ok(stream) => Self::Open(Box::new(stream)),
                    Err(status) if status.code() == tonic::Code::Unimplemented => Self::None,
                    Err(status) => return Err(status),
                },
                Self::Open(stream) => {
                    return stream.message().await?.ok_or_else(|| Status::aborted("closed by the manager"));
                }
                Self::None => std::future::pending().await,
            };
        }
    }
}

/// The running publishers of a session.
#[derive(Default)]
pub(crate) struct Publishers {
    running: BTreeMap<String, JoinHandle<()>>,
}

impl Drop for Publishers {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

impl Publishers {
    /// Takes a subscription message: starts a publisher, or ends one.
    pub(crate) fn take(
        &mut self,
        message: p::SubscriptionMessage,
        node: &NodeId,
        sources: Vec<(Arc<Task>, Arc<dyn Controller>)>,
        channel: Channel,
    ) {
        self.running.retain(|_, task| !task.is_finished());
        if message.close {
            if let Some(task) = self.running.remove(&message.id) {
                task.abort();
            }
            return;
        }
        if self.running.len() >= MAX_SUBSCRIPTIONS {
            tracing::warn!(subscription = message.id, "too many log subscriptions at once");
            return;
        }
        let id = message.id.clone();
        let publisher = publish(message, node.clone(), sources, channel);
        self.running.insert(id, tokio::spawn(publisher));
    }
}

/// Does the selector pick this task?
pub(crate) fn selects(selector: Option<&p::LogSelector>, task: &Task) -> bool {
    let Some(selector) = selector else { return false };
    let service = task.service_id.as_ref().map(|id| id.as_str());
    let node = task.node_id.as_ref().map(|id| id.as_str());
    selector.task_ids.iter().any(|id| id == task.id.as_str())
        || selector.service_ids.iter().any(|id| Some(id.as_str()) == service)
        || selector.node_ids.iter().any(|id| Some(id.as_str()) == node)
}

fn request(options: Option<p::LogSubscriptionOptions>) -> LogRequest {
    let options = options.unwrap_or_default();
    let has = |stream: p::LogStream| options.streams.is_empty() || options.streams.contains(&(stream as i32));
    LogRequest {
        stdout: has(p::LogStream::Stdout),
        stderr: has(p::LogStream::Stderr),
        follow: options.follow,
        // 0 is the whole log, a negative number -n-1 stands for the last n lines.
        tail: (options.tail < 0).then(|| u64::try_from(-(options.tail + 1)).unwrap_or(0)),
        since: options.since.map(|since| Timestamp { seconds: since.seconds, nanos: since.nanos }),
    }
}

async fn publish(
    message: p::SubscriptionMessage,
    node: NodeId,
    sources: Vec<(Arc<Task>, Arc<dyn Controller>)>,
    channel: Channel,
) {
    let (sender, receiver) = mpsc::channel(PUBLISH_QUEUE);
    let id = message.id.clone();
    let feed = feed(message, node, sources, sender);
    let mut client = p::log_broker_client::LogBrokerClient::new(channel);
    let send = client.publish_logs(ReceiverStream::new(receiver));
    let ((), sent) = tokio::join!(feed, send);
    if let Err(status) = sent {
        tracing::debug!(subscription = id, %status, "log publishing ended");
    }
}

async fn feed(
    message: p::SubscriptionMessage,
    node: NodeId,
    sources: Vec<(Arc<Task>, Arc<dyn Controller>)>,
    sender: mpsc::Sender<p::PublishLogsMessage>,
) {
    let request = request(message.options);
    let mut lines = SelectAll::new();
    for (task, controller) in sources {
        match controller.logs(request.clone()).await {
            Ok(stream) => lines.push(stream.map(move |line| (task.clone(), line)).boxed()),
            Err(error) => tracing::warn!(task = %task.id, %error, "no logs of this task"),
        }
    }
    while let Some((task, line)) = lines.next().await {
        let out = p::PublishLogsMessage {
            subscription_id: message.id.clone(),
            messages: vec![log_message(&task, &node, line)],
            close: false,
        };
        if sender.send(out).await.is_err() {
            return;
        }
    }
    let last = p::PublishLogsMessage { subscription_id: message.id, messages: Vec::new(), close: true };
    if sender.send(last).await.is_err() {
        tracing::debug!("log subscription ended before its last message");
    }
}

fn log_message(task: &Task, node: &NodeId, line: LogLine) -> p::LogMessage {
    let context = p::LogContext {
        service_id: task.service_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        node_id: node.to_string(),
        task_id: task.id.to_string(),
    };
    let stream = if line.stderr { p::LogStream::Stderr } else { p::LogStream::Stdout };
    p::LogMessage {
        context: Some(context),
        timestamp: Some(prost_time(line.timestamp)),
        stream: stream as i32,
        data: line.data,
        attrs: line.attrs.into_iter().map(|(key, value)| p::LogAttr { key, value }).collect(),
    }
}

fn prost_time(at: Timestamp) -> <Timestamp as swarm_proto::convert::ToProto>::Proto {
    swarm_proto::convert::ToProto::to_proto(&at)
}
