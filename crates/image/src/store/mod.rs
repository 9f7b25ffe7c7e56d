//! The image store: the one handle through which all else is reached.

use std::io::Read;
use std::path::Path;

use oci_types::{Digest, Platform, Reference};

use crate::{
    AuthConfig, AuthStatus, Config, Distribution, ImageChange, ImageError, ImageRecord, Loaded, ProgressSender, Pulled,
    RegistryConfig, RemoveOptions, Rootfs,
};

/// The store. Cheap to clone; all clones are one store.
#[derive(Clone, Debug)]
pub struct ImageStore {}

fn unready() -> ImageError {
    ImageError::InvalidParameter("not built yet".into())
}

#[allow(unused_variables)]
impl ImageStore {
    /// Opens or makes the store under `data_root`, removing what an interrupted operation left. Blocking; called once.
    pub fn open(data_root: &Path, config: Config) -> Result<Self, ImageError> {
        Ok(Self {})
    }

    /// Takes new registry settings (SIGHUP).
    pub fn reconfigure(&self, registry: RegistryConfig) {}

    /// Pulls `reference` (a missing tag means `latest`) for `platform` (`None`: this machine's).
    /// Dropping the future cancels the pull; what has been downloaded is kept for the next attempt.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        auth: Option<&AuthConfig>,
        progress: ProgressSender,
    ) -> Result<Pulled, ImageError> {
        Err(unready())
    }

    /// Asks the registry what `reference` stands for. Fails in under two seconds if nobody answers.
    pub async fn distribution(
        &self,
        reference: &Reference,
        auth: Option<&AuthConfig>,
    ) -> Result<Distribution, ImageError> {
        Err(unready())
    }

    /// Checks credentials with the registry they name (`POST /auth`).
    pub async fn auth(&self, auth: &AuthConfig) -> Result<AuthStatus, ImageError> {
        Err(unready())
    }

    /// Loads the images of an archive: `docker save`'s or an OCI layout, compressed or not.
    pub async fn load(
        &self,
        archive: impl Read + Send + 'static,
        progress: ProgressSender,
    ) -> Result<Vec<Loaded>, ImageError> {
        Err(unready())
    }

    /// The image of this name, `name@digest`, id or unambiguous start of an id.
    pub fn resolve(&self, name_or_id: &str) -> Result<ImageRecord, ImageError> {
        Err(unready())
    }

    /// All images, in the order of their ids.
    pub fn list(&self) -> Vec<ImageRecord> {
        Vec::new()
    }

    /// Names an image; an image that had the name before loses it.
    pub async fn tag(&self, name_or_id: &str, target: &Reference) -> Result<(), ImageError> {
        Err(unready())
    }

    /// Removes a name, and with the last name the image. `used_by` tells the containers made of an image: their ids
    /// and whether they run.
    pub async fn remove(
        &self,
        name_or_id: &str,
        options: RemoveOptions,
        used_by: impl Fn(&Digest) -> Vec<(String, bool)> + Send,
    ) -> Result<Vec<ImageChange>, ImageError> {
        Err(unready())
    }

    /// Removes images that no container uses: those without a name, or with `all` every one. Answers with the
    /// changes and the bytes gained.
    pub async fn prune(
        &self,
        all: bool,
        keep: impl Fn(&ImageRecord) -> bool + Send,
    ) -> Result<(Vec<ImageChange>, u64), ImageError> {
        Err(unready())
    }

    /// Makes the root filesystem of a container; idempotent. It is not mounted.
    pub async fn prepare_rootfs(&self, container_id: &str, image: &ImageRecord) -> Result<Rootfs, ImageError> {
        Err(unready())
    }

    /// The root filesystem made before, also by an earlier daemon.
    pub fn rootfs(&self, container_id: &str) -> Result<Rootfs, ImageError> {
        Err(unready())
    }

    /// The containers that have a root filesystem.
    pub fn rootfs_containers(&self) -> Result<Vec<String>, ImageError> {
        Err(unready())
    }

    /// Mounts it in the daemon's mount namespace; idempotent.
    pub async fn mount(&self, container_id: &str) -> Result<Rootfs, ImageError> {
        Err(unready())
    }

    /// Unmounts it; idempotent.
    pub async fn unmount(&self, container_id: &str) -> Result<(), ImageError> {
        Err(unready())
    }

    /// Unmounts and removes it; idempotent.
    pub async fn remove_rootfs(&self, container_id: &str) -> Result<(), ImageError> {
        Err(unready())
    }

    /// Bytes of a container's own changes (`SizeRw`).
    pub async fn rootfs_size(&self, container_id: &str) -> Result<u64, ImageError> {
        Err(unready())
    }
}
