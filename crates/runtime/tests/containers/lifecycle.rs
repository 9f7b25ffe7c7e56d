//! Create, start, state, kill, delete, pause, resume, ps; errors; and that nothing is left.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::{Sandbox, wait};

#[test]
fn runs_to_its_exit_code() {
    let outcome = Sandbox::new("echo out; echo err >&2; exit 7").run();
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "err\n"));
}

#[test]
fn standard_streams_may_be_the_hosts_null() {
    let sandbox = Sandbox::new("cat || exit 1; echo x || exit 2; echo y >&2 || exit 3; exit 4");
    fs::write(sandbox.bundle().join("config.json"), serde_json::to_vec(&sandbox.spec).unwrap()).unwrap();
    let pid = sandbox.dir.path().join("pid");
    let mut command = sandbox.command(&["create", "--bundle", sandbox.bundle().to_str().unwrap(), "--pid-file"]);
    let null = std::process::Stdio::null;
    let status = command.arg(&pid).arg(&sandbox.id).stdout(null()).stderr(null()).status().unwrap();
    assert!(status.success(), "{}", sandbox.log());
    sandbox.start();
    assert_eq!(wait(fs::read_to_string(pid).unwrap().parse().unwrap()), 4);
}

#[test]
fn states() {
    let sandbox = Sandbox::new("sleep 1000");
    let pid = sandbox.create();
    let state = sandbox.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], pid);
    assert_eq!(state["id"], sandbox.id);
    assert_eq!(state["bundle"], sandbox.bundle().to_str().unwrap());
    assert!(sandbox.fails(&["resume", &sandbox.id]).contains("created"));
    sandbox.start();
    assert_eq!(sandbox.state()["status"], "running");
    assert!(sandbox.fails(&["start", &sandbox.id]).contains("running"));
    assert!(sandbox.fails(&["delete", &sandbox.id]).contains("is not stopped"));
    let processes: Vec<i32> = serde_json::from_str(&sandbox.done(&["ps", "--format", "json", &sandbox.id])).unwrap();
    assert!(processes.contains(&pid), "{processes:?}");
    sandbox.done(&["pause", &sandbox.id]);
    assert_eq!(sandbox.state()["status"], "paused");
    sandbox.done(&["resume", &sandbox.id]);
    assert_eq!(sandbox.state()["status"], "running");
    sandbox.done(&["kill", &sandbox.id, "SIGKILL"]);
    assert_eq!(wait(pid), 137);
    let state = sandbox.state();
    assert_eq!((state["status"].as_str(), state["pid"].as_i64()), (Some("stopped"), Some(0)));
    assert!(sandbox.fails(&["kill", &sandbox.id, "TERM"]).contains("container not running"));
    sandbox.done(&["delete", &sandbox.id]);
    sandbox.assert_nothing_left();
    assert!(sandbox.fails(&["state", &sandbox.id]).contains("container does not exist"));
    assert!(sandbox.fails(&["delete", &sandbox.id]).contains("container does not exist"));
    sandbox.done(&["delete", "--force", &sandbox.id]);
}

#[test]
fn a_signal_to_a_container_that_waits_does_not_change_its_state() {
    let sandbox = Sandbox::new("exit 3");
    let pid = sandbox.create();
    sandbox.done(&["kill", &sandbox.id, "0"]);
    assert_eq!(sandbox.state()["status"], "created");
    sandbox.start();
    assert_eq!(wait(pid), 3);
}

#[test]
fn a_paused_container_dies_of_sigkill() {
    let sandbox = Sandbox::new("sleep 1000");
    let pid = sandbox.create();
    sandbox.start();
    sandbox.done(&["pause", &sandbox.id]);
    sandbox.done(&["kill", &sandbox.id, "KILL"]);
    assert_eq!(wait(pid), 137);
}

#[test]
fn delete_ends_what_still_runs() {
    // A created container goes without force, a running one and a paused one with it.
    let created = Sandbox::new("sleep 1000");
    created.create();
    created.done(&["delete", &created.id]);
    created.assert_nothing_left();
    for paused in [false, true] {
        let sandbox = Sandbox::new("sleep 1000 & sleep 1000");
        sandbox.create();
        sandbox.start();
        if paused {
            sandbox.done(&["pause", &sandbox.id]);
        }
        sandbox.done(&["delete", "--force", &sandbox.id]);
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_shared_pid_namespace_leaves_no_process_behind() {
    let mut sandbox = Sandbox::new("sleep 1000 & exit 0");
    let namespaces = sandbox.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let pid = sandbox.create();
    sandbox.start();
    assert_eq!(wait(pid), 0);
    assert_eq!(sandbox.state()["status"], "stopped");
    let left: Vec<i32> = serde_json::from_str(&sandbox.done(&["ps", "--format", "json", &sandbox.id])).unwrap();
    assert_eq!(left.len(), 1);
    sandbox.done(&["kill", "--all", &sandbox.id, "KILL"]);
    sandbox.done(&["delete", &sandbox.id]);
    sandbox.assert_nothing_left();
    // It was ours to reap; a zombie counts as gone.
    assert_eq!(wait(left[0]), 137);
}

#[test]
fn errors_are_those_of_runc() {
    for (program, text) in [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/etc", "exec: \"/etc\": is a directory"),
        ("/etc/notexec", "exec: \"/etc/notexec\": permission denied"),
    ] {
        let mut sandbox = Sandbox::new("");
        sandbox.spec["process"]["args"] = json!([program]);
        let output = sandbox.try_create();
        assert_eq!(output.status.code(), Some(1));
        let wanted =
            format!("runc create failed: unable to start container process: error during container init: {text}");
        assert_eq!(sandbox.last_error(), wanted);
        sandbox.assert_nothing_left();
    }
}

#[test]
fn a_failed_create_leaves_nothing() {
    let mut sandbox = Sandbox::new("true");
    sandbox.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "destination": "/data", "type": "bind", "source": "/no/such/source", "options": ["rbind"] }));
    assert_eq!(sandbox.try_create().status.code(), Some(1));
    sandbox.assert_nothing_left();
    assert!(sandbox.last_error().starts_with("runc create failed: "), "{}", sandbox.last_error());
    assert!(sandbox.last_error().contains("/no/such/source"), "{}", sandbox.last_error());
}

#[test]
fn ids_are_taken_once() {
    let sandbox = Sandbox::new("true");
    sandbox.create();
    assert!(!sandbox.try_create().status.success());
    assert_eq!(sandbox.last_error(), "container with given ID already exists");
    assert!(sandbox.fails(&["state", "../x"]).contains("invalid container ID format"));
}

#[test]
fn a_half_created_container_can_be_deleted() {
    let sandbox = Sandbox::new("true");
    fs::create_dir_all(sandbox.root().join(&sandbox.id)).unwrap();
    assert!(sandbox.fails(&["state", &sandbox.id]).contains("container does not exist"));
    sandbox.done(&["delete", "--force", &sandbox.id]);
    sandbox.assert_nothing_left();
}

#[test]
fn resource_limits_and_their_update() {
    let mut sandbox = Sandbox::new("sleep 1000");
    sandbox.spec["linux"]["resources"]["pids"] = json!({ "limit": 33 });
    sandbox.spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
    sandbox.create();
    sandbox.start();
    let read = |v1: &str, v2: &str| {
        let path = format!("skep-test-{0}/{0}", sandbox.id);
        let v1 = Path::new("/sys/fs/cgroup")
            .join(v1.split_once('/').unwrap().0)
            .join(&path)
            .join(v1.split_once('/').unwrap().1);
        let v2 = Path::new("/sys/fs/cgroup").join(&path).join(v2);
        fs::read_to_string(&v1).or_else(|_| fs::read_to_string(&v2)).unwrap().trim().to_owned()
    };
    assert_eq!(read("pids/pids.max", "pids.max"), "33");
    assert_eq!(read("memory/memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    let resources = sandbox.dir.path().join("resources.json");
    fs::write(&resources, r#"{"pids":{"limit":44}}"#).unwrap();
    sandbox.done(&["update", "--resources", resources.to_str().unwrap(), &sandbox.id]);
    assert_eq!(read("pids/pids.max", "pids.max"), "44");
}
