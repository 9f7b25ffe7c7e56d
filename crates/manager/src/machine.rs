//! The store behind the raft log: committed entries become views that everybody on this manager reads. Runs on the
//! driver's thread.

use std::sync::Arc;

use consensus::StateMachine;
use futures::future::BoxFuture;
use store::View;
use swarm_proto::swarmkit as p;

use crate::codec::{decode_actions, decode_snapshot, encode_snapshot};
use crate::shared::Shared;
use crate::sharing::{share_in_actions, share_in_snapshot};
use crate::writer::{Log, LostLeadership};

/// Applies the log to the store and publishes every commit.
pub(crate) struct StoreMachine {
    view: View,
    shared: Arc<Shared>,
}

impl StoreMachine {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { view: View::new(), shared }
    }
}

impl StateMachine for StoreMachine {
    fn apply(&mut self, index: u64, request: p::InternalRaftRequest) {
        // Every manager meets the same entry in the same state, so all skip it alike.
        let actions = match decode_actions(request.action) {
            Ok(actions) => share_in_actions(&self.view, actions),
            Err(error) => return tracing::error!(index, %error, "a raft entry was skipped"),
        };
        match self.view.apply(&actions) {
            Ok(events) => self.shared.publish(index, self.view.clone(), events),
            Err(error) => tracing::error!(index, %error, "a raft entry was skipped"),
        }
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> p::StoreSnapshot + Send> {
        let view = self.view.clone();
        Box::new(move || encode_snapshot(&view.snapshot()))
    }

    fn restore(&mut self, state: p::StoreSnapshot) -> Result<(), String> {
        let snapshot = share_in_snapshot(decode_snapshot(state).map_err(|error| error.to_string())?);
        self.view = View::restore(&snapshot).map_err(|error| error.to_string())?;
        self.shared.replace(self.view.clone());
        Ok(())
    }
}

/// The raft log as the writer sees it.
pub(crate) struct RaftLog(pub(crate) Arc<consensus::Handle>);

impl Log for RaftLog {
    fn propose(&self, term: u64, request: p::InternalRaftRequest) -> BoxFuture<'static, Result<(), LostLeadership>> {
        let proposed = self.0.propose_in_term(term, &request);
        Box::pin(async move {
            match proposed.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(LostLeadership),
            }
        })
    }

    fn last_index(&self) -> u64 {
        self.0.last_index()
    }
}
