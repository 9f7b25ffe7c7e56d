//! The fleet of CI: a thousand agents, each with a certificate and an mTLS session of its own, and ten thousand tasks.

use std::process::Command;

const AGENTS: u64 = 1000;
const TASKS: u64 = 10_000;

#[test]
fn a_thousand_agents_keep_their_sessions_and_run_ten_thousand_tasks() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    command.arg("--agents").arg(AGENTS.to_string()).arg("--tasks").arg(TASKS.to_string());
    // The time is a bound on what is broken; `docs/benchmarks.md` says what it takes.
    command.args(["--idle-seconds", "0", "--seconds", "240", "--json", "--folder"]).arg(folder.path());
    let output = command.output().expect("the fleet");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("no report: {out}{err}"));
    let figures = ["sessions_open", "tasks_running", "lost", "refused", "nodes_down"].map(|name| report[name].as_u64());
    assert_eq!(figures, [AGENTS, TASKS, 0, 0, 0].map(Some), "{report} {err}");
    assert!(output.status.success(), "{report} {err}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "files are left over");
}
