//! Settings of the store and of the registry client.

use std::path::PathBuf;

/// What the daemon's flags and `daemon.json` say about images.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Registries.
    pub registry: RegistryConfig,
    /// Bounds on what a layer may hold.
    pub unpack_limits: UnpackLimits,
}

/// Settings that may change while the daemon runs (SIGHUP).
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// `--registry-mirror`, in the order of asking: base URLs that serve what docker.io has.
    pub mirrors: Vec<String>,
    /// `--insecure-registry`: `host`, `host:port` or CIDR. 127.0.0.0/8 and `localhost` always count.
    pub insecure_registries: Vec<String>,
    /// `--max-concurrent-downloads`.
    pub max_concurrent_downloads: usize,
    /// `--max-download-attempts`.
    pub max_download_attempts: usize,
    /// Directory with `<host>/*.crt`, `<host>/*.cert` and `*.key`.
    pub certs_dir: PathBuf,
    /// The system's bundle of trusted certificates.
    pub ca_bundle: PathBuf,
    /// `User-Agent` of every request.
    pub user_agent: String,
    /// Longest time without a byte from a registry.
    pub stall_timeout_ms: u64,
    /// Longest time until a registry's connection stands.
    pub connect_timeout_ms: u64,
}

/// Bounds on one layer, against hostile archives.
#[derive(Clone, Copy, Debug)]
pub struct UnpackLimits {
    /// Entries.
    pub entries_max: u64,
    /// Bytes of all regular files.
    pub bytes_max: u64,
    /// Bytes of a path or link target.
    pub name_bytes_max: usize,
    /// Bytes of one extended header.
    pub extension_bytes_max: usize,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            max_concurrent_downloads: 3,
            max_download_attempts: 5,
            certs_dir: PathBuf::from("/etc/docker/certs.d"),
            ca_bundle: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
            user_agent: concat!("skep/", env!("CARGO_PKG_VERSION")).to_string(),
            stall_timeout_ms: 30_000,
            connect_timeout_ms: 10_000,
        }
    }
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { entries_max: 4_000_000, bytes_max: 256 << 30, name_bytes_max: 4096, extension_bytes_max: 1 << 20 }
    }
}
