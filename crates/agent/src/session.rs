//! One session with a dispatcher at a time: registration, heartbeat, assignments, statuses, log subscriptions. A broken
//! session is opened again after a back-off, wherever `Connect` then leads; the tasks go on meanwhile. A node that leaves
//! keeps its session until its tasks are stopped, and then says so.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{EncryptionKey, Node, NodeDescription, NodeId, NodeTlsInfo};
use stdx::Rng;
use swarm_proto::convert::{FromProto, ToProto};
use swarm_proto::swarmkit as p;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tonic::{Status, Streaming};

use crate::logs::{Publishers, Subscriptions, selects};
use crate::sending::{Farewell, RPC_TIMEOUT, heartbeat, leave_notice, send_statuses};
use crate::worker::Worker;
use crate::{Connect, Connection, Executor, ExecutorError, NetworkPart, NodeAddresses, Outcome, task_files};

/// Largest message taken from a manager, as SwarmKit's agents do.
const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;
/// How often the machine is looked at for a changed description.
const DESCRIBE_EVERY: Duration = Duration::from_secs(20);
/// First back-off between sessions; then base + 2 x previous, at most [`MAX_BACKOFF`].
const BASE_BACKOFF: Duration = Duration::from_millis(100);
/// Longest back-off between sessions.
const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// What an agent needs.
pub struct AgentConfig {
    /// This node.
    pub node_id: NodeId,
    /// The way to a manager.
    pub connect: Arc<dyn Connect>,
    /// The engine behind the controllers.
    pub executor: Arc<dyn Executor>,
    /// Where this node is on the network, if that is known.
    pub addresses: Option<NodeAddresses>,
    /// What the node tells of its certificate, as it is renewed.
    pub tls_info: watch::Receiver<Option<NodeTlsInfo>>,
    /// Where assignments are kept for the next run.
    pub folder: PathBuf,
    /// Seed of the back-off.
    pub seed: u64,
}

/// What the last session told: for `docker info` and for the node's own life cycle.
#[derive(Clone, Debug, Default)]
pub struct SessionInfo {
    /// Whether a session is open.
    pub connected: bool,
    /// Whether any session was open in this run.
    pub registered: bool,
    /// Why the last session, or the last try of one, ended; empty before.
    pub error: String,
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
    /// Stop and remove every task, and tell the manager.
    Leave(Farewell),
}

/// What ended a session.
enum Over {
    /// The agent ends; a dropped handle means that the process is going down.
    Agent(End),
    /// It broke.
    Broken(Status),
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

    /// Ends the agent after stopping and removing all tasks, and tells the manager so if one can be reached.
    pub async fn leave(self) {
        self.end(End::Leave(Farewell::Leave)).await;
    }

    /// The same for a node that was to be a manager and could not become one: the swarm is to forget it.
    pub async fn withdraw(self) {
        self.end(End::Leave(Farewell::Withdraw)).await;
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

/// Starts the agent of this node: the tasks of an earlier run first, then sessions. Fails if the assignments on disk
/// cannot be read.
pub async fn start(config: AgentConfig) -> std::io::Result<AgentHandle> {
    let (tasks, files, writer) = task_files::open(config.folder.clone()).await?;
    let (end, ended) = oneshot::channel();
    let (info_sender, info) = watch::channel(SessionInfo::default());
    let mut worker = Worker::new(config.executor.clone(), files);
    worker.adopt(tasks);
    let agent = Agent {
        worker,
        rng: Rng::new(config.seed),
        config,
        info: info_sender,
        session_id: String::new(),
        network: NetworkPart::default(),
    };
    let join = tokio::spawn(async move {
        agent.run(ended).await;
        writer.end().await;
    });
    Ok(AgentHandle { end: Some(end), join, info })
}

struct Agent {
    config: AgentConfig,
    worker: Worker,
    rng: Rng,
    info: watch::Sender<SessionInfo>,
    session_id: String,
    /// What the executor was told last.
    network: NetworkPart,
}

/// The streams of an open session.
struct Session {
    connection: Connection,
    messages: Streaming<p::SessionMessage>,
    assignments: Streaming<p::AssignmentsMessage>,
    subscriptions: Subscriptions,
    description: NodeDescription,
}

impl Agent {
    async fn run(mut self, mut ended: oneshot::Receiver<End>) {
        let mut backoff = Duration::ZERO;
        let how = loop {
            let session = tokio::select! {
                // A half-open session is dropped, which closes it.
                how = &mut ended => break how.unwrap_or(End::Detach),
                session = self.open() => session,
            };
            let why = match session {
                Ok(session) => {
                    backoff = Duration::ZERO;
                    match self.serve(session, &mut ended).await {
                        Over::Agent(End::Leave(_)) => return,
                        Over::Agent(End::Detach) => break End::Detach,
                        Over::Broken(why) => why,
                    }
                }
                Err(why) => why,
            };
            tracing::info!(reason = %why, "session with the dispatcher ended");
            if why.code() == tonic::Code::InvalidArgument || why.code() == tonic::Code::NotFound {
                self.session_id.clear();
            }
            self.info.send_modify(|info| why.message().clone_into(&mut info.error));
            backoff = (BASE_BACKOFF + 2 * backoff).min(MAX_BACKOFF);
            let millis = u64::try_from(backoff.as_millis()).unwrap_or(u64::MAX);
            let pause = Duration::from_millis(self.rng.below(millis) + 1);
            tokio::select! {
                how = &mut ended => break how.unwrap_or(End::Detach),
                () = tokio::time::sleep(pause) => {}
            }
        };
        match how {
            End::Leave(farewell) => self.leave_without_session(farewell).await,
            End::Detach => self.worker.detach().await,
        }
    }

    /// The tasks go first; a manager is told only if one answers at once. One that withdraws may have been heard of by the
    /// managers though it does not know it.
    async fn leave_without_session(mut self, farewell: Farewell) {
        self.worker.remove_all().await;
        if !self.info.borrow().registered && farewell == Farewell::Leave {
            return;
        }
        let told = async {
            let session = self.open().await?;
            leave_notice(session.connection.channel, self.session_id.clone(), farewell).await
        };
        match tokio::time::timeout(RPC_TIMEOUT, told).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => tracing::info!(%status, "no manager was told that this node leaves"),
            Err(_) => tracing::info!("no manager was told in time that this node leaves"),
        }
    }

    async fn describe(&self) -> Result<NodeDescription, ExecutorError> {
        let description = self.config.executor.describe().await?;
        Ok(NodeDescription { tls_info: self.config.tls_info.borrow().clone(), ..description })
    }

    async fn open(&mut self) -> Result<Session, Status> {
        let connection = self.config.connect.connect().await.map_err(Status::unavailable)?;
        let manager = connection.manager.clone();
        let opened = self.open_over(connection).await;
        let outcome = if opened.is_ok() { Outcome::Opened } else { Outcome::Broken };
        self.config.connect.observe(&manager, outcome);
        opened
    }

    async fn open_over(&mut self, connection: Connection) -> Result<Session, Status> {
        let channel = connection.channel.clone();
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
        let subscriptions = Subscriptions::open(channel);
        self.worker.reporter.resend_all();
        Ok(Session { connection, messages, assignments, subscriptions, description })
    }

    async fn take_session_message(&mut self, message: p::SessionMessage) -> Result<(), Status> {
        let node = message.node.map(Node::from_proto).transpose().map_err(|e| Status::internal(e.to_string()))?;
        let keys: Result<Vec<_>, _> =
            message.network_bootstrap_keys.into_iter().map(EncryptionKey::from_proto).collect();
        let keys = keys.map_err(|e| Status::internal(e.to_string()))?;
        let executor = self.config.executor.clone();
        let managers = message.managers.into_iter().filter_map(|weighted| weighted.peer);
        let managers: Vec<_> = managers.map(|peer| (peer.node_id, peer.addr)).collect();
        let mut part = NetworkPart { addresses: self.config.addresses, ..self.network.clone() };
        // What a message does not hold has not changed.
        if !keys.is_empty() {
            part.keys = keys;
        }
        if !managers.is_empty() {
            part.managers = managers.iter().map(|(_, addr)| addr.clone()).collect();
        }
        if part != self.network {
            executor.set_network(part.clone()).await.map_err(|e| Status::internal(e.to_string()))?;
            self.network = part;
        }
        let node = node.map(Arc::new);
        if let Some(node) = &node
            && let Err(error) = executor.configure(node.clone()).await
        {
            tracing::error!(%error, "the node could not be configured");
        }
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

    /// Serves an open session until it breaks or the agent ends. A node that leaves does so inside of its session.
    async fn serve(&mut self, session: Session, ended: &mut oneshot::Receiver<End>) -> Over {
        self.info.send_modify(|info| {
            info.connected = true;
            info.registered = true;
            info.error.clear();
        });
        let (channel, manager) = (session.connection.channel.clone(), session.connection.manager.clone());
        let (broken, failures) = mpsc::channel::<Status>(2);
        let beat = heartbeat(channel.clone(), self.session_id.clone(), broken.clone());
        let _beat = AbortOnDrop(tokio::spawn(beat));
        let send = send_statuses(channel.clone(), self.session_id.clone(), self.worker.reporter.clone(), broken);
        let _send = AbortOnDrop(tokio::spawn(send));
        let over = tokio::select! {
            // Between two messages the worker is whole; a message that is being applied belongs to a session that ends.
            how = ended => Over::Agent(how.unwrap_or(End::Detach)),
            why = self.listen(session, failures) => Over::Broken(why),
        };
        if let Over::Agent(End::Leave(farewell)) = &over {
            self.worker.remove_all().await;
            if let Err(status) = leave_notice(channel, self.session_id.clone(), *farewell).await {
                tracing::info!(%status, "no manager was told that this node leaves");
            }
        }
        if matches!(over, Over::Broken(_)) {
            self.config.connect.observe(&manager, Outcome::Broken);
        }
        self.info.send_modify(|info| info.connected = false);
        over
    }

    /// Takes what the manager sends; returns why the session is over.
    async fn listen(&mut self, mut session: Session, mut failures: mpsc::Receiver<Status>) -> Status {
        let mut tls_info = self.config.tls_info.clone();
        tls_info.mark_changed();
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
                message = session.subscriptions.next() => match message {
                    Ok(message) => {
                        let sources = self.worker.controllers(|task| selects(message.selector.as_ref(), task));
                        let channel = session.connection.channel.clone();
                        publishers.take(message, &self.config.node_id, sources, channel);
                    }
                    Err(status) => {
                        tracing::warn!(%status, "no more log subscriptions in this session");
                        session.subscriptions = Subscriptions::None;
                    }
                },
                Some(status) = failures.recv() => return status,
                Ok(()) = tls_info.changed() => if let Some(status) = self.description_changed(&session.description).await {
                    return status;
                },
                _ = look.tick() => if let Some(status) = self.description_changed(&session.description).await {
                    return status;
                },
            }
        }
    }

    /// A session that has to be opened again, as this node is no longer what it told.
    async fn description_changed(&self, told: &NodeDescription) -> Option<Status> {
        match self.describe().await {
            Ok(description) if description == *told => None,
            Ok(_) => Some(Status::aborted("the description of this node changed")),
            Err(error) => {
                tracing::warn!(%error, "the node could not be described");
                None
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
