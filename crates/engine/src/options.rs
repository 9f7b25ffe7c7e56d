//! Arguments of the engine's operations.

use docker_types::filters::Filters;
use serde::{Deserialize, Serialize};

use crate::network::{IngressAttachment, OverlayAttachment};

/// Beside the body of a creation.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// `os/architecture[/variant]` that the image must have.
    pub platform: Option<String>,
    /// Set for the container of a swarm task.
    pub task: Option<TaskOptions>,
    /// What `ro` means for binds that do not say it themselves.
    pub read_only: ReadOnlyDepth,
}

/// How deep a read-only mount is read-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadOnlyDepth {
    /// With all mounts below its source, where the kernel can (5.12 and later).
    #[default]
    Recursive,
    /// Without them: what it meant to clients of API versions before 1.44.
    Single,
}

/// What a swarm task has beyond a container.
#[derive(Clone, Debug, Default)]
pub struct TaskOptions {
    /// Its place on the ingress network.
    pub ingress: Option<IngressAttachment>,
    /// Its places on other overlay networks.
    pub overlays: Vec<OverlayAttachment>,
    /// Secrets and configs.
    pub files: Vec<SecretFile>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Contents are in memory only.
    Secret,
    /// Contents are no secret.
    Config,
}

/// A file that the swarm gives to a task.
#[derive(Clone)]
pub struct SecretFile {
    /// Absolute path in the container.
    pub path: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Contents.
    pub data: Vec<u8>,
    /// Secret or config.
    pub kind: FileKind,
}

impl std::fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretFile({}, {:?}, {} bytes)", self.path, self.kind, self.data.len())
    }
}

/// How to stop.
#[derive(Clone, Debug, Default)]
pub struct StopOptions {
    /// Grace in seconds; `None` for the container's own, negative for ever.
    pub timeout_s: Option<i64>,
    /// Signal; `None` for the container's own.
    pub signal: Option<String>,
}

/// Until when to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run; at once if it does not now.
    #[default]
    NotRunning,
    /// Its next exit.
    NextExit,
    /// It is removed.
    Removed,
}

/// How to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
}

/// How to disconnect a container from a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DisconnectMode {
    /// The network must be there.
    #[default]
    Safe,
    /// Also from one that is gone.
    Force,
}

/// Whether sizes are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SizeMode {
    /// No.
    #[default]
    Without,
    /// Yes; walks the container's directory.
    With,
}

/// Which containers to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// At most this many, the newest, running or not.
    pub limit: Option<usize>,
    /// Sizes.
    pub size: SizeMode,
    /// `filters`.
    pub filters: Filters,
}

/// Which lines of a log.
#[derive(Clone, Debug, Default)]
pub struct LogsOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Not before; nanoseconds since 1970.
    pub since: Option<i64>,
    /// Not after; nanoseconds since 1970.
    pub until: Option<i64>,
    /// Only this many of the last lines; `None` for all.
    pub tail: Option<usize>,
    /// A time before each line.
    pub timestamps: bool,
    /// The attributes of `log-opt` before each line.
    pub details: bool,
    /// Go on as long as the container runs.
    pub follow: bool,
}

/// What to attach to.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttachOptions {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// First what was written before.
    pub logs: bool,
    /// Then what comes.
    pub stream: bool,
}

/// What a stop of the daemon does to containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// They live on.
    LeaveAll,
    /// They are stopped with their grace (`live-restore: false`).
    StopAll,
}
