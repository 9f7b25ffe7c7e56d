//! `/_ping`, `/version`, `/info`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use docker_types::system::Info;
use http::{HeaderMap, HeaderValue, Method, header};

use crate::answer;
use crate::error::ApiResult;
use crate::state::Shared;
use crate::swarm::cluster;

pub(crate) async fn ping(State(state): State<Shared>, method: Method) -> Response {
    let swarm = cluster::ping_header(&state.swarm.info().await);
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("swarm", HeaderValue::from_static(swarm));
    let body = if method == Method::HEAD { "" } else { "OK" };
    (headers, body).into_response()
}

pub(crate) async fn version(State(state): State<Shared>) -> ApiResult {
    Ok(answer::ok(&state.about.version(&kernel_version())))
}

fn kernel_version() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

pub(crate) async fn info(State(state): State<Shared>) -> ApiResult {
    let mut info = Info::default();
    info.swarm = cluster::info(&state.swarm.info().await);
    if !info.swarm.warnings.is_empty() {
        info.warnings.get_or_insert_default().extend(info.swarm.warnings.iter().cloned());
    }
    info.server_version.clone_from(&state.about.engine_version);
    info.experimental_build = state.about.experimental;
    Ok(answer::ok(&info))
}

/// `GET /plugins`: there are none.
pub(crate) async fn plugins() -> Response {
    answer::ok::<[(); 0]>(&[])
}
