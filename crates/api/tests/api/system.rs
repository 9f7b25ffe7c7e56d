//! `/info`, `/version`, `/system/df`, `/networks` of this machine.

use crate::support::Server;
use api::EngineBackend;
use futures::StreamExt;
use serde_json::json;

#[tokio::test]
async fn info_describes_machine_and_engine() {
    let server = Server::start().await;
    server.post("/containers/create", r#"{"Image":"a"}"#).await;
    let info = server.get("/v1.51/info").await.json();
    assert_eq!((&info["Containers"], &info["ContainersStopped"], &info["Images"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(info["Driver"], "overlay2");
    assert_eq!(info["LoggingDriver"], "json-file");
    assert_eq!(info["OSType"], "linux");
    assert_eq!(info["IndexServerAddress"], "https://index.docker.io/v1/");
    assert_eq!(info["RegistryConfig"]["IndexConfigs"]["docker.io"]["Official"], true);
    assert_eq!(info["Swarm"]["LocalNodeState"], "active");
    assert!(info["MemTotal"].as_i64().unwrap() > 0 && info["NCPU"].as_i64().unwrap() > 0);
    assert!(info["SecurityOptions"].is_array());
    assert!(info["Warnings"].is_null() || info["Warnings"].is_array(), "null when there is none, as with dockerd");
    assert!(info["ServerVersion"].as_str().unwrap().starts_with("28.5.2+skep."));
    assert_eq!(info["FirewallBackend"]["Driver"], "nftables");
    assert!(server.get("/v1.48/info").await.json().get("FirewallBackend").is_none());
}

#[tokio::test]
async fn there_is_no_build_cache_to_prune() {
    let server = Server::start().await;
    let pruned = server.post("/build/prune", "").await.json();
    assert_eq!(pruned, json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }));
}

#[tokio::test]
async fn version_has_dockerds_keys() {
    let server = Server::start().await;
    let version = server.get("/version").await.json();
    for key in ["Version", "ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch", "KernelVersion"] {
        assert!(version[key].as_str().is_some_and(|text| !text.is_empty()), "{key}");
    }
    assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&json!("1.51"), &json!("1.24")));
    assert!(version["Platform"]["Name"].as_str().unwrap().starts_with("Skep "));
    assert_eq!(version["Components"][0]["Name"], "Engine");
}

#[tokio::test]
async fn disk_usage_shows_what_was_asked_for() {
    let server = Server::start().await;
    server.post("/containers/create", r#"{"Image":"a"}"#).await;
    server.post("/volumes/create", r#"{"Name":"v"}"#).await;
    let usage = server.get("/v1.51/system/df").await.json();
    assert_eq!((&usage["LayersSize"], &usage["Images"], &usage["BuildCache"]), (&json!(0), &json!([]), &json!([])));
    assert_eq!(usage["Containers"][0]["SizeRw"], 5);
    assert_eq!(usage["Volumes"][0]["UsageData"], json!({"RefCount": 0, "Size": -1}), "its directory is not there");
    let usage = server.get("/v1.51/system/df?type=image").await.json();
    assert_eq!((&usage["Images"], &usage["Containers"], &usage["Volumes"]), (&json!([]), &json!(null), &json!(null)));
    let answer = server.get("/v1.51/system/df?type=x").await;
    assert_eq!((answer.status, answer.message().as_str()), (400, "unknown object type: x"));
}

#[tokio::test]
async fn networks_of_the_machine_and_of_the_swarm_are_one_list() {
    let server = Server::start().await;
    let mut ingress = model::Network { id: "ingress-id".into(), ..model::Network::default() };
    ingress.spec.annotations.name = "ingress".into();
    ingress.spec.ingress = true;
    server.swarm.networks.lock().unwrap().insert("ingress-id".into(), ingress);
    let list = server.get("/networks").await.json();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|network| network["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bridge", "host", "ingress", "none"]);
    let bridge = server.get("/networks/bridge").await.json();
    assert_eq!(bridge["Scope"], "local");
    assert_eq!(bridge["IPAM"]["Config"][0], json!({"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}));
    assert_eq!(bridge["Containers"]["c1"]["IPv4Address"], "172.17.0.2/16");
    assert_eq!(bridge["Created"], "1970-01-01T00:00:01.5Z");
    let ingress = server.get("/networks/ingress").await.json();
    assert_eq!(ingress["Peers"], json!([{"Name": "0123456789ab", "IP": "192.0.2.1"}]));
    assert_eq!((&ingress["Labels"], &ingress["Options"], bridge.get("Peers")), (&json!({}), &json!({}), None));
    let check = async |method: &str, path: &str, body: &str, status: u16, text: &str| {
        let answer = server.send(method, path, body.as_bytes()).await;
        assert_eq!((answer.status, answer.message().as_str()), (status, text), "{method} {path}");
    };
    check("DELETE", "/networks/bridge", "", 403, "bridge is a pre-defined network and cannot be removed").await;
    check("GET", "/networks/nope", "", 404, "network nope not found").await;
    let macvlan = "making networks of driver \"macvlan\" is not supported by Skep yet";
    check("POST", "/networks/create", r#"{"Name":"own","Driver":"macvlan"}"#, 501, macvlan).await;
    let overlap = "invalid pool request: Pool overlaps with other one on this address space";
    check("POST", "/networks/create", r#"{"Name":"overlapping"}"#, 403, overlap).await;
    let only_one = "only one instance of \"host\" network is allowed";
    check("POST", "/networks/create", r#"{"Name":"own","Driver":"host"}"#, 403, only_one).await;
    let unknown = "plugin \"nope\" not found";
    check("POST", "/networks/create", r#"{"Name":"own","Driver":"nope"}"#, 404, unknown).await;
    let predefined = "operation is not permitted on predefined host network ";
    check("POST", "/networks/create", r#"{"Name":"host"}"#, 403, predefined).await;
    let taken = "network with name ingress already exists";
    check("POST", "/networks/create", r#"{"Name":"ingress","Driver":"overlay"}"#, 409, taken).await;
    assert_eq!(server.post("/networks/prune", "").await.json(), json!({"NetworksDeleted": null}));
}

#[tokio::test]
async fn the_doctors_report_has_a_path_of_its_own() {
    let server = Server::start().await;
    for path in ["/skep/doctor", "/v1.51/skep/doctor"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200);
        let report: doctor::Report = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(report.exit_code(), 0);
    }
    assert_eq!(server.get("/skep/other").await.status, 404);
}

#[tokio::test]
async fn networks_are_filtered() {
    let server = Server::start().await;
    server.post("/networks/create", r#"{"Name":"own","Labels":{"a":"b"}}"#).await;
    let list = async |filters: &str| {
        let filters = filters.replace('{', "%7B").replace('}', "%7D").replace('"', "%22").replace('[', "%5B");
        server.get(&format!("/networks?filters={}", filters.replace(']', "%5D"))).await
    };
    for (filters, expected) in [
        (r#"{"type":["builtin"]}"#, "bridge host none"),
        (r#"{"type":["custom"]}"#, "ingress own"),
        (r#"{"type":["custom","builtin"]}"#, "bridge host ingress none own"),
        (r#"{"dangling":["true"]}"#, "own"),
        (r#"{"dangling":["0"]}"#, "bridge host ingress none"),
        (r#"{"name":["o"],"driver":["bridge"]}"#, "own"),
        (r#"{"label":["a=b"]}"#, "own"),
        (r#"{"scope":["swarm"]}"#, "ingress"),
    ] {
        let networks = list(filters).await.json();
        let names: Vec<_> = networks.as_array().unwrap().iter().filter_map(|it| it["Name"].as_str()).collect();
        assert_eq!(names.join(" "), expected, "{filters}");
    }
    for (filters, status, text) in [
        (r#"{"type":["x"]}"#, 500, "invalid filter: 'type'='x'"),
        (r#"{"dangling":["true","0"]}"#, 400, "got more than one value for filter key \"dangling\""),
        (
            r#"{"dangling":["x"]}"#,
            400,
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        ),
        (r#"{"nope":["x"]}"#, 400, "invalid filter 'nope'"),
    ] {
        let answer = list(filters).await;
        assert_eq!((answer.status, answer.message().as_str()), (status, text));
    }
}

#[tokio::test]
async fn networks_of_this_machine_come_and_go() {
    let server = Server::start().await;
    let mut events = server.engine.subscribe(None, None);
    for name in ["own", "busy"] {
        let body = format!(r#"{{"Name":"{name}","Internal":true,"Labels":{{"a":"{name}"}}}}"#);
        let created = server.post("/networks/create", &body).await;
        assert_eq!((created.status, created.json()["Id"].as_str()), (201, Some(format!("{name}-id").as_str())));
    }
    let again = server.post("/networks/create", r#"{"Name":"own"}"#).await;
    assert_eq!((again.status, again.message().as_str()), (409, "network with name own already exists"));
    let shown = server.get("/networks/own").await.json();
    assert_eq!(
        (&shown["Internal"], &shown["Labels"], &shown["Scope"]),
        (&json!(true), &json!({"a": "own"}), &json!("local"))
    );
    let in_use = server.send("DELETE", "/networks/busy", b"").await;
    let text = "error while removing network: network busy has active endpoints (name:\"c\")";
    assert_eq!((in_use.status, in_use.message().as_str()), (403, text));
    let pruned = server.post("/networks/prune?filters=%7B%22label%22%3A%5B%22a%3Down%22%5D%7D", "").await;
    assert_eq!(pruned.json(), json!({"NetworksDeleted": ["own"]}));
    let told: Vec<_> = [events.next().await, events.next().await, events.next().await, events.next().await].into();
    let told: Vec<_> = told.into_iter().flatten().map(|event| (event.kind, event.action, event.actor.id)).collect();
    let expected = [("create", "own-id"), ("create", "busy-id"), ("destroy", "own-id"), ("prune", "")];
    assert_eq!(told, expected.map(|(action, id)| ("network".to_owned(), action.to_owned(), id.to_owned())));
}

#[tokio::test]
async fn containers_are_connected_and_disconnected() {
    let server = Server::start().await;
    let id = server.post("/containers/create", r#"{"Image":"i","Cmd":["sleep"]}"#).await.json()["Id"].clone();
    let id = id.as_str().unwrap();
    let settings = r#"{"Aliases":["www"],"IPAMConfig":{"IPv4Address":"10.0.0.9"}}"#;
    let body = format!(r#"{{"Container":"{id}","EndpointConfig":{settings}}}"#);
    let connected = server.post("/networks/mesh/connect", &body).await;
    assert_eq!((connected.status, connected.body.len()), (200, 0));
    let without = server.post("/networks/mesh/connect", r#"{"Container":"nope"}"#).await;
    assert_eq!((without.status, without.message().as_str()), (404, "No such container: nope"));
    let body = format!(r#"{{"Container":"{id}"}}"#);
    assert_eq!(server.post("/networks/mesh/disconnect", &body).await.status, 200);
    assert_eq!(server.post("/networks/mesh/disconnect", &body).await.status, 500);
    let forced = format!(r#"{{"Container":"{id}","Force":true}}"#);
    assert_eq!(server.post("/networks/mesh/disconnect", &forced).await.status, 200);
}
