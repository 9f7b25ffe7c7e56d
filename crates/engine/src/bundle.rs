//! From a container's record to the input of the OCI spec, and to the `process` of an exec.
//!
//! The place where dockerd's words (`private`, `container:…`, `seccomp=unconfined`) become what [`crate::spec`] takes.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use docker_types::container::{HostConfig, ThrottleDevice};
use docker_types::exec::ExecCreateRequest;

use crate::EngineError;
use crate::engine::Inner;
use crate::launch::network_mode;
use crate::network::{ContainerNetwork, NetworkMode};
use crate::record::{ContainerPaths, MountKind, MountRecord, Record};
use crate::spec::{
    self, Bind, BindAccess, BindDepth, DeviceRate, Ipc, Limit, MountInput, Namespace, Network, Privilege, Propagation,
    Resources, SeccompChoice, SpecInput,
};
use crate::task_files::TaskFiles;

/// dockerd's `PATH` for containers whose image has none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// To dockerd none of these is the fault of the request to start.
fn refused(error: spec::SpecError) -> EngineError {
    EngineError::internal(error.to_string())
}

/// The kernel's architecture and version, looked up once.
fn host() -> spec::Host {
    static HOST: OnceLock<spec::Host> = OnceLock::new();
    HOST.get_or_init(spec::Host::current).clone()
}

fn thermal_paths() -> Vec<String> {
    static PATHS: OnceLock<Vec<String>> = OnceLock::new();
    PATHS.get_or_init(spec::thermal_paths).clone()
}

/// The document for `config.json`. Blocking: it looks into the root filesystem for users.
pub(crate) fn document(
    engine: &Inner,
    record: &Record,
    paths: &ContainerPaths,
    rootfs: &image::Rootfs,
    network: &ContainerNetwork,
    files: &TaskFiles,
) -> Result<Vec<u8>, EngineError> {
    let mut input = process_input(record, &rootfs.merged)?;
    let host = &record.host_config;
    input.readonly_rootfs = host.readonly_rootfs;
    input.hostname.clone_from(&record.config.hostname);
    input.domainname.clone_from(&record.config.domainname);
    input.masked_paths.clone_from(&host.masked_paths);
    input.readonly_paths.clone_from(&host.readonly_paths);
    input.thermal_paths = thermal_paths();
    input.devices = devices(host)?;
    input.device_rules = host.device_cgroup_rules.clone().unwrap_or_default();
    input.mounts = mounts(record, paths, files);
    input.shm_size = if host.shm_size > 0 { host.shm_size } else { spec::DEFAULT_SHM_SIZE };
    input.network = network_of(engine, record, network)?;
    // those of a sandbox are set with it; of the host's network the runtime refuses them
    let in_sandbox = matches!(input.network, Network::Sandbox(_));
    let sysctls = host.sysctls.iter().filter(|(name, _)| !in_sandbox || !name.starts_with("net."));
    input.sysctls = sysctls.map(|(name, value)| (name.clone(), value.clone())).collect();
    input.ipc = ipc(engine, host, paths)?;
    input.pid = namespace(engine, &host.pid_mode, "pid")?;
    input.uts = if host.uts_mode == "host" { Namespace::Host } else { Namespace::New };
    input.cgroup = if host.cgroupns_mode == "host" { Namespace::Host } else { Namespace::New };
    let parent = if host.cgroup_parent.is_empty() { &engine.config.cgroup_parent } else { &host.cgroup_parent };
    input.cgroup_parent = Some(parent.clone()).filter(|parent| !parent.is_empty());
    input.resources = resources(host)?;
    input.annotations.clone_from(&host.annotations);
    if host.init.unwrap_or(engine.config.init) {
        // under that name the binary is the init process
        input.init = Some(engine.config.skep_binary.clone());
    }
    let spec = spec::build(&input).map_err(refused)?;
    serde_json::to_vec(&spec).map_err(|error| EngineError::internal(format!("runtime spec: {error}")))
}

/// What container and exec have in common.
fn process_input(record: &Record, rootfs: &Path) -> Result<SpecInput, EngineError> {
    let host_config = &record.host_config;
    let args = std::iter::once(record.path.clone()).chain(record.args.iter().cloned()).collect();
    let mut input = SpecInput::new(&record.id, rootfs, args, host());
    input.env = environment(record, record.config.tty, &[]);
    input.cwd = PathBuf::from(&record.config.working_dir);
    let groups = host_config.group_add.clone().unwrap_or_default();
    input.user = spec::resolve_user(rootfs, &record.config.user, &groups).map_err(refused)?;
    input.tty = record.config.tty;
    input.privilege = if host_config.privileged { Privilege::Privileged } else { Privilege::Ordinary };
    input.cap_add = host_config.cap_add.clone().unwrap_or_default();
    input.cap_drop = host_config.cap_drop.clone().unwrap_or_default();
    let security = security(host_config)?;
    (input.seccomp, input.no_new_privileges) = (security.seccomp, security.no_new_privileges);
    input.writable_cgroups = security.writable_cgroups.unwrap_or(host_config.privileged);
    let limits = host_config.ulimits.iter().flatten();
    input.limits = limits.map(|limit| Limit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard }).collect();
    input.oom_score_adj = i32::try_from(host_config.oom_score_adj).unwrap_or_default();
    Ok(input)
}

/// dockerd's own variables, then the image's and the user's.
fn environment(record: &Record, tty: bool, further: &[String]) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", record.config.hostname)];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    let own = record.config.env.as_deref().unwrap_or_default();
    for variable in own.iter().chain(further) {
        let Some((name, _)) = variable.split_once('=') else {
            // without a value it takes the variable away
            env.retain(|known| known.split('=').next() != Some(variable.as_str()));
            continue;
        };
        match env.iter_mut().find(|known| known.split('=').next() == Some(name)) {
            Some(known) => known.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    env
}

/// What `--security-opt` comes to.
#[derive(Clone, Debug, PartialEq)]
struct Security {
    seccomp: SeccompChoice,
    no_new_privileges: bool,
    /// `None`: as for any container of its privilege.
    writable_cgroups: Option<bool>,
}

fn security(host: &HostConfig) -> Result<Security, EngineError> {
    let seccomp = if host.privileged { SeccompChoice::Unconfined } else { SeccompChoice::Default };
    let mut security = Security { seccomp, no_new_privileges: false, writable_cgroups: None };
    for option in host.security_opt.iter().flatten() {
        // dockerd leaves these errors unclassified, and numbers their kinds
        let invalid = |kind: u8| EngineError::internal(format!("invalid --security-opt {kind}: {option:?}"));
        let separator = if option.contains('=') { '=' } else { ':' };
        let parsed = match (option.as_str(), option.split_once(separator)) {
            ("no-new-privileges" | "writable-cgroups", _) => (option.as_str(), "true"),
            ("disable", _) => ("label", "disable"),
            (_, Some(parsed)) => parsed,
            (_, None) => return Err(invalid(1)),
        };
        match parsed {
            ("no-new-privileges", value) => {
                security.no_new_privileges = go_bool(value).ok_or_else(|| invalid(2))?;
            }
            ("writable-cgroups", value) => {
                security.writable_cgroups = Some(go_bool(value).ok_or_else(|| invalid(2))?);
            }
            ("seccomp", "unconfined") => security.seccomp = SeccompChoice::Unconfined,
            ("seccomp", "builtin") => security.seccomp = SeccompChoice::Default,
            ("seccomp", profile) => security.seccomp = SeccompChoice::Profile(profile.to_owned()),
            ("apparmor" | "label", _) => {}
            _ => return Err(invalid(2)),
        }
    }
    Ok(security)
}

/// The words of Go's `strconv.ParseBool`.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Refuses options that [`document`] would refuse at the start, where dockerd does so at creation.
pub(crate) fn check_security(host: &HostConfig) -> Result<(), EngineError> {
    security(host).map(drop)
}

/// The same for `--cap-add` and `--cap-drop`.
pub(crate) fn check_capabilities(host: &HostConfig) -> Result<(), EngineError> {
    let no_capabilities = Default::default();
    for (names, option) in [(&host.cap_add, "CapAdd"), (&host.cap_drop, "CapDrop")] {
        let resolved = spec::capabilities::resolve(
            Privilege::Ordinary,
            names.as_deref().unwrap_or_default(),
            &[],
            &no_capabilities,
        );
        resolved.map_err(|error| EngineError::invalid(format!("invalid {option}: {error}")))?;
    }
    Ok(())
}

fn devices(host: &HostConfig) -> Result<Vec<spec::Device>, EngineError> {
    let mut devices = if host.privileged { spec::devices::of_host() } else { Vec::new() };
    for mapping in host.devices.iter().flatten() {
        let inside =
            if mapping.path_in_container.is_empty() { &mapping.path_on_host } else { &mapping.path_in_container };
        let access = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
        let found =
            spec::devices::from_path(Path::new(&mapping.path_on_host), Path::new(inside), access).map_err(refused)?;
        devices.retain(|known| !found.iter().any(|device| device.path == known.path));
        devices.extend(found);
    }
    Ok(devices)
}

fn propagation(text: &str) -> Propagation {
    let all = [
        Propagation::Private,
        Propagation::Shared,
        Propagation::RecursiveShared,
        Propagation::Slave,
        Propagation::RecursiveSlave,
    ];
    all.into_iter().find(|known| known.as_str() == text).unwrap_or_default()
}

/// mount_setattr(2) came with Linux 5.12.
fn can_be_read_only_below() -> bool {
    host().kernel >= (5, 12)
}

fn own_mount(mount: &MountRecord) -> MountInput {
    if mount.kind == MountKind::Tmpfs {
        return MountInput::Tmpfs { target: PathBuf::from(&mount.destination), options: mount.tmpfs_options.clone() };
    }
    MountInput::Bind(Bind {
        source: mount.source.clone(),
        target: PathBuf::from(&mount.destination),
        access: match mount.read_only {
            true if mount.writable_below || !can_be_read_only_below() => BindAccess::ReadOnly,
            true => BindAccess::ReadOnlyRecursive,
            false => BindAccess::ReadWrite,
        },
        depth: if mount.non_recursive { BindDepth::Single } else { BindDepth::Recursive },
        propagation: propagation(&mount.propagation),
    })
}

fn bind(source: PathBuf, target: &str, access: BindAccess) -> MountInput {
    MountInput::Bind(Bind {
        source,
        target: PathBuf::from(target),
        access,
        depth: BindDepth::Recursive,
        propagation: Propagation::default(),
    })
}

fn mounts(record: &Record, paths: &ContainerPaths, files: &TaskFiles) -> Vec<MountInput> {
    let mut all: Vec<MountInput> = record.mounts.iter().map(own_mount).collect();
    let taken = |target: &str| record.mounts.iter().any(|mount| mount.destination == target);
    let access = if record.host_config.readonly_rootfs { BindAccess::ReadOnly } else { BindAccess::ReadWrite };
    for name in crate::launch::ETC_FILES {
        let target = format!("/etc/{name}");
        if !taken(&target) {
            all.push(bind(paths.etc(name), &target, access));
        }
    }
    for (source, target) in &files.binds {
        all.push(bind(source.clone(), target, BindAccess::ReadOnly));
    }
    all
}

/// A namespace file of a container that runs.
fn namespace_of(engine: &Inner, name: &str, kind: &str) -> Result<PathBuf, EngineError> {
    let pid = engine.index.find(name)?.record().life.pid;
    Ok(PathBuf::from(format!("/proc/{pid}/ns/{kind}")))
}

fn namespace(engine: &Inner, mode: &str, kind: &str) -> Result<Namespace, EngineError> {
    match mode.strip_prefix("container:") {
        Some(name) => Ok(Namespace::At(namespace_of(engine, name, kind)?)),
        None if mode == "host" => Ok(Namespace::Host),
        None => Ok(Namespace::New),
    }
}

fn network_of(engine: &Inner, record: &Record, network: &ContainerNetwork) -> Result<Network, EngineError> {
    match (network_mode(record), &network.netns) {
        (NetworkMode::Container(_), Some(netns)) => Ok(Network::Container(netns.clone())),
        (NetworkMode::Container(name), None) => Ok(Network::Container(namespace_of(engine, &name, "net")?)),
        (NetworkMode::None, None) => Ok(Network::New),
        (_, Some(netns)) => Ok(Network::Sandbox(netns.clone())),
        (_, None) => Ok(Network::Host),
    }
}

/// Shared memory of a container that lets others have it too.
pub(crate) fn shared_memory(paths: &ContainerPaths) -> PathBuf {
    paths.exec.join("shm")
}

fn ipc(engine: &Inner, host: &HostConfig, paths: &ContainerPaths) -> Result<Ipc, EngineError> {
    match host.ipc_mode.as_str() {
        "host" => Ok(Ipc::Host),
        "none" => Ok(Ipc::None),
        "shareable" => Ok(Ipc::Shareable(shared_memory(paths))),
        mode => match mode.strip_prefix("container:") {
            Some(name) => {
                let shm = shared_memory(&engine.index.find(name)?.paths);
                Ok(Ipc::Container { namespace: namespace_of(engine, name, "ipc")?, shm })
            }
            None => Ok(Ipc::Private),
        },
    }
}

/// The limits of a container. Blocking: it looks at the devices that have some.
fn resources(host: &HostConfig) -> Result<Resources, EngineError> {
    let rates = |devices: &Option<Vec<ThrottleDevice>>| {
        devices.iter().flatten().map(|device| device_rate(&device.path, device.rate)).collect::<Result<Vec<_>, _>>()
    };
    let weights = host.blkio_weight_device.iter().flatten();
    Ok(Resources {
        memory: host.memory,
        memory_swap: host.memory_swap,
        memory_reservation: host.memory_reservation,
        memory_swappiness: host.memory_swappiness,
        oom_kill_disable: host.oom_kill_disable,
        cpu_shares: host.cpu_shares,
        cpu_quota: host.cpu_quota,
        cpu_period: host.cpu_period,
        nano_cpus: host.nano_cpus,
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        cpu_realtime_runtime: host.cpu_realtime_runtime,
        cpu_realtime_period: host.cpu_realtime_period,
        pids_limit: host.pids_limit,
        blkio_weight: host.blkio_weight,
        blkio_weight_device: weights
            .map(|device| device_rate(&device.path, device.weight.into()))
            .collect::<Result<_, _>>()?,
        blkio_read_bps: rates(&host.blkio_device_read_bps)?,
        blkio_write_bps: rates(&host.blkio_device_write_bps)?,
        blkio_read_iops: rates(&host.blkio_device_read_iops)?,
        blkio_write_iops: rates(&host.blkio_device_write_iops)?,
    })
}

fn device_rate(path: &str, rate: u64) -> Result<DeviceRate, EngineError> {
    let found = nix::sys::stat::stat(path)
        .map_err(|error| EngineError::internal(format!("stat {path}: {}", error.desc().to_lowercase())))?;
    let device = found.st_rdev;
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    Ok(DeviceRate { major: major as i64, minor: minor as i64, rate })
}

/// The OCI `process` of an exec.
pub(crate) fn exec_process(
    engine: &Inner,
    record: &Record,
    request: &ExecCreateRequest,
) -> Result<serde_json::Value, EngineError> {
    let rootfs = engine.images.rootfs(&record.id)?;
    let mut record = record.clone();
    let mut words = request.cmd.clone().unwrap_or_default().into_iter();
    record.path = words.next().unwrap_or_default();
    record.args = words.collect();
    if !request.user.is_empty() {
        record.config.user.clone_from(&request.user);
    }
    if !request.working_dir.is_empty() {
        record.config.working_dir.clone_from(&request.working_dir);
    }
    record.host_config.privileged |= request.privileged;
    record.config.tty = request.tty;
    let mut input = process_input(&record, &rootfs.merged)?;
    input.env = environment(&record, request.tty, request.env.as_deref().unwrap_or_default());
    let spec = spec::build(&input).map_err(refused)?;
    let process = spec.process().as_ref().ok_or_else(|| EngineError::internal("a spec without a process"))?;
    serde_json::to_value(process).map_err(|error| EngineError::internal(format!("runtime spec: {error}")))
}

/// What `update` tells the runtime.
pub(crate) fn oci_resources(host: &HostConfig) -> Result<serde_json::Value, EngineError> {
    let resources = spec::resources::resources(&resources(host)?).map_err(refused)?;
    serde_json::to_value(resources).map_err(|error| EngineError::internal(format!("runtime spec: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_are_read_as_dockerd_does() {
        let read = |option: &str| {
            let host = HostConfig { security_opt: Some(vec![option.into()]), ..HostConfig::default() };
            security(&host).map_err(|error| error.to_string())
        };
        for (option, error) in [
            ("x", "invalid --security-opt 1: \"x\""),
            ("x=y", "invalid --security-opt 2: \"x=y\""),
            ("systempaths=unconfined", "invalid --security-opt 2: \"systempaths=unconfined\""),
            ("no-new-privileges=maybe", "invalid --security-opt 2: \"no-new-privileges=maybe\""),
        ] {
            assert_eq!(read(option).unwrap_err(), error);
        }
        for option in ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=1"] {
            assert!(read(option).unwrap().no_new_privileges, "{option}");
        }
        assert!(!read("no-new-privileges=false").unwrap().no_new_privileges);
        assert_eq!(read("writable-cgroups=false").unwrap().writable_cgroups, Some(false));
        assert_eq!(read("writable-cgroups").unwrap().writable_cgroups, Some(true));
        assert_eq!(read("seccomp=unconfined").unwrap().seccomp, SeccompChoice::Unconfined);
        assert!(read("disable").is_ok() && read("label=type:x").is_ok());
    }

    #[test]
    fn a_device_with_a_limit_must_be_there() {
        let error = device_rate("/dev/no-such", 1).unwrap_err().to_string();
        assert_eq!(error, "stat /dev/no-such: no such file or directory");
        assert_eq!(device_rate("/dev/null", 5).unwrap(), DeviceRate { major: 1, minor: 3, rate: 5 });
    }
}
