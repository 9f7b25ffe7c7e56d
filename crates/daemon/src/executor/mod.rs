//! The agent's executor over the engine, the images and the network: one controller per task, the mesh's table, and what
//! this machine tells of itself.

mod balancer;
mod controller;
mod describe;
mod listening;
mod pull;
mod request;
mod template;

use std::collections::BTreeSet;
use std::sync::Arc;

use agent::{Controller, ControllerError, Dependencies, Executor, ExecutorError, NetworkPart};
use async_trait::async_trait;
use engine::Engine;
use image::ImageStore;
use model::{Node, NodeDescription, Task, TaskId};
use net::{Net, OverlaySpec, OverlaySubnet};
use tokio::sync::watch;

use crate::errors::chain;
use crate::overlay::Gossiping;
use balancer::Balancer;
use controller::TaskController;
use pull::Puller;

/// The label that says which task a container belongs to.
const TASK_ID_LABEL: &str = "com.docker.swarm.task.id";

/// What all controllers share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) puller: Puller,
    pub(crate) balancer: Balancer,
    pub(crate) net: Net,
    /// What the swarm's nodes tell each other of their endpoints.
    pub(crate) gossiping: Gossiping,
    /// Whether the ingress network is made on this node.
    pub(crate) ingress_ready: watch::Sender<bool>,
    pub(crate) about: describe::About,
}

/// The executor.
pub(crate) struct TaskExecutor {
    shared: Arc<Shared>,
}

/// What this machine tells the managers of itself, beside what the kernel says.
pub(crate) use describe::About;

impl TaskExecutor {
    pub(crate) fn new(engine: Engine, images: ImageStore, net: Net, about: About, exec_root: &std::path::Path) -> Self {
        let gossiping = Gossiping::new(net.node_name());
        tokio::spawn(crate::overlay::tell(gossiping.handle()));
        let shared = Shared {
            engine,
            puller: Puller::new(images),
            balancer: Balancer::open(net.clone(), exec_root),
            gossiping,
            net,
            ingress_ready: watch::Sender::new(false),
            about,
        };
        Self { shared: Arc::new(shared) }
    }

    /// This node is in no swarm: no task, no ingress.
    pub(crate) async fn forget(&self) {
        self.retain(BTreeSet::new()).await;
        self.shared.gossiping.leave().await;
        self.shared.ingress_ready.send_replace(false);
        if let Err(error) = self.shared.net.ingress_remove().await {
            tracing::warn!(error = chain(&error), "the ingress network could not be removed");
        }
    }
}

#[async_trait]
impl Executor for TaskExecutor {
    async fn describe(&self) -> Result<NodeDescription, ExecutorError> {
        describe::describe(&self.shared.about).map_err(|error| ExecutorError(error.to_string()))
    }

    async fn configure(&self, node: Arc<Node>) -> Result<(), ExecutorError> {
        let Some(spec) = ingress_spec(&node)? else { return Ok(()) };
        self.shared.net.overlay_ensure(spec).await.map_err(|error| ExecutorError(chain(&error)))?;
        self.shared.ingress_ready.send_replace(true);
        Ok(())
    }

    async fn set_network(&self, part: NetworkPart) -> Result<(), ExecutorError> {
        self.shared.gossiping.set(part).await;
        Ok(())
    }

    async fn retain(&self, tasks: BTreeSet<TaskId>) {
        if let Err(error) = self.shared.balancer.retain(&tasks).await {
            tracing::warn!(error = chain(&error), "tasks that are gone are still in the mesh");
        }
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
        request::container_spec(&task).map_err(ControllerError::Fatal)?;
        Ok(Arc::new(TaskController::new(self.shared.clone(), task, dependencies)))
    }
}

/// This node's place on the ingress network; `None` while it has none.
fn ingress_spec(node: &Node) -> Result<Option<OverlaySpec>, ExecutorError> {
    let ingress = |attachment: &&model::NetworkAttachment| {
        attachment.network.as_ref().is_some_and(|network| network.spec.ingress)
    };
    let attachment = node.attachments.iter().chain(node.attachment.as_ref()).find(ingress);
    let Some((attachment, network)) = attachment.and_then(|it| Some((it, it.network.as_ref()?))) else {
        return Ok(None);
    };
    let config = network.ipam.as_ref().and_then(|ipam| ipam.configs.first());
    let (Some(config), Some(address)) = (config, attachment.addresses.first()) else { return Ok(None) };
    let bad = |what: &str| ExecutorError(format!("the ingress network has no usable {what}"));
    let address: net::Ipv4Cidr = address.parse().map_err(|_| bad("address for this node"))?;
    let mtu = network.driver_state.as_ref().and_then(|state| state.options.get("com.docker.network.driver.mtu"));
    // without an address for tunnels the network ends at this machine
    let subnet = OverlaySubnet {
        subnet: config.subnet.parse().map_err(|_| bad("subnet"))?,
        gateway: config.gateway.parse().map_err(|_| bad("gateway"))?,
        vni: 0,
    };
    Ok(Some(OverlaySpec {
        network_id: network.id.to_string(),
        name: network.spec.annotations.name.clone(),
        subnets: vec![subnet],
        mtu: mtu.and_then(|mtu| mtu.parse().ok()).unwrap_or(0),
        internal: false,
        ingress: true,
        encrypted: false,
        lb_address: Some(address.address),
        vtep: None,
        data_path_port: net::DATA_PATH_PORT,
    }))
}

/// The name of a task's container: `service.slot.task`, for tasks without a slot `service.node.task`.
pub(crate) fn task_name(task: &Task) -> String {
    api::swarm_backend::task_name(task)
}
