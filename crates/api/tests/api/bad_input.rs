//! Whatever a client sends, it gets an answer that is not the server's failure, and the server goes on.

use crate::support::{Server, send};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const POSTS: [&str; 10] = [
    "/containers/create",
    "/containers/x/exec",
    "/containers/x/update",
    "/exec/x/start",
    "/volumes/create",
    "/networks/create",
    "/services/create",
    "/secrets/create",
    "/swarm/init",
    "/auth",
];
const GETS: [&str; 7] =
    ["/containers/json", "/images/json", "/networks", "/volumes", "/tasks", "/containers/x/logs", "/system/df"];
const CASES: u32 = 48;

fn cases<T: std::fmt::Debug>(strategy: &impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..CASES).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// JSON of any shape, with names that handlers know among its keys.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,8}".prop_map(|text: String| text.into()),
    ];
    let key = prop_oneof![
        Just("Image"),
        Just("HostConfig"),
        Just("Mounts"),
        Just("Cmd"),
        Just("Name"),
        Just("TaskTemplate"),
        Just("ContainerSpec"),
        Just("Labels"),
        Just("Spec"),
        Just("EndpointsConfig"),
        Just("PortBindings"),
        Just("x"),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

#[tokio::test]
async fn bodies_of_any_shape_are_answered() {
    let server = Server::start().await;
    let values = cases(&any_json());
    for (at, value) in values.iter().enumerate() {
        for path in [POSTS[at % POSTS.len()], "/containers/create", "/services/create"] {
            let answer = server.post(path, &value.to_string()).await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(!text.contains("its log says where"), "{path} {value}: {text}");
            assert!(answer.status < 500 || answer.status == 500 && text.contains("message") || answer.status == 501);
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_json_are_refused() {
    let server = Server::start().await;
    for (at, bytes) in cases(&prop::collection::vec(any::<u8>(), 1..64)).into_iter().enumerate() {
        let path = POSTS[at % POSTS.len()];
        let answer = server.send("POST", path, &bytes).await;
        assert!(
            answer.status == 400 || serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(),
            "{path} {answer:?}"
        );
    }
}

#[tokio::test]
async fn queries_of_any_shape_are_answered() {
    let server = Server::start().await;
    let query = "(filters|all|limit|since|tail|stdout|type|size|x)=[%&=+a-f0-9{}\":]{0,20}";
    for (at, text) in cases(&query).into_iter().enumerate() {
        let encoded: String = text.replace(['{', '}', '"'], "%22");
        let answer = server.get(&format!("{}?{encoded}", GETS[at % GETS.len()])).await;
        assert!(!String::from_utf8_lossy(&answer.body).contains("its log says where"), "{text}");
    }
}

#[tokio::test]
async fn deep_nesting_does_not_end_the_server() {
    let server = Server::start().await;
    let deep = format!("{{\"Labels\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(server.post("/containers/create", &deep).await.status, 400);
    assert_eq!(server.get("/_ping").await.status, 200);
}

#[tokio::test]
async fn what_is_no_http_is_cut() {
    let server = Server::start().await;
    let huge = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2 * 1024 * 1024));
    for bytes in ["\x16\x03\x01\x02nonsense\r\n\r\n", "GET /\r\n\r\n", &huge] {
        let mut stream = tokio::net::UnixStream::connect(&server.socket).await.unwrap();
        // The server may have seen enough before all is written.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
    assert_eq!(server.get("/_ping").await.status, 200);
}

#[tokio::test]
async fn a_body_that_stops_short_is_no_request() {
    let server = Server::start().await;
    let mut stream = tokio::net::UnixStream::connect(&server.socket).await.unwrap();
    let head =
        "POST /volumes/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("201"));
    assert_eq!(server.get("/volumes").await.json()["Volumes"], serde_json::json!([]));
}

#[tokio::test]
async fn old_clients_read_bare_text() {
    let server = Server::start().await;
    let request = http::Request::get("/v1.12/containers/json").body(http_body_util::Full::default()).unwrap();
    let answer = send(&server.socket, request).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        String::from_utf8(answer.body).unwrap(),
        "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n"
    );
}
