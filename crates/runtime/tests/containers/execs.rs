//! `exec`: a further process has the container's namespaces, cgroup, filter and rights.

use std::fs;

use serde_json::json;

use crate::support::{Sandbox, wait};

fn running() -> Sandbox {
    let sandbox = Sandbox::new("sleep 1000");
    sandbox.create();
    sandbox.start();
    sandbox
}

#[test]
fn joins_the_container() {
    let sandbox = running();
    let process = sandbox.process("hostname; echo $HOME; id -u; cat /proc/1/comm; cat /proc/self/cgroup; exit 5");
    let outcome = sandbox.exec(&process);
    assert_eq!(outcome.code, 5, "{outcome:?}");
    assert!(
        outcome.stdout.starts_with("inside\n/root\n0\nsleep\n") || outcome.stdout.starts_with("inside\n/root\n0\nsh\n"),
        "{outcome:?}"
    );
    let link = |pid: &str, name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    let init = sandbox.state()["pid"].to_string();
    for name in ["mnt", "net", "uts", "pid", "ipc", "cgroup"] {
        let inside = sandbox.exec(&sandbox.process(&format!("ls -l /proc/self/ns/{name}")));
        assert!(inside.stdout.contains(link(&init, name).to_str().unwrap()), "{name}: {inside:?}");
        assert_ne!(link(&init, name), link("self", name), "{name}");
    }
}

#[test]
fn ends_by_signal() {
    let sandbox = running();
    assert_eq!(sandbox.exec(&sandbox.process("kill -9 $$")).code, 137);
}

#[test]
fn detaches() {
    let sandbox = running();
    let file = sandbox.dir.path().join("p.json");
    fs::write(&file, serde_json::to_vec(&sandbox.process("exit 9")).unwrap()).unwrap();
    let pid_file = sandbox.dir.path().join("exec.pid");
    let (file, pid) = (file.to_str().unwrap(), pid_file.to_str().unwrap());
    sandbox.done(&["exec", "--process", file, "--pid-file", pid, "--detach", &sandbox.id]);
    assert_eq!(wait(fs::read_to_string(&pid_file).unwrap().parse().unwrap()), 9);
}

#[test]
fn user_limits_and_directory() {
    let sandbox = running();
    let mut process = sandbox.process("id -u; id -g; id -G; ulimit -n; echo $HOME; exec ls /proc/self/fd");
    process["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [1000, 77] });
    process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 99, "hard": 100 }]);
    process["cwd"] = json!("/tmp");
    let outcome = sandbox.exec(&process);
    // The fourth descriptor is that of the listed directory itself.
    assert_eq!(outcome.stdout, "1000\n1000\n1000 77\n99\n/home/app\n0\n1\n2\n3\n", "{outcome:?}");
    process["cwd"] = json!("/no/such");
    process["args"] = json!(["/bin/true"]);
    let outcome = sandbox.exec(&process);
    assert_eq!(outcome.code, 255);
    assert!(
        outcome.stderr.contains("chdir to cwd (\\\"/no/such\\\") set in config.json failed: no such file or directory"),
        "{outcome:?}"
    );
}

#[test]
fn keeps_capabilities_and_filter() {
    let mut sandbox = Sandbox::new("sleep 1000");
    sandbox.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
    });
    sandbox.create();
    sandbox.start();
    for nnp in [false, true] {
        let mut process = sandbox.process("cat /proc/self/status; mkdir /tmp/x");
        process["noNewPrivileges"] = json!(nnp);
        let outcome = sandbox.exec(&process);
        assert!(outcome.stderr.contains("Function not implemented"), "{outcome:?}");
        assert!(outcome.stdout.contains("CapEff:\t00000000a80425fb\n"), "{outcome:?}");
        assert!(outcome.stdout.contains("CapBnd:\t00000000a80425fb\n"), "{outcome:?}");
        assert!(outcome.stdout.contains("Seccomp:\t2\n"), "{outcome:?}");
        assert!(outcome.stdout.contains(&format!("NoNewPrivs:\t{}\n", i32::from(nnp))), "{outcome:?}");
    }
}

#[test]
fn errors_are_those_of_runc() {
    let sandbox = running();
    let mut process = sandbox.process("");
    process["args"] = json!(["nosuch"]);
    assert_eq!(sandbox.exec(&process).code, 255);
    assert_eq!(
        sandbox.last_error(),
        "exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH"
    );
    let processes: Vec<i32> = serde_json::from_str(&sandbox.done(&["ps", "--format", "json", &sandbox.id])).unwrap();
    assert_eq!(processes.len(), 1, "{processes:?}");
    sandbox.done(&["pause", &sandbox.id]);
    assert!(sandbox.exec(&sandbox.process("true")).stderr.contains("cannot exec in a paused container"));
    sandbox.done(&["delete", "--force", &sandbox.id]);
    assert!(sandbox.exec(&sandbox.process("true")).stderr.contains("container does not exist"));
}

#[test]
fn sixteen_at_once() {
    let sandbox = running();
    let file = sandbox.dir.path().join("p.json");
    fs::write(&file, serde_json::to_vec(&sandbox.process("echo $$; exit 4")).unwrap()).unwrap();
    let spawn = |_| {
        let mut command = sandbox.command(&["exec", "--process", file.to_str().unwrap(), &sandbox.id]);
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..16).map(spawn).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{output:?}\n{}", sandbox.log());
        assert!(!output.stdout.is_empty());
    }
}
