//! Content by digest: `image/blobs/sha256/<hex>`, and downloads on their way: `image/ingest/<hex>.part`.
//!
//! A blob is written elsewhere, synced, verified, and renamed to its final name: whoever sees the name sees all of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use oci_types::Digest;

use crate::ImageError;

/// Largest manifest, index or configuration.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// How long content of an interrupted pull is kept for the next attempt.
const UNREFERENCED_KEEP: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(crate) struct Blobs {
    blobs: PathBuf,
    ingest: PathBuf,
    counter: AtomicU64,
}

impl Blobs {
    pub(crate) fn open(root: &Path) -> Result<Self, ImageError> {
        let blobs = root.join("blobs/sha256");
        let ingest = root.join("ingest");
        for directory in [&blobs, &ingest] {
            fs::create_dir_all(directory).map_err(|error| ImageError::io(context("make", directory), error))?;
        }
        let this = Self { blobs, ingest, counter: AtomicU64::new(0) };
        this.sweep_ingest()?;
        Ok(this)
    }

    /// Temporary files of an earlier process go at once, partial downloads when they are old.
    fn sweep_ingest(&self) -> Result<(), ImageError> {
        let list = fs::read_dir(&self.ingest).map_err(|error| ImageError::io(context("list", &self.ingest), error))?;
        for entry in list.flatten() {
            let partial = entry.file_name().to_string_lossy().ends_with(".part");
            let old = entry.metadata().is_ok_and(|metadata| is_old(&metadata));
            if !partial || old {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Where a download of this digest is collected.
    pub(crate) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.ingest.join(format!("{}.part", digest.hex()))
    }

    /// A file of this process alone.
    pub(crate) fn temporary(&self) -> Result<(PathBuf, File), ImageError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let path = self.ingest.join(format!("{}-{number}.tmp", std::process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|error| ImageError::io(context("create", &path), error))?;
        Ok((path, file))
    }

    /// Gives a finished and verified file its final name.
    pub(crate) fn commit(&self, finished: &Path, digest: &Digest) -> Result<(), ImageError> {
        let target = self.path(digest);
        let commit = || -> io::Result<()> {
            File::open(finished)?.sync_all()?;
            fs::rename(finished, &target)?;
            File::open(&self.blobs)?.sync_all()
        };
        commit().map_err(|error| ImageError::io(context("commit", &target), error))
    }

    /// Writes a small document; a blob that is there already is left alone.
    pub(crate) fn write(&self, bytes: &[u8], digest: &Digest) -> Result<(), ImageError> {
        if self.has(digest) {
            return Ok(());
        }
        let (path, mut file) = self.temporary()?;
        let written = file.write_all(bytes).map_err(|error| ImageError::io(context("write", &path), error));
        written.and_then(|()| self.commit(&path, digest)).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })
    }

    /// Reads a small document and verifies it.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.path(digest);
        let file = File::open(&path).map_err(|error| ImageError::io(context("open", &path), error))?;
        let mut bytes = Vec::new();
        file.take(DOCUMENT_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error| ImageError::io(context("read", &path), error))?;
        if digest_of(&bytes) != *digest {
            return Err(ImageError::bad(digest.to_string(), "stored content does not match its digest"));
        }
        Ok(bytes)
    }

    pub(crate) fn remove(&self, digest: &Digest) {
        if let Err(error) = fs::remove_file(self.path(digest))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%digest, %error, "cannot remove blob");
        }
    }

    /// The blobs that are old enough to be garbage if nothing refers to them.
    pub(crate) fn list_old(&self) -> Vec<Digest> {
        let Ok(list) = fs::read_dir(&self.blobs) else { return Vec::new() };
        list.flatten()
            .filter(|entry| entry.metadata().is_ok_and(|metadata| is_old(&metadata)))
            .filter_map(|entry| Digest::parse(&format!("sha256:{}", entry.file_name().to_string_lossy())).ok())
            .collect()
    }
}

fn is_old(metadata: &fs::Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    age.is_some_and(|age| age > UNREFERENCED_KEEP)
}

pub(crate) fn context(action: &str, path: &Path) -> String {
    format!("{action} {}", path.display())
}

/// The digest of `bytes`.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// A digest in the making.
#[derive(Clone)]
pub(crate) struct Hasher(ring::digest::Context);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        let digest = self.0.finish();
        Digest::from_bytes(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

/// A reader that hashes what passes, and fails once the operation is cancelled.
pub(crate) struct HashingReader<R> {
    source: R,
    hasher: Hasher,
    cancelled: Arc<AtomicBool>,
}

impl<R: Read> HashingReader<R> {
    pub(crate) fn new(source: R, cancelled: Arc<AtomicBool>) -> Self {
        Self { source, hasher: Hasher::new(), cancelled }
    }

    /// The digest of all that passed.
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let count = self.source.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
