//! The gRPC service `Health`: whether this manager takes part in the raft group. Others ask before they take it as a
//! member, before they vote for it, and before they send it a call again.

use consensus::Status as RaftStatus;
use swarm_proto::swarmkit as p;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// The service that stands for the raft group.
const RAFT: &str = "Raft";
/// The service that stands for the manager as a whole.
const MANAGER: &str = "";

/// Answers from raft's status.
#[derive(Clone)]
pub(crate) struct HealthService {
    pub(crate) status: watch::Receiver<RaftStatus>,
}

#[tonic::async_trait]
impl p::health_server::Health for HealthService {
    async fn check(&self, request: Request<p::HealthCheckRequest>) -> Result<Response<p::HealthCheckResponse>, Status> {
        let serving = match request.into_inner().service.as_str() {
            MANAGER => true,
            RAFT => takes_part(&self.status.borrow()),
            _ => return Err(Status::not_found("unknown service")),
        };
        let status = if serving { p::ServingStatus::Serving } else { p::ServingStatus::NotServing };
        Ok(Response::new(p::HealthCheckResponse { status: status as i32 }))
    }
}

fn takes_part(status: &RaftStatus) -> bool {
    status.failed.is_none() && !status.removed_from_group
}
