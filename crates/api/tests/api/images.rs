//! Images: loaded, listed, tagged, removed, pulled, over HTTP and by the docker CLI.

use std::collections::BTreeSet;

use crate::registry::{PASSWORD, Registry, USER};
use crate::support::Server;
use base64::Engine as _;
use ring::digest::{SHA256, digest};
use serde_json::json;

fn sha256(bytes: &[u8]) -> String {
    let hex: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, data) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *data).unwrap();
    }
    archive.into_inner().unwrap()
}

/// An archive as `docker save` writes it, and the image's identifier.
fn archive(name: &str) -> (Vec<u8>, String) {
    let layer = tar(&[("hello", b"world")]);
    let config = serde_json::to_vec(&json!({
        "architecture": api::go_arch(), "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["/serve"], "Labels": {"l": "v"}},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
        "history": [{"created_by": "test"}],
    }))
    .unwrap();
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let id = sha256(&config);
    (tar(&[("config.json", &config), ("layer.tar", &layer), ("manifest.json", manifest.as_bytes())]), id)
}

async fn load(server: &Server, archive: &[u8]) -> String {
    let answer = server.send("POST", "/v1.51/images/load", archive).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    String::from_utf8(answer.body).unwrap()
}

#[tokio::test]
async fn an_image_lives_from_load_to_remove() {
    let server = Server::start().await;
    let events = api::EngineBackend::subscribe(&server.engine, None, None);
    let (archive, id) = archive("example/x:1");
    assert!(load(&server, &archive).await.contains("Loaded image: example/x:1\\n"));
    let list = server.get("/v1.51/images/json").await.json();
    assert_eq!((&list[0]["Id"], &list[0]["RepoTags"]), (&json!(id), &json!(["example/x:1"])));
    let image = server.get("/v1.51/images/example/x:1/json").await.json();
    assert_eq!((&image["Config"]["Cmd"], &image["RootFS"]["Type"]), (&json!(["/serve"]), &json!("layers")));
    assert!(image.get("VirtualSize").is_none());
    let config = &image["Config"];
    assert_eq!((&config["User"], &config["Env"], config.get("Tty")), (&json!(""), &json!(null), None), "{config}");
    let old = server.get("/v1.49/images/example/x:1/json").await.json();
    assert_eq!((&old["Config"]["Tty"], &old["Config"]["Hostname"]), (&json!(false), &json!("")));
    assert!(server.get("/v1.43/images/example/x:1/json").await.json()["VirtualSize"].is_number());
    assert_eq!(server.get("/images/example/x:1/history").await.json()[0]["Id"], id);
    assert_eq!(server.post("/images/example/x:1/tag?repo=127.0.0.1:5/y&tag=2", "").await.status, 201);
    let check = async |method: &str, path: &str, status: u16, text: &str| {
        let answer = server.send(method, path, b"").await;
        assert_eq!((answer.status, answer.message().as_str()), (status, text), "{method} {path}");
    };
    check("GET", "/images/nope/json", 404, "No such image: nope:latest").await;
    check("POST", "/images/nope/tag?repo=x", 404, "No such image: nope:latest").await;
    let ambiguous = "refusing to create an ambiguous tag using digest algorithm as name";
    for (query, text) in [
        ("repo=sha256&tag=abc", ambiguous),
        ("repo=sha256", ambiguous),
        ("repo=y&tag=.a", "invalid tag format"),
        ("repo=y:.a", "invalid reference format"),
        ("repo=Y", "invalid reference format: repository name (library/Y) must be lowercase"),
        (&format!("repo=y@{id}"), "cannot import digest reference"),
    ] {
        check("POST", &format!("/images/example/x:1/tag?{query}"), 400, text).await;
    }
    check("DELETE", "/images/nope", 404, "No such image: nope:latest").await;
    check("GET", "/images/x/nothing", 404, "page not found").await;
    check("GET", "/images/json?filters=%7B%22x%22%3A%5B%22y%22%5D%7D", 400, "invalid filter 'x'").await;
    for (filters, count) in [
        (r#"{"reference":["example/*"]}"#, 1),
        (r#"{"reference":["other"]}"#, 0),
        (r#"{"label":["l=v"]}"#, 1),
        (r#"{"label":["l=w"]}"#, 0),
        (r#"{"dangling":["true"]}"#, 0),
    ] {
        let encoded: String = filters.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let list = server.get(&format!("/images/json?filters={encoded}")).await.json();
        assert_eq!(list.as_array().unwrap().len(), count, "{filters}");
    }
    // only the names that match are listed: a name without a registry is none of that registry's
    for (reference, tags) in [
        ("example/x", json!(["example/x:1"])),
        ("127.0.0.1:5/y", json!(["127.0.0.1:5/y:2"])),
        ("example/x:1", json!(["example/x:1"])),
        ("*/*", json!(["example/x:1", "127.0.0.1:5/y:2"])),
    ] {
        let filters: String =
            json!({"reference": [reference]}).to_string().bytes().map(|byte| format!("%{byte:02x}")).collect();
        let list = server.get(&format!("/images/json?filters={filters}")).await.json();
        let shown: BTreeSet<_> =
            list[0]["RepoTags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
        assert_eq!(shown, tags.as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect(), "{reference}");
    }
    let gone = server.send("DELETE", "/images/example/x:1", b"").await.json();
    assert_eq!(gone, json!([{"Untagged": "example/x:1"}]));
    let gone = server.send("DELETE", "/images/127.0.0.1:5/y:2", b"").await.json();
    assert_eq!(gone[1], json!({"Deleted": id}));
    assert_eq!(server.get("/images/json").await.body, b"[]\n");
    let told: Vec<_> = futures::StreamExt::collect(futures::StreamExt::take(events, 5)).await;
    let told: Vec<_> = told.iter().map(|event| (event.action.as_str(), event.actor.id.as_str())).collect();
    assert_eq!(told, ["load", "tag", "untag", "untag", "delete"].map(|action| (action, id.as_str())));
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let server = Server::start().await;
    for body in [b"nonsense".as_slice(), &tar(&[("manifest.json", b"{")]), &tar(&[("x", b"y")])] {
        let answer = server.send("POST", "/images/load", body).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status >= 400 || text.contains("\"errorDetail\""), "{answer:?}");
        assert_eq!(server.get("/images/json").await.body, b"[]\n");
    }
    let answer = server.post("/images/create?fromImage=UPPER&tag=x", "").await;
    assert_eq!(answer.status, 400);
    let answer = server.post("/images/create?fromImage=x&platform=a/b/c/d", "").await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn pulls_show_progress_and_need_their_credentials() {
    let (open, closed) =
        tokio::task::spawn_blocking(|| (Registry::start(), Registry::start_with_auth())).await.unwrap();
    let (bytes, id) = archive("a/b:1");
    let (open, closed) = tokio::task::spawn_blocking(move || {
        open.push_archive(&bytes, "a/b:1", &[]);
        closed.push_archive(&bytes, "a/b:1", &[]);
        (open, closed)
    })
    .await
    .unwrap();
    let server = Server::start().await;
    let pull = format!("/v1.51/images/create?fromImage={}/a/b&tag=1", open.address);
    let text = String::from_utf8(server.post(&pull, "").await.body).unwrap();
    for part in ["Pulling from a/b", "Pull complete", "Digest: sha256:", "Status: Downloaded newer image for"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = String::from_utf8(server.post(&pull, "").await.body).unwrap();
    assert!(text.contains("Status: Image is up to date for"), "{text}");
    let found = server.get(&format!("/distribution/{}/a/b:1/json", open.address)).await.json();
    assert!(found["Descriptor"]["digest"].as_str().unwrap().starts_with("sha256:"));

    let pull = format!("/v1.51/images/create?fromImage={}/a/b&tag=1", closed.address);
    let refused = server.post(&pull, "").await;
    assert!(refused.status == 500 || refused.status == 404, "{refused:?}");
    let auth = json!({"username": USER, "password": PASSWORD, "serveraddress": closed.address}).to_string();
    let header = base64::engine::general_purpose::URL_SAFE.encode(&auth);
    let request = http::Request::post(&pull).header("x-registry-auth", header);
    let request = request.body(http_body_util::Full::default()).unwrap();
    let text = String::from_utf8(crate::support::send(&server.socket, request).await.body).unwrap();
    assert!(text.contains("Status: ") && !text.contains("errorDetail"), "{text}");
    let answer = server.post("/auth", &auth).await;
    assert_eq!((answer.status, answer.json()["Status"].as_str()), (200, Some("Login Succeeded")), "{answer:?}");
    let wrong = auth.replace(PASSWORD, "wrong");
    assert_eq!(server.post("/auth", &wrong).await.status, 401);
    let listed = server.get("/images/json").await.json();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["Id"]), (1, &json!(id)));
}

#[tokio::test]
async fn the_cli_handles_images() {
    let server = Server::start().await;
    let (bytes, id) = archive("cli/x:1");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.tar");
    std::fs::write(&file, bytes).unwrap();
    let docker = async |arguments: &[&str]| crate::docker_cli::docker(&server, arguments).await;
    let Some((loaded, text)) = docker(&["load", "-i", file.to_str().unwrap()]).await else { return };
    assert!(loaded && text.contains("Loaded image: cli/x:1"), "{text}");
    let check = async |arguments: &[&str], succeeds: bool, expected: &str| {
        let (succeeded, text) = docker(arguments).await.unwrap();
        assert_eq!(succeeded, succeeds, "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
    };
    check(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"], true, &format!("cli/x:1 {}", &id[7..19])).await;
    check(&["image", "inspect", "-f", "{{.Id}}", "cli/x:1"], true, &id).await;
    check(&["history", "cli/x:1"], true, "test").await;
    check(&["tag", "cli/x:1", "cli/y"], true, "").await;
    check(&["rmi", "cli/x:1"], true, "Untagged: cli/x:1").await;
    check(&["image", "prune", "-af"], true, "Total reclaimed space").await;
    check(&["image", "inspect", "cli/y"], false, "No such image: cli/y").await;
    check(&["push", "cli/x:1"], false, "is not supported by Skep yet").await;
    check(&["save", "cli/x:1", "-o", "/dev/null"], false, "").await;
    check(&["pull", "127.0.0.1:1/a"], false, "Error response from daemon").await;
}
