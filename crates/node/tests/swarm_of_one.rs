//! Manager, dispatcher and agent of one node together, with an executor that only keeps books: what is asked for comes
//! to run, survives a restart, and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::{Controller, ControllerError, Dependencies, Executor, ExecutorError, LogLine, LogRequest};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use manager::{Manager, UpdateKind};
use model::{
    ContainerSpec, ContainerStatus, EncryptionKey, Node, NodeDescription, Platform, PortConfig, PortStatus,
    ReplicatedService, Resources, Service, ServiceId, ServiceMode, ServiceSpec, Task, TaskId, TaskRuntime, TaskSpec,
    TaskState,
};
use node::{InitRequest, LeaveError, LeaveMode, LeaveRefusal, NodeConfig, NodeState, SwarmNode, UnlockError};
use tokio::sync::watch;

/// Longest wait for anything here; only a broken chain reaches it.
const LONG: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Books {
    running: Mutex<BTreeSet<TaskId>>,
    stopped: Mutex<BTreeSet<TaskId>>,
    ends: Mutex<BTreeMap<TaskId, watch::Sender<bool>>>,
    node: Mutex<Option<Arc<Node>>>,
}

struct FakeExecutor(Arc<Books>);

struct FakeController {
    books: Arc<Books>,
    id: TaskId,
    end: watch::Receiver<bool>,
}

#[async_trait]
impl Executor for FakeExecutor {
    async fn describe(&self) -> Result<NodeDescription, ExecutorError> {
        Ok(NodeDescription {
            hostname: "one".to_owned(),
            platform: Some(Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() }),
            resources: Some(Resources { nano_cpus: 2_000_000_000, memory_bytes: 1 << 30, generic: Vec::new() }),
            ..NodeDescription::default()
        })
    }

    async fn configure(&self, node: Arc<Node>) -> Result<(), ExecutorError> {
        *self.0.node.lock().unwrap() = Some(node);
        Ok(())
    }

    async fn set_network_keys(&self, _: Vec<EncryptionKey>) -> Result<(), ExecutorError> {
        Ok(())
    }

    async fn retain(&self, tasks: BTreeSet<TaskId>) {
        self.0.running.lock().unwrap().retain(|id| tasks.contains(id));
    }

    fn controller(&self, task: Arc<Task>, _: Dependencies) -> Result<Arc<dyn Controller>, ControllerError> {
        let mut ends = self.0.ends.lock().unwrap();
        let end = ends.entry(task.id.clone()).or_insert_with(|| watch::Sender::new(false)).subscribe();
        Ok(Arc::new(FakeController { books: self.0.clone(), id: task.id.clone(), end }))
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
        self.books.running.lock().unwrap().insert(self.id.clone());
        Ok(())
    }
    async fn wait(&self) -> Result<(), ControllerError> {
        let mut end = self.end.clone();
        end.wait_for(|ended| *ended).await.map_err(|_| ControllerError::Fatal("gone".to_owned()))?;
        self.books.running.lock().unwrap().remove(&self.id);
        Err(ControllerError::Exited { code: 1, text: "task: non-zero exit (1)".to_owned() })
    }
    async fn shutdown(&self) -> Result<(), ControllerError> {
        self.books.running.lock().unwrap().remove(&self.id);
        self.books.stopped.lock().unwrap().insert(self.id.clone());
        Ok(())
    }
    async fn remove(&self) -> Result<(), ControllerError> {
        self.shutdown().await
    }
    async fn container_status(&self) -> Option<ContainerStatus> {
        Some(ContainerStatus { container_id: format!("container-of-{}", self.id), pid: 1, exit_code: 0 })
    }
    async fn port_status(&self) -> Option<PortStatus> {
        None
    }
    async fn logs(&self, _: LogRequest) -> Result<BoxStream<'static, LogLine>, ControllerError> {
        Ok(futures::stream::empty().boxed())
    }
}

async fn open(folder: &Path, books: &Arc<Books>) -> SwarmNode {
    SwarmNode::open(NodeConfig {
        folder: folder.join("swarm"),
        executor: Arc::new(FakeExecutor(books.clone())),
        default_advertise_addr: String::new(),
    })
    .await
}

/// An address of this machine that no other test, in this process or another, listens on.
fn own_address() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let pid = std::process::id();
    let node = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("127.{}.{}.{}:2377", pid >> 8 & 0xff, pid & 0xff, node)
}

fn init_request() -> InitRequest {
    InitRequest { listen_addr: own_address(), spec: manager::default_cluster_spec(), ..InitRequest::default() }
}

fn service_spec(name: &str, replicas: u64) -> ServiceSpec {
    let container = ContainerSpec { image: "dummy:latest".to_owned(), ..ContainerSpec::default() };
    let task = TaskSpec { runtime: Some(TaskRuntime::Container(container)), ..TaskSpec::default() };
    let endpoint = model::EndpointSpec {
        ports: vec![PortConfig { target_port: 9005, published_port: 9005, ..PortConfig::default() }],
        ..model::EndpointSpec::default()
    };
    let mut spec = ServiceSpec {
        task: Arc::new(task),
        mode: Some(ServiceMode::Replicated(ReplicatedService { replicas })),
        endpoint: Some(endpoint),
        ..ServiceSpec::default()
    };
    spec.annotations.name = name.to_owned();
    spec
}

fn running(view: &store::View, id: &ServiceId) -> BTreeSet<TaskId> {
    let live = |task: &&Arc<Task>| task.status.state == TaskState::Running && task.desired_state == TaskState::Running;
    view.tasks_of_service(id).filter(live).map(|task| task.id.clone()).collect()
}

async fn until_running(manager: &Manager, id: &ServiceId, count: usize) -> BTreeSet<TaskId> {
    let mut watch = manager.shared().watch();
    let found = watch.until(|view| Some(running(view, id)).filter(|tasks| tasks.len() == count));
    tokio::time::timeout(LONG, found).await.expect("tasks come to run").expect("the manager lives")
}

async fn scale(manager: &Manager, service: &ServiceId, spec: ServiceSpec) -> Arc<Service> {
    let current = manager.shared().view().service(service).expect("the service").clone();
    let updated = manager.control().update_service(service, current.meta.version, spec, UpdateKind::Replace);
    updated.await.expect("an update")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_runs_scales_restarts_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let books = Arc::new(Books::default());
    let node = open(folder.path(), &books).await;
    assert_eq!(node.info().state, NodeState::Inactive);
    let node_id = node.init(init_request()).await.unwrap();
    assert_eq!(node.info().state, NodeState::Active);
    assert!(node.init(init_request()).await.is_err(), "a second init is refused");
    let manager = node.manager().unwrap();
    let service = manager.control().create_service(service_spec("dummy", 1)).await.unwrap();
    let first = until_running(&manager, &service.id, 1).await;
    assert_eq!(*books.running.lock().unwrap(), first);
    let task = manager.shared().view().task(first.first().unwrap()).unwrap().clone();
    assert_eq!(task.node_id, Some(node_id));
    assert!(task.networks[0].network.as_ref().unwrap().spec.ingress, "a published port brings the ingress network");
    assert!(books.node.lock().unwrap().as_ref().is_some_and(|node| !node.attachments.is_empty()));

    scale(&manager, &service.id, service_spec("dummy", 5)).await;
    let five = until_running(&manager, &service.id, 5).await;
    assert!(five.is_superset(&first), "scaling up leaves what runs");
    drop(manager);

    // The daemon goes and comes; tasks are neither stopped nor replaced.
    node.stop().await;
    drop(node);
    assert!(books.stopped.lock().unwrap().is_empty());
    let node = open(folder.path(), &books).await;
    let manager = node.manager().unwrap();
    manager.ready().wait_for(|ready| *ready).await.unwrap();
    assert_eq!(until_running(&manager, &service.id, 5).await, five);

    // A forced update replaces every task.
    let mut spec = service_spec("dummy", 5);
    Arc::make_mut(&mut spec.task).force_update = 1;
    spec.update = Some(model::UpdateConfig {
        parallelism: 0,
        monitor: Some(model::Duration::from_millis(1)),
        ..Default::default()
    });
    scale(&manager, &service.id, spec.clone()).await;
    let mut watch = manager.shared().watch();
    let replaced = watch
        .until(|view| Some(running(view, &service.id)).filter(|tasks| tasks.len() == 5 && tasks.is_disjoint(&five)));
    tokio::time::timeout(LONG, replaced).await.expect("replacement").unwrap();

    manager.control().remove_service(&service.id).await.unwrap();
    let mut watch = manager.shared().watch();
    let empty = watch.until(|view| view.tasks().next().is_none().then_some(()));
    tokio::time::timeout(LONG, empty).await.expect("tasks go with their service").unwrap();
    assert!(books.running.lock().unwrap().is_empty());

    drop(manager);
    assert!(matches!(node.leave(LeaveMode::Safe).await, Err(LeaveError::Refused(LeaveRefusal::LastManager))));
    node.leave(LeaveMode::Force).await.unwrap();
    assert_eq!(node.info().state, NodeState::Inactive);
    assert!(!folder.path().join("swarm").exists());
    node.init(init_request()).await.unwrap();
    node.leave(LeaveMode::Force).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_fails_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let books = Arc::new(Books::default());
    let node = open(folder.path(), &books).await;
    node.init(init_request()).await.unwrap();
    let manager = node.manager().unwrap();
    let mut spec = service_spec("frail", 1);
    Arc::make_mut(&mut spec.task).restart = Some(model::RestartPolicy {
        condition: model::RestartCondition::Any,
        delay: Some(model::Duration::from_millis(10)),
        ..Default::default()
    });
    let service = manager.control().create_service(spec).await.unwrap();
    let first = until_running(&manager, &service.id, 1).await;
    let id = first.first().unwrap().clone();
    books.ends.lock().unwrap()[&id].send_replace(true);
    let mut watch = manager.shared().watch();
    let replaced = watch
        .until(|view| Some(running(view, &service.id)).filter(|tasks| tasks.len() == 1 && tasks.is_disjoint(&first)));
    tokio::time::timeout(LONG, replaced).await.expect("a replacement").unwrap();
    let failed = manager.shared().view().task(&id).unwrap().clone();
    assert_eq!(failed.status.state, TaskState::Failed);
    assert_eq!(failed.status.err, "task: non-zero exit (1)");
    assert_eq!(failed.desired_state, TaskState::Shutdown);
    drop(manager);
    node.leave(LeaveMode::Force).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_manager_starts_with_its_key_only() {
    let folder = tempfile::tempdir().unwrap();
    let books = Arc::new(Books::default());
    let node = open(folder.path(), &books).await;
    let mut request = init_request();
    request.spec.encryption_config.auto_lock_managers = true;
    node.init(request).await.unwrap();
    let view = node.manager().unwrap().shared().view();
    let key = manager::unlock_key(view.the_cluster().unwrap()).expect("an unlock key");
    node.stop().await;
    drop(node);

    let node = open(folder.path(), &books).await;
    assert_eq!(node.info().state, NodeState::Locked);
    assert!(matches!(node.unlock(&[0; 32]).await, Err(UnlockError::WrongKey)));
    assert!(matches!(node.leave(LeaveMode::Safe).await, Err(LeaveError::Refused(LeaveRefusal::Locked))));
    node.unlock(&key).await.unwrap();
    let manager = node.manager().unwrap();
    let mut watch = manager.shared().watch();
    let led = watch.until(|view| view.the_cluster().cloned());
    let cluster = tokio::time::timeout(LONG, led).await.unwrap().unwrap();
    manager.ready().wait_for(|ready| *ready).await.unwrap();

    // Unlocked for good, it starts by itself.
    let mut spec = cluster.spec.clone();
    spec.encryption_config.auto_lock_managers = false;
    let version = manager.shared().view().the_cluster().unwrap().meta.version;
    manager.control().update_cluster(version, spec, manager::KeyRotation::default()).await.unwrap();
    let file = folder.path().join("swarm/certificates/swarm-node.key");
    let opened = async {
        while std::fs::read_to_string(&file).unwrap().contains("ENCRYPTED") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, opened).await.expect("an open key file");
    drop(manager);
    node.stop().await;
    drop(node);
    let node = open(folder.path(), &books).await;
    assert!(matches!(node.info().state, NodeState::Active | NodeState::Pending));
    node.leave(LeaveMode::Force).await.unwrap();
}
