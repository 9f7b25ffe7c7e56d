//! `POST /auth` and `GET /distribution/{name}/json`: what registries say.

use axum::extract::{Path, State};
use docker_types::system::{self as json, AuthResponse, DistributionInspect, OciPlatform};
use http::{HeaderMap, StatusCode};
use image::{AuthConfig, ErrorKind, ImageError};
use oci_types::Reference;

use crate::answer;
use crate::error::{ApiError, ApiResult};
use crate::request::{Json, REGISTRY_AUTH, header_text};
use crate::state::Shared;

pub(crate) async fn auth(State(state): State<Shared>, Json(body): Json<json::AuthConfig>) -> ApiResult {
    let auth = AuthConfig {
        username: body.username,
        password: body.password,
        auth: body.auth,
        serveraddress: body.server_address,
        identitytoken: body.identity_token,
        registrytoken: body.registry_token,
    };
    let status = state.images.auth(&auth).await.map_err(passed_through)?;
    Ok(answer::ok(&AuthResponse { identity_token: status.identity_token, status: status.status }))
}

/// Statuses of registries reach the client.
fn passed_through(error: ImageError) -> ApiError {
    let status = match (&error, error.kind()) {
        (ImageError::PullDenied { .. }, _) => Some(StatusCode::FORBIDDEN),
        (_, ErrorKind::Unauthorized) => Some(StatusCode::UNAUTHORIZED),
        _ => None,
    };
    // here dockerd adds nothing to what the registry said
    let said = match &error {
        ImageError::ManifestUnknown { detail, .. } | ImageError::RepositoryUnknown { detail, .. } => {
            Some(detail.clone())
        }
        ImageError::PullDenied { detail, .. } => detail.strip_prefix(": ").map(str::to_owned),
        _ => None,
    };
    let mut refusal = ApiError::from(error);
    refusal.status = status.unwrap_or(refusal.status);
    refusal.message = said.unwrap_or(refusal.message);
    refusal
}

pub(crate) async fn distribution(
    State(state): State<Shared>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> ApiResult {
    let name = rest.strip_suffix("/json").ok_or_else(ApiError::page_not_found)?;
    let reference = Reference::parse(name).map_err(ImageError::from)?;
    let auth = AuthConfig::decode(header_text(&headers, REGISTRY_AUTH)).ok().flatten();
    let found = state.images.distribution(&reference, auth.as_ref()).await.map_err(passed_through)?;
    let platform = |platform: oci_types::Platform| OciPlatform {
        architecture: platform.architecture,
        os: platform.os,
        os_version: platform.os_version,
        os_features: Vec::new(),
        variant: platform.variant,
    };
    Ok(answer::ok(&DistributionInspect {
        descriptor: json::Descriptor {
            media_type: found.descriptor.media_type,
            digest: found.descriptor.digest.to_string(),
            size: i64::try_from(found.descriptor.size).unwrap_or(i64::MAX),
        },
        platforms: found.platforms.into_iter().map(platform).collect(),
    }))
}
