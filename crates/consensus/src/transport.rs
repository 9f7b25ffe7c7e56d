//! The way to the peers: one bounded queue, one connection and one task per peer, which sends message after message, so
//! that appends arrive in order. Snapshots go beside the queue on the same connection: heartbeats must not wait for them.
//!
//! ```text
//!  raft thread ──► queue (4096) ──► peer's task ──StreamRaftMessage──► peer
//!        ▲                              │
//!        └── Reached, Unreachable, SnapshotSent, RemovedByPeer
//! ```
//!
//! A message that fails takes what waits behind it along: it is old by then, and raft asks anew. When the driver ends the
//! queues are closed; each task sends what is in its queue, or fails, and ends.

mod chunks;
mod link;
mod merge;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::core::Delivery;
use crate::inbox::{Command, Inbox};
use crate::status::Status;

pub use chunks::{ChunkError, SnapshotAssembler};
pub use link::{Dial, DialError};

use link::{Link, SendError};

/// Messages that may wait for one peer; more are dropped. SwarmKit's setting.
const QUEUE: usize = 4_096;
/// Messages to members without a known address that may be under way.
const MAX_STRAYS: usize = 16;
/// Time between a failure and the next try.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Reads the stored snapshot with exactly this index.
pub(crate) type SnapshotSource = Arc<dyn Fn(u64) -> std::io::Result<Option<raftpb::Snapshot>> + Send + Sync>;

/// The connections to the peers.
pub(crate) struct Peers {
    dial: Arc<dyn Dial>,
    status: watch::Receiver<Status>,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    /// Messages to somebody whose address was not known.
    strays: AtomicUsize,
}

impl Peers {
    pub(crate) fn new(dial: Arc<dyn Dial>, status: watch::Receiver<Status>) -> Self {
        Self { dial, status, links: Mutex::new(BTreeMap::new()), strays: AtomicUsize::new(0) }
    }

    /// Whether a member answers at its address.
    pub(crate) async fn is_healthy(&self, raft_id: u64, addr: &str) -> bool {
        match self.link(raft_id, addr).check_health().await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(raft_id = format_args!("{raft_id:x}"), addr, %error, "a candidate cannot be reached");
                false
            }
        }
    }

    /// The connection to a member; another address makes another one.
    fn link(&self, raft_id: u64, addr: &str) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        match links.get(&raft_id) {
            Some(link) if link.addr() == addr => link.clone(),
            _ => {
                let link = Arc::new(Link::new(addr.to_owned(), self.dial.clone()));
                links.insert(raft_id, link.clone());
                link
            }
        }
    }

    fn forget(&self, raft_id: u64) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).remove(&raft_id);
    }

    /// Sends once to somebody whose address only others know.
    async fn send_stray(&self, message: raftpb::Message) -> Result<(), SendError> {
        let asked = {
            let status = self.status.borrow();
            // One after the other: the first may be gone for good.
            let turn = self.strays.fetch_add(1, Ordering::Relaxed) % status.members.len().max(1);
            let known = status.members.keys().copied();
            let known = known.clone().skip(turn).chain(known.take(turn));
            let mut ids = status.longest_active().into_iter().chain([status.leader]).chain(known);
            let id = ids.find(|id| *id != status.raft_id && status.members.contains_key(id));
            id.map(|id| (id, status.members[&id].addr.clone()))
        };
        let (id, addr) = asked.ok_or(SendError::UnknownAddress)?;
        let addr = self.link(id, &addr).resolve(message.to).await?;
        Link::new(addr, self.dial.clone()).send(message).await
    }
}

/// The sending side, owned by the raft thread.
pub(crate) struct Transport {
    peers: Arc<Peers>,
    inbox: Inbox,
    snapshots: SnapshotSource,
    runtime: tokio::runtime::Handle,
    queues: BTreeMap<u64, Peer>,
    strays: Arc<Semaphore>,
}

struct Peer {
    link: Arc<Link>,
    queue: mpsc::Sender<raftpb::Message>,
    /// Held by the snapshot that is under way to it.
    snapshot: Arc<Semaphore>,
}

impl Transport {
    pub(crate) fn new(
        peers: Arc<Peers>,
        inbox: Inbox,
        snapshots: SnapshotSource,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let strays = Arc::new(Semaphore::new(MAX_STRAYS));
        Self { peers, inbox, snapshots, runtime, queues: BTreeMap::new(), strays }
    }

    /// Takes the members as they are now: new ones get a queue, removed ones lose theirs, moved ones another connection.
    pub(crate) fn set_members(&mut self, own_id: u64, members: &BTreeMap<u64, p::RaftMember>) {
        self.queues.retain(|id, peer| {
            let stays = members.get(id).is_some_and(|member| member.addr == peer.link.addr());
            if !stays {
                self.peers.forget(*id);
            }
            stays
        });
        for (id, member) in members.iter().filter(|(id, _)| **id != own_id) {
            if self.queues.contains_key(id) || member.addr.is_empty() {
                continue;
            }
            let link = self.peers.link(*id, &member.addr);
            let (queue, messages) = mpsc::channel(QUEUE);
            let sender = Sender { raft_id: *id, link: link.clone(), inbox: self.inbox.clone(), active: false };
            // Ends when the queue is closed: with the member or with the driver.
            self.runtime.spawn(sender.run(messages));
            self.queues.insert(*id, Peer { link, queue, snapshot: Arc::new(Semaphore::new(1)) });
        }
    }

    /// Sends, in order for each peer. Never waits.
    pub(crate) fn send(&mut self, messages: Vec<raftpb::Message>) {
        for message in messages {
            let to = message.to;
            match self.queues.get(&to) {
                Some(peer) if message.kind == raftpb::MessageType::MsgSnap as i32 => self.send_snapshot(peer, message),
                Some(peer) => {
                    if peer.queue.try_send(message).is_err() {
                        self.inbox.tell(Command::Unreachable { raft_id: to });
                    }
                }
                None => self.send_stray(message),
            }
        }
    }

    fn send_stray(&self, message: raftpb::Message) {
        let Ok(permit) = self.strays.clone().try_acquire_owned() else { return };
        let peers = self.peers.clone();
        // Ends by the watchdog at the latest.
        self.runtime.spawn(async move {
            let _permit = permit;
            let to = message.to;
            if let Err(error) = peers.send_stray(message).await {
                tracing::debug!(to = format_args!("{to:x}"), %error, "a raft message was not sent");
            }
        });
    }

    /// Adds the stored snapshot's data and sends it in chunks.
    fn send_snapshot(&self, peer: &Peer, message: raftpb::Message) {
        let raft_id = message.to;
        let inbox = self.inbox.clone();
        let Ok(permit) = peer.snapshot.clone().try_acquire_owned() else {
            return inbox.tell(Command::SnapshotSent { raft_id, delivery: Delivery::Failed });
        };
        let (link, source) = (peer.link.clone(), self.snapshots.clone());
        // Ends by the watchdog, which every chunk arms again.
        self.runtime.spawn(async move {
            let _permit = permit;
            let delivery = match deliver_snapshot(&link, source, message).await {
                Ok(()) => Delivery::Done,
                Err(error) => {
                    tracing::warn!(to = format_args!("{raft_id:x}"), %error, "a raft snapshot was not sent");
                    Delivery::Failed
                }
            };
            if delivery == Delivery::Failed {
                inbox.tell(Command::Unreachable { raft_id });
            }
            inbox.tell(Command::SnapshotSent { raft_id, delivery });
        });
    }
}

async fn deliver_snapshot(link: &Link, source: SnapshotSource, mut message: raftpb::Message) -> Result<(), SendError> {
    let metadata = message.snapshot.take().and_then(|snapshot| snapshot.metadata).unwrap_or_default();
    let index = metadata.index;
    let stored = tokio::task::spawn_blocking(move || source(index)).await;
    let stored = stored.map_err(std::io::Error::other).and_then(|stored| stored).map_err(SendError::Snapshot)?;
    // Another one may have taken its place; raft offers that one next time, with the configuration that goes with it.
    let data = stored.ok_or(SendError::SnapshotGone(index))?.data;
    message.snapshot = Some(raftpb::Snapshot { data, metadata: Some(metadata) });
    link.send_snapshot(message).await
}

/// A peer's task.
struct Sender {
    raft_id: u64,
    link: Arc<Link>,
    inbox: Inbox,
    /// It took the last message.
    active: bool,
}

impl Sender {
    async fn run(mut self, mut messages: mpsc::Receiver<raftpb::Message>) {
        let mut held = None;
        loop {
            let Some(mut message) = (match held.take() {
                Some(held) => Some(held),
                None => messages.recv().await,
            }) else {
                return;
            };
            while let Ok(next) = messages.try_recv() {
                held = merge::merge(&mut message, next);
                if held.is_some() {
                    break;
                }
            }
            match self.link.send(message).await {
                Ok(()) if self.active => {}
                Ok(()) => {
                    self.active = true;
                    self.inbox.tell(Command::Reached { raft_id: self.raft_id, at: Instant::now() });
                }
                Err(SendError::Removed) => {
                    self.inbox.tell(Command::RemovedByPeer);
                    return;
                }
                Err(error) => {
                    tracing::debug!(to = format_args!("{:x}", self.raft_id), %error, "a raft message was not sent");
                    self.active = false;
                    self.inbox.tell(Command::Unreachable { raft_id: self.raft_id });
                    held = None;
                    while messages.try_recv().is_ok() {}
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
