//! Port 2377 of a manager: TLS connections of other nodes, served by whatever routes count at the moment. Open only while
//! this node is a manager; dropping it closes the port and cuts every connection, so that nobody goes on talking to a
//! manager that is none.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt};
use identity::{Credentials, ListenLimits, PeerInfo, PeerListener, PeerStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tower::Service;

/// Calls at a time on one connection: a follower forwards the calls of all its workers over one. What one worker may have
/// under way, on whatever connections, is bounded by the manager's gate.
const MAX_STREAMS: u32 = 1 << 16;

/// The open port.
pub(crate) struct RemoteListener {
    routes: Switch,
    _tasks: JoinSet<()>,
    _cut: DropGuard,
}

impl RemoteListener {
    /// Opens the port. Calls are answered `Unavailable` until there are routes.
    pub(crate) async fn open(addr: &str, credentials: &Credentials) -> io::Result<Self> {
        let listener = PeerListener::start(TcpListener::bind(addr).await?, credentials, ListenLimits::default())?;
        let cut = CancellationToken::new();
        let routes = Switch::default();
        let guarded = cut.clone();
        let incoming = listener.map(move |stream| stream.map(|stream| Guarded::new(stream, guarded.clone())));
        let router = axum::Router::new().fallback_service(routes.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut server = Server::builder().max_concurrent_streams(MAX_STREAMS);
            if let Err(error) = server.add_routes(Routes::from(router)).serve_with_incoming(incoming).await {
                tracing::error!(%error, "the swarm's listener ended");
            }
        });
        Ok(Self { routes, _tasks: tasks, _cut: cut.drop_guard() })
    }

    /// Has calls answered by these routes from now on, on open connections too.
    pub(crate) fn set_routes(&self, routes: Routes) {
        *self.routes.0.write().unwrap_or_else(PoisonError::into_inner) = Some(routes);
    }
}

/// The routes that count.
#[derive(Clone, Default)]
struct Switch(Arc<RwLock<Option<Routes>>>);

impl Service<http::Request<axum::body::Body>> for Switch {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<axum::body::Body>) -> Self::Future {
        let routes = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        async move {
            match routes {
                Some(routes) => tower::ServiceExt::oneshot(routes, request).await,
                None => Ok(tonic::Status::unavailable("the manager is starting").into_http()),
            }
        }
        .boxed()
    }
}

/// A connection that ends with its listener.
struct Guarded {
    stream: PeerStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Guarded {
    fn new(stream: PeerStream, cut: CancellationToken) -> Self {
        Self { stream, cut: Box::pin(cut.cancelled_owned()) }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for Guarded {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
