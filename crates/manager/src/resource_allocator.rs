//! Attachable networks for plain containers: a node asks for an attachment, which is a task of its own that only the
//! allocator and the node's agent look at.

use std::sync::Arc;

use model::{
    Network, NetworkAttachmentConfig, NetworkAttachmentSpec, NodeId, Task, TaskId, TaskRuntime, TaskSpec, TaskState,
    TaskStatus,
};
use store::View;
use swarm_proto::convert::FromProto;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::resource_allocator_server::ResourceAllocator as Service;
use tonic::{Code, Request, Response, Status};

use crate::caller::Caller;
use crate::error::ControlError;
use crate::writer::{Writer, now};

/// The resource allocator as a gRPC service.
#[derive(Clone)]
pub(crate) struct ResourceAllocatorService {
    writer: Arc<Writer>,
}

impl ResourceAllocatorService {
    /// On a manager that leads.
    pub(crate) fn new(writer: Arc<Writer>) -> Self {
        Self { writer }
    }

    async fn attach(
        &self,
        node: NodeId,
        config: NetworkAttachmentConfig,
        container_id: String,
    ) -> Result<TaskId, ControlError> {
        let id = TaskId::from(identity::random_id());
        let written = self.writer.write(|transaction| {
            let network = find(transaction, &config.target)?;
            if !network.spec.attachable {
                let text = format!("network {} not manually attachable", config.target);
                return Err(ControlError::new(Code::PermissionDenied, text));
            }
            let target = network.id.to_string();
            let attachment = NetworkAttachmentConfig { target, addresses: config.addresses, ..Default::default() };
            let spec = TaskSpec {
                runtime: Some(TaskRuntime::Attachment(NetworkAttachmentSpec { container_id })),
                networks: vec![attachment],
                ..Default::default()
            };
            let status = TaskStatus {
                state: TaskState::New,
                timestamp: Some(now()),
                message: "created".to_owned(),
                ..Default::default()
            };
            let task = Task {
                id: id.clone(),
                node_id: Some(node),
                spec: Arc::new(spec),
                desired_state: TaskState::Running,
                status,
                ..Default::default()
            };
            transaction.create(task).map_err(ControlError::from)
        });
        written.await.map(|()| id)
    }

    async fn detach(&self, node: &NodeId, id: &TaskId) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let task = transaction.task(id).ok_or_else(|| ControlError::not_found("attachment", id))?;
            let is_attachment = matches!(task.spec.runtime, Some(TaskRuntime::Attachment(_)));
            // A node may take back what it asked for, and no task of a service.
            if task.node_id.as_ref() != Some(node) || !is_attachment {
                let text = format!("attachment {id} doesn't belong to this node");
                return Err(ControlError::new(Code::PermissionDenied, text));
            }
            transaction.remove::<Task>(id).map_err(ControlError::from)
        });
        written.await
    }
}

fn find<'a>(view: &'a View, target: &str) -> Result<&'a Arc<Network>, ControlError> {
    let network = view.get_str::<Network>(target).or_else(|| view.by_name::<Network>(target));
    network.ok_or_else(|| ControlError::not_found("network", target))
}

#[tonic::async_trait]
impl Service for ResourceAllocatorService {
    async fn attach_network(
        &self,
        request: Request<p::AttachNetworkRequest>,
    ) -> Result<Response<p::AttachNetworkResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| Status::invalid_argument("invalid argument"))?;
        let config = NetworkAttachmentConfig::from_proto(config);
        let config = config.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let id = self.attach(caller.node_id, config, request.container_id).await?;
        Ok(Response::new(p::AttachNetworkResponse { attachment_id: id.to_string() }))
    }

    async fn detach_network(
        &self,
        request: Request<p::DetachNetworkRequest>,
    ) -> Result<Response<p::DetachNetworkResponse>, Status> {
        let caller = Caller::of(&request)?;
        let id = request.into_inner().attachment_id;
        if id.is_empty() {
            return Err(Status::invalid_argument("invalid argument"));
        }
        self.detach(&caller.node_id, &id.into()).await?;
        Ok(Response::new(p::DetachNetworkResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{assigned_task, cluster, create, leading_writer};

    fn network(id: &str, attachable: bool) -> Network {
        let mut network = Network { id: id.into(), ..Default::default() };
        network.spec.annotations.name = format!("name-{id}");
        network.spec.attachable = attachable;
        network
    }

    #[tokio::test]
    async fn attachments_come_and_go() {
        let writer = leading_writer().await;
        let other = assigned_task("service-task", &"n".into());
        let objects = vec![cluster().into(), network("a", true).into(), network("b", false).into(), other.into()];
        create(&writer, objects).await;
        let service = ResourceAllocatorService::new(writer.clone());
        let attach = |target: &str| {
            let config = NetworkAttachmentConfig { target: target.into(), ..Default::default() };
            service.attach("n".into(), config, "container".into())
        };
        let refused = attach("name-b").await.unwrap_err();
        assert_eq!(
            (refused.code, refused.desc.as_str()),
            (Code::PermissionDenied, "network name-b not manually attachable")
        );
        assert_eq!(attach("c").await.unwrap_err().desc, "network c not found");
        let id = attach("name-a").await.unwrap();
        let task = writer.shared().view().task(&id).unwrap().clone();
        assert_eq!((task.spec.networks[0].target.as_str(), task.desired_state), ("a", TaskState::Running));
        let foreign = service.detach(&"m".into(), &id).await.unwrap_err();
        assert_eq!(foreign.desc, format!("attachment {id} doesn't belong to this node"));
        let of_service = service.detach(&"n".into(), &"service-task".into()).await.unwrap_err();
        assert_eq!(of_service.code, Code::PermissionDenied);
        service.detach(&"n".into(), &id).await.unwrap();
        assert!(writer.shared().view().task(&id).is_none());
        assert_eq!(service.detach(&"n".into(), &id).await.unwrap_err().code, Code::NotFound);
    }
}
