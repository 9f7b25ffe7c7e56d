//! The manager's services for this node's own agent: the same gRPC that remote nodes speak, over a pipe in memory. The
//! caller's identity is set by the server, so a request cannot choose it.

use std::sync::Arc;
use std::time::Duration;

use agent::{Connect, Connection, ManagerAddress, Outcome};
use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use manager::{Caller, DispatcherService, LogBrokerService, Manager};
use model::NodeId;
use swarm_proto::swarmkit::dispatcher_server::DispatcherServer;
use swarm_proto::swarmkit::log_broker_server::LogBrokerServer;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Status};

/// Bytes in flight in each direction.
const PIPE_BYTES: usize = 64 * 1024;
/// Connections that may wait to be taken.
const ACCEPT_QUEUE: usize = 8;
/// How long one call of `connect` waits for the manager to lead.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest message: a full set of assignments.
const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;

/// The way to this node's own manager.
pub(crate) struct LocalConnect {
    ready: watch::Receiver<bool>,
    accept: mpsc::Sender<DuplexStream>,
}

/// Serves the manager to the node itself until the returned set is dropped.
pub(crate) fn serve(manager: &Manager, node_id: NodeId) -> (Arc<LocalConnect>, JoinSet<()>) {
    let (accept, accepted) = mpsc::channel(ACCEPT_QUEUE);
    let caller = Caller { node_id, address: None };
    let identify = move |mut request: Request<()>| -> Result<Request<()>, Status> {
        request.extensions_mut().insert(caller.clone());
        Ok(request)
    };
    let dispatcher = DispatcherServer::new(DispatcherService(manager.dispatcher().clone()));
    let dispatcher = dispatcher.max_decoding_message_size(MAX_MESSAGE_BYTES);
    let logs = LogBrokerServer::new(LogBrokerService(manager.log_broker().clone()));
    let server = Server::builder()
        .add_service(InterceptedService::new(dispatcher, identify.clone()))
        .add_service(InterceptedService::new(logs, identify));
    let incoming = ReceiverStream::new(accepted).map(Ok::<_, std::io::Error>);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        if let Err(error) = server.serve_with_incoming(incoming).await {
            tracing::error!(%error, "the local services ended");
        }
    });
    (Arc::new(LocalConnect { ready: manager.ready(), accept }), tasks)
}

#[async_trait]
impl Connect for LocalConnect {
    async fn connect(&self) -> Result<Connection, String> {
        let mut ready = self.ready.clone();
        match tokio::time::timeout(READY_TIMEOUT, ready.wait_for(|ready| *ready)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err("the manager stopped".to_owned()),
            Err(_) => return Err("the manager does not lead".to_owned()),
        }
        let accept = self.accept.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let accept = accept.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                let gone = |_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                accept.send(theirs).await.map_err(gone)?;
                Ok::<_, std::io::Error>(TokioIo::new(ours))
            }
        });
        let endpoint = Endpoint::from_static("http://manager.local");
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| error.to_string())?;
        Ok(Connection { channel, manager: ManagerAddress::Local })
    }

    fn observe(&self, _: &ManagerAddress, _: Outcome) {}
}
