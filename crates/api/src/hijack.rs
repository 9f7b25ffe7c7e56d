//! Taking a connection over: attach and exec speak raw bytes both ways after the answer's head.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Both ways of a connection that was taken over.
pub(crate) type Stream = TokioIo<Upgraded>;

/// Owns the tasks that serve connections taken over: they end with the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) tracker: TaskTracker,
    /// The server takes no more requests; streams without an end of their own are over.
    pub(crate) ending: CancellationToken,
    /// What is open still is dropped.
    pub(crate) cut: CancellationToken,
}

/// The socket of a request's connection, if it is a unix socket: there a client that is gone can be told from one that has
/// merely nothing more to say.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub(crate) Arc<OwnedFd>);

impl Peer {
    /// Completes when the client has closed its connection both ways.
    async fn hung_up(self) {
        let watch = self.0.try_clone().map(std::os::unix::net::UnixStream::from).and_then(UnixStream::from_std);
        let Ok(watch) = watch else { return std::future::pending().await };
        loop {
            match watch.ready(Interest::WRITABLE).await {
                Ok(ready) if ready.is_write_closed() => return,
                // That it would block is how tokio is told to wait for the next change.
                Ok(_) => drop(watch.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()))),
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

/// A connection that will be taken over.
pub(crate) struct Takeover {
    upgrade: OnUpgrade,
    peer: Option<Peer>,
}

/// Whether the client asks for the connection, as all of Docker's clients do.
fn asks(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"tcp"))
}

impl Takeover {
    /// `None` if the client did not ask: it can only be sent output.
    pub(crate) fn of(request: &mut Request<Body>) -> Option<Self> {
        let peer = request.extensions().get::<Peer>().cloned();
        asks(request.headers()).then(|| Self { upgrade: hyper::upgrade::on(request), peer })
    }

    /// Sends the head; `serve` gets the connection when it is free.
    pub(crate) fn answer<F>(
        self,
        sessions: &Sessions,
        content_type: &'static str,
        serve: impl FnOnce(Stream) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ending = sessions.ending.clone();
        sessions.tracker.spawn(async move {
            let session = async {
                match self.upgrade.await {
                    Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
                    Err(error) => tracing::debug!(%error, "a client left before its connection was taken over"),
                }
            };
            let gone = async {
                match self.peer {
                    Some(peer) => peer.hung_up().await,
                    None => std::future::pending().await,
                }
            };
            // Cutting a session short is what the two are for.
            tokio::select! {
                () = session => {}
                () = gone => {}
                () = ending.cancelled() => {}
            }
        });
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("tcp")),
        ];
        let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
        response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
        response
    }
}
