//! Endpoints of Docker's API that are not answered yet. `docs/compatibility.md` is written from this table.

use http::{Method, StatusCode};

use crate::error::ApiError;

/// An endpoint that is not answered yet.
#[derive(Clone, Debug)]
pub struct NotBuilt {
    /// Method.
    pub method: Method,
    /// Path, with placeholders in braces.
    pub path: &'static str,
    /// What cannot be done, as in "X is not supported by Skep yet".
    pub what: &'static str,
}

impl NotBuilt {
    pub(crate) fn refusal(&self) -> ApiError {
        ApiError::new(StatusCode::NOT_IMPLEMENTED, format!("{} is not supported by Skep yet", self.what))
    }
}

const fn not_built(method: Method, path: &'static str, what: &'static str) -> NotBuilt {
    NotBuilt { method, path, what }
}

/// All endpoints that are not answered yet.
pub const NOT_BUILT: &[NotBuilt] = &[
    not_built(Method::POST, "/build", "building images (docker build)"),
    not_built(Method::POST, "/build/prune", "the build cache (docker builder prune)"),
    not_built(Method::POST, "/build/cancel", "building images (docker build)"),
    not_built(Method::POST, "/session", "BuildKit sessions (docker buildx)"),
    not_built(Method::POST, "/grpc", "BuildKit's gRPC (docker buildx)"),
    not_built(Method::POST, "/commit", "making an image from a container (docker commit)"),
    not_built(Method::GET, "/images/get", "writing images to an archive (docker save)"),
    not_built(Method::GET, "/images/search", "searching Docker Hub (docker search)"),
    not_built(Method::GET, "/containers/{id}/attach/ws", "attaching through a WebSocket"),
    not_built(Method::GET, "/containers/{id}/export", "exporting a container's file system (docker export)"),
    not_built(Method::GET, "/containers/{id}/checkpoints", "checkpoints (docker checkpoint)"),
    not_built(Method::GET, "/plugins", "plugins (docker plugin)"),
    not_built(Method::GET, "/plugins/privileges", "plugins (docker plugin)"),
    not_built(Method::POST, "/plugins/pull", "plugins (docker plugin)"),
    not_built(Method::POST, "/plugins/create", "plugins (docker plugin)"),
    not_built(Method::GET, "/plugins/{name}/json", "plugins (docker plugin)"),
    not_built(Method::PUT, "/volumes/{name}", "cluster volumes (docker volume update)"),
];

/// `docker save`: below a path that other endpoints share.
pub(crate) fn save() -> NotBuilt {
    not_built(Method::GET, "/images/{name}/get", "writing images to an archive (docker save)")
}

/// `docker push`: below a path that other endpoints share.
pub(crate) fn push() -> NotBuilt {
    not_built(Method::POST, "/images/{name}/push", "pushing images (docker push)")
}

/// `docker import`: a form of an endpoint that pulls.
pub(crate) fn import() -> NotBuilt {
    not_built(Method::POST, "/images/create?fromSrc", "making an image of an archive (docker import)")
}
