//! Taking names from images, images from the catalog, and from the disk what nothing refers to any more.

use std::collections::BTreeSet;
use std::path::PathBuf;

use oci_types::{Digest, Reference};

use super::catalog::{Catalog, Stored};
use super::{Inner, find, find_reference};
use crate::{ImageChange, ImageError, ImageRecord, RemoveOptions};

/// Removes what `name_or_id` says. Blocking.
pub(super) fn remove(
    inner: &Inner,
    name_or_id: &str,
    options: RemoveOptions,
    used_by: &[(String, bool)],
) -> Result<Vec<ImageChange>, ImageError> {
    let writer = inner.catalog.lock();
    let mut catalog = Catalog::clone(&inner.catalog.current());
    let id = find(&catalog, name_or_id)?;
    let mut changes = Vec::new();
    let reference = named(&catalog, name_or_id, &id);
    let names = names_of(&catalog, &id);
    match reference {
        // one of several names: only the name goes
        Some(reference) => {
            let others = names.iter().filter(|name| name.digest().is_none() && **name != reference).count();
            let last = others == 0;
            if last && !options.force {
                refuse_in_use(name_or_id, &id, used_by, ByName::Yes)?;
            }
            untag(&mut catalog, &reference, &mut changes);
            if !last {
                drop_digests_of_repository(&mut catalog, &reference, &id, &mut changes);
            } else if !used_by.iter().any(|(_, running)| *running) {
                untag_all(&mut catalog, &id, &mut changes);
                delete(&mut catalog, &id, &mut changes);
            }
        }
        None => {
            let repositories: BTreeSet<Reference> = names.iter().map(Reference::repository).collect();
            if repositories.len() > 1 && !options.force {
                return Err(ImageError::Conflict(format!(
                    "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
                    id.short()
                )));
            }
            if used_by.iter().any(|(_, running)| *running) || !options.force {
                refuse_in_use(name_or_id, &id, used_by, ByName::No)?;
            }
            untag_all(&mut catalog, &id, &mut changes);
            delete(&mut catalog, &id, &mut changes);
        }
    }
    let blobs = gone_blobs(&inner.catalog.current(), &catalog);
    inner.catalog.replace(catalog, &writer)?;
    drop(writer);
    inner.collect_garbage(&blobs);
    Ok(changes)
}

/// Removes these images with all their names. Blocking.
pub(super) fn prune(inner: &Inner, images: Vec<ImageRecord>) -> Result<(Vec<ImageChange>, u64), ImageError> {
    let writer = inner.catalog.lock();
    let mut catalog = Catalog::clone(&inner.catalog.current());
    let mut changes = Vec::new();
    let before = bytes_of_layers(&catalog);
    for image in images {
        if catalog.images.contains_key(&image.id) {
            untag_all(&mut catalog, &image.id, &mut changes);
            delete(&mut catalog, &image.id, &mut changes);
        }
    }
    let gained = before.saturating_sub(bytes_of_layers(&catalog));
    let blobs = gone_blobs(&inner.catalog.current(), &catalog);
    inner.catalog.replace(catalog, &writer)?;
    drop(writer);
    inner.collect_garbage(&blobs);
    Ok((changes, gained))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ByName {
    Yes,
    No,
}

fn refuse_in_use(asked: &str, id: &Digest, used_by: &[(String, bool)], by_name: ByName) -> Result<(), ImageError> {
    let user = used_by.iter().max_by_key(|(_, running)| *running);
    let Some((container, running)) = user else { return Ok(()) };
    let container = container.get(..12).unwrap_or(container);
    Err(ImageError::Conflict(match (by_name, running) {
        (ByName::Yes, _) => format!(
            "conflict: unable to remove repository reference \"{asked}\" (must force) - container {container} is using its referenced image {}",
            id.short()
        ),
        (ByName::No, true) => format!(
            "conflict: unable to delete {} (cannot be forced) - image is being used by running container {container}",
            id.short()
        ),
        (ByName::No, false) => format!(
            "conflict: unable to delete {} (must be forced) - image is being used by stopped container {container}",
            id.short()
        ),
    }))
}

/// The name that was given, if it was a name and not an id.
fn named(catalog: &Catalog, text: &str, id: &Digest) -> Option<Reference> {
    if text.starts_with("sha256:") || text == id.hex() {
        return None;
    }
    let reference = Reference::parse(text).ok()?.with_default_tag();
    if find_reference(catalog, &reference).as_ref() != Some(id) {
        return None;
    }
    Some(match reference.digest() {
        Some(digest) => reference.with_digest(digest.clone()),
        None => reference,
    })
}

fn names_of(catalog: &Catalog, id: &Digest) -> Vec<Reference> {
    let both = catalog.tags.iter().chain(&catalog.digests);
    both.filter(|(_, known)| *known == id).filter_map(|(name, _)| Reference::parse(name).ok()).collect()
}

fn untag(catalog: &mut Catalog, name: &Reference, changes: &mut Vec<ImageChange>) {
    let map = if name.digest().is_some() { &mut catalog.digests } else { &mut catalog.tags };
    if map.remove(&name.to_string()).is_some() {
        changes.push(ImageChange::Untagged(name.familiar()));
    }
}

fn untag_all(catalog: &mut Catalog, id: &Digest, changes: &mut Vec<ImageChange>) {
    for name in names_of(catalog, id) {
        untag(catalog, &name, changes);
    }
}

/// With the last tag of a repository its digests go too.
fn drop_digests_of_repository(catalog: &mut Catalog, name: &Reference, id: &Digest, changes: &mut Vec<ImageChange>) {
    let repository = name.repository();
    let names: Vec<_> = names_of(catalog, id).into_iter().filter(|name| name.repository() == repository).collect();
    if names.iter().any(|name| name.digest().is_none()) {
        return;
    }
    for name in names {
        untag(catalog, &name, changes);
    }
}

/// Takes the image out; its layers that no other image has are told from the top down.
fn delete(catalog: &mut Catalog, id: &Digest, changes: &mut Vec<ImageChange>) {
    let Some(stored) = catalog.images.remove(id) else { return };
    changes.push(ImageChange::Deleted(id.clone()));
    let kept = chains_of(catalog);
    for layer in stored.layers.iter().rev().filter(|layer| !kept.contains(&layer.chain)) {
        changes.push(ImageChange::Deleted(layer.chain.clone()));
    }
}

fn chains_of(catalog: &Catalog) -> BTreeSet<Digest> {
    catalog.images.values().flat_map(|image| image.layers.iter().map(|layer| layer.chain.clone())).collect()
}

fn bytes_of_layers(catalog: &Catalog) -> u64 {
    let mut seen = BTreeSet::new();
    let layers = catalog.images.values().flat_map(|image| &image.layers);
    layers.filter(|layer| seen.insert(&layer.chain)).map(|layer| layer.size).sum()
}

fn blobs_of(id: &Digest, stored: &Stored) -> Vec<Digest> {
    let layers = stored.layers.iter().filter_map(|layer| layer.blob.clone());
    stored.manifests.iter().cloned().chain(layers).chain([id.clone()]).collect()
}

/// The blobs of images that the new version lacks.
fn gone_blobs(old: &Catalog, new: &Catalog) -> Vec<Digest> {
    let gone = old.images.iter().filter(|(id, _)| !new.images.contains_key(*id));
    gone.flat_map(|(id, stored)| blobs_of(id, stored)).collect()
}

impl Inner {
    /// Removes what no image, container or running operation needs: all such layers, and of the blobs the old ones
    /// and `blobs`. Fresh others may belong to an interrupted pull that comes again. Blocking.
    pub(super) fn collect_garbage(&self, blobs: &[Digest]) {
        let writer = self.catalog.lock();
        let catalog = self.catalog.current();
        let Ok(containers) = self.layers.containers() else { return };
        let mut chains = chains_of(&catalog);
        for container in containers {
            match self.layers.rootfs_file(&container) {
                Ok(file) => chains.extend(file.chains),
                Err(error) => {
                    tracing::warn!(container, %error, "layers are kept: a root filesystem cannot be read");
                    return;
                }
            }
        }
        let needed: BTreeSet<Digest> = catalog.images.iter().flat_map(|(id, stored)| blobs_of(id, stored)).collect();
        let mut trash: Vec<PathBuf> = Vec::new();
        let unused = self.layers.list().into_iter().filter(|chain| !chains.contains(chain)).collect();
        self.pins.remove_unpinned(unused, |chain| trash.extend(self.layers.detach(chain)));
        let candidates = self.blobs.list_old().into_iter().chain(blobs.iter().cloned());
        let unused = candidates.filter(|digest| !needed.contains(digest)).collect();
        self.pins.remove_unpinned(unused, |digest| self.blobs.remove(digest));
        drop(writer);
        for directory in trash {
            if let Err(error) = std::fs::remove_dir_all(&directory) {
                tracing::warn!(directory = %directory.display(), %error, "cannot remove layer");
            }
        }
    }
}
