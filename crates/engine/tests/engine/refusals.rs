//! What dockerd refuses or warns of at creation, at the start and in updates, with its statuses and texts.

use docker_types::container::{CreateRequest, HostConfig, ThrottleDevice, UpdateRequest};
use docker_types::container_spec::{BindOptions, Mount};
use engine::{CreateOptions, EngineError, ErrorKind, ReadOnlyDepth};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::support::{World, shell, with_host};

/// Kind and text.
fn told(error: &EngineError) -> (ErrorKind, String) {
    (error.kind(), error.to_string())
}

fn host(change: impl FnOnce(&mut HostConfig)) -> CreateRequest {
    with_host(shell("sleep 60"), change)
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_shared_with_those_who_run() {
    use ErrorKind::{Conflict, Internal, InvalidParameter};
    let world = World::new().await;
    let create = async |change: fn(&mut HostConfig)| {
        world.engine.create(None, host(change), CreateOptions::default()).await.map(|created| created.id)
    };
    for change in [
        |host: &mut HostConfig| host.pid_mode = "container:nope".into(),
        |host: &mut HostConfig| {
            host.ipc_mode = "container:nope".into();
        },
    ] {
        let refused = create(change).await.unwrap_err();
        assert_eq!(told(&refused), (InvalidParameter, "No such container: nope".to_owned()));
    }
    let donor = world.create("donor", host(|_| ())).await;
    let running = world.run("running", "sleep 60").await;
    let not_running = format!("container {donor} is not running");
    type Change = fn(&mut HostConfig);
    let cases: [(Change, ErrorKind, String); 5] = [
        (
            |host| host.network_mode = "container:nope".into(),
            Internal,
            "joining network namespace of container: No such container: nope".into(),
        ),
        (
            |host| host.network_mode = "container:donor".into(),
            Conflict,
            "cannot join network namespace of a non running container: container donor is created".into(),
        ),
        (
            |host| host.ipc_mode = "container:donor".into(),
            Conflict,
            format!("failed to join IPC namespace: {not_running}"),
        ),
        (
            |host| host.ipc_mode = "container:running".into(),
            InvalidParameter,
            format!(
                "failed to join IPC namespace: container {running}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            ),
        ),
        (
            |host| host.pid_mode = "container:donor".into(),
            Internal,
            format!("failed to join PID namespace: {not_running}"),
        ),
    ];
    let mut made = vec![donor, running];
    for (change, kind, text) in cases {
        let id = create(change).await.unwrap();
        let error = world.engine.start(&id).await.unwrap_err();
        assert_eq!(told(&error), (kind, text));
        assert_eq!(world.inspect(&id).await.state.exit_code, 128);
        made.push(id);
    }
    let joined = create(|host| host.pid_mode = "container:running".into()).await.unwrap();
    world.engine.start(&joined).await.unwrap();
    assert_eq!(world.inspect(&joined).await.host_config.pid_mode, format!("container:{}", made[1]));
    made.push(joined);
    for id in made {
        world.remove(&id).await;
    }
    world.assert_clean();
}

/// Two mounts of memory, one private, one shared; unmounted when dropped.
struct Mounts(tempfile::TempDir);

impl Mounts {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, propagation) in [("private", MsFlags::MS_PRIVATE), ("shared", MsFlags::MS_SHARED)] {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            mount(Some("test"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            mount(None::<&str>, &path, None::<&str>, propagation, None::<&str>).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for name in ["private", "shared"] {
            let _ = umount2(&self.0.path().join(name), MntFlags::MNT_DETACH);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn binds_pass_mounts_on_where_their_source_does() {
    let world = World::new().await;
    let mounts = Mounts::new();
    let create = async |source: &str, mode: &str| {
        let bind = format!("{}:/x{mode}", mounts.path(source));
        let request = with_host(shell("true"), |host| host.binds = Some(vec![bind]));
        world.engine.create(None, request, CreateOptions::default()).await.unwrap().id
    };
    for (mode, kind) in [(":rshared", "shared"), (":shared", "shared"), (":slave", "shared or slave")] {
        let id = create("private", mode).await;
        let path = mounts.path("private");
        let text = format!("path {path} is mounted on {path} but it is not a {kind} mount");
        assert_eq!(told(&world.engine.start(&id).await.unwrap_err()), (ErrorKind::Internal, text));
        world.remove(&id).await;
    }
    for (source, mode, propagation) in [
        ("private", "", "rprivate"),
        ("private", ":private", "private"),
        ("shared", ":rshared", "rshared"),
        ("shared", ":ro,rslave", "rslave"),
    ] {
        let id = create(source, mode).await;
        assert_eq!(world.inspect(&id).await.mounts[0].propagation, propagation);
        world.engine.start(&id).await.unwrap();
        assert_eq!(world.wait(&id).await.status_code, 0);
        world.remove(&id).await;
    }
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_binds_are_so_with_what_is_mounted_below() {
    let world = World::new().await;
    let mounts = Mounts::new();
    let root = mounts.0.path().display().to_string();
    let run = async |request: CreateRequest, read_only: ReadOnlyDepth| {
        let options = CreateOptions { read_only, ..CreateOptions::default() };
        let id = world.engine.create(None, request, options).await.unwrap().id;
        world.engine.start(&id).await.unwrap();
        let code = world.wait(&id).await.status_code;
        world.remove(&id).await;
        code
    };
    let script = "touch /x/new 2>/dev/null && exit 3; touch /x/private/new 2>/dev/null && exit 4; exit 0";
    let bind = || with_host(shell(script), |host| host.binds = Some(vec![format!("{root}:/x:ro")]));
    assert_eq!(run(bind(), ReadOnlyDepth::Recursive).await, 0);
    assert_eq!(run(bind(), ReadOnlyDepth::Single).await, 4);
    let own = with_host(shell(script), |host| {
        host.mounts = vec![Mount {
            kind: "bind".into(),
            source: root.clone(),
            target: "/x".into(),
            read_only: true,
            bind_options: Some(BindOptions { read_only_non_recursive: true, ..BindOptions::default() }),
            ..Mount::default()
        }];
    });
    assert_eq!(run(own, ReadOnlyDepth::Recursive).await, 4);
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_looked_at_before_the_image() {
    let world = World::new().await;
    let create = async |request| world.engine.create(None, request, CreateOptions::default()).await;
    let mut request = host(|host| host.cpuset_cpus = "8000".into());
    request.image = "nosuchimage".into();
    let (kind, text) = told(&create(request.clone()).await.unwrap_err());
    assert!(text.starts_with("Requested CPUs are not available - requested 8000, available: 0"), "{text}");
    assert_eq!(kind, ErrorKind::InvalidParameter);
    request.host_config = None;
    assert_eq!(create(request).await.unwrap_err().kind(), ErrorKind::NotFound);
    let published = create(host(|host| {
        host.network_mode = "host".into();
        host.port_bindings = Some([("80/tcp".to_owned(), None)].into());
    }));
    let published = published.await.unwrap();
    assert_eq!(published.warnings, ["Published ports are discarded when using host network mode"]);
    let device = ThrottleDevice { path: "/dev/nosuch".into(), rate: 5 };
    let throttled = create(host(|host| host.blkio_device_read_bps = Some(vec![device]))).await.unwrap();
    let missing = told(&world.engine.start(&throttled.id).await.unwrap_err());
    assert_eq!(missing, (ErrorKind::Internal, "stat /dev/nosuch: no such file or directory".to_owned()));
    world.remove(&published.id).await;
    world.remove(&throttled.id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_other_platforms_are_told_of() {
    let world = World::new().await;
    let create = async |platform: Option<&str>| {
        let options = CreateOptions { platform: platform.map(str::to_owned), ..CreateOptions::default() };
        world.engine.create(None, host(|_| ()), options).await
    };
    let own = oci_types::Platform::host();
    let created = create(Some(&own.to_string())).await.unwrap();
    assert!(created.warnings.is_empty());
    let text = format!(
        "image with reference busybox:test was found but its platform ({own}) does not match the specified platform (linux/s390x)"
    );
    assert_eq!(told(&create(Some("linux/s390x")).await.unwrap_err()), (ErrorKind::NotFound, text));
    world.remove(&created.id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_refused_as_by_dockerd() {
    let world = World::new().await;
    let id = world.create("web", host(|host| host.cpu_period = 50_000)).await;
    let update = async |name: &str, change: fn(&mut UpdateRequest)| {
        let mut request = UpdateRequest::default();
        change(&mut request);
        world.engine.update(name, request).await
    };
    let refused = update("nope", |request| request.memory = 1).await.unwrap_err();
    assert_eq!(told(&refused), (ErrorKind::InvalidParameter, "Minimum memory limit allowed is 6MB".to_owned()));
    let refused = update("web", |request| request.nano_cpus = 1_000_000_000).await.unwrap_err();
    let text = format!(
        "Cannot update container {id}: Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"
    );
    assert_eq!(told(&refused), (ErrorKind::Conflict, text));
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_runtime_refuses_is_left_to_it() {
    let world = World::new().await;
    let start = async |change: fn(&mut CreateRequest)| {
        let mut request = host(|_| ());
        change(&mut request);
        let id = world.engine.create(None, request, CreateOptions::default()).await.unwrap().id;
        let started = world.engine.start(&id).await;
        world.remove(&id).await;
        started.map_err(|error| told(&error))
    };
    fn of(request: &mut CreateRequest) -> &mut HostConfig {
        request.host_config.get_or_insert_default()
    }
    let sysctl = start(|request| {
        of(request).network_mode = "host".into();
        of(request).sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
    });
    let (kind, text) = sysctl.await.unwrap_err();
    assert_eq!(kind, ErrorKind::Internal);
    assert!(text.contains("sysctl net.ipv4.ip_forward not allowed in host network namespace"), "{text}");
    let group = start(|request| of(request).group_add = Some(vec!["nope".into()])).await.unwrap_err();
    assert_eq!(group, (ErrorKind::Internal, "unable to find group nope: no matching entries in group file".to_owned()));
    // the kernel's bound is 64
    assert_eq!(start(|request| request.hostname = "a".repeat(64)).await, Ok(()));
    let (kind, text) = start(|request| request.hostname = "a".repeat(65)).await.unwrap_err();
    assert_eq!(kind, ErrorKind::Internal, "{text}");
    let device = |path: &str| docker_types::container::DeviceMapping {
        path_on_host: "/dev/null".into(),
        path_in_container: path.into(),
        ..Default::default()
    };
    let request = with_host(shell("test -c /srv/null && echo x > /srv/null"), |host| {
        host.devices = Some(vec![device("/srv/null")]);
    });
    let id = world.create("bound", request).await;
    world.engine.start(&id).await.unwrap();
    assert_eq!(world.wait(&id).await.status_code, 0);
    world.remove(&id).await;
    world.assert_clean();
}
