//! An agent against a dispatcher of the test's own, over a pipe in memory: what goes on without a manager, and how a node
//! leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::{
    AgentConfig, AgentHandle, Connect, Connection, Controller, ControllerError, Dependencies, Executor, ExecutorError,
    LogLine, LogRequest, ManagerAddress, Outcome,
};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{BoxStream, Stream};
use model::{ContainerStatus, Node, NodeDescription, PortStatus, Task, TaskId, TaskState, TaskStatus};
use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::dispatcher_server::{Dispatcher, DispatcherServer};
use swarm_proto::swarmkit::log_broker_server::{LogBroker, LogBrokerServer};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};

/// Longest wait for anything here; only a broken chain reaches it.
const LONG: Duration = Duration::from_secs(20);

/// What happened, in order.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Session { description_roots: Option<Vec<u8>> },
    Status(String, i32),
    Stopped(TaskId),
    Left,
}

#[derive(Clone)]
struct FakeDispatcher {
    events: mpsc::UnboundedSender<Event>,
    tasks: Vec<Task>,
    /// A task that is another node's.
    foreign: Option<TaskId>,
}

type Answer<T> = Result<Response<T>, Status>;
type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One message, then silence.
fn once<T: Send + 'static>(message: T) -> Boxed<T> {
    Box::pin(futures::stream::once(async { Ok(message) }).chain(futures::stream::pending()))
}

#[async_trait]
impl Dispatcher for FakeDispatcher {
    type SessionStream = Boxed<p::SessionMessage>;
    type AssignmentsStream = Boxed<p::AssignmentsMessage>;
    type TasksStream = Boxed<p::TasksMessage>;

    async fn session(&self, request: Request<p::SessionRequest>) -> Answer<Self::SessionStream> {
        let description = request.into_inner().description.unwrap_or_default();
        let description_roots = description.tls_info.map(|info| info.trust_root);
        self.events.send(Event::Session { description_roots }).ok();
        Ok(Response::new(once(p::SessionMessage { session_id: "s".to_owned(), ..Default::default() })))
    }

    async fn heartbeat(&self, request: Request<p::HeartbeatRequest>) -> Answer<p::HeartbeatResponse> {
        if request.metadata().get("skep-leave").is_some_and(|value| value == "1") {
            self.events.send(Event::Left).ok();
        }
        let period = model::Duration::from_secs(5).to_proto();
        Ok(Response::new(p::HeartbeatResponse { period: Some(period) }))
    }

    async fn update_task_status(
        &self,
        request: Request<p::UpdateTaskStatusRequest>,
    ) -> Answer<p::UpdateTaskStatusResponse> {
        let updates = request.into_inner().updates;
        let foreign = self.foreign.as_ref().map(|id| id.as_str());
        if updates.iter().any(|update| Some(update.task_id.as_str()) == foreign) {
            return Err(Status::permission_denied("cannot update a task not assigned this node"));
        }
        for update in updates {
            let observed = update.status.unwrap_or_default().state;
            self.events.send(Event::Status(update.task_id, observed)).ok();
        }
        Ok(Response::new(p::UpdateTaskStatusResponse {}))
    }

    async fn update_volume_status(
        &self,
        _: Request<p::UpdateVolumeStatusRequest>,
    ) -> Answer<p::UpdateVolumeStatusResponse> {
        Ok(Response::new(p::UpdateVolumeStatusResponse {}))
    }

    async fn assignments(&self, _: Request<p::AssignmentsRequest>) -> Answer<Self::AssignmentsStream> {
        let change = |task: &Task| p::AssignmentChange {
            action: p::AssignmentAction::Update as i32,
            assignment: Some(p::Assignment { item: Some(p::assignment::Item::Task(task.to_proto())) }),
        };
        Ok(Response::new(once(p::AssignmentsMessage {
            kind: p::AssignmentsType::Complete as i32,
            results_in: "1".to_owned(),
            changes: self.tasks.iter().map(change).collect(),
            ..Default::default()
        })))
    }

    async fn tasks(&self, _: Request<p::TasksRequest>) -> Answer<Self::TasksStream> {
        Err(Status::unimplemented("tasks"))
    }
}

#[async_trait]
impl LogBroker for FakeDispatcher {
    type ListenSubscriptionsStream = Boxed<p::SubscriptionMessage>;

    async fn listen_subscriptions(
        &self,
        _: Request<p::ListenSubscriptionsRequest>,
    ) -> Answer<Self::ListenSubscriptionsStream> {
        Err(Status::unimplemented("logs"))
    }

    async fn publish_logs(&self, _: Request<Streaming<p::PublishLogsMessage>>) -> Answer<p::PublishLogsResponse> {
        Err(Status::unimplemented("logs"))
    }
}

/// Leads to the dispatcher, if there is one.
struct Pipe(Option<mpsc::Sender<tokio::io::DuplexStream>>);

#[async_trait]
impl Connect for Pipe {
    async fn connect(&self) -> Result<Connection, String> {
        let accept = self.0.clone().ok_or_else(|| "no manager is known".to_owned())?;
        let connector = tower::service_fn(move |_: Uri| {
            let accept = accept.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(1 << 16);
                accept.send(theirs).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(ours))
            }
        });
        let channel = Endpoint::from_static("http://manager").connect_with_connector(connector).await;
        Ok(Connection { channel: channel.map_err(|error| error.to_string())?, manager: ManagerAddress::Local })
    }

    fn observe(&self, _: &ManagerAddress, _: Outcome) {}
}

/// Serves until the set is dropped.
fn serve(dispatcher: FakeDispatcher) -> (Pipe, JoinSet<()>) {
    let (accept, accepted) = mpsc::channel(4);
    let server = Server::builder()
        .add_service(DispatcherServer::new(dispatcher.clone()))
        .add_service(LogBrokerServer::new(dispatcher));
    let mut running = JoinSet::new();
    running.spawn(async move {
        let incoming = ReceiverStream::new(accepted).map(Ok::<_, std::io::Error>);
        server.serve_with_incoming(incoming).await.expect("a server");
    });
    (Pipe(Some(accept)), running)
}

#[derive(Clone)]
struct Books {
    events: mpsc::UnboundedSender<Event>,
    live: Arc<Mutex<BTreeMap<TaskId, watch::Sender<bool>>>>,
}

struct FakeController(Books, TaskId);

#[async_trait]
impl Executor for Books {
    async fn describe(&self) -> Result<NodeDescription, ExecutorError> {
        Ok(NodeDescription::default())
    }
    async fn configure(&self, _: Arc<Node>) -> Result<(), ExecutorError> {
        Ok(())
    }
    async fn set_network(&self, _: agent::NetworkPart) -> Result<(), ExecutorError> {
        Ok(())
    }
    async fn retain(&self, _: BTreeSet<TaskId>) {}
    fn controller(&self, task: Arc<Task>, _: Dependencies) -> Result<Arc<dyn Controller>, ControllerError> {
        self.live.lock().unwrap().entry(task.id.clone()).or_insert_with(|| watch::Sender::new(false));
        Ok(Arc::new(FakeController(self.clone(), task.id.clone())))
    }
}

#[async_trait]
impl Controller for FakeController {
    async fn update(&self, _: Arc<Task>) -> Result<(), ControllerError> {
        Ok(())
    }
    async fn prepare(&self) -> Result<(), ControllerError> {
        Ok(())
    }
    async fn start(&self) -> Result<(), ControllerError> {
        Ok(())
    }
    async fn wait(&self) -> Result<(), ControllerError> {
        let mut end = self.0.live.lock().unwrap()[&self.1].subscribe();
        end.wait_for(|ended| *ended).await.map(drop).map_err(|_| ControllerError::Fatal("gone".to_owned()))
    }
    async fn shutdown(&self) -> Result<(), ControllerError> {
        Ok(())
    }
    async fn remove(&self) -> Result<(), ControllerError> {
        self.0.events.send(Event::Stopped(self.1.clone())).ok();
        Ok(())
    }
    async fn container_status(&self) -> Option<ContainerStatus> {
        None
    }
    async fn port_status(&self) -> Option<PortStatus> {
        None
    }
    async fn logs(&self, _: LogRequest) -> Result<BoxStream<'static, LogLine>, ControllerError> {
        Ok(futures::stream::empty().boxed())
    }
}

fn task(id: &str) -> Task {
    let status = TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() };
    Task { id: TaskId::from(id), desired_state: TaskState::Running, status, ..Task::default() }
}

struct Bench {
    books: Books,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Bench {
    fn new() -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self { books: Books { events: sender, live: Arc::default() }, events }
    }

    fn dispatcher(&self, tasks: Vec<Task>) -> FakeDispatcher {
        FakeDispatcher { events: self.books.events.clone(), tasks, foreign: None }
    }

    async fn agent(&self, folder: &Path, pipe: Pipe) -> AgentHandle {
        let (_, tls_info) = watch::channel(None);
        self.agent_with(folder, pipe, tls_info).await
    }

    async fn agent_with(
        &self,
        folder: &Path,
        pipe: Pipe,
        tls_info: watch::Receiver<Option<model::NodeTlsInfo>>,
    ) -> AgentHandle {
        let config = AgentConfig {
            node_id: "n1".into(),
            connect: Arc::new(pipe),
            executor: Arc::new(self.books.clone()),
            addresses: None,
            tls_info,
            folder: folder.to_owned(),
            seed: 1,
        };
        agent::start(config).await.unwrap()
    }

    /// The events up to and with this one.
    async fn until(&mut self, wanted: &Event) -> Vec<Event> {
        let mut seen = Vec::new();
        while seen.last() != Some(wanted) {
            let next = tokio::time::timeout(LONG, self.events.recv()).await;
            seen.push(next.unwrap_or_else(|_| panic!("no {wanted:?} after {seen:?}")).expect("events"));
        }
        seen
    }
}

fn status(id: &str, observed: TaskState) -> Event {
    let status = TaskStatus { state: observed, ..TaskStatus::default() };
    Event::Status(id.to_owned(), status.to_proto().state)
}

#[tokio::test]
async fn tasks_go_on_after_a_restart_without_any_manager() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    let (pipe, server) = serve(bench.dispatcher(vec![task("a")]));
    let agent = bench.agent(folder.path(), pipe).await;
    bench.until(&status("a", TaskState::Running)).await;
    agent.detach().await;
    drop(server);
    bench.books.live.lock().unwrap().clear();

    // No manager: the task is there all the same, and its end is noticed.
    let agent = bench.agent(folder.path(), Pipe(None)).await;
    assert!(!agent.info().borrow().connected);
    let end = bench.books.live.lock().unwrap()[&TaskId::from("a")].clone();
    end.send_replace(true);
    agent.detach().await;

    // It ended before the restart, so the manager hears of the end, whatever it believes.
    let (pipe, _server) = serve(bench.dispatcher(vec![task("a")]));
    let agent = bench.agent(folder.path(), pipe).await;
    let seen = bench.until(&status("a", TaskState::Complete)).await;
    assert!(!seen.contains(&Event::Stopped("a".into())), "{seen:?}");
    agent.detach().await;
}

#[tokio::test]
async fn a_stored_task_that_is_no_longer_assigned_goes_with_the_first_session() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    let (pipe, server) = serve(bench.dispatcher(vec![task("a"), task("b")]));
    let agent = bench.agent(folder.path(), pipe).await;
    bench.until(&status("b", TaskState::Running)).await;
    agent.detach().await;
    drop(server);
    let (pipe, server) = serve(bench.dispatcher(vec![task("b")]));
    let agent = bench.agent(folder.path(), pipe).await;
    bench.until(&Event::Stopped("a".into())).await;
    agent.detach().await;
    drop(server);
    bench.books.live.lock().unwrap().clear();
    let agent = bench.agent(folder.path(), Pipe(None)).await;
    assert_eq!(bench.books.live.lock().unwrap().keys().collect::<Vec<_>>(), [&TaskId::from("b")]);
    agent.detach().await;
}

#[tokio::test]
async fn a_node_that_leaves_says_so_after_its_tasks_are_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    let (pipe, _server) = serve(bench.dispatcher(vec![task("a")]));
    let agent = bench.agent(folder.path(), pipe).await;
    bench.until(&status("a", TaskState::Running)).await;
    agent.leave().await;
    let seen = bench.until(&Event::Left).await;
    assert!(seen.contains(&Event::Stopped("a".into())), "{seen:?}");
}

#[tokio::test]
async fn a_status_that_is_refused_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    let dispatcher = FakeDispatcher { foreign: Some("a".into()), ..bench.dispatcher(vec![task("a"), task("b")]) };
    let (pipe, _server) = serve(dispatcher);
    let agent = bench.agent(folder.path(), pipe).await;
    let seen = bench.until(&status("b", TaskState::Running)).await;
    let sessions = seen.iter().filter(|event| matches!(event, Event::Session { .. })).count();
    assert_eq!(sessions, 1, "the session goes on: {seen:?}");
    agent.detach().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    let (pipe, _server) = serve(bench.dispatcher(Vec::new()));
    let info = |root: &[u8]| model::NodeTlsInfo { trust_root: root.to_vec(), ..Default::default() };
    let (renewed, tls_info) = watch::channel(Some(info(b"old")));
    let agent = bench.agent_with(folder.path(), pipe, tls_info).await;
    bench.until(&Event::Session { description_roots: Some(b"old".to_vec()) }).await;
    renewed.send_replace(Some(info(b"new")));
    bench.until(&Event::Session { description_roots: Some(b"new".to_vec()) }).await;
    agent.detach().await;
}
