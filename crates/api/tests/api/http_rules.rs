//! dockerd's HTTP rules, met over a real socket.

use crate::support::{Server, send};
use api::swarm_backend::{NotManager, SwarmError};

#[tokio::test]
async fn every_answer_has_dockerds_headers() {
    let server = Server::start().await;
    for path in ["/_ping", "/v1.51/version", "/nothing", "/v1.99/nodes"] {
        let headers = server.get(path).await.headers;
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert!(header("server").starts_with("Docker/28.5.2+skep."), "{path}");
        assert_eq!(header("api-version"), "1.51");
        assert_eq!(header("ostype"), "linux");
        assert_eq!(header("docker-experimental"), "false");
    }
}

#[tokio::test]
async fn ping_tells_what_the_node_is() {
    let server = Server::start().await;
    let answer = server.get("/_ping").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"OK".as_slice()));
    assert_eq!(answer.headers["swarm"], "active/manager");
    assert_eq!(answer.headers["cache-control"], "no-cache, no-store, must-revalidate");
    let answer = server.send("HEAD", "/_ping", b"").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    *server.swarm.refuse.lock().unwrap() = Some(SwarmError::NotManager(NotManager::NoSwarm));
    assert_eq!(server.get("/_ping").await.headers["swarm"], "inactive");
}

#[tokio::test]
async fn versions_out_of_range_are_refused() {
    let server = Server::start().await;
    let answer = server.get("/v1.52/nodes").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.message(), "client version 1.52 is too new. Maximum supported API version is 1.51");
    let answer = server.get("/v1.23/nodes").await;
    assert_eq!(answer.status, 400);
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert!(String::from_utf8(answer.body).unwrap().starts_with("client version 1.23 is too old."));
    for path in ["/nodes", "/v1.24/nodes", "/v1.51/nodes"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_not_found() {
    let server = Server::start().await;
    for (method, path) in [("GET", "/nothing"), ("PUT", "/nodes"), ("GET", "/v1.51/"), ("DELETE", "/services")] {
        let answer = server.send(method, path, b"").await;
        assert_eq!(answer.status, 404, "{method} {path}");
        assert_eq!(answer.body, b"{\"message\":\"page not found\"}\n");
        assert_eq!(answer.headers["content-type"], "application/json");
    }
}

#[tokio::test]
async fn options_are_answered_everywhere() {
    let server = Server::start().await;
    for path in ["/nothing", "/nodes", "/v1.51/containers/x/json"] {
        let answer = server.send("OPTIONS", path, b"").await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_built_says_so() {
    let server = Server::start().await;
    for missing in api::NOT_BUILT {
        let path = missing.path.replace("{id}", "x").replace("{name}", "x").replace("{checkpoint}", "x");
        let path = path.replace("fromSrc=", "fromSrc=-");
        let answer = server.send(missing.method.as_str(), &path, b"").await;
        assert_eq!(answer.status, 501, "{path}");
        if missing.method != http::Method::HEAD {
            assert!(answer.message().ends_with("is not supported by Skep yet"), "{path}");
        }
    }
}

#[tokio::test]
async fn bodies_must_be_json_and_one_value() {
    let server = Server::start().await;
    let check = async |body: &'static [u8], content_type: &str, text: &str| {
        let mut request = http::Request::post("/v1.51/swarm/unlock").header("host", "docker");
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let answer = send(&server.socket, request.body(http_body_util::Full::from(body)).unwrap()).await;
        assert_eq!(answer.status, 400);
        assert!(answer.message().starts_with(text), "{}", answer.message());
    };
    let json = "application/json";
    check(b"{}", "text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'").await;
    check(b"{}", "", "malformed Content-Type header ()").await;
    check(b"", json, "invalid JSON: got EOF while reading request body").await;
    check(b"{", json, "invalid JSON: ").await;
    check(b"{\"UnlockKey\":5}", json, "invalid JSON: ").await;
    check(b"{} {}", json, "unexpected content after JSON").await;
    let request = http::Request::post("/swarm/unlock").header("content-type", "application/json; charset=utf-8");
    let request = request.body(http_body_util::Full::from(b"{\"unlockkey\":\"right\"}".as_slice())).unwrap();
    let answer = send(&server.socket, request).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[tokio::test]
async fn oversized_bodies_are_refused() {
    let server = Server::start().await;
    let body = format!("{{\"UnlockKey\":\"{}\"}}", "x".repeat(api::JSON_BODY_LIMIT));
    let answer = server.post("/swarm/unlock", &body).await;
    assert_eq!(answer.status, 413);
    let body = format!("{{\"UnlockKey\":\"{}\"}}", "x".repeat(api::JSON_BODY_LIMIT - 100));
    assert_eq!(server.post("/swarm/unlock", &body).await.status, 401);
}

#[tokio::test]
async fn open_connections_do_not_hold_up_the_end() {
    let server = Server::start().await;
    let idle = tokio::net::UnixStream::connect(&server.socket).await.unwrap();
    assert_eq!(server.get("/_ping").await.status, 200);
    drop(server);
    let mut end = [0u8; 1];
    idle.readable().await.unwrap();
    assert_eq!(idle.try_read(&mut end).unwrap(), 0, "the server closes idle connections");
}
