//! The one error type of the runtime: its text is what dockerd shows, so it follows runc's wording.

use std::path::PathBuf;

/// Why a run of the runtime failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Not a signal.
    #[error("unknown signal {0:?}")]
    Signal(String),
    /// The id is no file name.
    #[error("invalid container ID format: {0:?}")]
    InvalidId(String),
    /// `create` of an id that is taken.
    #[error("container with given ID already exists")]
    Exists,
    /// No such container.
    #[error("container does not exist")]
    NotFound,
    /// The container is in a state that does not allow the command.
    #[error("cannot {action} a container in the {status} state")]
    WrongStatus {
        /// What was asked.
        action: &'static str,
        /// The state's OCI name.
        status: &'static str,
    },
    /// `kill` of a container that has ended.
    #[error("container not running")]
    NotRunning,
    /// `delete` of a container that has not ended.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// The container.
        id: String,
        /// The state's OCI name.
        status: &'static str,
    },
    /// `create` failed before or inside the container.
    #[error("runc create failed: unable to start container process: {0}")]
    Create(String),
    /// `exec` failed before or inside the container.
    #[error("exec failed: unable to start container process: {0}")]
    Exec(String),
    /// A file could not be read, written or parsed.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A system call failed.
    #[error("{action}: {source}")]
    Os {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// `libcontainer` failed.
    #[error("{0}")]
    Container(String),
}

impl RuntimeError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> RuntimeError {
        let path = path.into();
        move |source| RuntimeError::File { action, path, source }
    }

    pub(crate) fn os(action: &'static str) -> impl FnOnce(nix::Error) -> RuntimeError {
        move |errno| RuntimeError::Os { action, source: errno.into() }
    }
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Transparent wrappers repeat the text of what they wrap.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}
