//! Unpacked layers: `overlay2/layers/<chain>/{diff,layer.json}`, shared by all images and containers.
//!
//! A layer is made in `overlay2/tmp` and renamed: it is there complete or not at all. Flushing thousands of files takes
//! long on a busy disk, and everything can be had again from the blob, which is on the disk before: so a layer is used
//! at once and flushed in the background, and `synced` marks that this is done. A layer without the mark that comes
//! from before the machine's last start is not trusted but unpacked again.
//! `overlay2/l/<link>` are short names, for the list of lower directories of a mount must fit into one page.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use oci_types::{Compression, Digest};
use serde::{Deserialize, Serialize};

use super::blobs::{HashingReader, context, digest_of};
use crate::unpack::{UnpackError, unpack_layer};
use crate::{ImageError, UnpackLimits};

const LINK_DIGITS_MIN: usize = 6;
const READ_BUFFER_BYTES: usize = 128 << 10;

#[derive(Debug)]
pub(crate) struct Layers {
    root: PathBuf,
    counter: AtomicU64,
    limits: UnpackLimits,
    /// Names the time since the machine's last start.
    boot_id: String,
    /// Layers that are not flushed yet.
    unsynced: Mutex<Vec<Digest>>,
}

/// `layer.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerInfo {
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
    pub(crate) link: String,
    boot_id: String,
}

/// The chain ids of a list of layers: each stands for a layer with all below it.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let chain = match chains.last() {
            None => diff_id.clone(),
            Some(below) => digest_of(format!("{below} {diff_id}").as_bytes()),
        };
        chains.push(chain);
    }
    chains
}

/// Where the bytes of a layer come from, and who may stop the work.
pub(crate) struct LayerSource<R> {
    pub(crate) reader: R,
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Layers {
    pub(crate) fn open(root: PathBuf, limits: UnpackLimits) -> Result<Self, ImageError> {
        for name in ["layers", "tmp", "l", "containers"] {
            let directory = root.join(name);
            fs::create_dir_all(&directory).map_err(|error| ImageError::io(context("make", &directory), error))?;
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string();
        let this = Self { root, counter: AtomicU64::new(0), limits, boot_id, unsynced: Mutex::default() };
        let tmp = this.root.join("tmp");
        let list = fs::read_dir(&tmp).map_err(|error| ImageError::io(context("list", &tmp), error))?;
        for entry in list.flatten() {
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove what an earlier run left");
            }
        }
        let init = this.root.join("init");
        this.renew_init(&this.boot_id).map_err(|error| ImageError::io(context("renew", &init), error))?;
        this.distrust_unsynced();
        Ok(this)
    }

    /// Removes layers that a crash of the machine may have damaged.
    fn distrust_unsynced(&self) {
        for chain in self.list() {
            if self.directory(&chain).join("synced").exists() {
                continue;
            }
            if self.info(&chain).is_some_and(|info| info.boot_id == self.boot_id) {
                self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).push(chain);
                continue;
            }
            tracing::warn!(%chain, "layer was not on the disk when the machine stopped; it is unpacked again");
            if let Some(trash) = self.detach(&chain) {
                let _ = fs::remove_dir_all(trash);
            }
        }
    }

    /// Flushes what is not yet on the disk; false if there was nothing. Blocking, and possibly for long.
    pub(crate) fn flush(&self) -> bool {
        let chains = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        if chains.is_empty() {
            return false;
        }
        let flushed = File::open(&self.root).and_then(|root| Ok(nix::unistd::syncfs(root)?));
        match flushed {
            // a layer that was removed meanwhile has no place for its mark
            Ok(()) => chains.iter().for_each(|chain| drop(File::create(self.directory(chain).join("synced")))),
            Err(error) => tracing::warn!(%error, "cannot flush layers"),
        }
        true
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn directory(&self, chain: &Digest) -> PathBuf {
        self.root.join("layers").join(chain.hex())
    }

    /// The directory with the layer's files.
    pub(crate) fn diff(&self, chain: &Digest) -> PathBuf {
        self.directory(chain).join("diff")
    }

    pub(crate) fn info(&self, chain: &Digest) -> Option<LayerInfo> {
        let bytes = fs::read(self.directory(chain).join("layer.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// A new name under `tmp`.
    pub(crate) fn temporary(&self) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.root.join("tmp").join(format!("{}-{number}", std::process::id()))
    }

    /// Unpacks a layer on top of `below` (chain ids, the base first) and verifies it. Blocking.
    pub(crate) fn create(
        &self,
        chain: &Digest,
        below: &[Digest],
        diff_id: &Digest,
        source: LayerSource<impl Read>,
    ) -> Result<LayerInfo, ImageError> {
        if let Some(info) = self.info(chain) {
            return Ok(info);
        }
        let tmp = self.temporary();
        let made = self.create_in(&tmp, chain, below, diff_id, source);
        if made.is_err() {
            let _ = fs::remove_dir_all(&tmp);
        }
        made
    }

    fn create_in(
        &self,
        tmp: &Path,
        chain: &Digest,
        below: &[Digest],
        diff_id: &Digest,
        source: LayerSource<impl Read>,
    ) -> Result<LayerInfo, ImageError> {
        let diff = tmp.join("diff");
        fs::create_dir_all(&diff).map_err(|error| ImageError::io(context("make", &diff), error))?;
        let lower: Vec<PathBuf> = below.iter().rev().map(|chain| self.diff(chain)).collect();
        let cancelled = source.cancelled.clone();
        let plain = decompress(source.reader).map_err(|error| content_error(diff_id, error))?;
        let mut hashing = HashingReader::new(plain, cancelled.clone());
        let unpacked = unpack_layer(&mut hashing, &diff, &lower, self.limits);
        if cancelled.load(Ordering::Relaxed) {
            return Err(ImageError::Cancelled);
        }
        let size = unpacked.map_err(|error| unpack_error(diff_id, error))?;
        let got = hashing.finish();
        if got != *diff_id {
            return Err(ImageError::bad(
                format!("layer {diff_id}"),
                format!("wrong diff id calculated on extraction {got}"),
            ));
        }
        let (link, boot_id) = (self.make_link(chain)?, self.boot_id.clone());
        let info = LayerInfo { diff_id: diff_id.clone(), size, link, boot_id };
        let publish = || -> io::Result<()> {
            fs::write(tmp.join("layer.json"), serde_json::to_vec(&info)?)?;
            fs::rename(tmp, self.directory(chain))
        };
        publish().map_err(|error| ImageError::io(context("commit layer", &self.directory(chain)), error))?;
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).push(chain.clone());
        Ok(info)
    }

    /// A short name for the layer's directory: as many digits of the chain id as make it unique.
    fn make_link(&self, chain: &Digest) -> Result<String, ImageError> {
        let target = Path::new("..").join("layers").join(chain.hex()).join("diff");
        for digits in LINK_DIGITS_MIN..=chain.hex().len() {
            let name = &chain.hex()[..digits];
            let path = self.root.join("l").join(name);
            match symlink(&target, &path) {
                Ok(()) => return Ok(name.to_string()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if fs::read_link(&path).is_ok_and(|known| known == target) {
                        return Ok(name.to_string());
                    }
                }
                Err(error) => return Err(ImageError::io(context("link", &path), error)),
            }
        }
        Err(ImageError::bad(chain.to_string(), "no short name is free"))
    }

    /// The layers on the disk.
    pub(crate) fn list(&self) -> Vec<Digest> {
        let Ok(list) = fs::read_dir(self.root.join("layers")) else { return Vec::new() };
        list.flatten()
            .filter_map(|entry| Digest::parse(&format!("sha256:{}", entry.file_name().to_string_lossy())).ok())
            .collect()
    }

    /// Takes a layer out of sight at once; the caller removes the returned directory when it has time.
    pub(crate) fn detach(&self, chain: &Digest) -> Option<PathBuf> {
        if let Some(info) = self.info(chain) {
            self.detach_init(chain, &info.link);
            let _ = fs::remove_file(self.root.join("l").join(info.link));
        }
        let trash = self.temporary();
        match fs::rename(self.directory(chain), &trash) {
            Ok(()) => Some(trash),
            Err(error) => {
                tracing::warn!(%chain, %error, "cannot remove layer");
                None
            }
        }
    }
}

/// Undoes the compression that the first bytes tell of.
pub(crate) fn decompress<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(READ_BUFFER_BYTES, source);
    let mut start = Vec::with_capacity(4);
    source.by_ref().take(4).read_to_end(&mut start)?;
    let compression = Compression::detect(&start);
    let whole = io::Cursor::new(start).chain(source);
    Ok(match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(BufReader::with_capacity(
            READ_BUFFER_BYTES,
            flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(READ_BUFFER_BYTES, whole)),
        )),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, decoder))
        }
    })
}

/// 128 MiB: what `zstd --long` makes, and the bound on what a hostile frame makes us allocate.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

fn content_error(diff_id: &Digest, error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::StorageFull => ImageError::io(format!("layer {diff_id}"), error),
        _ => ImageError::bad(format!("failed to register layer {diff_id}"), error),
    }
}

fn unpack_error(diff_id: &Digest, error: UnpackError) -> ImageError {
    let what = format!("failed to register layer {}", diff_id.short());
    match error {
        UnpackError::Io { path, operation, source } if is_disk_error(&source) => {
            ImageError::io(format!("{what}: {path}: {operation}"), source)
        }
        UnpackError::Io { path, operation, source } => ImageError::bad(what, format!("{path}: {operation}: {source}")),
        UnpackError::Tar(crate::unpack::TarError::Io(source)) => ImageError::bad(what, source),
        other => ImageError::bad(what, other),
    }
}

fn is_disk_error(error: &io::Error) -> bool {
    use nix::errno::Errno;
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EIO | Errno::EROFS | Errno::EMFILE | Errno::ENFILE | Errno::EPERM)
    )
}
