//! What a node remembers of its swarm between runs, in `docker-state.json`, next to `certificates/`, `worker/` and, on
//! managers, `raft/`. The file says that the rest is whole, or that a join goes on: a folder without it is left over from
//! an init that did not end and is removed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use agent::NodeAddresses;
use serde::{Deserialize, Serialize};

const FILE: &str = "docker-state.json";

/// Addresses and numbers of this node; keys as dockerd's file has them, and ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Saved {
    /// `host:port` of the manager's listener.
    pub(crate) listen_addr: String,
    /// `host:port` that others are told.
    pub(crate) advertise_addr: String,
    /// Address of the data path; empty: as advertised.
    pub(crate) data_path_addr: String,
    /// This machine's address towards the manager that it joined through; empty for a founder.
    pub(crate) local_addr: String,
    /// The manager that was given to join; empty for a founder.
    pub(crate) remote_addr: String,
    /// Pools that overlay subnets are cut from; founders only.
    pub(crate) default_address_pool: Option<Vec<String>>,
    /// Prefix length of those subnets; 0 where not given.
    pub(crate) subnet_size: u32,
    /// UDP port of the data path; 0 where not given.
    pub(crate) data_path_port: u32,
    /// The first session has not been opened yet.
    pub(crate) join_in_progress: bool,
    /// This manager's number in the raft group; 0 for a worker.
    #[serde(rename = "RaftID")]
    pub(crate) raft_id: u64,
}

impl Saved {
    /// Where this node is on the network; `None` if what is saved says nothing of it.
    pub(crate) fn addresses(&self) -> Option<NodeAddresses> {
        let ip = |text: &str| text.parse::<SocketAddr>().ok().map(|addr| addr.ip());
        let advertise = ip(&self.advertise_addr).or_else(|| self.local_addr.parse().ok())?;
        let data_path = self.data_path_addr.parse().unwrap_or(advertise);
        let any = if advertise.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Some(NodeAddresses { listen: ip(&self.listen_addr).unwrap_or(any), advertise, data_path })
    }
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or folder.
    #[error("swarm state {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what we write.
    #[error("swarm state {path}")]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The folder of the swarm's state.
#[derive(Clone, Debug)]
pub(crate) struct StateFolder(PathBuf);

impl StateFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn raft(&self) -> PathBuf {
        self.0.join("raft")
    }

    /// Whether there is a log to go on from.
    pub(crate) fn has_raft_log(&self) -> bool {
        fs::read_dir(self.raft().join("log")).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Forgets the log and all snapshots: this node is a manager no longer.
    pub(crate) fn remove_raft(&self) -> Result<(), StateError> {
        let removed = gone(fs::remove_dir_all(self.raft()));
        removed.map_err(|source| StateError::Io { path: self.raft(), source })
    }

    /// Where the agent keeps assignments.
    pub(crate) fn worker(&self) -> PathBuf {
        self.0.join("worker")
    }

    /// What was saved; without it, all that is left of the folder is removed.
    pub(crate) fn load(&self) -> Result<Option<Saved>, StateError> {
        let path = self.0.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.remove()?;
                return Ok(None);
            }
            Err(source) => return Err(StateError::Io { path, source }),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| StateError::Json { path, source })
    }

    /// Makes the folder, readable by root alone.
    pub(crate) fn create(&self) -> Result<(), StateError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(self.raft());
        made.map_err(|source| StateError::Io { path: self.0.clone(), source })
    }

    /// Says that the state is whole.
    pub(crate) fn save(&self, saved: &Saved) -> Result<(), StateError> {
        let path = self.0.join(FILE);
        let text = serde_json::to_vec(saved).map_err(|source| StateError::Json { path: path.clone(), source })?;
        replace_file(&path, &text, 0o600).map_err(|source| StateError::Io { path: path.clone(), source })
    }

    /// Forgets everything, the state file first.
    pub(crate) fn remove(&self) -> Result<(), StateError> {
        let removed = gone(fs::remove_file(self.0.join(FILE))).and_then(|()| gone(fs::remove_dir_all(&self.0)));
        removed.map_err(|source| StateError::Io { path: self.0.clone(), source })
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Puts a whole new file in the place of another.
pub(crate) fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = folder.join(format!(".{name}"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_comes_back_and_what_is_half_made_goes() {
        let root = tempfile::tempdir().unwrap();
        let folder = StateFolder::new(root.path().join("swarm"));
        assert_eq!(folder.load().unwrap(), None);
        folder.create().unwrap();
        fs::write(folder.raft().join("log"), "half").unwrap();
        assert_eq!(folder.load().unwrap(), None, "an init that did not end leaves nothing");
        assert!(!folder.path().exists());
        folder.create().unwrap();
        let saved = Saved { raft_id: 7, advertise_addr: "10.0.0.1:2377".to_owned(), ..Saved::default() };
        folder.save(&saved).unwrap();
        assert_eq!(folder.load().unwrap(), Some(saved));
        folder.remove().unwrap();
        folder.remove().unwrap();
        assert_eq!(folder.load().unwrap(), None);
    }

    #[test]
    fn a_state_file_that_is_no_json_is_an_error_and_stays() {
        let root = tempfile::tempdir().unwrap();
        let folder = StateFolder::new(root.path().join("swarm"));
        folder.create().unwrap();
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(matches!(folder.load(), Err(StateError::Json { .. })));
        assert!(folder.path().join(FILE).exists());
    }
}
