//! `create`: a container whose first process waits for `start`.
//!
//! Owns: the order of creating. Invariant: a failure leaves nothing behind (state, cgroups, processes).
//! Caller: `crate::main`.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::Flock;

use crate::adapt;
use crate::cgroup::Cgroup;
use crate::cli::{Create, RootSwitch};
use crate::devices;
use crate::error::{RuntimeError, chain};
use crate::filter::Confinement;
use crate::join;
use crate::log;
use crate::program::Program;
use crate::state::{self, Record};

/// Creates the container.
pub(crate) fn create(root: &Path, create: &Create) -> Result<(), RuntimeError> {
    state::check_id(&create.id)?;
    let root = state::absolute(root)?;
    let bundle = fs::canonicalize(&create.bundle).map_err(RuntimeError::file("open bundle", &create.bundle))?;
    let mut spec: Spec = state::read_json(&bundle.join("config.json"))?;
    let cgroup_path = adapt::spec(&mut spec, &bundle, &create.id)?;
    fs::create_dir_all(&root).map_err(RuntimeError::file("create", &root))?;
    let dir = root.join(&create.id);
    match fs::create_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(RuntimeError::Exists),
        other => other.map_err(RuntimeError::file("create", &dir))?,
    }
    let cgroup = Cgroup::at(&cgroup_path)?;
    let created = fill(&root, &dir, create, &spec, &cgroup).and_then(|container| {
        let result = publish(&dir, create, &container, bundle, cgroup_path);
        if result.is_err() {
            cgroup.signal_all(libc::SIGKILL);
        }
        result
    });
    if created.is_err() {
        if let Err(error) = cgroup.remove() {
            log::warn(&error.to_string());
        }
        cgroup.remove_empty_parents(&root);
        if let Err(error) = fs::remove_dir_all(&dir) {
            log::warn(&format!("cannot remove {}: {error}", dir.display()));
        }
    }
    created
}

/// Makes the cgroup and the process.
fn fill(root: &Path, dir: &Path, create: &Create, spec: &Spec, cgroup: &Cgroup) -> Result<Container, RuntimeError> {
    state::write_json(&dir.join("config.json"), spec)?;
    let mut rest = spec.clone();
    let confinement = Confinement::take(&mut rest, root)?;
    let bundle = dir.join("init");
    fs::create_dir(&bundle).map_err(RuntimeError::file("create", &bundle))?;
    state::write_json(&bundle.join("config.json"), &rest)?;
    // With no groups in the spec libcontainer would leave the container ours.
    let _ = nix::unistd::setgroups(&[]);
    let user = spec.process().as_ref().map(|process| (process.user().uid(), process.user().gid()));
    if let (Some((uid, gid)), None) = (user, &create.console_socket) {
        join::own_standard_streams(uid, gid);
    }
    let lock = cgroup.begin_create(root)?;
    let container = build(dir, &bundle, create, Program { confinement });
    // The forked processes share this lock's open file: it must be released, not just closed.
    let _ = Flock::unlock(lock);
    let container = container.map_err(|error| RuntimeError::Create(in_container(&error)))?;
    if let Err(error) = confine_devices(spec, cgroup) {
        cgroup.signal_all(libc::SIGKILL);
        return Err(error);
    }
    if let (Some((uid, gid)), Some(_), Some(pid)) = (user, &create.console_socket, container.pid()) {
        own_terminal(pid.as_raw(), uid, gid);
    }
    Ok(container)
}

/// On v1 `libcontainer` has written the rules to files.
fn confine_devices(spec: &Spec, cgroup: &Cgroup) -> Result<(), RuntimeError> {
    let Some(dir) = cgroup.unified() else { return Ok(()) };
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or(&[]);
    devices::attach(&dir, rules).map_err(|error| RuntimeError::Create(format!("device rules: {error}")))
}

/// The user of the process may open its terminal again; `libcontainer` makes it as root.
fn own_terminal(pid: i32, uid: u32, gid: u32) {
    if uid == 0 {
        return;
    }
    let terminal = fs::File::options().read(true).custom_flags(libc::O_PATH).open(format!("/proc/{pid}/fd/0"));
    // SAFETY: the descriptor is open and the path is an empty string.
    let done = terminal
        .map(|terminal| unsafe { libc::fchownat(terminal.as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) });
    if !matches!(done, Ok(0)) {
        log::warn("cannot give the terminal to the container's user");
    }
}

fn build(dir: &Path, bundle: &Path, create: &Create, program: Program) -> Result<Container, String> {
    let text = |error: libcontainer::error::LibcontainerError| chain(&error);
    let mut builder = ContainerBuilder::new(create.id.clone(), SyscallType::default())
        .with_executor(program)
        .with_root_path(dir)
        .map_err(text)?;
    if let Some(socket) = &create.console_socket {
        let socket = state::absolute(socket).map_err(|error| error.to_string())?;
        builder = builder.with_console_socket(Some(socket));
    }
    builder
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .with_no_pivot(create.root_switch == RootSwitch::Chroot)
        .build()
        .map_err(text)
}

/// What dockerd and its clients look for begins at `exec: "`, wherever libcontainer put it. That it could not remove a
/// cgroup whose process was still ending is left out: we remove it ourselves, and wait for that.
fn in_container(error: &str) -> String {
    let error = error.split(". error during cleanup: ").next().unwrap_or(error);
    match error.find("exec: \"") {
        Some(at) => format!("error during container init: {}", &error[at..]),
        None => match log::first_cause() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_owned(),
        },
    }
}

/// Makes the container visible to the other commands.
fn publish(
    dir: &Path,
    create: &Create,
    container: &Container,
    bundle: PathBuf,
    cgroup: PathBuf,
) -> Result<(), RuntimeError> {
    let pid = container.pid().map_or(0, |pid| pid.as_raw());
    let Some((_, init_start_time)) = state::process_stat(pid) else {
        return Err(RuntimeError::Create("the first process has ended".to_owned()));
    };
    let created = log::rfc3339(SystemTime::now());
    state::write_json(&dir.join("record.json"), &Record { bundle, cgroup, init_pid: pid, init_start_time, created })?;
    if let Some(path) = &create.pid_file {
        state::replace(path, pid.to_string().as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_program_lose_their_wrapping() {
        assert_eq!(
            in_container("exec process failed with error error in executing process : exec: \"x\": is a directory"),
            "error during container init: exec: \"x\": is a directory"
        );
        assert_eq!(in_container("no space left"), "no space left");
        assert_eq!(
            in_container("failed: exec: \"x\": not found. error during cleanup: io error: could not delete"),
            "error during container init: exec: \"x\": not found"
        );
    }
}
