//! Cgroups by the file system: where a container's are, who is in them, and taking them away.
//!
//! Owns: the removal of cgroups, also of parents that the runtime made itself (a marker under `<root>/.parents` tells
//! which), once they are empty. Invariants: a parent is removed only under the exclusive lock of `<root>/.cgroups`,
//! which `create` holds shared while it makes cgroups; nothing outside a container's path is written.
//! Both layouts are served: v1 (also hybrid), with a hierarchy per controller, and v2. Callers: all commands.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

use crate::error::RuntimeError;
use crate::log;

const MOUNT: &str = "/sys/fs/cgroup";

/// How long `delete` waits for killed processes to leave a cgroup.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Deepest tree of cgroups below a container that is walked.
const MAX_DEPTH: usize = 32;

/// Which layout the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    V1,
    V2,
}

/// The directories of one container's cgroup, one per hierarchy.
pub(crate) struct Cgroup {
    pub(crate) layout: Layout,
    hierarchies: Vec<PathBuf>,
    path: PathBuf,
}

impl Cgroup {
    /// The cgroup at `path` (absolute, from the hierarchies' roots); it need not exist.
    pub(crate) fn at(path: &Path) -> Result<Cgroup, RuntimeError> {
        let is = |path: &Path, magic| statfs(path).is_ok_and(|stat| stat.filesystem_type() == magic);
        let mount = Path::new(MOUNT);
        if is(mount, CGROUP2_SUPER_MAGIC) {
            return Ok(Cgroup { layout: Layout::V2, hierarchies: vec![mount.into()], path: relative(path) });
        }
        let entries = fs::read_dir(mount).map_err(RuntimeError::file("list", mount))?;
        let mut hierarchies: Vec<PathBuf> = entries
            .flatten()
            // `cpu` may be a link to `cpu,cpuacct`: only real mounts count.
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .filter(|path| is(path, CGROUP_SUPER_MAGIC))
            .collect();
        hierarchies.sort();
        Ok(Cgroup { layout: Layout::V1, hierarchies, path: relative(path) })
    }

    fn dirs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.hierarchies.iter().map(|root| root.join(&self.path))
    }

    /// Where a container sees the hierarchies: the directory of all, then each.
    pub(crate) fn mount_points(&self) -> impl Iterator<Item = String> + '_ {
        let each = self.hierarchies.iter().filter(|_| self.layout == Layout::V1);
        std::iter::once(MOUNT.to_owned()).chain(each.map(|path| path.display().to_string()))
    }

    /// The directory on v2.
    pub(crate) fn unified(&self) -> Option<PathBuf> {
        (self.layout == Layout::V2).then(|| self.dirs().next()).flatten()
    }

    /// Processes in the cgroup and those below it, ascending.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for dir in self.dirs() {
            collect(&dir, 0, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Moves this process into the cgroup, in every hierarchy where it exists. If a container on v2 has moved its
    /// processes into cgroups of its own, the one of `init_pid` is joined, as runc does.
    pub(crate) fn join(&self, init_pid: i32) -> Result<(), RuntimeError> {
        for dir in self.dirs().filter(|dir| dir.exists()) {
            let procs = dir.join("cgroup.procs");
            match fs::write(&procs, "0") {
                Err(error) if self.layout == Layout::V2 && error.raw_os_error() == Some(libc::EBUSY) => {
                    let text = fs::read_to_string(format!("/proc/{init_pid}/cgroup")).unwrap_or_default();
                    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
                    let path = path.ok_or_else(|| RuntimeError::file("write", &procs)(error))?;
                    let procs = Path::new(MOUNT).join(relative(Path::new(path))).join("cgroup.procs");
                    fs::write(&procs, "0").map_err(RuntimeError::file("write", &procs))?;
                }
                other => other.map_err(RuntimeError::file("write", &procs))?,
            }
        }
        Ok(())
    }

    /// Sends a signal to every process in the cgroup.
    pub(crate) fn signal_all(&self, signal: i32) {
        for pid in self.processes() {
            // SAFETY: kill(2) takes plain numbers.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Ends all processes and removes the cgroup with those below it. Waits for the processes to leave.
    pub(crate) fn remove(&self) -> Result<(), RuntimeError> {
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        let mut pause = Duration::from_millis(1);
        loop {
            let mut busy = None;
            for dir in self.dirs() {
                if let Err(error) = remove_tree(&dir, 0) {
                    busy = Some((dir, error));
                }
            }
            let Some((dir, error)) = busy else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(RuntimeError::file("remove cgroup", dir)(error));
            }
            self.end_processes();
            // The kernel tells nobody when a dying process has left a v1 cgroup; ask again, ever less often.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn end_processes(&self) {
        match self.layout {
            Layout::V2 => {
                let all = self.dirs().next().map(|dir| fs::write(dir.join("cgroup.kill"), "1"));
                if matches!(all, Some(Ok(()))) {
                    return;
                }
            }
            Layout::V1 => {
                // A frozen process does not die on v1.
                for dir in self.dirs().filter(|dir| dir.starts_with(Path::new(MOUNT).join("freezer"))) {
                    let _ = fs::write(dir.join("freezer.state"), "THAWED");
                }
            }
        }
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    fn ancestors(&self) -> impl Iterator<Item = &Path> {
        self.path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty())
    }

    /// Notes which parents do not exist yet; call before `create` makes them. The returned lock keeps `delete` of
    /// another container from removing a parent meanwhile.
    pub(crate) fn begin_create(&self, root: &Path) -> Result<Flock<File>, RuntimeError> {
        let lock = lock_file(root, FlockArg::LockShared)?;
        for parent in self.ancestors() {
            if self.hierarchies.iter().any(|root| root.join(parent).exists()) {
                continue;
            }
            let marker = marker(root, parent);
            fs::write(&marker, "").map_err(RuntimeError::file("write", &marker))?;
        }
        Ok(lock)
    }

    /// Removes the parents that the runtime made, if they are empty. Skipped while another `create` runs: the cgroup it
    /// makes keeps the parents, and its `delete` comes back here.
    pub(crate) fn remove_empty_parents(&self, root: &Path) {
        if !self.ancestors().any(|parent| marker(root, parent).exists()) {
            return;
        }
        let Ok(_lock) = lock_file(root, FlockArg::LockExclusiveNonblock) else { return };
        for parent in self.ancestors() {
            let marker = marker(root, parent);
            if !marker.exists() {
                return;
            }
            let mut gone = true;
            for hierarchy in &self.hierarchies {
                match fs::remove_dir(hierarchy.join(parent)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => gone = false,
                    _ => {}
                }
            }
            if !gone {
                return;
            }
            if let Err(error) = fs::remove_file(&marker) {
                log::warn(&format!("cannot remove {}: {error}", marker.display()));
            }
        }
    }
}

fn relative(path: &Path) -> PathBuf {
    path.components().filter(|component| matches!(component, Component::Normal(_))).collect()
}

fn lock_file(root: &Path, arg: FlockArg) -> Result<Flock<File>, RuntimeError> {
    let parents = root.join(".parents");
    fs::create_dir_all(&parents).map_err(RuntimeError::file("create", &parents))?;
    let path = root.join(".cgroups");
    let file = File::options().create(true).append(true).open(&path).map_err(RuntimeError::file("open", &path))?;
    Flock::lock(file, arg).map_err(|(_, errno)| RuntimeError::file("lock", &path)(errno.into()))
}

/// `/a/b` is marked by the file `a%2Fb`.
fn marker(root: &Path, parent: &Path) -> PathBuf {
    let name = parent.to_string_lossy().replace('%', "%25").replace('/', "%2F");
    root.join(".parents").join(name)
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<i32>) {
    if depth > MAX_DEPTH {
        return;
    }
    let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) else { return };
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for child in children(dir) {
        collect(&child, depth + 1, found);
    }
}

fn children(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

fn remove_tree(dir: &Path, depth: usize) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if depth > MAX_DEPTH => return Err(error),
        Err(_) => {}
    }
    for child in children(dir) {
        remove_tree(&child, depth + 1)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
