//! Pulls from Debian's docker-registry, pushed to by skopeo.

mod common;

use common::archive::{docker_archive, two_layers};
use common::registry::{PASSWORD, Registry, USER};
use common::{recorder, reference, settings, store, store_with, tree, words};
use image::{AuthConfig, ErrorKind, ProgressSender, RegistryConfig};

fn auth(password: &str) -> AuthConfig {
    AuthConfig { username: USER.into(), password: password.into(), ..Default::default() }
}

#[tokio::test]
async fn pull_again_and_by_digest() {
    let registry = Registry::start();
    let (archive, id) = docker_archive(&two_layers(), &["x"]);
    registry.push_archive(&archive, "agrrh/x:1", &[]);
    let name = format!("{}/agrrh/x:1", registry.address);
    let here = store();
    let (progress, all) = recorder();
    let pulled = here.store.pull(&reference(&name), None, None, progress).await.unwrap();
    assert_eq!(pulled.image.id, id);
    assert!(pulled.newer);
    let lines = words(&all.await.unwrap());
    for expected in [
        "Pulling from agrrh/x".to_string(),
        "Pulling fs layer".into(),
        "Verifying Checksum".into(),
        "Download complete".into(),
        "Pull complete".into(),
        format!("Digest: {}", pulled.digest),
        format!("Status: Downloaded newer image for {name}"),
    ] {
        assert!(lines.contains(&expected), "{expected} in {lines:#?}");
    }
    assert_eq!(pulled.image.repo_digests, [format!("{}/agrrh/x@{}", registry.address, pulled.digest)]);

    let (progress, all) = recorder();
    let again = here.store.pull(&reference(&name), None, None, progress).await.unwrap();
    assert!(!again.newer);
    assert_eq!(words(&all.await.unwrap()).last().unwrap(), &format!("Status: Image is up to date for {name}"));

    let other = store();
    let pinned = reference(&pulled.image.repo_digests[0]);
    let image = other.store.pull(&pinned, None, None, ProgressSender::none()).await.unwrap().image;
    assert_eq!((image.id.clone(), image.repo_tags.len()), (id, 0));
    assert_eq!(other.store.resolve(&pulled.image.repo_digests[0]).unwrap(), image);

    here.store.prepare_rootfs("c", &pulled.image).await.unwrap();
    let rootfs = here.store.mount("c").await.unwrap();
    assert_eq!(tree(&rootfs.merged.join("var/data")), ["new"]);
    here.store.remove_rootfs("c").await.unwrap();
}

#[tokio::test]
async fn through_the_mirror_by_docker_hubs_name() {
    let registry = Registry::start();
    let archive = docker_archive(&two_layers(), &["x"]).0;
    registry.push_archive(
        &archive,
        "agrrh/dummy-service-py:latest",
        &["--dest-compress-format", "zstd", "--format", "oci"],
    );
    let dead = "http://127.0.0.1:1".to_string();
    let mirrors = vec![dead, format!("http://{}", registry.address)];
    let here = store_with(RegistryConfig { mirrors, ..settings() });
    let name = reference("agrrh/dummy-service-py");
    let pulled = here.store.pull(&name, None, None, ProgressSender::none()).await.unwrap();
    assert_eq!(pulled.image.repo_tags, ["agrrh/dummy-service-py:latest"]);
    let distribution = here.store.distribution(&name, None).await.unwrap();
    assert_eq!(distribution.descriptor.digest, pulled.digest);
    assert_eq!(distribution.platforms[0].to_string(), "linux/amd64");
}

#[tokio::test]
async fn with_a_password() {
    let registry = Registry::start_with_auth();
    registry.push_archive(&docker_archive(&two_layers(), &["x"]).0, "secret/x:1", &[]);
    let here = store();
    let name = reference(&format!("{}/secret/x:1", registry.address));
    let before = tree(here.root.path());
    let error = here.store.pull(&name, None, None, ProgressSender::none()).await.unwrap_err();
    assert!(error.to_string().contains("no basic auth credentials"), "{error}");
    let error = here.store.pull(&name, None, Some(&auth("wrong")), ProgressSender::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().starts_with("unauthorized: "), "{error}");
    assert_eq!(tree(here.root.path()), before);
    here.store.pull(&name, None, Some(&auth(PASSWORD)), ProgressSender::none()).await.unwrap();

    let login = |password| AuthConfig { serveraddress: format!("http://{}/v1/", registry.address), ..auth(password) };
    let status = here.store.auth(&login(PASSWORD)).await.unwrap();
    assert_eq!((status.status.as_str(), status.identity_token.as_str()), ("Login Succeeded", ""));
    let error = here.store.auth(&login("wrong")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("failed with status: 401 Unauthorized"), "{error}");
}

#[tokio::test]
async fn what_is_not_there() {
    let registry = Registry::start();
    registry.push_archive(&docker_archive(&two_layers(), &["x"]).0, "a/x:1", &[]);
    let here = store();
    let pull =
        async |name: String| here.store.pull(&reference(&name), None, None, ProgressSender::none()).await.unwrap_err();
    let missing = format!("{}/a/x:2", registry.address);
    let error = pull(missing.clone()).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), format!("manifest for {missing} not found: manifest unknown: manifest unknown"));

    // what a mirror says counts for more than that nobody answers behind it
    let mirrors = vec![format!("http://{}", registry.address)];
    let behind = store_with(RegistryConfig { mirrors, ..settings() });
    let error = behind.store.distribution(&reference("a/nothere"), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    let error = pull("127.0.0.1:1/x".into()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.to_string(), "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused");
    let started = std::time::Instant::now();
    // an address of a network that answers nothing
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("{}/x", silent.local_addr().unwrap());
    let error = here.store.distribution(&reference(&silent), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(started.elapsed() < std::time::Duration::from_secs(2));
}

#[tokio::test]
async fn many_at_once_share_the_work() {
    let registry = Registry::start();
    let (archive, id) = docker_archive(&two_layers(), &["x"]);
    registry.push_archive(&archive, "a/x:1", &[]);
    registry.push_archive(&archive, "a/y:1", &[]);
    let here = store();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..8 {
        let name = format!("{}/a/{}:1", registry.address, if index % 2 == 0 { "x" } else { "y" });
        let store = here.store.clone();
        tasks.spawn(async move { store.pull(&reference(&name), None, None, ProgressSender::none()).await });
    }
    while let Some(result) = tasks.join_next().await {
        assert_eq!(result.unwrap().unwrap().image.id, id);
    }
    assert_eq!(here.store.resolve(id.as_str()).unwrap().repo_tags.len(), 2);
}
