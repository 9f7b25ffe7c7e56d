//! Which endpoints of this node take connections, in the exec root: a new daemon knows the tasks of the former one. What it
//! does not find there (after a reboot) is gone from the kernel as well, so nothing needs to reach a disk.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file.
pub(crate) struct OwnFile(PathBuf);

/// One endpoint of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedOwn {
    pub(crate) network: String,
    pub(crate) endpoint: String,
    pub(crate) container: String,
    /// The encoded record.
    pub(crate) record: Vec<u8>,
}

impl OwnFile {
    pub(crate) fn new(exec_root: &Path) -> Self {
        Self(exec_root.join("endpoints.json"))
    }

    /// All of them. A file that cannot be read counts as empty: every running task is enabled again when it is assigned again.
    pub(crate) fn read(&self) -> Vec<SavedOwn> {
        let read = std::fs::read(&self.0).and_then(|text| Ok(serde_json::from_slice(&text)?));
        read.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %self.0.display(), %error, "the table of this node's endpoints is damaged");
            }
            Vec::new()
        })
    }

    /// Replaces them.
    pub(crate) fn write(&self, saved: &[SavedOwn]) {
        let temporary = self.0.with_extension("new");
        let written = serde_json::to_vec(saved).map_err(io::Error::from);
        let written = written.and_then(|text| std::fs::write(&temporary, text));
        if let Err(error) = written.and_then(|()| std::fs::rename(&temporary, &self.0)) {
            tracing::warn!(file = %self.0.display(), %error, "the table of this node's endpoints could not be written");
        }
    }
}
