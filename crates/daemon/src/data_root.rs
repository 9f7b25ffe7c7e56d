//! Whose data root it is. A marker file says that Skep made it and in which format; a lock on it keeps a second daemon
//! out. What another engine, or a newer Skep, has written is refused untouched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

const MARKER: &str = "skep.json";
/// The format that this version writes.
const FORMAT: u32 = 1;

/// Why a data root cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataRootError {
    /// Files of something else are in it.
    #[error(
        "data root {path} was not made by Skep (it holds {found:?}); nothing was changed. Give another one with --data-root"
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// One entry of it.
        found: String,
    },
    /// A newer Skep made it.
    #[error(
        "data root {path} has format {format}, made by Skep {version}; this version knows up to {FORMAT}. Nothing was changed"
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// Who made it.
        version: String,
    },
    /// Another daemon uses it.
    #[error("data root {path} is in use by another daemon")]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// The marker is damaged.
    #[error("data root {path}: the file {MARKER} is damaged: {reason}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file system.
    #[error("data root {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    version: String,
    /// The engine's identifier, a UUID.
    id: String,
}

/// A data root that this process holds; unlocked when dropped.
#[derive(Debug)]
pub(crate) struct DataRoot {
    /// The engine's identifier, the same as long as the data root lives.
    pub(crate) id: String,
    _lock: Flock<File>,
}

/// Opens, or makes, a data root and locks it.
pub(crate) fn open(path: &Path) -> Result<DataRoot, DataRootError> {
    let io = |source| DataRootError::Io { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(io)?;
    let marker = path.join(MARKER);
    if !marker.exists() {
        refuse_foreign(path)?;
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&marker);
    let lock = Flock::lock(file.map_err(io)?, FlockArg::LockExclusiveNonblock);
    let mut lock = lock.map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => DataRootError::Locked { path: path.to_owned() },
        other => io(other.into()),
    })?;
    let mut text = String::new();
    lock.read_to_string(&mut text).map_err(io)?;
    // An empty file is one whose making was cut off: nothing else was written before it.
    if text.trim().is_empty() {
        refuse_foreign(path)?;
        let made = Marker { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), id: uuid() };
        let bytes = serde_json::to_vec(&made).map_err(|error| io(error.into()))?;
        lock.write_all(&bytes).and_then(|()| lock.sync_all()).map_err(io)?;
        return Ok(DataRoot { id: made.id, _lock: lock });
    }
    let found: Marker = serde_json::from_str(&text)
        .map_err(|error| DataRootError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    if found.format > FORMAT {
        return Err(DataRootError::Newer { path: path.to_owned(), format: found.format, version: found.version });
    }
    Ok(DataRoot { id: found.id, _lock: lock })
}

fn refuse_foreign(path: &Path) -> Result<(), DataRootError> {
    let entries = fs::read_dir(path).map_err(|source| DataRootError::Io { path: path.to_owned(), source })?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut foreign: Vec<String> = names.filter(|name| name != "lost+found" && name != MARKER).collect();
    foreign.sort();
    match foreign.into_iter().next() {
        Some(found) => Err(DataRootError::Foreign { path: path.to_owned(), found }),
        None => Ok(()),
    }
}

/// A random UUID, version 4.
fn uuid() -> String {
    let mut bytes: [u8; 16] = identity::random_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_made_kept_and_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = open(&path).unwrap();
        assert!(matches!(open(&path), Err(DataRootError::Locked { .. })));
        let id = first.id.clone();
        assert_eq!(id.len(), 36);
        drop(first);
        assert_eq!(open(&path).unwrap().id, id);
    }

    #[test]
    fn what_others_wrote_is_refused_untouched() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("overlay2")).unwrap();
        assert!(matches!(open(folder.path()), Err(DataRootError::Foreign { found, .. }) if found == "overlay2"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_newer_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"format":2,"version":"9.0.0","id":"x"}"#;
        fs::write(folder.path().join(MARKER), text).unwrap();
        assert!(matches!(open(folder.path()), Err(DataRootError::Newer { format: 2, .. })));
        fs::write(folder.path().join(MARKER), "nonsense").unwrap();
        assert!(matches!(open(folder.path()), Err(DataRootError::Damaged { .. })));
    }
}
