//! Documents of the OCI image and distribution specifications and of Docker's own image formats, and image references.
//!
//! Only words: nothing here reads a file or a socket. Null, missing and empty mean the same to Go and so they do here.

#![forbid(unsafe_code)]

mod archive;
mod config;
mod digest;
mod manifest;
mod reference;

pub use archive::ArchiveEntry;
pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageDocument, RootFs};
pub use digest::{Digest, DigestError};
pub use manifest::{Compression, Descriptor, Index, Manifest, Platform, media_type};
pub use reference::{DEFAULT_DOMAIN, DEFAULT_TAG, Reference, ReferenceError};

/// Reads Go's `null` as the type's default.
fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}
