//! What images there are and what they are called: `image/images.json`, replaced atomically on every change.
//!
//! Readers take the current version without waiting; writers replace it one after another.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use oci_types::{Digest, ImageDocument};
use serde::{Deserialize, Serialize};

use super::blobs::{Blobs, context};
use crate::ImageError;

/// The format this version writes; a newer one is refused untouched.
const FORMAT: u32 = 1;

/// `images.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Catalog {
    format: u32,
    /// Full `repository:tag` to image.
    pub(crate) tags: BTreeMap<String, Digest>,
    /// Full `repository@digest` to image.
    pub(crate) digests: BTreeMap<String, Digest>,
    /// Images by id.
    pub(crate) images: BTreeMap<Digest, Stored>,
}

/// One image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// Manifests and indexes that led to it.
    pub(crate) manifests: Vec<Digest>,
    /// Its layers, the base first.
    pub(crate) layers: Vec<StoredLayer>,
    /// RFC 3339 time of the last naming.
    pub(crate) last_tag_time: Option<String>,
    /// The configuration, read from its blob.
    #[serde(skip)]
    pub(crate) document: Arc<ImageDocument>,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredLayer {
    pub(crate) diff_id: Digest,
    pub(crate) chain: Digest,
    /// The blob it came as; may have been skipped if the chain was there.
    pub(crate) blob: Option<Digest>,
    pub(crate) size: u64,
}

impl Default for Catalog {
    fn default() -> Self {
        Self { format: FORMAT, tags: BTreeMap::new(), digests: BTreeMap::new(), images: BTreeMap::new() }
    }
}

/// The catalog on its disk.
#[derive(Debug)]
pub(crate) struct CatalogFile {
    path: PathBuf,
    current: RwLock<Arc<Catalog>>,
    writer: Mutex<()>,
}

impl CatalogFile {
    pub(crate) fn open(path: PathBuf, blobs: &Blobs) -> Result<Self, ImageError> {
        let mut catalog = match fs::read(&path) {
            Ok(bytes) => parse(&bytes, &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Catalog::default(),
            Err(error) => return Err(ImageError::io(context("read", &path), error)),
        };
        catalog.images.retain(|id, stored| match read_document(blobs, id) {
            Ok(document) => {
                stored.document = Arc::new(document);
                true
            }
            Err(error) => {
                tracing::warn!(image = %id, %error, "image left out: its configuration cannot be read");
                false
            }
        });
        let known = catalog.images.clone();
        catalog.tags.retain(|_, id| known.contains_key(id));
        catalog.digests.retain(|_, id| known.contains_key(id));
        Ok(Self { path, current: RwLock::new(Arc::new(catalog)), writer: Mutex::new(()) })
    }

    /// The current version.
    pub(crate) fn current(&self) -> Arc<Catalog> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Becomes the only writer.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a new version; the guard proves that nobody else does. Blocking.
    pub(crate) fn replace(&self, catalog: Catalog, _writer: &MutexGuard<'_, ()>) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(&catalog).map_err(|error| ImageError::bad("images.json", error))?;
        replace_file(&self.path, &bytes).map_err(|error| ImageError::io(context("write", &self.path), error))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
        Ok(())
    }
}

fn parse(bytes: &[u8], path: &Path) -> Result<Catalog, ImageError> {
    #[derive(Deserialize)]
    struct Header {
        format: u32,
    }
    let damaged = |error| ImageError::bad(path.display().to_string(), error);
    let header: Header = serde_json::from_slice(bytes).map_err(damaged)?;
    if header.format > FORMAT {
        return Err(ImageError::ForeignData(format!(
            "{} was written by a newer version (format {}, this one knows {FORMAT})",
            path.display(),
            header.format
        )));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

fn read_document(blobs: &Blobs, id: &Digest) -> Result<ImageDocument, ImageError> {
    serde_json::from_slice(&blobs.read(id)?).map_err(|error| ImageError::bad(format!("image {id}"), error))
}

/// Replaces a file so that after a crash either the old or the new content is there.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
