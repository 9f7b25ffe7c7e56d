//! What is left when a shim and its container's process have lost each other or the daemon: a process whose shim was
//! killed, which nobody reaps or logs any more, and a shim that could not delete its container.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use crate::engine::Inner;
use crate::launch::runtime_command;
use crate::record::Record;

/// Time between two looks at a process that was killed.
const END_LOOK: Duration = Duration::from_millis(5);
/// Looks until it is left to itself.
const END_LOOKS: u32 = 200;
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

/// Ends the shim of a directory, if it is still there after its container was deleted without it: it would wait for a word
/// from nobody. Its path is what it was started with; that is in `/proc` as long as it lives.
pub(crate) async fn end_shim(directory: &Path) {
    let launch = directory.join(shim::launch::LAUNCH_NAME);
    for pid in shims_of(&launch) {
        tracing::warn!(shim = %launch.display(), pid, "a shim that did not end is killed");
        if send(Pid::from_raw(pid), Signal::SIGKILL).is_err() {
            continue;
        }
        for _ in 0..END_LOOKS {
            if !is_shim_of(pid, &launch) {
                break;
            }
            tokio::time::sleep(END_LOOK).await;
        }
    }
}

fn shims_of(launch: &Path) -> Vec<i32> {
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(pid);
    processes.filter(|pid| *pid > 1 && is_shim_of(*pid, launch)).collect()
}

/// Whether its arguments are `… shim <launch>`. A process that has ended has none.
fn is_shim_of(pid: i32, launch: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut arguments = line.split(|byte| *byte == 0).skip(1);
    arguments.next() == Some(b"shim") && arguments.next() == Some(launch.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_shim_of_one_directory_is_ended_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        // A shell that waits for input, with a shim's arguments.
        fs::write(folder.path().join("shim"), "read line").unwrap();
        let start = |name: &str| {
            let launch = folder.path().join(name).join(shim::launch::LAUNCH_NAME);
            let mut shell = std::process::Command::new("sh");
            shell.current_dir(folder.path()).arg("shim").arg(launch).stdin(Stdio::piped()).spawn().unwrap()
        };
        let (mut ours, mut other) = (start("a"), start("b"));
        end_shim(&folder.path().join("a")).await;
        let ended = std::os::unix::process::ExitStatusExt::signal(&ours.wait().unwrap());
        assert_eq!(ended, Some(Signal::SIGKILL as i32));
        assert!(other.try_wait().unwrap().is_none());
        // Its input ends.
        drop(other.stdin.take());
        other.wait().unwrap();
    }
}
