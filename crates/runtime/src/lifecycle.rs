//! Commands on an existing container other than `exec`: start, state, kill, delete, pause, resume, ps, update.
//!
//! Invariant: a signal reaches only processes of the container. Caller: `crate::main`.

use std::fs;
use std::io::Write;
use std::path::Path;

use libcontainer::container::ContainerStatus;
use libcontainer::error::LibcontainerError;
use libcontainer::oci_spec::runtime::LinuxResources;

use crate::cgroup::Cgroup;
use crate::cli::{DeleteMode, KillTarget, PsFormat};
use crate::error::{RuntimeError, chain};
use crate::log;
use crate::state::{self, Hold, Loaded};

fn container_error(error: LibcontainerError) -> RuntimeError {
    RuntimeError::Container(chain(&error))
}

fn require(loaded: &Loaded, allowed: &[ContainerStatus], action: &'static str) -> Result<(), RuntimeError> {
    if allowed.contains(&loaded.container.status()) {
        return Ok(());
    }
    Err(RuntimeError::WrongStatus { action, status: loaded.status() })
}

/// Lets the first process run the container's program.
pub(crate) fn start(root: &Path, id: &str) -> Result<(), RuntimeError> {
    let mut loaded = state::load(root, id, Hold::Write)?;
    require(&loaded, &[ContainerStatus::Created], "start")?;
    loaded.container.start().map_err(container_error)
}

/// Prints the state as the OCI specification has it, with runc's `rootfs` and `created` besides.
pub(crate) fn print_state(root: &Path, id: &str) -> Result<(), RuntimeError> {
    let loaded = state::load(root, id, Hold::Read)?;
    let spec = loaded.spec()?;
    let pid = if loaded.container.status() == ContainerStatus::Stopped { 0 } else { loaded.record.init_pid };
    let value = serde_json::json!({
        "ociVersion": spec.version(),
        "id": id,
        "pid": pid,
        "status": loaded.status(),
        "bundle": loaded.record.bundle,
        "rootfs": spec.root().as_ref().map(|root| root.path()),
        "created": loaded.record.created,
        "annotations": spec.annotations().clone().unwrap_or_default(),
        "owner": "",
    });
    print(&format!("{value:#}\n"))
}

fn print(text: &str) -> Result<(), RuntimeError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| RuntimeError::Os { action: "write to standard output", source })
}

/// Sends a signal.
pub(crate) fn kill(root: &Path, id: &str, signal: i32, target: KillTarget) -> Result<(), RuntimeError> {
    let loaded = state::load(root, id, Hold::Read)?;
    let stopped = loaded.container.status() == ContainerStatus::Stopped;
    match target {
        KillTarget::All => Cgroup::at(&loaded.record.cgroup)?.signal_all(signal),
        KillTarget::Init if stopped => return Err(RuntimeError::NotRunning),
        KillTarget::Init => signal_init(&loaded, signal)?,
    }
    if signal == libc::SIGKILL && loaded.container.status() == ContainerStatus::Paused {
        // A frozen process dies only once it thaws (v1).
        loaded_resume(loaded)?;
    }
    Ok(())
}

fn loaded_resume(loaded: Loaded) -> Result<(), RuntimeError> {
    let mut container = loaded.container;
    container.resume().map_err(container_error)
}

/// Signals the first process through a descriptor, so that a reused process id cannot be hit.
fn signal_init(loaded: &Loaded, signal: i32) -> Result<(), RuntimeError> {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let pid = loaded.record.init_pid;
    // SAFETY: pidfd_open takes plain numbers and returns a new descriptor (always close-on-exec) or -1.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let sent = if raw >= 0 {
        // SAFETY: the descriptor was just returned and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw as i32) };
        if !state::is_process(pid, loaded.record.init_start_time) {
            return Err(RuntimeError::NotRunning);
        }
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open, and a null siginfo is allowed.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, no_info, 0) as i32 }
    } else {
        // SAFETY: kill(2) takes plain numbers; `load` has checked who the process is.
        unsafe { libc::kill(pid, signal) }
    };
    match nix::errno::Errno::result(sent) {
        Ok(_) => Ok(()),
        Err(nix::errno::Errno::ESRCH) => Err(RuntimeError::NotRunning),
        Err(errno) => Err(RuntimeError::os("signal the container")(errno)),
    }
}

/// Removes all that is left of a container.
pub(crate) fn delete(root: &Path, id: &str, mode: DeleteMode) -> Result<(), RuntimeError> {
    let mut loaded = match state::load(root, id, Hold::Write) {
        Err(RuntimeError::NotFound) if mode == DeleteMode::Force => return remove_half_created(root, id),
        other => other?,
    };
    match loaded.container.status() {
        ContainerStatus::Stopped => {}
        // runc deletes a container that was never started without --force, too.
        ContainerStatus::Created => end(&loaded)?,
        _ if mode == DeleteMode::Force => end(&loaded)?,
        _ => return Err(RuntimeError::NotStopped { id: id.to_owned(), status: loaded.status() }),
    }
    let cgroup = Cgroup::at(&loaded.record.cgroup)?;
    cgroup.remove()?;
    run_poststop(&mut loaded);
    fs::remove_dir_all(&loaded.dir).map_err(RuntimeError::file("remove", &loaded.dir))?;
    cgroup.remove_empty_parents(&state::absolute(root)?);
    Ok(())
}

/// Ends the first process; the others end with it or with their cgroup.
fn end(loaded: &Loaded) -> Result<(), RuntimeError> {
    match signal_init(loaded, libc::SIGKILL) {
        Ok(()) | Err(RuntimeError::NotRunning) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a `create` that was killed half way has left: its directory without a record.
fn remove_half_created(root: &Path, id: &str) -> Result<(), RuntimeError> {
    state::check_id(id)?;
    let dir = state::absolute(root)?.join(id);
    let Ok(_lock) = state::lock(&dir, Hold::Write) else { return Ok(()) };
    let spec: Result<libcontainer::oci_spec::runtime::Spec, _> = state::read_json(&dir.join("config.json"));
    let cgroup = spec.ok().and_then(|spec| spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone()));
    if let Some(cgroup) = cgroup {
        let cgroup = Cgroup::at(&cgroup)?;
        cgroup.remove()?;
        cgroup.remove_empty_parents(&state::absolute(root)?);
    }
    fs::remove_dir_all(&dir).map_err(RuntimeError::file("remove", &dir))
}

fn run_poststop(loaded: &mut Loaded) {
    let Ok(spec) = loaded.spec() else { return };
    let Some(hooks) = spec.hooks() else { return };
    let state = &loaded.container.state;
    if let Err(error) = libcontainer::hooks::run_hooks(hooks.poststop().as_ref(), Some(state), None, None, None) {
        log::warn(&format!("poststop hooks: {}", chain(&error)));
    }
}

/// Freezes all processes.
pub(crate) fn pause(root: &Path, id: &str) -> Result<(), RuntimeError> {
    let mut loaded = state::load(root, id, Hold::Write)?;
    require(&loaded, &[ContainerStatus::Running], "pause")?;
    loaded.container.pause().map_err(container_error)
}

/// Lets frozen processes go on.
pub(crate) fn resume(root: &Path, id: &str) -> Result<(), RuntimeError> {
    let mut loaded = state::load(root, id, Hold::Write)?;
    require(&loaded, &[ContainerStatus::Paused], "resume")?;
    loaded.container.resume().map_err(container_error)
}

/// Lists the container's processes by their ids on the host.
pub(crate) fn ps(root: &Path, id: &str, format: PsFormat) -> Result<(), RuntimeError> {
    let loaded = state::load(root, id, Hold::Read)?;
    let processes = Cgroup::at(&loaded.record.cgroup)?.processes();
    match format {
        PsFormat::Json => print(&format!("{}\n", serde_json::json!(processes))),
        PsFormat::Table => print(&processes.iter().map(|pid| format!("{pid}\n")).collect::<String>()),
    }
}

/// Applies new resource limits; `-` reads them from standard input.
pub(crate) fn update(root: &Path, id: &str, resources: &Path) -> Result<(), RuntimeError> {
    let resources = if resources == Path::new("-") { Path::new("/dev/stdin") } else { resources };
    let resources: LinuxResources = state::read_json(resources)?;
    let loaded = state::load(root, id, Hold::Write)?;
    let running = [ContainerStatus::Created, ContainerStatus::Running, ContainerStatus::Paused];
    require(&loaded, &running, "update")?;
    crate::limits::apply(&loaded.record.cgroup, &resources)
}
