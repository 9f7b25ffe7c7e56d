//! Who calls: the node behind a request, established by the gate in front of all services (`gate.rs`) from the
//! connection's certificate, from what a follower forwarded, or from the pipe of this node's own agent.

use model::{ClusterId, NodeId, NodeRole};
use tonic::{Request, Status};

/// An authenticated node that may call the method it calls. The gate puts it into the request's extensions; calls of
/// joiners, who have no certificate yet, come without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The CN of its certificate, or this node for the local connection.
    pub node_id: NodeId,
    /// What it may do here: the OU of its certificate, and never more than its node object allows. `None` if it has no
    /// role that SwarmKit knows.
    pub role: Option<NodeRole>,
    /// The O of its certificate.
    pub cluster_id: ClusterId,
    /// Its IP address as its own manager's listener saw it, `None` for the local connection.
    pub address: Option<String>,
    /// The manager that passed the call on, if it did not come directly.
    pub forwarded_by: Option<NodeId>,
    /// It is this node's own agent.
    pub local: bool,
}

impl Caller {
    /// The caller of a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let none = || Status::permission_denied("no client certificates in request");
        request.extensions().get::<Self>().cloned().ok_or_else(none)
    }

    /// The caller of a method that is open to strangers, too.
    pub(crate) fn known<T>(request: &Request<T>) -> Option<Self> {
        request.extensions().get::<Self>().cloned()
    }
}
