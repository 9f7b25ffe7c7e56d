//! The handle of a container: a mailbox to its owner, and what the owner last showed.

use std::sync::Arc;

use bytes::Bytes;
use docker_types::container::{EndpointSettings, HealthLog, HostConfig};
use tokio::sync::{mpsc, oneshot, watch};

use crate::options::{AttachOptions, DisconnectMode, RemoveOptions, StopOptions};
use crate::record::{ContainerPaths, Record};
use crate::shim_client::ShimClient;
use crate::{EngineError, OutputFrame};

/// Commands that may wait for an owner; further senders wait too.
pub(crate) const MAILBOX_COMMANDS: usize = 64;

/// Where the answer goes. A caller that went away is no failure.
pub(crate) type Reply<T = ()> = oneshot::Sender<Result<T, EngineError>>;

/// What an owner can be asked.
#[derive(Debug)]
pub(crate) enum Command {
    Start {
        reply: Reply,
    },
    Stop {
        options: StopOptions,
        reply: Reply,
    },
    Restart {
        options: StopOptions,
        reply: Reply,
    },
    Kill {
        signal: Option<String>,
        reply: Reply,
    },
    Pause {
        reply: Reply,
    },
    Unpause {
        reply: Reply,
    },
    Rename {
        name: String,
        reply: Reply,
    },
    Update {
        /// The changes, as the settings of a container that has nothing else.
        asked: Box<HostConfig>,
        reply: Reply,
    },
    Connect {
        network: String,
        settings: Box<EndpointSettings>,
        reply: Reply,
    },
    Disconnect {
        network: String,
        mode: DisconnectMode,
        reply: Reply,
    },
    Attach {
        options: AttachOptions,
        streams: AttachStreams,
        reply: Reply,
    },
    Remove {
        options: RemoveOptions,
        reply: Reply,
    },
    /// From its own health checks.
    Probed {
        run: u64,
        probe: HealthLog,
        outcome: ProbeOutcome,
    },
    /// The daemon ends and leaves the container as it is.
    Leave {
        reply: Reply,
    },
}

/// What one health check said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeOutcome {
    /// Exit code 0.
    Good,
    /// Anything else.
    Bad,
}

/// The owner's ends of the streams of an attacher.
#[derive(Debug)]
pub(crate) struct AttachStreams {
    pub(crate) output: mpsc::Sender<OutputFrame>,
    pub(crate) input: mpsc::Receiver<Bytes>,
}

/// What the owner shows of a container.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) record: Arc<Record>,
    /// Ends seen by this daemon.
    pub(crate) exits: u64,
    /// The shim while there is one.
    pub(crate) shim: Option<ShimClient>,
    /// It is gone.
    pub(crate) removed: bool,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) paths: ContainerPaths,
    pub(crate) mailbox: mpsc::Sender<Command>,
    pub(crate) view: watch::Receiver<Arc<View>>,
}

impl Container {
    /// What is known now.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        self.view.borrow().record.clone()
    }

    /// Asks the owner and waits for its answer.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(command(reply)).await.map_err(|_| EngineError::gone(&self.id))?;
        answer.await.map_err(|_| EngineError::gone(&self.id))?
    }
}
