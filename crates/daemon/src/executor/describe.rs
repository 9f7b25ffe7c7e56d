//! What this machine is: host name, platform, resources, engine, plugins.

use std::collections::BTreeMap;
use std::io;

use model::{EngineDescription, NodeDescription, Platform, PluginDescription, Resources};

/// What the daemon knows and the kernel does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    /// The engine's version.
    pub(crate) engine_version: String,
    /// `--label`.
    pub(crate) labels: BTreeMap<String, String>,
}

/// Networks and log drivers that this engine has, as dockerd lists them.
const PLUGINS: [(&str, &str); 6] = [
    ("Log", "json-file"),
    ("Network", "bridge"),
    ("Network", "host"),
    ("Network", "null"),
    ("Network", "overlay"),
    ("Volume", "local"),
];

/// Reads the machine's description.
pub(crate) fn describe(about: &About) -> io::Result<NodeDescription> {
    let uname = nix::sys::utsname::uname()?;
    let hostname = uname.nodename().to_string_lossy().into_owned();
    let plugin = |(kind, name): (&str, &str)| PluginDescription { kind: kind.to_owned(), name: name.to_owned() };
    Ok(NodeDescription {
        hostname,
        platform: Some(Platform { architecture: std::env::consts::ARCH.to_owned(), os: "linux".to_owned() }),
        resources: Some(Resources {
            nano_cpus: cpus() * 1_000_000_000,
            memory_bytes: memory_bytes()?,
            generic: Vec::new(),
        }),
        engine: Some(EngineDescription {
            engine_version: about.engine_version.clone(),
            labels: about.labels.clone(),
            plugins: PLUGINS.into_iter().map(plugin).collect(),
        }),
        ..NodeDescription::default()
    })
}

/// Processors that this process may use.
pub(crate) fn cpus() -> i64 {
    std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(i64::MAX))
}

/// The machine's memory, from `/proc/meminfo`.
pub(crate) fn memory_bytes() -> io::Result<i64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<i64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))
}
