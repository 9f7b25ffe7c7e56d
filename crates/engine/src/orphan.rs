//! The process of a container whose shim was killed: nobody reaps or logs it any more, so it is ended.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use crate::engine::Inner;
use crate::launch::runtime_command;
use crate::record::Record;

/// How long the runtime may take.
const DELETE_TIME: Duration = Duration::from_secs(30);

/// Kills process `pid` if it is one of this container: its cgroup has the container's id. Blocking, briefly.
pub(crate) fn kill(pid: i32, container_id: &str) {
    if pid <= 1 {
        return;
    }
    let Ok(groups) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return };
    if !groups.contains(container_id) {
        return;
    }
    if let Err(error) = send(Pid::from_raw(pid), Signal::SIGKILL) {
        tracing::debug!(container = %container_id, pid, %error, "an orphan ended by itself");
    }
}

/// Lets the runtime forget a container whose shim cannot ask it to. That it never heard of it is fine.
pub(crate) async fn delete_in_runtime(engine: &Inner, record: &Record) {
    let runtime = runtime_command(engine, record);
    let mut command = tokio::process::Command::new(&runtime.program);
    command.args(&runtime.args);
    if let Some(root) = &runtime.root {
        command.arg("--root").arg(root);
    }
    command.args(["delete", "--force", record.id.as_str()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(DELETE_TIME, command.status()).await {
        Ok(Ok(status)) => tracing::debug!(container = %record.id, %status, "deleted in the runtime"),
        Ok(Err(error)) => tracing::warn!(container = %record.id, %error, "cannot run the runtime"),
        Err(_) => tracing::warn!(container = %record.id, "the runtime does not delete a container in time"),
    }
}
