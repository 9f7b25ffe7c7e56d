//! Volumes, binds, tmpfs; secrets and configs of tasks; how a container looks from inside.

use docker_types::container_spec::{Mount, TmpfsOptions};
use docker_types::volume::VolumeCreateRequest;
use engine::{CreateOptions, ErrorKind, FileKind, IngressAttachment, SecretFile, TaskOptions};

use crate::support::{World, request, shell, with_host};

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_filled_shared_and_kept() {
    let world = World::new().await;
    let wanted = |script: &str| {
        let mut request = with_host(shell(script), |host| host.binds = Some(vec!["data:/seeded".into()]));
        request.volumes = Some([("/anonymous".to_owned(), Default::default())].into());
        request
    };
    let first = world.create("first", wanted("cat /seeded/file; echo more >/seeded/more; touch /anonymous/x")).await;
    world.engine.start(&first).await.unwrap();
    assert_eq!(world.wait(&first).await.status_code, 0);
    assert_eq!(world.log(&first).await, "from the image");
    let error = world.engine.volume_remove("data", false).await.unwrap_err();
    assert_eq!(error.to_string(), format!("remove data: volume is in use - [{first}]"));
    let mounts = world.inspect(&first).await.mounts;
    let shown: Vec<_> =
        mounts.iter().map(|mount| (mount.kind.as_str(), mount.destination.as_str(), mount.rw)).collect();
    assert_eq!(shown, [("volume", "/anonymous", true), ("volume", "/seeded", true)]);
    world.remove(&first).await;
    assert_eq!(
        world.engine.volume_list(&Default::default()).await.unwrap().volumes.len(),
        1,
        "the anonymous one is gone"
    );
    let second = world.create("second", wanted("cat /seeded/more")).await;
    world.engine.start(&second).await.unwrap();
    world.wait(&second).await;
    assert_eq!(world.log(&second).await, "more\n");
    world.remove(&second).await;
    world.engine.volume_remove("data", false).await.unwrap();
    assert_eq!(world.engine.volume_remove("data", false).await.unwrap_err().kind(), ErrorKind::NotFound);
    world.engine.volume_remove("data", true).await.unwrap();
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn binds_and_tmpfs_are_mounted() {
    let world = World::new().await;
    let source = world.root.path().join("shared");
    let wanted =
        with_host(shell("echo written >/bind/file; mount | grep -E ' /(small|tmp) '; ls /etc/hosts"), |host| {
            host.binds = Some(vec![format!("{}:/bind", source.display())]);
            host.tmpfs.insert("/tmp".into(), "size=64k".into());
            host.mounts = vec![Mount {
                kind: "tmpfs".into(),
                target: "/small".into(),
                tmpfs_options: Some(TmpfsOptions { size_bytes: 65536, ..TmpfsOptions::default() }),
                ..Mount::default()
            }];
        });
    let wanted = with_host(wanted, |host| host.readonly_rootfs = true);
    let id = world.create("web", wanted).await;
    world.engine.start(&id).await.unwrap();
    assert_eq!(world.wait(&id).await.status_code, 0, "{}", world.log(&id).await);
    assert_eq!(std::fs::read_to_string(source.join("file")).unwrap(), "written\n");
    let mounted = VolumeCreateRequest {
        name: "memory".into(),
        driver_opts: [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        ..VolumeCreateRequest::default()
    };
    world.engine.volume_create(mounted).await.unwrap();
    world.remove(&id).await;
    let id = world
        .create(
            "web",
            with_host(shell("mount | grep ' /v ' | grep tmpfs"), |host| host.binds = Some(vec!["memory:/v".into()])),
        )
        .await;
    world.engine.start(&id).await.unwrap();
    assert_eq!(world.wait(&id).await.status_code, 0);
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_have_their_secrets_in_memory() {
    let world = World::new().await;
    let file = |path: &str, kind, data: &str| SecretFile {
        path: path.into(),
        uid: 0,
        gid: 0,
        mode: 0o400,
        data: data.into(),
        kind,
    };
    let files =
        vec![file("/run/secrets/token", FileKind::Secret, "s3cret"), file("/etc/app.conf", FileKind::Config, "conf")];
    let task = TaskOptions { files, ..TaskOptions::default() };
    let script = "cat /run/secrets/token /etc/app.conf; stat -c %a /run/secrets/token; echo x >/run/secrets/token; mount | grep /run/secrets";
    let options = CreateOptions { task: Some(task), ..CreateOptions::default() };
    let id = world.engine.create(Some("task"), shell(script), options).await.unwrap().id;
    world.engine.start(&id).await.unwrap();
    assert_eq!(world.wait(&id).await.status_code, 0);
    let log = world.log(&id).await;
    assert!(log.starts_with("s3cretconf400\n"), "{log}");
    assert!(log.contains("Read-only file system") && log.contains("tmpfs"), "{log}");
    let disk = std::process::Command::new("grep")
        .args(["-rl", "s3cret"])
        .arg(world.container_directory(&id))
        .output()
        .unwrap();
    let found = String::from_utf8(disk.stdout).unwrap();
    assert!(found.lines().all(|path| path.ends_with("-json.log")), "{found}");
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inside_is_dockers() {
    let world = World::new().await;
    let mut wanted = request(&["sh", "-c", "hostname; id -u; pwd; echo $HOSTNAME $FROM $MINE; cat /etc/hostname"]);
    wanted.hostname = "inside".into();
    wanted.user = "1000".into();
    wanted.working_dir = "/tmp".into();
    wanted.env = Some(vec!["MINE=1".into()]);
    let id = world.create("web", wanted).await;
    let inspect = world.inspect(&id).await;
    assert_eq!(inspect.config.env.unwrap(), ["MINE=1", "PATH=/bin", "FROM=image"]);
    assert_eq!(
        (inspect.path.as_str(), inspect.args.len(), inspect.host_config.network_mode.as_str()),
        ("sh", 2, "bridge")
    );
    world.engine.start(&id).await.unwrap();
    world.wait(&id).await;
    assert_eq!(world.log(&id).await, "inside\n1000\n/tmp\ninside image 1\ninside\n");
    let listed = world.engine.list(engine::ListOptions { all: true, ..Default::default() }).await.unwrap();
    assert_eq!((listed.len(), listed[0].names[0].as_str(), listed[0].state.as_str()), (1, "/web", "exited"));
    assert!(listed[0].status.starts_with("Exited (0) "), "{}", listed[0].status);
    assert!(world.engine.list(Default::default()).await.unwrap().is_empty());
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_shown_on_the_ingress_network() {
    let world = World::new().await;
    let ingress = IngressAttachment { network_id: "i".repeat(64), address: "10.0.0.7/24".into(), ports: Vec::new() };
    let task = TaskOptions { ingress: Some(ingress), ..TaskOptions::default() };
    let options = CreateOptions { task: Some(task), ..CreateOptions::default() };
    let created = world.engine.create(Some("web.1.x"), shell("true"), options).await.unwrap();
    let networks = world.inspect(&created.id).await.network_settings.networks.unwrap();
    assert_eq!(networks.keys().collect::<Vec<_>>(), ["ingress"]);
    let shown = &networks["ingress"];
    assert_eq!(shown.network_id, "i".repeat(64));
    assert_eq!(shown.ipam_config.as_ref().unwrap().ipv4_address, "10.0.0.7");
    assert_eq!(shown.dns_names.as_deref().unwrap(), ["web.1.x", &created.id[..12]]);
    world.remove(&created.id).await;
    // one without a network of the swarm is on the default bridge
    let task = TaskOptions::default();
    let options = CreateOptions { task: Some(task), ..CreateOptions::default() };
    let created = world.engine.create(Some("job.1.x"), shell("true"), options).await.unwrap();
    let networks = world.inspect(&created.id).await.network_settings.networks.unwrap();
    assert_eq!(networks.keys().collect::<Vec<_>>(), ["bridge"]);
    world.remove(&created.id).await;
    world.assert_clean();
}
