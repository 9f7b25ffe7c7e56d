//! Errors as answers: a status and a text, in JSON for all clients that can read it.

use axum::response::{IntoResponse, Response};
use docker_types::filters::FilterError;
use docker_types::json::BodyError;
use docker_types::service::SpecError;
use docker_types::swarm::UnknownCaProtocol;
use docker_types::system::ErrorResponse;
use docker_types::version::VersionError;
use http::StatusCode;

use crate::answer;
use crate::swarm_error::SwarmError;

/// A refusal, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// What the user reads after "Error response from daemon: ".
    pub message: String,
}

/// What handlers give back.
pub(crate) type ApiResult = Result<Response, ApiError>;

impl ApiError {
    /// A refusal.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// 500: also for what dockerd leaves unclassified.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 404 for a path or method that does not exist.
    pub fn page_not_found() -> Self {
        Self::not_found("page not found")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() && self.status != StatusCode::SERVICE_UNAVAILABLE {
            tracing::info!(status = self.status.as_u16(), error = %self.message, "request failed");
        }
        answer::json(self.status, &ErrorResponse { message: self.message })
    }
}

impl From<SwarmError> for ApiError {
    fn from(error: SwarmError) -> Self {
        Self::new(error.http_status(), error.to_string())
    }
}

impl From<SpecError> for ApiError {
    fn from(error: SpecError) -> Self {
        let status = match error {
            SpecError::PluginRuntime => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<VersionError> for ApiError {
    fn from(error: VersionError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<UnknownCaProtocol> for ApiError {
    fn from(error: UnknownCaProtocol) -> Self {
        Self::bad_request(error.to_string())
    }
}
