//! One session with a dispatcher at a time: registration, heartbeat, assignments, statuses, log subscriptions. A broken
//! session is opened again after a back-off, wherever `Connect` then leads; the tasks go on meanwhile.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::{EncryptionKey, Node, NodeDescription, NodeId, NodeTlsInfo};
use stdx::Rng;
use swarm_proto::convert::{FromProto, ToProto};
use swarm_proto::swarmkit as p;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::logs::{Publishers, selects};
use crate::worker::Worker;
use crate::{Executor, ExecutorError};

/// Largest message taken from a manager, as SwarmKit's agents do.
const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;
/// How long opening a session and a heartbeat may take.
const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the machine is looked at for a changed description.
const DESCRIBE_EVERY: Duration = Duration::from_secs(20);
/// First back-off between sessions; then base + 2 x previous, at most [`MAX_BACKOFF`].
const BASE_BACKOFF: Duration = Duration::from_millis(100);
/// Longest back-off between sessions.
const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// Gives a connection to some manager: this node's own one, or another.
#[async_trait]
pub trait Connect: Send + Sync + 'static {
    /// A connection, made anew or shared.
    async fn connect(&self) -> Result<Channel, String>;
}

/// What an agent needs.
pub struct AgentConfig {
    /// This node.
    pub node_id: NodeId,
    /// The way to a manager.
    pub connect: Arc<dyn Connect>,
    /// The engine behind the controllers.
    pub executor: Arc<dyn Executor>,
    /// What the node tells of its certificate.
    pub tls_info: Option<NodeTlsInfo>,
    /// Seed of the back-off.
    pub seed: u64,
}

/// What the last session told: for `docker info` and for the node's own life cycle.
#[derive(Clone, Debug, Default)]
pub struct SessionInfo {
    /// Whether a session is open.
    pub connected: bool,
    /// The node as the managers have it.
    pub node: Option<Arc<Node>>,
    /// All managers: node identifier and address.
    pub managers: Vec<(String, String)>,
    /// The trust root, PEM; `None` before the first session.
    pub root_ca: Option<Vec<u8>>,
}

/// How an agent is to end.
enum End {
    /// Leave the containers alone.
    Detach,
    /// Stop and remove every task.
    Leave,
}

/// Handle of a running agent. Dropping it detaches.
pub struct AgentHandle {
    end: Option<oneshot::Sender<End>>,
    join: JoinHandle<()>,
    info: watch::Receiver<SessionInfo>,
}

impl AgentHandle {
    /// What the session told last.
    pub fn info(&self) -> watch::Receiver<SessionInfo> {
        self.info.clone()
    }

    /// Ends the agent; containers run on.
    pub async fn detach(self) {
        self.end(End::Detach).await;
    }

    /// Ends the agent after stopping and removing all tasks.
    pub async fn leave(self) {
        self.end(End::Leave).await;
    }

    async fn end(mut self, how: End) {
        if let Some(end) = self.end.take()
            && end.send(how).is_err()
        {
            tracing::debug!("the agent had ended already");
        }
        if let Err(error) = self.join.await {
            tracing::error!(%error, "the agent broke");
        }
    }
}

/// Starts the agent of this node.
pub fn start(config: AgentConfig) -> AgentHandle {
    let (end, ended) = oneshot::channel();
    let (info_sender, info) = watch::channel(SessionInfo::default());
    let agent = Agent {
        worker: Worker::new(config.executor.clone()),
        rng: Rng::new(config.seed),
        config,
        info: info_sender,
        session_id: String::new(),
        keys: Vec::new(),
    };
    AgentHandle { end: Some(end), join: tokio::spawn(agent.run(ended)), info }
}

struct Agent {
    config: AgentConfig,
    worker: Worker,
    rng: Rng,
    info: watch::Sender<SessionInfo>,
    session_id: String,
    keys: Vec<EncryptionKey>,
}

/// The streams of an open session.
struct Session {
    channel: Channel,
    messages: Streaming<p::SessionMessage>,
    assignments: Streaming<p::AssignmentsMessage>,
    subscriptions: Option<Streaming<p::SubscriptionMessage>>,
    description: NodeDescription,
}

impl Agent {
    async fn run(mut self, mut ended: oneshot::Receiver<End>) {
        let mut backoff = Duration::ZERO;
        let how = loop {
            let session = tokio::select! {
                // A half-open session is dropped, which closes it.
                how = &mut ended => break how,
                session = self.open() => session,
            };
            let why = match session {
                Ok(session) => {
                    backoff = Duration::ZERO;
                    self.info.send_modify(|info| info.connected = true);
                    let why = tokio::select! {
                        // The session's streams are dropped; the worker is not inside of them.
                        how = &mut ended => break how,
                        why = self.serve(session) => why,
                    };
                    self.info.send_modify(|info| info.connected = false);
                    why
                }
                Err(why) => why,
            };
            tracing::info!(reason = %why, "session with the dispatcher ended");
            if why.code() == tonic::Code::InvalidArgument || why.code() == tonic::Code::NotFound {
                self.session_id.clear();
            }
            backoff = (BASE_BACKOFF + 2 * backoff).min(MAX_BACKOFF);
            let millis = u64::try_from(backoff.as_millis()).unwrap_or(u64::MAX);
            let pause = Duration::from_millis(self.rng.below(millis) + 1);
            tokio::select! {
                how = &mut ended => break how,
                () = tokio::time::sleep(pause) => {}
            }
        };
        match how {
            Ok(End::Leave) => self.worker.remove_all().await,
            // A dropped handle means that the process is going down.
            Ok(End::Detach) | Err(_) => self.worker.detach().await,
        }
    }

    async fn describe(&self) -> Result<NodeDescription, ExecutorError> {
        let description = self.config.executor.describe().await?;
        Ok(NodeDescription { tls_info: self.config.tls_info.clone(), ..description })
    }

    async fn open(&mut self) -> Result<Session, Status> {
        let channel = self.config.connect.connect().await.map_err(Status::unavailable)?;
        let description = self.describe().await.map_err(|error| Status::internal(error.to_string()))?;
        let request =
            p::SessionRequest { description: Some(description.to_proto()), session_id: self.session_id.clone() };
        let mut client =
            p::dispatcher_client::DispatcherClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let opening = async {
            let mut messages = client.session(request).await?.into_inner();
            let first = messages.message().await?.ok_or_else(|| Status::aborted("session ended at once"))?;
            Ok::<_, Status>((messages, first))
        };
        let timed_out = |_| Status::deadline_exceeded("the dispatcher did not answer");
        let (messages, first) = tokio::time::timeout(RPC_TIMEOUT, opening).await.map_err(timed_out)??;
        self.session_id = first.session_id.clone();
        self.take_session_message(first).await?;
        let request = p::AssignmentsRequest { session_id: self.session_id.clone() };
        let assignments = client.assignments(request).await?.into_inner();
        let mut broker = p::log_broker_client::LogBrokerClient::new(channel.clone());
        let subscriptions = match broker.listen_subscriptions(p::ListenSubscriptionsRequest {}).await {
            Ok(stream) => Some(stream.into_inner()),
            Err(status) if status.code() == tonic::Code::Unimplemented => None,
            Err(status) => return Err(status),
        };
        self.worker.reporter.resend_all();
        Ok(Session { channel, messages, assignments, subscriptions, description })
    }

    async fn take_session_message(&mut self, message: p::SessionMessage) -> Result<(), Status> {
        let node = message.node.map(Node::from_proto).transpose().map_err(|e| Status::internal(e.to_string()))?;
        let keys: Result<Vec<_>, _> =
            message.network_bootstrap_keys.into_iter().map(EncryptionKey::from_proto).collect();
        let keys = keys.map_err(|e| Status::internal(e.to_string()))?;
        let executor = self.config.executor.clone();
        if !keys.is_empty() && keys != self.keys {
            executor.set_network_keys(keys.clone()).await.map_err(|e| Status::internal(e.to_string()))?;
            self.keys = keys;
        }
        let node = node.map(Arc::new);
        if let Some(node) = &node
            && let Err(error) = executor.configure(node.clone()).await
        {
            tracing::error!(%error, "the node could not be configured");
        }
        let managers = message.managers.into_iter().filter_map(|weighted| weighted.peer);
        let managers: Vec<_> = managers.map(|peer| (peer.node_id, peer.addr)).collect();
        self.info.send_modify(|info| {
            info.node = node.or(info.node.take());
            if !managers.is_empty() {
                info.managers = managers;
            }
            if !message.root_ca.is_empty() {
                info.root_ca = Some(message.root_ca);
            }
        });
        Ok(())
    }

    /// Serves an open session until it breaks; returns why.
    async fn serve(&mut self, mut session: Session) -> Status {
        let (broken, mut failures) = mpsc::channel::<Status>(2);
        let beat = tokio::spawn(heartbeat(session.channel.clone(), self.session_id.clone(), broken.clone()));
        let _beat = AbortOnDrop(beat);
        let send =
            send_statuses(session.channel.clone(), self.session_id.clone(), self.worker.reporter.clone(), broken);
        let _send = AbortOnDrop(tokio::spawn(send));
        let mut publishers = Publishers::default();
        let mut look = tokio::time::interval(DESCRIBE_EVERY);
        look.reset();
        loop {
            // Every arm takes whole messages from a stream or a channel, which is cancel-safe, and works outside.
            tokio::select! {
                message = session.messages.message() => {
                    let taken = match message {
                        Ok(Some(message)) => self.take_session_message(message).await,
                        Ok(None) => Err(Status::aborted("session closed by the manager")),
                        Err(status) => Err(status),
                    };
                    if let Err(status) = taken {
                        return status;
                    }
                }
                message = session.assignments.message() => {
                    let message = match message {
                        Ok(Some(message)) => message,
                        Ok(None) => return Status::aborted("assignments closed by the manager"),
                        Err(status) => return status,
                    };
                    if let Err(error) = self.worker.apply(message).await {
                        return Status::internal(error.to_string());
                    }
                }
                message = next_subscription(&mut session.subscriptions) => match message {
                    Ok(message) => {
                        let sources = self.worker.controllers(|task| selects(message.selector.as_ref(), task));
                        publishers.take(message, &self.config.node_id, sources, session.channel.clone());
                    }
                    Err(status) => {
                        tracing::warn!(%status, "no more log subscriptions in this session");
                        session.subscriptions = None;
                    }
                },
                Some(status) = failures.recv() => return status,
                _ = look.tick() => match self.describe().await {
                    Ok(description) if description == session.description => {}
                    Ok(_) => return Status::aborted("the description of this node changed"),
                    Err(error) => tracing::warn!(%error, "the node could not be described"),
                },
            }
        }
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn next_subscription(
    stream: &mut Option<Streaming<p::SubscriptionMessage>>,
) -> Result<p::SubscriptionMessage, Status> {
    match stream {
        Some(stream) => stream.message().await?.ok_or_else(|| Status::aborted("closed by the manager")),
        None => std::future::pending().await,
    }
}

async fn heartbeat(channel: Channel, session_id: String, broken: mpsc::Sender<Status>) {
    let mut client = p::dispatcher_client::DispatcherClient::new(channel);
    let status = loop {
        let beat = client.heartbeat(p::HeartbeatRequest { session_id: session_id.clone() });
        let period = match tokio::time::timeout(RPC_TIMEOUT, beat).await {
            Ok(Ok(response)) => response.into_inner().period.unwrap_or_default(),
            Ok(Err(status)) => break status,
            Err(_) => break Status::deadline_exceeded("heartbeat not answered"),
        };
        let nanos = period.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(period.nanos));
        let pause = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)).max(Duration::from_millis(10));
        tokio::time::sleep(pause).await;
    };
    if broken.send(status).await.is_err() {
        tracing::debug!("the session was gone before its heartbeat");
    }
}

async fn send_statuses(
    channel: Channel,
    session_id: String,
    reporter: crate::reporter::Reporter,
    broken: mpsc::Sender<Status>,
) {
    let mut client = p::dispatcher_client::DispatcherClient::new(channel);
    let status = loop {
        let batch = reporter.next_batch().await;
        let updates = batch.statuses.iter().map(|(id, status)| p::UpdateTaskStatusRequestTaskStatusUpdate {
            task_id: id.to_string(),
            status: Some(status.to_proto()),
        });
        let request = p::UpdateTaskStatusRequest { session_id: session_id.clone(), updates: updates.collect() };
        match client.update_task_status(request).await {
            Ok(_) => reporter.taken(&batch),
            // A manager that does not know this node's session hears every status again in the next one.
            Err(status) => break status,
        }
    };
    if broken.send(status).await.is_err() {
        tracing::debug!("the session was gone before its statuses");
    }
}
