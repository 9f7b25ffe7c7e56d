//! What others hold of a running driver.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use prost::Message;
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;
use tokio::sync::{oneshot, watch};

use crate::cipher::Dek;
use crate::core::{ChangeError, MemberChange, SnapshotPolicy, StepError, check_sender, is_vote};
use crate::driver::{ProposeError, RotateError, Timing, TransferError};
use crate::inbox::{Command, Inbox, Refused};
use crate::status::Status;
use crate::transport::Peers;

/// SwarmKit's limit for one request.
pub const MAX_REQUEST_BYTES: usize = 3 << 19;

/// What becomes of a proposal: `Ok` when it is committed and applied here.
pub type Proposed = oneshot::Receiver<Result<u64, ProposeError>>;

/// Why a message from a peer was not taken. Only [`StepError::SenderRemoved`] is told to SwarmKit's sender.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// It may not be sent, not from there, or not to here.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A candidate that nobody can reach must not win.
    #[error("the candidate {0:x} could not be reached")]
    CandidateUnreachable(u64),
    /// Too many wait.
    #[error("raft's queue is full")]
    Busy,
    /// The driver has ended.
    #[error("raft is stopped")]
    Stopped,
}

/// Handle of a running driver. Dropping it stops the driver.
pub struct Handle {
    pub(crate) inbox: Inbox,
    pub(crate) last_index: Arc<AtomicU64>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    /// Appends a request after all that were given before, in the term that the status shows.
    pub fn propose(&self, request: &p::InternalRaftRequest) -> Proposed {
        let term = self.status.borrow().term;
        self.propose_in_term(term, request)
    }

    /// Appends a request after all that were given before, unless another term has begun: what was planned on the state
    /// of one leadership is not written in the next.
    pub fn propose_in_term(&self, term: u64, request: &p::InternalRaftRequest) -> Proposed {
        let (done, proposed) = oneshot::channel();
        let data = request.encode_to_vec();
        if data.len() > MAX_REQUEST_BYTES {
            done.send(Err(ProposeError::TooLarge(data.len()))).ok();
        } else if let Err((refused, Command::Propose { done, .. })) =
            self.inbox.offer(Command::Propose { data, term, done })
        {
            let error = match refused {
                Refused::Full => ProposeError::Busy,
                Refused::Stopped => ProposeError::LostLeadership,
            };
            done.send(Err(error)).ok();
        }
        proposed
    }

    /// Adds a member. Ready when the change is applied here; returns its index.
    pub async fn add_member(&self, member: p::RaftMember) -> Result<u64, ChangeError> {
        self.change(MemberChange::Add(member)).await
    }

    /// Changes a member's address. Ready when the change is applied here.
    pub async fn update_member(&self, member: p::RaftMember) -> Result<u64, ChangeError> {
        self.change(MemberChange::Update(member)).await
    }

    /// Removes a member. Ready when the change is applied here. [`Status::can_remove`] is for the caller to ask.
    pub async fn remove_member(&self, raft_id: u64) -> Result<u64, ChangeError> {
        self.change(MemberChange::Remove(raft_id)).await
    }

    async fn change(&self, change: MemberChange) -> Result<u64, ChangeError> {
        let (done, changed) = oneshot::channel();
        match self.inbox.offer(Command::Change { change, done }) {
            Err((Refused::Full, _)) => return Err(ChangeError::Busy),
            Err((Refused::Stopped, _)) => return Err(ChangeError::LostLeadership),
            Ok(()) => {}
        }
        changed.await.unwrap_or(Err(ChangeError::LostLeadership))
    }

    /// Hands leadership to the member that has been reachable for the longest time. Ready when another one leads.
    pub async fn transfer_leadership(&self) -> Result<(), TransferError> {
        let (done, transferred) = oneshot::channel();
        if self.inbox.offer(Command::Transfer { done }).is_err() {
            return Err(TransferError::Stopped);
        }
        transferred.await.unwrap_or(Err(TransferError::Stopped))
    }

    /// Takes a message from an authenticated manager. A vote waits until the candidate has shown that it can be reached.
    pub async fn receive(&self, message: raftpb::Message) -> Result<(), ReceiveError> {
        let candidate = {
            let status = self.status.borrow();
            check_sender(status.raft_id, &status.removed, &status.members, &message)?;
            is_vote(&message).then(|| status.members.get(&message.from).map(|member| member.addr.clone()))
        };
        if let Some(addr) = candidate.flatten()
            && !self.peers.is_healthy(message.from, &addr).await
        {
            return Err(ReceiveError::CandidateUnreachable(message.from));
        }
        match self.inbox.offer(Command::Step(Box::new(message))) {
            Ok(()) => Ok(()),
            Err((Refused::Full, _)) => Err(ReceiveError::Busy),
            Err((Refused::Stopped, _)) => Err(ReceiveError::Stopped),
        }
    }

    /// The address of a member, for peers that ask.
    pub fn resolve_address(&self, raft_id: u64) -> Option<String> {
        self.status.borrow().members.get(&raft_id).map(|member| member.addr.clone())
    }

    /// Stands for election now.
    pub fn campaign(&self) {
        self.inbox.tell(Command::Campaign);
    }

    /// Changes the timing. When ticks get shorter the leader must change first, when they get longer last: heartbeats
    /// must never be rarer than the others' patience is long.
    pub fn set_timing(&self, timing: Timing) {
        self.inbox.tell(Command::SetTiming(timing));
    }

    /// Changes when snapshots are made.
    pub fn set_snapshot_policy(&self, policy: SnapshotPolicy) {
        self.inbox.tell(Command::SetSnapshots(policy));
    }

    /// Seals everything from now on with another key, which must be in the key file as the pending one already. Ready
    /// when the old key is needed no more and can leave the key file.
    pub async fn rotate_dek(&self, dek: Dek) -> Result<(), RotateError> {
        let (done, rotated) = oneshot::channel();
        self.inbox.tell(Command::RotateDek { dek, done });
        rotated.await.unwrap_or(Err(RotateError::Stopped))
    }

    /// The last index in this manager's log.
    pub fn last_index(&self) -> u64 {
        self.last_index.load(Ordering::Acquire)
    }

    /// Where the group stands.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Stops the driver and waits for its threads; blocks for what is being written. Later calls do nothing.
    pub fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        self.inbox.tell(Command::Stop);
        if thread.join().is_err() {
            tracing::error!("the raft thread panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}
