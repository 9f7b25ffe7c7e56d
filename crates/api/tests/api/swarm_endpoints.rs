//! The swarm's endpoints: statuses, texts, shapes.

use crate::support::Server;
use api::swarm_backend::*;
use model::*;
use serde_json::json;

const ALL_FLAGS: &str = include_str!("../../../docker-types/tests/recorded/service_create_all_flags.json");
const PUBLISHED: &str = include_str!("../../../docker-types/tests/recorded/service_create_published.json");

fn add_networks(server: &Server) {
    for name in ["net1", "net2"] {
        let mut network = Network { id: format!("{name}-id").into(), ..Network::default() };
        network.spec.annotations.name = name.into();
        server.swarm.networks.lock().unwrap().insert(network.id.to_string(), network);
    }
}

#[tokio::test]
async fn a_service_lives_from_create_to_remove() {
    let server = Server::start().await;
    add_networks(&server);
    let answer = server.post("/v1.51/services/create", ALL_FLAGS).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["ID"].as_str().unwrap().to_owned();
    assert_eq!(answer.json()["Warnings"], serde_json::Value::Null);

    let answer = server.get("/v1.51/services/web").await;
    let service = answer.json();
    assert_eq!(service["ID"], id);
    assert_eq!(service["Version"]["Index"], 10);
    assert_eq!(service["Spec"]["TaskTemplate"]["Networks"][0]["Target"], "net2-id", "names become identifiers");
    assert_eq!(server.get(&format!("/services/{}", &id[..15])).await.json()["ID"], id, "found by prefix");

    let body = service["Spec"].to_string();
    let update = format!("/v1.51/services/{id}/update");
    let answer = server.post(&format!("{update}?version=10"), &body).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"{\"Warnings\":null}\n".as_slice()));
    let answer = server.post(&format!("{update}?version=10"), &body).await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.message(), "rpc error: code = Unknown desc = update out of sequence");
    let answer = server.post(&format!("{update}?version=11&rollback=previous"), &body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(*server.swarm.rollbacks.lock().unwrap(), [Rollback::None, Rollback::Previous]);
    let answer = server.post(&format!("{update}?version=12&rollback=x"), &body).await;
    assert_eq!((answer.status, answer.message().as_str()), (500, "unrecognized rollback option x"));
    let answer = server.post(&update, &body).await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().starts_with("invalid service version ''"));

    let answer = server.send("DELETE", "/services/web", b"").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let answer = server.get("/services/web").await;
    assert_eq!((answer.status, answer.message().as_str()), (404, "service web not found"));
}

#[tokio::test]
async fn lists_are_never_null_and_status_is_counted() {
    let server = Server::start().await;
    for list in ["nodes", "services", "tasks", "secrets", "configs"] {
        assert_eq!(server.get(&format!("/v1.51/{list}")).await.body, b"[]\n", "{list}");
    }
    server.post("/services/create", PUBLISHED).await;
    let listed = server.get("/v1.51/services?status=true").await.json();
    assert_eq!(listed[0]["ServiceStatus"], json!({"RunningTasks": 4, "DesiredTasks": 5, "CompletedTasks": 0}));
    assert!(server.get("/v1.51/services").await.json()[0].get("ServiceStatus").is_none());
    assert!(server.get("/v1.40/services?status=true").await.json()[0].get("ServiceStatus").is_none());
    let answer = server.get("/v1.51/services?status=maybe").await;
    assert_eq!(answer.status, 400);
    let filtered = server.get("/services?filters=%7B%22mode%22%3A%5B%22global%22%5D%7D").await;
    assert_eq!(filtered.body, b"[]\n");
}

#[tokio::test]
async fn services_without_a_name_get_one() {
    let server = Server::start().await;
    let answer = server.post("/services/create", r#"{"TaskTemplate":{"ContainerSpec":{"Image":"x"}}}"#).await;
    assert_eq!(answer.status, 201);
    let name = server.get("/services").await.json()[0]["Spec"]["Name"].as_str().unwrap().to_owned();
    assert!(name.contains('_'), "{name}");
}

#[tokio::test]
async fn credentials_are_kept_over_updates() {
    let server = Server::start().await;
    let request = |path: &str, auth: Option<&str>| {
        let mut request = http::Request::post(path).header("content-type", "application/json");
        if let Some(auth) = auth {
            request = request.header("x-registry-auth", auth);
        }
        request.body(http_body_util::Full::from(PUBLISHED.as_bytes())).unwrap()
    };
    let auth = |spec: &ServiceSpec| match &spec.task.runtime {
        Some(TaskRuntime::Container(container)) => {
            container.pull_options.as_ref().map(|options| options.registry_auth.clone())
        }
        _ => None,
    };
    let current = || server.swarm.services.lock().unwrap().values().next().unwrap().clone();
    crate::support::send(&server.socket, request("/services/create", Some("first"))).await;
    assert_eq!(auth(&current().spec).as_deref(), Some("first"));
    crate::support::send(&server.socket, request("/services/dummy/update?version=10", None)).await;
    assert_eq!(auth(&current().spec).as_deref(), Some("first"));
    crate::support::send(&server.socket, request("/services/dummy/update?version=11", Some("second"))).await;
    assert_eq!(auth(&current().spec).as_deref(), Some("second"));
    let path = "/services/dummy/update?version=12&registryAuthFrom=previous-spec";
    crate::support::send(&server.socket, request(path, None)).await;
    assert_eq!(auth(&current().spec).as_deref(), Some("first"));
    let answer =
        crate::support::send(&server.socket, request("/services/dummy/update?version=13&registryAuthFrom=x", None));
    let answer = answer.await;
    assert_eq!((answer.status, answer.message().as_str()), (500, "unsupported registryAuthFrom value"));
    let shown = server.get("/services/dummy").await;
    assert!(!String::from_utf8(shown.body).unwrap().contains("first"), "credentials are never shown");
}

#[tokio::test]
async fn refusals_have_dockerds_status_and_text() {
    let server = Server::start().await;
    server.post("/services/create", PUBLISHED).await;
    let answer = server.post("/services/create", PUBLISHED).await;
    assert_eq!(answer.status, 409);
    assert_eq!(
        answer.message(),
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service dummy already exists"
    );
    let check = async |method: &str, path: &str, status: u16, text: &str| {
        let answer = server.send(method, path, b"").await;
        assert_eq!((answer.status, answer.message().as_str()), (status, text), "{method} {path}");
    };
    check("GET", "/nodes/x", 404, "node x not found").await;
    check("GET", "/tasks/x", 404, "task x not found").await;
    check("GET", "/secrets/x", 404, "secret x not found").await;
    check("DELETE", "/configs/x", 404, "config x not found").await;
    check("GET", "/nodes?filters=%7B%22nam%22%3A%5B%22x%22%5D%7D", 400, "invalid filter 'nam'").await;
    check("GET", "/nodes?filters=x", 400, "invalid filter").await;
    check("GET", "/nodes?filters=%7B%22role%22%3A%5B%22x%22%5D%7D", 500, "Invalid role filter: 'x'").await;
    check("GET", "/tasks?filters=%7B%22desired-state%22%3A%5B%22x%22%5D%7D", 500, "Invalid desired-state filter: 'x'")
        .await;
    check("GET", "/tasks?filters=%7B%22service%22%3A%5B%22x%22%5D%7D", 404, "service x not found").await;
    check("GET", "/services/dummy/logs", 500, "Bad parameters: you must choose at least one stream").await;
}

#[tokio::test]
async fn outside_a_swarm_all_says_so() {
    let server = Server::start().await;
    *server.swarm.refuse.lock().unwrap() = Some(SwarmError::NotManager(NotManager::NoSwarm));
    for path in ["/swarm", "/nodes", "/nodes/x", "/services", "/services/x", "/tasks", "/secrets", "/configs/x"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.message().starts_with("This node is not a swarm manager. Use \"docker swarm init\""), "{path}");
    }
}

#[tokio::test]
async fn names_come_before_prefixes_and_two_matches_are_ambiguous() {
    let server = Server::start().await;
    for (id, name) in [("abc1", "x"), ("abc2", "y"), ("zzz", "abc")] {
        let secret = Secret {
            id: id.into(),
            spec: SecretSpec {
                annotations: Annotations { name: name.into(), ..Annotations::default() },
                ..SecretSpec::default()
            },
            ..Secret::default()
        };
        server.swarm.secrets.lock().unwrap().insert(id.into(), secret);
    }
    assert_eq!(server.get("/secrets/abc").await.json()["ID"], "zzz");
    assert_eq!(server.get("/secrets/abc1").await.json()["ID"], "abc1");
    let answer = server.get("/secrets/ab").await;
    assert_eq!((answer.status, answer.message().as_str()), (400, "secret ab is ambiguous (2 matches found)"));
}

#[tokio::test]
async fn the_swarm_is_made_changed_and_left() {
    let server = Server::start().await;
    let answer = server.post("/swarm/init", include_str!("../../../docker-types/tests/recorded/swarm_init.json")).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"\"node1\"\n".as_slice()));
    let init = server.swarm.inits.lock().unwrap().remove(0);
    assert_eq!(init.availability, NodeAvailability::Drain);
    assert_eq!((init.subnet_size, init.data_path_port), (26, 5789));
    assert!(init.auto_lock_managers);
    assert_eq!(init.spec.name, "default");

    let answer = server.post("/swarm/init", r#"{"ListenAddr":"0.0.0.0","Spec":{"Name":"x"}}"#).await;
    assert_eq!((answer.status, answer.message().as_str()), (400, "swarm spec must be named \"default\""));
    let answer = server.post("/swarm/init", "{}").await;
    assert_eq!((answer.status, answer.message().as_str()), (400, "invalid ListenAddr \"\": invalid empty address"));
    let answer = server.post("/swarm/join", r#"{"ListenAddr":"0.0.0.0"}"#).await;
    assert_eq!((answer.status, answer.message().as_str()), (400, "at least 1 RemoteAddr is required to join"));

    let shown = server.get("/swarm").await.json();
    assert_eq!(shown["DefaultAddrPool"], json!(["10.0.0.0/8"]));
    assert_eq!((&shown["SubnetSize"], &shown["DataPathPort"]), (&json!(24), &json!(4789)));
    assert_eq!(shown["JoinTokens"], json!({"Worker": "", "Manager": ""}));
    assert_eq!(shown["Spec"]["TaskDefaults"], json!({}));

    let body = include_str!("../../../docker-types/tests/recorded/swarm_update.json");
    let answer = server.post("/swarm/update?version=7&rotateWorkerToken=true&rotateManagerToken=false", body).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let (version, spec, rotation) = server.swarm.cluster_specs.lock().unwrap().remove(0);
    assert_eq!(version, ObjectVersion(7));
    assert_eq!(spec.dispatcher.heartbeat_period, Some(Duration::from_secs(8)));
    assert_eq!(rotation, KeyRotation { worker_join_token: true, ..KeyRotation::default() });
    assert!(server.post("/swarm/update?version=x", body).await.message().starts_with("invalid swarm version 'x'"));

    assert_eq!(server.get("/swarm/unlockkey").await.json(), json!({"UnlockKey": "SWMKEY-1-x"}));
    let answer = server.post("/swarm/leave?force=1", "").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    server.post("/swarm/leave", "").await;
    assert_eq!(*server.swarm.leaves.lock().unwrap(), [LeaveMode::Force, LeaveMode::Safe]);
}

#[tokio::test]
async fn secrets_and_configs_follow_their_rules() {
    let server = Server::start().await;
    let secret = include_str!("../../../docker-types/tests/recorded/secrets_create.json");
    assert_eq!(server.post("/secrets/create", secret).await.status, 201);
    let answer = server.post("/secrets/create", secret).await;
    assert_eq!(answer.status, 409);
    assert!(answer.message().ends_with("secret mysec already exists"));
    let shown = server.get("/secrets/mysec").await.json();
    assert!(shown["Spec"].get("Data").is_none());
    let update = server.post("/secrets/mysec/update?version=0", r#"{"Name":"mysec","Labels":{"c":"d"}}"#).await;
    assert_eq!((update.status, update.body.len()), (200, 0));
    assert_eq!(server.get("/secrets/mysec").await.json()["Spec"]["Labels"], json!({"c": "d"}));
    let answer = server.post("/secrets/mysec/update", r#"{"Name":"mysec"}"#).await;
    assert!(answer.message() == "invalid secret version");
    let answer = server.send("DELETE", "/secrets/mysec", b"").await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));

    let config = include_str!("../../../docker-types/tests/recorded/configs_create.json");
    server.post("/configs/create", config).await;
    assert_eq!(server.get("/configs/mycfg").await.json()["Spec"]["Data"], "aGkK");
}

#[tokio::test]
async fn logs_are_framed_and_failures_are_told() {
    let server = Server::start().await;
    server.post("/services/create", PUBLISHED).await;
    let incomplete = SwarmError::grpc(
        GrpcCode::Unknown,
        "warning: incomplete log stream. some logs could not be retrieved for the following reasons: node x is not available",
    );
    *server.swarm.logs.lock().unwrap() = vec![
        Ok(LogMessage { data: b"out\n".to_vec(), ..LogMessage::default() }),
        Ok(LogMessage { data: b"err\n".to_vec(), stream: LogStream::Stderr, ..LogMessage::default() }),
        Err(incomplete),
    ];
    let answer = server.get("/v1.51/services/dummy/logs?stdout=1&stderr=1").await;
    assert_eq!(answer.headers["content-type"], "application/vnd.docker.multiplexed-stream");
    let text = b"Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log stream. some logs could not be retrieved for the following reasons: node x is not available\n";
    let mut expected = b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n\x03\0\0\0\0\0\0".to_vec();
    expected.push(text.len() as u8);
    expected.extend_from_slice(text);
    assert_eq!(answer.body, expected);
    let answer = server.get("/v1.41/services/dummy/logs?stdout=1").await;
    assert_eq!(answer.headers["content-type"], "application/vnd.docker.raw-stream");
}
