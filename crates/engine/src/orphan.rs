//! The process of a container whose shim was killed: nobody reaps or logs it any more, so it is ended.

use std::fs;

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

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
