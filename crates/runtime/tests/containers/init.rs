//! `/sbin/docker-init`: exit codes, signals, orphans.

use std::fs::File;

use serde_json::json;

use crate::support::{Sandbox, wait};

/// A container whose first process is our init, as the engine's spec has it.
fn with_init(args: &[&str]) -> Sandbox {
    let mut sandbox = Sandbox::new("");
    let target = sandbox.bundle().join("rootfs/sbin");
    std::fs::create_dir_all(&target).unwrap();
    File::create(target.join("docker-init")).unwrap();
    sandbox.spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/sbin/docker-init", "type": "bind", "source": env!("CARGO_BIN_EXE_skep-runtime"),
        "options": ["bind", "ro"],
    }));
    let all: Vec<&str> = ["/sbin/docker-init", "--"].iter().chain(args).copied().collect();
    sandbox.spec["process"]["args"] = json!(all);
    sandbox
}

#[test]
fn passes_on_the_exit_code() {
    let outcome = with_init(&["sh", "-c", "echo $$; exit 9"]).run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (9, "2\n"), "{outcome:?}");
    assert_eq!(with_init(&["sh", "-c", "kill -9 $$"]).run().code, 137);
    let outcome = with_init(&["nosuch"]).run();
    assert_eq!(outcome.code, 127, "{outcome:?}");
}

#[test]
fn passes_on_signals_and_reaps() {
    // The orphan's end must not end the container, and must not stay as a zombie.
    let script = "sh -c 'sleep 0.01 & true'; trap 'echo got; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let sandbox = with_init(&["sh", "-c", script]);
    let pid = sandbox.create();
    sandbox.start();
    for _ in 0..1_000 {
        if sandbox.text("stdout").contains("ready") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let listed = sandbox.exec(&sandbox.process("sleep 0.2; cat /proc/[0-9]*/stat"));
    assert!(!listed.stdout.contains(" Z 1 "), "{listed:?}");
    sandbox.done(&["kill", &sandbox.id, "TERM"]);
    assert_eq!(wait(pid), 4);
    assert!(sandbox.text("stdout").ends_with("got\n"));
}
