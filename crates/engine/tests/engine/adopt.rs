//! What a new daemon makes of what the last one left.

use docker_types::container::RestartPolicy;
use engine::{ErrorKind, RemoveOptions, SizeMode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{World, processes_of, shell, with_host};

fn end(pid: i64) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
}

/// Waits until the process is gone.
async fn gone(pid: i64) {
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_adopted() {
    let mut world = World::new().await;
    let id = world.run("web", "echo one; trap 'echo two; exit 9' TERM; while :; do sleep 0.05; done").await;
    let paused = world.run("paused", "sleep 1000").await;
    world.engine.pause(&paused).await.unwrap();
    let before = world.inspect(&id).await;
    while world.log(&id).await != "one\n" {
        tokio::task::yield_now().await;
    }
    world.reopen().await;
    let after = world.inspect("web").await;
    assert_eq!((after.id.as_str(), after.state.pid), (id.as_str(), before.state.pid));
    assert_eq!(after.state.status, "running");
    assert_eq!(world.inspect(&paused).await.state.status, "paused");
    world.engine.stop(&id, Default::default()).await.unwrap();
    assert_eq!(world.inspect(&id).await.state.exit_code, 9);
    assert_eq!(world.log(&id).await, "one\ntwo\n");
    world.engine.unpause(&paused).await.unwrap();
    world.remove(&paused).await;
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_while_away_are_taken_over_and_policies_apply() {
    let mut world = World::new().await;
    let code = world.run("code", "trap 'exit 6' TERM; while :; do sleep 0.05; done").await;
    let always = with_host(shell("sleep 1000"), |host| {
        host.restart_policy = RestartPolicy { name: "always".into(), maximum_retry_count: 0 }
    });
    let always = world.create("always", always).await;
    world.engine.start(&always).await.unwrap();
    let auto = world.create("auto", with_host(shell("sleep 1000"), |host| host.auto_remove = true)).await;
    world.engine.start(&auto).await.unwrap();
    let pids = [
        world.inspect(&code).await.state.pid,
        world.inspect(&always).await.state.pid,
        world.inspect(&auto).await.state.pid,
    ];
    world.engine.shutdown(engine::Shutdown::LeaveAll).await;
    assert_eq!(world.engine.stop(&code, Default::default()).await.unwrap_err().kind(), ErrorKind::NotFound);
    kill(Pid::from_raw(pids[0] as i32), Signal::SIGTERM).unwrap();
    end(pids[1]);
    end(pids[2]);
    for pid in pids {
        gone(pid).await;
    }
    let record = world.container_directory(&code).join("exit.json");
    while !record.exists() {
        tokio::task::yield_now().await;
    }
    world.open_again().await;
    let state = world.inspect(&code).await.state;
    assert_eq!((state.status.as_str(), state.exit_code), ("exited", 6));
    let again = world.until(&always, |inspect| inspect.state.status == "running").await;
    assert_ne!(again.state.pid, pids[1]);
    assert_eq!(world.engine.inspect(&auto, SizeMode::Without).await.unwrap_err().kind(), ErrorKind::NotFound);
    world.remove(&always).await;
    world.remove(&code).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_ends_everything() {
    let mut world = World::new().await;
    let id = world.run("web", "sleep 1000").await;
    let pid = world.inspect(&id).await.state.pid;
    world.engine.shutdown(engine::Shutdown::LeaveAll).await;
    for shim in processes_of(&world.exec_root()) {
        end(i64::from(shim));
    }
    end(pid);
    gone(pid).await;
    std::fs::remove_dir_all(world.exec_root()).unwrap();
    std::fs::create_dir_all(world.container_directory("halfmade")).unwrap();
    world.open_again().await;
    let state = world.inspect(&id).await.state;
    assert_eq!((state.status.as_str(), state.exit_code), ("exited", 255));
    assert!(!world.container_directory("halfmade").exists());
    world.engine.start(&id).await.unwrap();
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_ends_its_container() {
    let world = World::new().await;
    let id = world.run("web", "sleep 1000").await;
    let pid = world.inspect(&id).await.state.pid;
    let launch = world.exec_root().join("shim").join(&id).join("launch.json");
    let shims = processes_of(&launch);
    assert_eq!(shims.len(), 1);
    end(i64::from(shims[0]));
    let inspect = world.until(&id, |inspect| !inspect.state.running).await;
    assert_eq!(inspect.state.exit_code, 137);
    gone(pid).await;
    world.engine.start(&id).await.unwrap();
    assert_eq!(world.inspect(&id).await.state.status, "running");
    world.engine.remove(&id, RemoveOptions { force: true, volumes: false }).await.unwrap();
    world.assert_clean();
}
