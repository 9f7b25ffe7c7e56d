//! What a container needs before its shim starts: mounts, files of `/etc`, the OCI bundle, `launch.json`; and its undoing.
//!
//! Caller: the container's owner. Everything here may be done again over what a crash left.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use docker_types::container::HostConfig;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use shim::launch::{Launch, LogDriver, LogSpec, RuntimeCommand, SignalPath};
use shim::protocol::WindowSize;

use crate::bundle::shared_memory;
use crate::config::BUILT_IN_RUNTIME;
use crate::copy_up::copy_up;
use crate::engine::Inner;
use crate::log_options;
use crate::network::{ContainerNetwork, EtcFiles, NetworkError, NetworkMode, NetworkRequest, PortRequest, Protocol};
use crate::options::SecretFile;
use crate::record::{ContainerPaths, Flush, MountKind, MountRecord, Record, replace_file};
use crate::{EngineError, endpoint_settings, propagation, task_files};

/// Names of the files that are bound over those of the image.
pub(crate) const ETC_FILES: [&str; 3] = ["resolv.conf", "hostname", "hosts"];

/// How dockerd begins to tell that a network cannot be made.
const NETWORKING_FAILED: &str = "failed to set up container networking";

/// The kernel takes a shim's memory last, as with containerd's.
const SHIM_OOM_SCORE: i32 = -998;

/// What the OCI document is made of.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Document for `bundle/config.json`.
    pub(crate) config: Vec<u8>,
}

/// dockerd's answer to a failure of the network.
pub(crate) fn network_failed(error: NetworkError) -> EngineError {
    EngineError::new(error.kind, format!("{NETWORKING_FAILED}: {}", error.text))
}

/// How the container is joined.
pub(crate) fn network_mode(record: &Record) -> NetworkMode {
    match record.host_config.network_mode.as_str() {
        _ if record.config.network_disabled => NetworkMode::None,
        "host" => NetworkMode::Host,
        "none" if endpoint_settings::networks(record).keys().all(|network| network == "none") => NetworkMode::None,
        mode => match mode.strip_prefix("container:") {
            Some(id) => NetworkMode::Container(id.to_owned()),
            // a task without a network of the swarm is an ordinary container to dockerd
            None if record.task.as_ref().is_some_and(crate::record::TaskRecord::is_networked) => NetworkMode::Swarm,
            None => NetworkMode::Networks,
        },
    }
}

/// Port and protocol of `80/tcp`.
pub(crate) fn parse_port(text: &str) -> Result<(u16, Protocol), EngineError> {
    let invalid = || EngineError::invalid(format!("invalid port specification: \"{text}\""));
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = Protocol::parse(protocol).ok_or_else(invalid)?;
    Ok((port.parse().map_err(|_| invalid())?, protocol))
}

/// What dockerd reads of `-p` before all else: numbers and ranges.
pub(crate) fn check_port_bindings(host: &HostConfig) -> Result<(), EngineError> {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    for (port, bindings) in host.port_bindings.iter().flatten() {
        let own = port.split('/').next().unwrap_or_default();
        let hosts = bindings.iter().flatten().map(|binding| binding.host_port.split('/').next().unwrap_or_default());
        let is_range = |text: &str| text.is_empty() || text.split('-').all(is_port);
        if let Some(wrong) = (!is_port(own)).then_some(own).or(hosts.into_iter().find(|text| !is_range(text))) {
            return Err(EngineError::invalid(format!("invalid port specification: {wrong:?}")));
        }
    }
    Ok(())
}

/// Where a port is opened on the host, `None` for every address. Only IPv4: there is no proxy that could pass on from IPv6.
fn host_address(text: &str) -> Result<Option<Ipv4Addr>, EngineError> {
    match text.parse::<IpAddr>() {
        _ if text.is_empty() => Ok(None),
        Ok(IpAddr::V4(address)) => Ok(Some(address).filter(|address| !address.is_unspecified())),
        Ok(IpAddr::V6(_)) => {
            Err(EngineError::invalid(format!("ports are published on IPv4 addresses only, not on {text}")))
        }
        Err(_) => Err(EngineError::invalid(format!("invalid IP address: {text}"))),
    }
}

/// The ports that a container opens on its host.
pub(crate) fn port_requests(record: &Record) -> Result<Vec<PortRequest>, EngineError> {
    let mut requests = Vec::new();
    for (port, bindings) in record.host_config.port_bindings.iter().flatten() {
        let (container_port, protocol) = parse_port(port)?;
        for binding in bindings.iter().flatten() {
            let invalid = || EngineError::invalid(format!("invalid port specification: \"{}\"", binding.host_port));
            let (first, last) = binding.host_port.split_once('-').unwrap_or((&binding.host_port, &binding.host_port));
            let number = |text: &str| if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| invalid()) };
            let host_address = host_address(&binding.host_ip)?;
            requests.push(PortRequest {
                protocol,
                container_port,
                host_address,
                host_port: number(first)?,
                host_port_end: number(last)?,
            });
        }
    }
    if record.host_config.publish_all_ports {
        for port in record.config.exposed_ports.keys() {
            let (container_port, protocol) = parse_port(port)?;
            let known =
                |request: &PortRequest| (request.container_port, request.protocol) == (container_port, protocol);
            if !requests.iter().any(known) {
                requests.push(PortRequest {
                    protocol,
                    container_port,
                    host_address: None,
                    host_port: 0,
                    host_port_end: 0,
                });
            }
        }
    }
    Ok(requests)
}

/// What the network is asked for.
pub(crate) fn network_request(engine: &Inner, record: &Record) -> NetworkRequest {
    let host = &record.host_config;
    let mut mode = network_mode(record);
    if let NetworkMode::Container(name) = &mode
        && let Ok(joined) = engine.index.find(name)
    {
        mode = NetworkMode::Container(joined.id.clone());
    }
    let hosts = host.extra_hosts.iter().flatten().filter_map(|entry| entry.split_once([':', '=']));
    let networks = endpoint_settings::networks(record);
    let attachments = networks.iter().filter(|_| mode == NetworkMode::Networks);
    let attachments = attachments.map(|(network, settings)| endpoint_settings::request(network, settings)).collect();
    NetworkRequest {
        container_id: record.id.clone(),
        name: record.name.clone(),
        hostname: record.config.hostname.clone(),
        domainname: record.config.domainname.clone(),
        mode,
        ingress: record.task.as_ref().and_then(|task| task.ingress.clone()),
        overlays: record.task.as_ref().map(|task| task.overlays.clone()).unwrap_or_default(),
        attachments,
        // they were read at creation
        ports: port_requests(record).unwrap_or_default(),
        dns_servers: host.dns.clone().unwrap_or_default(),
        dns_search: host.dns_search.clone().unwrap_or_default(),
        dns_options: host.dns_options.clone().unwrap_or_default(),
        extra_hosts: hosts.map(|(name, address)| (name.to_owned(), address.to_owned())).collect(),
        sysctls: host
            .sysctls
            .iter()
            .filter(|(name, _)| name.starts_with("net."))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect(),
    }
}

/// Mounts volumes, writes the files and makes the OCI document. Blocking.
pub(crate) fn prepare(
    engine: &Inner,
    record: &mut Record,
    paths: &ContainerPaths,
    rootfs: image::Rootfs,
    network: ContainerNetwork,
    files: &[SecretFile],
) -> Result<Prepared, EngineError> {
    make_directory(&paths.exec, 0o700)?;
    make_directory(&paths.bundle(), 0o700)?;
    crate::working_dir::ensure(&rootfs.merged, &record.config.working_dir)?;
    mount_all(engine, record, &rootfs.merged)?;
    write_etc(engine, record, paths)?;
    if record.host_config.ipc_mode == "shareable" {
        mount_shared_memory(&shared_memory(paths), record.host_config.shm_size)?;
    }
    let lost = record.task.as_ref().is_some_and(|task| task.secrets || !task.configs.is_empty()) && files.is_empty();
    if lost {
        return Err(EngineError::conflict("the secrets and configs of this task went with the daemon that had them"));
    }
    let task_files = task_files::write(&paths.files(), files)?;
    let config = crate::bundle::document(engine, record, paths, &rootfs, &network, &task_files)?;
    Ok(Prepared { config })
}

fn make_directory(path: &Path, mode: u32) -> Result<(), EngineError> {
    fs::create_dir_all(path).map_err(|error| EngineError::io("create", path, &error))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|error| EngineError::io("chmod", path, &error))
}

/// Memory that other containers may have too.
fn mount_shared_memory(path: &Path, bytes: i64) -> Result<(), EngineError> {
    make_directory(path, 0o700)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), path, Some("tmpfs"), flags, Some(format!("mode=1777,size={bytes}").as_str()))
        .map_err(|error| EngineError::io("mount shared memory at", path, &error.into()))
}

fn mount_all(engine: &Inner, record: &mut Record, rootfs: &Path) -> Result<(), EngineError> {
    let id = record.id.clone();
    for mount in &mut record.mounts {
        match mount.kind {
            MountKind::Tmpfs => {}
            MountKind::Bind => {
                bind_source(mount)?;
                propagation::check(mount, &engine.config.data_root)?;
            }
            MountKind::Volume => {
                let data = engine.volumes.mount(&mount.name, &id)?;
                if std::mem::take(&mut mount.copy_up) {
                    copy_up(rootfs, &mount.destination, &data)?;
                }
                mount.source = if mount.subpath.is_empty() { data } else { subpath(&data, &mount.subpath)? };
                let attributes = [
                    ("container".to_owned(), id.clone()),
                    ("destination".to_owned(), mount.destination.clone()),
                    ("driver".to_owned(), mount.driver.clone()),
                    ("propagation".to_owned(), mount.propagation.clone()),
                    ("read/write".to_owned(), (!mount.read_only).to_string()),
                ];
                engine.events.log("volume", "mount", &mount.name, attributes.into());
            }
        }
    }
    Ok(())
}

fn bind_source(mount: &MountRecord) -> Result<(), EngineError> {
    match fs::metadata(&mount.source) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && mount.make_source => {
            fs::create_dir_all(&mount.source).map_err(|error| {
                EngineError::internal(format!(
                    "error while creating mount source path '{}': {error}",
                    mount.source.display()
                ))
            })
        }
        Err(_) => Err(EngineError::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            mount.source.display()
        ))),
    }
}

/// A directory inside a volume, without a way out of it.
fn subpath(data: &Path, inside: &str) -> Result<PathBuf, EngineError> {
    let wanted = data.join(inside.trim_start_matches('/'));
    let found = wanted.canonicalize().map_err(|_| {
        EngineError::invalid(format!("cannot access path {}: no such file or directory", wanted.display()))
    })?;
    let root = data.canonicalize().map_err(|error| EngineError::io("resolve", data, &error))?;
    if found.starts_with(&root) {
        return Ok(found);
    }
    Err(EngineError::invalid(format!("path {} is not within the volume", wanted.display())))
}

/// Brings the files of `/etc` in line with other networks; `before` is what they were made of. What was written into them since
/// stays.
pub(crate) fn refresh_etc(engine: &Inner, record: &Record, paths: &ContainerPaths, before: &EtcFiles) {
    let refreshed = engine.network.etc_files(&record.id).map_err(EngineError::from).and_then(|now| {
        let hosts = |current: &str| changed_hosts(current, &before.hosts, &now.hosts);
        replace_text(&paths.etc("hosts"), hosts)?;
        let resolv_conf =
            |current: &str| if current == before.resolv_conf { &now.resolv_conf } else { current }.to_owned();
        replace_text(&paths.etc("resolv.conf"), resolv_conf)
    });
    if let Err(error) = refreshed {
        tracing::warn!(container = %record.id, %error, "files of /etc do not know of the container's networks");
    }
}

/// Writes a file anew, in its place: the container has it mounted.
fn replace_text(path: &Path, change: impl FnOnce(&str) -> String) -> Result<(), EngineError> {
    let current = fs::read_to_string(path).map_err(|error| EngineError::io("read", path, &error))?;
    let changed = change(&current);
    if changed == current {
        return Ok(());
    }
    fs::write(path, changed).map_err(|error| EngineError::io("write", path, &error))
}

/// `/etc/hosts` without the lines that are gone and with those that are new.
fn changed_hosts(current: &str, before: &str, now: &str) -> String {
    let is_gone = |line: &str| before.lines().any(|it| it == line) && !now.lines().any(|it| it == line);
    let kept = current.lines().filter(|line| !is_gone(line));
    let new = now.lines().filter(|line| !before.lines().any(|it| it == *line));
    kept.chain(new).flat_map(|line| [line, "\n"]).collect()
}

fn write_etc(engine: &Inner, record: &Record, paths: &ContainerPaths) -> Result<(), EngineError> {
    let files = engine.network.etc_files(&record.id).map_err(network_failed)?;
    for (name, text) in ETC_FILES.iter().zip([&files.resolv_conf, &files.hostname, &files.hosts]) {
        let path = paths.etc(name);
        let written =
            fs::write(&path, text).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)));
        written.map_err(|error| EngineError::io("write", &path, &error))?;
    }
    Ok(())
}

/// Whether a shim still removes files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShimEnd {
    /// It answered `delete` a moment ago.
    Soon,
    /// There is none.
    Over,
}

/// Undoes what [`prepare`] did. Blocking; what is not there is passed over.
pub(crate) fn undo_mounts(engine: &Inner, record: &Record, paths: &ContainerPaths, shim: ShimEnd) {
    for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
        engine.volumes.unmount(&mount.name, &record.id);
        if record.life.ever_started {
            let attributes = [("container".to_owned(), record.id.clone()), ("driver".to_owned(), mount.driver.clone())];
            engine.events.log("volume", "unmount", &mount.name, attributes.into());
        }
    }
    task_files::remove(&paths.files());
    if record.host_config.ipc_mode == "shareable" {
        // nothing there is fine
        let _ = umount2(&shared_memory(paths), MntFlags::MNT_DETACH);
    }
    if shim == ShimEnd::Soon {
        wait_for_shims_end(&paths.bundle());
    }
    if let Err(error) = fs::remove_dir_all(&paths.exec)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(container = %record.id, %error, "cannot remove {}", paths.exec.display());
    }
}

/// A shim answers `delete` just before it removes its own files by name; until then the next start must not write new ones.
fn wait_for_shims_end(bundle: &Path) {
    const STEPS: u32 = 2500;
    const STEP: std::time::Duration = std::time::Duration::from_micros(200);
    let config = bundle.join("config.json");
    for _ in 0..STEPS {
        if !config.exists() {
            return;
        }
        std::thread::sleep(STEP);
    }
}

/// The runtime's command line.
pub(crate) fn runtime_command(engine: &Inner, record: &Record) -> RuntimeCommand {
    let config = &engine.config;
    let wanted =
        if record.host_config.runtime.is_empty() { &config.default_runtime } else { &record.host_config.runtime };
    let root = Some(config.exec_root.join("runtime"));
    match config.runtimes.get(wanted) {
        Some(runtime) if wanted != BUILT_IN_RUNTIME => {
            let direct = ["runc", "crun"].iter().any(|name| runtime.path.ends_with(name));
            let signals = if direct { SignalPath::Direct } else { SignalPath::Runtime };
            let (program, args) = (runtime.path.clone(), runtime.args.clone());
            RuntimeCommand { program, fd: None, args, root, systemd_cgroup: false, signals }
        }
        _ => RuntimeCommand {
            program: config.skep_binary.clone(),
            fd: None,
            args: vec!["runtime".to_owned()],
            root,
            systemd_cgroup: false,
            signals: SignalPath::Direct,
        },
    }
}

fn log_spec(record: &Record, paths: &ContainerPaths) -> LogSpec {
    let log = &record.host_config.log_config;
    if log.kind == "none" {
        return LogSpec { driver: LogDriver::None, ..LogSpec::default() };
    }
    let option = |name: &str| log.config.as_ref().and_then(|options| options.get(name)).map(String::as_str);
    LogSpec {
        driver: LogDriver::JsonFile,
        path: paths.log(),
        max_size: option("max-size").and_then(log_options::parse_size).unwrap_or(0),
        max_file: option("max-file").and_then(|text| text.parse().ok()).unwrap_or(1),
        compress: option("compress").is_some_and(|text| text == "true"),
        attrs: log_options::attributes(log, &record.config, &record.id, &record.name),
    }
}

/// What the shim is told.
pub(crate) fn document(engine: &Inner, record: &Record, paths: &ContainerPaths) -> Launch {
    let [rows, columns] = record.host_config.console_size.map(|size| u16::try_from(size).unwrap_or(u16::MAX));
    Launch {
        version: shim::protocol::VERSION,
        container: record.id.clone(),
        bundle: paths.bundle(),
        runtime: runtime_command(engine, record),
        terminal: record.config.tty,
        size: (rows > 0 && columns > 0).then_some(WindowSize { rows, columns }),
        open_stdin: record.config.open_stdin,
        stdin_once: record.config.stdin_once,
        log: log_spec(record, paths),
        exit_record: paths.exit(),
        memory_cgroup: None,
        oom_score_adj: Some(SHIM_OOM_SCORE),
        attach_stall_ms: 0,
    }
}

/// Writes the OCI document. Not flushed: the exec root does not outlive the machine.
pub(crate) fn write(paths: &ContainerPaths, prepared: &Prepared) -> Result<(), EngineError> {
    let path = paths.bundle().join("config.json");
    replace_file(&path, &prepared.config, Flush::Later).map_err(|error| EngineError::io("write", &path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_change_by_line_and_keep_what_was_added() {
        let before = "127.0.0.1\tlocalhost\n172.17.0.2\tweb\n";
        let now = "127.0.0.1\tlocalhost\n10.0.1.5\tweb\n";
        let current = format!("{before}192.0.2.7\tmine\n");
        assert_eq!(changed_hosts(&current, before, now), "127.0.0.1\tlocalhost\n192.0.2.7\tmine\n10.0.1.5\tweb\n");
        assert_eq!(changed_hosts(&current, before, before), current);
    }

    #[test]
    fn ports_open_on_ipv4_addresses() {
        for (text, expected) in [
            ("", Ok(None)),
            ("0.0.0.0", Ok(None)),
            ("127.0.0.1", Ok(Some(Ipv4Addr::LOCALHOST))),
            ("::", Err("ports are published on IPv4 addresses only, not on ::")),
            ("::1", Err("ports are published on IPv4 addresses only, not on ::1")),
            ("here", Err("invalid IP address: here")),
        ] {
            let found = host_address(text).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
    }
}
