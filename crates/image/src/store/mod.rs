//! The image store: the one handle through which all else is reached.

pub(crate) mod blobs;
pub(crate) mod catalog;
mod download;
pub(crate) mod layers;
mod load;
mod pins;
mod pull;
mod remove;
mod rootfs;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use oci_types::{Digest, ImageDocument, Platform, Reference};
use tokio::sync::Semaphore;

use self::blobs::{Blobs, context, digest_of};
use self::catalog::{Catalog, CatalogFile, Stored, StoredLayer};
use self::layers::{LayerSource, Layers};
use self::pins::{KeyedLocks, Pins};
use crate::registry::Registries;
use crate::{
    AuthConfig, AuthStatus, Config, Distribution, ImageChange, ImageError, ImageRecord, Loaded, ProgressSender, Pulled,
    RegistryConfig, RemoveOptions, Rootfs,
};

/// The store. Cheap to clone; all clones are one store.
#[derive(Clone, Debug)]
pub struct ImageStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    blobs: Blobs,
    layers: Layers,
    catalog: CatalogFile,
    pins: Arc<Pins>,
    downloads: KeyedLocks,
    extractions: KeyedLocks,
    registries: RwLock<Settings>,
    /// Whether a thread flushes layers now.
    flushing: AtomicBool,
}

#[derive(Clone, Debug)]
struct Settings {
    registries: Arc<Registries>,
    download_slots: Arc<Semaphore>,
}

impl Settings {
    fn new(config: RegistryConfig) -> Self {
        let slots = Arc::new(Semaphore::new(config.max_concurrent_downloads.max(1)));
        Self { registries: Arc::new(Registries::new(config)), download_slots: slots }
    }
}

impl ImageStore {
    /// Opens or makes the store under `data_root`, removing what an interrupted operation left. Blocking; called once.
    pub fn open(data_root: &Path, config: Config) -> Result<Self, ImageError> {
        let image_root = data_root.join("image");
        let blobs = Blobs::open(&image_root)?;
        let catalog = CatalogFile::open(image_root.join("images.json"), &blobs)?;
        let layers = Layers::open(data_root.join("overlay2"), config.unpack_limits)?;
        let store = Self(Arc::new(Inner {
            blobs,
            layers,
            catalog,
            pins: Arc::default(),
            downloads: KeyedLocks::default(),
            extractions: KeyedLocks::default(),
            registries: RwLock::new(Settings::new(config.registry)),
            flushing: AtomicBool::new(false),
        }));
        store.0.restore_layers();
        store.0.collect_garbage(&[]);
        store.flush_later();
        Ok(store)
    }

    /// Takes new registry settings (SIGHUP).
    pub fn reconfigure(&self, registry: RegistryConfig) {
        *self.0.registries.write().unwrap_or_else(PoisonError::into_inner) = Settings::new(registry);
    }

    fn settings(&self) -> Settings {
        self.0.registries.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Pulls `reference` (a missing tag means `latest`) for `platform` (`None`: this machine's).
    /// Dropping the future cancels the pull; what has been downloaded is kept for the next attempt.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        auth: Option<&AuthConfig>,
        progress: ProgressSender,
    ) -> Result<Pulled, ImageError> {
        let pulled = pull::pull(self, reference.clone().with_default_tag(), platform, auth, progress).await?;
        self.flush_later();
        pulled.into_iter().next().ok_or_else(|| ImageError::NoSuchImage(reference.familiar()))
    }

    /// Pulls every tag that the registry has of a repository, one after the other; ends with the first that fails.
    pub async fn pull_all_tags(
        &self,
        repository: &Reference,
        platform: Option<&Platform>,
        auth: Option<&AuthConfig>,
        progress: ProgressSender,
    ) -> Result<Vec<Pulled>, ImageError> {
        let pulled = pull::pull(self, repository.repository(), platform, auth, progress).await?;
        self.flush_later();
        Ok(pulled)
    }

    /// Asks the registry what `reference` stands for. Fails in under two seconds if nobody answers.
    pub async fn distribution(
        &self,
        reference: &Reference,
        auth: Option<&AuthConfig>,
    ) -> Result<Distribution, ImageError> {
        self.settings().registries.distribution(&reference.clone().with_default_tag(), auth).await
    }

    /// Checks credentials with the registry they name (`POST /auth`).
    pub async fn auth(&self, auth: &AuthConfig) -> Result<AuthStatus, ImageError> {
        self.settings().registries.login(auth).await
    }

    /// Loads the images of an archive: `docker save`'s or an OCI layout, compressed or not.
    pub async fn load(
        &self,
        archive: impl Read + Send + 'static,
        progress: ProgressSender,
    ) -> Result<Vec<Loaded>, ImageError> {
        let cancel = CancelOnDrop::default();
        let cancelled = cancel.flag();
        let loaded = self.blocking(move |inner| load::load(inner, archive, &progress, &cancelled)).await?;
        self.flush_later();
        Ok(loaded)
    }

    /// The image of this name, `name@digest`, id or unambiguous start of an id.
    pub fn resolve(&self, name_or_id: &str) -> Result<ImageRecord, ImageError> {
        let catalog = self.0.catalog.current();
        let id = find(&catalog, name_or_id)?;
        Ok(self.0.record(&catalog, &id))
    }

    /// All images, in the order of their ids.
    pub fn list(&self) -> Vec<ImageRecord> {
        let catalog = self.0.catalog.current();
        catalog.images.keys().map(|id| self.0.record(&catalog, id)).collect()
    }

    /// Names an image; an image that had the name before loses it.
    pub async fn tag(&self, name_or_id: &str, target: &Reference) -> Result<(), ImageError> {
        if target.digest().is_some() {
            return Err(ImageError::InvalidParameter("refusing to create a tag with a digest reference".into()));
        }
        if target.familiar_name() == "sha256" {
            let text = "refusing to create an ambiguous tag using digest algorithm as name";
            return Err(ImageError::InvalidParameter(text.into()));
        }
        let (name_or_id, target) = (name_or_id.to_string(), target.clone().with_default_tag());
        self.blocking(move |inner| {
            let writer = inner.catalog.lock();
            let mut catalog = Catalog::clone(&inner.catalog.current());
            let id = find(&catalog, &name_or_id)?;
            catalog.tags.insert(target.to_string(), id.clone());
            if let Some(stored) = catalog.images.get_mut(&id) {
                stored.last_tag_time = Some(now());
            }
            inner.catalog.replace(catalog, &writer)
        })
        .await
    }

    /// Removes a name, and with the last name the image. `used_by` tells the containers made of an image: their ids
    /// and whether they run.
    pub async fn remove(
        &self,
        name_or_id: &str,
        options: RemoveOptions,
        used_by: impl Fn(&Digest) -> Vec<(String, bool)> + Send,
    ) -> Result<Vec<ImageChange>, ImageError> {
        let id = find(&self.0.catalog.current(), name_or_id)?;
        let used_by = used_by(&id);
        let name_or_id = name_or_id.to_string();
        self.blocking(move |inner| remove::remove(inner, &name_or_id, options, &used_by)).await
    }

    /// Removes images that no container uses: those without a name, or with `all` every one that `keep` does not
    /// claim. Answers with the changes and the bytes gained.
    pub async fn prune(
        &self,
        all: bool,
        keep: impl Fn(&ImageRecord) -> bool + Send,
    ) -> Result<(Vec<ImageChange>, u64), ImageError> {
        let wanted = |image: &ImageRecord| (all || image.repo_tags.is_empty()) && !keep(image);
        let images: Vec<ImageRecord> = self.list().into_iter().filter(wanted).collect();
        self.blocking(move |inner| remove::prune(inner, images)).await
    }

    /// Makes the root filesystem of a container; idempotent. It is not mounted.
    pub async fn prepare_rootfs(&self, container_id: &str, image: &ImageRecord) -> Result<Rootfs, ImageError> {
        let (container_id, chains) = (container_id.to_string(), layers::chain_ids(&image.layers));
        let image_id = image.id.clone();
        self.blocking(move |inner| {
            let _pin = inner.pins.pin(chains.clone());
            inner.layers.prepare(&container_id, &image_id, &chains)
        })
        .await
    }

    /// The root filesystem made before, also by an earlier daemon.
    pub fn rootfs(&self, container_id: &str) -> Result<Rootfs, ImageError> {
        self.0.layers.rootfs(container_id)
    }

    /// The containers that have a root filesystem.
    pub fn rootfs_containers(&self) -> Result<Vec<String>, ImageError> {
        self.0.layers.containers()
    }

    /// Mounts it in the daemon's mount namespace; idempotent.
    pub async fn mount(&self, container_id: &str) -> Result<Rootfs, ImageError> {
        let container_id = container_id.to_string();
        self.blocking(move |inner| inner.layers.mount(&container_id)).await
    }

    /// Unmounts it; idempotent.
    pub async fn unmount(&self, container_id: &str) -> Result<(), ImageError> {
        let container_id = container_id.to_string();
        self.blocking(move |inner| inner.layers.unmount(&container_id)).await
    }

    /// Unmounts and removes it; idempotent.
    pub async fn remove_rootfs(&self, container_id: &str) -> Result<(), ImageError> {
        let container_id = container_id.to_string();
        self.blocking(move |inner| inner.layers.remove_rootfs(&container_id)).await
    }

    /// Bytes of a container's own changes (`SizeRw`).
    pub async fn rootfs_size(&self, container_id: &str) -> Result<u64, ImageError> {
        let container_id = container_id.to_string();
        self.blocking(move |inner| inner.layers.rootfs_size(&container_id)).await
    }

    /// Sees to it that new layers reach the disk. Nobody waits for it: a process that ends before leaves layers without
    /// their mark, and the next one goes on.
    fn flush_later(&self) {
        if self.0.flushing.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = self.0.clone();
        let work = move || {
            while inner.layers.flush() {}
            inner.flushing.store(false, Ordering::Release);
        };
        if let Err(error) = std::thread::Builder::new().name("image-flush".into()).spawn(work) {
            self.0.flushing.store(false, Ordering::Release);
            tracing::warn!(%error, "no thread to flush layers");
        }
    }

    /// Runs disk work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let inner = self.0.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(ImageError::Cancelled),
        }
    }
}

impl Inner {
    /// Unpacks again the layers that are missing. An image whose layers cannot be had stays, and says so when used.
    fn restore_layers(&self) {
        let catalog = self.catalog.current();
        for (id, stored) in &catalog.images {
            for (index, layer) in stored.layers.iter().enumerate() {
                if self.layers.info(&layer.chain).is_some() {
                    continue;
                }
                let below: Vec<Digest> = stored.layers[..index].iter().map(|layer| layer.chain.clone()).collect();
                let restore = || -> Result<(), ImageError> {
                    let blob = layer.blob.as_ref().ok_or_else(|| ImageError::bad(id.to_string(), "has no blob"))?;
                    let path = self.blobs.path(blob);
                    let reader = File::open(&path).map_err(|error| ImageError::io(context("open", &path), error))?;
                    let source = LayerSource { reader, cancelled: Arc::default() };
                    self.layers.create(&layer.chain, &below, &layer.diff_id, source).map(drop)
                };
                if let Err(error) = restore() {
                    tracing::error!(image = %id, layer = %layer.chain, %error, "cannot restore a layer: pull the image again");
                    break;
                }
            }
        }
    }

    /// Puts an image into the catalog, with its names.
    fn commit_image(
        &self,
        document: &[u8],
        layers: Option<Vec<StoredLayer>>,
        manifests: Vec<Digest>,
        names: &[Reference],
    ) -> Result<(Digest, bool), ImageError> {
        let id = digest_of(document);
        let parsed: ImageDocument =
            serde_json::from_slice(document).map_err(|error| ImageError::bad(format!("image {id}"), error))?;
        self.blobs.write(document, &id)?;
        let writer = self.catalog.lock();
        let mut catalog = Catalog::clone(&self.catalog.current());
        let mut changed = false;
        if !catalog.images.contains_key(&id) {
            // `None`: the caller saw the image, but it has been removed since
            let layers = layers.ok_or_else(|| ImageError::NoSuchImage(id.to_string()))?;
            let document = Arc::new(parsed);
            catalog.images.insert(id.clone(), Stored { manifests: Vec::new(), layers, last_tag_time: None, document });
            changed = true;
        }
        let stored = catalog.images.get_mut(&id).expect("it was there or has been inserted");
        for manifest in manifests {
            if !stored.manifests.contains(&manifest) {
                stored.manifests.push(manifest);
                changed = true;
            }
        }
        for name in names {
            let map = if name.digest().is_some() { &mut catalog.digests } else { &mut catalog.tags };
            if map.insert(name.to_string(), id.clone()).as_ref() != Some(&id) {
                changed = true;
            }
        }
        if changed {
            if let Some(stored) = catalog.images.get_mut(&id).filter(|_| !names.is_empty()) {
                stored.last_tag_time = Some(now());
            }
            self.catalog.replace(catalog, &writer)?;
        }
        Ok((id, changed))
    }

    fn record(&self, catalog: &Catalog, id: &Digest) -> ImageRecord {
        let stored = &catalog.images[id];
        let document = &stored.document;
        let mut diffs: Vec<_> = stored.layers.iter().rev().map(|layer| self.layers.diff(&layer.chain)).collect();
        let upper_dir = (!diffs.is_empty()).then(|| diffs.remove(0));
        ImageRecord {
            id: id.clone(),
            repo_tags: familiar_names(&catalog.tags, id),
            repo_digests: familiar_names(&catalog.digests, id),
            config: document.config.clone(),
            platform: Platform {
                architecture: document.architecture.clone(),
                os: document.os.clone(),
                os_version: document.os_version.clone(),
                variant: document.variant.clone(),
            },
            created: document.created.clone(),
            author: document.author.clone(),
            comment: document.comment.clone(),
            docker_version: document.docker_version.clone(),
            size: stored.layers.iter().map(|layer| layer.size).sum(),
            layers: stored.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            history: document.history.clone(),
            layer_sizes: stored.layers.iter().map(|layer| layer.size).collect(),
            last_tag_time: stored.last_tag_time.clone(),
            upper_dir,
            lower_dirs: diffs,
        }
    }
}

/// Names of the image, as users write them.
fn familiar_names(map: &std::collections::BTreeMap<String, Digest>, id: &Digest) -> Vec<String> {
    let mut names: Vec<String> = map
        .iter()
        .filter(|(_, known)| *known == id)
        .filter_map(|(name, _)| Reference::parse(name).ok())
        .map(|reference| reference.familiar())
        .collect();
    names.sort();
    names
}

/// As dockerd: a whole id, a name, a name with digest, the start of an id; in this order.
fn find(catalog: &Catalog, text: &str) -> Result<Digest, ImageError> {
    const ID_START_MAX: usize = 64;
    let missing = || ImageError::NoSuchImage(text.to_string());
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = !hex.is_empty()
        && hex.len() <= ID_START_MAX
        && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && hex.len() == ID_START_MAX {
        let id = Digest::parse(&format!("sha256:{hex}")).map_err(|_| missing())?;
        return if catalog.images.contains_key(&id) { Ok(id) } else { Err(missing()) };
    }
    if !text.starts_with("sha256:") {
        let reference = Reference::parse(text)?.with_default_tag();
        if let Some(id) = find_reference(catalog, &reference) {
            return Ok(id);
        }
    }
    if !is_hex {
        return Err(ImageError::NoSuchImage(familiar_or(text)));
    }
    let mut matches = catalog.images.keys().filter(|id| id.hex().starts_with(hex));
    match (matches.next(), matches.next()) {
        (Some(id), None) => Ok(id.clone()),
        (Some(_), Some(_)) => Err(ImageError::AmbiguousId(text.to_string())),
        (None, _) => Err(ImageError::NoSuchImage(familiar_or(text))),
    }
}

/// dockerd's message names what it looked for: with the default tag.
fn familiar_or(text: &str) -> String {
    match Reference::parse(text) {
        Ok(reference) if !text.starts_with("sha256:") => reference.with_default_tag().familiar(),
        _ => text.to_string(),
    }
}

/// A digest decides if there is one; the tag beside it is decoration.
fn find_reference(catalog: &Catalog, reference: &Reference) -> Option<Digest> {
    match reference.digest() {
        None => catalog.tags.get(&reference.to_string()).cloned(),
        Some(digest) => {
            let pinned = reference.repository().with_digest(digest.clone());
            catalog.digests.get(&pinned.to_string()).cloned()
        }
    }
}

/// The time as docker writes it.
fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}

/// Tells blocking work that its caller went away.
#[derive(Debug, Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl CancelOnDrop {
    fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
