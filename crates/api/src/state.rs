//! What all handlers share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use docker_types::system::{AddressPool, Component, PlatformName, Runtime, Version};
use docker_types::task::GenericResource;
use docker_types::version;
use image::ImageStore;

use crate::checkup::Checkup;
use crate::engine_backend::EngineBackend;
use crate::hijack::Sessions;
use crate::local_networks::LocalNetworks;
use crate::swarm_backend::SwarmBackend;

/// What the server answers from. `daemon` fills it.
pub struct ApiState {
    /// Containers, volumes, events.
    pub engine: Arc<dyn EngineBackend>,
    /// Images.
    pub images: ImageStore,
    /// This machine's networks.
    pub networks: Arc<dyn LocalNetworks>,
    /// The swarm.
    pub swarm: Arc<dyn SwarmBackend>,
    /// Looks for what keeps networks from working.
    pub doctor: Arc<dyn Checkup>,
    /// What the daemon was started with.
    pub settings: Settings,
    /// What the program says of itself.
    pub about: About,
}

/// Options of the daemon that `GET /info` shows.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The engine's own identifier, a UUID that stays.
    pub id: String,
    /// `--data-root`.
    pub data_root: PathBuf,
    /// `--debug`.
    pub debug: bool,
    /// `--label`, as `key=value`.
    pub labels: Vec<String>,
    /// `--log-driver`.
    pub log_driver: String,
    /// `--live-restore`, or what stands for it.
    pub live_restore: bool,
    /// `--default-runtime`.
    pub default_runtime: String,
    /// All runtimes by name.
    pub runtimes: BTreeMap<String, Runtime>,
    /// `--default-address-pool`.
    pub default_address_pools: Vec<AddressPool>,
    /// `--node-generic-resource`.
    pub generic_resources: Option<Vec<GenericResource>>,
    /// `--registry-mirror`.
    pub registry_mirrors: Vec<String>,
    /// `--insecure-registry`: hosts and CIDRs.
    pub insecure_registries: Vec<String>,
    /// What the daemon wants users to know: open ports without TLS, a firewall in the way.
    pub warnings: Vec<String>,
}

/// The state as handlers get it.
pub(crate) type Shared = Arc<Context>;

/// The state, and what the server adds.
pub(crate) struct Context {
    state: ApiState,
    /// Connections that were taken over.
    pub(crate) sessions: Sessions,
}

impl Context {
    pub(crate) fn new(state: ApiState, sessions: Sessions) -> Self {
        Self { state, sessions }
    }
}

impl std::ops::Deref for Context {
    type Target = ApiState;

    fn deref(&self) -> &ApiState {
        &self.state
    }
}

/// What the program says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// `28.5.2+skep.0.1.0`: the dockerd it stands in for, and itself.
    pub engine_version: String,
    /// `Skep 0.1.0`.
    pub platform_name: String,
    /// Short hash of the commit, if it is known.
    pub git_commit: String,
    /// RFC 3339, if it is known.
    pub build_time: String,
    /// Experimental features are on (`--experimental`).
    pub experimental: bool,
}

impl Default for About {
    fn default() -> Self {
        let own = env!("CARGO_PKG_VERSION");
        Self {
            engine_version: format!("28.5.2+skep.{own}"),
            platform_name: format!("Skep {own}"),
            git_commit: option_env!("SKEP_GIT_COMMIT").unwrap_or("unknown").to_owned(),
            build_time: option_env!("SKEP_BUILD_TIME").unwrap_or_default().to_owned(),
            experimental: false,
        }
    }
}

/// The architecture in Go's words.
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

impl About {
    /// `GET /version`.
    pub(crate) fn version(&self, kernel_version: &str) -> Version {
        let details = [
            ("ApiVersion", version::MAX.to_string()),
            ("Arch", go_arch().to_owned()),
            ("BuildTime", self.build_time.clone()),
            ("Experimental", self.experimental.to_string()),
            ("GitCommit", self.git_commit.clone()),
            ("GoVersion", "none (Rust)".to_owned()),
            ("KernelVersion", kernel_version.to_owned()),
            ("MinAPIVersion", version::MIN.to_string()),
            ("Os", "linux".to_owned()),
        ];
        Version {
            platform: PlatformName { name: self.platform_name.clone() },
            components: vec![Component {
                name: "Engine".to_owned(),
                version: self.engine_version.clone(),
                details: details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            }],
            version: self.engine_version.clone(),
            api_version: version::MAX.to_string(),
            min_api_version: version::MIN.to_string(),
            git_commit: self.git_commit.clone(),
            go_version: "none (Rust)".to_owned(),
            os: "linux".to_owned(),
            arch: go_arch().to_owned(),
            kernel_version: kernel_version.to_owned(),
            experimental: self.experimental,
            build_time: self.build_time.clone(),
        }
    }
}
