//! A manager that follows against the Control and Logs services of one that leads, over gRPC in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use consensus::Status as RaftStatus;
use futures::StreamExt;
use model::{
    Config, ConfigSpec, ContainerSpec, NodeRole, NodeState, ObjectVersion, Secret, SecretSpec, Service, ServiceSpec,
    TaskRuntime, TaskSpec, TaskState,
};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::control_client::ControlClient;
use swarm_proto::swarmkit::control_server::ControlServer;
use swarm_proto::swarmkit::log_broker_client::LogBrokerClient;
use swarm_proto::swarmkit::log_broker_server::LogBrokerServer;
use swarm_proto::swarmkit::logs_server::LogsServer;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Code, Request, Status};

use super::{ControlService, LogsService};
use crate::control::{Control, FindLeader, LocalControl, RemoveKind, UpdateKind};
use crate::error::ControlError;
use crate::leadership::{Leader, LeadershipId, Remote};
use crate::log_broker::{LogBroker, LogBrokerService};
use crate::shared::Shared;
use crate::test_support::{
    assigned_task, cluster, create, credentials, follower_writer, leading_writer, node, replicate,
};
use crate::writer::Writer;

/// The services of a leader, behind a pipe.
struct TestLeader {
    writer: Arc<Writer>,
    broker: Arc<LogBroker>,
    channel: Channel,
    /// The first connection breaks before anything is sent.
    breaks: Arc<AtomicBool>,
    _ready: watch::Sender<bool>,
}

fn group(members: u64) -> watch::Receiver<RaftStatus> {
    let member = |number: u64| p::RaftMember { raft_id: number, node_id: format!("m{number}"), ..Default::default() };
    let members = (1..=members).map(|number| (number, member(number))).collect();
    watch::channel(RaftStatus { raft_id: 1, leading: true, leader: 1, members, ..Default::default() }).1
}

impl TestLeader {
    async fn new() -> Self {
        let writer = leading_writer().await;
        let nodes = ["m1", "m2"].map(|id| node(id, NodeRole::Manager).into());
        create(&writer, [cluster().into()].into_iter().chain(nodes).collect()).await;
        let (ready_sender, ready) = watch::channel(true);
        let broker = LogBroker::new(writer.shared().clone(), Arc::new(Answer(Leader::Here)), ready);
        tokio::spawn(broker.clone().run());
        let control = ControlService::new(LocalControl::new(writer.clone(), group(2), credentials()));
        let (accept, accepted) = mpsc::channel::<tokio::io::DuplexStream>(8);
        let server = Server::builder()
            .layer(tonic::service::InterceptorLayer::new(from_metadata))
            .add_service(ControlServer::new(control))
            .add_service(LogsServer::new(LogsService(broker.clone())))
            .add_service(LogBrokerServer::new(LogBrokerService(broker.clone())));
        tokio::spawn(server.serve_with_incoming(ReceiverStream::new(accepted).map(Ok::<_, std::io::Error>)));
        let breaks = Arc::new(AtomicBool::new(false));
        let broken = breaks.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (accept, broken) = (accept.clone(), broken.swap(false, Ordering::SeqCst));
            async move {
                if broken {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                }
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                accept.send(theirs).await.map_err(std::io::Error::other)?;
                Ok(hyper_util::rt::TokioIo::new(ours))
            }
        });
        let channel = Endpoint::from_static("http://leader.local").connect_with_connector_lazy(connector);
        Self { writer, broker, channel, breaks, _ready: ready_sender }
    }

    fn finder(&self) -> Arc<dyn FindLeader> {
        let leadership = LeadershipId { raft_id: 1, term: 1, addr: "10.0.0.1:2377".to_owned() };
        Arc::new(Answer(Leader::There(Remote { leadership, channel: self.channel.clone() })))
    }

    /// A follower's control, whose view is the leader's after each commit.
    fn follower(&self) -> (Control, Arc<Shared>) {
        let writer = follower_writer();
        tokio::spawn(replicate(self.writer.shared().clone(), writer.shared().clone()));
        let shared = writer.shared().clone();
        (Control::new(LocalControl::new(writer, group(2), credentials()), self.finder()), shared)
    }

    fn client(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
    }
}

/// The caller's node, which the gate would have taken from its certificate.
fn from_metadata(mut request: Request<()>) -> Result<Request<()>, Status> {
    let name = request.metadata().get("node").and_then(|it| it.to_str().ok()).unwrap_or("m2").to_owned();
    request.extensions_mut().insert(crate::test_support::caller(&name));
    Ok(request)
}

/// Always the same leader.
struct Answer(Leader);

#[async_trait]
impl FindLeader for Answer {
    async fn find(&self) -> Result<Leader, ControlError> {
        Ok(self.0.clone())
    }

    async fn find_again(&self, _: &LeadershipId) -> Result<Leader, ControlError> {
        self.find().await
    }

    async fn over(&self, _: &LeadershipId) {
        std::future::pending().await
    }
}

fn service_spec(name: &str) -> ServiceSpec {
    let container = ContainerSpec { image: "busybox".into(), ..Default::default() };
    let task = Arc::new(TaskSpec { runtime: Some(TaskRuntime::Container(container)), ..Default::default() });
    let mut spec = ServiceSpec { task, ..Default::default() };
    spec.annotations.name = name.to_owned();
    spec
}

#[tokio::test]
async fn a_follower_writes_on_the_leader_and_reads_it_at_once() {
    let leader = TestLeader::new().await;
    let (control, shared) = leader.follower();
    let service = control.create_service(service_spec("web")).await.unwrap();
    assert_eq!(shared.view().service(&service.id), Some(&service));
    let mut spec = service.spec.clone();
    spec.annotations.labels.insert("a".into(), "b".into());
    let updated = control.update_service(&service.id, service.meta.version, spec, UpdateKind::Replace).await.unwrap();
    assert_eq!(shared.view().service(&service.id).unwrap().meta.version, updated.meta.version);
    let back = control.update_service(&service.id, updated.meta.version, Default::default(), UpdateKind::Rollback);
    assert!(back.await.unwrap().spec.annotations.labels.is_empty());
    control.remove_service(&service.id).await.unwrap();
    assert!(shared.view().service(&service.id).is_none());
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_text() {
    let leader = TestLeader::new().await;
    let (control, _) = leader.follower();
    let check =
        |error: ControlError, code: Code, text: &str| assert_eq!((error.code, error.desc.as_str()), (code, text));
    let service = control.create_service(service_spec("web")).await.unwrap();
    check(
        control.create_service(service_spec("web")).await.unwrap_err(),
        Code::AlreadyExists,
        "name conflicts with an existing object: service web already exists",
    );
    let stale = control.update_service(&service.id, ObjectVersion(1), service_spec("web"), UpdateKind::Replace);
    check(stale.await.unwrap_err(), Code::Unknown, "update out of sequence");
    check(
        control.create_service(service_spec("we.b")).await.unwrap_err(),
        Code::InvalidArgument,
        "name must be valid as a DNS name component",
    );
    check(control.remove_secret(&"x".into()).await.unwrap_err(), Code::NotFound, "could not find secret x");
    check(
        control.remove_node(&"m2".into(), RemoveKind::Force).await.unwrap_err(),
        Code::FailedPrecondition,
        "node m2 is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
    );
}

#[tokio::test]
async fn a_broken_connection_is_tried_once_more() {
    let leader = TestLeader::new().await;
    let (control, _) = leader.follower();
    leader.breaks.store(true, Ordering::SeqCst);
    control.create_service(service_spec("web")).await.unwrap();
    assert!(!leader.breaks.load(Ordering::SeqCst));
}

#[tokio::test]
async fn nodes_are_removed_by_rules() {
    let leader = TestLeader::new().await;
    let (control, shared) = leader.follower();
    let mut up = node("w", NodeRole::Worker);
    up.status.state = NodeState::Ready;
    create(&leader.writer, vec![up.into(), assigned_task("t", &"w".into()).into()]).await;
    let refused = control.remove_node(&"w".into(), RemoveKind::Safe).await.unwrap_err();
    assert_eq!(refused.desc, "node w is not down and can't be removed");
    control.remove_node(&"w".into(), RemoveKind::Force).await.unwrap();
    let view = shared.view();
    let task = view.task(&"t".into()).unwrap();
    assert_eq!(task.status.state, TaskState::Orphaned);
    assert_eq!(task.status.message, "Task belonged to a node that has been deleted");
    assert!(view.the_cluster().unwrap().blacklisted_certificates.contains_key("w"));
    assert_eq!(control.remove_node(&"w".into(), RemoveKind::Safe).await.unwrap_err().desc, "node w not found");
}

#[tokio::test]
async fn lists_are_filtered_and_hold_no_secret() {
    let leader = TestLeader::new().await;
    let (control, _) = leader.follower();
    let mut spec = SecretSpec { data: b"hidden".to_vec(), ..Default::default() };
    spec.annotations.name = "s1".to_owned();
    let id = control.create_secret(spec).await.unwrap();
    let mut spec = ConfigSpec { data: b"shown".to_vec(), ..Default::default() };
    spec.annotations.name = "c1".to_owned();
    control.create_config(spec).await.unwrap();
    let internal = Secret { id: "internal".into(), internal: true, ..Default::default() };
    let other = Config { id: "other".into(), ..Default::default() };
    create(&leader.writer, vec![internal.into(), other.into()]).await;
    let mut client = leader.client();
    let secrets = client.list_secrets(p::ListSecretsRequest::default()).await.unwrap().into_inner().secrets;
    assert_eq!(secrets.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    assert!(secrets[0].spec.as_ref().unwrap().data.is_empty());
    let filters = p::ListConfigsRequestFilters { name_prefixes: vec!["c".to_owned()], ..Default::default() };
    let request = p::ListConfigsRequest { filters: Some(filters) };
    let configs = client.list_configs(request).await.unwrap().into_inner().configs;
    assert_eq!((configs.len(), configs[0].spec.as_ref().unwrap().data.as_slice()), (1, b"shown".as_slice()));
    let nodes = client.list_nodes(p::ListNodesRequest::default()).await.unwrap().into_inner().nodes;
    let leaders: Vec<_> = nodes.iter().filter(|it| it.manager_status.as_ref().unwrap().leader).collect();
    assert_eq!((nodes.len(), leaders[0].id.as_str()), (2, "m1"));
    let refused = client.get_secret(p::GetSecretRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "secret ID must be provided"));
    let refused = client.get_node(p::GetNodeRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "invalid argument"));
    let refused = client.create_volume(p::CreateVolumeRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    leader.writer.end();
    let refused = client.remove_service(p::RemoveServiceRequest { service_id: "x".to_owned() }).await.unwrap_err();
    assert_eq!(refused.message(), "raft: failed to process the request: node lost leader status");
}

fn as_node<T>(node: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("node", node.parse().unwrap());
    request
}

fn line(node: &str, task: &str, text: &str) -> p::LogMessage {
    let context = p::LogContext { node_id: node.to_owned(), task_id: task.to_owned(), ..Default::default() };
    p::LogMessage { context: Some(context), data: text.as_bytes().to_vec(), ..Default::default() }
}

async fn publish(leader: &TestLeader, node: &str, id: &str, messages: Vec<p::LogMessage>) -> Result<(), Status> {
    let part = |messages, close| p::PublishLogsMessage { subscription_id: id.to_owned(), messages, close };
    let parts = vec![part(messages, false), part(Vec::new(), true)];
    let mut client = LogBrokerClient::new(leader.channel.clone());
    client.publish_logs(as_node(node, futures::stream::iter(parts))).await.map(drop)
}

#[tokio::test]
async fn logs_of_all_nodes_come_through_the_leader() {
    let leader = TestLeader::new().await;
    let mut objects = Vec::new();
    for (number, node) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let mut task = assigned_task(&format!("t-{node}"), &node.into());
        task.service_id = Some("web".into());
        task.slot = number as u64;
        task.status.state = TaskState::Running;
        objects.push(task.into());
        objects.push(crate::test_support::node(node, NodeRole::Worker).into());
    }
    objects.push(Service { id: "web".into(), ..Default::default() }.into());
    create(&leader.writer, objects).await;
    let mut listeners = Vec::new();
    for node in ["a", "b", "c"] {
        let mut client = LogBrokerClient::new(leader.channel.clone());
        let request = as_node(node, p::ListenSubscriptionsRequest {});
        listeners.push(client.listen_subscriptions(request).await.unwrap().into_inner());
    }
    let (_, ready) = watch::channel(false);
    let follower = LogBroker::new(Arc::new(Shared::default()), leader.finder(), ready);
    let selector = p::LogSelector { service_ids: vec!["web".to_owned()], ..Default::default() };
    let mut log = follower.subscribe(selector, p::LogSubscriptionOptions::default()).await.unwrap();
    let mut ids = Vec::new();
    for listener in &mut listeners {
        ids.push(listener.message().await.unwrap().unwrap().id);
    }
    let forged = publish(&leader, "b", &ids[1], vec![line("a", "t-a", "x")]).await.unwrap_err();
    assert_eq!(forged.code(), Code::PermissionDenied);
    publish(&leader, "a", &ids[0], vec![line("a", "t-a", "hello"), line("a", "t-a", "again")]).await.unwrap();
    drop(listeners.pop());
    let mut lines = Vec::new();
    let mut missing = String::new();
    while let Some(item) = log.recv().await {
        match item {
            Ok(message) => lines.push(String::from_utf8(message.data).unwrap()),
            Err(text) => missing = text,
        }
    }
    assert_eq!(lines, ["hello", "again"]);
    assert_eq!(
        missing,
        "warning: incomplete log stream. some logs could not be retrieved for the following reasons: \
         node d is not available, node b disconnected unexpectedly, node c disconnected unexpectedly"
    );
    assert!(listeners[0].message().await.unwrap().unwrap().close, "the nodes are told that it is over");
}

#[tokio::test]
async fn a_subscription_that_follows_reaches_new_nodes() {
    let leader = TestLeader::new().await;
    let mut client = LogBrokerClient::new(leader.channel.clone());
    let mut listener =
        client.listen_subscriptions(as_node("a", p::ListenSubscriptionsRequest {})).await.unwrap().into_inner();
    let selector = p::LogSelector { service_ids: vec!["web".to_owned()], ..Default::default() };
    let options = p::LogSubscriptionOptions { follow: true, ..Default::default() };
    let mut log = leader.broker.subscribe(selector, options).await.unwrap();
    let mut task = assigned_task("t", &"a".into());
    task.service_id = Some("web".into());
    create(&leader.writer, vec![task.into()]).await;
    let offered = listener.message().await.unwrap().unwrap();
    publish(&leader, "a", &offered.id, vec![line("a", "t", "hello")]).await.unwrap();
    assert_eq!(log.recv().await.unwrap().unwrap().data, b"hello");
    let gone = publish(&leader, "a", "no-such", vec![line("a", "t", "x")]).await.unwrap_err();
    assert_eq!((gone.code(), gone.message()), (Code::NotFound, "unknown subscription ID"));
    drop(log);
    assert!(listener.message().await.unwrap().unwrap().close);
}
