//! Nodes with an executor that only keeps books, for tests of one and of several.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::{Controller, ControllerError, Dependencies, Executor, ExecutorError, LogLine, LogRequest};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use manager::Manager;
use model::{
    ContainerSpec, ContainerStatus, EngineDescription, Node, NodeDescription, Platform, PluginDescription, PortConfig,
    PortStatus, ReplicatedService, Resources, ServiceId, ServiceMode, ServiceSpec, Task, TaskId, TaskRuntime, TaskSpec,
    TaskState,
};
use node::{InitRequest, NodeConfig, SwarmNode};
use tokio::sync::watch;

/// Longest wait for anything here; only a broken chain reaches it.
pub(crate) const LONG: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Books {
    pub(crate) running: Mutex<BTreeSet<TaskId>>,
    pub(crate) stopped: Mutex<BTreeSet<TaskId>>,
    pub(crate) ends: Mutex<BTreeMap<TaskId, watch::Sender<bool>>>,
    pub(crate) node: Mutex<Option<Arc<Node>>>,
}

pub(crate) struct FakeExecutor(pub(crate) Arc<Books>);

struct FakeController {
    books: Arc<Books>,
    id: TaskId,
    end: watch::Receiver<bool>,
}

/// An engine that can run tasks with published ports.
fn engine() -> EngineDescription {
    let overlay = PluginDescription { kind: "Network".to_owned(), name: "overlay".to_owned() };
    EngineDescription {
        engine_version: "28.5.2+skep".to_owned(),
        plugins: vec![overlay],
        ..EngineDescription::default()
    }
}

#[async_trait]
impl Executor for FakeExecutor {
    async fn describe(&self) -> Result<NodeDescription, ExecutorError> {
        Ok(NodeDescription {
            hostname: "one".to_owned(),
            platform: Some(Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() }),
            resources: Some(Resources { nano_cpus: 2_000_000_000, memory_bytes: 1 << 30, generic: Vec::new() }),
            engine: Some(engine()),
            ..NodeDescription::default()
        })
    }

    async fn configure(&self, node: Arc<Node>) -> Result<(), ExecutorError> {
        *self.0.node.lock().unwrap() = Some(node);
        Ok(())
    }

    async fn set_network(&self, _: agent::NetworkPart) -> Result<(), ExecutorError> {
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

pub(crate) async fn open(folder: &Path, books: &Arc<Books>) -> SwarmNode {
    if let Ok(filter) = std::env::var("RUST_LOG") {
        // Set by the first node of the process.
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init().ok();
    }
    SwarmNode::open(NodeConfig {
        folder: folder.join("swarm"),
        executor: Arc::new(FakeExecutor(books.clone())),
        default_advertise_addr: String::new(),
    })
    .await
}

/// An address of this machine that no other test, in this process or another, listens on.
pub(crate) fn own_address() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let pid = std::process::id();
    let node = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("127.{}.{}.{}:2377", pid >> 8 & 0xff, pid & 0xff, node)
}

pub(crate) fn init_request() -> InitRequest {
    InitRequest { listen_addr: own_address(), spec: manager::default_cluster_spec(), ..InitRequest::default() }
}

pub(crate) fn service_spec(name: &str, replicas: u64) -> ServiceSpec {
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

pub(crate) fn running(view: &store::View, id: &ServiceId) -> BTreeSet<TaskId> {
    let live = |task: &&Arc<Task>| task.status.state == TaskState::Running && task.desired_state == TaskState::Running;
    view.tasks_of_service(id).filter(live).map(|task| task.id.clone()).collect()
}

pub(crate) async fn until_running(manager: &Manager, id: &ServiceId, count: usize) -> BTreeSet<TaskId> {
    let mut watch = manager.shared().watch();
    let found = watch.until(|view| Some(running(view, id)).filter(|tasks| tasks.len() == count));
    tokio::time::timeout(LONG, found).await.expect("tasks come to run").expect("the manager lives")
}
