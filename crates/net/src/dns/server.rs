//! The name server of one sandbox: a task that owns its sockets, what is in flight, and nothing else.
//!
//! ```text
//!            datagram ──► decide ──► answer at once
//!                           └──────► in flight: wait for a place, ask up to three servers, answer
//!  connection ──► in flight: read, decide (and ask), answer, again; closed when idle
//! ```
//! An idle server is its two sockets and a few hundred bytes: buffers are on the stack while they are in use.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Query, Transport, Unread, code};
use super::names::Names;
use super::resolve::{Decision, Scope, Shuffle, decide};
use super::share::Share;
use super::upstream::{MAX_UPSTREAMS, PATIENCE, Place, Upstream, ask, read_message, write_message};

/// Longest question that is read; longer ones are cut and so malformed.
const MAX_QUERY_BYTES: usize = 4096;
/// Questions of one container that wait or are under way; the next is refused.
const MAX_IN_FLIGHT: usize = 1024;
/// Connections of one container; the next waits until one ends.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may be silent, or take to read an answer.
const IDLE: Duration = Duration::from_secs(8);
/// Datagrams that are worked off before other tasks of the daemon have a turn.
const DATAGRAMS_AT_ONCE: usize = 64;
/// Wait before connections are taken again after that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a name server works with.
pub(super) struct Service {
    pub(super) udp: UdpSocket,
    pub(super) reach: Arc<SharedReach>,
    pub(super) names: Arc<Names>,
    pub(super) share: Share,
    pub(super) order: Shuffle,
    /// The container's pinned namespace.
    pub(super) netns: PathBuf,
    /// Whether the log has been told that questions are refused.
    pub(super) has_refused: AtomicBool,
}

/// What a container can ask for, by the networks that it is on.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) scope: Scope,
    /// Servers to ask; those of the host only if the container has a way out.
    pub(super) upstreams: Vec<Upstream>,
}

/// The same while it changes: a container joins and leaves networks.
#[derive(Debug)]
pub(super) struct SharedReach(RwLock<Arc<Reach>>);

impl SharedReach {
    pub(super) fn new(reach: Reach) -> Self {
        Self(RwLock::new(Arc::new(reach)))
    }

    pub(super) fn set(&self, reach: Reach) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(reach);
    }

    fn get(&self) -> Arc<Reach> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What ended.
enum Done {
    Forwarded,
    Connection,
    Pause,
}

type InFlight<'a> = FuturesUnordered<BoxFuture<'a, Done>>;

/// The servers to ask: at most three, never the server itself.
pub(super) fn usable(upstreams: &[Upstream], has_way_out: bool) -> Vec<Upstream> {
    // Not through the host for containers that shall not get out. Their own servers may be on their own network.
    let is_reachable = |upstream: &&Upstream| has_way_out || upstream.place == Place::Container;
    let others = upstreams.iter().filter(|upstream| !upstream.is_own());
    others.take(MAX_UPSTREAMS).filter(is_reachable).cloned().collect()
}

/// Serves until it is dropped.
pub(super) async fn run(service: Service, listener: TcpListener) {
    let service = &service;
    let mut in_flight = InFlight::new();
    let (mut forwards, mut connections, mut accepts) = (0, 0, true);
    loop {
        // Every arm only waits: what is dropped has taken nothing yet.
        tokio::select! {
            ready = service.udp.readable() => match ready {
                Ok(()) => {
                    forwards += service.take_datagrams(&in_flight, MAX_IN_FLIGHT - forwards);
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::error!(%error, netns = %service.netns.display(), "a container's name server has ended");
                    return;
                }
            },
            accepted = listener.accept(), if accepts && connections < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections += 1;
                    in_flight.push(Box::pin(service.serve_connection(stream)));
                }
                Err(error) => {
                    tracing::warn!(%error, netns = %service.netns.display(), "a connection is not taken");
                    accepts = false;
                    in_flight.push(Box::pin(async { tokio::time::sleep(ACCEPT_PAUSE).await; Done::Pause }));
                }
            },
            Some(done) = in_flight.next() => match done {
                Done::Forwarded => forwards -= 1,
                Done::Connection => connections -= 1,
                Done::Pause => accepts = true,
            },
        }
    }
}

impl Service {
    /// Answers what has come, and starts at most `room` questions to others; returns how many.
    fn take_datagrams<'a>(&'a self, in_flight: &InFlight<'a>, room: usize) -> usize {
        let mut started = 0;
        let mut buffer = [0; MAX_QUERY_BYTES];
        for _ in 0..DATAGRAMS_AT_ONCE {
            // an error is of one datagram, or there is none
            let Ok((len, peer)) = self.udp.try_recv_from(&mut buffer) else { break };
            match self.first_look(&buffer[..len], Transport::Udp) {
                Look::Answer(answer) => self.send(&answer, peer),
                Look::Ignore => {}
                Look::Forward(query) if started == room => {
                    self.tell_of_refusal();
                    self.send(&query.empty_answer(code::REFUSED), peer);
                }
                Look::Forward(query) => {
                    started += 1;
                    in_flight.push(Box::pin(async move {
                        let answer = self.forward(&query, Transport::Udp).await;
                        self.send(&answer, peer);
                        Done::Forwarded
                    }));
                }
            }
        }
        started
    }

    /// Sends a datagram; one that does not fit into the socket's buffer is lost, as datagrams may be.
    fn send(&self, answer: &[u8], peer: SocketAddr) {
        if let Err(error) = self.udp.try_send_to(answer, peer) {
            tracing::debug!(%error, %peer, "an answer is lost");
        }
    }

    fn first_look(&self, bytes: &[u8], transport: Transport) -> Look {
        let query = match Query::read(bytes) {
            Ok(query) => query,
            Err(Unread::Ignored) => return Look::Ignore,
            Err(Unread::Answered(answer)) => return Look::Answer(answer),
        };
        match decide(&query, transport, &self.reach.get().scope, &self.names.read(), &self.order) {
            Decision::Answer(answer) => Look::Answer(answer),
            Decision::Forward => Look::Forward(query),
        }
    }

    /// Asks one server after the other.
    async fn forward(&self, query: &Query, transport: Transport) -> Vec<u8> {
        for upstream in &self.reach.get().upstreams {
            let Some(_permit) = self.share.take(PATIENCE).await else {
                self.tell_of_refusal();
                return query.empty_answer(code::REFUSED);
            };
            if let Some(answer) = ask(query, transport, upstream, &self.netns).await {
                return answer;
            }
        }
        query.empty_answer(code::SERVER_FAILURE)
    }

    fn tell_of_refusal(&self) {
        if !self.has_refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(netns = %self.netns.display(), "a container asks more names at once than can be asked for it");
        }
    }

    async fn serve_connection(&self, mut stream: TcpStream) -> Done {
        // however it ends, it is the container's own connection
        let _: io::Result<()> = self.answer_all(&mut stream).await;
        Done::Connection
    }

    async fn answer_all(&self, stream: &mut TcpStream) -> io::Result<()> {
        loop {
            let bytes = timeout(IDLE, read_message(stream, MAX_QUERY_BYTES)).await??;
            let answer = match self.first_look(&bytes, Transport::Tcp) {
                Look::Answer(answer) => answer,
                Look::Forward(query) => self.forward(&query, Transport::Tcp).await,
                Look::Ignore => return Ok(()),
            };
            timeout(IDLE, write_message(stream, &answer)).await??;
        }
    }
}

/// What is seen of a message at once.
enum Look {
    Ignore,
    Answer(Vec<u8>),
    Forward(Query),
}
