//! `/images`: list, inspect, history, tag, remove, prune. Names hold slashes, so one route takes all that is below.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use docker_types::container::ContainerConfig;
use docker_types::filters::Filters;
use docker_types::image::{
    GraphDriver, ImageConfig, ImageDelete, ImageHistory, ImageInspect, ImageMetadata, ImageSummary,
    ImagesPruneResponse, RootFs,
};
use docker_types::time::{self, Time};
use http::{Method, StatusCode};
use image::{ErrorKind, ImageChange, ImageError, ImageRecord, RemoveOptions};
use oci_types::Reference;

use crate::error::{ApiError, ApiResult};
use crate::pull::with_tag;
use crate::request::{ClientVersion, Params};
use crate::state::{Context, Shared};
use crate::{answer, image_events, not_built};

const LIST_FILTERS: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];
const PRUNE_FILTERS: &[&str] = &["dangling", "label", "label!", "until"];

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidParameter => StatusCode::BAD_REQUEST,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            // dockerd leaves these unclassified, but for `/auth` and `/distribution`.
            ErrorKind::Unauthorized | ErrorKind::Unavailable | ErrorKind::Cancelled | ErrorKind::System => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, with_sources(&error))
    }
}

/// An error and its causes, in one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub(crate) async fn list(State(state): State<Shared>, version: ClientVersion, params: Params) -> ApiResult {
    let filters = params.filters(LIST_FILTERS)?;
    let filter = ListFilter::new(&state, &filters)?;
    let matching = state.images.list().into_iter().filter_map(|image| filter.matching(image));
    let mut shown: Vec<_> = matching.map(|image| summary(&image, version)).collect();
    shown.sort_by(|one, other| other.created.cmp(&one.created).then_with(|| one.id.cmp(&other.id)));
    Ok(answer::ok(&shown))
}

/// What a list is filtered by.
struct ListFilter<'a> {
    filters: &'a Filters,
    dangling: Option<bool>,
    before: Option<i64>,
    since: Option<i64>,
    until: Option<i64>,
}

impl<'a> ListFilter<'a> {
    fn new(state: &Context, filters: &'a Filters) -> Result<Self, ApiError> {
        let of_image = |key: &str| match filters.get(key).next() {
            Some(name) => state.images.resolve(name).map(|image| Some(created(&image))),
            None => Ok(None),
        };
        Ok(Self {
            filters,
            dangling: filters.flag("dangling")?,
            before: of_image("before")?,
            since: of_image("since")?,
            until: until(filters)?,
        })
    }

    /// The image with those of its names that match; `None` if it is not listed.
    fn matching(&self, mut image: ImageRecord) -> Option<ImageRecord> {
        let at = created(&image);
        let passes = self.before.is_none_or(|before| at < before)
            && self.since.is_none_or(|since| at > since)
            && self.until.is_none_or(|until| at < until)
            && self.filters.matches_labels("label", &image.config.labels);
        if !passes {
            return None;
        }
        if self.filters.contains("reference") {
            image.repo_tags.retain(|name| self.reference_matches(name));
            image.repo_digests.retain(|name| self.reference_matches(name));
        }
        let nameless = image.repo_tags.is_empty() && image.repo_digests.is_empty();
        let listed = match self.dangling {
            Some(true) => image.repo_tags.is_empty(),
            Some(false) => !nameless,
            None => true,
        };
        (listed && !(nameless && self.filters.contains("reference"))).then_some(image)
    }

    fn reference_matches(&self, name: &str) -> bool {
        let repository = Reference::parse(name).map(|reference| reference.familiar_name()).unwrap_or_default();
        self.filters.get("reference").any(|pattern| glob(pattern, name) || glob(pattern, &repository))
    }
}

/// `until`: a point in time, or a span before now in Go's form.
pub(crate) fn until(filters: &Filters) -> Result<Option<i64>, ApiError> {
    let Some(text) = filters.get("until").next() else { return Ok(None) };
    let at = time::parse_unix(text).map(|at| at.seconds).or_else(|| go_span_seconds(text).map(|span| now() - span));
    at.map(Some).ok_or_else(|| ApiError::bad_request(format!("invalid value for \"until\" filter: {text:?}")))
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// `10m`, `1h30m`.
fn go_span_seconds(text: &str) -> Option<i64> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    (!text.is_empty()).then_some(total as i64)
}

/// Go's `path.Match`, without character classes: `*` and `?` do not match a slash.
fn glob(pattern: &str, text: &str) -> bool {
    let (Some(first), rest) = (pattern.chars().next(), pattern.chars().skip(1).collect::<String>()) else {
        return text.is_empty();
    };
    let mut chars = text.chars();
    match first {
        '*' => {
            let reach = text.find('/').unwrap_or(text.len());
            (0..=reach).filter(|end| text.is_char_boundary(*end)).any(|end| glob(&rest, &text[end..]))
        }
        '?' => chars.next().is_some_and(|c| c != '/') && glob(&rest, chars.as_str()),
        _ => chars.next() == Some(first) && glob(&rest, chars.as_str()),
    }
}

/// Seconds since 1970.
fn created(image: &ImageRecord) -> i64 {
    image.created.as_deref().and_then(time::parse).map_or(0, |at| at.seconds)
}

pub(crate) fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

pub(crate) fn summary(image: &ImageRecord, version: ClientVersion) -> ImageSummary {
    ImageSummary {
        id: image.id.to_string(),
        parent_id: String::new(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        created: created(image),
        size: bytes(image.size),
        shared_size: -1,
        virtual_size: if version.at_least(44) { 0 } else { bytes(image.size) },
        labels: (!image.config.labels.is_empty()).then(|| image.config.labels.clone()),
        containers: -1,
        descriptor: None,
    }
}

/// `GET /images/{name}/json` and its siblings.
pub(crate) async fn get(State(state): State<Shared>, Path(rest): Path<String>, version: ClientVersion) -> ApiResult {
    if let Some(name) = rest.strip_suffix("/json") {
        let image = state.images.resolve(name)?;
        return Ok(answer::ok(&inspect(&image, version)?));
    }
    if let Some(name) = rest.strip_suffix("/history") {
        return Ok(answer::ok(&history(&state.images.resolve(name)?)));
    }
    Err(not_built::below(&Method::GET, &format!("/images/{rest}")))
}

/// `POST /images/{name}/tag` and its siblings.
pub(crate) async fn post(State(state): State<Shared>, Path(rest): Path<String>, params: Params) -> ApiResult {
    if let Some(name) = rest.strip_suffix("/tag") {
        return tag(&state, name, &params).await;
    }
    Err(not_built::below(&Method::POST, &format!("/images/{rest}")))
}

async fn tag(state: &Context, name: &str, params: &Params) -> ApiResult {
    let (repository, tag) = (params.get("repo"), params.get("tag"));
    let named = Reference::parse(repository).map_err(ImageError::from)?;
    if named.digest().is_some() {
        return Err(ApiError::bad_request("cannot import digest reference"));
    }
    let target = if tag.is_empty() { named.with_default_tag() } else { with_tag(&named, tag)? };
    state.images.tag(name, &target).await?;
    if let Ok(image) = state.images.resolve(&target.familiar()) {
        image_events::tell(&*state.engine, "tag", image.id.as_str(), &target.familiar(), &image.config.labels);
    }
    Ok(answer::created_empty())
}

fn inspect(image: &ImageRecord, version: ClientVersion) -> Result<ImageInspect, ApiError> {
    let mut config: ImageConfig = serde_json::to_value(&image.config)
        .and_then(docker_types::json::from_value)
        .map_err(|error| ApiError::internal(format!("the image's configuration cannot be shown: {error}")))?;
    if !version.at_least(50) {
        config.add_legacy_fields();
    }
    let lower: Vec<_> = image.lower_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let mut dirs = BTreeMap::new();
    if let Some(upper) = &image.upper_dir {
        dirs.insert("UpperDir".to_owned(), upper.display().to_string());
    }
    if !lower.is_empty() {
        dirs.insert("LowerDir".to_owned(), lower.join(":"));
    }
    Ok(ImageInspect {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        parent: String::new(),
        comment: image.comment.clone(),
        created: image.created.clone().unwrap_or_default(),
        container_config: (!version.at_least(45)).then(ContainerConfig::default),
        docker_version: image.docker_version.clone(),
        author: image.author.clone(),
        config,
        architecture: image.platform.architecture.clone(),
        variant: image.platform.variant.clone(),
        os: image.platform.os.clone(),
        os_version: image.platform.os_version.clone(),
        size: bytes(image.size),
        virtual_size: if version.at_least(44) { 0 } else { bytes(image.size) },
        graph_driver: GraphDriver { data: Some(dirs), name: "overlay2".to_owned() },
        root_fs: RootFs { kind: "layers".to_owned(), layers: image.layers.iter().map(ToString::to_string).collect() },
        metadata: ImageMetadata { last_tag_time: Time(image.last_tag_time.as_deref().and_then(time::parse)) },
        descriptor: None,
    })
}

/// Newest first; only the newest has an identifier.
fn history(image: &ImageRecord) -> Vec<ImageHistory> {
    let mut sizes = image.layer_sizes.iter();
    let mut steps: Vec<_> = image
        .history
        .iter()
        .map(|step| ImageHistory {
            id: "<missing>".to_owned(),
            created: step.created.as_deref().and_then(time::parse).map_or(0, |at| at.seconds),
            created_by: step.created_by.clone(),
            tags: None,
            size: if step.empty_layer { 0 } else { sizes.next().map_or(0, |size| bytes(*size)) },
            comment: step.comment.clone(),
        })
        .collect();
    steps.reverse();
    if let Some(newest) = steps.first_mut() {
        newest.id = image.id.to_string();
        newest.tags = (!image.repo_tags.is_empty()).then(|| image.repo_tags.clone());
    }
    steps
}

pub(crate) async fn remove(State(state): State<Shared>, Path(name): Path<String>, params: Params) -> ApiResult {
    let options = RemoveOptions { force: params.flag("force") };
    let users = state.engine.image_users();
    let used_by = |id: &oci_types::Digest| {
        users.iter().filter(|user| user.image_id == *id).map(|user| (user.container_id.clone(), user.running)).collect()
    };
    let before = state.images.list();
    let changes = state.images.remove(&name, options, used_by).await?;
    image_events::removed(&*state.engine, &changes, &before);
    Ok(answer::ok(&changes.iter().map(deleted).collect::<Vec<_>>()))
}

fn deleted(change: &ImageChange) -> ImageDelete {
    match change {
        ImageChange::Untagged(name) => ImageDelete { untagged: name.clone(), ..ImageDelete::default() },
        ImageChange::Deleted(id) => ImageDelete { deleted: id.to_string(), ..ImageDelete::default() },
    }
}

/// `POST /build/prune`: nothing is built, so there is no cache; `docker system prune` asks for this as well.
pub(crate) async fn prune_builds(State(state): State<Shared>) -> ApiResult {
    image_events::pruned(&*state.engine, "builder", 0);
    Ok(answer::ok(&serde_json::json!({ "CachesDeleted": null, "SpaceReclaimed": 0 })))
}

pub(crate) async fn prune(State(state): State<Shared>, params: Params) -> ApiResult {
    let filters = params.filters(PRUNE_FILTERS)?;
    let all = filters.flag("dangling")? == Some(false);
    let until = until(&filters)?;
    let users = state.engine.image_users();
    let keep = |image: &ImageRecord| {
        users.iter().any(|user| user.image_id == image.id)
            || until.is_some_and(|until| created(image) >= until)
            || !filters.matches_labels("label", &image.config.labels)
            || (filters.contains("label!") && filters.matches_labels("label!", &image.config.labels))
    };
    let before = state.images.list();
    let (changes, space_reclaimed) = state.images.prune(all, keep).await?;
    image_events::removed(&*state.engine, &changes, &before);
    image_events::pruned(&*state.engine, "image", space_reclaimed);
    let images_deleted = (!changes.is_empty()).then(|| changes.iter().map(deleted).collect());
    Ok(answer::ok(&ImagesPruneResponse { images_deleted, space_reclaimed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, text, matches) in [
            ("alpine", "alpine", true),
            ("alp*", "alpine:3", true),
            ("*", "a/b", false),
            ("*/*", "a/b:1", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("", "", true),
            ("é*", "éa", true),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn spans_are_gos() {
        for (text, seconds) in
            [("10m", Some(600)), ("1h30m", Some(5400)), ("1.5h", Some(5400)), ("", None), ("5", None), ("x", None)]
        {
            assert_eq!(go_span_seconds(text), seconds, "{text}");
        }
    }
}
