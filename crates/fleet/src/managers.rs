//! The managers' process: nodes with real managers, logs on disk and listeners on loopback, and an executor that gets no
//! tasks. Takes orders from its input and ends with it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use agent::{Controller, ControllerError, Dependencies, Executor, ExecutorError};
use anyhow::{Context, Result};
use manager::{Manager, Next};
use model::{
    ContainerSpec, Node, NodeAvailability, NodeDescription, NodeState, ReplicatedService, ServiceMode, ServiceSpec,
    Task, TaskId, TaskRuntime, TaskSpec, TaskState,
};
use node::{InitRequest, JoinRequest, NodeConfig, SwarmNode};
use serde::Serialize;
use store::{Event, Object, View};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::link::{Order, Ready, Sample};
use crate::{limits, session};

/// Runs until the input ends.
pub(crate) async fn run(count: u8, folder: &Path) -> Result<()> {
    // Ctrl-C reaches this process, too; the input ends then, and the files go.
    tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    let folder = tempfile::Builder::new().prefix("skep-fleet-").tempdir_in(folder).context("a folder for the logs")?;
    let mut nodes = Vec::new();
    let mut ready = Ready { addrs: Vec::new(), worker_token: String::new() };
    for number in 1..=count {
        let node = open(&folder.path().join(number.to_string()), number).await;
        let addr = own_address(number);
        if let Some(token) = tokens(nodes.first()) {
            node.join(join_request(&addr, ready.addrs.clone(), token)).await.context("a manager's join")?;
        } else {
            node.init(init_request(&addr)).await.context("the first manager")?;
        }
        ready.addrs.push(addr);
        nodes.push(node);
    }
    let first = nodes[0].manager().context("the first manager")?;
    let cluster = first.shared().view().the_cluster().cloned().context("the cluster")?;
    ready.worker_token = cluster.root_ca.join_tokens.worker.clone();
    answer(&ready).await?;
    let books = Arc::new(Books::default());
    let counting = tokio::spawn(count_tasks(first.clone(), books.clone()));
    let served = serve(&nodes, &first, &books).await;
    counting.abort();
    drop(first);
    for node in nodes.into_iter().rev() {
        node.stop().await;
    }
    folder.close().context("the folder of the logs")?;
    served
}

async fn serve(nodes: &[SwarmNode], first: &Arc<Manager>, books: &Arc<Books>) -> Result<()> {
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let mut creating = None;
    while let Some(line) = orders.next_line().await? {
        match serde_json::from_str(&line).context("an order")? {
            Order::Create { tasks, replicas } => {
                creating = Some(tokio::spawn(create(first.clone(), books.clone(), tasks, replicas)));
            }
            Order::Measure => {}
        }
        answer(&sample(nodes, first, books)?).await?;
    }
    if let Some(creating) = creating {
        creating.abort();
    }
    Ok(())
}

async fn answer(answer: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut output = tokio::io::stdout();
    output.write_all(&line).await?;
    Ok(output.flush().await?)
}

fn sample(nodes: &[SwarmNode], first: &Manager, books: &Books) -> Result<Sample> {
    let registered = |node: &SwarmNode| node.manager().map_or(0, |manager| manager.dispatcher().registered());
    let down = first.shared().view().nodes().filter(|node| node.status.state == NodeState::Down).count();
    Ok(Sample {
        sessions: nodes.iter().map(registered).sum::<usize>() as u64,
        down: down as u64,
        tasks: books.tasks.load(Ordering::Relaxed),
        running: books.running.load(Ordering::Relaxed),
        memory_bytes: limits::anonymous_bytes()?,
        cpu: limits::cpu()?,
        failed: books.failed.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    })
}

async fn open(folder: &Path, number: u8) -> SwarmNode {
    SwarmNode::open(NodeConfig {
        folder: folder.to_owned(),
        executor: Arc::new(NoTasks { hostname: format!("manager-{number}") }),
        default_advertise_addr: String::new(),
    })
    .await
}

/// An address of loopback's that no other fleet listens on.
fn own_address(number: u8) -> String {
    let pid = std::process::id();
    format!("127.{}.{}.{number}:2377", pid >> 8 & 0xff, pid & 0xff)
}

fn init_request(addr: &str) -> InitRequest {
    InitRequest {
        listen_addr: addr.to_owned(),
        availability: NodeAvailability::Drain,
        spec: manager::default_cluster_spec(),
        ..InitRequest::default()
    }
}

fn join_request(addr: &str, remote_addrs: Vec<String>, join_token: String) -> JoinRequest {
    JoinRequest {
        listen_addr: addr.to_owned(),
        remote_addrs,
        join_token,
        availability: NodeAvailability::Drain,
        ..JoinRequest::default()
    }
}

/// The manager's token, once there is a manager.
fn tokens(first: Option<&SwarmNode>) -> Option<String> {
    let view = first?.manager()?.shared().view();
    Some(view.the_cluster()?.root_ca.join_tokens.manager.clone())
}

/// Creates services until they have this many tasks.
async fn create(manager: Arc<Manager>, books: Arc<Books>, tasks: u32, replicas: u32) {
    let mut left = tasks;
    let mut number = 0;
    while left > 0 {
        let size = left.min(replicas);
        if let Err(error) = manager.control().create_service(service_spec(number, size)).await {
            *books.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("service {number}: {error}"));
            return;
        }
        left -= size;
        number += 1;
    }
}

fn service_spec(number: u32, replicas: u32) -> ServiceSpec {
    let container = ContainerSpec { image: "fleet:latest".to_owned(), ..ContainerSpec::default() };
    let task = TaskSpec { runtime: Some(TaskRuntime::Container(container)), ..TaskSpec::default() };
    let mode = ServiceMode::Replicated(ReplicatedService { replicas: u64::from(replicas) });
    let mut spec = ServiceSpec { task: Arc::new(task), mode: Some(mode), ..ServiceSpec::default() };
    spec.annotations.name = format!("fleet-{number}");
    spec
}

/// How many tasks there are in the committed store.
#[derive(Default)]
struct Books {
    tasks: AtomicU64,
    running: AtomicU64,
    failed: Mutex<Option<String>>,
}

/// Follows the commits.
async fn count_tasks(manager: Arc<Manager>, books: Arc<Books>) {
    let mut watch = manager.shared().watch();
    let (mut tasks, mut running) = count(&watch.view);
    loop {
        match watch.next().await {
            Some(Next::Commit(commit)) => {
                for event in &commit.events {
                    let (before, after) = (is_running(event.before()), is_running(Some(event.object())));
                    match event {
                        Event::Create(Object::Task(_)) => tasks += 1,
                        Event::Remove(Object::Task(_)) => tasks -= 1,
                        _ => {}
                    }
                    match event {
                        Event::Remove(_) => running -= u64::from(after),
                        _ => running = running + u64::from(after) - u64::from(before),
                    }
                }
            }
            Some(Next::Anew) => (tasks, running) = count(&watch.view),
            None => return,
        }
        books.tasks.store(tasks, Ordering::Relaxed);
        books.running.store(running, Ordering::Relaxed);
    }
}

fn count(view: &View) -> (u64, u64) {
    let running = view.tasks().filter(|task| task.status.state == TaskState::Running).count();
    (view.tasks().count() as u64, running as u64)
}

fn is_running(object: Option<&Object>) -> bool {
    matches!(object, Some(Object::Task(task)) if task.status.state == TaskState::Running)
}

/// The engine of a manager, which is drained.
struct NoTasks {
    hostname: String,
}

#[async_trait::async_trait]
impl Executor for NoTasks {
    async fn describe(&self) -> Result<NodeDescription, ExecutorError> {
        Ok(session::description(self.hostname.clone()))
    }

    async fn configure(&self, _: Arc<Node>) -> Result<(), ExecutorError> {
        Ok(())
    }

    async fn set_network(&self, _: agent::NetworkPart) -> Result<(), ExecutorError> {
        Ok(())
    }

    async fn retain(&self, _: BTreeSet<TaskId>) {}

    fn controller(&self, _: Arc<Task>, _: Dependencies) -> Result<Arc<dyn Controller>, ControllerError> {
        Err(ControllerError::Fatal("a drained manager runs no task".to_owned()))
    }
}
