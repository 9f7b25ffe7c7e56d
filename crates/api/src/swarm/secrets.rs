//! `/secrets` and `/configs`.

use axum::extract::{Path, State};
use docker_types::secret as json;

use super::object_filter;
use crate::error::ApiResult;
use crate::request::{Json, Params};
use crate::state::Shared;
use crate::{answer, lookup};

pub(crate) async fn list_secrets(State(state): State<Shared>, params: Params) -> ApiResult {
    let filters = params.filters(&["id", "name", "names", "label"])?;
    let mut filter = object_filter(&filters);
    filter.names = filters.values("names");
    let secrets = state.swarm.secrets(filter).await?;
    Ok(answer::ok(&secrets.iter().map(json::Secret::from_model).collect::<Vec<_>>()))
}

pub(crate) async fn inspect_secret(State(state): State<Shared>, Path(id): Path<String>) -> ApiResult {
    let secret = lookup::secret(&*state.swarm, &id).await?;
    Ok(answer::ok(&json::Secret::from_model(&secret)))
}

pub(crate) async fn create_secret(State(state): State<Shared>, Json(spec): Json<json::SecretSpec>) -> ApiResult {
    let id = state.swarm.create_secret(spec.to_model()).await?;
    Ok(answer::created(&json::CreateResponse { id: id.to_string() }))
}

pub(crate) async fn update_secret(
    State(state): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    Json(spec): Json<json::SecretSpec>,
) -> ApiResult {
    let version = params.object_version("secret")?;
    let secret = lookup::secret(&*state.swarm, &id).await?;
    state.swarm.update_secret(&secret.id, version, spec.to_model()).await?;
    Ok(answer::empty())
}

pub(crate) async fn remove_secret(State(state): State<Shared>, Path(id): Path<String>) -> ApiResult {
    let secret = lookup::secret(&*state.swarm, &id).await?;
    state.swarm.remove_secret(&secret.id).await?;
    Ok(answer::no_content())
}

pub(crate) async fn list_configs(State(state): State<Shared>, params: Params) -> ApiResult {
    let filters = params.filters(&["id", "name", "names", "label"])?;
    let mut filter = object_filter(&filters);
    filter.names = filters.values("names");
    let configs = state.swarm.configs(filter).await?;
    Ok(answer::ok(&configs.iter().map(json::Config::from_model).collect::<Vec<_>>()))
}

pub(crate) async fn inspect_config(State(state): State<Shared>, Path(id): Path<String>) -> ApiResult {
    let config = lookup::config(&*state.swarm, &id).await?;
    Ok(answer::ok(&json::Config::from_model(&config)))
}

pub(crate) async fn create_config(State(state): State<Shared>, Json(spec): Json<json::ConfigSpec>) -> ApiResult {
    let id = state.swarm.create_config(spec.to_model()).await?;
    Ok(answer::created(&json::CreateResponse { id: id.to_string() }))
}

pub(crate) async fn update_config(
    State(state): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    Json(spec): Json<json::ConfigSpec>,
) -> ApiResult {
    let version = params.object_version("config")?;
    let config = lookup::config(&*state.swarm, &id).await?;
    state.swarm.update_config(&config.id, version, spec.to_model()).await?;
    Ok(answer::empty())
}

pub(crate) async fn remove_config(State(state): State<Shared>, Path(id): Path<String>) -> ApiResult {
    let config = lookup::config(&*state.swarm, &id).await?;
    state.swarm.remove_config(&config.id).await?;
    Ok(answer::no_content())
}
