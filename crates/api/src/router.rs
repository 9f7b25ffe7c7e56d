//! Which path is answered by whom.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, delete, get, head, post};
use http::Method;

use crate::answer;
use crate::checkup;
use crate::error::ApiError;
use crate::networks;
use crate::not_built::{self, NotBuilt};
use crate::state::Shared;
use crate::swarm::{cluster, logs, nodes, secrets, services, tasks};
use crate::system;
use crate::{containers, disk_usage, events, exec, streams, volumes};
use crate::{images, pull, registry};

/// All routes.
pub(crate) fn router(state: Shared) -> Router {
    let routes = Router::new()
        .merge(system_routes())
        .merge(swarm_routes())
        .merge(network_routes())
        .merge(image_routes())
        .merge(container_routes())
        .merge(volume_routes());
    not_built::NOT_BUILT
        .iter()
        .filter(|missing| missing.is_routed())
        .fold(routes, |routes, missing| routes.route(missing.path, refuse(missing)))
        .fallback(any(page_not_found))
        .method_not_allowed_fallback(page_not_found)
        .with_state(state)
}

/// dockerd answers OPTIONS of every path.
async fn page_not_found(method: Method) -> Response {
    if method == Method::OPTIONS { answer::empty() } else { ApiError::page_not_found().into_response() }
}

async fn plugin_not_found(method: Method, uri: http::Uri) -> ApiError {
    not_built::below(&method, uri.path())
}

fn refuse(missing: &'static NotBuilt) -> MethodRouter<Shared> {
    let answer = move || async move { missing.refusal().into_response() };
    match missing.method {
        Method::GET => get(answer),
        Method::PUT => axum::routing::put(answer),
        Method::DELETE => delete(answer),
        Method::HEAD => head(answer),
        _ => post(answer),
    }
}

fn system_routes() -> Router<Shared> {
    Router::new()
        .route("/_ping", get(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(events::events))
        .route("/system/df", get(disk_usage::disk_usage))
        .route("/skep/doctor", get(checkup::examine))
        .route("/plugins", get(system::plugins))
        .route("/plugins/{*rest}", any(plugin_not_found))
}

fn image_routes() -> Router<Shared> {
    Router::new()
        .route("/images/json", get(images::list))
        .route("/images/create", post(pull::create))
        .route("/images/load", post(pull::load))
        .route("/images/prune", post(images::prune))
        .route("/build/prune", post(images::prune_builds))
        .route("/images/{*rest}", get(images::get).post(images::post).delete(images::remove))
        .route("/distribution/{*rest}", get(registry::distribution))
        .route("/auth", post(registry::auth))
}

fn container_routes() -> Router<Shared> {
    Router::new()
        .route("/containers/json", get(containers::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(containers::prune))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/top", get(containers::top))
        .route("/containers/{id}/logs", get(streams::logs))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/pause", post(containers::pause))
        .route("/containers/{id}/unpause", post(containers::unpause))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/attach", post(streams::attach))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/update", post(containers::update))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/exec/{id}/json", get(exec::inspect))
}

fn volume_routes() -> Router<Shared> {
    Router::new()
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route("/volumes/{name}", get(volumes::inspect).delete(volumes::remove))
}

fn network_routes() -> Router<Shared> {
    Router::new()
        .route("/networks", get(networks::list))
        .route("/networks/", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
        .route("/networks/{id}", get(networks::inspect).delete(networks::remove))
        .route("/networks/{id}/connect", post(networks::connect))
        .route("/networks/{id}/disconnect", post(networks::disconnect))
}

fn swarm_routes() -> Router<Shared> {
    Router::new()
        .route("/swarm", get(cluster::inspect))
        .route("/swarm/init", post(cluster::init))
        .route("/swarm/join", post(cluster::join))
        .route("/swarm/leave", post(cluster::leave))
        .route("/swarm/update", post(cluster::update))
        .route("/swarm/unlockkey", get(cluster::unlock_key))
        .route("/swarm/unlock", post(cluster::unlock))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{id}", get(nodes::inspect).delete(nodes::remove))
        .route("/nodes/{id}/update", post(nodes::update))
        .route("/services", get(services::list))
        .route("/services/create", post(services::create))
        .route("/services/{id}", get(services::inspect).delete(services::remove))
        .route("/services/{id}/update", post(services::update))
        .route("/services/{id}/logs", get(logs::of_service))
        .route("/tasks", get(tasks::list))
        .route("/tasks/{id}", get(tasks::inspect))
        .route("/tasks/{id}/logs", get(logs::of_task))
        .route("/secrets", get(secrets::list_secrets))
        .route("/secrets/create", post(secrets::create_secret))
        .route("/secrets/{id}", get(secrets::inspect_secret).delete(secrets::remove_secret))
        .route("/secrets/{id}/update", post(secrets::update_secret))
        .route("/configs", get(secrets::list_configs))
        .route("/configs/create", post(secrets::create_config))
        .route("/configs/{id}", get(secrets::inspect_config).delete(secrets::remove_config))
        .route("/configs/{id}/update", post(secrets::update_config))
}
