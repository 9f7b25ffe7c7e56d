//! The example images: built, pushed, pulled by Docker Hub's name through a mirror, and run in a chroot.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::registry::Registry;
use common::{reference, settings, store_with};
use image::{ProgressSender, RegistryConfig};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name).join("build-image")
}

async fn build_and_pull(example_name: &str, name: &str, command: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let output = Command::new(example(example_name)).arg(&archive).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let registry = Registry::start();
    registry.push(&format!("docker-archive:{}", archive.display()), name, &[]);
    let mirrors = vec![format!("http://{}", registry.address)];
    let here = store_with(RegistryConfig { mirrors, ..settings() });
    let pulled = here.store.pull(&reference(name), None, None, ProgressSender::none()).await.unwrap();
    assert_eq!(pulled.image.repo_tags, [format!("{name}:latest")]);
    assert!(pulled.image.config.exposed_ports.contains_key("9005/tcp"));
    here.store.prepare_rootfs("c", &pulled.image).await.unwrap();
    let rootfs = here.store.mount("c").await.unwrap();
    let output = Command::new("chroot").arg(&rootfs.merged).args(command).output().unwrap();
    here.store.remove_rootfs("c").await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_tiny_service() {
    let output = build_and_pull("tiny-service", "agrrh/tiny-service", &["/tiny-service", "echo", "hello"]).await;
    assert_eq!(output, "hello\n");
}

/// Debian's packages come from wherever apt is set up to get them.
#[tokio::test]
async fn the_dummy_service() {
    let check = ["/usr/bin/python3.11", "-c", "import http.server, json, uuid; print(uuid.uuid4().version)"];
    let output = build_and_pull("dummy-service-py", "agrrh/dummy-service-py", &check).await;
    assert_eq!(output, "4\n");
}
