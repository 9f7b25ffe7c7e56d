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
        .create(None, shell("true"), CreateOptions { platform: Some("linux/arm64".into()), task: None })
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
