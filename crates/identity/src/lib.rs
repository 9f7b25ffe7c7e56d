//! Who is who in a swarm: the cluster's root CA, node certificates, join tokens, keys, and how they lie on disk. Formats
//! are SwarmKit's, so that a dockerd can take them over.

#![forbid(unsafe_code)]

mod authority;
mod disk;
mod keys;
mod lock;
mod random;
mod token;

pub use authority::{Issued, RootAuthority, certificate_expiry, tls_info};
pub use disk::{CertificateFiles, DiskError, NodeIdentity};
pub use keys::{KeyFile, parse_unlock_key, unlock_key_text};
pub use lock::KeyFileError;
pub use random::{new_dek, new_kek, random_bytes, random_id, random_raft_id};
pub use token::{ca_cert_hash, new_join_token};

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Making or signing a certificate failed.
    #[error("a certificate could not be made")]
    Make(#[from] rcgen::Error),
    /// A certificate or key could not be read.
    #[error("not a usable certificate: {0}")]
    Read(String),
}
