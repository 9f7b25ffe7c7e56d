//! The shim with the project's own runtime: what a runtime that isolates nothing cannot show. Needs root.
//!
//! The runtime is `SKEP_TEST_RUNTIME` (e.g. a path of runc), else crate `runtime`'s test program, built if need be.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use shim::launch::Readiness;
use shim::protocol::*;
use support::Container;

fn runtime() -> &'static Path {
    static RUNTIME: OnceLock<PathBuf> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        if let Some(path) = std::env::var_os("SKEP_TEST_RUNTIME") {
            return path.into();
        }
        let built = Path::new(env!("CARGO_BIN_EXE_shim-test-roles")).with_file_name("skep-runtime");
        if !built.exists() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let build = ["build", "--quiet", "-p", "runtime", "--bin", "skep-runtime"];
            assert!(Command::new(cargo).args(build).status().unwrap().success());
        }
        built
    })
}

/// A bundle on the host's programs that runs `args` with `memory` bytes.
fn bundle(args: &[&str], memory: u64) -> Container {
    let container = Container::prepare(&[], |launch| {
        launch.runtime.program = runtime().to_owned();
        launch.runtime.args.clear();
        launch.container = format!("shim-test-{}", launch.bundle.components().nth(2).unwrap().as_os_str().display());
    });
    let rootfs = container.root().join("rootfs");
    let mut mounts = vec![json!({"destination": "/proc", "type": "proc", "source": "proc"})];
    for directory in ["bin", "lib", "lib64", "usr"] {
        fs::create_dir_all(rootfs.join(directory)).unwrap();
        let place = format!("/{directory}");
        mounts.push(json!({"destination": place, "type": "bind", "source": place, "options": ["rbind", "ro"]}));
    }
    for directory in ["proc", "dev", "sys"] {
        fs::create_dir_all(rootfs.join(directory)).unwrap();
    }
    let namespaces: Vec<Value> = ["pid", "mount", "ipc", "uts"].iter().map(|kind| json!({"type": kind})).collect();
    let config = json!({
        "ociVersion": "1.0.2",
        "process": process(args),
        "root": {"path": rootfs},
        "hostname": "shim-test",
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("/{}", container.launch.container),
            "resources": {"memory": {"limit": memory}},
        },
    });
    fs::write(container.launch.bundle.join("config.json"), config.to_string()).unwrap();
    container
}

fn process(args: &[&str]) -> Value {
    json!({"args": args, "cwd": "/", "env": ["PATH=/bin:/usr/bin"], "user": {"uid": 0, "gid": 0}})
}

#[test]
fn a_real_container_runs_execs_and_is_deleted() {
    let mut container = bundle(&["/bin/sh", "-c", "echo $$; exec sleep 1000"], 1 << 28);
    let readiness = container.spawn();
    assert!(matches!(readiness, Readiness::Ready { .. }), "{readiness:?}");
    let mut stream = container.client();
    stream.ask(Request::Attach(Attach { stdin: false, stdout: true, stderr: true }));
    container.done(Request::Start);
    assert_eq!(stream.read_until("\n"), "1\n");
    let (answer, mut stream) = container.exec("e", &[], |e| e.process = process(&["sh", "-c", "echo in; exit 5"]));
    assert!(matches!(answer, Answer::Exec { .. }), "{answer:?}");
    let (stdout, _, end) = stream.read_stream();
    assert_eq!((&stdout[..], end.exit_code), (&b"in\n"[..], Some(5)));
    let (answer, _) = container.exec("none", &[], |e| e.process = process(&["no-such"]));
    let Answer::Error { kind: ErrorKind::Runtime, message } = answer else { panic!("{answer:?}") };
    assert!(message.contains("exec: \"no-such\": executable file not found in $PATH"), "{message}");
    container.done(Request::Pause);
    container.done(Request::Resume);
    container.done(Request::Kill { signal: 9, target: KillTarget::All });
    assert_eq!(container.wait().exit_code, 137);
    container.done(Request::Delete { running: IfRunning::Refuse });
    assert!(!container.directory().exists());
}

#[test]
fn a_kill_for_want_of_memory_is_told() {
    // Nothing beside `tail` asks for memory: while the killed one still gives its back, the kernel would kill another.
    let script = "ulimit -v 200000; tail /dev/zero; exit 3";
    let mut container = bundle(&["/bin/sh", "-c", script], 20 << 20);
    let readiness = container.spawn();
    assert!(matches!(readiness, Readiness::Ready { .. }), "{readiness:?}");
    let mut events = container.client();
    events.ask(Request::Subscribe);
    let record = container.start_and_wait();
    assert_eq!((record.exit_code, record.oom_killed), (3, true));
    assert!(matches!(events.event(), Event::Started { .. }));
    // With cgroup v2, and with the bell of v1, it comes before the exit.
    assert!(matches!(events.event(), Event::Oom | Event::Exited(_)));
}

#[test]
fn a_real_create_that_fails_tells_why() {
    let mut container = bundle(&["no-such"], 1 << 28);
    let Readiness::Failed { message } = container.spawn() else { panic!("ready") };
    assert!(message.contains("exec: \"no-such\": executable file not found in $PATH"), "{message}");
}
