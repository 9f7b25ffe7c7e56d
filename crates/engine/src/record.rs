//! The record of a container, `containers/<id>/config.json`: what was asked for and how its life stands.
//!
//! It is replaced as a whole: written beside, flushed, renamed. Its owner alone writes it; `open` reads all of them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use docker_types::container::{ContainerConfig, HealthLog, HostConfig, NetworkingConfig};
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::network::{IngressAttachment, OverlayAttachment};

/// Version of the file; a newer one is refused.
pub(crate) const RECORD_VERSION: u32 = 1;
/// Name of the file.
pub(crate) const RECORD_NAME: &str = "config.json";

/// Whether a write waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// The record is on disk when the call returns.
    Wait,
    /// The record replaces the old one at once; the disk gets it when it likes.
    Later,
}

/// Where a container is in its life.
///
/// ```text
/// created ─► running ⇄ paused          running ─► restarting ─► running
///    │          └──────► exited ◄──────────────────────┘
///    └─► removing ◄────────┘   (dead: its removal failed)
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Never started.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It has ended and will be started again.
    Restarting,
    /// It has ended.
    Exited,
    /// It is being removed.
    Removing,
    /// Its removal failed.
    Dead,
}

impl Phase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// Whether there is a process, or will be one soon: what dockerd calls running.
    pub(crate) fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// Whether there is a process.
    pub(crate) fn has_process(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// How the life of a container stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LifeRecord {
    pub(crate) phase: Phase,
    /// Process id of the first process; 0 without one.
    pub(crate) pid: i32,
    pub(crate) exit_code: i64,
    pub(crate) error: String,
    pub(crate) oom_killed: bool,
    /// Nanoseconds since 1970; 0 for never.
    pub(crate) started_ns: i64,
    pub(crate) finished_ns: i64,
    /// Restarts by policy since the user's last start.
    pub(crate) restart_count: i64,
    /// The user's word: `stop` and `kill` keep `unless-stopped` from starting it again.
    pub(crate) stopped_by_user: bool,
    /// Whether it has ever been started.
    pub(crate) ever_started: bool,
    /// Whether a start has ever got as far as its network; from then on inspect names it and the files of `/etc`.
    pub(crate) ever_networked: bool,
    pub(crate) health: Option<HealthRecord>,
}

/// How well it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HealthRecord {
    /// `starting`, `healthy`, `unhealthy`.
    pub(crate) status: String,
    pub(crate) failing_streak: i64,
    pub(crate) log: Vec<HealthLog>,
}

/// What is mounted where; decided at creation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MountRecord {
    pub(crate) kind: MountKind,
    /// Name of the volume.
    pub(crate) name: String,
    /// Path on the host; of a volume its data directory.
    pub(crate) source: PathBuf,
    pub(crate) destination: String,
    pub(crate) driver: String,
    /// The options as the user wrote them: `ro`, `z`, …
    pub(crate) mode: String,
    pub(crate) read_only: bool,
    pub(crate) propagation: String,
    /// Whether the user has chosen it.
    pub(crate) propagation_asked: bool,
    /// Whether mounts below a read-only one stay writable.
    pub(crate) writable_below: bool,
    /// `NonRecursive` of a bind.
    pub(crate) non_recursive: bool,
    /// Whether the contents of the image fill the empty volume.
    pub(crate) copy_up: bool,
    /// Whether the volume goes with the container (`rm -v`).
    pub(crate) anonymous: bool,
    /// Directory below the volume's data.
    pub(crate) subpath: String,
    /// Options of a tmpfs for mount(2).
    pub(crate) tmpfs_options: Vec<String>,
    /// Whether a missing bind source is made (`-v`; `--mount` refuses).
    pub(crate) make_source: bool,
    /// Whether it came by `HostConfig.Mounts`.
    pub(crate) from_mounts: bool,
}

/// Type of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountKind {
    #[default]
    Bind,
    Volume,
    Tmpfs,
}

impl MountKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// A file of the swarm in a task; the contents are not kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TaskRecord {
    pub(crate) ingress: Option<IngressAttachment>,
    pub(crate) overlays: Vec<OverlayAttachment>,
    /// Targets of configs, in the order of their files.
    pub(crate) configs: Vec<String>,
    /// Whether there are secrets.
    pub(crate) secrets: bool,
}

impl TaskRecord {
    /// Whether the swarm has given it a network.
    pub(crate) fn is_networked(&self) -> bool {
        self.ingress.is_some() || !self.overlays.is_empty()
    }
}

/// Everything that is kept about a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: String,
    /// Without `/`.
    pub(crate) name: String,
    pub(crate) created_ns: i64,
    /// `sha256:…`.
    pub(crate) image_id: String,
    /// Program and its arguments: entrypoint and command together.
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) config: ContainerConfig,
    pub(crate) host_config: HostConfig,
    /// The networks that it is to be on: by name once they are known, until then as the user wrote them.
    pub(crate) networking: NetworkingConfig,
    /// It was disconnected from its last network, so that it has none; else one without any is on that of its mode.
    pub(crate) left_all_networks: bool,
    pub(crate) mounts: Vec<MountRecord>,
    pub(crate) task: Option<TaskRecord>,
    pub(crate) life: LifeRecord,
}

/// Paths of one container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerPaths {
    /// `<data root>/containers/<id>`.
    pub(crate) data: PathBuf,
    /// `<exec root>/shim/<id>`.
    pub(crate) exec: PathBuf,
    id: String,
}

impl ContainerPaths {
    pub(crate) fn new(data_root: &Path, exec_root: &Path, id: &str) -> Self {
        Self { data: data_root.join("containers").join(id), exec: exec_root.join("shim").join(id), id: id.to_owned() }
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.data.join(format!("{}-json.log", self.id))
    }

    pub(crate) fn exit(&self) -> PathBuf {
        self.data.join("exit.json")
    }

    pub(crate) fn etc(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.exec.join("bundle")
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.exec.join("files")
    }
}

/// Replaces `path` by a file with `bytes`. Blocking.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], flush: Flush) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    if flush == Flush::Wait {
        file.sync_all()?;
    }
    fs::rename(&beside, path)?;
    if let (Flush::Wait, Some(parent)) = (flush, path.parent()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

impl Record {
    /// Writes it into its directory, which exists. Blocking.
    pub(crate) fn save(&self, directory: &Path, flush: Flush) -> Result<(), EngineError> {
        let path = directory.join(RECORD_NAME);
        let bytes = serde_json::to_vec(self).map_err(|error| EngineError::internal(format!("record: {error}")))?;
        replace_file(&path, &bytes, flush).map_err(|error| EngineError::io("write", &path, &error))
    }

    /// Reads it; `None` if there is none. Blocking.
    pub(crate) fn load(directory: &Path) -> Result<Option<Self>, EngineError> {
        let path = directory.join(RECORD_NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(EngineError::io("read", &path, &error)),
        };
        let record: Self = serde_json::from_slice(&bytes)
            .map_err(|error| EngineError::internal(format!("read {}: {error}", path.display())))?;
        if record.version > RECORD_VERSION {
            return Err(EngineError::internal(format!("{} was written by a newer Skep", path.display())));
        }
        Ok(Some(record))
    }

    /// What every event of the container tells: its labels, image and name.
    pub(crate) fn event_attributes(&self) -> std::collections::BTreeMap<String, String> {
        let mut attributes = self.config.labels.clone().unwrap_or_default();
        attributes.insert("image".to_owned(), self.config.image.clone());
        attributes.insert("name".to_owned(), self.name.clone());
        attributes
    }

    pub(crate) fn labels(&self) -> &std::collections::BTreeMap<String, String> {
        static NONE: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
        self.config.labels.as_ref().unwrap_or(&NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_newer_ones_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Record::load(directory.path()).unwrap().is_none());
        let mut record = Record { id: "a".repeat(64), name: "n".into(), ..Record::default() };
        record.life.phase = Phase::Restarting;
        record.save(directory.path(), Flush::Wait).unwrap();
        let read = Record::load(directory.path()).unwrap().unwrap();
        assert_eq!((read.name.as_str(), read.life.phase), ("n", Phase::Restarting));
        record.version = RECORD_VERSION + 1;
        record.save(directory.path(), Flush::Later).unwrap();
        assert!(Record::load(directory.path()).is_err());
    }
}
