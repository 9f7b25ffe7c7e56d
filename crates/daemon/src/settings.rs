//! What the daemon was told, in types: made of the options of command line and daemon.json, checked before anything
//! starts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use api::listen::{Host, ListenError, TlsFiles};
use engine::{BUILT_IN_RUNTIME, EngineConfig, RuntimeSpec};
use image::RegistryConfig;
use net::{AddressPool, DnsConfig, NetConfig};

use crate::options::{Given, OptionError};

/// Under which name the daemon runs: where its files are by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persona {
    /// `skep daemon`.
    Skep,
    /// `dockerd`.
    Dockerd,
}

impl Persona {
    fn path(self, skep: &str, dockerd: &str) -> PathBuf {
        PathBuf::from(if self == Self::Skep { skep } else { dockerd })
    }

    pub(crate) fn socket(self) -> PathBuf {
        self.path("/run/skep/skep.sock", "/var/run/docker.sock")
    }

    fn config_file(self) -> PathBuf {
        self.path("/etc/skep/daemon.json", "/etc/docker/daemon.json")
    }
}

/// Why the daemon cannot start as it was told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// An option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// daemon.json.
    #[error("unable to configure the daemon with file {path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A value of `-H`.
    #[error(transparent)]
    Host(#[from] ListenError),
    /// A value.
    #[error("invalid value {value:?} for --{name}: {reason}")]
    Value {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) given: Given,
    pub(crate) config_file: PathBuf,
    pub(crate) hosts: Vec<Host>,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) group: Option<String>,
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) pidfile: PathBuf,
    pub(crate) log_level: String,
    pub(crate) registry: RegistryConfig,
    pub(crate) engine: EngineConfig,
    pub(crate) net: NetConfig,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) live_restore: bool,
    pub(crate) swarm_default_advertise_addr: String,
    /// Where metrics are served; empty for nowhere.
    pub(crate) metrics_addr: String,
}

fn bad(name: &'static str, value: &str, reason: impl ToString) -> SettingsError {
    SettingsError::Value { name, value: value.to_owned(), reason: reason.to_string() }
}

impl Settings {
    /// Reads command line and configuration file. A file that was named must be there.
    pub(crate) fn load(args: &[String], persona: Persona) -> Result<Self, SettingsError> {
        let mut given = Given::from_args(args)?;
        let named = given.text("config-file").map(PathBuf::from);
        let config_file = named.clone().unwrap_or_else(|| persona.config_file());
        merge_file(&mut given, &config_file, named.is_some())?;
        given.check_refused()?;
        Self::from_given(given, config_file, persona)
    }

    fn from_given(given: Given, config_file: PathBuf, persona: Persona) -> Result<Self, SettingsError> {
        let path = |name: &str, default: PathBuf| given.text(name).map_or(default, PathBuf::from);
        let data_root = path("data-root", persona.path("/var/lib/skep", "/var/lib/docker"));
        let exec_root = path("exec-root", persona.path("/run/skep", "/var/run/docker"));
        let pidfile = path("pidfile", persona.path("/run/skep/skep.pid", "/var/run/docker.pid"));
        if let Some(driver) = given.text("storage-driver").filter(|driver| !matches!(*driver, "" | "overlay2")) {
            return Err(bad("storage-driver", driver, "only overlay2 is built in"));
        }
        let socket = persona.socket();
        let mut hosts = Vec::new();
        for host in given.list("host") {
            hosts.push(Host::parse(host, &socket)?);
        }
        if hosts.is_empty() {
            hosts.push(Host::Unix(socket));
        }
        let debug = given.flag("debug", false);
        let log_level = if debug { "debug" } else { given.text("log-level").unwrap_or("info") };
        let level = match log_level {
            "fatal" | "panic" => "error",
            known @ ("debug" | "info" | "warn" | "error") => known,
            other => return Err(bad("log-level", other, "not a valid level: debug, info, warn, error or fatal")),
        };
        Ok(Self {
            config_file,
            hosts,
            tls: tls_files(&given)?,
            group: given
                .text("group")
                .map(str::to_owned)
                .or_else(|| Some("docker".to_owned()).filter(|_| persona == Persona::Dockerd)),
            registry: registry(&given)?,
            engine: engine(&given, &data_root, &exec_root)?,
            net: network(&given, &data_root, &exec_root)?,
            labels: labels(&given)?,
            live_restore: given.flag("live-restore", true),
            swarm_default_advertise_addr: given.text("swarm-default-advertise-addr").unwrap_or_default().to_owned(),
            metrics_addr: given.text("metrics-addr").unwrap_or_default().to_owned(),
            log_level: level.to_owned(),
            data_root,
            exec_root,
            pidfile,
            given,
        })
    }

    /// What SIGHUP changes: the registries of the configuration file as it is now.
    pub(crate) fn reloaded_registry(&self, args: &[String]) -> Result<RegistryConfig, SettingsError> {
        let mut given = Given::from_args(args)?;
        merge_file(&mut given, &self.config_file, false)?;
        registry(&given)
    }
}

fn merge_file(given: &mut Given, path: &Path, must_exist: bool) -> Result<(), SettingsError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(()),
        Err(error) => return Err(SettingsError::File { path: path.to_owned(), reason: error.to_string() }),
    };
    if text.trim().is_empty() {
        return Ok(());
    }
    given.merge_file(&text).map_err(|error| SettingsError::File { path: path.to_owned(), reason: error.to_string() })
}

fn tls_files(given: &Given) -> Result<Option<TlsFiles>, SettingsError> {
    let verify = given.flag("tlsverify", false);
    if !verify && !given.flag("tls", false) {
        return Ok(None);
    }
    let file = |name: &'static str| given.text(name).map(PathBuf::from).ok_or_else(|| bad(name, "", "TLS needs it"));
    let client_ca = if verify { Some(file("tlscacert")?) } else { None };
    Ok(Some(TlsFiles { cert: file("tlscert")?, key: file("tlskey")?, client_ca }))
}

fn registry(given: &Given) -> Result<RegistryConfig, SettingsError> {
    let mut config = RegistryConfig::default();
    for mirror in given.list("registry-mirror") {
        if !mirror.starts_with("http://") && !mirror.starts_with("https://") {
            return Err(bad("registry-mirror", mirror, "unsupported scheme: a mirror is http://host or https://host"));
        }
        config.mirrors.push(mirror.trim_end_matches('/').to_owned());
    }
    config.insecure_registries = given.list("insecure-registry").to_vec();
    if let Some(count) = given.number("max-concurrent-downloads") {
        let positive = usize::try_from(count).ok().filter(|count| *count > 0);
        config.max_concurrent_downloads =
            positive.ok_or_else(|| bad("max-concurrent-downloads", &count.to_string(), "must be positive"))?;
    }
    Ok(config)
}

fn engine(given: &Given, data_root: &Path, exec_root: &Path) -> Result<EngineConfig, SettingsError> {
    let binary = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let mut config = EngineConfig::new(data_root.to_owned(), exec_root.to_owned(), binary);
    config.cgroup_parent = given.text("cgroup-parent").unwrap_or_default().to_owned();
    config.init = given.flag("init", false);
    if let Some(driver) = given.text("log-driver") {
        driver.clone_into(&mut config.log_driver);
    }
    config.log_opts = given.map("log-opt");
    for runtime in given.list("add-runtime") {
        let (name, path) = runtime.split_once('=').ok_or_else(|| bad("add-runtime", runtime, "must be name=path"))?;
        config.runtimes.insert(name.to_owned(), RuntimeSpec { path: path.into(), args: Vec::new() });
    }
    if let Some(name) = given.text("default-runtime") {
        // Docker's own name for its default stands for ours, unless the user has added one of that name.
        let known = name == BUILT_IN_RUNTIME || config.runtimes.contains_key(name);
        if !known && name != "runc" {
            return Err(bad("default-runtime", name, "no such runtime; add it with --add-runtime"));
        }
        if known {
            name.clone_into(&mut config.default_runtime);
        }
    }
    for limit in given.list("default-ulimit") {
        let (name, soft, hard) =
            ulimit(limit).ok_or_else(|| bad("default-ulimit", limit, "must be name=soft[:hard]"))?;
        config.default_ulimits.insert(name, (soft, hard));
    }
    Ok(config)
}

/// `name=soft[:hard]`.
fn ulimit(text: &str) -> Option<(String, i64, i64)> {
    let (name, limits) = text.split_once('=')?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    Some((name.to_owned(), soft.parse().ok()?, hard.parse().ok()?))
}

fn network(given: &Given, data_root: &Path, exec_root: &Path) -> Result<NetConfig, SettingsError> {
    let mut config =
        NetConfig { exec_root: exec_root.to_owned(), data_root: data_root.to_owned(), ..NetConfig::default() };
    let name = |option: &'static str, target: &mut String| match given.text(option) {
        Some(value) if value.is_empty() || value.len() > 15 => Err(bad(option, value, "must have 1 to 15 bytes")),
        Some(value) => {
            value.clone_into(target);
            Ok(())
        }
        None => Ok(()),
    };
    name("bridge", &mut config.bridge_name)?;
    name("gwbridge", &mut config.gwbridge_name)?;
    name("table-prefix", &mut config.table_prefix)?;
    let pools = given.list("default-address-pool");
    if !pools.is_empty() {
        config.default_address_pools = pools.iter().map(|text| usable_pool(text)).collect::<Result<_, _>>()?;
    }
    if let Some(bip) = given.text("bip") {
        config.bridge_address = Some(bip.parse().map_err(|error: net::CidrError| bad("bip", bip, error))?);
    }
    config.iptables = given.flag("iptables", true);
    config.ip_forward = given.flag("ip-forward", true);
    config.ip_masq = given.flag("ip-masq", true);
    config.icc = given.flag("icc", true);
    if let Some(address) = given.text("ip") {
        config.default_bind_address = address.parse::<Ipv4Addr>().map_err(|error| bad("ip", address, error))?;
    }
    if let Some(mtu) = given.number("mtu").filter(|mtu| *mtu != 0) {
        config.mtu = u32::try_from(mtu).map_err(|error| bad("mtu", &mtu.to_string(), error))?;
    }
    if let Some(server) = given.list("dns").iter().find(|server| server.parse::<IpAddr>().is_err()) {
        return Err(bad("dns", server, format!("{server} is not an ip address")));
    }
    config.dns = DnsConfig {
        servers: given.list("dns").to_vec(),
        search: given.list("dns-search").to_vec(),
        options: given.list("dns-opt").to_vec(),
    };
    Ok(config)
}

/// `base=10.0.0.0/8,size=24`.
fn address_pool(text: &str) -> Option<AddressPool> {
    let mut base = None;
    let mut size = None;
    for part in text.split(',') {
        match part.split_once('=')? {
            ("base", value) => base = value.parse().ok(),
            ("size", value) => size = value.parse().ok(),
            _ => return None,
        }
    }
    Some(AddressPool { base: base?, size: size? })
}

/// A pool that subnets of its size can be cut from.
fn usable_pool(text: &str) -> Result<AddressPool, SettingsError> {
    let wrong = |why: &str| bad("default-address-pool", text, why);
    let pool = address_pool(text).ok_or_else(|| wrong("must be base=CIDR,size=N"))?;
    match pool.size {
        size if size < pool.base.prefix || size > 30 => Err(wrong(&format!("invalid pools size: {size}"))),
        _ => Ok(pool),
    }
}

fn labels(given: &Given) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut labels = BTreeMap::new();
    for label in given.list("label") {
        let (key, value) =
            label.split_once('=').ok_or_else(|| bad("label", label, "bad attribute format: must be key=value"))?;
        if labels.insert(key.to_owned(), value.to_owned()).is_some_and(|old| old != value) {
            return Err(bad("label", label, format!("conflict labels for {key}")));
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<Settings, SettingsError> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Settings::load(&args, Persona::Skep)
    }

    #[test]
    fn defaults_depend_on_the_name() {
        let skep = load(&["--config-file", "/dev/null"]).unwrap();
        assert_eq!(skep.data_root, PathBuf::from("/var/lib/skep"));
        assert_eq!(skep.hosts, [Host::Unix("/run/skep/skep.sock".into())]);
        let docker = Settings::from_given(Given::default(), "/dev/null".into(), Persona::Dockerd).unwrap();
        assert_eq!(docker.hosts, [Host::Unix("/var/run/docker.sock".into())]);
        assert_eq!(docker.group.as_deref(), Some("docker"));
        assert!(docker.live_restore);
    }

    #[test]
    fn bad_values_name_their_option() {
        let check = |args: &[&str], part: &str| {
            let args = [&["--config-file", "/dev/null"], args].concat();
            let text = load(&args).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        };
        check(&["--storage-driver", "btrfs"], "--storage-driver");
        check(&["--bip", "nonsense"], "--bip");
        check(&["--default-runtime", "kata"], "--default-runtime");
        check(&["--log-level", "loud"], "--log-level");
        check(&["--registry-mirror", "ftp://x"], "--registry-mirror");
        check(&["--label", "plain"], "--label");
        check(&["--tlsverify"], "--tlscacert");
        check(&["-H", "http://x"], "unable to parse docker host");
        check(&["--default-address-pool", "10.0.0.0/8"], "--default-address-pool");
        check(&["--default-address-pool", "base=10.1.0.0/16,size=8"], "invalid pools size: 8");
        check(&["--dns", "bad"], "bad is not an ip address");
    }

    #[test]
    fn a_named_file_must_be_there() {
        let error = load(&["--config-file", "/nonexistent/daemon.json"]).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/daemon.json"), "{error}");
    }
}
