//! What a manager does while it leads, beside planning and dispatching: each a loop of its own, ended with the leadership.

use std::sync::Arc;

use identity::Credentials;
use tokio::task::JoinSet;

use crate::writer::Writer;
use crate::{ca, key_manager, role_manager};

/// What the loops work with.
pub(crate) struct Duties {
    pub(crate) writer: Arc<Writer>,
    pub(crate) raft: Arc<consensus::Handle>,
    pub(crate) credentials: Credentials,
}

impl Duties {
    /// Starts them; they end when the set is dropped.
    pub(crate) fn start(&self) -> JoinSet<()> {
        let mut loops = JoinSet::new();
        loops.spawn(ca::run_signer(self.writer.clone(), self.credentials.clone()));
        loops.spawn(ca::run_reconciler(self.writer.clone()));
        loops.spawn(role_manager::run(self.writer.clone(), self.raft.clone()));
        loops.spawn(key_manager::run(self.writer.clone()));
        loops
    }
}
