//! Who calls: the node behind a connection, put into each request by the listener that authenticated it.

use model::NodeId;
use tonic::{Request, Status};

/// An authenticated node. Listeners insert it into the request's extensions; a request without one is refused.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The CN of its certificate, or this node for the local connection.
    pub node_id: NodeId,
    /// Its address as the listener saw it, `None` for the local connection.
    pub address: Option<String>,
}

impl Caller {
    /// The caller of a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let none = || Status::permission_denied("no client certificates in request");
        request.extensions().get::<Self>().cloned().ok_or_else(none)
    }
}
