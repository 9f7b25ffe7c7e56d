//! What is kept of a container under `--root`, and what it says about the container now.
//!
//! On disk, `<root>/<id>/`: `config.json` (the adapted spec), `record.json` ([`Record`]), `init/config.json` (what
//! `libcontainer` is to do of it), `<id>/` (`libcontainer`'s own directory with `state.json` and the start socket). Invariants: a reader holds the directory's lock shared, a writer
//! exclusively; a container counts as alive only if its process id still belongs to the process that was created (same
//! start time), so a reused id is never signalled. Callers: every command.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use libcontainer::container::{Container, ContainerStatus};
use libcontainer::oci_spec::runtime::Spec;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::RuntimeError;

/// Longest spec, process or resources file that is read, in bytes.
pub(crate) const MAX_JSON: u64 = 16 << 20;

/// Facts of a container that `libcontainer` does not keep.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The bundle as given to `create`, absolute.
    pub(crate) bundle: PathBuf,
    /// Cgroup, from the root of each hierarchy.
    pub(crate) cgroup: PathBuf,
    /// The first process, as seen by the host.
    pub(crate) init_pid: i32,
    /// Its start time in clock ticks since boot.
    pub(crate) init_start_time: u64,
    /// When `create` ended, RFC 3339.
    pub(crate) created: String,
}

/// An existing container, locked.
pub(crate) struct Loaded {
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    pub(crate) container: Container,
    _lock: Flock<File>,
}

/// How a container's directory is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Read,
    Write,
}

/// Refuses ids that are no plain file names.
pub(crate) fn check_id(id: &str) -> Result<(), RuntimeError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    // A leading point is kept for files of the runtime itself; 255 is the limit of a file name.
    if id.is_empty() || id.len() > 255 || id.starts_with('.') || !id.bytes().all(plain) {
        return Err(RuntimeError::InvalidId(id.to_owned()));
    }
    Ok(())
}

/// Takes the lock of a container's directory; waits for it.
pub(crate) fn lock(dir: &Path, hold: Hold) -> Result<Flock<File>, RuntimeError> {
    let file = match File::open(dir) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(RuntimeError::NotFound),
        Err(error) => return Err(RuntimeError::file("open", dir)(error)),
    };
    let arg = match hold {
        Hold::Read => FlockArg::LockShared,
        Hold::Write => FlockArg::LockExclusive,
    };
    Flock::lock(file, arg).map_err(|(_, errno)| RuntimeError::file("lock", dir)(errno.into()))
}

/// Loads a container and holds it.
pub(crate) fn load(root: &Path, id: &str, hold: Hold) -> Result<Loaded, RuntimeError> {
    check_id(id)?;
    let dir = absolute(root)?.join(id);
    let lock = lock(&dir, hold)?;
    let record: Record = match read_json(&dir.join("record.json")) {
        Err(RuntimeError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(RuntimeError::NotFound);
        }
        other => other?,
    };
    let mut container = Container::load(dir.join(id)).map_err(|e| RuntimeError::Container(crate::error::chain(&e)))?;
    if !is_process(record.init_pid, record.init_start_time) {
        container.set_status(ContainerStatus::Stopped);
    }
    Ok(Loaded { dir, record, container, _lock: lock })
}

impl Loaded {
    /// The status' OCI name.
    pub(crate) fn status(&self) -> &'static str {
        status_name(self.container.status())
    }

    /// The spec the container was created with.
    pub(crate) fn spec(&self) -> Result<Spec, RuntimeError> {
        read_json(&self.dir.join("config.json"))
    }
}

/// The OCI name of a status.
pub(crate) fn status_name(status: ContainerStatus) -> &'static str {
    match status {
        ContainerStatus::Creating => "creating",
        ContainerStatus::Created => "created",
        ContainerStatus::Running => "running",
        ContainerStatus::Paused => "paused",
        ContainerStatus::Stopped => "stopped",
    }
}

/// Whether `pid` is still the process that started at `start_time`, and not yet a zombie.
pub(crate) fn is_process(pid: i32, start_time: u64) -> bool {
    matches!(process_stat(pid), Some((state, start)) if start == start_time && state != 'Z' && state != 'X')
}

/// State letter and start time (clock ticks since boot) of a process.
pub(crate) fn process_stat(pid: i32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything: the fields begin after the last closing one.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((state, start_time))
}

/// Reads a JSON file of at most [`MAX_JSON`] bytes.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, RuntimeError> {
    let file = File::open(path).map_err(RuntimeError::file("open", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_JSON + 1).read_to_end(&mut bytes).map_err(RuntimeError::file("read", path))?;
    if bytes.len() as u64 > MAX_JSON {
        let error = io::Error::new(io::ErrorKind::FileTooLarge, "the file is longer than 16 MiB");
        return Err(RuntimeError::file("read", path)(error));
    }
    serde_json::from_slice(&bytes).map_err(|error| RuntimeError::file("parse", path)(error.into()))
}

/// Writes a JSON file by way of a temporary one in the same directory.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RuntimeError> {
    let bytes = serde_json::to_vec(value).map_err(|error| RuntimeError::file("write", path)(error.into()))?;
    replace(path, &bytes)
}

/// Replaces a file whole, as the readers of pid files expect.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), RuntimeError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    fs::write(&temporary, bytes).map_err(RuntimeError::file("write", &temporary))?;
    fs::rename(&temporary, path).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        RuntimeError::file("replace", path)(error)
    })
}

/// A path made absolute without resolving links.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, RuntimeError> {
    std::path::absolute(path).map_err(RuntimeError::file("resolve", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for id in ["a", "74f1a4cb3801", "a.b_c-d+e"] {
            check_id(id).unwrap();
        }
        for id in ["", ".", "..", ".x", "a/b", "a b", "ä", &"x".repeat(256)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let pid = std::process::id() as i32;
        let (_, start) = process_stat(pid).unwrap();
        assert!(is_process(pid, start));
        assert!(!is_process(pid, start + 1));
        assert!(!is_process(-1, start));
    }
}
