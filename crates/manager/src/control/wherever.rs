//! Each write of the control API: on the leader if it is another manager, here if it is this one.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    ClusterSpec, Config, ConfigId, ConfigSpec, ManagerStatus, Network, NetworkId, NetworkSpec, Node, NodeId, NodeSpec,
    ObjectVersion, Secret, SecretId, SecretSpec, Service, ServiceId, ServiceSpec, Task, TaskId,
};
use swarm_proto::convert::{ConvertError, FromProto, ToProto};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::control_client::ControlClient;
use tonic::Code;
use tonic::transport::Channel;

use super::{Control, KeyRotation, RemoveKind, UpdateKind};
use crate::error::ControlError;

/// A call of the client as [`Control::ask`] takes it.
macro_rules! calls {
    ($method:ident) => {
        |mut client: ControlClient<Channel>, request| Box::pin(async move { client.$method(request).await })
    };
}

fn at(version: ObjectVersion) -> Option<p::Version> {
    Some(p::Version { index: version.0 })
}

impl Control {
    /// Creates a service and returns it as it is committed.
    pub async fn create_service(&self, spec: ServiceSpec) -> Result<Arc<Service>, ControlError> {
        let request = p::CreateServiceRequest { spec: Some(spec.to_proto()) };
        match self.ask(&request, calls!(create_service)).await? {
            None => self.local.create_service(spec).await,
            Some(answer) => self.arrived(answer.service).await.map(Arc::new),
        }
    }

    /// Replaces the spec of a service, if `version` is the current one, or swaps it with the previous spec.
    pub async fn update_service(
        &self,
        id: &ServiceId,
        version: ObjectVersion,
        spec: ServiceSpec,
        kind: UpdateKind,
    ) -> Result<Arc<Service>, ControlError> {
        let rollback = match kind {
            UpdateKind::Replace => p::RollbackRequest::None,
            UpdateKind::Rollback => p::RollbackRequest::Previous,
        };
        let request = p::UpdateServiceRequest {
            service_id: id.to_string(),
            service_version: at(version),
            spec: Some(spec.to_proto()),
            rollback: rollback as i32,
        };
        match self.ask(&request, calls!(update_service)).await? {
            None => self.local.update_service(id, version, spec, kind).await,
            Some(answer) => self.arrived(answer.service).await.map(Arc::new),
        }
    }

    /// Removes a service; its tasks follow.
    pub async fn remove_service(&self, id: &ServiceId) -> Result<(), ControlError> {
        let request = p::RemoveServiceRequest { service_id: id.to_string() };
        match self.ask(&request, calls!(remove_service)).await? {
            None => self.local.remove_service(id).await,
            Some(_) => {
                self.is_gone::<Service>(id).await;
                Ok(())
            }
        }
    }

    /// Removes a task's object; what it was for is not asked.
    pub async fn remove_task(&self, id: &TaskId) -> Result<(), ControlError> {
        let request = p::RemoveTaskRequest { task_id: id.to_string() };
        match self.ask(&request, calls!(remove_task)).await? {
            None => self.local.remove_task(id).await,
            Some(_) => {
                self.is_gone::<Task>(id).await;
                Ok(())
            }
        }
    }

    /// Replaces a node's spec, if `version` is the current one.
    pub async fn update_node(&self, id: &NodeId, version: ObjectVersion, spec: NodeSpec) -> Result<(), ControlError> {
        let request =
            p::UpdateNodeRequest { node_id: id.to_string(), node_version: at(version), spec: Some(spec.to_proto()) };
        match self.ask(&request, calls!(update_node)).await? {
            None => self.local.update_node(id, version, spec).await,
            Some(answer) => self.arrived::<Node>(answer.node).await.map(drop),
        }
    }

    /// The managers' statuses as the leader sees them, since only the leader hears of all; `None` if it is this manager.
    pub(crate) async fn leaders_manager_statuses(
        &self,
    ) -> Result<Option<BTreeMap<NodeId, ManagerStatus>>, ControlError> {
        let roles = vec![p::NodeRole::Manager as i32];
        let filters = p::ListNodesRequestFilters { roles, ..Default::default() };
        let request = p::ListNodesRequest { filters: Some(filters) };
        let Some(answer) = self.ask(&request, calls!(list_nodes)).await? else { return Ok(None) };
        let statuses = answer.nodes.into_iter().map(|node| {
            let node = Node::from_proto(node)?;
            Ok(node.manager_status.map(|status| (node.id, status)))
        });
        let statuses: Result<Vec<_>, ConvertError> = statuses.collect();
        let statuses = statuses.map_err(|error| ControlError::new(Code::Internal, error.to_string()))?;
        Ok(Some(statuses.into_iter().flatten().collect()))
    }

    /// Removes a node that is down or, with force, any worker. Its tasks are orphaned, its certificate is refused from
    /// now on.
    pub async fn remove_node(&self, id: &NodeId, kind: RemoveKind) -> Result<(), ControlError> {
        let request = p::RemoveNodeRequest { node_id: id.to_string(), force: kind == RemoveKind::Force };
        match self.ask(&request, calls!(remove_node)).await? {
            None => self.local.remove_node(id, kind).await,
            Some(_) => {
                self.is_gone::<Node>(id).await;
                Ok(())
            }
        }
    }

    /// Creates a network of the whole swarm.
    pub async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkId, ControlError> {
        let request = p::CreateNetworkRequest { spec: Some(spec.to_proto()) };
        match self.ask(&request, calls!(create_network)).await? {
            None => self.local.create_network(spec).await,
            Some(answer) => self.arrived::<Network>(answer.network).await.map(|network| network.id),
        }
    }

    /// Removes a network that nobody uses.
    pub async fn remove_network(&self, id: &NetworkId) -> Result<(), ControlError> {
        let request = p::RemoveNetworkRequest { network_id: id.to_string(), ..Default::default() };
        match self.ask(&request, calls!(remove_network)).await? {
            None => self.local.remove_network(id).await,
            Some(_) => {
                self.is_gone::<Network>(id).await;
                Ok(())
            }
        }
    }

    /// Replaces the cluster's spec, if `version` is the current one, and rotates what is asked for.
    pub async fn update_cluster(
        &self,
        version: ObjectVersion,
        spec: ClusterSpec,
        rotation: KeyRotation,
    ) -> Result<(), ControlError> {
        let view = self.local.writer().shared().view();
        let cluster_id = view.the_cluster().map(|cluster| cluster.id.to_string()).unwrap_or_default();
        let request = p::UpdateClusterRequest {
            cluster_id,
            cluster_version: at(version),
            spec: Some(spec.to_proto()),
            rotation: Some(p::KeyRotation {
                worker_join_token: rotation.worker_join_token,
                manager_join_token: rotation.manager_join_token,
                manager_unlock_key: rotation.manager_unlock_key,
            }),
        };
        match self.ask(&request, calls!(update_cluster)).await? {
            None => self.local.update_cluster(version, spec, rotation).await,
            Some(answer) => self.arrived::<model::Cluster>(answer.cluster).await.map(drop),
        }
    }

    /// Creates a secret.
    pub async fn create_secret(&self, spec: SecretSpec) -> Result<SecretId, ControlError> {
        let request = p::CreateSecretRequest { spec: Some(spec.to_proto()) };
        match self.ask(&request, calls!(create_secret)).await? {
            None => self.local.create_secret(spec).await,
            Some(answer) => self.arrived::<Secret>(answer.secret).await.map(|secret| secret.id),
        }
    }

    /// Changes a secret's labels.
    pub async fn update_secret(
        &self,
        id: &SecretId,
        version: ObjectVersion,
        spec: SecretSpec,
    ) -> Result<(), ControlError> {
        let request = p::UpdateSecretRequest {
            secret_id: id.to_string(),
            secret_version: at(version),
            spec: Some(spec.to_proto()),
        };
        match self.ask(&request, calls!(update_secret)).await? {
            None => self.local.update_secret(id, version, spec).await,
            Some(answer) => self.arrived::<Secret>(answer.secret).await.map(drop),
        }
    }

    /// Removes a secret that no service uses.
    pub async fn remove_secret(&self, id: &SecretId) -> Result<(), ControlError> {
        let request = p::RemoveSecretRequest { secret_id: id.to_string() };
        match self.ask(&request, calls!(remove_secret)).await? {
            None => self.local.remove_secret(id).await,
            Some(_) => {
                self.is_gone::<Secret>(id).await;
                Ok(())
            }
        }
    }

    /// Creates a config.
    pub async fn create_config(&self, spec: ConfigSpec) -> Result<ConfigId, ControlError> {
        let request = p::CreateConfigRequest { spec: Some(spec.to_proto()) };
        match self.ask(&request, calls!(create_config)).await? {
            None => self.local.create_config(spec).await,
            Some(answer) => self.arrived::<Config>(answer.config).await.map(|config| config.id),
        }
    }

    /// Changes a config's labels.
    pub async fn update_config(
        &self,
        id: &ConfigId,
        version: ObjectVersion,
        spec: ConfigSpec,
    ) -> Result<(), ControlError> {
        let request = p::UpdateConfigRequest {
            config_id: id.to_string(),
            config_version: at(version),
            spec: Some(spec.to_proto()),
        };
        match self.ask(&request, calls!(update_config)).await? {
            None => self.local.update_config(id, version, spec).await,
            Some(answer) => self.arrived::<Config>(answer.config).await.map(drop),
        }
    }

    /// Removes a config that no service uses.
    pub async fn remove_config(&self, id: &ConfigId) -> Result<(), ControlError> {
        let request = p::RemoveConfigRequest { config_id: id.to_string() };
        match self.ask(&request, calls!(remove_config)).await? {
            None => self.local.remove_config(id).await,
            Some(_) => {
                self.is_gone::<Config>(id).await;
                Ok(())
            }
        }
    }
}
