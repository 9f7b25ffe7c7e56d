//! Fake agents against the dispatcher's gRPC methods, on paused time and a store that commits at once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use consensus::Status as RaftStatus;
use futures::{Stream, StreamExt};
use model::{
    ContainerSpec, Node, NodeId, NodeRole, NodeState, Secret, SecretReference, Task, TaskRuntime, TaskSpec, TaskState,
};
use store::Object;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::assignment::Item;
use swarm_proto::swarmkit::dispatcher_server::Dispatcher as Service;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

use super::{Dispatcher, DispatcherService, ManagerIdentity, host_of};
use crate::caller::Caller;
use crate::test_support::{assigned_task, caller, change_task, cluster, create, leading_writer, node};
use crate::writer::Writer;

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Fixture {
    writer: Arc<Writer>,
    dispatcher: Arc<Dispatcher>,
    status: watch::Sender<RaftStatus>,
    _loops: JoinSet<()>,
}

struct Agent {
    service: DispatcherService,
    caller: Caller,
    session_id: String,
    session: BoxStream<p::SessionMessage>,
}

fn member(number: u64) -> p::RaftMember {
    p::RaftMember {
        raft_id: number,
        node_id: format!("m{number}"),
        addr: format!("10.0.0.{number}:2377"),
        ..Default::default()
    }
}

impl Fixture {
    async fn new(nodes: &[&str]) -> Self {
        let writer = leading_writer().await;
        let mut objects: Vec<Object> = vec![cluster().into()];
        objects.extend(nodes.iter().map(|id| Object::from(node(id, NodeRole::Worker))));
        create(&writer, objects).await;
        let members = (1..=3).map(|number| (number, member(number))).collect();
        let (status, receiver) = watch::channel(RaftStatus { leading: true, members, ..Default::default() });
        let manager =
            ManagerIdentity { node_id: "m1".into(), advertise_addr: "10.0.0.1:2377".into(), root_ca: Vec::new() };
        let (dispatcher, loops) = Dispatcher::start(writer.clone(), manager, receiver, 1);
        dispatcher.begin();
        Self { writer, dispatcher, status, _loops: loops }
    }

    fn service(&self) -> DispatcherService {
        DispatcherService(self.dispatcher.clone())
    }

    async fn try_agent(&self, id: &str, session_id: &str) -> Result<Agent, Status> {
        let caller = caller(id);
        let service = self.service();
        let hostname = format!("host-{id}");
        let description = Some(p::NodeDescription { hostname, ..Default::default() });
        let message = p::SessionRequest { description, session_id: session_id.to_owned() };
        let mut session = service.session(as_caller(&caller, message)).await?.into_inner();
        let first = session.next().await.unwrap()?;
        Ok(Agent { service, caller, session_id: first.session_id, session })
    }

    async fn agent(&self, id: &str) -> Agent {
        self.try_agent(id, "").await.unwrap()
    }

    fn node(&self, id: &str) -> Arc<Node> {
        self.writer.shared().view().node(&id.into()).unwrap().clone()
    }

    fn task(&self, id: &str) -> Arc<Task> {
        self.writer.shared().view().task(&id.into()).unwrap().clone()
    }

    async fn until_state(&self, id: &str, state: NodeState) {
        let id = NodeId::from(id);
        let mut watch = self.writer.shared().watch();
        watch.until(|view| view.node(&id).filter(|node| node.status.state == state).map(drop)).await.unwrap();
    }
}

fn as_caller<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request
}

async fn beat(service: &DispatcherService, caller: &Caller, session_id: &str) -> Result<Duration, Status> {
    let request = p::HeartbeatRequest { session_id: session_id.to_owned() };
    let answer = service.heartbeat(as_caller(caller, request)).await?;
    Duration::try_from(answer.into_inner().period.unwrap()).map_err(|e| Status::internal(e.to_string()))
}

impl Agent {
    async fn beat(&self) -> Result<Duration, Status> {
        beat(&self.service, &self.caller, &self.session_id).await
    }

    /// Beats, and lets the session's stream go.
    fn keep_beating(self) -> impl Future<Output = ()> + Send {
        let Self { service, caller, session_id, session: _ } = self;
        async move {
            while let Ok(period) = beat(&service, &caller, &session_id).await {
                tokio::time::sleep(period).await;
            }
        }
    }

    async fn assignments(&self) -> BoxStream<p::AssignmentsMessage> {
        let request = p::AssignmentsRequest { session_id: self.session_id.clone() };
        self.service.assignments(as_caller(&self.caller, request)).await.unwrap().into_inner()
    }

    async fn report(&self, task: &str, state: TaskState) -> Result<(), Status> {
        let status = Some(p::TaskStatus { state: state as i32, ..Default::default() });
        let update = p::UpdateTaskStatusRequestTaskStatusUpdate { task_id: task.to_owned(), status };
        let request = p::UpdateTaskStatusRequest { session_id: self.session_id.clone(), updates: vec![update] };
        self.service.update_task_status(as_caller(&self.caller, request)).await.map(drop)
    }
}

/// The identifiers of what a message puts (+) and takes away (-).
fn changes(message: &p::AssignmentsMessage) -> Vec<String> {
    let name = |change: &p::AssignmentChange| {
        let id = match change.assignment.as_ref().and_then(|it| it.item.as_ref()) {
            Some(Item::Task(task)) => &task.id,
            Some(Item::Secret(secret)) => &secret.id,
            _ => "other",
        };
        format!("{}{id}", if change.action == 0 { "+" } else { "-" })
    };
    message.changes.iter().map(name).collect()
}

#[test]
fn hosts() {
    for (address, host) in [
        ("10.0.0.1:2377", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("[fe80::1]:2377", "fe80::1"),
        ("fe80::1", "fe80::1"),
        ("manager:2377", "manager"),
    ] {
        assert_eq!(host_of(address), host);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_registers_beats_and_is_told_of_changes() {
    let it = Fixture::new(&["a"]).await;
    let mut a = it.agent("a").await;
    let stored = it.node("a");
    assert_eq!((stored.status.state, stored.status.addr.as_str()), (NodeState::Ready, "10.0.1.7"));
    assert_eq!(stored.description.as_ref().unwrap().hostname, "host-a");
    let period = a.beat().await.unwrap();
    assert!((Duration::from_millis(4500)..=Duration::from_millis(5500)).contains(&period), "{period:?}");
    it.status.send_modify(|status| drop(status.members.insert(4, member(4))));
    let told = a.session.next().await.unwrap().unwrap();
    let peers: Vec<_> = told.managers.iter().map(|it| (it.peer.clone().unwrap().addr, it.weight)).collect();
    assert_eq!((peers.len(), &peers[3]), (4, &("10.0.0.4:2377".to_owned(), 10)));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_session_after_three_periods() {
    let it = Fixture::new(&["a", "b"]).await;
    let (mut a, b) = (it.agent("a").await, it.agent("b").await);
    let begun = tokio::time::Instant::now();
    let beats = tokio::spawn(b.keep_beating());
    it.until_state("a", NodeState::Down).await;
    let passed = begun.elapsed();
    assert!((Duration::from_millis(13_500)..=Duration::from_millis(16_600)).contains(&passed), "{passed:?}");
    assert_eq!(it.node("a").status.message, "heartbeat failure");
    let refused = a.beat().await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "node not registered"));
    assert!(a.session.next().await.unwrap().is_ok(), "a last message with the managers");
    let end = a.session.next().await.unwrap().unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::Aborted, "node must disconnect"));
    assert!(a.session.next().await.is_none());
    assert_eq!(it.node("b").status.state, NodeState::Ready);
    it.agent("a").await;
    assert_eq!(it.node("a").status.state, NodeState::Ready, "it may come back");
    beats.abort();
}

#[tokio::test(start_paused = true)]
async fn after_a_change_of_leader_nodes_have_six_periods() {
    let it = Fixture::new(&["a", "b"]).await;
    let mut a = it.agent("a").await;
    it.dispatcher.end();
    let refused = a.beat().await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Aborted, "dispatcher is stopped"));
    assert!(a.session.next().await.unwrap().is_ok(), "a last message");
    assert_eq!(a.session.next().await.unwrap().unwrap_err().code(), Code::Aborted);
    it.dispatcher.begin();
    let begun = tokio::time::Instant::now();
    let a = it.agent("a").await;
    let beats = tokio::spawn(a.keep_beating());
    it.until_state("b", NodeState::Down).await;
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(it.node("b").status.message, "heartbeat failure for node in \"unknown\" state");
    assert_eq!(it.node("a").status.state, NodeState::Ready);
    beats.abort();
}

#[tokio::test(start_paused = true)]
async fn a_node_may_register_three_times_in_eight_seconds() {
    let it = Fixture::new(&["a"]).await;
    let mut first = it.agent("a").await;
    let second = it.agent("a").await;
    assert_ne!(first.session_id, second.session_id);
    let replaced = first.beat().await.unwrap_err();
    assert_eq!((replaced.code(), replaced.message()), (Code::InvalidArgument, "session invalid"));
    while let Some(Ok(_)) = first.session.next().await {}
    let same = it.try_agent("a", &second.session_id).await.unwrap();
    assert_eq!(same.session_id, second.session_id, "a session that lives is kept");
    it.agent("a").await;
    let refused = it.try_agent("a", "").await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.message(), "node a exceeded rate limit count of registrations");
    tokio::time::advance(Duration::from_secs(8)).await;
    it.agent("a").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_could_not_become_a_manager_is_forgotten_and_no_other() {
    let it = Fixture::new(&["worker"]).await;
    create(&it.writer, vec![node("m2", NodeRole::Manager).into(), node("stranded", NodeRole::Manager).into()]).await;
    for (id, is_forgotten) in [("worker", false), ("m2", false), ("stranded", true)] {
        let agent = it.agent(id).await;
        let mut last = as_caller(&agent.caller, p::HeartbeatRequest { session_id: agent.session_id.clone() });
        last.metadata_mut().insert("skep-leave", "1".parse().unwrap());
        last.metadata_mut().insert("skep-withdraw", "1".parse().unwrap());
        it.service().heartbeat(last).await.unwrap();
        let view = it.writer.shared().view();
        match view.node(&id.into()) {
            Some(node) => assert!(!is_forgotten && node.status.state == NodeState::Down, "{id} is down"),
            None => assert!(is_forgotten, "{id} is gone"),
        }
        assert_eq!(agent.beat().await.unwrap_err().code(), Code::NotFound, "its session is over");
    }
}

#[tokio::test(start_paused = true)]
async fn two_machines_with_one_certificate_are_told_of_in_the_nodes_status() {
    let it = Fixture::new(&["a"]).await;
    // Each opens a session, beats, and finds out at its next beat that its session is not the node's any more.
    let mut one = it.agent("a").await;
    one.beat().await.unwrap();
    for _ in 0..2 {
        let other = it.agent("a").await;
        other.beat().await.unwrap();
        one.beat().await.unwrap_err();
        one = other;
        tokio::time::advance(Duration::from_secs(8)).await;
    }
    assert_eq!(it.node("a").status.message, "", "nothing is written for the sake of it alone");
    let one = it.agent("a").await;
    let message = it.node("a").status.message.clone();
    assert!(message.starts_with("two machines use this node's certificate, at 10.0.1.7 and 10.0.1.7: "), "{message}");
    // The other one is gone.
    for _ in 0..30 {
        one.beat().await.unwrap();
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    assert_eq!(it.node("a").status.message, "");
    assert_eq!(it.node("a").status.state, NodeState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_in_the_store_is_refused() {
    let it = Fixture::new(&[]).await;
    let refused = it.try_agent("x", "").await.map(drop).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, "node not found"));
}

#[tokio::test(start_paused = true)]
async fn secrets_go_to_nodes_that_use_them_and_are_taken_back() {
    let it = Fixture::new(&["a", "b", "c"]).await;
    let agents = [it.agent("a").await, it.agent("b").await, it.agent("c").await];
    let mut feeds = Vec::new();
    for agent in &agents {
        let mut feed = agent.assignments().await;
        assert!(feed.next().await.unwrap().unwrap().changes.is_empty());
        feeds.push(feed);
    }
    let reference = SecretReference { secret_id: "s".into(), ..Default::default() };
    let container = ContainerSpec { secrets: vec![reference], ..Default::default() };
    let spec = TaskSpec { runtime: Some(TaskRuntime::Container(container)), ..Default::default() };
    let task = Task { spec: Arc::new(spec), ..assigned_task("t", &"a".into()) };
    let secret = Secret { id: "s".into(), ..Default::default() };
    create(&it.writer, vec![secret.into(), task.into()]).await;
    let told = feeds[0].next().await.unwrap().unwrap();
    assert_eq!((changes(&told), told.applies_to.as_str()), (vec!["+s".into(), "+t".into()], "1"));
    agents[0].report("t", TaskState::Running).await.unwrap();
    agents[0].report("t", TaskState::Failed).await.unwrap();
    let told = feeds[0].next().await.unwrap().unwrap();
    assert_eq!((changes(&told), told.applies_to.as_str()), (vec!["-s".into()], "2"));
    let stored = it.task("t");
    assert_eq!((stored.status.state, stored.status.applied_by.as_str()), (TaskState::Failed, "m1"));
    let foreign = agents[1].report("t", TaskState::Failed).await.unwrap_err();
    assert_eq!(foreign.code(), Code::PermissionDenied);
    assert_eq!(foreign.message(), "cannot update a task not assigned this node");
    agents[1].report("gone", TaskState::Failed).await.unwrap();
    let mut others = feeds.split_off(1);
    for feed in &mut others {
        assert!(futures::poll!(feed.next()).is_pending(), "the others hear nothing of it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_down_at_once() {
    let it = Fixture::new(&["a"]).await;
    let mut a = it.agent("a").await;
    let mut feed = a.assignments().await;
    feed.next().await.unwrap().unwrap();
    let mut last = as_caller(&a.caller, p::HeartbeatRequest { session_id: a.session_id.clone() });
    last.metadata_mut().insert("skep-leave", "1".parse().unwrap());
    a.service.heartbeat(last).await.unwrap();
    let stored = it.node("a");
    assert_eq!((stored.status.state, stored.status.message.as_str()), (NodeState::Down, "node left the swarm"));
    while let Some(Ok(_)) = a.session.next().await {}
    assert_eq!(feed.next().await.unwrap().unwrap_err().code(), Code::Aborted);
    assert_eq!(a.beat().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_removed_node_ends() {
    let it = Fixture::new(&["a"]).await;
    let mut a = it.agent("a").await;
    let removed = it
        .writer
        .write(|transaction| transaction.remove::<Node>(&"a".into()).map_err(crate::error::ControlError::from));
    removed.await.unwrap();
    let end = a.session.next().await.unwrap().unwrap_err();
    assert_eq!(end.message(), "Permission denied: node a was removed from swarm");
    assert_eq!(a.beat().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn the_deprecated_stream_sends_all_tasks_each_time() {
    let it = Fixture::new(&["a"]).await;
    let a = it.agent("a").await;
    let request = p::TasksRequest { session_id: a.session_id.clone() };
    let mut tasks = a.service.tasks(as_caller(&a.caller, request)).await.unwrap().into_inner();
    assert!(tasks.next().await.unwrap().unwrap().tasks.is_empty());
    create(&it.writer, vec![assigned_task("t", &"a".into()).into()]).await;
    assert_eq!(tasks.next().await.unwrap().unwrap().tasks[0].id, "t");
}

#[tokio::test(start_paused = true)]
async fn of_two_thousand_sessions_one_task_wakes_one() {
    let names: Vec<String> = (0..2000).map(|number| format!("n{number}")).collect();
    let it = Fixture::new(&[]).await;
    for chunk in names.chunks(100) {
        create(&it.writer, chunk.iter().map(|id| node(id, NodeRole::Worker).into()).collect()).await;
    }
    let mut agents = Vec::new();
    for name in &names {
        let agent = it.agent(name).await;
        let mut feed = agent.assignments().await;
        feed.next().await.unwrap().unwrap();
        agents.push((agent, feed));
    }
    assert_eq!(it.dispatcher.registered(), 2000);
    // Commits are routed in order: with this one the registrations are through, too.
    create(&it.writer, vec![assigned_task("first", &"n0".into()).into()]).await;
    agents[0].1.next().await.unwrap().unwrap();
    let before = it.dispatcher.wakes();
    create(&it.writer, vec![assigned_task("t", &"n777".into()).into()]).await;
    let told = agents[777].1.next().await.unwrap().unwrap();
    assert_eq!(changes(&told), ["+t"]);
    assert_eq!(it.dispatcher.wakes() - before, 1);
    change_task(&it.writer, "t", |task| task.status.state = TaskState::Running).await;
    change_task(&it.writer, "t", |task| task.desired_state = TaskState::Shutdown).await;
    assert_eq!(changes(&agents[777].1.next().await.unwrap().unwrap()), ["+t"]);
    assert_eq!(it.dispatcher.wakes() - before, 2, "a status concerns no feed");
}
