//! Errors as they cross gRPC: a status code and SwarmKit's text. All texts of the control API are chosen in this crate.

use store::StoreError;
use tonic::Code;

/// A refused or failed call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("rpc error: code = {code:?} desc = {desc}")]
pub struct ControlError {
    /// The gRPC status code.
    pub code: Code,
    /// SwarmKit's text.
    pub desc: String,
}

impl ControlError {
    /// An error with this code and text.
    pub fn new(code: Code, desc: impl Into<String>) -> Self {
        Self { code, desc: desc.into() }
    }

    /// `InvalidArgument`.
    pub fn invalid(desc: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, desc)
    }

    /// `NotFound`: `<kind> <id> not found`.
    pub fn not_found(kind: &str, id: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{kind} {id} not found"))
    }

    /// `FailedPrecondition`.
    pub fn precondition(desc: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, desc)
    }

    /// What a write ends with when leadership is lost under it.
    pub(crate) fn lost_leadership() -> Self {
        Self::new(Code::Unknown, "raft: failed to process the request: node lost leader status")
    }

    /// What a call ends with when nobody leads.
    pub(crate) fn no_leader() -> Self {
        Self::new(
            Code::Unknown,
            "The swarm does not have a leader. It's possible that too few managers are online. \
             Make sure more than half of the managers are online.",
        )
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::new(Code::Unknown, error.to_string())
    }
}

impl From<ControlError> for tonic::Status {
    fn from(error: ControlError) -> Self {
        Self::new(error.code, error.desc)
    }
}

impl From<tonic::Status> for ControlError {
    fn from(status: tonic::Status) -> Self {
        Self::new(status.code(), status.message())
    }
}
