//! The listener on 2377: takes connections, shakes hands, and gives them to a gRPC server together with who calls.
//!
//! ```text
//!   accept ── place ──► handshake (time-out) ──► channel ──► tonic
//!               └ none left: one of the address with the most handshakes is given up (see `places.rs`)
//! ```
//!
//! A caller without a certificate passes, since joining nodes have none; one with a bad certificate does not. Such guests
//! are few at a time and not for long: whoever reaches the port can be one, and the nodes' connections and the daemon's
//! file descriptors must not be theirs to use up. Nor can they keep each other out, or the nodes: handshakes and guests
//! have places that are shared fairly among addresses. A worker has a few connections and no more.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use model::{NodeId, NodeRole};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::certificate::PeerIdentity;
use crate::dial::watch_peer;
use crate::places::{Place, Places, host_of};
use crate::tls::Credentials;

/// Pause after the kernel refused to accept (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that shook hands and wait to be taken.
const QUEUE: usize = 64;
/// How long a handshake is left alone when others from addresses as crowded as its own want its place: a peer on the other
/// side of the world needs one round trip.
const HANDSHAKE_PATIENCE: Duration = Duration::from_millis(500);
/// The same for a guest: a joiner that waits for its certificate has it by then.
const GUEST_PATIENCE: Duration = Duration::from_secs(10);

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ListenLimits {
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Handshakes at a time, of all addresses.
    pub handshakes: usize,
    /// Connections of callers without a certificate at a time, of all addresses; one more is closed, or takes the place of
    /// one from an address that has more.
    pub guests: usize,
    /// How long such a connection lives. A joiner needs a second, and dials again when it is cut off.
    pub guest_time: Duration,
    /// Connections of one worker at a time; one more takes the place of its oldest. It needs one for its session, another
    /// while it renews its certificate, and some that it lost have not ended here yet.
    pub connections_of_worker: usize,
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            handshakes: 512,
            guests: 512,
            guest_time: Duration::from_mins(2),
            connections_of_worker: 16,
        }
    }
}

/// Who calls; gRPC handlers find it in `Request::extensions`.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// By its verified certificate; `None` if it showed none.
    pub identity: Option<PeerIdentity>,
    /// Where it calls from.
    pub remote_addr: SocketAddr,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct PeerStream<S = TcpStream> {
    stream: TlsStream<S>,
    peer: PeerInfo,
    /// Of a caller that came through a listener and is no manager.
    stay: Option<Stay>,
}

/// A caller's place, and when it has to go.
#[derive(Debug)]
enum Stay {
    Guest { place: Place<IpAddr>, end: Pin<Box<Sleep>> },
    Worker { place: Place<NodeId> },
}

/// Places for connections. Managers have no bound: they have one for each of their purposes and peers.
#[derive(Clone)]
struct Rooms {
    guests: Places<IpAddr>,
    guest_time: Duration,
    workers: Places<NodeId>,
}

/// Connections of a listener, as a stream that ends never. Dropping it closes the listener and abandons handshakes.
pub struct PeerListener {
    local_addr: SocketAddr,
    accepted: mpsc::Receiver<PeerStream>,
    _acceptor: JoinSet<()>,
}

impl PeerListener {
    /// Starts to accept.
    pub fn start(listener: TcpListener, credentials: &Credentials, limits: ListenLimits) -> io::Result<Self> {
        let local_addr = listener.local_addr()?;
        let (send, accepted) = mpsc::channel(QUEUE);
        let mut acceptor = JoinSet::new();
        acceptor.spawn(run_acceptor(listener, credentials.clone(), limits, send));
        Ok(Self { local_addr, accepted, _acceptor: acceptor })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl Stream for PeerListener {
    type Item = io::Result<PeerStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(cx).map(|stream| stream.map(Ok))
    }
}

/// Accepts until nobody takes the connections any more. Owns the handshakes: they end with it.
async fn run_acceptor(
    listener: TcpListener,
    credentials: Credentials,
    limits: ListenLimits,
    send: mpsc::Sender<PeerStream>,
) {
    let places = Places::new(limits.handshakes, HANDSHAKE_PATIENCE);
    let rooms = Rooms {
        guests: Places::new(limits.guests, GUEST_PATIENCE),
        guest_time: limits.guest_time,
        workers: Places::for_each(limits.connections_of_worker),
    };
    let mut handshakes = JoinSet::new();
    while !send.is_closed() {
        while handshakes.try_join_next().is_some() {}
        let (stream, remote_addr) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let mut place = places.take(host_of(remote_addr.ip())).await;
        let (credentials, send, rooms) = (credentials.clone(), send.clone(), rooms.clone());
        handshakes.spawn(async move {
            let shaken = async {
                watch_peer(&stream)?;
                tls_accept(stream, remote_addr, &credentials).await?.seated(&rooms)
            };
            let handed_on = async {
                match timeout(limits.handshake_timeout, shaken).await {
                    Ok(Ok(stream)) => drop(send.send(stream).await),
                    Ok(Err(error)) => tracing::debug!(%remote_addr, %error, "a connection was refused"),
                    Err(_) => tracing::debug!(%remote_addr, "TLS handshake took too long"),
                }
            };
            tokio::select! {
                // Either ends the task, and with it the connection that was not handed on.
                () = handed_on => {}
                () = place.lost() => tracing::debug!(%remote_addr, "a handshake was given up for one from elsewhere"),
            }
        });
    }
}

/// TLS as a manager over any stream.
pub async fn tls_accept<S>(stream: S, remote_addr: SocketAddr, credentials: &Credentials) -> io::Result<PeerStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = TlsAcceptor::from(credentials.server_config()).accept(stream).await?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity = leaf.map(|leaf| PeerIdentity::from_der(leaf)).transpose().map_err(io::Error::other)?;
    Ok(PeerStream { stream, peer: PeerInfo { identity, remote_addr }, stay: None })
}

impl<S> PeerStream<S> {
    /// Who calls.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// Gives a caller that is no manager a place, if there is one.
    fn seated(mut self, rooms: &Rooms) -> io::Result<Self> {
        let full = |_| io::Error::other("too many connections");
        self.stay = match &self.peer.identity {
            None => {
                let place = rooms.guests.try_take(host_of(self.peer.remote_addr.ip())).map_err(full)?;
                Some(Stay::Guest { place, end: Box::pin(sleep(rooms.guest_time)) })
            }
            Some(peer) if peer.role == NodeRole::Manager => None,
            Some(peer) => Some(Stay::Worker { place: rooms.workers.try_take(peer.node_id.clone()).map_err(full)? }),
        };
        Ok(self)
    }

    /// Fails when a guest's time is over, or a place was given to another.
    fn check_stay(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let is_over = match &mut self.stay {
            None => false,
            Some(Stay::Guest { place, end }) => end.as_mut().poll(cx).is_ready() || place.poll_lost(cx).is_ready(),
            Some(Stay::Worker { place }) => place.poll_lost(cx).is_ready(),
        };
        if is_over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl<S> Connected for PeerStream<S> {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PeerStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_stay(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PeerStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
