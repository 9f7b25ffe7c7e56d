//! `exec`: a further process in a running container.
//!
//! Owns: the side that stays outside. The work is done by two forked processes (`join`): the first enters the cgroup
//! and the namespaces, the second, a child of this process, becomes the program. They report over one pipe whose end
//! (closed by the kernel as the program starts) means success. `libcontainer`'s own way is not used, because it drops
//! the container's seccomp filter for such processes.
//! Invariant: if this fails, no process is left. Caller: `crate::main`.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use libcontainer::container::ContainerStatus;
use libcontainer::oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};

use crate::adapt;
use crate::cgroup::Cgroup;
use crate::cli::{Exec, ExecWait};
use crate::error::RuntimeError;
use crate::filter::Filter;
use crate::join;
use crate::state::{self, Hold, Loaded};

/// Longest report of the forked processes, in bytes.
const MAX_REPORT: u64 = 64 << 10;

/// All that the forked processes need.
pub(crate) struct Plan {
    pub(crate) init_pid: i32,
    /// Holds the container's first process: its namespaces are taken from here, whatever becomes of the process id.
    pub(crate) init: OwnedFd,
    pub(crate) cgroup: Cgroup,
    /// `CLONE_NEW*` bits to join.
    pub(crate) namespaces: i32,
    pub(crate) process: Process,
    pub(crate) filter: Option<Filter>,
    /// Connected socket that takes the terminal's leading side.
    pub(crate) console: Option<OwnedFd>,
}

/// Runs the process; returns the exit code for `crate::main`.
pub(crate) fn exec(root: &Path, exec: &Exec) -> Result<i32, RuntimeError> {
    let loaded = state::load(root, &exec.id, Hold::Read)?;
    match loaded.container.status() {
        ContainerStatus::Running | ContainerStatus::Created => {}
        ContainerStatus::Paused => return Err(refused("cannot exec in a paused container")),
        _ => return Err(refused("cannot exec in a stopped container")),
    }
    let plan = plan(root, &loaded, exec)?;
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(RuntimeError::os("make a pipe"))?;
    // From here on processes of the container could look at us.
    // SAFETY: prctl(2) with plain numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    // The lock is tied to the open file, which the forked processes would keep.
    drop(loaded);
    // SAFETY: this process has one thread, so the child may do anything.
    let bridge = match unsafe { fork() }.map_err(RuntimeError::os("fork"))? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => join::run(plan, &write),
    };
    drop((write, plan));
    let pid = finish(read, bridge)?;
    if let Some(path) = &exec.pid_file {
        state::replace(path, pid.to_string().as_bytes())?;
    }
    match exec.wait {
        ExecWait::Detached => Ok(0),
        ExecWait::Attached => Ok(exit_code(pid)),
    }
}

fn refused(text: &str) -> RuntimeError {
    RuntimeError::Container(text.to_owned())
}

fn plan(root: &Path, loaded: &Loaded, exec: &Exec) -> Result<Plan, RuntimeError> {
    let mut process: Process = state::read_json(&exec.process)?;
    adapt::process(&mut process);
    let spec = loaded.spec()?;
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    if profile.is_some_and(libcontainer::seccomp::is_notify) {
        return Err(RuntimeError::Exec("a seccomp profile with SCMP_ACT_NOTIFY is not supported".to_owned()));
    }
    let filter = profile.map(|profile| Filter::prepare(&state::absolute(root)?, profile)).transpose()?;
    let console = match (process.terminal().unwrap_or(false), &exec.console_socket) {
        (true, Some(path)) => Some(connect(path)?),
        (false, None) => None,
        (true, None) => return Err(refused("cannot allocate tty if runc will detach without setting console socket")),
        (false, Some(_)) => return Err(refused("cannot use console socket if runc will not detach or allocate tty")),
    };
    let init_pid = loaded.record.init_pid;
    // SAFETY: pidfd_open takes plain numbers and returns a new descriptor (always close-on-exec) or -1.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, init_pid, 0) };
    let raw = nix::errno::Errno::result(raw).map_err(RuntimeError::os("open the container's first process"))?;
    // SAFETY: the descriptor was just returned and nobody else has it.
    let init = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(raw as i32) };
    if !state::is_process(init_pid, loaded.record.init_start_time) {
        return Err(refused("cannot exec in a stopped container"));
    }
    Ok(Plan {
        init_pid,
        init,
        cgroup: Cgroup::at(&loaded.record.cgroup)?,
        namespaces: namespaces(&spec),
        process,
        filter,
        console,
    })
}

/// The namespaces the container does not share with the host.
fn namespaces(spec: &Spec) -> i32 {
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    listed.into_iter().flatten().fold(0, |bits, namespace| {
        bits | match namespace.typ() {
            LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
            LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
            LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
            LinuxNamespaceType::User => libc::CLONE_NEWUSER,
            LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
            LinuxNamespaceType::Network => libc::CLONE_NEWNET,
            LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
        }
    })
}

/// Connects by way of the open directory: a socket's path may be longer than an address.
fn connect(path: &Path) -> Result<OwnedFd, RuntimeError> {
    let path = state::absolute(path)?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(refused("invalid console socket"));
    };
    let dir = File::open(dir).map_err(RuntimeError::file("open", dir))?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    let stream = UnixStream::connect(short).map_err(RuntimeError::file("connect to console socket", path))?;
    Ok(stream.into())
}

/// Waits until the program runs or an error came; reaps what has ended.
fn finish(read: OwnedFd, bridge: Pid) -> Result<Pid, RuntimeError> {
    let mut report = Vec::new();
    let got = File::from(read).take(MAX_REPORT).read_to_end(&mut report);
    let _ = waitpid(bridge, None);
    let report = String::from_utf8_lossy(&report);
    let mut pid = None;
    let mut error = None;
    for line in report.split_terminator('\0') {
        match line.split_at_checked(1) {
            Some(("P", number)) => pid = number.parse().ok().map(Pid::from_raw),
            Some(("E", text)) => error = Some(text.to_owned()),
            _ => {}
        }
    }
    match (pid, error, got) {
        (Some(pid), None, Ok(_)) => Ok(pid),
        (pid, error, _) => {
            if let Some(pid) = pid {
                let _ = waitpid(pid, None);
            }
            Err(RuntimeError::Exec(error.unwrap_or_else(|| "the process ended before it ran the program".to_owned())))
        }
    }
}

fn exit_code(pid: Pid) -> i32 {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
            Err(nix::errno::Errno::EINTR) | Ok(_) => {}
            Err(_) => return 255,
        }
    }
}
