//! Listeners and connections. One task per connection; on shutdown no connection is accepted, open requests may finish
//! for a while, then the rest is cut.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::events::forward_swarm;
use crate::front::Front;
use crate::hijack::{Peer, Sessions};
use crate::listen::Listener;
use crate::router::router;
use crate::state::{ApiState, Context};

/// How long a client may take to send the head of a request, as in dockerd.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// How long open requests may go on after shutdown was asked for.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after an accept failed for want of resources.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How large the head of a request may be.
pub(crate) const HEAD_BYTES_LIMIT: usize = 1024 * 1024;

/// Serves until `shutdown` completes, then until open requests have ended or the grace is over.
pub async fn serve(listeners: Vec<Listener>, state: ApiState, shutdown: impl Future<Output = ()>) {
    let (version, experimental) = (state.about.engine_version.clone(), state.about.experimental);
    let sessions = Sessions::default();
    let Sessions { tracker: connections, ending: stop, cut } = sessions.clone();
    let context = Arc::new(Context::new(state, sessions));
    let acceptors = TaskTracker::new();
    acceptors.spawn(forward_swarm(context.clone(), stop.clone()));
    let front = Front::new(router(context), &version, experimental);
    for listener in listeners {
        let worker =
            Connections { front: front.clone(), stop: stop.clone(), cut: cut.clone(), tracker: connections.clone() };
        acceptors.spawn(worker.accept(listener));
    }
    shutdown.await;
    stop.cancel();
    acceptors.close();
    acceptors.wait().await;
    connections.close();
    if timeout(SHUTDOWN_GRACE, connections.wait()).await.is_err() {
        cut.cancel();
        connections.wait().await;
    }
}

/// What a connection needs.
#[derive(Clone)]
struct Connections {
    front: Front,
    stop: CancellationToken,
    cut: CancellationToken,
    tracker: TaskTracker,
}

impl Connections {
    async fn accept(self, listener: Listener) {
        loop {
            // Both arms are cancel-safe: accepting loses no connection, a token stays cancelled.
            let accepted = tokio::select! {
                accepted = accept_one(&listener) => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok(stream) => self.spawn(stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, stream: Accepted) {
        let this = self.clone();
        self.tracker.spawn(async move {
            match stream {
                Accepted::Unix(stream) => {
                    let peer = stream.as_fd().try_clone_to_owned().ok().map(|fd| Peer(Arc::new(fd)));
                    this.serve(stream, peer).await;
                }
                Accepted::Tcp(stream) => this.serve(stream, None).await,
                Accepted::Tls(handshake) => match timeout(HANDSHAKE_TIMEOUT, handshake).await {
                    Ok(Ok(stream)) => this.serve(stream, None).await,
                    Ok(Err(error)) => tracing::info!(%error, "TLS handshake failed"),
                    Err(_) => tracing::info!("TLS handshake took too long"),
                },
            }
        });
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Option<Peer>) {
        let front = self.front;
        let service = service_fn(move |mut request: Request<Incoming>| {
            let front = front.clone();
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            async move { Ok::<_, std::convert::Infallible>(front.answer(request.map(Body::new)).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_LIMIT)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let mut stopping = false;
        loop {
            // Cancel-safe: the connection is polled by reference, tokens stay cancelled.
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.cut.cancelled() => return,
            }
        }
    }
}

enum Accepted {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
    Tls(Box<tokio_rustls::Accept<tokio::net::TcpStream>>),
}

async fn accept_one(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        Listener::Tcp(listener) => Ok(Accepted::Tcp(without_delay(listener.accept().await?.0))),
        Listener::Tls(listener, acceptor) => {
            Ok(Accepted::Tls(Box::new(acceptor.accept(without_delay(listener.accept().await?.0)))))
        }
    }
}

fn without_delay(stream: tokio::net::TcpStream) -> tokio::net::TcpStream {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    stream
}
