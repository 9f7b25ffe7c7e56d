//! Where the API is served: unix sockets with mode and group, TCP, TCP with TLS, sockets handed over by systemd.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use listenfd::ListenFd;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

/// The port of `tcp://host` without TLS, and with.
const DEFAULT_PORTS: (u16, u16) = (2375, 2376);
/// The first descriptor that systemd passes (`SD_LISTEN_FDS_START`).
const FIRST_INHERITED: usize = 3;
/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// A socket that takes connections.
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener),
    /// TCP in the clear.
    Tcp(TcpListener),
    /// TCP with TLS.
    Tls(TcpListener, TlsAcceptor),
}

/// A value of `-H`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `unix:///path`.
    Unix(PathBuf),
    /// `tcp://host:port`; without port the default one.
    Tcp(String),
    /// `fd://` (all sockets from systemd) or `fd://name`.
    Fd(String),
}

/// Files of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `--tlscert`.
    pub cert: PathBuf,
    /// `--tlskey`.
    pub key: PathBuf,
    /// `--tlscacert` with `--tlsverify`: clients must have a certificate of it.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no listener.
#[derive(Debug, Error)]
pub enum ListenError {
    /// A value of `-H` that is none.
    #[error("unable to parse docker host `{0}`")]
    Host(String),
    /// Another process serves that socket.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// `-H fd://` without a socket from systemd.
    #[error("no sockets found via socket activation: make sure the service was started by systemd")]
    NoneInherited,
    /// `-H fd://N` for a socket that systemd has not opened.
    #[error("too few socket activated files passed in by systemd")]
    FewInherited,
    /// `-H fd://` with something else than a number, or of a socket that takes no connections.
    #[error("failed to parse systemd fd address: should be a number of a socket: {0}")]
    BadInherited(String),
    /// The group does not exist.
    #[error("group {0} not found")]
    NoGroup(String),
    /// A file of TLS cannot be used.
    #[error("cannot use {path} for TLS: {reason}")]
    Tls {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error("cannot listen on {place}")]
    Io {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
}

impl Host {
    /// Reads a value of `-H`; an empty one is `default_socket`.
    pub fn parse(text: &str, default_socket: &Path) -> Result<Self, ListenError> {
        let text = text.trim();
        match text.split_once("://") {
            None if text.is_empty() => Ok(Self::Unix(default_socket.to_owned())),
            Some(("unix", "")) => Ok(Self::Unix(default_socket.to_owned())),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => Ok(Self::Tcp(address.trim_end_matches('/').to_owned())),
            Some(("fd", name)) => Ok(Self::Fd(name.trim_start_matches('*').to_owned())),
            _ => Err(ListenError::Host(text.to_owned())),
        }
    }
}

fn io_error(place: impl ToString) -> impl FnOnce(io::Error) -> ListenError {
    move |source| ListenError::Io { place: place.to_string(), source }
}

/// Listens on a unix socket. A socket that nobody serves is replaced. `group` owns it, if it exists; `None` is root's.
pub async fn bind_unix(path: &Path, group: Option<&str>) -> Result<Listener, ListenError> {
    let place = path.display().to_string();
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io_error(&place))?;
    }
    if path.exists() {
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(ListenError::InUse(path.to_owned()));
        }
        std::fs::remove_file(path).map_err(io_error(&place))?;
    }
    let listener = UnixListener::bind(path).map_err(io_error(&place))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(io_error(&place))?;
    if let Some(group) = group.filter(|group| !group.is_empty()) {
        let gid = group_id(group).ok_or_else(|| ListenError::NoGroup(group.to_owned()))?;
        std::os::unix::fs::chown(path, None, Some(gid)).map_err(io_error(&place))?;
    }
    Ok(Listener::Unix(listener))
}

/// The sockets that systemd has opened for this process (`sd_listen_fds(3)`), and that nobody has taken yet.
pub struct Inherited(ListenFd);

impl Inherited {
    /// Looks at the process's environment.
    pub fn from_env() -> Self {
        Self(ListenFd::from_env())
    }

    /// The sockets of `-H fd://` (all) or `fd://N` (descriptor N, from 3).
    pub fn take(&mut self, which: &str, tls: Option<&TlsFiles>) -> Result<Vec<Listener>, ListenError> {
        if self.0.len() == 0 {
            return Err(ListenError::NoneInherited);
        }
        let places: Vec<usize> = match which {
            "" => (0..self.0.len()).collect(),
            number => {
                let place = number.parse::<usize>().ok().and_then(|number| number.checked_sub(FIRST_INHERITED));
                let place = place.ok_or_else(|| ListenError::BadInherited(number.to_owned()))?;
                vec![Some(place).filter(|place| *place < self.0.len()).ok_or(ListenError::FewInherited)?]
            }
        };
        places.into_iter().map(|place| self.listener(place, tls)).collect()
    }

    fn listener(&mut self, place: usize, tls: Option<&TlsFiles>) -> Result<Listener, ListenError> {
        let name = format!("fd://{}", place + FIRST_INHERITED);
        let failed = || io_error(name.clone());
        // Asked for another kind of socket it fails and keeps the socket.
        if let Ok(Some(listener)) = self.0.take_unix_listener(place) {
            listener.set_nonblocking(true).map_err(failed())?;
            return UnixListener::from_std(listener).map(Listener::Unix).map_err(failed());
        }
        let listener = self.0.take_tcp_listener(place).map_err(failed())?;
        let listener = listener.ok_or_else(|| ListenError::BadInherited(name.clone()))?;
        listener.set_nonblocking(true).map_err(failed())?;
        let listener = TcpListener::from_std(listener).map_err(failed())?;
        match tls {
            Some(files) => Ok(Listener::Tls(listener, TlsAcceptor::from(Arc::new(server_config(files)?)))),
            None => Ok(Listener::Tcp(listener)),
        }
    }
}

/// The number of a group, by its name in `/etc/group` or as a number. The file is read here: a static binary's C library
/// would load the host's name service modules into itself, and they are made for another one.
pub fn group_id(group: &str) -> Option<u32> {
    if let Ok(gid) = group.parse() {
        return Some(gid);
    }
    find_group(&std::fs::read_to_string("/etc/group").ok()?, group)
}

/// Lines are `name:password:number:members`.
fn find_group(file: &str, group: &str) -> Option<u32> {
    let line = file.lines().find_map(|line| line.strip_prefix(group)?.strip_prefix(':'))?;
    line.split(':').nth(1)?.parse().ok()
}

/// Listens on TCP, with TLS if there are files for it.
pub async fn bind_tcp(address: &str, tls: Option<&TlsFiles>) -> Result<Listener, ListenError> {
    let port = if tls.is_some() { DEFAULT_PORTS.1 } else { DEFAULT_PORTS.0 };
    let address = with_port(address, port);
    let listener = TcpListener::bind(&address).await.map_err(io_error(format!("tcp://{address}")))?;
    match tls {
        Some(files) => Ok(Listener::Tls(listener, TlsAcceptor::from(Arc::new(server_config(files)?)))),
        None => Ok(Listener::Tcp(listener)),
    }
}

/// Adds what is missing of `host:port`.
fn with_port(address: &str, port: u16) -> String {
    let (host, given) = match address.rsplit_once(':') {
        Some((host, given)) if !given.contains(']') => (host, given),
        _ => (address, ""),
    };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    if given.is_empty() { format!("{host}:{port}") } else { format!("{host}:{given}") }
}

impl Listener {
    /// A unix socket that something else opened.
    pub fn from_unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(UnixListener::from_std(listener)?))
    }

    /// A TCP socket that something else opened.
    pub fn from_tcp(listener: std::net::TcpListener, tls: Option<&TlsFiles>) -> Result<Self, ListenError> {
        let place = "an inherited socket";
        listener.set_nonblocking(true).map_err(io_error(place))?;
        let listener = TcpListener::from_std(listener).map_err(io_error(place))?;
        match tls {
            Some(files) => Ok(Self::Tls(listener, TlsAcceptor::from(Arc::new(server_config(files)?)))),
            None => Ok(Self::Tcp(listener)),
        }
    }
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, ListenError> {
    let failed =
        |path: &Path, reason: &dyn ToString| ListenError::Tls { path: path.to_owned(), reason: reason.to_string() };
    let read = |path: &Path| std::fs::read(path).map_err(|error| failed(path, &error));
    let certificates = |path: &Path| {
        rustls_pemfile::certs(&mut read(path)?.as_slice())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed(path, &error))
    };
    let key = rustls_pemfile::private_key(&mut read(&files.key)?.as_slice())
        .map_err(|error| failed(&files.key, &error))?
        .ok_or_else(|| failed(&files.key, &"it holds no private key"))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&files.cert, &error))?;
    let builder = match &files.client_ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| failed(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| failed(path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(certificates(&files.cert)?, key).map_err(|error| failed(&files.cert, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_dockerds() {
        let parse = |text| Host::parse(text, Path::new("/run/x.sock")).unwrap();
        assert_eq!(parse("unix:///var/run/docker.sock"), Host::Unix("/var/run/docker.sock".into()));
        assert_eq!(parse("unix://"), Host::Unix("/run/x.sock".into()));
        assert_eq!(parse("tcp://0.0.0.0:2375"), Host::Tcp("0.0.0.0:2375".into()));
        assert_eq!(parse("fd://"), Host::Fd(String::new()));
        assert!(Host::parse("ftp://x", Path::new("/")).is_err());
        assert!(Host::parse("/run/x", Path::new("/")).is_err());
    }

    #[test]
    fn ports_are_added() {
        for (address, expected) in [
            ("", "127.0.0.1:2375"),
            (":99", "127.0.0.1:99"),
            ("1.2.3.4", "1.2.3.4:2375"),
            ("1.2.3.4:5", "1.2.3.4:5"),
            ("[::1]", "[::1]:2375"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(with_port(address, 2375), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(bind_unix(&path, None).await.unwrap());
        let _second = bind_unix(&path, Some("0")).await.unwrap();
        assert!(matches!(bind_unix(&path, None).await, Err(ListenError::InUse(_))));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
    }
}
