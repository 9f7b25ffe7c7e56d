//! What can go wrong with images. Texts are dockerd's where it has one.

use std::io;

use oci_types::ReferenceError;

/// An operation on images that failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The text is no image reference.
    #[error("{0}")]
    InvalidReference(ReferenceError),
    /// Another argument is wrong.
    #[error("{0}")]
    InvalidParameter(String),
    /// No image of this name or id is in the store.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// Several ids start with this text.
    #[error("multiple IDs found with provided prefix: {0}")]
    AmbiguousId(String),
    /// The registry has the repository, but not this manifest.
    #[error("manifest for {reference} not found: {detail}")]
    ManifestUnknown {
        /// Familiar form of what was asked for.
        reference: String,
        /// The registry's words, `manifest unknown: manifest unknown`.
        detail: String,
    },
    /// The registry does not know the repository.
    #[error("repository {repository} not found: {detail}")]
    RepositoryUnknown {
        /// Familiar name.
        repository: String,
        /// The registry's words.
        detail: String,
    },
    /// The registry does not let us pull (or does not say whether the repository exists).
    #[error("pull access denied for {repository}, repository does not exist or may require 'docker login'{detail}")]
    PullDenied {
        /// Familiar name.
        repository: String,
        /// `: denied: requested access to the resource is denied`, or empty.
        detail: String,
    },
    /// The registry wants credentials, or better ones.
    #[error("{0}")]
    Unauthorized(String),
    /// Nobody answers, or not in time.
    #[error("Get \"{url}\": {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Go's words for it: `dial tcp 127.0.0.1:1: connect: connection refused`.
        reason: String,
    },
    /// The registry answered with an error that has no meaning of its own.
    #[error("{0}")]
    Registry(String),
    /// The index has no image for this platform.
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoMatchingPlatform(String),
    /// Content that is malformed, does not match its digest, or is hostile.
    #[error("{what}: {reason}")]
    BadContent {
        /// Which piece.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The image cannot be removed, or only with force.
    #[error("{0}")]
    Conflict(String),
    /// No space is left on the data root's device.
    #[error("{context}: no space left on device")]
    DiskFull {
        /// What was being written.
        context: String,
    },
    /// The caller went away.
    #[error("context canceled")]
    Cancelled,
    /// The data root belongs to something else or to a newer version.
    #[error("{0}")]
    ForeignData(String),
    /// The disk or the kernel refused.
    #[error("{context}")]
    Io {
        /// What was being done.
        context: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Classes of errors; the API's status follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// 400.
    InvalidParameter,
    /// 401 for `/auth`; 500 or 404 for pulls, as dockerd has it.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 409.
    Conflict,
    /// 503 or 500: the registry cannot be reached.
    Unavailable,
    /// The caller cancelled it.
    Cancelled,
    /// 500.
    System,
}

impl ImageError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidReference(_) | Self::InvalidParameter(_) | Self::AmbiguousId(_) => ErrorKind::InvalidParameter,
            Self::NoSuchImage(_)
            | Self::ManifestUnknown { .. }
            | Self::RepositoryUnknown { .. }
            | Self::PullDenied { .. }
            | Self::NoMatchingPlatform(_) => ErrorKind::NotFound,
            Self::Unauthorized(_) => ErrorKind::Unauthorized,
            Self::Unreachable { .. } => ErrorKind::Unavailable,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Registry(_)
            | Self::BadContent { .. }
            | Self::DiskFull { .. }
            | Self::ForeignData(_)
            | Self::Io { .. } => ErrorKind::System,
        }
    }

    /// Wraps an error of the disk, telling a full one from a broken one.
    pub(crate) fn io(context: impl Into<String>, source: io::Error) -> Self {
        let context = context.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { context },
            _ => Self::Io { context, source },
        }
    }

    pub(crate) fn bad(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::BadContent { what: what.into(), reason: reason.to_string() }
    }
}

impl From<ReferenceError> for ImageError {
    fn from(error: ReferenceError) -> Self {
        Self::InvalidReference(error)
    }
}
