//! Endpoints of Docker's API that are not answered yet: one table for the router and for the list in
//! `docs/compatibility.md` (a test compares them).

use http::{Method, StatusCode};

use crate::error::ApiError;

/// An endpoint that is not answered yet.
#[derive(Clone, Debug)]
pub struct NotBuilt {
    /// Method.
    pub method: Method,
    /// Path, with placeholders in braces; with a query it is a form of an endpoint that is answered otherwise.
    pub path: &'static str,
    /// What cannot be done, as in "X is not supported by Skep yet".
    pub what: &'static str,
}

/// Below these, names hold slashes, so that one route takes all there is and finds the endpoint with [`below`].
const WILD: [&str; 2] = ["/images/{", "/plugins/{"];

impl NotBuilt {
    pub(crate) fn refusal(&self) -> ApiError {
        ApiError::new(StatusCode::NOT_IMPLEMENTED, format!("{} is not supported by Skep yet", self.what))
    }

    /// Whether the endpoint has a route of its own.
    pub(crate) fn is_routed(&self) -> bool {
        !self.path.contains('?') && !WILD.iter().any(|prefix| self.path.starts_with(prefix))
    }

    fn is_below(&self, method: &Method, path: &str) -> bool {
        let (Some((start, rest)), false) = (self.path.split_once('{'), self.is_routed()) else { return false };
        let Some((_, end)) = rest.split_once('}') else { return false };
        self.method == *method && path.len() > start.len() + end.len() && path.starts_with(start) && path.ends_with(end)
    }
}

/// The refusal of a path that a route with a wildcard took.
pub(crate) fn below(method: &Method, path: &str) -> ApiError {
    let missing = NOT_BUILT.iter().find(|missing| missing.is_below(method, path));
    missing.map_or_else(ApiError::page_not_found, NotBuilt::refusal)
}

/// `docker import`: a form of an endpoint that pulls.
pub(crate) fn import() -> ApiError {
    let import = NOT_BUILT.iter().find(|missing| missing.path.contains('?'));
    import.map_or_else(ApiError::page_not_found, NotBuilt::refusal)
}

const fn get(path: &'static str, what: &'static str) -> NotBuilt {
    NotBuilt { method: Method::GET, path, what }
}

const fn post(path: &'static str, what: &'static str) -> NotBuilt {
    NotBuilt { method: Method::POST, path, what }
}

const BUILDS: &str = "building images (docker build)";
const CHECKPOINTS: &str = "checkpoints (docker checkpoint)";
const COPIES: &str = "copying files between a container and the host (docker cp)";
const PLUGINS: &str = "managed plugins (docker plugin)";
const SAVES: &str = "writing images to an archive (docker save)";

/// All endpoints that are not answered yet.
pub const NOT_BUILT: &[NotBuilt] = &[
    post("/build", BUILDS),
    post("/build/cancel", BUILDS),
    post("/session", "BuildKit's sessions (docker buildx)"),
    post("/grpc", "BuildKit's gRPC (docker buildx)"),
    post("/commit", "making an image of a container (docker commit)"),
    get("/images/get", SAVES),
    get("/images/{name}/get", SAVES),
    get("/images/search", "searching Docker Hub (docker search)"),
    get("/images/{name}/attestations", "attestations of images"),
    post("/images/{name}/push", "pushing images (docker push)"),
    post("/images/create?fromSrc=", "making an image of an archive (docker import)"),
    get("/containers/{id}/attach/ws", "attaching through a WebSocket"),
    get("/containers/{id}/changes", "listing the changes of a container's file system (docker diff)"),
    get("/containers/{id}/export", "exporting a container's file system (docker export)"),
    get("/containers/{id}/archive", COPIES),
    NotBuilt { method: Method::HEAD, path: "/containers/{id}/archive", what: COPIES },
    NotBuilt { method: Method::PUT, path: "/containers/{id}/archive", what: COPIES },
    get("/containers/{id}/stats", "usage figures of containers (docker stats)"),
    get("/containers/{id}/checkpoints", CHECKPOINTS),
    post("/containers/{id}/checkpoints", CHECKPOINTS),
    NotBuilt { method: Method::DELETE, path: "/containers/{id}/checkpoints/{checkpoint}", what: CHECKPOINTS },
    get("/plugins/privileges", PLUGINS),
    post("/plugins/pull", PLUGINS),
    post("/plugins/create", PLUGINS),
    get("/plugins/{name}/json", PLUGINS),
    post("/plugins/{name}/enable", PLUGINS),
    post("/plugins/{name}/disable", PLUGINS),
    post("/plugins/{name}/push", PLUGINS),
    post("/plugins/{name}/set", PLUGINS),
    post("/plugins/{name}/upgrade", PLUGINS),
    NotBuilt { method: Method::DELETE, path: "/plugins/{name}", what: PLUGINS },
    NotBuilt { method: Method::PUT, path: "/volumes/{name}", what: "cluster volumes (docker volume update)" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_find_their_endpoint() {
        assert!(below(&Method::GET, "/images/a/b:1/get").message.starts_with("writing images"));
        assert!(below(&Method::POST, "/images/a/b/push").message.starts_with("pushing"));
        assert!(below(&Method::DELETE, "/plugins/a/b").message.starts_with("managed"));
        assert_eq!(below(&Method::GET, "/images/get").status, StatusCode::NOT_FOUND);
        assert_eq!(below(&Method::POST, "/plugins/a/nothing").status, StatusCode::NOT_FOUND);
        assert!(import().message.contains("docker import"));
    }
}
