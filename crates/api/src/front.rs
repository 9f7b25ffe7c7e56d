//! What stands before the routes: the version in the path, the headers of every answer, panics of handlers.

use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use docker_types::version::ApiVersion;
use futures::FutureExt;
use http::{HeaderValue, Request, StatusCode, Uri, header, uri::PathAndQuery};
use tower::ServiceExt;

use crate::error::ApiError;
use crate::request::ClientVersion;

/// The oldest clients that read errors as JSON.
const JSON_ERRORS_SINCE: ApiVersion = ApiVersion::new(1, 24);

/// Answers one request.
#[derive(Clone)]
pub(crate) struct Front {
    router: Router,
    server: HeaderValue,
    experimental: HeaderValue,
}

impl Front {
    pub(crate) fn new(router: Router, engine_version: &str, experimental: bool) -> Self {
        let server = HeaderValue::try_from(format!("Docker/{engine_version} (linux)"))
            .unwrap_or(HeaderValue::from_static("Docker (linux)"));
        let experimental = HeaderValue::from_static(if experimental { "true" } else { "false" });
        Self { router, server, experimental }
    }

    /// Answers one request; a panic of a handler becomes a 500.
    pub(crate) async fn answer(self, request: Request<Body>) -> Response {
        let (server, experimental) = (self.server.clone(), self.experimental.clone());
        let line = tracing::enabled!(tracing::Level::DEBUG).then(|| format!("{} {}", request.method(), request.uri()));
        let mut response = match AssertUnwindSafe(self.route(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => ApiError::internal("the engine failed on this request; its log says where").into_response(),
        };
        if let Some(line) = line {
            tracing::debug!(request = line, status = response.status().as_u16(), "answered");
        }
        let headers = response.headers_mut();
        headers.insert(header::SERVER, server);
        headers.insert("api-version", HeaderValue::from_static(API_VERSION));
        headers.insert("ostype", HeaderValue::from_static("linux"));
        headers.insert("docker-experimental", experimental);
        response
    }

    async fn route(self, mut request: Request<Body>) -> Response {
        if let Some((version, rest)) = split_version(request.uri()) {
            if let Err(error) = version.check() {
                return refuse(version, error.into());
            }
            *request.uri_mut() = rest;
            request.extensions_mut().insert(ClientVersion(version));
        }
        match self.router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// [`docker_types::version::MAX`] as a header.
const API_VERSION: &str = "1.51";

/// Clients of old read bare text.
fn refuse(version: ApiVersion, error: ApiError) -> Response {
    if version >= JSON_ERRORS_SINCE {
        return error.into_response();
    }
    let text = format!("{}\n", error.message);
    (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// `/v1.51/nodes?x=y` is version 1.51 of `/nodes?x=y`.
fn split_version(uri: &Uri) -> Option<(ApiVersion, Uri)> {
    let rest = uri.path().strip_prefix("/v")?;
    let (version, path) = rest.split_once('/')?;
    let version = ApiVersion::parse(version)?;
    let path_and_query = match uri.query() {
        Some(query) => format!("/{path}?{query}"),
        None => format!("/{path}"),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Some((version, Uri::from_parts(parts).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_split_from_paths() {
        let split = |uri: &'static str| {
            split_version(&Uri::from_static(uri)).map(|(version, uri)| (version.to_string(), uri.to_string()))
        };
        assert_eq!(split("/v1.51/nodes?a=b%20c"), Some(("1.51".into(), "/nodes?a=b%20c".into())));
        assert_eq!(split("/v1.24/images/a/b/json"), Some(("1.24".into(), "/images/a/b/json".into())));
        assert_eq!(split("/volumes/x"), None);
        assert_eq!(split("/v1/x"), None);
        assert_eq!(split("/_ping"), None);
    }

    #[test]
    fn the_header_names_the_newest_version() {
        assert_eq!(API_VERSION, docker_types::version::MAX.to_string());
    }
}
