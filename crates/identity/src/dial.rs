//! Calls a manager: TCP, TLS, HTTP/2, as a tonic channel. A channel dials again by itself when its connection is lost,
//! with the credentials that count then.
//!
//! A dead peer is found by TCP (keep-alive, and a bound on unacknowledged data), not by HTTP/2 pings: gRPC servers
//! written in Go cut off a client that pings more often than every five minutes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::tls::{Credentials, ServerRole};

/// How long TCP and TLS may take together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle time before TCP asks whether the peer is there, and between questions.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Unanswered questions before a peer counts as gone.
const KEEP_ALIVE_PROBES: u32 = 3;
/// How long sent data may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Why a manager could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is none.
    #[error("{0:?} is no address of a manager")]
    Address(String),
    /// No connection.
    #[error("connection error: {addr}")]
    Connect {
        /// Whom.
        addr: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took longer than [`CONNECT_TIMEOUT`].
    #[error("connection error: {addr} did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout {
        /// Whom.
        addr: String,
    },
    /// The server's certificate has expired, or this machine's clock is ahead.
    #[error("connection error: the certificate of {addr} has expired")]
    ServerExpired {
        /// Whom.
        addr: String,
    },
    /// The server's certificate is not valid yet: this machine's clock is behind, or the server's ahead.
    #[error("connection error: the certificate of {addr} is not valid yet")]
    ServerNotYetValid {
        /// Whom.
        addr: String,
    },
    /// The server's certificate leads to no trusted root.
    #[error("x509: certificate signed by unknown authority: {addr}")]
    UnknownAuthority {
        /// Whom.
        addr: String,
    },
    /// The server is no manager of this cluster.
    #[error("connection error: {addr} is not {expected} of this cluster")]
    NotTheServer {
        /// Whom.
        addr: String,
        /// The name that it should have.
        expected: &'static str,
    },
    /// The server refuses this node's certificate, or TLS failed otherwise.
    #[error("connection error: TLS with {addr} failed")]
    Tls {
        /// Whom.
        addr: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// HTTP/2 failed after TLS.
    #[error("connection error: {addr} does not speak HTTP/2")]
    Http {
        /// Whom.
        addr: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Connects to a manager at `host:port`; returns when the connection stands.
pub async fn connect(addr: &str, server: ServerRole, credentials: &Credentials) -> Result<Channel, DialError> {
    let target = Target::new(addr, server, credentials.client_config());
    target.endpoint()?.connect_with_connector(target.connector()).await.map_err(|error| target.error(error))
}

/// A channel to a manager at `host:port` that dials when it is first used.
pub fn connect_lazy(addr: &str, server: ServerRole, credentials: &Credentials) -> Result<Channel, DialError> {
    let target = Target::new(addr, server, credentials.client_config());
    Ok(target.endpoint()?.connect_with_connector_lazy(target.connector()))
}

/// Connects without verifying anything and without a certificate.
pub(crate) async fn connect_unverified(addr: &str) -> Result<Channel, DialError> {
    let target = Target::new(addr, ServerRole::Ca, crate::tls::unverified_client_config());
    target.endpoint()?.connect_with_connector(target.connector()).await.map_err(|error| target.error(error))
}

/// TLS towards a manager over any stream.
pub async fn tls_connect<S>(stream: S, server: ServerRole, credentials: &Credentials) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    TlsConnector::from(credentials.client_config()).connect(server.server_name(), stream).await
}

/// What is needed to dial, again and again.
#[derive(Clone)]
struct Target {
    addr: Arc<str>,
    server: ServerRole,
    config: Arc<ClientConfig>,
}

impl Target {
    fn new(addr: &str, server: ServerRole, config: Arc<ClientConfig>) -> Self {
        Self { addr: addr.into(), server, config }
    }

    fn endpoint(&self) -> Result<Endpoint, DialError> {
        let bad = || DialError::Address(self.addr.to_string());
        // tonic must not do TLS itself, so its target is http; what the server sees is what a Go client sends.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addr)).map_err(|_| bad())?;
        if endpoint.uri().port_u16().is_none() || endpoint.uri().host().is_none_or(str::is_empty) {
            return Err(bad());
        }
        let origin = format!("https://{}", self.server.name()).parse::<Uri>().map_err(|_| bad())?;
        Ok(endpoint.origin(origin))
    }

    fn connector(
        &self,
    ) -> impl tower::Service<Uri, Response = TokioIo<TlsStream<TcpStream>>, Error = DialError, Future: Send> + Send + 'static
    {
        let target = self.clone();
        service_fn(move |_: Uri| {
            let target = target.clone();
            async move { target.dial().await.map(TokioIo::new) }
        })
    }

    async fn dial(&self) -> Result<TlsStream<TcpStream>, DialError> {
        let dial = dial_tls(&self.addr, self.server.server_name(), self.config.clone());
        match timeout(CONNECT_TIMEOUT, dial).await {
            Err(_) => Err(DialError::Timeout { addr: self.addr.to_string() }),
            Ok(Err(source)) => Err(self.classify(source)),
            Ok(Ok(stream)) => Ok(stream),
        }
    }

    fn classify(&self, source: io::Error) -> DialError {
        use rustls::CertificateError as Certificate;
        use rustls::Error as Tls;
        let addr = self.addr.to_string();
        match source.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) {
            None => DialError::Connect { addr, source },
            Some(Tls::InvalidCertificate(Certificate::Expired)) => DialError::ServerExpired { addr },
            Some(Tls::InvalidCertificate(Certificate::NotValidYet)) => DialError::ServerNotYetValid { addr },
            Some(Tls::InvalidCertificate(Certificate::UnknownIssuer)) => DialError::UnknownAuthority { addr },
            Some(Tls::InvalidCertificate(Certificate::NotValidForName)) => {
                DialError::NotTheServer { addr, expected: self.server.name() }
            }
            Some(other) => DialError::Tls { addr, source: other.clone() },
        }
    }

    /// The dialler's own error, if tonic carries it.
    fn error(&self, error: tonic::transport::Error) -> DialError {
        let mut next = std::error::Error::source(&error);
        while let Some(inner) = next {
            if let Some(own) = inner.downcast_ref::<DialError>() {
                return own.again();
            }
            next = inner.source();
        }
        DialError::Http { addr: self.addr.to_string(), source: error }
    }
}

impl DialError {
    /// The same error once more: tonic lends it only.
    fn again(&self) -> Self {
        match self {
            Self::Address(addr) => Self::Address(addr.clone()),
            Self::Connect { addr, source } => {
                let source = match source.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(source.kind(), source.to_string()),
                };
                Self::Connect { addr: addr.clone(), source }
            }
            Self::Timeout { addr } => Self::Timeout { addr: addr.clone() },
            Self::ServerExpired { addr } => Self::ServerExpired { addr: addr.clone() },
            Self::ServerNotYetValid { addr } => Self::ServerNotYetValid { addr: addr.clone() },
            Self::UnknownAuthority { addr } => Self::UnknownAuthority { addr: addr.clone() },
            Self::NotTheServer { addr, expected } => Self::NotTheServer { addr: addr.clone(), expected },
            Self::Tls { addr, source } => Self::Tls { addr: addr.clone(), source: source.clone() },
            Self::Http { addr, source } => {
                let source = io::Error::other(source.to_string());
                Self::Connect { addr: addr.clone(), source }
            }
        }
    }
}

/// TCP, then TLS.
pub(crate) async fn dial_tls(
    addr: &str,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    watch_peer(&stream)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// Has the kernel find out when the peer is gone.
pub(crate) fn watch_peer(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let keep_alive =
        TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE).with_retries(KEEP_ALIVE_PROBES);
    socket.set_tcp_keepalive(&keep_alive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    stream.set_nodelay(true)
}
