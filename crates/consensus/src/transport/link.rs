//! One connection to one peer: dialled when it is needed, thrown away when a call on it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::health_client::HealthClient;
use swarm_proto::swarmkit::raft_client::RaftClient;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{error::Elapsed, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::chunks;

/// Longest time for a message, or for one chunk of a snapshot; SwarmKit's setting.
const WATCHDOG: Duration = Duration::from_secs(2);

/// Opens connections to other managers, as this one.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// A connection to the manager at `host:port`.
    async fn dial(&self, addr: &str) -> Result<Channel, DialError>;
}

/// A manager could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("{addr} could not be reached")]
pub struct DialError {
    /// Where it should be.
    pub addr: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("no answer in time")]
    TimedOut(#[from] Elapsed),
    #[error("{0}")]
    Answer(Box<Status>),
    /// The peer says that this manager is no member.
    #[error("this manager was removed from the cluster")]
    Removed,
    #[error("nobody is known to ask for the address")]
    UnknownAddress,
    #[error("it does not serve raft")]
    NotServing,
    #[error("the snapshot cannot be read: {0}")]
    Snapshot(std::io::Error),
    #[error("the snapshot at index {0} is no longer there")]
    SnapshotGone(u64),
}

impl From<Status> for SendError {
    fn from(status: Status) -> Self {
        Self::Answer(Box::new(status))
    }
}

/// One connection to one peer.
pub(super) struct Link {
    addr: String,
    dial: Arc<dyn Dial>,
    channel: Mutex<Option<Channel>>,
    /// It does not know StreamRaftMessage.
    unary: AtomicBool,
}

impl Link {
    pub(super) fn new(addr: String, dial: Arc<dyn Dial>) -> Self {
        Self { addr, dial, channel: Mutex::new(None), unary: AtomicBool::new(false) }
    }

    pub(super) fn addr(&self) -> &str {
        &self.addr
    }

    /// The connection, opened if there is none. Two that want it at once share it.
    async fn channel(&self) -> Result<Channel, DialError> {
        // Held while dialling: whoever else wants the connection has nothing better to do.
        let mut channel = self.channel.lock().await;
        match &*channel {
            Some(channel) => Ok(channel.clone()),
            None => Ok(channel.insert(self.dial.dial(&self.addr).await?).clone()),
        }
    }

    /// A failed call may mean a dead connection that the kernel will not give up for minutes.
    async fn settle<T>(&self, result: Result<T, SendError>) -> Result<T, SendError> {
        match result {
            Err(SendError::Answer(status)) if status.code() == Code::NotFound => {
                Err(if status.message().contains("removed") { SendError::Removed } else { SendError::Answer(status) })
            }
            Err(error) => {
                *self.channel.lock().await = None;
                Err(error)
            }
            done => done,
        }
    }

    /// Sends a message and waits for the answer.
    pub(super) async fn send(&self, message: raftpb::Message) -> Result<(), SendError> {
        let sent = timeout(WATCHDOG, self.send_unwatched(message)).await;
        self.settle(sent.map_err(SendError::from).and_then(|sent| sent)).await
    }

    async fn send_unwatched(&self, message: raftpb::Message) -> Result<(), SendError> {
        let mut client = RaftClient::new(self.channel().await?);
        if !self.unary.load(Ordering::Relaxed) {
            let request = p::StreamRaftMessageRequest { message: Some(message.clone()) };
            match client.stream_raft_message(tokio_stream::once(request)).await {
                Err(status) if status.code() == Code::Unimplemented => self.unary.store(true, Ordering::Relaxed),
                sent => return Ok(sent.map(drop)?),
            }
        }
        client.process_raft_message(p::ProcessRaftMessageRequest { message: Some(message) }).await?;
        Ok(())
    }

    /// Sends a snapshot in chunks; each has its own time.
    pub(super) async fn send_snapshot(&self, message: raftpb::Message) -> Result<(), SendError> {
        let sent = self.send_chunks(message).await;
        self.settle(sent).await
    }

    async fn send_chunks(&self, message: raftpb::Message) -> Result<(), SendError> {
        let channel = timeout(WATCHDOG, self.channel()).await??;
        let mut client = RaftClient::new(channel);
        let (sender, stream) = mpsc::channel(1);
        let call = client.stream_raft_message(ReceiverStream::new(stream));
        tokio::pin!(call);
        for chunk in chunks::split(message) {
            let request = p::StreamRaftMessageRequest { message: Some(chunk) };
            tokio::select! {
                // Polled on, or done: then the answer is the end of it.
                answer = &mut call => return Ok(answer.map(drop)?),
                // Its chunk is lost only together with the whole call.
                sent = timeout(WATCHDOG, sender.send(request)) => {
                    // A closed stream has an answer.
                    if sent?.is_err() {
                        break;
                    }
                }
            }
        }
        drop(sender);
        timeout(WATCHDOG, call).await??;
        Ok(())
    }

    /// Asks whether the peer serves raft.
    pub(super) async fn check_health(&self) -> Result<(), SendError> {
        let checked = timeout(WATCHDOG, async {
            let mut client = HealthClient::new(self.channel().await?);
            let request = p::HealthCheckRequest { service: "Raft".to_owned() };
            let answer = client.check(request).await?.into_inner();
            if answer.status == p::ServingStatus::Serving as i32 { Ok(()) } else { Err(SendError::NotServing) }
        });
        let checked = checked.await.map_err(SendError::from).and_then(|checked| checked);
        self.settle(checked).await
    }

    /// Asks the peer for another member's address.
    pub(super) async fn resolve(&self, raft_id: u64) -> Result<String, SendError> {
        let resolved = timeout(WATCHDOG, async {
            let mut client = RaftClient::new(self.channel().await?);
            Ok(client.resolve_address(p::ResolveAddressRequest { raft_id }).await?.into_inner().addr)
        });
        let resolved = resolved.await.map_err(SendError::from).and_then(|resolved| resolved);
        self.settle(resolved).await
    }
}
