//! Exec, attach, health checks, OOM.

use docker_types::container_spec::HealthConfig;
use docker_types::exec::{ExecCreateRequest, ExecStartRequest};
use engine::{AttachOptions, Attached, ErrorKind, OutputSource};

use crate::support::{World, patiently, request, shell, with_host};

async fn read(attached: &mut Attached) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(frame) = patiently(attached.output.recv()).await {
        match frame.source {
            OutputSource::Stdout => out.extend_from_slice(&frame.bytes),
            OutputSource::Stderr => err.extend_from_slice(&frame.bytes),
        }
    }
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn exec(words: &[&str]) -> ExecCreateRequest {
    ExecCreateRequest {
        cmd: Some(words.iter().map(|word| (*word).to_owned()).collect()),
        attach_stdout: true,
        attach_stderr: true,
        ..ExecCreateRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_run_in_running_containers() {
    let world = World::new().await;
    let id = world.create("web", shell("sleep 1000")).await;
    let error = world.engine.exec_create(&id, exec(&["true"])).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Conflict, format!("container {id} is not running")));
    world.engine.start(&id).await.unwrap();
    let wanted = ExecCreateRequest {
        user: "user".into(),
        env: Some(vec!["X=1".into()]),
        working_dir: "/tmp".into(),
        attach_stdin: true,
        ..exec(&["sh", "-c", "id -u; pwd; echo $X $FROM; cat; echo bad >&2; exit 3"])
    };
    let exec_id = world.engine.exec_create("web", wanted).await.unwrap();
    let mut attached = world.engine.exec_start(&exec_id, ExecStartRequest::default()).await.unwrap().unwrap();
    attached.input.send("typed\n".into()).await.unwrap();
    let (dropped, _) = tokio::sync::mpsc::channel(1);
    attached.input = dropped;
    assert_eq!(read(&mut attached).await, ("1000\n/tmp\n1 image\ntyped\n".into(), "bad\n".into()));
    let shown = world.engine.exec_inspect(&exec_id).await.unwrap();
    assert_eq!((shown.running, shown.exit_code, shown.container_id), (false, Some(3), id.clone()));
    let again = world.engine.exec_start(&exec_id, ExecStartRequest::default()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    let failed = "OCI runtime exec failed: exec failed: unable to start container process: ";
    let nobody = ExecCreateRequest { user: "nosuch".into(), ..exec(&["true"]) };
    for (wanted, code, expected) in [
        (exec(&["nosuch"]), 127, format!("{failed}exec: \"nosuch\": executable file not found in $PATH: unknown")),
        (exec(&["/etc"]), 126, format!("{failed}exec: \"/etc\": is a directory: unknown: permission denied")),
        (nobody, 126, "unable to find user nosuch: no matching entries in passwd file".to_owned()),
    ] {
        let exec_id = world.engine.exec_create(&id, wanted).await.unwrap();
        let error = world.engine.exec_start(&exec_id, ExecStartRequest::default()).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(world.engine.exec_inspect(&exec_id).await.unwrap().exit_code, Some(code), "{expected}");
    }
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_have_a_size() {
    let world = World::new().await;
    let id = world.run("web", "sleep 1000").await;
    let wanted = ExecCreateRequest { tty: true, console_size: Some([33, 44]), ..exec(&["sh", "-c", "stty size; tty"]) };
    let exec_id = world.engine.exec_create(&id, wanted).await.unwrap();
    let mut attached = world.engine.exec_start(&exec_id, ExecStartRequest::default()).await.unwrap().unwrap();
    assert!(attached.tty);
    let (out, _) = read(&mut attached).await;
    assert!(out.starts_with("33 44\r\n/dev/pts/"), "{out:?}");
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn attachers_before_the_start_miss_nothing() {
    let world = World::new().await;
    let mut wanted = request(&["sh", "-c", "echo ready; cat; exit 2"]);
    (wanted.open_stdin, wanted.stdin_once) = (true, true);
    let id = world.create("web", wanted).await;
    let options = AttachOptions { stdin: true, stdout: true, stderr: true, logs: false, stream: true };
    let mut attached = world.engine.attach(&id, options).await.unwrap();
    world.engine.start(&id).await.unwrap();
    attached.input.send("line\n".into()).await.unwrap();
    let (dropped, _) = tokio::sync::mpsc::channel(1);
    attached.input = dropped;
    assert_eq!(read(&mut attached).await.0, "ready\nline\n");
    assert_eq!(world.wait(&id).await.status_code, 2);
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_checked() {
    let world = World::new().await;
    let mut wanted = shell("touch /well; sleep 1000");
    wanted.healthcheck = Some(HealthConfig {
        test: vec!["CMD-SHELL".into(), "echo looked; test -e /well".into()],
        interval: 50_000_000,
        retries: 2,
        ..HealthConfig::default()
    });
    let id = world.create("web", wanted).await;
    world.engine.start(&id).await.unwrap();
    assert_eq!(world.inspect(&id).await.state.health.unwrap().status, "starting");
    let status = |wanted: &'static str| {
        move |inspect: &docker_types::container::Inspect| {
            inspect.state.health.as_ref().is_some_and(|health| health.status == wanted)
        }
    };
    let well = world.until(&id, status("healthy")).await;
    assert_eq!(well.state.health.unwrap().log.unwrap()[0].output, "looked\n");
    // what has ended is not well, until it has been looked at again
    let now = engine::StopOptions { timeout_s: Some(0), signal: None };
    world.engine.stop(&id, now).await.unwrap();
    assert_eq!(world.inspect(&id).await.state.health.unwrap().status, "unhealthy");
    world.engine.start(&id).await.unwrap();
    world.until(&id, status("healthy")).await;
    let exec_id = world.engine.exec_create(&id, exec(&["rm", "/well"])).await.unwrap();
    let request = ExecStartRequest { detach: true, ..ExecStartRequest::default() };
    assert!(world.engine.exec_start(&exec_id, request).await.unwrap().is_none());
    let ill = world.until(&id, status("unhealthy")).await;
    assert!(ill.state.health.unwrap().failing_streak >= 2);
    // Each is counted; one that ran and said no has not failed.
    let tallies = world.engine.tallies();
    assert!(tallies.health_checks >= 3 && tallies.health_checks_failed == 0, "{tallies:?}");
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_memory_is_told() {
    let world = World::new().await;
    let wanted = with_host(shell("x=a; while :; do x=$x$x; done"), |host| {
        host.memory = 8 << 20;
        host.memory_swap = 8 << 20;
    });
    let id = world.create("hungry", wanted).await;
    world.engine.start(&id).await.unwrap();
    assert_eq!(world.wait(&id).await.status_code, 137);
    assert!(world.inspect(&id).await.state.oom_killed);
    world.remove(&id).await;
    world.assert_clean();
}
