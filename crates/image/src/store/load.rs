//! Loads images from an archive: the tar of `docker save` (manifest.json) or of an OCI layout (index.json).
//!
//! The archive may come from a pipe and holds its parts in any order. Each file goes to a temporary one while its
//! digest is taken; then the manifest says what is what. Nothing is visible before the last step.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use oci_types::{ArchiveEntry, Descriptor, Digest, ImageDocument, Index, Manifest, Platform, Reference, media_type};

use super::Inner;
use super::blobs::{DOCUMENT_BYTES_MAX, Hasher, HashingReader, context, digest_of};
use super::catalog::StoredLayer;
use super::layers::{LayerSource, chain_ids, decompress};
use super::rootfs::LAYERS_MAX;
use crate::unpack::{EntryKind, TarError, TarReader};
use crate::{ImageError, LayerStatus, Loaded, Progress, ProgressSender, UnpackLimits};

/// Files of one archive.
const FILES_MAX: u64 = 100_000;
/// Indexes within indexes.
const INDEX_DEPTH_MAX: usize = 4;
const REFERENCE_ANNOTATION: &str = "org.opencontainers.image.ref.name";
const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// A file of the archive.
#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

/// The unpacked archive; its temporary files go with it.
#[derive(Default)]
struct Parts {
    files: BTreeMap<String, Part>,
    links: BTreeMap<String, String>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        for part in self.files.values() {
            let _ = std::fs::remove_file(&part.path);
        }
    }
}

/// One image of the archive, found but not yet stored.
struct Found {
    document: Vec<u8>,
    layers: Vec<Part>,
    manifests: Vec<Vec<u8>>,
    names: Vec<Reference>,
}

/// Loads all images of `archive`. Blocking.
pub(super) fn load(
    inner: &Inner,
    archive: impl Read,
    progress: &ProgressSender,
    cancelled: &Arc<AtomicBool>,
) -> Result<Vec<Loaded>, ImageError> {
    let parts = collect(inner, archive, cancelled)?;
    let found = if parts.get("manifest.json").is_some() {
        docker_images(&parts)?
    } else if parts.get("index.json").is_some() {
        layout_images(&parts)?
    } else {
        return Err(ImageError::bad("archive", "invalid archive: does not contain a manifest.json"));
    };
    let mut loaded = Vec::new();
    for image in found {
        let id = store(inner, &image, progress, cancelled)?;
        if image.names.is_empty() {
            progress.send_blocking(Progress::LoadedId(id.to_string()));
        }
        for name in &image.names {
            progress.send_blocking(Progress::LoadedImage(name.familiar()));
        }
        loaded.push(Loaded { id, names: image.names.iter().map(Reference::familiar).collect() });
    }
    Ok(loaded)
}

fn collect(inner: &Inner, archive: impl Read, cancelled: &Arc<AtomicBool>) -> Result<Parts, ImageError> {
    let bad = |error: &dyn std::fmt::Display| ImageError::bad("archive", error);
    let plain = decompress(archive).map_err(|error| bad(&error))?;
    let source = HashingReader::new(plain, cancelled.clone());
    let limits = UnpackLimits { entries_max: FILES_MAX, ..UnpackLimits::default() };
    let mut tar = TarReader::new(source, limits);
    let mut parts = Parts::default();
    let broken = |error: TarError| match error {
        TarError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => bad(&"unexpected EOF"),
        error => bad(&error),
    };
    while let Some(entry) = tar.next_entry().map_err(broken)? {
        let Some(name) = part_name(&entry.path) else { continue };
        match entry.kind {
            EntryKind::File if entry.sparse.is_none() => {
                let part = collect_part(inner, &mut tar)?;
                if let Some(old) = parts.files.insert(name, part) {
                    let _ = std::fs::remove_file(old.path);
                }
            }
            EntryKind::Symlink => {
                // older archives of docker link equal layers: `../<id>/layer.tar`
                let target = String::from_utf8_lossy(&entry.link).into_owned();
                let base = name.rsplit_once('/').map_or("", |(base, _)| base);
                if let Some(target) = part_name(format!("{base}/{target}").as_bytes()) {
                    parts.links.insert(name, target);
                }
            }
            EntryKind::HardLink => {
                if let Some(target) = part_name(&entry.link) {
                    parts.links.insert(name, target);
                }
            }
            _ => {}
        }
    }
    Ok(parts)
}

fn part_name(raw: &[u8]) -> Option<String> {
    crate::unpack::root::InnerPath::clean(raw)?.to_path().into_os_string().into_string().ok()
}

fn collect_part(inner: &Inner, data: &mut impl Read) -> Result<Part, ImageError> {
    let (path, mut file) = inner.blobs.temporary()?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0;
    let mut copy = || -> Result<(), ImageError> {
        loop {
            let count = data.read(&mut buffer).map_err(|error| ImageError::bad("archive", error))?;
            if count == 0 {
                return Ok(());
            }
            hasher.update(&buffer[..count]);
            size += count as u64;
            file.write_all(&buffer[..count]).map_err(|error| ImageError::io(context("write", &path), error))?;
        }
    };
    if let Err(error) = copy() {
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    Ok(Part { path, digest: hasher.finish(), size })
}

impl Parts {
    fn get(&self, name: &str) -> Option<&Part> {
        let name = self.links.get(name).map_or(name, String::as_str);
        self.files.get(name)
    }

    fn need(&self, name: &str) -> Result<&Part, ImageError> {
        let clean = part_name(name.as_bytes());
        clean
            .and_then(|name| self.get(&name))
            .ok_or_else(|| ImageError::bad("archive", format!("open {name}: no such file or directory")))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let part = self.need(name)?;
        if part.size > DOCUMENT_BYTES_MAX {
            return Err(ImageError::bad("archive", format!("{name} is too large")));
        }
        std::fs::read(&part.path).map_err(|error| ImageError::io(context("read", &part.path), error))
    }

    /// The file of a descriptor in an OCI layout, verified.
    fn blob(&self, digest: &Digest) -> Result<&Part, ImageError> {
        let part = self.need(&format!("blobs/sha256/{}", digest.hex()))?;
        if part.digest != *digest {
            return Err(ImageError::bad(format!("blob {digest}"), format!("content has the digest {}", part.digest)));
        }
        Ok(part)
    }

    fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        self.blob(digest)?;
        self.read(&format!("blobs/sha256/{}", digest.hex()))
    }
}

fn json<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::bad(what, error))
}

fn docker_images(parts: &Parts) -> Result<Vec<Found>, ImageError> {
    let entries: Vec<ArchiveEntry> = json("manifest.json", &parts.read("manifest.json")?)?;
    let one = |entry: ArchiveEntry| {
        let layers = entry.layers.iter().map(|name| parts.need(name).cloned()).collect::<Result<_, _>>()?;
        let names: Vec<Reference> = entry
            .repo_tags
            .iter()
            .map(|name| Ok(Reference::parse(name)?.with_default_tag()))
            .collect::<Result<_, ImageError>>()?;
        Ok(Found { document: parts.read(&entry.config)?, layers, manifests: Vec::new(), names })
    };
    entries.into_iter().map(one).collect()
}

fn layout_images(parts: &Parts) -> Result<Vec<Found>, ImageError> {
    let index: Index = json("index.json", &parts.read("index.json")?)?;
    let mut found = Vec::new();
    for descriptor in &index.manifests {
        let mut manifests = Vec::new();
        let Some(manifest) = layout_manifest(parts, descriptor, &mut manifests, 0)? else { continue };
        let document = parts.read_blob(&manifest.config.digest)?;
        let layers =
            manifest.layers.iter().map(|layer| parts.blob(&layer.digest).cloned()).collect::<Result<_, _>>()?;
        found.push(Found { document, layers, manifests, names: layout_name(descriptor).into_iter().collect() });
    }
    if found.is_empty() {
        return Err(ImageError::NoMatchingPlatform(Platform::host().to_string()));
    }
    Ok(found)
}

/// The name an archive gives: a whole one, or only a tag, which names nothing.
fn layout_name(descriptor: &Descriptor) -> Option<Reference> {
    let name = descriptor.annotations.get(NAME_ANNOTATION);
    let name =
        name.or_else(|| descriptor.annotations.get(REFERENCE_ANNOTATION).filter(|name| name.contains([':', '/'])));
    let reference = Reference::parse(name?).ok()?.with_default_tag();
    reference.tag().is_some().then(|| reference.with_tag(reference.tag().unwrap_or_default()).ok()).flatten()
}

fn layout_manifest(
    parts: &Parts,
    descriptor: &Descriptor,
    manifests: &mut Vec<Vec<u8>>,
    depth: usize,
) -> Result<Option<Manifest>, ImageError> {
    let wanted = Platform::host();
    if descriptor.platform.as_ref().is_some_and(|offered| !wanted.accepts(offered)) {
        return Ok(None);
    }
    let bytes = parts.read_blob(&descriptor.digest)?;
    if !media_type::is_index(&descriptor.media_type) {
        let manifest = json("manifest", &bytes)?;
        manifests.push(bytes);
        return Ok(Some(manifest));
    }
    if depth == INDEX_DEPTH_MAX {
        return Err(ImageError::bad("archive", "indexes are nested too deeply"));
    }
    let index: Index = json("index", &bytes)?;
    for child in &index.manifests {
        if let Some(manifest) = layout_manifest(parts, child, manifests, depth + 1)? {
            manifests.push(bytes);
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

fn store(
    inner: &Inner,
    image: &Found,
    progress: &ProgressSender,
    cancelled: &Arc<AtomicBool>,
) -> Result<Digest, ImageError> {
    let document: ImageDocument = json("image configuration", &image.document)?;
    let diff_ids = document.rootfs.diff_ids;
    if diff_ids.len() != image.layers.len() || diff_ids.len() > LAYERS_MAX {
        return Err(ImageError::bad(
            "archive",
            format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                diff_ids.len(),
                image.layers.len()
            ),
        ));
    }
    let chains = chain_ids(&diff_ids);
    let id = digest_of(&image.document);
    let manifests: Vec<Digest> = image.manifests.iter().map(|bytes| digest_of(bytes)).collect();
    let layer_blobs = image.layers.iter().map(|part| part.digest.clone());
    let needed = chains.iter().cloned().chain(layer_blobs).chain([id]).chain(manifests.iter().cloned());
    let needed: Vec<Digest> = needed.collect();
    let blobs = needed.clone();
    let pin = inner.pins.pin(needed);
    let result = (|| {
        let mut layers = Vec::new();
        for (index, (part, diff_id)) in image.layers.iter().zip(&diff_ids).enumerate() {
            let size = store_layer(inner, part, diff_id, &chains[..=index], progress, cancelled)?;
            let (diff_id, chain) = (diff_id.clone(), chains[index].clone());
            layers.push(StoredLayer { diff_id, chain, blob: Some(part.digest.clone()), size });
        }
        for (bytes, digest) in image.manifests.iter().zip(&manifests) {
            inner.blobs.write(bytes, digest)?;
        }
        inner.commit_image(&image.document, Some(layers), manifests.clone(), &image.names)
    })();
    drop(pin);
    match result {
        Ok((id, _)) => Ok(id),
        Err(error) => {
            inner.collect_garbage(&blobs);
            Err(error)
        }
    }
}

fn store_layer(
    inner: &Inner,
    part: &Part,
    diff_id: &Digest,
    chains: &[Digest],
    progress: &ProgressSender,
    cancelled: &Arc<AtomicBool>,
) -> Result<u64, ImageError> {
    let (chain, below) = chains.split_last().expect("there is at least the layer itself");
    let _turn = inner.extractions.lock_blocking(chain);
    let known = inner.layers.info(chain);
    let info = match known {
        Some(info) => info,
        None => {
            let file = File::open(&part.path).map_err(|error| ImageError::io(context("open", &part.path), error))?;
            let reader = super::pull::Reporting::new(file, part.size, |current, total| {
                let status = LayerStatus::LoadingLayer { current, total };
                progress.send_lossy(Progress::Layer { id: diff_id.short().to_string(), status });
            });
            inner.layers.create(chain, below, diff_id, LayerSource { reader, cancelled: cancelled.clone() })?
        }
    };
    if !inner.blobs.has(&part.digest) {
        // the part stays for other images of the archive: a second name for the same file
        let (path, _) = inner.blobs.temporary()?;
        let link = std::fs::remove_file(&path).and_then(|()| std::fs::hard_link(&part.path, &path));
        link.map_err(|error| ImageError::io(context("link", &path), error))?;
        inner.blobs.commit(&path, &part.digest)?;
    }
    Ok(info.size)
}
