//! `GET /system/df`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use axum::extract::State;
use docker_types::container::Summary;
use docker_types::filters::Filters;
use docker_types::image::ImageSummary;
use docker_types::json::is_zero;
use docker_types::volume::{UsageData, Volume};
use engine::{ImageUser, ListOptions, SizeMode};
use image::ImageRecord;
use serde::Serialize;

use crate::answer;
use crate::error::{ApiError, ApiResult};
use crate::images::{bytes, summary};
use crate::request::{ClientVersion, Params};
use crate::state::{Context, Shared};

/// How many entries of a volume are walked; beyond, its size is told as unknown.
const VOLUME_ENTRIES_LIMIT: usize = 1_000_000;
/// Docker's word for a size that is not known.
const UNKNOWN: i64 = -1;

/// What takes room on the disk; what was not asked for is `null`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DiskUsage {
    layers_size: i64,
    images: Option<Vec<ImageSummary>>,
    containers: Option<Vec<Summary>>,
    volumes: Option<Vec<Volume>>,
    build_cache: Option<[(); 0]>,
    #[serde(skip_serializing_if = "is_zero")]
    builder_size: i64,
}

pub(crate) async fn disk_usage(State(state): State<Shared>, version: ClientVersion, params: Params) -> ApiResult {
    let asked = params.all("type");
    if let Some(unknown) =
        asked.iter().find(|kind| !["container", "image", "volume", "build-cache"].contains(&kind.as_str()))
    {
        return Err(ApiError::bad_request(format!("unknown object type: {unknown}")));
    }
    let wants = |kind: &str| !version.at_least(42) || asked.is_empty() || asked.iter().any(|asked| asked == kind);
    let mut usage = DiskUsage::default();
    if wants("image") {
        let images = state.images.list();
        usage.layers_size = layers_size(&images);
        usage.images = Some(shown_images(&images, &state.engine.image_users(), version));
    }
    if wants("container") {
        usage.containers = Some(all_containers(&state, SizeMode::With).await?);
    }
    if wants("volume") {
        usage.volumes = Some(volumes(&state).await?);
    }
    if wants("build-cache") {
        usage.build_cache = Some([]);
    }
    Ok(answer::ok(&usage))
}

async fn all_containers(state: &Context, size: SizeMode) -> Result<Vec<Summary>, ApiError> {
    Ok(state.engine.list(ListOptions { all: true, size, ..ListOptions::default() }).await?)
}

/// How many images have each layer, and how large it is.
fn layers(images: &[ImageRecord]) -> BTreeMap<&str, (usize, u64)> {
    let mut layers = BTreeMap::new();
    for image in images {
        for (layer, size) in image.layers.iter().zip(&image.layer_sizes) {
            layers.entry(layer.as_str()).or_insert((0, *size)).0 += 1;
        }
    }
    layers
}

fn layers_size(images: &[ImageRecord]) -> i64 {
    bytes(layers(images).values().map(|(_, size)| size).sum())
}

fn shown_images(images: &[ImageRecord], users: &[ImageUser], version: ClientVersion) -> Vec<ImageSummary> {
    let layers = layers(images);
    let shared = |image: &ImageRecord| {
        let sizes = image.layers.iter().filter_map(|layer| layers.get(layer.as_str()));
        bytes(sizes.filter(|(images, _)| *images > 1).map(|(_, size)| size).sum())
    };
    let users_of = |image: &ImageRecord| users.iter().filter(|user| user.image_id == image.id).count();
    images
        .iter()
        .map(|image| ImageSummary {
            shared_size: shared(image),
            containers: i64::try_from(users_of(image)).unwrap_or(i64::MAX),
            ..summary(image, version)
        })
        .collect()
}

async fn volumes(state: &Context) -> Result<Vec<Volume>, ApiError> {
    let mut volumes = state.engine.volumes(Filters::default()).await?.volumes;
    let containers = all_containers(state, SizeMode::Without).await?;
    for volume in &mut volumes {
        let uses = |container: &&Summary| container.mounts.iter().any(|mount| mount.name == volume.name);
        let ref_count = i64::try_from(containers.iter().filter(uses).count()).unwrap_or(i64::MAX);
        let directory = PathBuf::from(&volume.mountpoint);
        let size = tokio::task::spawn_blocking(move || directory_bytes(&directory)).await.ok().flatten();
        volume.usage_data = Some(UsageData { ref_count, size: size.unwrap_or(UNKNOWN) });
    }
    Ok(volumes)
}

/// Bytes of all files below; `None` if that cannot be told.
fn directory_bytes(directory: &Path) -> Option<i64> {
    let mut total = 0;
    let mut entries = 0;
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).ok()? {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            entries += 1;
            if entries > VOLUME_ENTRIES_LIMIT {
                return None;
            }
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                total += metadata.len();
            }
        }
    }
    Some(bytes(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_measured() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        std::fs::write(directory.path().join("sub/file"), "12345").unwrap();
        std::fs::write(directory.path().join("other"), "12").unwrap();
        assert_eq!(directory_bytes(directory.path()), Some(7));
        assert_eq!(directory_bytes(&directory.path().join("nothing")), None);
    }
}
