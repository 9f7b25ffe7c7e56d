//! The dispatcher: registers nodes, expects their heartbeats, hands out assignments and takes statuses. Served over
//! gRPC; the same code serves the node's own agent and remote ones.
//!
//! ```text
//!  unknown ──Session──► ready ──no beat for 3 periods──► down ──Session──► ready
//! ```

mod assignments;
mod nodes;
mod service;
mod statuses;

use std::sync::Arc;

use model::{NodeId, TaskState, TaskStatus};
use tokio::sync::mpsc;

use crate::writer::Writer;
pub(crate) use nodes::Nodes;
pub use service::DispatcherService;

/// Status updates that may wait to be written; a node that sends more waits.
const STATUS_QUEUE: usize = 10_000;

/// One reported status.
#[derive(Debug)]
pub(crate) struct StatusUpdate {
    pub(crate) task: model::TaskId,
    pub(crate) node: NodeId,
    pub(crate) status: TaskStatus,
}

/// The dispatcher of a leading manager.
pub struct Dispatcher {
    writer: Arc<Writer>,
    nodes: Arc<Nodes>,
    statuses: mpsc::Sender<StatusUpdate>,
    manager: ManagerIdentity,
}

/// Who this manager is to the nodes.
#[derive(Clone, Debug)]
pub struct ManagerIdentity {
    /// Its node.
    pub node_id: NodeId,
    /// Where nodes reach it, `host:port`.
    pub advertise_addr: String,
    /// The trust root, PEM.
    pub root_ca: Vec<u8>,
}

impl Dispatcher {
    /// A dispatcher and the loops that it needs: statuses to the store, nodes that stopped beating to DOWN. They end
    /// with the returned guard.
    pub(crate) fn start(writer: Arc<Writer>, manager: ManagerIdentity) -> (Arc<Self>, tokio::task::JoinSet<()>) {
        let (sender, receiver) = mpsc::channel(STATUS_QUEUE);
        let nodes = Arc::new(Nodes::new());
        let mut loops = tokio::task::JoinSet::new();
        loops.spawn(statuses::run(writer.clone(), receiver, manager.node_id.clone()));
        loops.spawn(nodes::run_expiry(writer.clone(), nodes.clone()));
        (Arc::new(Self { writer, nodes, statuses: sender, manager }), loops)
    }

    /// A new leadership: sessions of an earlier one are over, nodes that do not come back are DOWN after a grace.
    pub(crate) fn begin(&self) {
        self.nodes.reset(&self.writer.shared().view());
    }

    /// Ends every session: leadership is lost or the manager stops.
    pub(crate) fn end(&self) {
        self.nodes.clear();
    }
}

/// Whether a reported status may replace the stored one: states never go back, and news must be news.
pub(crate) fn is_news(stored: &TaskStatus, reported: &TaskStatus) -> bool {
    if reported.state < stored.state || reported.state == TaskState::Remove {
        return false;
    }
    let mut same = reported.clone();
    same.applied_by = stored.applied_by.clone();
    same.applied_at = stored.applied_at;
    same != *stored
}
