//! The dispatcher's gRPC methods.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use model::{EncryptionKey, Node, NodeDescription, NodeId, NodeState, TaskStatus};
use store::View;
use swarm_proto::convert::{FromProto, ToProto};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::dispatcher_server::Dispatcher as Service;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::assignments::AssignmentSet;
use super::{Dispatcher, ManagerIdentity, StatusUpdate};
use crate::caller::Caller;
use crate::error::ControlError;
use crate::shared::{Next, Watch};

/// Messages that wait for a node's connection.
const STREAM_QUEUE: usize = 8;
/// Weight of a manager in the list that nodes get; SwarmKit's.
const MANAGER_WEIGHT: i64 = 10;

type BoxedStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The dispatcher as a gRPC service.
#[derive(Clone)]
pub struct DispatcherService(pub Arc<Dispatcher>);

#[tonic::async_trait]
impl Service for DispatcherService {
    type SessionStream = BoxedStream<p::SessionMessage>;
    type AssignmentsStream = BoxedStream<p::AssignmentsMessage>;

    async fn session(&self, request: Request<p::SessionRequest>) -> Result<Response<Self::SessionStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let dispatcher = &self.0;
        let watch = dispatcher.writer.shared().watch();
        if !dispatcher.writer.is_leading() {
            return Err(Status::aborted("dispatcher is stopped"));
        }
        dispatcher.mark_ready(&caller, request.description).await?;
        let new_id = identity::random_id();
        let (session_id, alive) =
            dispatcher.nodes.register(&caller.node_id, &request.session_id, new_id, &watch.view)?;
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        let feed = SessionFeed { node: caller.node_id, session_id, manager: dispatcher.manager.clone(), sent: None };
        tokio::spawn(feed.run(watch, alive, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn heartbeat(&self, request: Request<p::HeartbeatRequest>) -> Result<Response<p::HeartbeatResponse>, Status> {
        let caller = Caller::of(&request)?;
        let view = self.0.writer.shared().view();
        let period = self.0.nodes.beat(&caller.node_id, &request.get_ref().session_id, &view)?;
        let period = model::Duration::from(period).to_proto();
        Ok(Response::new(p::HeartbeatResponse { period: Some(period) }))
    }

    async fn update_task_status(
        &self,
        request: Request<p::UpdateTaskStatusRequest>,
    ) -> Result<Response<p::UpdateTaskStatusResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        self.0.nodes.session(&caller.node_id, &request.session_id)?;
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

    async fn assignments(
        &self,
        request: Request<p::AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        let caller = Caller::of(&request)?;
        let alive = self.0.nodes.session(&caller.node_id, &request.get_ref().session_id)?;
        let watch = self.0.writer.shared().watch();
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        tokio::spawn(feed_assignments(caller.node_id, watch, alive, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Dispatcher {
    /// Stores what the node says of itself and that it is ready.
    async fn mark_ready(&self, caller: &Caller, description: Option<p::NodeDescription>) -> Result<(), Status> {
        let description = description.map(NodeDescription::from_proto).transpose();
        let description = description.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let address = caller.address.clone().unwrap_or_else(|| host_of(&self.manager.advertise_addr));
        let written = self.writer.write(|transaction| {
            let node = transaction.node(&caller.node_id);
            let node = node.ok_or_else(|| ControlError::new(tonic::Code::Unknown, "node not found"))?;
            let mut ready = Node::clone(node);
            ready.description = description.or(ready.description);
            ready.status.state = NodeState::Ready;
            ready.status.message = String::new();
            ready.status.addr = address;
            if ready == **node { Ok(()) } else { transaction.update(ready).map_err(ControlError::from) }
        });
        written.await.map_err(Status::from)
    }
}

fn host_of(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']']).to_owned()
}

/// What of a session message may change.
#[derive(Clone, PartialEq)]
struct Told {
    node: Arc<Node>,
    managers: Vec<(String, String)>,
    keys: Vec<EncryptionKey>,
    root_ca: Vec<u8>,
}

struct SessionFeed {
    node: NodeId,
    session_id: String,
    manager: ManagerIdentity,
    sent: Option<Told>,
}

impl SessionFeed {
    /// Sends the first message and one after every commit that changes a part of it.
    async fn run(
        mut self,
        mut watch: Watch,
        mut alive: watch::Receiver<()>,
        out: mpsc::Sender<Result<p::SessionMessage, Status>>,
    ) {
        loop {
            if let Some(message) = self.message(&watch.view)
                && out.send(Ok(message)).await.is_err()
            {
                return;
            }
            tokio::select! {
                // A broadcast receiver keeps its place.
                next = watch.next() => if next.is_none() { break },
                // The value never changes; the error says that the session is over.
                _ = alive.changed() => break,
                // Tells that the node hung up.
                () = out.closed() => return,
            }
        }
        let over = out.send(Err(Status::aborted("node must disconnect"))).await;
        if over.is_err() {
            tracing::debug!(node = %self.node, "the node was gone before it was told to disconnect");
        }
    }

    fn message(&mut self, view: &View) -> Option<p::SessionMessage> {
        let cluster = view.the_cluster()?;
        let told = Told {
            node: view.node(&self.node)?.clone(),
            managers: vec![(self.manager.node_id.to_string(), self.manager.advertise_addr.clone())],
            keys: cluster.network_bootstrap_keys.clone(),
            root_ca: cluster.root_ca.ca_cert.clone(),
        };
        if self.sent.as_ref() == Some(&told) {
            return None;
        }
        let peers = told.managers.iter().map(|(node_id, addr)| p::WeightedPeer {
            peer: Some(p::Peer { node_id: node_id.clone(), addr: addr.clone() }),
            weight: MANAGER_WEIGHT,
        });
        let message = p::SessionMessage {
            session_id: self.session_id.clone(),
            node: Some(told.node.to_proto()),
            managers: peers.collect(),
            network_bootstrap_keys: told.keys.iter().map(ToProto::to_proto).collect(),
            root_ca: told.root_ca.clone(),
        };
        self.sent = Some(told);
        Some(message)
    }
}

async fn feed_assignments(
    node: NodeId,
    mut watch: Watch,
    mut alive: watch::Receiver<()>,
    out: mpsc::Sender<Result<p::AssignmentsMessage, Status>>,
) {
    let mut set = AssignmentSet::new(node);
    let mut sequence = 1u64;
    let first = p::AssignmentsMessage {
        kind: p::AssignmentsType::Complete as i32,
        applies_to: String::new(),
        results_in: sequence.to_string(),
        changes: set.complete(&watch.view),
    };
    let mut message = Some(first);
    loop {
        if let Some(message) = message.take()
            && out.send(Ok(message)).await.is_err()
        {
            return;
        }
        let commit = tokio::select! {
            // A broadcast receiver keeps its place.
            next = watch.next() => match next {
                Some(Next::Commit(commit)) => commit,
                // Numbering must not start anew on a live session, so the stream ends and the node opens a session.
                Some(Next::Anew) | None => break,
            },
            // The value never changes; the error says that the session is over.
            _ = alive.changed() => break,
            // Tells that the node hung up.
            () = out.closed() => return,
        };
        let changes = set.incremental(&commit.view, &commit.events);
        if !changes.is_empty() {
            message = Some(p::AssignmentsMessage {
                kind: p::AssignmentsType::Incremental as i32,
                applies_to: sequence.to_string(),
                results_in: (sequence + 1).to_string(),
                changes,
            });
            sequence += 1;
        }
    }
    if out.send(Err(Status::aborted("assignments must be opened anew"))).await.is_err() {
        tracing::debug!("the node was gone before its assignments ended");
    }
}
