//! The control API: validates what users ask for and writes it. Reads go to the committed view directly. Codes and texts
//! are SwarmKit's.
//!
//! ```text
//!  Control ──this manager leads──► LocalControl ──► Writer
//!     └──────another leads───────► its Control service ──► wait until this manager's view has it
//! ```

mod annotations;
mod cluster;
mod defaults;
mod network;
mod node;
mod remote;
mod resource;
mod secret;
mod service;
mod validate;
mod wherever;

use std::sync::Arc;

use consensus::Status as RaftStatus;
use identity::Credentials;
use tokio::sync::watch;

pub use cluster::{KeyRotation, check_cluster_spec, unlock_key};
pub use defaults::with_defaults;
pub use node::RemoveKind;
pub(crate) use node::{fill_manager_status, write_removed};
pub(crate) use remote::FindLeader;
pub use service::{ServiceCounts, UpdateKind, service_counts};

use crate::writer::Writer;

/// Writes of the control API, whichever manager leads.
#[derive(Clone)]
pub struct Control {
    local: LocalControl,
    leader: Arc<dyn FindLeader>,
}

/// Writes of the control API on the leading manager itself.
#[derive(Clone)]
pub(crate) struct LocalControl {
    writer: Arc<Writer>,
    group: watch::Receiver<RaftStatus>,
    /// Shown to external CAs.
    credentials: Credentials,
}

impl LocalControl {
    pub(crate) fn new(writer: Arc<Writer>, group: watch::Receiver<RaftStatus>, credentials: Credentials) -> Self {
        Self { writer, group, credentials }
    }

    /// The store that is written to.
    pub(crate) fn writer(&self) -> &Arc<Writer> {
        &self.writer
    }

    /// The raft group as this manager sees it.
    pub(crate) fn group(&self) -> watch::Ref<'_, RaftStatus> {
        self.group.borrow()
    }
}

impl Control {
    pub(crate) fn new(local: LocalControl, leader: Arc<dyn FindLeader>) -> Self {
        Self { local, leader }
    }
}
