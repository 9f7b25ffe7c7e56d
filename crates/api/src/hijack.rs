//! Taking a connection over: attach and exec speak raw bytes both ways after the answer's head.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
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

/// A connection that will be taken over.
pub(crate) struct Takeover(OnUpgrade);

/// Whether the client asks for the connection, as all of Docker's clients do.
fn asks(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"tcp"))
}

impl Takeover {
    /// `None` if the client did not ask: it can only be sent output.
    pub(crate) fn of(request: &mut Request<Body>) -> Option<Self> {
        asks(request.headers()).then(|| Self(hyper::upgrade::on(request)))
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
                match self.0.await {
                    Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
                    Err(error) => tracing::debug!(%error, "a client left before its connection was taken over"),
                }
            };
            // Cutting a session short is what the token is for.
            tokio::select! {
                () = session => {}
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
