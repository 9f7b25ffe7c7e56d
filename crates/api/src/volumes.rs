//! `/volumes`.

use axum::extract::{Path, State};
use docker_types::volume::VolumeCreateRequest;
use http::StatusCode;

use crate::answer;
use crate::engine_backend::VolumeRemoveMode;
use crate::error::{ApiError, ApiResult};
use crate::request::{ClientVersion, Json, Params};
use crate::state::Shared;

const LIST_FILTERS: &[&str] = &["dangling", "driver", "label", "name"];
const PRUNE_FILTERS: &[&str] = &["all", "label", "label!"];

pub(crate) async fn list(State(state): State<Shared>, params: Params) -> ApiResult {
    let filters = params.filters(LIST_FILTERS)?;
    filters.flag("dangling")?;
    Ok(answer::ok(&state.engine.volumes(filters).await?))
}

pub(crate) async fn create(
    State(state): State<Shared>,
    version: ClientVersion,
    Json(request): Json<VolumeCreateRequest>,
) -> ApiResult {
    if request.cluster_volume_spec.is_some() && version.at_least(42) {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "cluster volumes is not supported by Skep yet"));
    }
    Ok(answer::created(&state.engine.volume_create(request).await?))
}

pub(crate) async fn inspect(State(state): State<Shared>, Path(name): Path<String>) -> ApiResult {
    Ok(answer::ok(&state.engine.volume(&name).await?))
}

pub(crate) async fn remove(State(state): State<Shared>, Path(name): Path<String>, params: Params) -> ApiResult {
    let mode = if params.flag("force") { VolumeRemoveMode::Force } else { VolumeRemoveMode::Safe };
    state.engine.volume_remove(&name, mode).await?;
    Ok(answer::no_content())
}

pub(crate) async fn prune(State(state): State<Shared>, version: ClientVersion, params: Params) -> ApiResult {
    let mut filters = params.filters(PRUNE_FILTERS)?;
    filters.flag("all")?;
    if !version.at_least(42) {
        // Anonymous volumes alone are a newer habit.
        filters.insert("all", "true");
    }
    Ok(answer::ok(&state.engine.volumes_prune(filters).await?))
}
