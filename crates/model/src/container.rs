//! What a task runs: the container spec and all it refers to. The fields are SwarmKit's; `swarm-proto` converts them.

#[allow(unused_imports, reason = "one prelude for all files of the model")]
use crate::prelude::*;
use std::collections::BTreeMap;

/// SwarmKit's `Image`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// Reference.
    pub reference: String,
}

/// SwarmKit's `Mount`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mount {
    /// Kind.
    pub kind: MountType,
    /// Source.
    pub source: String,
    /// Target.
    pub target: String,
    /// Readonly.
    pub readonly: bool,
    /// Bind options.
    pub bind_options: Option<BindOptions>,
    /// Volume options.
    pub volume_options: Option<VolumeOptions>,
    /// Tmpfs options.
    pub tmpfs_options: Option<TmpfsOptions>,
    /// Consistency.
    pub consistency: MountConsistency,
}

/// SwarmKit's `Mount.Type`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum MountType {
    /// `BIND`.
    #[default]
    Bind = 0,
    /// `VOLUME`.
    Volume = 1,
    /// `TMPFS`.
    Tmpfs = 2,
    /// `NPIPE`.
    Npipe = 3,
    /// `CLUSTER`.
    Cluster = 4,
}

impl MountType {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Bind,
            1 => Self::Volume,
            2 => Self::Tmpfs,
            3 => Self::Npipe,
            4 => Self::Cluster,
            _ => return None,
        })
    }
}

/// SwarmKit's `Mount.Consistency`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum MountConsistency {
    /// `DEFAULT`.
    #[default]
    Default = 0,
    /// `CONSISTENT`.
    Consistent = 1,
    /// `CACHED`.
    Cached = 2,
    /// `DELEGATED`.
    Delegated = 3,
}

impl MountConsistency {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Default,
            1 => Self::Consistent,
            2 => Self::Cached,
            3 => Self::Delegated,
            _ => return None,
        })
    }
}

/// SwarmKit's `Mount.BindOptions`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BindOptions {
    /// Propagation.
    pub propagation: MountPropagation,
    /// Nonrecursive.
    pub nonrecursive: bool,
    /// Createmountpoint.
    pub createmountpoint: bool,
    /// Readonlynonrecursive.
    pub readonlynonrecursive: bool,
    /// Readonlyforcerecursive.
    pub readonlyforcerecursive: bool,
}

/// SwarmKit's `Mount.BindOptions.Propagation`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum MountPropagation {
    /// `RPRIVATE`.
    #[default]
    Rprivate = 0,
    /// `PRIVATE`.
    Private = 1,
    /// `RSHARED`.
    Rshared = 2,
    /// `SHARED`.
    Shared = 3,
    /// `RSLAVE`.
    Rslave = 4,
    /// `SLAVE`.
    Slave = 5,
}

impl MountPropagation {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Rprivate,
            1 => Self::Private,
            2 => Self::Rshared,
            3 => Self::Shared,
            4 => Self::Rslave,
            5 => Self::Slave,
            _ => return None,
        })
    }
}

/// SwarmKit's `Mount.VolumeOptions`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeOptions {
    /// Nocopy.
    pub nocopy: bool,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// Driver config.
    pub driver_config: Option<Driver>,
    /// Subpath.
    pub subpath: String,
}

/// SwarmKit's `Mount.TmpfsOptions`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TmpfsOptions {
    /// Size bytes.
    pub size_bytes: i64,
    /// Mode.
    pub mode: u32,
    /// Options: JSON text of array of arrays of strings.
    pub options: String,
}

/// SwarmKit's `FileTarget`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileTarget {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Gid.
    pub gid: String,
    /// Mode: POSIX mode as uint32 (0444 = 292).
    pub mode: u32,
}

/// SwarmKit's `RuntimeTarget`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeTarget;

/// SwarmKit's `SecretReference`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecretReference {
    /// Secret id.
    pub secret_id: SecretId,
    /// Secret name.
    pub secret_name: String,
    /// Which one of the kinds it is, if any.
    pub target: Option<SecretReferenceTarget>,
}

/// The `target` of a [`SecretReference`].
#[derive(Clone, Debug, PartialEq)]
pub enum SecretReferenceTarget {
    /// `file`.
    File(FileTarget),
}

/// SwarmKit's `ConfigReference`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigReference {
    /// Config id.
    pub config_id: ConfigId,
    /// Config name.
    pub config_name: String,
    /// Which one of the kinds it is, if any.
    pub target: Option<ConfigReferenceTarget>,
}

/// The `target` of a [`ConfigReference`].
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigReferenceTarget {
    /// `file`.
    File(FileTarget),
    /// `runtime`.
    Runtime(RuntimeTarget),
}

/// SwarmKit's `HealthConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthConfig {
    /// Test.
    pub test: Vec<String>,
    /// Interval.
    pub interval: Option<Duration>,
    /// Timeout.
    pub timeout: Option<Duration>,
    /// Retries.
    pub retries: i32,
    /// Start period.
    pub start_period: Option<Duration>,
    /// Start interval.
    pub start_interval: Option<Duration>,
}

/// SwarmKit's `Privileges`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Privileges {
    /// Credential spec.
    pub credential_spec: Option<CredentialSpec>,
    /// Selinux context.
    pub selinux_context: Option<SeLinuxContext>,
    /// Seccomp.
    pub seccomp: Option<SeccompOpts>,
    /// Apparmor.
    pub apparmor: Option<AppArmorOpts>,
    /// No new privileges.
    pub no_new_privileges: bool,
}

/// SwarmKit's `Privileges.CredentialSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CredentialSpec {
    /// Which one of the kinds it is, if any.
    pub source: Option<CredentialSpecSource>,
}

/// The `source` of a [`CredentialSpec`].
#[derive(Clone, Debug, PartialEq)]
pub enum CredentialSpecSource {
    /// `file`.
    File(String),
    /// `registry`.
    Registry(String),
    /// `config`.
    Config(String),
}

/// SwarmKit's `Privileges.SELinuxContext`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeLinuxContext {
    /// Disable.
    pub disable: bool,
    /// User.
    pub user: String,
    /// Role.
    pub role: String,
    /// Kind.
    pub kind: String,
    /// Level.
    pub level: String,
}

/// SwarmKit's `Privileges.SeccompOpts`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeccompOpts {
    /// Mode.
    pub mode: SeccompMode,
    /// Profile.
    pub profile: Vec<u8>,
}

/// SwarmKit's `Privileges.SeccompOpts.SeccompMode`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum SeccompMode {
    /// `DEFAULT`.
    #[default]
    Default = 0,
    /// `UNCONFINED`.
    Unconfined = 1,
    /// `CUSTOM`.
    Custom = 2,
}

impl SeccompMode {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Default,
            1 => Self::Unconfined,
            2 => Self::Custom,
            _ => return None,
        })
    }
}

/// SwarmKit's `Privileges.AppArmorOpts`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppArmorOpts {
    /// Mode.
    pub mode: AppArmorMode,
}

/// SwarmKit's `Privileges.AppArmorOpts.AppArmorMode`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum AppArmorMode {
    /// `DEFAULT`.
    #[default]
    Default = 0,
    /// `DISABLED`.
    Disabled = 1,
}

impl AppArmorMode {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Default,
            1 => Self::Disabled,
            _ => return None,
        })
    }
}

/// SwarmKit's `ContainerSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerSpec {
    /// Image.
    pub image: String,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// Command.
    pub command: Vec<String>,
    /// Args.
    pub args: Vec<String>,
    /// Env.
    pub env: Vec<String>,
    /// Dir.
    pub dir: String,
    /// User.
    pub user: String,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Stop grace period.
    pub stop_grace_period: Option<Duration>,
    /// Pull options.
    pub pull_options: Option<PullOptions>,
    /// Groups: supplementary groups.
    pub groups: Vec<String>,
    /// Secrets.
    pub secrets: Vec<SecretReference>,
    /// Tty.
    pub tty: bool,
    /// Hostname.
    pub hostname: String,
    /// Dns config.
    pub dns_config: Option<DnsConfig>,
    /// Healthcheck.
    pub healthcheck: Option<HealthConfig>,
    /// Hosts.
    pub hosts: Vec<String>,
    /// Open stdin.
    pub open_stdin: bool,
    /// Read only.
    pub read_only: bool,
    /// Stop signal.
    pub stop_signal: String,
    /// Configs.
    pub configs: Vec<ConfigReference>,
    /// Privileges.
    pub privileges: Option<Privileges>,
    /// Init: wrapper: absent = daemon default.
    pub init: Option<bool>,
    /// Isolation.
    pub isolation: Isolation,
    /// Pids limit.
    pub pids_limit: i64,
    /// Sysctls.
    pub sysctls: BTreeMap<String, String>,
    /// Capability add.
    pub capability_add: Vec<String>,
    /// Capability drop.
    pub capability_drop: Vec<String>,
    /// Ulimits.
    pub ulimits: Vec<Ulimit>,
    /// Oom score adj.
    pub oom_score_adj: i64,
}

/// SwarmKit's `ContainerSpec.Isolation`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum Isolation {
    /// `ISOLATION_DEFAULT`.
    #[default]
    Default = 0,
    /// `ISOLATION_PROCESS`.
    Process = 1,
    /// `ISOLATION_HYPERV`.
    Hyperv = 2,
}

impl Isolation {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Default,
            1 => Self::Process,
            2 => Self::Hyperv,
            _ => return None,
        })
    }
}

/// SwarmKit's `ContainerSpec.PullOptions`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PullOptions {
    /// Registry auth: tag 64; base64url JSON AuthConfig (same text as the X-Registry-Auth header).
    pub registry_auth: String,
}

/// SwarmKit's `ContainerSpec.DNSConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DnsConfig {
    /// Nameservers.
    pub nameservers: Vec<String>,
    /// Search.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// SwarmKit's `ContainerSpec.Ulimit`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ulimit {
    /// Name.
    pub name: String,
    /// Soft.
    pub soft: i64,
    /// Hard.
    pub hard: i64,
}
