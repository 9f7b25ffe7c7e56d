//! `/tasks`.

use axum::extract::{Path, State};
use docker_types::task as json;

use super::nodes::words;
use super::object_filter;
use crate::error::ApiResult;
use crate::request::Params;
use crate::state::Shared;
use crate::swarm_backend::{InsertDefaults, TaskFilter};
use crate::{answer, lookup};

const FILTERS: &[&str] = &["id", "name", "label", "service", "node", "desired-state", "runtime", "_up-to-date"];

pub(crate) async fn list(State(state): State<Shared>, params: Params) -> ApiResult {
    let filters = params.filters(FILTERS)?;
    let mut filter = TaskFilter {
        object: object_filter(&filters),
        desired_states: words(filters.get("desired-state"), "desired-state")?,
        up_to_date: filters.contains("_up-to-date"),
        runtimes: filters.values("runtime"),
        ..TaskFilter::default()
    };
    if filter.runtimes.is_empty() {
        filter.runtimes = vec!["container".to_owned(), String::new()];
    }
    for input in filters.get("service") {
        filter.service_ids.push(lookup::service(&*state.swarm, input, InsertDefaults::No).await?.id);
    }
    for input in filters.get("node") {
        filter.node_ids.push(lookup::node(&*state.swarm, input).await?.id);
    }
    let tasks = state.swarm.tasks(filter).await?;
    Ok(answer::ok(&tasks.iter().map(json::Task::from_model).collect::<Vec<_>>()))
}

pub(crate) async fn inspect(State(state): State<Shared>, Path(id): Path<String>) -> ApiResult {
    let task = lookup::task(&*state.swarm, &id).await?;
    Ok(answer::ok(&json::Task::from_model(&task)))
}
