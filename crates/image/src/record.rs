//! What the store tells about images and root filesystems.

use std::path::PathBuf;

use oci_types::{ContainerConfig, Digest, History, Platform};

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the configuration: the image id.
    pub id: Digest,
    /// Familiar names with tags: `alpine:3.20`; sorted.
    pub repo_tags: Vec<String>,
    /// Familiar names with the digests they were pulled by: `alpine@sha256:…`; sorted.
    pub repo_digests: Vec<String>,
    /// Defaults for containers.
    pub config: ContainerConfig,
    /// What it runs on.
    pub platform: Platform,
    /// RFC 3339 time of creation, as the image says.
    pub created: Option<String>,
    /// Who made it.
    pub author: String,
    /// Comment of the last commit.
    pub comment: String,
    /// Version of the docker that made it.
    pub docker_version: String,
    /// Bytes of all layers, unpacked.
    pub size: u64,
    /// Digests of the uncompressed layers, the base first.
    pub layers: Vec<Digest>,
    /// How each layer came to be, the oldest first.
    pub history: Vec<History>,
    /// Bytes of each layer, in the order of `layers`.
    pub layer_sizes: Vec<u64>,
    /// RFC 3339 time of the last `tag`, `pull` or `load` that named it.
    pub last_tag_time: Option<String>,
    /// Directory of the topmost layer (docker's `GraphDriver.Data.UpperDir`).
    pub upper_dir: Option<PathBuf>,
    /// Directories of the layers below it, topmost first.
    pub lower_dirs: Vec<PathBuf>,
}

/// The outcome of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub image: ImageRecord,
    /// Digest of the manifest or index that the name stood for.
    pub digest: Digest,
    /// Whether anything changed.
    pub newer: bool,
}

/// One image of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// Familiar names given to it.
    pub names: Vec<String>,
}

/// One line of an answer to a removal, and of the events that follow from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageChange {
    /// This familiar name is gone.
    Untagged(String),
    /// This image or layer is gone.
    Deleted(Digest),
}

/// How to remove an image.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Remove it from all its names, and while stopped containers use it.
    pub force: bool,
}

/// A container's root filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// The container.
    pub container_id: String,
    /// The image it was made of.
    pub image_id: Digest,
    /// Where it is mounted.
    pub merged: PathBuf,
    /// The container's own changes.
    pub upper: PathBuf,
    /// overlayfs' working directory.
    pub work: PathBuf,
    /// Layers, topmost first.
    pub lower: Vec<PathBuf>,
}
