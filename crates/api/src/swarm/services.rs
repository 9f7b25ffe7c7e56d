//! `/services`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use docker_types::filters::Filters;
use docker_types::service as json;
use http::HeaderMap;
use model::{ContainerSpec, PullOptions, Service, ServiceId, ServiceMode, ServiceSpec, TaskRuntime};

use super::object_filter;
use crate::error::{ApiError, ApiResult};
use crate::request::{ClientVersion, Json, Params, REGISTRY_AUTH, header_text};
use crate::state::Shared;
use crate::swarm_backend::{InsertDefaults, Rollback, ServiceFilter, SwarmBackend};
use crate::{answer, lookup, names, networks};

const FILTERS: &[&str] = &["id", "name", "label", "mode", "runtime"];

pub(crate) async fn list(State(state): State<Shared>, version: ClientVersion, params: Params) -> ApiResult {
    let filters = params.filters(FILTERS)?;
    let with_status = version.at_least(41) && params.strict_flag("status")?;
    let mut runtimes = filters.values("runtime");
    if runtimes.is_empty() {
        runtimes.push("container".to_owned());
    }
    let filter = ServiceFilter { object: object_filter(&filters), runtimes };
    let mut services = state.swarm.services(filter).await?;
    services.retain(|service| mode_matches(&filters, service));
    let mut shown: Vec<_> = services.iter().map(json::Service::from_model).collect();
    if with_status {
        add_statuses(&*state.swarm, &services, &mut shown).await?;
    }
    Ok(answer::ok(&shown))
}

fn mode_matches(filters: &Filters, service: &Service) -> bool {
    let mode = match service.spec.mode {
        Some(ServiceMode::Global(_)) => "global",
        Some(ServiceMode::ReplicatedJob(_)) => "replicated-job",
        Some(ServiceMode::GlobalJob(_)) => "global-job",
        Some(ServiceMode::Replicated(_)) | None => "replicated",
    };
    filters.matches_exact("mode", mode)
}

async fn add_statuses(
    swarm: &dyn SwarmBackend,
    services: &[Service],
    shown: &mut [json::Service],
) -> Result<(), ApiError> {
    let ids: Vec<ServiceId> = services.iter().map(|service| service.id.clone()).collect();
    let mut counts: BTreeMap<_, _> =
        swarm.service_statuses(&ids).await?.into_iter().map(|counts| (counts.service_id.clone(), counts)).collect();
    for (id, service) in ids.iter().zip(shown) {
        let counts = counts.remove(id).unwrap_or_default();
        service.service_status = Some(json::ServiceStatus {
            running_tasks: counts.running_tasks,
            desired_tasks: counts.desired_tasks,
            completed_tasks: counts.completed_tasks,
        });
    }
    Ok(())
}

pub(crate) async fn inspect(State(state): State<Shared>, Path(id): Path<String>, params: Params) -> ApiResult {
    let defaults = if params.strict_flag("insertDefaults")? { InsertDefaults::Yes } else { InsertDefaults::No };
    let service = lookup::service(&*state.swarm, &id, defaults).await?;
    Ok(answer::ok(&json::Service::from_model(&service)))
}

pub(crate) async fn create(
    State(state): State<Shared>,
    version: ClientVersion,
    headers: HeaderMap,
    Json(mut body): Json<json::ServiceSpec>,
) -> ApiResult {
    body.adjust_for(version.0);
    if body.name.is_empty() {
        body.name = names::random();
    }
    let mut spec = body.to_model()?;
    networks::resolve_targets(&state, &mut spec).await?;
    let auth = header_text(&headers, REGISTRY_AUTH);
    if !auth.is_empty() {
        set_pull_options(&mut spec, Some(PullOptions { registry_auth: auth.to_owned() }));
    }
    let service = state.swarm.create_service(spec).await?;
    Ok(answer::created(&json::ServiceCreateResponse { id: service.id.to_string(), warnings: None }))
}

pub(crate) async fn update(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    params: Params,
    headers: HeaderMap,
    Json(mut body): Json<json::ServiceSpec>,
) -> ApiResult {
    let object_version = params.object_version("service")?;
    body.adjust_for(version.0);
    let current = lookup::service(&*state.swarm, &id, InsertDefaults::No).await?;
    if body.name.is_empty() {
        body.name.clone_from(&current.spec.annotations.name);
    }
    let mut spec = body.to_model()?;
    networks::resolve_targets(&state, &mut spec).await?;
    let pull_options = match header_text(&headers, REGISTRY_AUTH) {
        "" => kept_pull_options(&current, params.get("registryAuthFrom"))?,
        auth => Some(PullOptions { registry_auth: auth.to_owned() }),
    };
    set_pull_options(&mut spec, pull_options);
    let rollback = match params.get("rollback") {
        "" | "none" => Rollback::None,
        "previous" => Rollback::Previous,
        other => return Err(ApiError::internal(format!("unrecognized rollback option {other}"))),
    };
    state.swarm.update_service(&current.id, object_version, spec, rollback).await?;
    Ok(answer::ok(&json::ServiceUpdateResponse { warnings: None }))
}

fn container(spec: &ServiceSpec) -> Option<&ContainerSpec> {
    match &spec.task.runtime {
        Some(TaskRuntime::Container(container)) => Some(container),
        _ => None,
    }
}

/// The credentials that an update without any goes on with.
fn kept_pull_options(current: &Service, from: &str) -> Result<Option<PullOptions>, ApiError> {
    let spec = match from {
        "" | "spec" => &current.spec,
        "previous-spec" => {
            current.previous_spec.as_ref().ok_or_else(|| ApiError::internal("service does not have a previous spec"))?
        }
        _ => return Err(ApiError::internal("unsupported registryAuthFrom value")),
    };
    let container = container(spec).ok_or_else(|| ApiError::internal("service does not use container tasks"))?;
    Ok(container.pull_options.clone())
}

fn set_pull_options(spec: &mut ServiceSpec, pull_options: Option<PullOptions>) {
    if let Some(TaskRuntime::Container(container)) = &mut Arc::make_mut(&mut spec.task).runtime {
        container.pull_options = pull_options;
    }
}

pub(crate) async fn remove(State(state): State<Shared>, Path(id): Path<String>) -> ApiResult {
    let service = lookup::service(&*state.swarm, &id, InsertDefaults::No).await?;
    state.swarm.remove_service(&service.id).await?;
    Ok(answer::empty())
}
