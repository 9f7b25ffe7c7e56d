//! The port of `--metrics-addr`: `GET /metrics` in Prometheus' text, nothing else. Address, texts of errors and answers are
//! dockerd's; what is told comes from a [`MetricsSource`], asked anew for each request.
//!
//! Whoever reaches the port may ask, so that places and times are bounded: a connection too many is closed at once.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::serve::{ACCEPT_PAUSE, HEAD_BYTES_LIMIT, HEAD_TIMEOUT, SHUTDOWN_GRACE};

/// Connections that are served at once.
pub const METRICS_CONNECTIONS_MAX: usize = 64;
/// Prometheus' text format as dockerd writes it.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Who knows the metrics.
#[async_trait]
pub trait MetricsSource: Send + Sync + 'static {
    /// All metrics as they are now, in Prometheus' text format 0.0.4.
    async fn text(&self) -> String;
}

/// Why metrics cannot be served at an address.
#[derive(Debug, Error)]
pub enum MetricsAddrError {
    /// It is no address with a port.
    #[error("error parsing tcp address: {0}")]
    Parse(String),
    /// Its name is unknown.
    #[error("failed to lookup {0} address in host specification")]
    Lookup(String),
    /// The system refused.
    #[error("listen tcp{0}")]
    Listen(String),
}

/// `host:port`, as Go's `net.SplitHostPort` takes it.
fn split_host_port(address: &str) -> Result<(&str, &str), MetricsAddrError> {
    let wrong = |why: &str| Err(MetricsAddrError::Parse(format!("address {address}: {why}")));
    let Some((before, port)) = address.rsplit_once(':') else { return wrong("missing port in address") };
    let Some(rest) = address.strip_prefix('[') else {
        return match before {
            _ if before.contains(':') => wrong("too many colons in address"),
            _ if address.contains('[') => wrong("unexpected '[' in address"),
            _ if address.contains(']') => wrong("unexpected ']' in address"),
            _ => Ok((before, port)),
        };
    };
    let Some((host, after)) = rest.split_once(']') else { return wrong("missing ']' in address") };
    match after.strip_prefix(':') {
        None => wrong("missing port in address"),
        Some(port) if port.contains(':') => wrong("too many colons in address"),
        Some(_) if host.contains('[') || after.contains('[') => wrong("unexpected '[' in address"),
        Some(_) if after.contains(']') => wrong("unexpected ']' in address"),
        Some(port) => Ok((host, port)),
    }
}

/// Go's text of an error of the system.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// A port that serves metrics.
#[derive(Debug)]
pub struct MetricsListener(TcpListener);

impl MetricsListener {
    /// Listens at the value of `--metrics-addr`. A host must be named, as dockerd wants it.
    pub async fn bind(address: &str) -> Result<Self, MetricsAddrError> {
        let (host, port) = split_host_port(address)?;
        let number: i64 = port
            .parse()
            .map_err(|_| MetricsAddrError::Parse(format!("strconv.Atoi: parsing {port:?}: invalid syntax")))?;
        if host.is_empty() {
            return Err(MetricsAddrError::Lookup(host.to_owned()));
        }
        let invalid = |_| MetricsAddrError::Listen(format!(": address {port}: invalid port"));
        let number = u16::try_from(number).map_err(invalid)?;
        let found = lookup_host((host, number)).await.map_err(|_| MetricsAddrError::Lookup(host.to_owned()))?;
        let found: Vec<SocketAddr> = found.collect();
        // Go listens at the first IPv4 address of a name, or else at the first.
        let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
        let first = *first.ok_or_else(|| MetricsAddrError::Lookup(host.to_owned()))?;
        let listener = TcpListener::bind(first).await;
        let listener =
            listener.map_err(|error| MetricsAddrError::Listen(format!(" {first}: bind: {}", reason(&error))))?;
        Ok(Self(listener))
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until `stop`, then until open requests have ended or had their grace.
    pub async fn serve(self, source: Arc<dyn MetricsSource>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX));
        let (connections, cut) = (TaskTracker::new(), CancellationToken::new());
        loop {
            // Both arms are cancel-safe: accepting loses no connection, a token stays cancelled.
            let accepted = tokio::select! {
                accepted = self.0.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let Ok(place) = places.clone().try_acquire_owned() else { continue };
                    let (source, stop, cut) = (source.clone(), stop.clone(), cut.clone());
                    connections.spawn(async move {
                        serve_connection(stream, source, stop, cut).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        connections.close();
        if timeout(SHUTDOWN_GRACE, connections.wait()).await.is_err() {
            cut.cancel();
            connections.wait().await;
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    source: Arc<dyn MetricsSource>,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let source = source.clone();
        async move { Ok::<_, Infallible>(answer(request.uri().path(), &*source).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut stopping = false;
    loop {
        // Cancel-safe: the connection is polled by reference, tokens stay cancelled.
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection for metrics ended");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = cut.cancelled() => return,
        }
    }
}

/// Any method asks, as with dockerd.
async fn answer(path: &str, source: &dyn MetricsSource) -> Response {
    let content_type = |value| [(header::CONTENT_TYPE, HeaderValue::from_static(value))];
    if path == "/metrics" {
        return (content_type(TEXT_FORMAT), Body::from(source.text().await)).into_response();
    }
    let nosniff = [(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))];
    let plain = content_type("text/plain; charset=utf-8");
    (StatusCode::NOT_FOUND, plain, nosniff, "404 page not found\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn addresses_are_read_as_go_reads_them() {
        let check = |address: &str, expected: Result<(&str, &str), &str>| match (split_host_port(address), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{address}"),
            (Err(error), Err(why)) => {
                assert_eq!(error.to_string(), format!("error parsing tcp address: address {address}: {why}"));
            }
            (found, expected) => panic!("{address}: {found:?}, not {expected:?}"),
        };
        check("127.0.0.1:9323", Ok(("127.0.0.1", "9323")));
        check("[::1]:9323", Ok(("::1", "9323")));
        check("localhost:x", Ok(("localhost", "x")));
        check("127.0.0.1", Err("missing port in address"));
        check("[::1]", Err("missing port in address"));
        check("::1:9323", Err("too many colons in address"));
        check("[::1:9323", Err("missing ']' in address"));
        check("[::1]:1:2", Err("too many colons in address"));
        check("a]:1", Err("unexpected ']' in address"));
        check("a[:1", Err("unexpected '[' in address"));
        check("[a[]:1", Err("unexpected '[' in address"));
        check("[a]:1]", Err("unexpected ']' in address"));
    }

    #[tokio::test]
    async fn what_cannot_be_listened_at_is_said_as_dockerd_does() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        for (address, text) in [
            (address.as_str(), format!("listen tcp {address}: bind: address already in use").as_str()),
            (":9323", "failed to lookup  address in host specification"),
            ("no-such-host.invalid:1", "failed to lookup no-such-host.invalid address in host specification"),
            ("127.0.0.1:a", "error parsing tcp address: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("127.0.0.1:70000", "listen tcp: address 70000: invalid port"),
            ("192.0.2.1:1", "listen tcp 192.0.2.1:1: bind: cannot assign requested address"),
        ] {
            assert_eq!(MetricsListener::bind(address).await.unwrap_err().to_string(), text);
        }
    }

    struct Constant;

    #[async_trait]
    impl MetricsSource for Constant {
        async fn text(&self) -> String {
            "one 1\n".to_owned()
        }
    }

    struct Served {
        address: SocketAddr,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    async fn served() -> Served {
        let listener = MetricsListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.address().unwrap(), CancellationToken::new());
        let task = tokio::spawn(listener.serve(Arc::new(Constant), stop.clone()));
        Served { address, stop, task }
    }

    async fn ask(address: SocketAddr, line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn one_path_is_served_and_no_other() {
        let served = served().await;
        let text = ask(served.address, "GET /metrics").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\none 1\n"), "{text}");
        assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{text}");
        let head = ask(served.address, "HEAD /metrics").await;
        assert!(head.contains("content-length: 6\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for path in ["/", "/metrics/", "/v1.51/info"] {
            let text = ask(served.address, &format!("GET {path}")).await;
            assert!(text.starts_with("HTTP/1.1 404 ") && text.ends_with("404 page not found\n"), "{text}");
        }
        served.stop.cancel();
        served.task.await.unwrap();
        assert!(TcpStream::connect(served.address).await.is_err(), "the port is closed");
    }

    #[tokio::test]
    async fn a_connection_too_many_is_closed_and_a_free_place_is_used_again() {
        let served = served().await;
        let mut held = Vec::new();
        for _ in 0..METRICS_CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            // An answer shows that it has its place.
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            assert_ne!(stream.read(&mut [0; 512]).await.unwrap(), 0);
            held.push(stream);
        }
        let mut late = TcpStream::connect(served.address).await.unwrap();
        // Closed without a word, or with what it never read.
        assert_eq!(late.read(&mut [0; 16]).await.unwrap_or(0), 0);
        held.pop();
        while !try_ask(served.address).await {
            tokio::task::yield_now().await;
        }
        served.stop.cancel();
        served.task.await.unwrap();
    }

    async fn try_ask(address: SocketAddr) -> bool {
        let Ok(mut stream) = TcpStream::connect(address).await else { return false };
        let sent = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let mut text = String::new();
        sent.is_ok() && stream.read_to_string(&mut text).await.is_ok() && text.ends_with("one 1\n")
    }
}
