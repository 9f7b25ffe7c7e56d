//! Load, names, removal, root filesystems.

mod common;

use std::io::Cursor;

use common::archive::{Layer, config, digest, docker_archive, gzip, two_layers, zstd};
use common::{recorder, reference, store, tree, words};
use image::{ErrorKind, ImageChange, ImageStore, ProgressSender, RemoveOptions};
use serde_json::json;

async fn load(store: &ImageStore, archive: Vec<u8>) -> Vec<image::Loaded> {
    store.load(Cursor::new(archive), ProgressSender::none()).await.unwrap()
}

#[tokio::test]
async fn a_docker_archive_is_loaded_and_mounted() {
    let here = store();
    let (archive, id) = docker_archive(&two_layers(), &["agrrh/x:1"]);
    let (progress, all) = recorder();
    let loaded = here.store.load(Cursor::new(gzip(&archive)), progress).await.unwrap();
    assert_eq!(words(&all.await.unwrap()).last().unwrap(), "Loaded image: agrrh/x:1");
    assert_eq!(loaded[0].id, id);
    let image = here.store.resolve("agrrh/x:1").unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.repo_tags, ["agrrh/x:1"]);
    assert_eq!(image.config.cmd.as_deref(), Some(&["/serve".to_string()][..]));
    assert_eq!(image.size, 4 + 4 + 3 + 3 + 2);
    for name in [id.as_str(), id.hex(), id.short(), "docker.io/agrrh/x:1"] {
        assert_eq!(here.store.resolve(name).unwrap().id, id, "{name}");
    }

    here.store.prepare_rootfs("c1", &image).await.unwrap();
    let first = here.store.mount("c1").await.unwrap();
    assert_eq!(here.store.mount("c1").await.unwrap(), first);
    let root = first.merged.clone();
    assert_eq!(std::fs::read_to_string(root.join("etc/base")).unwrap(), "base");
    assert!(!root.join("etc/gone").exists());
    assert_eq!(tree(&root.join("var/data")), ["new"]);
    assert!(root.join(".dockerenv").exists() && root.join("proc").is_dir() && root.join("etc/hosts").exists());
    std::fs::write(root.join("mine"), "12345").unwrap();
    assert_eq!(here.store.rootfs_size("c1").await.unwrap(), 5);

    // the layers are shared, the changes are not
    here.store.prepare_rootfs("c2", &image).await.unwrap();
    let second = here.store.mount("c2").await.unwrap();
    assert_eq!(second.lower, first.lower);
    assert!(!second.merged.join("mine").exists());

    // a new daemon finds them
    let again = ImageStore::open(here.root.path(), Default::default()).unwrap();
    assert_eq!(again.rootfs("c1").unwrap(), first);
    assert_eq!(again.resolve("agrrh/x:1").unwrap(), image);
    let mut containers = again.rootfs_containers().unwrap();
    containers.sort();
    assert_eq!(containers, ["c1", "c2"]);
    for container in containers {
        again.remove_rootfs(&container).await.unwrap();
        again.remove_rootfs(&container).await.unwrap();
    }
    assert!(again.rootfs_containers().unwrap().is_empty());
}

#[tokio::test]
async fn a_hundred_layers_mount_in_a_long_directory() {
    let root = tempfile::tempdir().unwrap();
    let deep = root.path().join("long-name-".repeat(20));
    let store = ImageStore::open(&deep, Default::default()).unwrap();
    let layers: Vec<_> = (0..120).map(|n| Layer::new().file(&format!("f{n}"), "x").bytes()).collect();
    load(&store, docker_archive(&layers, &["many"]).0).await;
    let image = store.resolve("many").unwrap();
    store.prepare_rootfs("c", &image).await.unwrap();
    let rootfs = store.mount("c").await.unwrap();
    assert!(rootfs.merged.join("f0").exists() && rootfs.merged.join("f119").exists());
    store.remove_rootfs("c").await.unwrap();
}

#[tokio::test]
async fn an_oci_layout_is_loaded() {
    let here = store();
    let layer = Layer::new().file("hello", "oci").bytes();
    let packed = zstd(&layer);
    let config = config(&[digest(&layer)]);
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": digest(&packed), "size": packed.len()}]})
    .to_string();
    let entry = |name: &str, arch: &str, blob: &[u8]| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(blob), "size": blob.len(),
            "platform": {"os": "linux", "architecture": arch}, "annotations": {"io.containerd.image.name": name}})
    };
    let index = json!({"schemaVersion": 2, "manifests":
        [entry("docker.io/library/arm:1", "arm64", b"absent"), entry("docker.io/library/oci:1", "amd64", manifest.as_bytes())]});
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes).hex());
    let archive = Layer::new()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", &index.to_string())
        .raw(blob(&packed).as_bytes(), b'0', b"", 0o644, &packed)
        .raw(blob(&config).as_bytes(), b'0', b"", 0o644, &config)
        .raw(blob(manifest.as_bytes()).as_bytes(), b'0', b"", 0o644, manifest.as_bytes())
        .bytes();
    let loaded = load(&here.store, archive).await;
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].names, ["oci:1"]);
    assert_eq!(here.store.resolve("oci:1").unwrap().id, digest(&config));
}

#[tokio::test]
async fn damaged_archives_leave_no_trace() {
    let here = store();
    let before = tree(here.root.path());
    let good = docker_archive(&two_layers(), &["x"]).0;
    let lying = {
        let config = config(&[digest(b"something else")]);
        let manifest = json!([{"Config": "c", "RepoTags": ["x"], "Layers": ["l"]}]).to_string();
        Layer::new()
            .raw(b"c", b'0', b"", 0o644, &config)
            .raw(b"l", b'0', b"", 0o644, &two_layers()[0])
            .file("manifest.json", &manifest)
            .bytes()
    };
    let second_is_hostile = docker_archive(&[two_layers()[0].clone(), Layer::new().file("../x", "").bytes()], &["x"]).0;
    for (name, archive) in [
        ("empty", Vec::new()),
        ("noise", b"not a tar at all".repeat(100)),
        ("cut", good[..good.len() / 2].to_vec()),
        ("cut gzip", {
            let packed = gzip(&good);
            packed[..packed.len() / 2].to_vec()
        }),
        ("no manifest", Layer::new().file("x", "y").bytes()),
        ("bad manifest", Layer::new().file("manifest.json", "[{]").bytes()),
        (
            "missing layer",
            Layer::new().file("manifest.json", r#"[{"Config":"c","Layers":["l"]}]"#).file("c", "{}").bytes(),
        ),
        ("wrong diff id", lying),
        ("hostile second layer", second_is_hostile),
    ] {
        let error = here.store.load(Cursor::new(archive), ProgressSender::none()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::System, "{name}: {error}");
        assert_eq!(tree(here.root.path()), before, "{name}");
    }
    assert!(here.store.list().is_empty());
}

#[tokio::test]
async fn names_move_and_go() {
    let here = store();
    let base = two_layers()[0].clone();
    let (one, first) = docker_archive(&two_layers(), &["x:1"]);
    let (two, second) = docker_archive(&[base], &["x:2"]);
    load(&here.store, one).await;
    load(&here.store, two).await;
    here.store.tag("x:1", &reference("y")).await.unwrap();
    here.store.tag(second.short(), &reference("x:1")).await.unwrap();
    assert_eq!(here.store.resolve("x:1").unwrap().id, second);
    assert_eq!(here.store.resolve(first.as_str()).unwrap().repo_tags, ["y:latest"]);
    assert_eq!(here.store.resolve("nope").unwrap_err().to_string(), "No such image: nope:latest");
    assert_eq!(here.store.resolve("Bad").unwrap_err().kind(), ErrorKind::InvalidParameter);

    // by a name that is not the last one: only the name goes
    let changes = here.store.remove("x:1", RemoveOptions::default(), |_| Vec::new()).await.unwrap();
    assert_eq!(changes, [ImageChange::Untagged("x:1".into())]);
    // the last name takes the image with it, but not what another image needs
    let image = here.store.resolve("y").unwrap();
    let changes = here.store.remove("y", RemoveOptions::default(), |_| Vec::new()).await.unwrap();
    assert_eq!(changes[..2], [ImageChange::Untagged("y:latest".into()), ImageChange::Deleted(first.clone())]);
    assert_eq!(changes.len(), 3);
    assert!(!image.upper_dir.unwrap().exists());
    let rest = here.store.resolve("x:2").unwrap();
    assert!(rest.upper_dir.clone().unwrap().join("etc/base").exists());

    // used by containers
    let uses = |running: bool| move |_: &oci_types::Digest| vec![("0123456789abcdef".to_string(), running)];
    let error = here.store.remove("x:2", RemoveOptions::default(), uses(false)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("container 0123456789ab is using its referenced image"), "{error}");
    let force = RemoveOptions { force: true };
    let error = here.store.remove(second.short(), force, uses(true)).await.unwrap_err();
    assert!(error.to_string().contains("(cannot be forced) - image is being used by running container"), "{error}");

    // what a root filesystem needs stays until it goes
    here.store.prepare_rootfs("c", &rest).await.unwrap();
    here.store.remove(second.short(), force, uses(false)).await.unwrap();
    assert!(here.store.list().is_empty());
    here.store.mount("c").await.unwrap();
    here.store.remove_rootfs("c").await.unwrap();
    let again = ImageStore::open(here.root.path(), Default::default()).unwrap();
    assert!(again.list().is_empty());
    assert!(!rest.upper_dir.unwrap().exists());
}

#[tokio::test]
async fn dangling_images_are_pruned() {
    let here = store();
    load(&here.store, docker_archive(&two_layers(), &[]).0).await;
    load(&here.store, docker_archive(&[Layer::new().file("f", "x").bytes()], &["kept"]).0).await;
    let (changes, gained) = here.store.prune(false, |_| false).await.unwrap();
    assert_eq!(gained, 16);
    assert_eq!(changes.len(), 3);
    assert_eq!(here.store.list().len(), 1);
}

#[test]
fn newer_data_is_refused_untouched() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("image")).unwrap();
    std::fs::write(root.path().join("image/images.json"), r#"{"format":99}"#).unwrap();
    let error = ImageStore::open(root.path(), Default::default()).unwrap_err();
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[tokio::test]
async fn layers_that_a_crash_may_have_damaged_are_unpacked_again() {
    let here = store();
    load(&here.store, docker_archive(&two_layers(), &["x"]).0).await;
    let image = here.store.resolve("x").unwrap();
    let upper = image.upper_dir.clone().unwrap();
    let layer = upper.parent().unwrap();
    while !layer.join("synced").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // as after a power failure: no mark, another boot, an empty file
    std::fs::remove_file(layer.join("synced")).unwrap();
    let info = std::fs::read_to_string(layer.join("layer.json")).unwrap();
    let mut info: serde_json::Value = serde_json::from_str(&info).unwrap();
    info["boot_id"] = "before".into();
    std::fs::write(layer.join("layer.json"), info.to_string()).unwrap();
    std::fs::write(upper.join("serve"), "").unwrap();
    let again = ImageStore::open(here.root.path(), Default::default()).unwrap();
    assert_eq!(again.resolve("x").unwrap(), image);
    assert_eq!(std::fs::read(upper.join("serve")).unwrap(), b"#!");
    again.prepare_rootfs("c", &image).await.unwrap();
    again.mount("c").await.unwrap();
    again.remove_rootfs("c").await.unwrap();
}
