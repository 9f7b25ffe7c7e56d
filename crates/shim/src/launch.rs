//! The documents that outlive a process: `launch.json` (the engine writes it, the shim reads it once at its start), the
//! readiness line on the shim's stdout, and the exit record (the shim writes it once, the engine reads it).
//!
//! As in `protocol`: fields are only added, with a default, and unknown ones are ignored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Name of the launch file; the directory it lies in is the shim's own.
pub const LAUNCH_NAME: &str = "launch.json";

/// Everything a shim has to know; every path is absolute. It lies in the shim's directory, `<exec root>/shim/<container id>/launch.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// `protocol::VERSION` of the engine that wrote it.
    pub version: u32,
    /// The container's id, as the runtime gets it.
    pub container: String,
    /// Directory with the OCI `config.json`.
    pub bundle: PathBuf,
    /// The OCI runtime's command line.
    pub runtime: RuntimeCommand,
    /// Whether the container gets a pseudo-terminal; must be what `config.json` says.
    #[serde(default)]
    pub terminal: bool,
    /// First size of the terminal.
    #[serde(default)]
    pub size: Option<crate::protocol::WindowSize>,
    /// Whether stdin is a pipe (or the terminal) rather than `/dev/null`.
    #[serde(default)]
    pub open_stdin: bool,
    /// Whether stdin ends when the first attacher with stdin ends its input or goes away. Not with a terminal.
    #[serde(default)]
    pub stdin_once: bool,
    /// Where the output is kept.
    #[serde(default)]
    pub log: LogSpec,
    /// Where the exit record is written. Its directory exists.
    pub exit_record: PathBuf,
    /// The directory of the container's memory cgroup (v1) or cgroup (v2); without it the shim looks at its first
    /// process's `/proc/<pid>/cgroup`.
    #[serde(default)]
    pub memory_cgroup: Option<PathBuf>,
    /// The shim's own `oom_score_adj`; the runtime and the container start with 0.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// How long an attacher may take nothing, while the container waits for it, before it is cut off; milliseconds, 0 =
    /// [`crate::limits::ATTACH_STALL_MS`].
    #[serde(default)]
    pub attach_stall_ms: u64,
}

/// An OCI runtime with `runc`'s command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeCommand {
    /// The program; its name in `argv[0]` only, if `fd` is given.
    pub program: PathBuf,
    /// A file descriptor the shim inherits and that is executed instead of `program` (a sealed memfd); 0 = its stdin.
    #[serde(default)]
    pub fd: Option<i32>,
    /// Arguments before the global options, e.g. `["runtime"]`.
    #[serde(default)]
    pub args: Vec<String>,
    /// For `--root`: where the runtime keeps its state; without it the runtime's own default.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// Whether `--systemd-cgroup` is given.
    #[serde(default)]
    pub systemd_cgroup: bool,
    /// How signals reach the first process.
    #[serde(default)]
    pub signals: SignalPath,
}

/// How signals reach a container's first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalPath {
    /// By the runtime's `kill`: needed when the process the host sees is a sandbox (gVisor, Kata).
    #[default]
    Runtime,
    /// By `kill(2)`: right for `skep runtime`, runc and crun, and cheaper by a process.
    Direct,
}

/// Where output is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSpec {
    /// How.
    pub driver: LogDriver,
    /// The log file, for [`LogDriver::JsonFile`]. Its directory exists.
    pub path: PathBuf,
    /// Size at which the file is rotated, in bytes; 0 = never.
    pub max_size: u64,
    /// Number of files kept, the one being written included; 0 and 1 = that one, which is emptied.
    pub max_file: u32,
    /// Whether rotated files are compressed, to `.1.gz` and so on.
    pub compress: bool,
    /// Written into each line as `attrs`, if there are any.
    pub attrs: BTreeMap<String, String>,
}

/// How output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// dockerd's `json-file` lines; also for the driver `local`.
    #[default]
    #[serde(alias = "local")]
    JsonFile,
    /// Not at all.
    None,
}

/// The one line of JSON on the shim's stdout, after `create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// The container is created and the socket listens.
    Ready {
        /// The container's first process, in the host's namespace.
        pid: i32,
        /// The shim's own process id.
        shim_pid: i32,
    },
    /// There is no container, neither in the runtime, and the shim ends; its directory stays, with `shim.log`.
    Failed {
        /// The runtime's error text, or the shim's.
        message: String,
    },
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Process id its first process had.
    pub pid: i32,
    /// When it was started; RFC 3339 with nanoseconds, UTC. None when it ended before.
    #[serde(default)]
    pub started_at: Option<String>,
    /// When its end was seen; same form.
    pub exited_at: String,
    /// Its exit code: 128 + signal when a signal ended it.
    pub exit_code: i32,
    /// The signal that ended it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of it for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// What went wrong around it, e.g. in the runtime's `start`.
    #[serde(default)]
    pub error: Option<String>,
}

impl ExitRecord {
    /// Reads the record at `path`; None when there is none, an error when it cannot be read as one.
    pub fn read(path: &std::path::Path) -> std::io::Result<Option<ExitRecord>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}
