//! The agent's executor over the engine, the images and the network: one controller per task, the mesh's table, and what
//! this machine tells of itself.

mod attachment;
mod controller;
mod describe;
mod listening;
mod pull;
mod record;
mod request;
mod template;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agent::{Controller, ControllerError, Dependencies, Executor, ExecutorError, NetworkPart};
use async_trait::async_trait;
use doctor::Own;
use engine::Engine;
use gossip_io::Handle;
use image::ImageStore;
use model::{Node, NodeDescription, Task, TaskId};
use net::Net;
use node::SwarmNode;
use tokio::sync::watch;

use crate::checkup::Doctor;
use crate::errors::chain;
use crate::overlay::{Attachments, Exchange, Gossiping, HoldError, ShownNetworks, container_of};
use attachment::AttachmentController;
use controller::TaskController;
use pull::Puller;

/// The label that says which task a container belongs to.
const TASK_ID_LABEL: &str = "com.docker.swarm.task.id";

/// What all controllers share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) puller: Puller,
    pub(crate) net: Net,
    /// What is known of endpoints, here and elsewhere.
    pub(crate) exchange: Exchange,
    /// Places of containers that are no tasks.
    pub(crate) attachments: Attachments,
    /// What the swarm's nodes tell each other of their endpoints.
    pub(crate) gossiping: Gossiping,
    pub(crate) about: describe::About,
}

/// How long a task waits for this node's addresses on its networks before it says so.
const ATTACHMENT_WAIT: Duration = Duration::from_secs(5);

impl Shared {
    /// Makes a task's networks, once this node has an address on each.
    pub(crate) async fn make_networks(&self, task: &Task) -> Result<(), ControllerError> {
        let networks: Vec<_> = request::overlays(task).filter_map(|it| it.network.clone()).collect();
        let mut attached = self.exchange.attached();
        let have_all = |attached: &BTreeSet<String>| networks.iter().all(|it| attached.contains(it.id.as_str()));
        if tokio::time::timeout(ATTACHMENT_WAIT, attached.wait_for(have_all)).await.is_err() {
            let text = "this node has no address on a network of the task yet";
            return Err(ControllerError::Temporary(text.to_owned()));
        }
        for network in &networks {
            self.exchange.prepare(network, task.id.as_str()).await.map_err(|error| not_made(&error))?;
        }
        Ok(())
    }
}

/// A task whose network cannot be had here is rejected, so that the managers try another machine.
fn not_made(error: &HoldError) -> ControllerError {
    let text = chain(error);
    if error.is_final() { ControllerError::Fatal(text) } else { ControllerError::Temporary(text) }
}

/// The executor.
pub(crate) struct TaskExecutor {
    shared: Arc<Shared>,
}

/// What this machine tells the managers of itself, beside what the kernel says.
pub(crate) use describe::About;

impl TaskExecutor {
    pub(crate) fn new(
        engine: Engine,
        images: ImageStore,
        net: Net,
        exchange: Exchange,
        attachments: Attachments,
        about: About,
    ) -> Self {
        let gossiping = Gossiping::new(net.node_name());
        tokio::spawn(crate::overlay::tell(gossiping.handle()));
        let name = net.node_name().to_owned();
        tokio::spawn(crate::overlay::feed(exchange.clone(), name, gossiping.handle()));
        tokio::spawn(crate::overlay::settle(exchange.clone(), gossiping.handle()));
        let shared = Shared { engine, puller: Puller::new(images), exchange, attachments, gossiping, net, about };
        Self { shared: Arc::new(shared) }
    }

    /// This machine's networks as the API shows them.
    pub(crate) fn shown_networks(&self) -> ShownNetworks {
        let Shared { net, exchange, gossiping, .. } = &*self.shared;
        ShownNetworks { net: net.clone(), exchange: exchange.clone(), gossip: gossiping.handle() }
    }

    /// Looks for what keeps networks from working, and answers peers that look.
    pub(crate) fn doctor(&self, node: Arc<SwarmNode>, own: Own) -> Doctor {
        let Shared { net, exchange, gossiping, .. } = &*self.shared;
        Doctor::new(net.clone(), exchange.clone(), gossiping.handle(), node, own)
    }

    /// The gossip, while there is one.
    pub(crate) fn gossip(&self) -> watch::Receiver<Option<Handle>> {
        self.shared.gossiping.handle()
    }

    /// This node is about to leave the swarm, or stays after all: whether containers may still be put on its networks.
    pub(crate) fn set_leaving(&self, is_leaving: bool) {
        self.shared.attachments.set_leaving(is_leaving);
    }

    /// This node is in no swarm: no task, no ingress.
    pub(crate) async fn forget(&self) {
        self.retain(BTreeSet::new()).await;
        self.shared.gossiping.leave().await;
        self.shared.exchange.forget().await;
        crate::overlay::forget_keys(&self.shared.net).await;
    }
}

#[async_trait]
impl Executor for TaskExecutor {
    async fn describe(&self) -> Result<NodeDescription, ExecutorError> {
        describe::describe(&self.shared.about).map_err(|error| ExecutorError(error.to_string()))
    }

    async fn configure(&self, node: Arc<Node>) -> Result<(), ExecutorError> {
        self.shared.exchange.configure(&node).await.map_err(|error| ExecutorError(chain(&error)))
    }

    async fn set_network(&self, part: NetworkPart) -> Result<(), ExecutorError> {
        self.shared.exchange.set_addresses(part.addresses).await;
        // before the gossip tells of nodes
        crate::overlay::set_keys(&self.shared.net, &part.keys).await;
        self.shared.gossiping.set(part).await;
        Ok(())
    }

    async fn retain(&self, tasks: BTreeSet<TaskId>) {
        let options = engine::ListOptions { all: true, ..engine::ListOptions::default() };
        let containers = match self.shared.engine.list(options).await {
            Ok(containers) => containers,
            Err(error) => return tracing::warn!(%error, "containers could not be listed"),
        };
        for container in containers {
            let Some(task) = container.labels.get(TASK_ID_LABEL) else { continue };
            if tasks.contains(&TaskId::from(task.as_str())) {
                continue;
            }
            let options = engine::RemoveOptions { force: true, volumes: true };
            if let Err(error) = self.shared.engine.remove(&container.id, options).await {
                tracing::warn!(container = container.id, %error, "a task's container was left over");
            }
        }
    }

    fn controller(&self, task: Arc<Task>, dependencies: Dependencies) -> Result<Arc<dyn Controller>, ControllerError> {
        if container_of(&task).is_some() {
            return Ok(Arc::new(AttachmentController::new(self.shared.clone(), task)));
        }
        request::container_spec(&task).map_err(ControllerError::Fatal)?;
        Ok(Arc::new(TaskController::new(self.shared.clone(), task, dependencies)))
    }
}

/// The name of a task's container: `service.slot.task`, for tasks without a slot `service.node.task`.
pub(crate) fn task_name(task: &Task) -> String {
    api::swarm_backend::task_name(task)
}
