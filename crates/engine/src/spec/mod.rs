//! From a container's configuration to the OCI runtime spec that dockerd 28 would write for it.
//!
//! Owns: [`SpecInput`], which holds all that influences a spec as plain fields, and [`build`]. Invariants: `build` is
//! pure (the same input gives the same spec); what looks at the host or into a container's root is a function of its
//! own ([`resolve_user`], [`devices::from_path`], [`devices::of_host`], [`seccomp::Host::current`], [`thermal_paths`]).
//! Caller: the start of a container; `process` also that of an exec.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxBuilder, LinuxCapabilities, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    UserBuilder,
};

pub mod capabilities;
pub mod devices;
pub mod mounts;
pub mod resources;
pub mod seccomp;
mod seccomp_table;
mod user;

#[cfg(test)]
mod tests;

pub use capabilities::Privilege;
pub use devices::{Device, DeviceKind};
pub use mounts::{Bind, BindAccess, BindDepth, MountInput, Propagation};
pub use resources::{DeviceRate, Resources};
pub use seccomp::{Host, SeccompChoice};
pub use user::{ResolvedUser, resolve_user};

/// dockerd's cgroup parent if neither container nor daemon names one.
pub const DEFAULT_CGROUP_PARENT: &str = "/docker";

/// Size of `/dev/shm` unless the container asks for another, in bytes.
pub const DEFAULT_SHM_SIZE: i64 = 64 << 20;

/// Why there is no spec.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// `--cap-add` or `--cap-drop`.
    #[error("unknown capability: {0:?}")]
    UnknownCapability(String),
    /// `--user`.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// `--user` or `--group-add`.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// A numeric id out of range.
    #[error("uids and gids must be in range 0-2147483647")]
    IdRange,
    /// `--device`.
    #[error("error gathering device information while adding custom device {:?}: no such file or directory", .0.display().to_string())]
    NoDevice(PathBuf),
    /// `--device-cgroup-rule`.
    #[error("invalid device cgroup rule format: '{0}'")]
    DeviceRule(String),
    /// `--ulimit`.
    #[error("invalid ulimit type: {0}")]
    UnknownLimit(String),
    /// A mount that is not at an absolute path.
    #[error("invalid mount target {:?}: it must be absolute", .0.display().to_string())]
    MountTarget(PathBuf),
    /// `--tmpfs`.
    #[error("invalid tmpfs option [{0:?}]")]
    TmpfsOption(String),
    /// `--security-opt seccomp=`.
    #[error("{0}")]
    Seccomp(String),
    /// The cgroup parent leaves the hierarchy.
    #[error("invalid cgroup parent {0:?}")]
    CgroupParent(String),
    /// A required part is missing.
    #[error("building the runtime spec: {0}")]
    Build(#[from] OciSpecError),
}

/// A namespace of the container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Namespace {
    /// A new one.
    #[default]
    New,
    /// The host's.
    Host,
    /// An existing one, by its file: another container's, or the network sandbox made for this container.
    At(PathBuf),
}

/// Where the network is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// A new, empty namespace.
    #[default]
    New,
    /// The sandbox made for this container, by its file: gets dockerd's network sysctls.
    Sandbox(PathBuf),
    /// The host's.
    Host,
    /// Another container's, by its file.
    Container(PathBuf),
}

/// `--ipc`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ipc {
    /// A namespace and shared memory of its own.
    #[default]
    Private,
    /// A namespace of its own, no `/dev/shm`.
    None,
    /// A namespace of its own; `/dev/shm` is this directory of the host, so others can have it too.
    Shareable(PathBuf),
    /// The host's.
    Host,
    /// Another container's.
    Container {
        /// Its namespace's file.
        namespace: PathBuf,
        /// Its shared memory on the host.
        shm: PathBuf,
    },
}

impl Ipc {
    /// The directory that becomes `/dev/shm`, if it is not one of the container's own.
    fn shared_memory(&self) -> Option<&Path> {
        match self {
            Ipc::Private | Ipc::None => None,
            Ipc::Shareable(shm) | Ipc::Container { shm, .. } => Some(shm),
            Ipc::Host => Some(Path::new("/dev/shm")),
        }
    }
}

/// A limit of `--ulimit`; -1 stands for no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Name without `RLIMIT_`, in any case.
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

/// All that makes a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecInput {
    /// The container's id: the last part of its cgroup.
    pub id: String,
    /// The root's path; absolute, or relative to the bundle.
    pub rootfs: PathBuf,
    /// `--read-only`.
    pub readonly_rootfs: bool,
    /// Program and arguments; not empty.
    pub args: Vec<String>,
    /// Environment, `NAME=value`, in order.
    pub env: Vec<String>,
    /// Working directory; empty: `/`.
    pub cwd: PathBuf,
    /// By [`resolve_user`].
    pub user: ResolvedUser,
    /// Host name; not set with the host's UTS namespace.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// `--tty`.
    pub tty: bool,
    /// `--privileged`.
    pub privilege: Privilege,
    /// `--cap-add`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// What the daemon itself may give away: [`capabilities::ALL`] or its own bounding set.
    pub available_capabilities: Capabilities,
    /// `--security-opt seccomp=`.
    pub seccomp: SeccompChoice,
    /// `--security-opt no-new-privileges`.
    pub no_new_privileges: bool,
    /// Whether `/sys/fs/cgroup` may be written.
    pub writable_cgroups: bool,
    /// AppArmor profile, if the host has AppArmor.
    pub apparmor: Option<String>,
    /// `None`: [`MASKED_PATHS`] (nothing for `--privileged`).
    pub masked_paths: Option<Vec<String>>,
    /// Paths of the host to mask besides, from [`thermal_paths`]; used only with the default list.
    pub thermal_paths: Vec<String>,
    /// `None`: [`READONLY_PATHS`] (nothing for `--privileged`).
    pub readonly_paths: Option<Vec<String>>,
    /// `--device`s, and the host's for `--privileged`.
    pub devices: Vec<Device>,
    /// `--device-cgroup-rule`.
    pub device_rules: Vec<String>,
    /// `--ulimit` with the daemon's defaults merged.
    pub limits: Vec<Limit>,
    /// `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
    /// `--oom-score-adj`.
    pub oom_score_adj: i32,
    /// Binds, volumes, tmpfs, `/etc/hosts` and the like.
    pub mounts: Vec<MountInput>,
    /// Bytes of `/dev/shm`.
    pub shm_size: i64,
    /// `--network`.
    pub network: Network,
    /// `--ipc`.
    pub ipc: Ipc,
    /// `--pid`.
    pub pid: Namespace,
    /// `--uts`.
    pub uts: Namespace,
    /// `--cgroupns`.
    pub cgroup: Namespace,
    /// `--cgroup-parent` or the daemon's; `None`: [`DEFAULT_CGROUP_PARENT`].
    pub cgroup_parent: Option<String>,
    /// Limits.
    pub resources: Resources,
    /// `--init`: the program on the host that becomes [`mounts::INIT_PATH`]. Has no effect without a pid namespace of
    /// the container's own.
    pub init: Option<PathBuf>,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// The machine, for seccomp profiles.
    pub host: Host,
}

/// dockerd 28's masked paths.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// dockerd 28's read-only paths.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The host's files about CPU temperatures, which dockerd masks too. Looks at `/sys`; call once.
pub fn thermal_paths() -> Vec<String> {
    let cpus = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let mut paths: Vec<String> = cpus
        .filter(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("cpu"));
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect();
    paths.sort();
    paths
}

impl SpecInput {
    /// A confined container with dockerd's defaults.
    pub fn new(id: &str, rootfs: impl Into<PathBuf>, args: Vec<String>, host: Host) -> SpecInput {
        SpecInput {
            id: id.to_owned(),
            rootfs: rootfs.into(),
            readonly_rootfs: false,
            args,
            env: Vec::new(),
            cwd: PathBuf::new(),
            user: ResolvedUser::default(),
            hostname: String::new(),
            domainname: String::new(),
            tty: false,
            privilege: Privilege::Ordinary,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            available_capabilities: capabilities::ALL.into_iter().collect(),
            seccomp: SeccompChoice::Default,
            no_new_privileges: false,
            writable_cgroups: false,
            apparmor: None,
            masked_paths: None,
            thermal_paths: Vec::new(),
            readonly_paths: None,
            devices: Vec::new(),
            device_rules: Vec::new(),
            limits: Vec::new(),
            sysctls: BTreeMap::new(),
            oom_score_adj: 0,
            mounts: Vec::new(),
            shm_size: DEFAULT_SHM_SIZE,
            network: Network::New,
            ipc: Ipc::Private,
            pid: Namespace::New,
            uts: Namespace::New,
            cgroup: Namespace::New,
            cgroup_parent: None,
            resources: Resources::default(),
            init: None,
            annotations: BTreeMap::new(),
            host,
        }
    }

    fn privileged(&self) -> bool {
        self.privilege == Privilege::Privileged
    }
}

/// The spec of a container.
pub fn build(input: &SpecInput) -> Result<Spec, SpecError> {
    // A pid namespace shared with others has its first process already.
    let input = &SpecInput { init: input.init.clone().filter(|_| input.pid == Namespace::New), ..input.clone() };
    let granted =
        capabilities::resolve(input.privilege, &input.cap_add, &input.cap_drop, &input.available_capabilities)?;
    let root = RootBuilder::default().path(input.rootfs.clone()).readonly(input.readonly_rootfs).build()?;
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(root)
        .mounts(mounts::mounts(input)?)
        .process(process(input, &granted)?)
        .linux(linux(input, &granted)?)
        .build()?;
    let hostname = (input.uts != Namespace::Host && !input.hostname.is_empty()).then(|| input.hostname.clone());
    spec.set_hostname(hostname);
    let annotations: HashMap<String, String> = input.annotations.clone().into_iter().collect();
    spec.set_annotations((!annotations.is_empty()).then_some(annotations));
    Ok(spec)
}

fn process(input: &SpecInput, granted: &Capabilities) -> Result<Process, SpecError> {
    let mut args = input.args.clone();
    if input.init.is_some() {
        args.splice(..0, [mounts::INIT_PATH.to_owned(), "--".to_owned()]);
    }
    let user = UserBuilder::default()
        .uid(input.user.uid)
        .gid(input.user.gid)
        .additional_gids(input.user.additional_gids.clone())
        .build()?;
    let cwd = if input.cwd.as_os_str().is_empty() { Path::new("/") } else { &input.cwd };
    let mut process = ProcessBuilder::default().args(args).env(input.env.clone()).cwd(cwd).user(user).build()?;
    process
        .set_terminal(input.tty.then_some(true))
        .set_capabilities(Some(capability_sets(granted)))
        .set_rlimits(limits(&input.limits)?)
        // Absent rather than false: runtimes tell the two apart.
        .set_no_new_privileges(input.no_new_privileges.then_some(true))
        .set_apparmor_profile(input.apparmor.clone())
        .set_oom_score_adj(Some(input.oom_score_adj));
    Ok(process)
}

/// Inheritable and ambient sets stay empty (CVE-2022-24769).
fn capability_sets(granted: &Capabilities) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(granted.clone()))
        .set_permitted(Some(granted.clone()))
        .set_effective(Some(granted.clone()))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

fn limits(limits: &[Limit]) -> Result<Option<Vec<PosixRlimit>>, SpecError> {
    let build = |limit: &Limit| {
        let unknown = || SpecError::UnknownLimit(limit.name.clone());
        let name = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
        let kind: PosixRlimitType = name.parse().map_err(|_| unknown())?;
        // The kernel's "no limit" has all bits set, as -1 has.
        let (soft, hard) = (limit.soft.cast_unsigned(), limit.hard.cast_unsigned());
        Ok::<_, SpecError>(PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build()?)
    };
    let limits = limits.iter().map(build).collect::<Result<Vec<_>, _>>()?;
    Ok((!limits.is_empty()).then_some(limits))
}

fn linux(input: &SpecInput, granted: &Capabilities) -> Result<Linux, SpecError> {
    let mut limits = resources::resources(&input.resources)?;
    limits.set_devices(Some(if input.privileged() {
        devices::all_allowed()?
    } else {
        devices::rules(&input.devices, &input.device_rules)?
    }));
    let sysctls = sysctls(input);
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(input)?)
        .cgroups_path(cgroups_path(input)?)
        .resources(limits)
        .build()?;
    linux
        .set_sysctl((!sysctls.is_empty()).then_some(sysctls))
        .set_devices(Some(devices::nodes(&input.devices)?))
        .set_seccomp(filter(input, granted)?)
        .set_masked_paths(masked_paths(input))
        .set_readonly_paths(readonly_paths(input))
        .set_rootfs_propagation(mounts::rootfs_propagation(input).map(str::to_owned));
    Ok(linux)
}

fn filter(input: &SpecInput, granted: &Capabilities) -> Result<Option<oci_spec::runtime::LinuxSeccomp>, SpecError> {
    match &input.seccomp {
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::Default if input.privileged() => Ok(None),
        SeccompChoice::Default => seccomp::default_profile(granted, &input.host).map(Some),
        SeccompChoice::Profile(text) => seccomp::from_json(text, granted, &input.host).map(Some),
    }
}

fn masked_paths(input: &SpecInput) -> Option<Vec<String>> {
    if input.privileged() {
        return None;
    }
    let paths = input.masked_paths.clone().unwrap_or_else(|| {
        MASKED_PATHS.iter().map(ToString::to_string).chain(input.thermal_paths.iter().cloned()).collect()
    });
    (!paths.is_empty()).then_some(paths)
}

fn readonly_paths(input: &SpecInput) -> Option<Vec<String>> {
    if input.privileged() {
        return None;
    }
    let paths = input.readonly_paths.clone();
    let paths = paths.unwrap_or_else(|| READONLY_PATHS.iter().map(ToString::to_string).collect());
    (!paths.is_empty()).then_some(paths)
}

fn sysctls(input: &SpecInput) -> HashMap<String, String> {
    let mut sysctls = HashMap::new();
    if matches!(input.network, Network::New | Network::Sandbox(_)) {
        // Echo requests and low ports need no capability in a network of one's own.
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
    }
    if !input.domainname.is_empty() && input.uts != Namespace::Host {
        sysctls.insert("kernel.domainname".to_owned(), input.domainname.clone());
    }
    sysctls.extend(input.sysctls.clone());
    sysctls
}

fn namespaces(input: &SpecInput) -> Result<Vec<LinuxNamespace>, SpecError> {
    let network = match &input.network {
        Network::New => Namespace::New,
        Network::Host => Namespace::Host,
        Network::Sandbox(path) | Network::Container(path) => Namespace::At(path.clone()),
    };
    let ipc = match &input.ipc {
        Ipc::Private | Ipc::None | Ipc::Shareable(_) => Namespace::New,
        Ipc::Host => Namespace::Host,
        Ipc::Container { namespace, .. } => Namespace::At(namespace.clone()),
    };
    let all = [
        (LinuxNamespaceType::Mount, &Namespace::New),
        (LinuxNamespaceType::Network, &network),
        (LinuxNamespaceType::Uts, &input.uts),
        (LinuxNamespaceType::Pid, &input.pid),
        (LinuxNamespaceType::Ipc, &ipc),
        (LinuxNamespaceType::Cgroup, &input.cgroup),
    ];
    let mut namespaces = Vec::new();
    for (kind, namespace) in all {
        let builder = LinuxNamespaceBuilder::default().typ(kind);
        match namespace {
            Namespace::Host => {}
            Namespace::New => namespaces.push(builder.build()?),
            Namespace::At(path) => namespaces.push(builder.path(path).build()?),
        }
    }
    Ok(namespaces)
}

/// `/docker/<id>`, or below the configured parent; the same on cgroup v1 and v2.
fn cgroups_path(input: &SpecInput) -> Result<PathBuf, SpecError> {
    use std::path::Component;
    let parent = input.cgroup_parent.as_deref().filter(|parent| !parent.is_empty()).unwrap_or(DEFAULT_CGROUP_PARENT);
    let mut path = PathBuf::from("/");
    for component in Path::new(parent).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(SpecError::CgroupParent(parent.to_owned())),
        }
    }
    Ok(path.join(&input.id))
}
