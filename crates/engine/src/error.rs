//! What can go wrong in the engine. Texts are dockerd's; the kind decides the status that `api` answers with.

use std::io;
use std::path::Path;

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was named does not exist (404).
    NotFound,
    /// An argument is wrong (400).
    InvalidParameter,
    /// The state of things does not allow it (409).
    Conflict,
    /// It is so already (304).
    NotModified,
    /// It is not allowed (403).
    Forbidden,
    /// Not now (503).
    Unavailable,
    /// Not in this engine (501).
    NotImplemented,
    /// Our fault, or the machine's (500).
    Internal,
}

/// An operation of the engine that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    kind: ErrorKind,
    message: String,
}

impl EngineError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn no_such_container(name: &str) -> Self {
        Self::not_found(format!("No such container: {name}"))
    }

    pub(crate) fn not_running(id: &str) -> Self {
        Self::conflict(format!("container {id} is not running"))
    }

    pub(crate) fn restarting(id: &str) -> Self {
        Self::conflict(format!("Container {id} is restarting, wait until the container is running"))
    }

    pub(crate) fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::internal(format!("{what} {}: {error}", path.display()))
    }

    /// The owner of a container ended: it is being removed, or the engine shuts down.
    pub(crate) fn gone(id: &str) -> Self {
        Self::no_such_container(id)
    }
}

impl From<crate::NetworkError> for EngineError {
    fn from(error: crate::NetworkError) -> Self {
        Self::new(error.kind, error.text)
    }
}

impl From<image::ImageError> for EngineError {
    fn from(error: image::ImageError) -> Self {
        use image::ErrorKind as Of;
        let kind = match error.kind() {
            Of::NotFound => ErrorKind::NotFound,
            Of::InvalidParameter => ErrorKind::InvalidParameter,
            Of::Conflict => ErrorKind::Conflict,
            Of::Forbidden => ErrorKind::Forbidden,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
