//! What comes to the raft thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use swarm_proto::raftpb;
use tokio::sync::oneshot;

use crate::cipher::Dek;
use crate::core::{ChangeError, Delivery, MemberChange, SnapshotPolicy};
use crate::driver::{ProposeError, RotateError, StartError, Timing, TransferError};

/// Proposals and messages that may wait; more are refused.
const QUEUE: usize = 65_536;

/// What comes to the raft thread.
pub(crate) enum Command {
    Propose {
        data: Vec<u8>,
        term: u64,
        done: oneshot::Sender<Result<u64, ProposeError>>,
    },
    Step(Box<raftpb::Message>),
    Change {
        change: MemberChange,
        done: oneshot::Sender<Result<u64, ChangeError>>,
    },
    Transfer {
        done: oneshot::Sender<Result<(), TransferError>>,
    },
    Campaign,
    SetTiming(Timing),
    SetSnapshots(SnapshotPolicy),
    RotateDek {
        dek: Dek,
        done: oneshot::Sender<Result<(), RotateError>>,
    },
    /// A peer took a message at this moment, and had not taken the one before.
    Reached {
        raft_id: u64,
        at: Instant,
    },
    /// A peer did not take a message.
    Unreachable {
        raft_id: u64,
    },
    SnapshotSent {
        raft_id: u64,
        delivery: Delivery,
    },
    /// A peer says that this manager is no member.
    RemovedByPeer,
    Persisted(u64),
    DiskFailed(Box<StartError>),
    SnapshotStored {
        index: u64,
        /// Size of its data.
        bytes: u64,
        key_generation: u64,
    },
    SnapshotFailed,
    Stop,
}

/// The way into the raft thread.
#[derive(Clone)]
pub(crate) struct Inbox {
    sender: Sender<Command>,
    /// What [`Inbox::offer`] put in and the thread has not taken out.
    waiting: Arc<AtomicUsize>,
}

/// Why something could not be put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Stopped,
}

/// The raft thread's end.
pub(crate) struct Outbox {
    receiver: Receiver<Command>,
    waiting: Arc<AtomicUsize>,
}

/// A new inbox.
pub(crate) fn inbox() -> (Inbox, Outbox) {
    let (sender, receiver) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Inbox { sender, waiting: waiting.clone() }, Outbox { receiver, waiting })
}

impl Inbox {
    /// Puts in what comes from outside, up to the limit.
    pub(crate) fn offer(&self, command: Command) -> Result<(), (Refused, Command)> {
        if self.waiting.load(Ordering::Relaxed) >= QUEUE {
            return Err((Refused::Full, command));
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.sender.send(command).map_err(|error| (Refused::Stopped, error.0))
    }

    /// Puts in word of our own machinery, which has limits of its own. A thread that has ended needs none.
    pub(crate) fn tell(&self, command: Command) {
        self.sender.send(command).ok();
    }
}

impl Outbox {
    /// The next command, or `None` when the time is up.
    pub(crate) fn next(&self, timeout: Duration) -> Result<Option<Command>, RecvTimeoutError> {
        match self.receiver.recv_timeout(timeout) {
            Ok(command) => Ok(Some(self.taken(command))),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(RecvTimeoutError::Disconnected),
        }
    }

    /// The next command if there is one.
    pub(crate) fn try_next(&self) -> Option<Command> {
        self.receiver.try_recv().ok().map(|command| self.taken(command))
    }

    fn taken(&self, command: Command) -> Command {
        use Command as C;
        if matches!(command, C::Propose { .. } | C::Step(_) | C::Change { .. } | C::Transfer { .. }) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        command
    }
}
