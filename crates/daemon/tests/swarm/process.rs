//! The daemon as a process: sockets that it is given, signals, options.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Daemon, SKEP, host_address, until};

#[test]
fn sockets_of_systemd_are_served_and_signals_of_go_end_nothing() {
    let mut daemon = Daemon::start(&[]);
    daemon.terminate();
    daemon.run_activated("activated.sock");
    assert!(daemon.answers_on("activated.sock"));
    let pid = Pid::from_raw(daemon.pid() as i32);
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        kill(pid, signal).expect("a signal");
    }
    daemon.docker("version");
    assert!(daemon.answers_on("activated.sock"));
}

#[test]
fn hosts_and_groups_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let start = |more: &[&str]| {
        let tag = std::process::id() & 0xffff;
        let mut command = Command::new(SKEP);
        command.args([
            "daemon",
            "--config-file",
            "/dev/null",
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("run"),
        ]);
        command.args(["--pidfile", &path("pid"), "--bridge", &format!("skt{tag:04x}b")]);
        command.args(["--gwbridge", &format!("skt{tag:04x}g"), "--table-prefix", &format!("skt{tag:04x}")]);
        command.args(["--default-address-pool", "base=10.127.0.0/16,size=24"]);
        let output = command.args(more).output().expect("a daemon");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let socket = format!("unix://{}", path("sock"));
    for (options, text) in [
        (["-H", "fd://", "--debug"], "failed to load listeners: no sockets found via socket activation"),
        (["-H", &socket, "--group=nosuchgroup"], "failed to load listeners: group nosuchgroup not found"),
        (
            ["-H", &socket, "--metrics-addr=9323"],
            "failed to start metrics server: error parsing tcp address: address 9323: missing port in address",
        ),
    ] {
        let (code, err) = start(&options);
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains(text), "{err}");
    }
    assert_eq!(start(&["-H", &socket, "--remove-everything"]).0, Some(0));
}

#[test]
fn templates_are_filled_in_and_replicas_have_a_limit() {
    let daemon = Daemon::start(&[]);
    daemon.load_tiny();
    daemon.docker(&daemon.init_words(host_address()));
    let create = |name: &str, text: &str| {
        let file = daemon.write(name, text);
        daemon.docker(&format!("config create --template-driver golang {name} {file}"));
        let service = format!("service create -d --restart-condition none --env E=value --name s-{name}");
        daemon.docker(&format!("{service} --config source={name},target=/c tiny-service"));
    };
    create("good", r#"{{ env "E" }} of {{ .Service.Name }}"#);
    daemon.until_replicas("s-good", "1/1");
    let id = daemon.docker("ps -q --filter label=com.docker.swarm.service.name=s-good");
    let out = daemon.docker(&format!("exec {} /tiny-service cat /c", id.trim()));
    assert_eq!(out.trim(), "value of s-good");
    create("bad", "{{ bogus");
    until("a rejected task", || {
        let out = daemon.docker("service ps --no-trunc --format {{.CurrentState}}:{{.Error}} s-bad");
        (out.starts_with("Rejected") && out.contains("c: unclosed action")).then_some(())
    });
    let done = daemon.try_docker("service scale -d s-good=50000000");
    assert!(done.err.contains("Number of replicas must be at most 1000000"), "{done:?}");
    daemon.docker("service rm s-good s-bad");
    daemon.docker("swarm leave --force");
}
