//! The manager's services for this node's own agent: the same gRPC that remote nodes speak, over a pipe in memory. The
//! manager's routes set the caller, so a request cannot choose it.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server, Uri};

/// Bytes in flight in each direction.
const PIPE_BYTES: usize = 64 * 1024;
/// Connections that may wait to be taken.
const ACCEPT_QUEUE: usize = 8;

/// The way to this node's own manager.
pub(crate) struct LocalPipe {
    accept: mpsc::Sender<DuplexStream>,
}

/// Serves the manager to the node itself until the returned set is dropped.
pub(crate) fn serve(routes: Routes) -> (Arc<LocalPipe>, JoinSet<()>) {
    let (accept, accepted) = mpsc::channel(ACCEPT_QUEUE);
    let incoming = ReceiverStream::new(accepted).map(Ok::<_, std::io::Error>);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut server = Server::builder();
        if let Err(error) = server.add_routes(routes).serve_with_incoming(incoming).await {
            tracing::error!(%error, "the local services ended");
        }
    });
    (Arc::new(LocalPipe { accept }), tasks)
}

impl LocalPipe {
    /// A new connection.
    pub(crate) async fn connect(&self) -> Result<Channel, String> {
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
        endpoint.connect_with_connector(connector).await.map_err(|error| error.to_string())
    }
}
