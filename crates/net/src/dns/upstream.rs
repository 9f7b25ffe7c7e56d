//! Asking other name servers. Each query has a socket of its own, so a forger has to guess its port as well as its number.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Query, Transport, code, rcode};
use crate::netns::Namespace;

/// How many servers are asked, as dockerd does.
pub(super) const MAX_UPSTREAMS: usize = 3;
/// How long one server has, as with dockerd.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
const PORT: u16 = 53;

/// A server that is asked what is not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    address: IpAddr,
    /// The link of a link-local address: name or index.
    zone: Option<String>,
    pub(super) place: Place,
}

impl Upstream {
    /// Reads an address as `resolv.conf` has it (`fe80::1%eth0`).
    pub(super) fn read(text: &str, place: Place) -> Option<Self> {
        let (address, zone) = match text.split_once('%') {
            Some((address, zone)) if !zone.is_empty() => (IpAddr::V6(address.parse().ok()?), Some(zone.to_owned())),
            _ => (text.parse().ok()?, None),
        };
        Some(Self { address, zone, place })
    }

    /// Whether a container that asks this server asks its own.
    pub(super) fn is_own(&self) -> bool {
        self.place == Place::Container && self.address == IpAddr::V4(super::RESOLVER_ADDRESS)
    }

    /// Where it listens, as the thread's namespace sees it.
    fn socket_address(&self) -> io::Result<SocketAddr> {
        let (IpAddr::V6(address), Some(zone)) = (self.address, &self.zone) else {
            return Ok(SocketAddr::new(self.address, PORT));
        };
        let index = zone.parse().or_else(|_| if_nametoindex(zone.as_str()))?;
        Ok(SocketAddrV6::new(address, PORT, 0, index).into())
    }
}

/// Where a server is asked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The host: servers of its `resolv.conf`, which may be on its loopback link.
    Host,
    /// The container: servers that the user named.
    Container,
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let zone = self.zone.iter().map(|zone| format!("%{zone}")).collect::<String>();
        match self.place {
            Place::Host => write!(f, "host({}{zone})", self.address),
            Place::Container => write!(f, "{}{zone}", self.address),
        }
    }
}

/// Asks a server; `None` if it does not answer, or says that it cannot.
pub(super) async fn ask(query: &Query, transport: Transport, upstream: &Upstream, netns: &Path) -> Option<Vec<u8>> {
    let id = random() as u16;
    let message = query.forwarded(id);
    let asked = async {
        match transport {
            Transport::Udp => ask_udp(query, id, &message, upstream, netns).await,
            Transport::Tcp => ask_tcp(query, id, &message, upstream, netns).await,
        }
    };
    let answer = match timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            tracing::debug!(%error, server = %upstream, "name server does not answer");
            return None;
        }
        Err(_) => {
            tracing::debug!(server = %upstream, "name server does not answer in time");
            return None;
        }
    };
    let cannot = matches!(rcode(&answer), code::SERVER_FAILURE | code::REFUSED);
    (!cannot).then(|| query.returned(answer))
}

/// A number that nobody can foresee: the hash of nothing under a key that the system's randomness is in.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(())
}

async fn ask_udp(query: &Query, id: u16, message: &[u8], upstream: &Upstream, netns: &Path) -> io::Result<Vec<u8>> {
    let (socket, address) = open(upstream, netns, open_udp).await?;
    let socket = UdpSocket::from_std(socket)?;
    // from now on the kernel drops what others send
    socket.connect(address).await?;
    socket.send(message).await?;
    loop {
        // that nobody listens there is an error without data, which `readable` would not see
        let answer = socket.async_io(Interest::READABLE | Interest::ERROR, || receive(&socket)).await?;
        // else it is of an earlier query of the same port, or forged
        if query.is_answered_by(id, &answer) {
            return Ok(answer);
        }
    }
}

/// One datagram of any length: some servers send more than they were told to (and dockerd passes it on).
fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0; u16::MAX as usize];
    let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
    Ok(buffer[..len].to_vec())
}

async fn ask_tcp(query: &Query, id: u16, message: &[u8], upstream: &Upstream, netns: &Path) -> io::Result<Vec<u8>> {
    let (socket, address) = open(upstream, netns, open_tcp).await?;
    let mut stream = TcpSocket::from_std_stream(socket).connect(address).await?;
    write_message(&mut stream, message).await?;
    loop {
        let answer = read_message(&mut stream, usize::from(u16::MAX)).await?;
        if query.is_answered_by(id, &answer) {
            return Ok(answer);
        }
    }
}

/// Writes a message with its length before it.
pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // in one piece: some servers take the length for the whole message
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await
}

/// Reads a message of at most `max` bytes with its length before it.
pub(super) async fn read_message(stream: &mut TcpStream, max: usize) -> io::Result<Vec<u8>> {
    let len = usize::from(stream.read_u16().await?);
    if len > max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Opens a socket where the server is to be asked from.
async fn open<S: Send + 'static>(
    upstream: &Upstream,
    netns: &Path,
    open: fn(SocketAddr) -> io::Result<S>,
) -> io::Result<(S, SocketAddr)> {
    if upstream.place == Place::Host {
        let address = upstream.socket_address()?;
        return Ok((open(address)?, address));
    }
    let (netns, upstream) = (netns.to_owned(), upstream.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let namespace = Namespace::pinned(&netns)?.ok_or(io::ErrorKind::NotFound)?;
        namespace.enter(|| {
            let address = upstream.socket_address()?;
            Ok((open(address)?, address))
        })
    });
    opened.await.map_err(io::Error::other)?
}

fn open_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // port 0: the kernel chooses one at random
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn open_tcp(address: SocketAddr) -> io::Result<std::net::TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Stream, flags, None)?.into())
}
