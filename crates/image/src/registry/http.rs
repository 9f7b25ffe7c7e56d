//! One HTTP/1.1 request over its own connection, with limits on time. Errors are told in Go's words, as dockerd does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::endpoint::split_port;

/// How a request failed before an answer came.
#[derive(Clone, Debug)]
pub(crate) enum SendError {
    /// No connection: dial, resolve or TLS.
    Connect(String),
    /// The connection broke or stalled.
    Broken(String),
}

impl SendError {
    pub(super) fn reason(self) -> String {
        match self {
            Self::Connect(reason) | Self::Broken(reason) => reason,
        }
    }
}

/// Limits on time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    pub(super) stall: Duration,
}

/// Where to connect to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// `host[:port]`.
    pub(super) host: String,
    /// TLS settings; plain without.
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
}

/// An answer whose body is still to come. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response<Incoming>,
    stall: Duration,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, SendError> {
        loop {
            let frame = timeout(self.stall, self.response.body_mut().frame()).await;
            match frame {
                Err(_) => return Err(SendError::Broken("net/http: timeout awaiting response body".into())),
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(SendError::Broken("unexpected EOF".into())),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, if it is not larger than `limit`.
    pub(crate) async fn bytes(mut self, limit: u64) -> Result<Vec<u8>, SendError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(SendError::Broken(format!("response is larger than {limit} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// Connects, sends, and waits for the head of the answer.
pub(super) async fn send(
    target: &Target,
    request: Request<Full<Bytes>>,
    timeouts: Timeouts,
) -> Result<Answer, SendError> {
    let connecting = async {
        let stream = dial(target).await?;
        match &target.tls {
            None => handshake(stream).await,
            Some(tls) => {
                let name = split_port(&target.host).0.to_string();
                let name = rustls::pki_types::ServerName::try_from(name)
                    .map_err(|_| SendError::Connect("invalid server name".into()))?;
                let connector = tokio_rustls::TlsConnector::from(tls.clone());
                let stream = connector.connect(name, stream).await.map_err(|error| tls_error(&error))?;
                handshake(stream).await
            }
        }
    };
    let connected = timeout(timeouts.connect, connecting).await;
    let (mut sender, connection) = connected.map_err(|_| SendError::Connect(connect_timeout(&target.host)))??;
    // aborted by whoever drops the answer
    let guard = Abort(Some(connection));
    let response = match timeout(timeouts.stall, sender.send_request(request)).await {
        Err(_) => return Err(SendError::Broken("net/http: timeout awaiting response headers".into())),
        Ok(Err(error)) if error.is_parse() => {
            return Err(SendError::Connect(
                "net/http: HTTP/1.x transport connection broken: malformed HTTP response".into(),
            ));
        }
        Ok(Err(_)) => return Err(SendError::Broken("EOF".into())),
        Ok(Ok(response)) => response,
    };
    Ok(Answer { response, stall: timeouts.stall, connection: guard.release() })
}

struct Abort(Option<JoinHandle<()>>);

impl Abort {
    fn release(mut self) -> JoinHandle<()> {
        self.0.take().expect("released once")
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.abort();
        }
    }
}

type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(Sender, JoinHandle<()>), SendError> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| SendError::Connect("EOF".into()))?;
    let driver = tokio::spawn(async move {
        // its errors come back through the sender and the body
        let _ = connection.await;
    });
    Ok((sender, driver))
}

async fn dial(target: &Target) -> Result<TcpStream, SendError> {
    let (name, port) = split_port(&target.host);
    let port = port.unwrap_or(if target.tls.is_some() { 443 } else { 80 });
    let lookup_failed = |error: io::Error| {
        let text = error.to_string();
        let reason =
            if text.contains("Temporary failure") { "Temporary failure in name resolution" } else { "no such host" };
        SendError::Connect(format!("dial tcp: lookup {name}: {reason}"))
    };
    let addresses = tokio::net::lookup_host((name, port)).await.map_err(lookup_failed)?;
    let mut last = SendError::Connect(format!("dial tcp: lookup {name}: no such host"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => {
                last = SendError::Connect(format!("dial tcp {address}: connect: {}", connect_reason(&error)));
            }
        }
    }
    Err(last)
}

fn connect_timeout(host: &str) -> String {
    format!("dial tcp {host}: i/o timeout")
}

fn connect_reason(error: &io::Error) -> String {
    let text = match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_string(),
        None => error.to_string(),
    };
    text.to_lowercase()
}

fn tls_error(error: &io::Error) -> SendError {
    use rustls::{CertificateError, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    SendError::Connect(match inner {
        Some(Error::InvalidMessage(_)) => "http: server gave HTTP response to HTTPS client".into(),
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".into()
        }
        Some(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid".into()
        }
        Some(Error::InvalidCertificate(reason)) => format!("tls: failed to verify certificate: x509: {reason}"),
        Some(other) => format!("remote error: tls: {other}"),
        None => "EOF".into(),
    })
}
