//! What the daemon's flags and `daemon.json` say to the engine.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The name of the runtime that is built in.
pub const BUILT_IN_RUNTIME: &str = "skep";

/// An OCI runtime that understands runc's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeSpec {
    /// Program.
    pub path: PathBuf,
    /// Words before the command.
    pub args: Vec<String>,
}

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Lives as long as the machine's disk: `containers/`, `volumes/`.
    pub data_root: PathBuf,
    /// On a tmpfs, empty after a reboot: `shim/`, secrets.
    pub exec_root: PathBuf,
    /// The binary that is run as `<skep_binary> shim …` and `<skep_binary> runtime …`.
    pub skep_binary: PathBuf,
    /// `--cgroup-parent`; empty for the default.
    pub cgroup_parent: String,
    /// `--default-runtime`; [`BUILT_IN_RUNTIME`] or a key of `runtimes`.
    pub default_runtime: String,
    /// `--add-runtime`.
    pub runtimes: BTreeMap<String, RuntimeSpec>,
    /// `--log-driver`.
    pub log_driver: String,
    /// `--log-opt`, for containers of the default driver.
    pub log_opts: BTreeMap<String, String>,
    /// `--default-ulimit`: name to soft and hard limit; -1 for none.
    pub default_ulimits: BTreeMap<String, (i64, i64)>,
    /// `--init`: whether containers get an init process unless they say otherwise.
    pub init: bool,
}

impl EngineConfig {
    /// dockerd's defaults for these two directories and this binary.
    pub fn new(data_root: PathBuf, exec_root: PathBuf, skep_binary: PathBuf) -> Self {
        Self {
            data_root,
            exec_root,
            skep_binary,
            cgroup_parent: String::new(),
            default_runtime: BUILT_IN_RUNTIME.to_owned(),
            runtimes: BTreeMap::new(),
            log_driver: "json-file".to_owned(),
            log_opts: BTreeMap::new(),
            default_ulimits: BTreeMap::new(),
            init: false,
        }
    }
}
