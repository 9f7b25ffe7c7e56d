//! `/nodes`.

use axum::extract::{Path, State};
use docker_types::node as json;
use docker_types::words::Word;

use super::object_filter;
use crate::error::{ApiError, ApiResult};
use crate::request::{Json, Params};
use crate::state::Shared;
use crate::swarm_backend::{NodeFilter, RemoveMode};
use crate::{answer, lookup};

const FILTERS: &[&str] = &["id", "name", "label", "node.label", "role", "membership"];

pub(crate) async fn list(State(state): State<Shared>, params: Params) -> ApiResult {
    let filters = params.filters(FILTERS)?;
    let filter = NodeFilter {
        object: object_filter(&filters),
        node_labels: filters.labels("node.label"),
        roles: words(filters.get("role"), "role")?,
        memberships: words(filters.get("membership"), "membership")?,
    };
    let nodes = state.swarm.nodes(filter).await?;
    Ok(answer::ok(&nodes.iter().map(json::Node::from_model).collect::<Vec<_>>()))
}

/// Filter values as words of an enumeration; dockerd answers 500 to unknown ones.
pub(super) fn words<'a, T: Word>(values: impl Iterator<Item = &'a str>, kind: &str) -> Result<Vec<T>, ApiError> {
    values
        .map(|value| T::from_word(value).ok_or_else(|| ApiError::internal(format!("Invalid {kind} filter: '{value}'"))))
        .collect()
}

pub(crate) async fn inspect(State(state): State<Shared>, Path(id): Path<String>) -> ApiResult {
    let node = lookup::node(&*state.swarm, &id).await?;
    Ok(answer::ok(&json::Node::from_model(&node)))
}

pub(crate) async fn update(
    State(state): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    Json(spec): Json<json::NodeSpec>,
) -> ApiResult {
    let version = params.object_version("node")?;
    let spec = spec.to_model()?;
    let node = lookup::node(&*state.swarm, &id).await?;
    state.swarm.update_node(&node.id, version, spec).await?;
    Ok(answer::empty())
}

pub(crate) async fn remove(State(state): State<Shared>, Path(id): Path<String>, params: Params) -> ApiResult {
    let mode = if params.flag("force") { RemoveMode::Force } else { RemoveMode::Safe };
    let node = lookup::node(&*state.swarm, &id).await?;
    state.swarm.remove_node(&node.id, mode).await?;
    Ok(answer::empty())
}
