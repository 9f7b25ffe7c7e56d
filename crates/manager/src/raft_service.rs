//! The Raft service: what other managers send to this one's raft. Statuses and texts of its refusals are chosen here.
//!
//! Only managers may call it. Who is one is for the listener to say: the service asks it with each call, through what it
//! is made with.

use std::sync::Arc;
use std::time::Duration;

use consensus::{ChunkError, Handle, ReceiveError, SnapshotAssembler, StepError};
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::raft_server::Raft;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Extensions, Request, Response, Status, Streaming};

/// Snapshots that are put together at a time; a leader sends one to each peer.
const MAX_SNAPSHOTS: usize = 2;
/// Longest time between two parts of a message.
const PART_PATIENCE: Duration = Duration::from_secs(10);

/// What the service needs of raft.
#[tonic::async_trait]
pub trait RaftPort: Send + Sync + 'static {
    /// Takes a message from another manager.
    async fn receive(&self, message: raftpb::Message) -> Result<(), ReceiveError>;
    /// The address of a member.
    fn resolve_address(&self, raft_id: u64) -> Option<String>;
}

#[tonic::async_trait]
impl RaftPort for Handle {
    async fn receive(&self, message: raftpb::Message) -> Result<(), ReceiveError> {
        Self::receive(self, message).await
    }

    fn resolve_address(&self, raft_id: u64) -> Option<String> {
        Self::resolve_address(self, raft_id)
    }
}

/// The Raft service of one manager.
pub struct RaftService<P, A> {
    raft: Arc<P>,
    authorize: A,
    snapshots: Semaphore,
}

impl<P, A> RaftService<P, A>
where
    P: RaftPort,
    A: Fn(&Extensions) -> Result<(), Status> + Send + Sync + 'static,
{
    /// A service in front of `raft`. `authorize` refuses callers that are no managers, by what the listener put into the
    /// request.
    pub fn new(raft: Arc<P>, authorize: A) -> Self {
        Self { raft, authorize, snapshots: Semaphore::new(MAX_SNAPSHOTS) }
    }

    async fn take(&self, message: raftpb::Message) -> Result<(), Status> {
        match self.raft.receive(message).await {
            Ok(()) => Ok(()),
            Err(ReceiveError::Step(error @ StepError::SenderRemoved)) => Err(Status::not_found(error.to_string())),
            Err(ReceiveError::Stopped) => {
                Err(Status::unavailable("raft: failed to process the request: node is stopped"))
            }
            Err(error @ ReceiveError::Busy) => Err(Status::resource_exhausted(error.to_string())),
            // SwarmKit's senders take any other answer for an unreachable peer.
            Err(error @ (ReceiveError::Step(_) | ReceiveError::CandidateUnreachable(_))) => {
                tracing::debug!(%error, "a raft message was dropped");
                Ok(())
            }
        }
    }

    /// Puts the parts of a message together.
    async fn assemble(&self, stream: &mut Streaming<p::StreamRaftMessageRequest>) -> Result<raftpb::Message, Status> {
        let mut parts = SnapshotAssembler::default();
        let mut permit = None;
        loop {
            let part = timeout(PART_PATIENCE, stream.message()).await;
            let part = part.map_err(|_| Status::deadline_exceeded("raft message chunk did not arrive in time"))??;
            let Some(part) = part else { break };
            let part = part.message.ok_or_else(|| Status::invalid_argument("empty raft message"))?;
            if parts.is_started() && permit.is_none() {
                let free = self.snapshots.try_acquire();
                permit = Some(free.map_err(|_| Status::resource_exhausted("too many raft snapshots at a time"))?);
            }
            parts.push(part).map_err(|error| match error {
                ChunkError::TooLarge => Status::resource_exhausted(error.to_string()),
                ChunkError::OtherIndex { .. } | ChunkError::NotASnapshot => Status::invalid_argument(error.to_string()),
            })?;
        }
        parts.finish().ok_or_else(|| Status::invalid_argument("empty raft message"))
    }
}

#[tonic::async_trait]
impl<P, A> Raft for RaftService<P, A>
where
    P: RaftPort,
    A: Fn(&Extensions) -> Result<(), Status> + Send + Sync + 'static,
{
    async fn process_raft_message(
        &self,
        request: Request<p::ProcessRaftMessageRequest>,
    ) -> Result<Response<p::ProcessRaftMessageResponse>, Status> {
        (self.authorize)(request.extensions())?;
        if let Some(message) = request.into_inner().message {
            self.take(message).await?;
        }
        Ok(Response::new(p::ProcessRaftMessageResponse {}))
    }

    async fn stream_raft_message(
        &self,
        request: Request<Streaming<p::StreamRaftMessageRequest>>,
    ) -> Result<Response<p::StreamRaftMessageResponse>, Status> {
        (self.authorize)(request.extensions())?;
        let message = self.assemble(&mut request.into_inner()).await?;
        self.take(message).await?;
        Ok(Response::new(p::StreamRaftMessageResponse {}))
    }

    async fn resolve_address(
        &self,
        request: Request<p::ResolveAddressRequest>,
    ) -> Result<Response<p::ResolveAddressResponse>, Status> {
        (self.authorize)(request.extensions())?;
        let raft_id = request.into_inner().raft_id;
        let addr = self.raft.resolve_address(raft_id);
        let addr = addr.ok_or_else(|| Status::not_found(format!("member {raft_id:x} not found")))?;
        Ok(Response::new(p::ResolveAddressResponse { addr }))
    }
}

#[cfg(test)]
mod tests;
