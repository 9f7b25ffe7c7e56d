//! Containers, execs, volumes and events: statuses, texts and streams.

use std::time::Duration;

use crate::support::Server;
use api::EngineBackend;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

async fn create(server: &Server, name: &str, body: &str) -> String {
    let answer = server.post(&format!("/v1.51/containers/create?name={name}"), body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["Id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_container_lives_from_create_to_remove() {
    let server = Server::start().await;
    let id = create(&server, "web", r#"{"Image":"alpine","Cmd":["sleep"]}"#).await;
    let check = async |method: &str, path: &str, status: u16, text: &str| {
        let answer = server.send(method, path, b"").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        let body = if answer.body.is_empty() { String::new() } else { answer.message() };
        assert_eq!(body, text, "{method} {path}");
    };
    check("POST", "/containers/web/start", 204, "").await;
    check("POST", "/containers/web/start", 304, "").await;
    let running = format!(
        "cannot remove container \"{id}\": container is running: stop the container before removing or force remove"
    );
    check("DELETE", &format!("/containers/{id}"), 409, &running).await;
    check("POST", "/containers/web/resize?h=24&w=80", 200, "").await;
    check(
        "POST",
        "/containers/web/resize?h=x&w=80",
        400,
        "invalid resize height \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
    )
    .await;
    check("POST", "/containers/web/stop?t=x", 500, "strconv.Atoi: parsing \"x\": invalid syntax").await;
    check("POST", "/containers/web/wait?condition=soon", 400, "invalid condition: \"soon\"").await;
    check("POST", "/containers/web/stop?t=1", 204, "").await;
    check("POST", "/containers/web/stop", 304, "").await;
    check("POST", "/containers/web/kill", 409, &format!("cannot kill container: web: container {id} is not running"))
        .await;
    check("POST", "/containers/web/rename?name=web2", 204, "").await;
    check("GET", "/containers/web/json", 404, "No such container: web").await;
    check("GET", "/containers/web2/logs", 400, "Bad parameters: you must choose at least one stream").await;
    check("DELETE", "/containers/web2?v=1", 204, "").await;
    check("DELETE", "/containers/web2", 404, "No such container: web2").await;
    check("POST", "/containers/nope/attach", 404, "No such container: nope").await;
    check("POST", "/containers/nope/attach?detachKeys=ctrl-xx", 400, "Invalid detach keys (ctrl-xx) provided").await;
    check("GET", "/exec/nope/json", 404, "No such exec instance: nope").await;
}

#[tokio::test]
async fn bad_creations_are_refused() {
    let server = Server::start().await;
    let refused = async |body: &str, status: u16, text: &str| {
        let answer = server.post("/v1.51/containers/create", body).await;
        assert_eq!((answer.status, answer.message().as_str()), (status, text), "{body}");
    };
    refused(r#"{"Image":"missing"}"#, 404, "No such image: missing:latest").await;
    let mount = r#"{"Image":"a","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/t","BindOptions":{}}]}}"#;
    refused(mount, 400, "BindOptions must not be specified on mount type \"tmpfs\"").await;
    let answer = server.post("/containers/create", r#"{"Image":5}"#).await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().starts_with("invalid JSON: "), "{answer:?}");
    create(&server, "taken", r#"{"Image":"a"}"#).await;
    let answer = server.post("/containers/create?name=taken", r#"{"Image":"a"}"#).await;
    assert_eq!(answer.status, 409);
    assert!(answer.message().starts_with("Conflict. The container name \"/taken\" is already in use"));
    let answer = server.post("/containers/create?platform=a/b/c/d", r#"{"Image":"a"}"#).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn lists_are_filtered_and_limited() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        create(&server, name, r#"{"Image":"alpine","Cmd":["sleep"],"Labels":{"k":"v"}}"#).await;
    }
    server.engine.start("a").await.unwrap();
    let names = async |path: &str| {
        let list = server.get(path).await.json();
        list.as_array().unwrap().iter().map(|one| one["Names"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/containers/json").await, ["/a"]);
    assert_eq!(names("/containers/json?all=1").await, ["/c", "/b", "/a"]);
    assert_eq!(names("/containers/json?limit=2").await, ["/c", "/b"]);
    assert_eq!(names("/containers/json?filters=%7B%22status%22%3A%5B%22created%22%5D%7D").await, ["/c", "/b"]);
    let refused = async |query: &str, status: u16, text: &str| {
        let answer = server.get(&format!("/containers/json?{query}")).await;
        assert_eq!((answer.status, answer.message().as_str()), (status, text));
    };
    refused("filters=%7B%22nope%22%3A%5B%22x%22%5D%7D", 400, "invalid filter 'nope'").await;
    refused("limit=x", 500, "strconv.Atoi: parsing \"x\": invalid syntax").await;
    refused(
        "filters=%7B%22status%22%3A%5B%22odd%22%5D%7D",
        400,
        "invalid filter 'status=odd': invalid value for state (odd): must be one of created, running, paused, restarting, removing, exited, dead",
    )
    .await;
    let pruned = server.post("/containers/prune", "").await.json();
    assert_eq!(pruned["ContainersDeleted"].as_array().unwrap().len(), 2);
    assert_eq!(pruned["SpaceReclaimed"], 10);
    assert_eq!(names("/containers/json?all=1").await, ["/a"]);
}

/// Reads until `end` is there.
async fn read_to(stream: &mut UnixStream, end: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        let count = tokio::time::timeout(Duration::from_secs(10), stream.read_buf(&mut read)).await.unwrap().unwrap();
        assert_ne!(count, 0, "ended after {:?}", String::from_utf8_lossy(&read));
    }
    String::from_utf8_lossy(&read).into_owned()
}

async fn ask(server: &Server, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn attach_takes_the_connection_over() {
    let server = Server::start().await;
    create(&server, "cat", r#"{"Image":"a","Cmd":["cat"],"OpenStdin":true,"StdinOnce":true}"#).await;
    let head = "POST /v1.51/containers/cat/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    let mut stream = ask(&server, head).await;
    let answer = read_to(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{answer}");
    assert!(answer.contains("application/vnd.docker.multiplexed-stream"), "{answer}");
    server.engine.start("cat").await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    assert!(read_to(&mut stream, "hello").await.starts_with("\x01\0\0\0\0\0\0\x05"));
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(server.post("/containers/cat/wait", "").await.json(), json!({"StatusCode": 0}));
}

#[tokio::test]
async fn a_client_that_is_gone_is_let_go_and_one_that_is_silent_is_not() {
    let server = Server::start().await;
    create(&server, "quiet", r#"{"Image":"a","Cmd":["sleep"]}"#).await;
    let head = "POST /v1.51/containers/quiet/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    let mut silent = ask(&server, head).await;
    read_to(&mut silent, "\r\n\r\n").await;
    silent.shutdown().await.unwrap();
    let mut leaving = ask(&server, head).await;
    read_to(&mut leaving, "\r\n\r\n").await;
    assert_eq!(server.engine.attachers("quiet"), 2);
    drop(leaving);
    let gone = async {
        while server.engine.attachers("quiet") != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the one that left is let go");
    server.engine.start("quiet").await.unwrap();
    server.engine.stop("quiet", engine::StopOptions::default()).await.unwrap();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn waits_answer_at_once_and_end_with_the_exit() {
    let server = Server::start().await;
    create(&server, "c", r#"{"Image":"a","Cmd":["exit","3"]}"#).await;
    let mut stream =
        ask(&server, "POST /v1.51/containers/c/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n").await;
    assert!(read_to(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    server.engine.start("c").await.unwrap();
    assert!(read_to(&mut stream, "\"StatusCode\":3}").await.contains("{\"StatusCode\":3}"));
    let answer = server.post("/v1.29/containers/c/wait", "").await;
    assert_eq!(answer.json(), json!({"StatusCode": 3}));
}

#[tokio::test]
async fn logs_are_framed_without_a_terminal() {
    let server = Server::start().await;
    for (tty, content_type, body) in [
        ("false", "application/vnd.docker.multiplexed-stream", b"\x01\0\0\0\0\0\0\x03hi\n".as_slice()),
        ("true", "application/vnd.docker.raw-stream", b"hi\n".as_slice()),
    ] {
        let name = format!("tty-{tty}");
        create(&server, &name, &format!(r#"{{"Image":"a","Cmd":["echo","hi"],"Tty":{tty}}}"#)).await;
        server.engine.start(&name).await.unwrap();
        let answer = server.get(&format!("/v1.51/containers/{name}/logs?stdout=1&follow=1")).await;
        assert_eq!(answer.headers["content-type"], content_type);
        assert_eq!(answer.body, body, "{tty}");
    }
    let answer = server.get("/v1.51/containers/tty-false/logs?stdout=1&since=yesterday").await;
    let text = "strconv.ParseInt: parsing \"yesterday\": invalid syntax";
    assert_eq!((answer.status, answer.message().as_str()), (500, text));
}

#[tokio::test]
async fn execs_say_what_fails_in_their_stream() {
    let server = Server::start().await;
    create(&server, "c", r#"{"Image":"a","Cmd":["sleep"]}"#).await;
    let answer = server.post("/containers/c/exec", r#"{"Cmd":["echo"]}"#).await;
    assert_eq!(answer.status, 409);
    server.engine.start("c").await.unwrap();
    let answer = server.post("/containers/c/exec", "{}").await;
    assert_eq!((answer.status, answer.message().as_str()), (400, "No exec command specified"));
    let exec = async |body: &str| {
        let answer = server.post("/containers/c/exec", body).await;
        assert_eq!(answer.status, 201);
        answer.json()["Id"].as_str().unwrap().to_owned()
    };
    let id = exec(r#"{"Cmd":["nope"],"AttachStdout":true}"#).await;
    let head = format!(
        "POST /v1.51/exec/{id}/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let mut stream = ask(&server, &head).await;
    let answer = read_to(&mut stream, "unknown\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{answer}");
    assert!(answer.contains("exec: \"nope\": executable file not found in $PATH"), "{answer}");
    assert_eq!(server.get(&format!("/exec/{id}/json")).await.json()["ExitCode"], 127);
    let id = exec(r#"{"Cmd":["echo","x"]}"#).await;
    let answer = server.post(&format!("/exec/{id}/start"), r#"{"Detach":true}"#).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let answer = server.post("/exec/nope/start", "{}").await;
    assert_eq!((answer.status, answer.message().as_str()), (404, "No such exec instance: nope"));
}

#[tokio::test]
async fn events_come_as_they_happen_and_end_with_the_server() {
    let server = Server::start().await;
    create(&server, "c", r#"{"Image":"a","Cmd":["exit","3"]}"#).await;
    let query = "filters=%7B%22event%22%3A%5B%22die%22%5D%7D";
    let mut stream = ask(&server, &format!("GET /v1.51/events?{query} HTTP/1.1\r\nHost: d\r\n\r\n")).await;
    assert!(read_to(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    server.engine.start("c").await.unwrap();
    let line = read_to(&mut stream, "}\n").await;
    assert!(line.contains("\"Action\":\"die\"") && !line.contains("\"start\""), "{line}");
    let answer = server.get("/events?since=10&until=5").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.message(), "`since` time (10) cannot be after `until` time (5)");
    drop(server);
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await;
    end.expect("followers do not hold up the end").unwrap();
}

#[tokio::test]
async fn volumes_are_made_listed_and_removed() {
    let server = Server::start().await;
    let answer = server.post("/volumes/create", r#"{"Name":"data"}"#).await;
    assert_eq!((answer.status, answer.json()["Mountpoint"].as_str()), (201, Some("/volumes/data/_data")));
    assert_eq!(server.get("/volumes").await.json()["Volumes"][0]["Name"], "data");
    assert_eq!(server.get("/volumes/data").await.json()["Driver"], "local");
    let answer = server.get("/volumes?filters=%7B%22x%22%3A%5B%22y%22%5D%7D").await;
    assert_eq!((answer.status, answer.message().as_str()), (400, "invalid filter 'x'"));
    assert_eq!(server.send("DELETE", "/volumes/data", b"").await.status, 204);
    assert_eq!(server.send("DELETE", "/volumes/data", b"").await.status, 404);
    assert_eq!(server.send("DELETE", "/volumes/data?force=1", b"").await.status, 204);
    server.post("/volumes/create", r#"{"Name":"old"}"#).await;
    assert_eq!(server.post("/v1.51/volumes/prune", "").await.json()["VolumesDeleted"], json!(null));
    assert_eq!(server.post("/v1.41/volumes/prune", "").await.json()["VolumesDeleted"], json!(["old"]));
    let answer = server.post("/volumes/create", r#"{"ClusterVolumeSpec":{}}"#).await;
    assert_eq!(answer.status, 501);
}
