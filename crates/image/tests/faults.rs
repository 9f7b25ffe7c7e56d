//! Registries that cut, stall, lie and ask for tokens; disks that are full.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::archive::{Layer, config, digest, gzip};
use common::fake::{Content, Fake, Reply};
use common::{recorder, reference, settings, store, store_with, tree, words};
use image::{AuthConfig, Config, ErrorKind, ImageError, ImageStore, ProgressSender, RegistryConfig};
use oci_types::{Digest, Platform};
use serde_json::json;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image as a registry serves it: content, id, path of the last layer's blob.
struct Served {
    content: Content,
    id: Digest,
    layer_path: String,
}

fn noise(bytes: usize) -> String {
    let mut seed = 12345u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (seed >> 60) as u8)
    };
    (0..bytes).map(|_| next()).collect()
}

fn served(layers: &[Vec<u8>]) -> Served {
    let config = config(&layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>());
    let mut content = Content::default();
    let mut put = |bytes: Vec<u8>, kind: &str| {
        let path = format!("/v2/a/x/blobs/{}", digest(&bytes));
        let descriptor = json!({"mediaType": kind, "digest": digest(&bytes), "size": bytes.len()});
        content.0.insert(path.clone(), ("application/octet-stream".into(), bytes));
        (descriptor, path)
    };
    let (config_descriptor, _) = put(config.clone(), "application/vnd.oci.image.config.v1+json");
    let packed: Vec<_> =
        layers.iter().map(|layer| put(gzip(layer), "application/vnd.oci.image.layer.v1.tar+gzip")).collect();
    let (_, layer_path) = packed.last().unwrap().clone();
    let descriptors: Vec<_> = packed.into_iter().map(|(descriptor, _)| descriptor).collect();
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config_descriptor, "layers": descriptors})
            .to_string();
    let manifest_digest = digest(manifest.as_bytes());
    let entry = |arch: &str, digest: &Digest| json!({"mediaType": MANIFEST, "digest": digest, "size": 1, "platform": {"os": "linux", "architecture": arch}});
    let arm = digest(b"arm");
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry("arm64", &arm), entry("amd64", &manifest_digest)]});
    content.0.insert(format!("/v2/a/x/manifests/{manifest_digest}"), (MANIFEST.into(), manifest.into()));
    content.0.insert("/v2/a/x/manifests/1".into(), (INDEX.into(), index.to_string().into()));
    Served { content, id: digest(&config), layer_path }
}

fn big() -> Served {
    served(&[Layer::new().file("base", "b").bytes(), Layer::new().file("big", &noise(400_000)).bytes()])
}

fn name(fake: &Fake) -> oci_types::Reference {
    reference(&format!("{}/a/x:1", fake.address))
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_stopped() {
    let image = big();
    let (content, path) = (image.content.clone(), image.layer_path.clone());
    let cuts = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |asked| {
        let reply = content.answer(asked);
        if asked.path == path && cuts.fetch_add(1, Ordering::Relaxed) < 2 { reply.cut(100_000) } else { reply }
    })
    .await;
    let here = store();
    let (progress, all) = recorder();
    let pulled = here.store.pull(&name(&fake), None, None, progress).await.unwrap();
    assert_eq!(pulled.image.id, image.id);
    assert!(words(&all.await.unwrap()).contains(&"Retrying in 1 second".to_string()));
    let ranges: Vec<_> =
        fake.asked.lock().unwrap().iter().filter_map(|asked| asked.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=100000-", "bytes=200000-"]);
}

#[tokio::test]
async fn a_failed_pull_is_invisible_and_the_next_one_resumes() {
    let image = big();
    let (content, path) = (image.content.clone(), image.layer_path.clone());
    let broken = Arc::new(AtomicUsize::new(1));
    let switch = broken.clone();
    let fake = Fake::start(move |asked| {
        let reply = content.answer(asked);
        let cut = asked.path == path && switch.load(Ordering::Relaxed) == 1;
        if cut && asked.headers.contains_key("range") {
            reply.cut(0)
        } else if cut {
            reply.cut(150_000)
        } else {
            reply
        }
    })
    .await;
    let here = store();
    let error = here.store.pull(&name(&fake), None, None, ProgressSender::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(here.store.list().is_empty());
    assert!(std::fs::read_dir(here.root.path().join("overlay2/layers")).unwrap().next().is_none());
    assert!(!here.root.path().join("image/images.json").exists());
    broken.store(0, Ordering::Relaxed);
    // a new process finds the partial file
    let again = ImageStore::open(here.root.path(), Config { registry: settings(), ..Config::default() }).unwrap();
    again.pull(&name(&fake), None, None, ProgressSender::none()).await.unwrap();
    let last = fake.asked.lock().unwrap().iter().rev().find(|asked| asked.path == image.layer_path).cloned().unwrap();
    assert_eq!(last.headers["range"], "bytes=150000-");
}

#[tokio::test]
async fn a_dropped_pull_stops_and_resumes() {
    let image = big();
    let (content, path) = (image.content.clone(), image.layer_path.clone());
    let stalled = Arc::new(AtomicUsize::new(0));
    let switch = stalled.clone();
    let fake = Fake::start(move |asked| {
        let mut reply = content.answer(asked);
        if asked.path == path && switch.fetch_add(1, Ordering::Relaxed) == 0 {
            reply = reply.cut(120_000);
            reply.stall = true;
        }
        reply
    })
    .await;
    let here = store();
    let partial =
        here.root.path().join(format!("image/ingest/{}.part", &image.layer_path[image.layer_path.len() - 64..]));
    {
        let target = name(&fake);
        let pull = here.store.pull(&target, None, None, ProgressSender::none());
        let arrived = async {
            while !std::fs::metadata(&partial).is_ok_and(|metadata| metadata.len() == 120_000) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            result = pull => panic!("{result:?}"),
            () = arrived => {}
        }
    }
    assert!(here.store.list().is_empty());
    here.store.pull(&name(&fake), None, None, ProgressSender::none()).await.unwrap();
    let asked =
        fake.asked.lock().unwrap().iter().filter(|asked| asked.path == image.layer_path).cloned().collect::<Vec<_>>();
    assert_eq!(asked.last().unwrap().headers["range"], "bytes=120000-");
}

#[tokio::test]
async fn a_stalling_registry_is_given_up() {
    let image = big();
    let (content, path) = (image.content.clone(), image.layer_path.clone());
    let fake = Fake::start(move |asked| {
        let mut reply = content.answer(asked);
        reply.stall = asked.path == path;
        if reply.stall { reply.cut(0) } else { reply }
    })
    .await;
    let here = store_with(RegistryConfig { stall_timeout_ms: 200, ..settings() });
    let error = here.store.pull(&name(&fake), None, None, ProgressSender::none()).await.unwrap_err();
    assert!(error.to_string().contains("timeout awaiting response"), "{error}");
}

#[tokio::test]
async fn corrupt_content_leaves_the_store_as_it_was() {
    let image = big();
    let here = store();
    let before = tree(here.root.path());
    type Change = Box<dyn Fn(&str, Reply) -> Reply + Send>;
    let cases: Vec<(&str, Change)> =
        vec![
            ("a layer with other bytes", {
                let path = image.layer_path.clone();
                Box::new(move |asked, mut reply| {
                    if asked == path {
                        reply.body[5000] ^= 1
                    }
                    reply
                })
            }),
            ("a layer that is longer", {
                let path = image.layer_path.clone();
                Box::new(move |asked, mut reply| {
                    if asked == path {
                        reply.body.extend([0; 100])
                    }
                    reply
                })
            }),
            (
                "a manifest that is not what the index says",
                Box::new(|asked, mut reply| {
                    if asked.contains("manifests/sha256") {
                        reply.body.push(b' ')
                    }
                    reply
                }),
            ),
            (
                "nonsense for an index",
                Box::new(|asked, reply| {
                    if asked.ends_with("manifests/1") { Reply { body: b"<html>".to_vec(), ..reply } } else { reply }
                }),
            ),
            (
                "an index that never ends",
                Box::new(|asked, reply| {
                    if asked.ends_with("manifests/1") { Reply { body: vec![b' '; 9 << 20], ..reply } } else { reply }
                }),
            ),
        ];
    for (what, change) in cases {
        let content = image.content.clone();
        let fake = Fake::start(move |asked| change(&asked.path, content.answer(asked))).await;
        let error = here.store.pull(&name(&fake), None, None, ProgressSender::none()).await.unwrap_err();
        println!("{what}: {error}");
        assert!(here.store.list().is_empty(), "{what}");
        // a verified layer and the true beginning of one may wait for the next attempt, nothing else
        let left: Vec<_> = tree(here.root.path()).into_iter().filter(|path| !before.contains(path)).collect();
        let kept = |path: &String| path.starts_with("image/blobs/sha256/") || path.ends_with(".part");
        let bad = |path: &String| path.contains(&image.layer_path[image.layer_path.len() - 64..]);
        assert!(
            left.iter().all(|path| kept(path) && (what.starts_with("a manifest") || !bad(path))),
            "{what}: {left:?}"
        );
    }
}

/// Layers that are what their digests say, and no archives.
fn undecodable() -> [(&'static str, Vec<u8>); 3] {
    let mut cut = gzip(&Layer::new().file("big", &noise(50_000)).bytes());
    cut.truncate(20_000);
    [("gzip", cut), ("zstd", [&[0x28, 0xb5, 0x2f, 0xfd], &[0xff; 400][..]].concat()), ("tar", vec![b'x'; 4096])]
}

/// An image of `base` and this layer, as it is.
fn served_raw(base: &[u8], layer: &[u8]) -> Served {
    let mut image = served(&[base.to_vec(), layer.to_vec()]);
    let (config, base) = (config(&[digest(base), digest(layer)]), gzip(base));
    let descriptor =
        |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [descriptor(kind, &base), descriptor(kind, layer)],
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
    });
    image.layer_path = format!("/v2/a/x/blobs/{}", digest(layer));
    image.content.0.insert(image.layer_path.clone(), (kind.into(), layer.to_vec()));
    image.content.0.insert("/v2/a/x/manifests/1".into(), (MANIFEST.into(), manifest.to_string().into()));
    image
}

#[tokio::test]
async fn a_layer_that_cannot_be_decoded_leaves_nothing_and_is_fetched_anew() {
    let base = Layer::new().file("base", "b").bytes();
    for (what, layer) in undecodable() {
        let image = served_raw(&base, &layer);
        let content = image.content.clone();
        let fake = Fake::start(move |asked| content.answer(asked)).await;
        let here = store();
        let before = tree(here.root.path());
        for attempt in 1..=2 {
            let error = here.store.pull(&name(&fake), None, None, ProgressSender::none()).await.unwrap_err();
            assert!(matches!(error, ImageError::BadContent { .. }), "{what}: {error:?}");
            assert_eq!(tree(here.root.path()), before, "{what}");
            let asked = fake.paths().into_iter().filter(|path| *path == image.layer_path).count();
            assert_eq!(asked, attempt, "{what}");
        }
    }
}

#[tokio::test]
async fn an_archive_with_a_layer_that_cannot_be_decoded_leaves_nothing() {
    let base = Layer::new().file("base", "b").bytes();
    for (what, layer) in undecodable() {
        let (archive, _) = common::archive::docker_archive(&[base.clone(), layer], &["x"]);
        let here = store();
        let before = tree(here.root.path());
        let error = here.store.load(std::io::Cursor::new(archive), ProgressSender::none()).await.unwrap_err();
        assert!(matches!(error, ImageError::BadContent { .. }), "{what}: {error:?}");
        assert_eq!(tree(here.root.path()), before, "{what}");
    }
}

#[tokio::test]
async fn all_tags_are_pulled_from_every_page_of_their_list() {
    let image = big();
    let mut content = image.content.clone();
    let index = content.0["/v2/a/x/manifests/1"].clone();
    content.0.insert("/v2/a/x/manifests/two".into(), index);
    let fake = Fake::start(move |asked| match asked.path.as_str() {
        "/v2/a/x/tags/list" => Reply::new(200, r#"{"name":"a/x","tags":["1"]}"#)
            .header("Link", r#"</v2/a/x/tags/list?last=1&n=1>; rel="next""#),
        "/v2/a/x/tags/list?last=1&n=1" => Reply::new(200, r#"{"name":"a/x","tags":["two"]}"#),
        "/v2/a/empty/tags/list" => Reply::new(200, r#"{"name":"a/empty","tags":null}"#),
        "/v2/a/endless/tags/list" => Reply::new(200, "{}").header("Link", "</v2/a/endless/tags/list>; rel=\"next\""),
        _ => content.answer(asked),
    })
    .await;
    let here = store();
    let pull = async |path: &str| {
        let (progress, all) = recorder();
        let repository = reference(&format!("{}/{path}", fake.address));
        let pulled = here.store.pull_all_tags(&repository, None, None, progress).await;
        (pulled, words(&all.await.unwrap()))
    };
    let (pulled, told) = pull("a/x").await;
    let tags: Vec<_> = ["1", "two"].iter().map(|tag| format!("{}/a/x:{tag}", fake.address)).collect();
    assert_eq!(pulled.unwrap().last().unwrap().image.repo_tags, tags);
    let is_status = |line: &&String| line.starts_with("Status: ");
    let newer = format!("Status: Downloaded newer image for {}/a/x", fake.address);
    assert_eq!(told.iter().filter(is_status).collect::<Vec<_>>(), [&newer]);
    assert_eq!(told.iter().filter(|line| *line == "Pulling from a/x").count(), 2);
    assert_eq!(pull("a/x").await.1.last().unwrap(), &format!("Status: Image is up to date for {}/a/x", fake.address));
    assert_eq!(pull("a/empty").await.0.unwrap().len(), 0);
    let endless = pull("a/endless").await.0.unwrap_err();
    assert!(endless.to_string().ends_with("more than 1000 pages of tags"), "{endless}");
    assert_eq!(pull("a/none").await.0.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_full_disk_leaves_nothing() {
    let image = served(&[
        Layer::new().file("base", &noise(300_000)).bytes(),
        Layer::new().file("big", &noise(6_000_000)).bytes(),
    ]);
    let content = image.content.clone();
    let fake = Fake::start(move |asked| content.answer(asked)).await;
    for megabytes in [1, 5] {
        let disk = Tmpfs::mount(megabytes);
        let store = ImageStore::open(disk.path(), Config { registry: settings(), ..Config::default() }).unwrap();
        let before = tree(disk.path());
        let error = store.pull(&name(&fake), None, None, ProgressSender::none()).await.unwrap_err();
        assert!(matches!(error, ImageError::DiskFull { .. }), "{error:?}");
        assert!(error.to_string().ends_with("no space left on device"), "{error}");
        assert_eq!(tree(disk.path()), before);
    }
}

/// A small file system; unmounted when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(megabytes: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={megabytes}m");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), directory.path(), Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        Self(directory)
    }

    fn path(&self) -> &std::path::Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn tokens_are_fetched_used_and_renewed() {
    let image = big();
    let (content, path) = (image.content.clone(), image.layer_path.clone());
    let issued = Arc::new(AtomicUsize::new(0));
    let address = Arc::new(std::sync::Mutex::new(String::new()));
    let known = address.clone();
    let fake = Fake::start(move |asked| {
        let realm = format!("http://{}/token", known.lock().unwrap());
        if asked.path.starts_with("/token") {
            let number = issued.fetch_add(1, Ordering::Relaxed);
            return Reply::new(200, format!(r#"{{"token":"t{number}","refresh_token":"r"}}"#));
        }
        let current = issued.load(Ordering::Relaxed);
        let expired = asked.path == path && current == 1;
        if current == 0 || expired || asked.headers.get("authorization") != Some(&format!("Bearer t{}", current - 1)) {
            let challenge = format!(r#"Bearer realm="{realm}",service="test""#);
            return Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#).header("WWW-Authenticate", challenge);
        }
        content.answer(asked)
    })
    .await;
    *address.lock().unwrap() = fake.address.clone();
    let here = store();
    let auth = AuthConfig { username: "u".into(), password: "p".into(), ..Default::default() };
    here.store.pull(&name(&fake), None, Some(&auth), ProgressSender::none()).await.unwrap();
    let tokens: Vec<_> =
        fake.asked.lock().unwrap().iter().filter(|asked| asked.path.starts_with("/token")).cloned().collect();
    assert_eq!(tokens.len(), 2);
    assert_eq!(tokens[0].path, "/token?service=test&scope=repository%3Aa%2Fx%3Apull&account=u");
    assert_eq!(tokens[0].headers["authorization"], "Basic dTpw");

    let identity = AuthConfig { identitytoken: "refresh".into(), ..Default::default() };
    store().store.pull(&name(&fake), None, Some(&identity), ProgressSender::none()).await.unwrap();
    let asked = fake.asked.lock().unwrap().iter().filter(|asked| asked.method == "POST").cloned().collect::<Vec<_>>();
    assert!(asked[0].body.contains("grant_type=refresh_token") && asked[0].body.contains("refresh_token=refresh"));
    let login = AuthConfig { serveraddress: fake.address.clone(), ..auth };
    assert_eq!(here.store.auth(&login).await.unwrap().identity_token, "r");
}

#[tokio::test]
async fn refusals_in_dockers_words() {
    let body = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    let fake =
        Fake::start(move |asked| if asked.path == "/v2/" { Reply::new(200, "{}") } else { Reply::new(403, body) })
            .await;
    let here = store();
    let error = here.store.pull(&name(&fake), None, None, ProgressSender::none()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "pull access denied for {}/a/x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            fake.address
        )
    );
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let image = big();
    let content = image.content.clone();
    let fake = Fake::start(move |asked| content.answer(asked)).await;
    let platform = Platform::parse("linux/s390x").unwrap();
    let error = here.store.pull(&name(&fake), Some(&platform), None, ProgressSender::none()).await.unwrap_err();
    assert_eq!(error.to_string(), "no matching manifest for linux/s390x in the manifest list entries");
    let distribution = here.store.distribution(&name(&fake), None).await.unwrap();
    assert_eq!(distribution.platforms.len(), 2);
}

#[tokio::test]
async fn credentials_stay_with_their_registry() {
    let image = big();
    let content = image.content.clone();
    let elsewhere = Fake::start(move |asked| content.answer(asked)).await;
    let (content, target) = (image.content.clone(), elsewhere.address.clone());
    let fake = Fake::start(move |asked| {
        // asks only where it matters
        if asked.path != "/v2/" && !asked.headers.contains_key("authorization") {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=x");
        }
        if asked.path.contains("/blobs/") {
            return Reply::new(307, "").header("Location", format!("http://{target}{}", asked.path));
        }
        content.answer(asked)
    })
    .await;
    let here = store();
    let auth = AuthConfig { username: "u".into(), password: "p".into(), ..Default::default() };
    here.store.pull(&name(&fake), None, Some(&auth), ProgressSender::none()).await.unwrap();
    let asked = elsewhere.asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|asked| !asked.headers.contains_key("authorization")));
}
