//! The swarm as the API asks for it, over this machine's node and its manager. Reads go to the committed view of this
//! manager, writes to the control API.

mod convert;
mod events;
mod logs;

use std::sync::Arc;

use api::SwarmBackend;
use api::swarm_backend::{
    InitRequest, InsertDefaults, JoinRequest, KeyRotation, LeaveMode, LocalNodeState, LogMessage, LogOptions,
    LogSelector, NodeFilter, NotManager, ObjectFilter, RemoveMode, Rollback, ServiceFilter, ServiceTaskCounts,
    SwarmError, SwarmEvent, SwarmInfo, SwarmResult, TaskFilter,
};
use async_trait::async_trait;
use manager::{Manager, RemoveKind, UpdateKind};
use model::{
    Cluster, ClusterSpec, Config, ConfigId, ConfigSpec, Network, NetworkId, NetworkSpec, Node, NodeId, NodeRole,
    NodeSpec, ObjectVersion, Peer, Secret, SecretId, SecretSpec, Service, ServiceId, ServiceSpec, Task, TaskId,
};
use node::{NodeState, SwarmNode};
use store::{StoreObject, View};
use tokio::sync::mpsc;

use crate::executor::TaskExecutor;
use convert::{from_control, from_leave, from_node, from_unlock, not_found};

/// The backend: this machine's node.
pub(crate) struct Swarm {
    node: Arc<SwarmNode>,
    executor: Arc<TaskExecutor>,
}

impl Swarm {
    pub(crate) fn new(node: Arc<SwarmNode>, executor: Arc<TaskExecutor>) -> Self {
        Self { node, executor }
    }

    fn manager(&self) -> SwarmResult<Arc<Manager>> {
        convert::manager_state(&self.node.info())?;
        self.node.manager().ok_or(SwarmError::NotManager(NotManager::NotReady))
    }

    /// The manager once somebody leads: what it knows without a leader may be long out of date, so that dockerd's text
    /// is a better answer.
    async fn led_manager(&self) -> SwarmResult<Arc<Manager>> {
        let manager = self.manager()?;
        manager.await_leader().await.map_err(from_control)?;
        Ok(manager)
    }

    async fn view(&self) -> SwarmResult<View> {
        Ok(self.led_manager().await?.shared().view())
    }

    /// The view as it stands, for what also answers without a swarm.
    fn present_view(&self) -> SwarmResult<View> {
        Ok(self.manager()?.shared().view())
    }
}

fn one<T: StoreObject + Clone>(view: &View, id: &T::Id, kind: &str) -> SwarmResult<T>
where
    T::Id: std::fmt::Display,
{
    view.get::<T>(id).map(|found| T::clone(found)).ok_or_else(|| not_found(kind, id))
}

fn all<T: StoreObject + Clone>(view: &View, wanted: impl Fn(&T) -> bool) -> Vec<T> {
    view.all::<T>().filter(|found| wanted(found)).map(|found| T::clone(found)).collect()
}

/// A secret as it may leave the manager.
fn without_data(mut secret: Secret) -> Secret {
    secret.spec.data = Vec::new();
    secret
}

#[async_trait]
impl SwarmBackend for Swarm {
    async fn init(&self, request: InitRequest) -> SwarmResult<NodeId> {
        let spec = request.spec.merge_into(manager::default_cluster_spec());
        let mut spec = spec.map_err(|error| SwarmError::InvalidParameter(error.to_string()))?;
        spec.encryption_config.auto_lock_managers |= request.auto_lock_managers;
        manager::check_cluster_spec(&spec).map_err(from_control)?;
        let wanted = node::InitRequest {
            listen_addr: request.listen_addr,
            advertise_addr: request.advertise_addr,
            data_path_addr: request.data_path_addr,
            data_path_port: request.data_path_port,
            default_address_pool: request.default_address_pool,
            subnet_size: request.subnet_size,
            force_new_cluster: request.force_new_cluster,
            availability: request.availability,
            spec,
        };
        self.node.init(wanted).await.map_err(from_node)
    }

    async fn join(&self, request: JoinRequest) -> SwarmResult<()> {
        let wanted = node::JoinRequest {
            listen_addr: request.listen_addr,
            advertise_addr: request.advertise_addr,
            data_path_addr: request.data_path_addr,
            remote_addrs: request.remote_addrs,
            join_token: request.join_token,
            availability: request.availability,
        };
        self.node.join(wanted).await.map_err(from_node)
    }

    async fn leave(&self, mode: LeaveMode) -> SwarmResult<()> {
        let mode = match mode {
            LeaveMode::Safe => node::LeaveMode::Safe,
            LeaveMode::Force => node::LeaveMode::Force,
        };
        self.executor.set_leaving(true);
        let left = self.node.leave(mode).await.map_err(from_leave);
        if left.is_ok() {
            self.executor.forget().await;
        }
        self.executor.set_leaving(false);
        left
    }

    async fn unlock(&self, key: &str) -> SwarmResult<()> {
        let key = identity::parse_unlock_key(key).ok_or(SwarmError::MalformedUnlockKey)?;
        self.node.unlock(&key).await.map_err(from_unlock)
    }

    async fn unlock_key(&self) -> SwarmResult<String> {
        let key = self.view().await?.the_cluster().and_then(|cluster| manager::unlock_key(cluster));
        Ok(key.map(|key| identity::unlock_key_text(&key)).unwrap_or_default())
    }

    async fn info(&self) -> SwarmInfo {
        let info = self.node.info();
        let active_manager = info.state == NodeState::Active && info.role == NodeRole::Manager;
        let peer = |manager: node::RemoteManager| Peer { node_id: NodeId::from(manager.node_id), addr: manager.addr };
        let mut out = SwarmInfo {
            node_id: info.node_id,
            node_addr: info.advertise_ip,
            local_node_state: match info.state {
                NodeState::Inactive => LocalNodeState::Inactive,
                NodeState::Pending => LocalNodeState::Pending,
                NodeState::Active => LocalNodeState::Active,
                NodeState::Failed | NodeState::Expired => LocalNodeState::Error,
                NodeState::Locked => LocalNodeState::Locked,
            },
            control_available: active_manager,
            error: match info.state {
                NodeState::Expired => SwarmError::NotManager(NotManager::CertificatesExpired).to_string(),
                NodeState::Locked => SwarmError::NotManager(NotManager::Locked).to_string(),
                _ => info.error,
            },
            remote_managers: info.managers.into_iter().map(peer).collect(),
            ..SwarmInfo::default()
        };
        let Some(manager) = self.node.manager().filter(|_| active_manager) else { return out };
        if let Some(error) = manager.leader_missing() {
            out.error = from_control(error).to_string();
        }
        let view = manager.shared().view();
        out.nodes = view.nodes().count() as u64;
        out.managers = manager.status().borrow().members.len() as u64;
        out.cluster = view.the_cluster().map(|cluster| Cluster::clone(cluster));
        out
    }

    async fn cluster(&self) -> SwarmResult<Cluster> {
        let view = self.view().await?;
        view.the_cluster().map(|cluster| Cluster::clone(cluster)).ok_or_else(|| not_found("cluster", &"default"))
    }

    async fn update_cluster(
        &self,
        version: ObjectVersion,
        spec: ClusterSpec,
        rotation: KeyRotation,
    ) -> SwarmResult<()> {
        let rotation = manager::KeyRotation {
            worker_join_token: rotation.worker_join_token,
            manager_join_token: rotation.manager_join_token,
            manager_unlock_key: rotation.manager_unlock_key,
        };
        self.manager()?.control().update_cluster(version, spec, rotation).await.map_err(from_control)
    }

    async fn nodes(&self, filter: NodeFilter) -> SwarmResult<Vec<Node>> {
        let manager = self.led_manager().await?;
        let mut nodes = all(&manager.shared().view(), |node| filter.matches(node));
        manager.fill_manager_statuses(&mut nodes).await.map_err(from_control)?;
        Ok(nodes)
    }

    async fn node(&self, id: &NodeId) -> SwarmResult<Node> {
        let manager = self.led_manager().await?;
        let mut node: Node = one(&manager.shared().view(), id, "node")?;
        manager.fill_manager_statuses(std::slice::from_mut(&mut node)).await.map_err(from_control)?;
        Ok(node)
    }

    async fn update_node(&self, id: &NodeId, version: ObjectVersion, spec: NodeSpec) -> SwarmResult<()> {
        self.manager()?.control().update_node(id, version, spec).await.map_err(from_control)
    }

    async fn remove_node(&self, id: &NodeId, mode: RemoveMode) -> SwarmResult<()> {
        let kind = match mode {
            RemoveMode::Safe => RemoveKind::Safe,
            RemoveMode::Force => RemoveKind::Force,
        };
        self.manager()?.control().remove_node(id, kind).await.map_err(from_control)
    }

    async fn services(&self, filter: ServiceFilter) -> SwarmResult<Vec<Service>> {
        Ok(all(&self.view().await?, |service| filter.matches(service)))
    }

    async fn service(&self, id: &ServiceId, defaults: InsertDefaults) -> SwarmResult<Service> {
        let mut service: Service = one(&self.view().await?, id, "service")?;
        if defaults == InsertDefaults::Yes {
            service.spec = manager::with_defaults(service.spec);
        }
        Ok(service)
    }

    async fn create_service(&self, spec: ServiceSpec) -> SwarmResult<Service> {
        let created = self.manager()?.control().create_service(spec).await.map_err(from_control)?;
        Ok(Service::clone(&created))
    }

    async fn update_service(
        &self,
        id: &ServiceId,
        version: ObjectVersion,
        spec: ServiceSpec,
        rollback: Rollback,
    ) -> SwarmResult<Service> {
        let kind = match rollback {
            Rollback::None => UpdateKind::Replace,
            Rollback::Previous => UpdateKind::Rollback,
        };
        let manager = self.manager()?;
        let updated = manager.control().update_service(id, version, spec, kind).await.map_err(from_control)?;
        Ok(Service::clone(&updated))
    }

    async fn remove_service(&self, id: &ServiceId) -> SwarmResult<()> {
        self.manager()?.control().remove_service(id).await.map_err(from_control)
    }

    async fn service_statuses(&self, ids: &[ServiceId]) -> SwarmResult<Vec<ServiceTaskCounts>> {
        let view = self.view().await?;
        let count = |id: &ServiceId| {
            let counts = manager::service_counts(&view, id)?;
            Some(ServiceTaskCounts {
                service_id: id.clone(),
                desired_tasks: counts.desired_tasks,
                running_tasks: counts.running_tasks,
                completed_tasks: counts.completed_tasks,
            })
        };
        Ok(ids.iter().filter_map(count).collect())
    }

    async fn tasks(&self, filter: TaskFilter) -> SwarmResult<Vec<Task>> {
        let view = self.view().await?;
        let wanted = |task: &Task| filter.matches(task) && (!filter.up_to_date || convert::is_up_to_date(&view, task));
        if filter.service_ids.is_empty() {
            return Ok(all(&view, wanted));
        }
        let of_services = filter.service_ids.iter().flat_map(|id| view.tasks_of_service(id));
        Ok(of_services.filter(|task| wanted(task)).map(|task| Task::clone(task)).collect())
    }

    async fn task(&self, id: &TaskId) -> SwarmResult<Task> {
        one(&self.view().await?, id, "task")
    }

    async fn secrets(&self, filter: ObjectFilter) -> SwarmResult<Vec<Secret>> {
        let found = all(&self.view().await?, |secret: &Secret| !secret.internal && filter.matches_secret(secret));
        Ok(found.into_iter().map(without_data).collect())
    }

    async fn secret(&self, id: &SecretId) -> SwarmResult<Secret> {
        one(&self.view().await?, id, "secret").map(without_data)
    }

    async fn create_secret(&self, spec: SecretSpec) -> SwarmResult<SecretId> {
        self.manager()?.control().create_secret(spec).await.map_err(from_control)
    }

    async fn update_secret(&self, id: &SecretId, version: ObjectVersion, spec: SecretSpec) -> SwarmResult<()> {
        self.manager()?.control().update_secret(id, version, spec).await.map(drop).map_err(from_control)
    }

    async fn remove_secret(&self, id: &SecretId) -> SwarmResult<()> {
        self.manager()?.control().remove_secret(id).await.map_err(from_control)
    }

    async fn configs(&self, filter: ObjectFilter) -> SwarmResult<Vec<Config>> {
        Ok(all(&self.view().await?, |config| filter.matches_config(config)))
    }

    async fn config(&self, id: &ConfigId) -> SwarmResult<Config> {
        one(&self.view().await?, id, "config")
    }

    async fn create_config(&self, spec: ConfigSpec) -> SwarmResult<ConfigId> {
        self.manager()?.control().create_config(spec).await.map_err(from_control)
    }

    async fn update_config(&self, id: &ConfigId, version: ObjectVersion, spec: ConfigSpec) -> SwarmResult<()> {
        self.manager()?.control().update_config(id, version, spec).await.map(drop).map_err(from_control)
    }

    async fn remove_config(&self, id: &ConfigId) -> SwarmResult<()> {
        self.manager()?.control().remove_config(id).await.map_err(from_control)
    }

    async fn networks(&self, filter: ObjectFilter) -> SwarmResult<Vec<Network>> {
        Ok(all(&self.present_view()?, |network| filter.matches_network(network)))
    }

    async fn network(&self, id: &NetworkId) -> SwarmResult<Network> {
        one(&self.present_view()?, id, "network")
    }

    async fn create_network(&self, spec: NetworkSpec) -> SwarmResult<NetworkId> {
        self.manager()?.control().create_network(spec).await.map_err(from_control)
    }

    async fn remove_network(&self, id: &NetworkId) -> SwarmResult<()> {
        self.manager()?.control().remove_network(id).await.map_err(from_control)
    }

    async fn logs(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> SwarmResult<mpsc::Receiver<SwarmResult<LogMessage>>> {
        logs::subscribe(&*self.manager()?, selector, options).await
    }

    fn events(&self) -> mpsc::Receiver<SwarmEvent> {
        events::stream(self.node.managers())
    }
}
