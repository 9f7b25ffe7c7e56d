//! The dispatcher's gRPC methods.

use std::sync::Arc;

use model::{NodeDescription, TaskStatus};
use swarm_proto::convert::{FromProto, ToProto};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::dispatcher_server::Dispatcher as Service;
use tonic::{Request, Response, Status};

use super::core::SessionFeed;
use super::mailbox::StreamKind;
use super::streams::{self, BoxedStream};
use super::{Dispatcher, StatusUpdate};
use crate::caller::Caller;

/// Metadata of the last heartbeat of a node that leaves in order; managers that do not know it ignore it.
const LEAVE_KEY: &str = "skep-leave";
/// The same of one that was to be a manager and could not become one.
const WITHDRAW_KEY: &str = "skep-withdraw";

/// The dispatcher as a gRPC service.
#[derive(Clone)]
pub struct DispatcherService(pub Arc<Dispatcher>);

#[tonic::async_trait]
impl Service for DispatcherService {
    type SessionStream = BoxedStream<p::SessionMessage>;
    type TasksStream = BoxedStream<p::TasksMessage>;
    type AssignmentsStream = BoxedStream<p::AssignmentsMessage>;

    async fn session(&self, request: Request<p::SessionRequest>) -> Result<Response<Self::SessionStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let description = request.description.map(NodeDescription::from_proto).transpose();
        let description = description.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let (session_id, subscription) = self.0.register(&caller, &request.session_id, description).await?;
        let feed = SessionFeed::new(caller.node_id, session_id);
        Ok(Response::new(streams::session(self.0.clone(), subscription, feed)))
    }

    async fn heartbeat(&self, request: Request<p::HeartbeatRequest>) -> Result<Response<p::HeartbeatResponse>, Status> {
        let caller = Caller::of(&request)?;
        let session_id = &request.get_ref().session_id;
        let period = self.0.beat(&caller, session_id).await?;
        let says = |key| request.metadata().get(key).is_some_and(|value| value == "1");
        if says(WITHDRAW_KEY) {
            self.0.withdraw(&caller.node_id, session_id).await?;
        } else if says(LEAVE_KEY) {
            self.0.leave(&caller.node_id, session_id).await?;
        }
        let period = model::Duration::from(period).to_proto();
        Ok(Response::new(p::HeartbeatResponse { period: Some(period) }))
    }

    async fn update_task_status(
        &self,
        request: Request<p::UpdateTaskStatusRequest>,
    ) -> Result<Response<p::UpdateTaskStatusResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        self.0.sessions().check(&caller.node_id, &request.session_id)?;
        let view = self.0.writer.shared().view();
        let mut updates = Vec::new();
        for update in request.updates {
            let task = model::TaskId::from(update.task_id);
            let owner = view.task(&task).map(|task| task.node_id.clone());
            match owner {
                None => continue,
                Some(owner) if owner.as_ref() != Some(&caller.node_id) => {
                    return Err(Status::permission_denied("cannot update a task not assigned this node"));
                }
                Some(_) => {}
            }
            let Some(status) = update.status else { continue };
            let status = TaskStatus::from_proto(status).map_err(|e| Status::invalid_argument(e.to_string()))?;
            updates.push(StatusUpdate { task, node: caller.node_id.clone(), status });
        }
        for update in updates {
            let sent = self.0.statuses.send(update).await;
            sent.map_err(|_| Status::aborted("dispatcher is stopped"))?;
        }
        Ok(Response::new(p::UpdateTaskStatusResponse {}))
    }

    async fn update_volume_status(
        &self,
        _: Request<p::UpdateVolumeStatusRequest>,
    ) -> Result<Response<p::UpdateVolumeStatusResponse>, Status> {
        // No node of ours announces a CSI plugin, so no volume is ever published to one.
        Err(Status::unimplemented("cluster volumes are not built yet"))
    }

    async fn tasks(&self, request: Request<p::TasksRequest>) -> Result<Response<Self::TasksStream>, Status> {
        let caller = Caller::of(&request)?;
        let subscription = self.0.open(&caller.node_id, &request.get_ref().session_id, StreamKind::Assignments)?;
        Ok(Response::new(streams::tasks(self.0.clone(), subscription)))
    }

    async fn assignments(
        &self,
        request: Request<p::AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        let caller = Caller::of(&request)?;
        let subscription = self.0.open(&caller.node_id, &request.get_ref().session_id, StreamKind::Assignments)?;
        Ok(Response::new(streams::assignments(self.0.clone(), subscription)))
    }
}
