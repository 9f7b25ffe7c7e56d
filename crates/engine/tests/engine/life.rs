//! Create, start, stop, wait, inspect, remove.

use docker_types::container::RestartPolicy;
use engine::{CreateOptions, ErrorKind, RemoveOptions, StopOptions, WaitCondition};

use crate::support::{World, patiently, request, shell, with_host};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_lives_and_goes() {
    let world = World::new().await;
    let id = world.create("web", shell("echo hello; echo oops >&2; exit 3")).await;
    assert_eq!(world.inspect("web").await.state.status, "created");
    let exit = world.engine.wait(&id[..12], WaitCondition::NextExit).await.unwrap();
    world.engine.start("/web").await.unwrap();
    assert_eq!(patiently(exit).await.status_code, 3);
    let inspect = world.inspect(&id).await;
    assert_eq!((inspect.state.status.as_str(), inspect.state.exit_code, inspect.state.pid), ("exited", 3, 0));
    assert!(inspect.state.started_at < inspect.state.finished_at);
    assert_eq!(world.log(&id).await, "hello\noops\n");
    world.engine.remove(&id, RemoveOptions::default()).await.unwrap();
    assert_eq!(world.engine.start(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_asks_then_kills() {
    let world = World::new().await;
    let polite = world.run("polite", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done").await;
    world.until(&polite, |inspect| inspect.state.running).await;
    let rude = world.run("rude", "trap '' TERM; echo up; while :; do sleep 0.05; done").await;
    for id in [&polite, &rude] {
        while world.log(id).await != "up\n" {
            tokio::task::yield_now().await;
        }
    }
    let stop = |timeout_s| StopOptions { timeout_s: Some(timeout_s), signal: None };
    patiently(world.engine.stop(&polite, stop(10))).await.unwrap();
    assert_eq!(world.inspect(&polite).await.state.exit_code, 7);
    patiently(world.engine.stop(&rude, stop(0))).await.unwrap();
    assert_eq!(world.inspect(&rude).await.state.exit_code, 137);
    assert_eq!(world.engine.stop(&rude, stop(0)).await.unwrap_err().kind(), ErrorKind::NotModified);
    world.remove(&polite).await;
    world.remove(&rude).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let world = World::new().await;
    let id = world.create("missing", request(&["nosuchprogram"])).await;
    let error = world.engine.start(&id).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        ),
        "{text}"
    );
    assert!(text.contains("exec: \"nosuchprogram\": executable file not found in $PATH"), "{text}");
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    let state = world.inspect(&id).await.state;
    assert_eq!((state.exit_code, state.status.as_str()), (127, "created"));
    world.remove(&id).await;
    let id = world.create("denied", request(&["/etc/passwd"])).await;
    let error = world.engine.start(&id).await.unwrap_err().to_string();
    assert!(error.contains("permission denied"), "{error}");
    assert_eq!(world.inspect(&id).await.state.exit_code, 126);
    world.remove(&id).await;
    let id = world.create("lost", with_host(shell("true"), |host| host.network_mode = "nowhere".into())).await;
    let error = world.engine.start(&id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "failed to set up container networking: network nowhere not found");
    let inspect = world.inspect(&id).await;
    assert_eq!((inspect.state.exit_code, inspect.state.status.as_str()), (128, "created"));
    assert!(inspect.network_settings.networks.unwrap().contains_key("nowhere"));
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_taken_once() {
    let world = World::new().await;
    let id = world.create("web", shell("true")).await;
    let error = world.engine.create(Some("web"), shell("true"), CreateOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.to_string(),
        format!(
            "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove (or rename) that \
             container to be able to reuse that name."
        )
    );
    world.engine.rename("web", "other").await.unwrap();
    let second = world.create("web", shell("true")).await;
    assert_eq!(world.inspect("other").await.name, "/other");
    world.remove(&id).await;
    world.remove(&second).await;
    let error = world
        .engine
        .create(None, shell("true"), CreateOptions { platform: Some("linux/arm64".into()), ..CreateOptions::default() })
        .await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_start_again() {
    let world = World::new().await;
    let policy = |name: &str, count| RestartPolicy { name: name.into(), maximum_retry_count: count };
    let retry = with_host(shell("exit 5"), |host| host.restart_policy = policy("on-failure", 2));
    let id = world.create("retry", retry).await;
    world.engine.start(&id).await.unwrap();
    let inspect = world.until(&id, |inspect| inspect.state.status == "exited").await;
    assert_eq!((inspect.restart_count, inspect.state.exit_code), (2, 5));
    let always = with_host(shell("sleep 1000"), |host| host.restart_policy = policy("always", 0));
    let always = world.create("always", always).await;
    world.engine.start(&always).await.unwrap();
    let pid = world.inspect(&always).await.state.pid;
    world.engine.kill(&always, Some("KILL")).await.unwrap();
    world.until(&always, |inspect| !inspect.state.running).await;
    world.engine.start(&always).await.unwrap();
    let again = world.inspect(&always).await.state.pid;
    assert!(pid != again && again != 0);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(again as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    world.until(&always, |inspect| inspect.restart_count == 1 && inspect.state.status == "running").await;
    world.remove(&always).await;
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_remove_and_force() {
    let world = World::new().await;
    let id = world.create("gone", with_host(shell("exit 4"), |host| host.auto_remove = true)).await;
    let removed = world.engine.wait(&id, WaitCondition::Removed).await.unwrap();
    world.engine.start(&id).await.unwrap();
    assert_eq!(patiently(removed).await.status_code, 4);
    // one that cannot start goes too, and who waits for that hears its exit code and of no error
    let id = world.create("never", with_host(request(&["nosuchprogram"]), |host| host.auto_remove = true)).await;
    let removed = world.engine.wait(&id, WaitCondition::Removed).await.unwrap();
    world.engine.start(&id).await.unwrap_err();
    let removed = patiently(removed).await;
    assert_eq!((removed.status_code, removed.error), (127, None));
    let id = world.run("busy", "sleep 1000").await;
    let error = world.engine.remove(&id, RemoveOptions::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot remove container \"/busy\": container is running: stop the container before removing or force remove"
    );
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_removal_hears_that_it_failed() {
    let world = World::new().await;
    let id = world.create("stuck", shell("true")).await;
    let removed = world.engine.wait(&id, WaitCondition::Removed).await.unwrap();
    world.hold_rootfs(&id);
    let error = world.engine.remove(&id, RemoveOptions::default()).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot remove container \"/stuck\": "), "{error}");
    let told = patiently(removed).await.error.expect("the removal failed");
    assert_eq!(told.message, error);
    let state = world.inspect(&id).await.state;
    assert_eq!((state.status.as_str(), state.dead, state.error), ("dead", true, error));
    world.let_go();
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_are_quick() {
    let world = World::new().await;
    world.run("warm", "sleep 1000").await;
    let mut spans = Vec::new();
    for number in 0..10 {
        let name = format!("quick{number}");
        let begin = std::time::Instant::now();
        let id = world.create(&name, shell("sleep 1000")).await;
        let created = begin.elapsed();
        world.engine.start(&id).await.unwrap();
        let started = begin.elapsed();
        world.remove(&id).await;
        spans.push((started, created, begin.elapsed() - started));
    }
    spans.sort();
    println!("create and start, create, remove: {spans:?}");
    // ten times the goal: a build without optimizations on a busy machine
    assert!(spans[5].0 < std::time::Duration::from_millis(400), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_a_containers_life() {
    let world = World::new().await;
    let mut events = world.engine.subscribe(None, None);
    let id = world.run("web", "trap 'exit 0' TERM; while :; do sleep 0.05; done").await;
    world.until(&id, |inspect| inspect.state.running).await;
    let ready = world.engine.exec_create(&id, Default::default()).await.unwrap_err();
    assert_eq!(ready.to_string(), "No exec command specified");
    patiently(world.engine.restart(&id, StopOptions { timeout_s: Some(0), signal: None })).await.unwrap();
    world.remove(&id).await;
    let mut told = Vec::new();
    while told.last().map(String::as_str) != Some("container destroy") {
        let event = patiently(events.next()).await.unwrap();
        told.push(format!("{} {}", event.kind, event.action));
    }
    let start = ["network connect", "container start"];
    let end = ["container kill", "network disconnect", "container die"];
    let mut expected = vec!["container create"];
    expected.extend(start);
    expected.extend(["container kill"]);
    expected.extend(end);
    expected.extend(["container stop"]);
    expected.extend(start);
    expected.extend(["container restart"]);
    expected.extend(end);
    expected.extend(["container destroy"]);
    assert_eq!(told, expected);
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_its_containers_starts_them_again() {
    let mut world = World::new().await;
    let policy = RestartPolicy { name: "unless-stopped".into(), maximum_retry_count: 0 };
    let wanted = || {
        with_host(shell("sleep 1000"), |host| {
            host.restart_policy = policy.clone();
        })
    };
    let (kept, stopped) = (world.create("kept", wanted()).await, world.create("stopped", wanted()).await);
    for id in [&kept, &stopped] {
        world.engine.start(id).await.unwrap();
    }
    world.engine.stop(&stopped, StopOptions { timeout_s: Some(0), signal: None }).await.unwrap();
    let short = StopOptions { timeout_s: Some(0), signal: Some("KILL".into()) };
    assert_eq!(world.engine.stop(&stopped, short).await.unwrap_err().kind(), ErrorKind::NotModified);
    let pid = world.inspect(&kept).await.state.pid;
    patiently(world.engine.shutdown(engine::Shutdown::StopAll)).await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    world.open_again().await;
    world.until(&kept, |inspect| inspect.state.status == "running").await;
    assert_eq!(world.inspect(&stopped).await.state.status, "exited");
    world.remove(&kept).await;
    world.remove(&stopped).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_reach_the_cgroup() {
    let world = World::new().await;
    let id = world.run("web", "sleep 1000").await;
    let request = docker_types::container::UpdateRequest { pids_limit: Some(77), ..Default::default() };
    world.engine.update(&id, request).await.unwrap();
    assert_eq!(world.inspect(&id).await.host_config.pids_limit, Some(77));
    let pid = world.inspect(&id).await.state.pid;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = groups.lines().find(|line| line.contains(":pids:") || line.starts_with("0::")).unwrap();
    let path = line.rsplit(':').next().unwrap();
    let files = ["pids", "."].map(|part| format!("/sys/fs/cgroup/{part}{path}/pids.max"));
    let limit = || files.iter().find_map(|file| std::fs::read_to_string(file).ok());
    assert_eq!(limit().as_deref(), Some("77\n"));
    let no_limit = docker_types::container::UpdateRequest { pids_limit: Some(0), ..Default::default() };
    world.engine.update(&id, no_limit).await.unwrap();
    assert_eq!(limit().as_deref(), Some("max\n"));
    let top = world.engine.top(&id, "").await.unwrap();
    assert!(top.processes.iter().any(|row| row.last().is_some_and(|command| command.contains("sleep"))), "{top:?}");
    world.remove(&id).await;
    world.assert_clean();
}
