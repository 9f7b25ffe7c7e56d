//! The file that holds the daemon's process id.

use std::io;
use std::path::{Path, PathBuf};

/// A pid file of this process; removed when dropped.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

/// Why it could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PidFileError {
    /// A daemon that wrote it is alive.
    #[error(
        "failed to start daemon, ensure docker is not running or delete {path}: process with PID {pid} is still running"
    )]
    Running {
        /// Which.
        path: PathBuf,
        /// Its process.
        pid: u32,
    },
    /// The file system.
    #[error("pid file {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PidFile {
    /// Writes it, unless another process that lives has.
    pub(crate) fn write(path: &Path) -> Result<Self, PidFileError> {
        let own = std::process::id();
        let found = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(pid) = found.filter(|pid| *pid != own && is_same_program(*pid)) {
            return Err(PidFileError::Running { path: path.to_owned(), pid });
        }
        let io = |source| PidFileError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        std::fs::write(path, own.to_string()).map_err(io)?;
        Ok(Self(path.to_owned()))
    }
}

/// Whether that process runs the same program: numbers are used again after a reboot or a crash.
fn is_same_program(pid: u32) -> bool {
    let name = |who: &str| std::fs::read_to_string(format!("/proc/{who}/comm")).ok();
    let other = name(&pid.to_string());
    other.is_some() && other == name("self")
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(file = %self.0.display(), %error, "the pid file could not be removed");
        }
    }
}
