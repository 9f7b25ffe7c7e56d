//! Images: the registry client, the content-addressed store and the overlayfs snapshots that containers run on.
//!
//! Everything is reached through [`ImageStore`]. Its data lives in two directories of the data root:
//! `image/` (blobs, records) and `overlay2/` (one directory per layer, shared by all containers; one per container).
//!
//! Invariants:
//! - a blob, a layer or a record appears under its final name complete and verified, or not at all;
//! - what an image, a container or a running pull refers to is never removed;
//! - a layer's tar can write nowhere but in its own directory.

#![forbid(unsafe_code)]

mod auth;
mod config;
mod error;
mod progress;
mod record;
mod registry;
mod store;
pub mod unpack;

pub use auth::{AuthConfig, AuthStatus, Distribution};
pub use config::{Config, RegistryConfig, UnpackLimits};
pub use error::{ErrorKind, ImageError};
pub use progress::{LayerStatus, Progress, ProgressMessage, ProgressSender};
pub use record::{ImageChange, ImageRecord, Loaded, Pulled, RemoveOptions, Rootfs};
pub use store::ImageStore;
