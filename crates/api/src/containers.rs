//! `/containers`: everything but their streams, which are in `streams`.

use axum::extract::{Path, State};
use bytes::Bytes;
use docker_types::container::{ContainersPruneResponse, CreateRequest, Inspect, Summary, UpdateRequest, WaitResponse};
use docker_types::filters::Filters;
use engine::{
    CreateOptions, EngineError, ErrorKind, ListOptions, NetworkError, ReadOnlyDepth, RemoveOptions, SizeMode,
    StopOptions, WaitCondition,
};
use futures::future::BoxFuture;
use http::StatusCode;

use crate::answer;
use crate::create_rules;
use crate::engine_backend::TerminalSize;
use crate::error::{ApiError, ApiResult};
use crate::networks::is_predefined;
use crate::pull::platform;
use crate::request::{ClientVersion, Json, Params};
use crate::state::{Context, Shared};

const LIST_FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const PRUNE_FILTERS: &[&str] = &["label", "label!", "until"];
const STATES: [&str; 7] = ["created", "dead", "exited", "paused", "removing", "restarting", "running"];
const HEALTHS: [&str; 4] = ["healthy", "none", "starting", "unhealthy"];

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let status = match error.kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::InvalidParameter => StatusCode::BAD_REQUEST,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<NetworkError> for ApiError {
    fn from(error: NetworkError) -> Self {
        EngineError::from(error).into()
    }
}

fn size_mode(params: &Params) -> SizeMode {
    if params.flag("size") { SizeMode::With } else { SizeMode::Without }
}

/// A whole number, which dockerd answers with 500 if it is none.
fn unclassified_number(params: &Params, name: &str) -> Result<Option<i64>, ApiError> {
    params.number(name).map_err(|error| ApiError::internal(error.message))
}

pub(crate) async fn list(State(state): State<Shared>, version: ClientVersion, params: Params) -> ApiResult {
    let mut filters = params.filters(LIST_FILTERS)?;
    check_values(&filters)?;
    // The form of the oldest clients.
    for name in ["before", "since"] {
        if !params.get(name).is_empty() {
            filters.insert(name, params.get(name));
        }
    }
    let limit = unclassified_number(&params, "limit")?.unwrap_or_default();
    let options = ListOptions {
        all: params.flag("all") || limit > 0 || filters.contains("status"),
        limit: usize::try_from(limit).ok().filter(|limit| *limit > 0),
        size: size_mode(&params),
        filters,
    };
    let mut containers = state.engine.list(options).await?;
    for container in &mut containers {
        if !version.at_least(46) {
            container.host_config.annotations.clear();
        }
        if !version.at_least(48) {
            container.image_manifest_descriptor = None;
        }
    }
    Ok(answer::ok(&containers))
}

fn check_values(filters: &Filters) -> Result<(), ApiError> {
    let bad = |key: &str, value: &str, why: String| {
        Err(ApiError::bad_request(format!("invalid filter '{key}={value}': {why}")))
    };
    for value in filters.get("exited") {
        if value.parse::<i64>().is_err() {
            return bad("exited", value, format!("strconv.Atoi: parsing {value:?}: invalid syntax"));
        }
    }
    if let Some(value) = filters.get("status").find(|value| !STATES.contains(value)) {
        let known = "created, running, paused, restarting, removing, exited, dead";
        return bad("status", value, format!("invalid value for state ({value}): must be one of {known}"));
    }
    if let Some(value) = filters.get("health").find(|value| !HEALTHS.contains(value)) {
        let known = "none, starting, healthy, unhealthy";
        return bad("health", value, format!("invalid value for health ({value}): must be one of {known}"));
    }
    filters.flag("is-task")?;
    Ok(())
}

pub(crate) async fn create(
    State(state): State<Shared>,
    version: ClientVersion,
    params: Params,
    Json(mut request): Json<CreateRequest>,
) -> ApiResult {
    let mut warnings = create_rules::apply(&mut request, version)?;
    let platform = if version.at_least(41) { platform(params.get("platform"))? } else { None };
    let read_only = if version.at_least(44) { ReadOnlyDepth::Recursive } else { ReadOnlyDepth::Single };
    let platform = platform.map(|platform| platform.to_string());
    let options = CreateOptions { platform, read_only, ..CreateOptions::default() };
    let name = Some(params.get("name")).filter(|name| !name.is_empty());
    let mut created = state.engine.create(name, request, options).await?;
    created.warnings.append(&mut warnings);
    Ok(answer::created(&created))
}

pub(crate) async fn inspect(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    params: Params,
) -> ApiResult {
    let mut container = state.engine.inspect(&id, size_mode(&params)).await?;
    if !version.at_least(48) {
        container.image_manifest_descriptor = None;
    }
    if !version.at_least(45) {
        add_own_aliases(&mut container);
    }
    Ok(answer::ok(&container))
}

/// Old clients look for a container's short id and host name among its aliases on networks of users.
fn add_own_aliases(container: &mut Inspect) {
    const SHORT_ID: usize = 12;
    let short = container.id.chars().take(SHORT_ID).collect::<String>();
    for (network, endpoint) in container.network_settings.networks.iter_mut().flatten() {
        if is_predefined(network) {
            continue;
        }
        let aliases = endpoint.aliases.get_or_insert_default();
        for own in [&short, &container.config.hostname] {
            if !aliases.contains(own) {
                aliases.push(own.clone());
            }
        }
    }
}

pub(crate) async fn start(
    State(state): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    body: Bytes,
) -> ApiResult {
    if body.len() > 7 {
        return Err(ApiError::bad_request(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if !params.get("checkpoint").is_empty() {
        return Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "checkpoints (docker start --checkpoint) is not supported by Skep yet",
        ));
    }
    state.engine.start(&id).await?;
    Ok(answer::no_content())
}

fn stop_options(version: ClientVersion, params: &Params) -> Result<StopOptions, ApiError> {
    let signal = params.get("signal");
    Ok(StopOptions {
        timeout_s: unclassified_number(params, "t")?,
        signal: (version.at_least(42) && !signal.is_empty()).then(|| signal.to_owned()),
    })
}

pub(crate) async fn stop(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    params: Params,
) -> ApiResult {
    state.engine.stop(&id, stop_options(version, &params)?).await?;
    Ok(answer::no_content())
}

pub(crate) async fn restart(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    params: Params,
) -> ApiResult {
    state.engine.restart(&id, stop_options(version, &params)?).await?;
    Ok(answer::no_content())
}

pub(crate) async fn kill(State(state): State<Shared>, Path(id): Path<String>, params: Params) -> ApiResult {
    let signal = Some(params.get("signal")).filter(|signal| !signal.is_empty());
    let told = |error: EngineError| EngineError::new(error.kind(), format!("cannot kill container: {id}: {error}"));
    state.engine.kill(&id, signal).await.map_err(told)?;
    Ok(answer::no_content())
}

pub(crate) async fn pause(State(state): State<Shared>, Path(id): Path<String>) -> ApiResult {
    state.engine.pause(&id).await?;
    Ok(answer::no_content())
}

pub(crate) async fn unpause(State(state): State<Shared>, Path(id): Path<String>) -> ApiResult {
    state.engine.unpause(&id).await?;
    Ok(answer::no_content())
}

pub(crate) async fn rename(State(state): State<Shared>, Path(id): Path<String>, params: Params) -> ApiResult {
    state.engine.rename(&id, params.get("name")).await?;
    Ok(answer::no_content())
}

pub(crate) async fn update(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    Json(mut request): Json<UpdateRequest>,
) -> ApiResult {
    if !version.at_least(40) {
        request.pids_limit = None;
    }
    if version.at_least(42) {
        request.kernel_memory = 0;
    }
    request.pids_limit = request.pids_limit.map(|limit| limit.max(0));
    Ok(answer::ok(&state.engine.update(&id, request).await?))
}

pub(crate) async fn top(State(state): State<Shared>, Path(id): Path<String>, params: Params) -> ApiResult {
    Ok(answer::ok(&state.engine.top(&id, params.get("ps_args")).await?))
}

/// `POST /containers/{id}/wait`: the head is sent at once, the exit when it has come.
pub(crate) async fn wait(
    State(state): State<Shared>,
    Path(id): Path<String>,
    version: ClientVersion,
    params: Params,
) -> ApiResult {
    let condition = match params.get("condition") {
        _ if !version.at_least(30) => WaitCondition::NotRunning,
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::bad_request(format!("invalid condition: {other:?}"))),
    };
    let exit: BoxFuture<'static, WaitResponse> = state.engine.wait(&id, condition).await?;
    if !version.at_least(30) {
        return Ok(answer::ok(&exit.await));
    }
    let ending = state.sessions.ending.clone();
    let body = futures::stream::once(async move {
        // Both are dropped without loss: a wait that is given up changes nothing.
        tokio::select! {
            exit = exit => Ok(answer::json_bytes(&exit)),
            () = ending.cancelled() => Err(std::io::Error::other("the daemon ends")),
        }
    });
    Ok(answer::stream("application/json", body))
}

pub(crate) async fn resize(State(state): State<Shared>, Path(id): Path<String>, params: Params) -> ApiResult {
    state.engine.resize(&id, terminal_size(&params)?).await?;
    Ok(answer::empty())
}

pub(crate) fn terminal_size(params: &Params) -> Result<TerminalSize, ApiError> {
    let side = |name: &str, what: &str| {
        let text = params.get(name);
        text.parse::<u16>().map_err(|_| {
            let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            ApiError::bad_request(format!("invalid resize {what} {text:?}: {why}"))
        })
    };
    Ok(TerminalSize { height: side("h", "height")?, width: side("w", "width")? })
}

pub(crate) async fn remove(State(state): State<Shared>, Path(id): Path<String>, params: Params) -> ApiResult {
    if params.flag("link") {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "links of containers is not supported by Skep yet"));
    }
    let options = RemoveOptions { force: params.flag("force"), volumes: params.flag("v") };
    state.engine.remove(&id, options).await?;
    Ok(answer::no_content())
}

pub(crate) async fn prune(State(state): State<Shared>, params: Params) -> ApiResult {
    let filters = params.filters(PRUNE_FILTERS)?;
    let until = crate::images::until(&filters)?;
    let options = ListOptions { all: true, size: SizeMode::With, ..ListOptions::default() };
    let mut done = ContainersPruneResponse::default();
    for container in state.engine.list(options).await? {
        if is_prunable(&container, &filters, until) && remove_stopped(&state, &container).await {
            done.space_reclaimed += u64::try_from(container.size_rw).unwrap_or_default();
            done.containers_deleted.get_or_insert_default().push(container.id);
        }
    }
    crate::image_events::pruned(&*state.engine, "container", done.space_reclaimed);
    Ok(answer::ok(&done))
}

fn is_prunable(container: &Summary, filters: &Filters, until: Option<i64>) -> bool {
    let runs = matches!(container.state.as_str(), "running" | "paused" | "restarting");
    !runs
        && until.is_none_or(|until| container.created <= until)
        && filters.matches_labels("label", &container.labels)
        && !(filters.contains("label!") && filters.matches_labels("label!", &container.labels))
}

/// A container that was started meanwhile stays.
async fn remove_stopped(state: &Context, container: &Summary) -> bool {
    match state.engine.remove(&container.id, RemoveOptions::default()).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(container = %container.id, %error, "cannot prune a container");
            false
        }
    }
}
