//! `ContainerSpec` of services and tasks: what runs, and its mounts, secrets, configs and privileges.

use std::collections::BTreeMap;

use model as m;
use serde::{Deserialize, Serialize};

use crate::json::{Base64, Empty, is_zero};
use crate::service::SpecError;
use crate::task::Driver;
use crate::words::Word;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerSpec {
    #[serde(skip_serializing_if = "is_zero")]
    pub image: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub command: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub args: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub hostname: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub dir: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub user: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub privileges: Option<Privileges>,
    #[serde(skip_serializing_if = "is_zero")]
    pub init: Option<bool>,
    #[serde(skip_serializing_if = "is_zero")]
    pub stop_signal: String,
    #[serde(rename = "TTY", skip_serializing_if = "is_zero")]
    pub tty: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub open_stdin: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub mounts: Vec<Mount>,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub stop_grace_period: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub healthcheck: Option<HealthConfig>,
    #[serde(skip_serializing_if = "is_zero")]
    pub hosts: Vec<String>,
    #[serde(rename = "DNSConfig", skip_serializing_if = "is_zero")]
    pub dns_config: Option<DnsConfig>,
    #[serde(skip_serializing_if = "is_zero")]
    pub secrets: Vec<SecretReference>,
    #[serde(skip_serializing_if = "is_zero")]
    pub configs: Vec<ConfigReference>,
    #[serde(skip_serializing_if = "is_zero")]
    pub isolation: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub sysctls: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub capability_add: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub capability_drop: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub ulimits: Vec<Ulimit>,
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_score_adj: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Privileges {
    pub credential_spec: Option<CredentialSpec>,
    #[serde(rename = "SELinuxContext")]
    pub selinux_context: Option<SeLinuxContext>,
    #[serde(skip_serializing_if = "is_zero")]
    pub seccomp: Option<SeccompOpts>,
    #[serde(rename = "AppArmor", skip_serializing_if = "is_zero")]
    pub app_armor: Option<AppArmorOpts>,
    pub no_new_privileges: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CredentialSpec {
    pub config: String,
    pub file: String,
    pub registry: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SeLinuxContext {
    pub disable: bool,
    pub user: String,
    pub role: String,
    #[serde(rename = "Type")]
    pub kind: String,
    pub level: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SeccompOpts {
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub profile: Base64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AppArmorOpts {
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthConfig {
    #[serde(skip_serializing_if = "is_zero")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DnsConfig {
    #[serde(skip_serializing_if = "is_zero")]
    pub nameservers: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub search: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ulimit {
    pub name: String,
    pub hard: i64,
    pub soft: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FileTarget {
    pub name: String,
    #[serde(rename = "UID")]
    pub uid: String,
    #[serde(rename = "GID")]
    pub gid: String,
    pub mode: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SecretReference {
    pub file: Option<FileTarget>,
    #[serde(rename = "SecretID")]
    pub secret_id: String,
    pub secret_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigReference {
    #[serde(skip_serializing_if = "is_zero")]
    pub file: Option<FileTarget>,
    #[serde(skip_serializing_if = "is_zero")]
    pub runtime: Option<Empty>,
    #[serde(rename = "ConfigID")]
    pub config_id: String,
    pub config_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Mount {
    #[serde(rename = "Type", skip_serializing_if = "is_zero")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub source: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub target: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub consistency: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub bind_options: Option<BindOptions>,
    #[serde(skip_serializing_if = "is_zero")]
    pub volume_options: Option<VolumeOptions>,
    #[serde(skip_serializing_if = "is_zero")]
    pub tmpfs_options: Option<TmpfsOptions>,
    #[serde(skip_serializing_if = "is_zero")]
    pub cluster_options: Option<Empty>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct BindOptions {
    #[serde(skip_serializing_if = "is_zero")]
    pub propagation: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub non_recursive: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub create_mountpoint: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only_non_recursive: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only_force_recursive: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeOptions {
    #[serde(skip_serializing_if = "is_zero")]
    pub no_copy: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub subpath: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub driver_config: Option<Driver>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TmpfsOptions {
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub options: Vec<Vec<String>>,
}

impl ContainerSpec {
    /// What it means in the model; the process limit comes with the task's resources.
    pub fn to_model(&self) -> Result<m::ContainerSpec, SpecError> {
        Ok(m::ContainerSpec {
            image: self.image.clone(),
            labels: self.labels.clone(),
            command: self.command.clone(),
            args: self.args.clone(),
            env: self.env.clone(),
            dir: self.dir.clone(),
            user: self.user.clone(),
            mounts: self.mounts.iter().map(Mount::to_model).collect::<Result<_, _>>()?,
            stop_grace_period: self.stop_grace_period.map(m::Duration::from_nanos),
            pull_options: None,
            groups: self.groups.clone(),
            secrets: self.secrets.iter().map(SecretReference::to_model).collect(),
            tty: self.tty,
            hostname: self.hostname.clone(),
            dns_config: self.dns_config.as_ref().map(|dns| m::DnsConfig {
                nameservers: dns.nameservers.clone(),
                search: dns.search.clone(),
                options: dns.options.clone(),
            }),
            healthcheck: self.healthcheck.as_ref().map(HealthConfig::to_model),
            hosts: self.hosts.clone(),
            open_stdin: self.open_stdin,
            read_only: self.read_only,
            stop_signal: self.stop_signal.clone(),
            configs: self.configs.iter().map(ConfigReference::to_model).collect::<Result<_, _>>()?,
            privileges: self.privileges.as_ref().map(Privileges::to_model).transpose()?,
            init: self.init,
            isolation: m::Isolation::from_word(&self.isolation).unwrap_or_default(),
            pids_limit: 0,
            sysctls: self.sysctls.clone(),
            capability_add: self.capability_add.clone(),
            capability_drop: self.capability_drop.clone(),
            ulimits: self.ulimits.iter().map(Ulimit::to_model).collect(),
            oom_score_adj: self.oom_score_adj,
        })
    }

    /// How it is shown: pull options never, the process limit with the task's resources.
    pub fn from_model(spec: &m::ContainerSpec) -> Self {
        Self {
            image: spec.image.clone(),
            labels: spec.labels.clone(),
            command: spec.command.clone(),
            args: spec.args.clone(),
            hostname: spec.hostname.clone(),
            env: spec.env.clone(),
            dir: spec.dir.clone(),
            user: spec.user.clone(),
            groups: spec.groups.clone(),
            privileges: spec.privileges.as_ref().map(Privileges::from_model),
            init: spec.init,
            stop_signal: spec.stop_signal.clone(),
            tty: spec.tty,
            open_stdin: spec.open_stdin,
            read_only: spec.read_only,
            mounts: spec.mounts.iter().map(Mount::from_model).collect(),
            stop_grace_period: spec.stop_grace_period.map(m::Duration::total_nanos),
            healthcheck: spec.healthcheck.as_ref().map(HealthConfig::from_model),
            hosts: spec.hosts.clone(),
            dns_config: spec.dns_config.as_ref().map(|dns| DnsConfig {
                nameservers: dns.nameservers.clone(),
                search: dns.search.clone(),
                options: dns.options.clone(),
            }),
            secrets: spec.secrets.iter().filter_map(SecretReference::from_model).collect(),
            configs: spec.configs.iter().map(ConfigReference::from_model).collect(),
            isolation: spec.isolation.word().to_owned(),
            sysctls: spec.sysctls.clone(),
            capability_add: spec.capability_add.clone(),
            capability_drop: spec.capability_drop.clone(),
            ulimits: spec.ulimits.iter().map(Ulimit::from_model).collect(),
            oom_score_adj: spec.oom_score_adj,
        }
    }
}

impl Privileges {
    fn to_model(&self) -> Result<m::Privileges, SpecError> {
        Ok(m::Privileges {
            credential_spec: self.credential_spec.as_ref().map(CredentialSpec::to_model).transpose()?,
            selinux_context: self.selinux_context.as_ref().map(|context| m::SeLinuxContext {
                disable: context.disable,
                user: context.user.clone(),
                role: context.role.clone(),
                kind: context.kind.clone(),
                level: context.level.clone(),
            }),
            seccomp: self.seccomp.as_ref().map(SeccompOpts::to_model).transpose()?,
            apparmor: self.app_armor.as_ref().map(AppArmorOpts::to_model).transpose()?,
            no_new_privileges: self.no_new_privileges,
        })
    }

    fn from_model(privileges: &m::Privileges) -> Self {
        Self {
            credential_spec: privileges.credential_spec.as_ref().map(CredentialSpec::from_model),
            selinux_context: privileges.selinux_context.as_ref().map(|context| SeLinuxContext {
                disable: context.disable,
                user: context.user.clone(),
                role: context.role.clone(),
                kind: context.kind.clone(),
                level: context.level.clone(),
            }),
            seccomp: privileges.seccomp.as_ref().map(|seccomp| SeccompOpts {
                mode: seccomp.mode.word().to_owned(),
                profile: Base64(seccomp.profile.clone()),
            }),
            app_armor: privileges
                .apparmor
                .as_ref()
                .map(|apparmor| AppArmorOpts { mode: apparmor.mode.word().to_owned() }),
            no_new_privileges: privileges.no_new_privileges,
        }
    }
}

impl CredentialSpec {
    fn to_model(&self) -> Result<m::CredentialSpec, SpecError> {
        let given = [&self.config, &self.file, &self.registry].into_iter().filter(|text| !text.is_empty()).count();
        let source = match given {
            0 => return Err(SpecError::CredentialSpecMissing),
            1 if !self.config.is_empty() => m::CredentialSpecSource::Config(self.config.clone()),
            1 if !self.file.is_empty() => m::CredentialSpecSource::File(self.file.clone()),
            1 => m::CredentialSpecSource::Registry(self.registry.clone()),
            _ => return Err(SpecError::CredentialSpecAmbiguous),
        };
        Ok(m::CredentialSpec { source: Some(source) })
    }

    fn from_model(spec: &m::CredentialSpec) -> Self {
        let mut shown = Self::default();
        match &spec.source {
            Some(m::CredentialSpecSource::Config(text)) => shown.config.clone_from(text),
            Some(m::CredentialSpecSource::File(text)) => shown.file.clone_from(text),
            Some(m::CredentialSpecSource::Registry(text)) => shown.registry.clone_from(text),
            None => {}
        }
        shown
    }
}

impl SeccompOpts {
    fn to_model(&self) -> Result<m::SeccompOpts, SpecError> {
        let mode = optional_word(&self.mode).ok_or_else(|| SpecError::SeccompMode(self.mode.clone()))?;
        Ok(m::SeccompOpts { mode, profile: self.profile.0.clone() })
    }
}

impl AppArmorOpts {
    fn to_model(&self) -> Result<m::AppArmorOpts, SpecError> {
        let mode = optional_word(&self.mode).ok_or_else(|| SpecError::AppArmorMode(self.mode.clone()))?;
        Ok(m::AppArmorOpts { mode })
    }
}

impl HealthConfig {
    fn to_model(&self) -> m::HealthConfig {
        let span = |nanos| Some(m::Duration::from_nanos(nanos));
        m::HealthConfig {
            test: self.test.clone(),
            interval: span(self.interval),
            timeout: span(self.timeout),
            retries: self.retries,
            start_period: span(self.start_period),
            start_interval: span(self.start_interval),
        }
    }

    fn from_model(health: &m::HealthConfig) -> Self {
        let nanos = |span: Option<m::Duration>| span.map_or(0, m::Duration::total_nanos);
        Self {
            test: health.test.clone(),
            interval: nanos(health.interval),
            timeout: nanos(health.timeout),
            start_period: nanos(health.start_period),
            start_interval: nanos(health.start_interval),
            retries: health.retries,
        }
    }
}

impl Ulimit {
    fn to_model(&self) -> m::Ulimit {
        m::Ulimit { name: self.name.clone(), soft: self.soft, hard: self.hard }
    }

    fn from_model(limit: &m::Ulimit) -> Self {
        Self { name: limit.name.clone(), hard: limit.hard, soft: limit.soft }
    }
}

impl FileTarget {
    fn to_model(&self) -> m::FileTarget {
        m::FileTarget { name: self.name.clone(), uid: self.uid.clone(), gid: self.gid.clone(), mode: self.mode }
    }

    fn from_model(file: &m::FileTarget) -> Self {
        Self { name: file.name.clone(), uid: file.uid.clone(), gid: file.gid.clone(), mode: file.mode }
    }
}

impl SecretReference {
    fn to_model(&self) -> m::SecretReference {
        m::SecretReference {
            secret_id: self.secret_id.as_str().into(),
            secret_name: self.secret_name.clone(),
            target: self.file.as_ref().map(|file| m::SecretReferenceTarget::File(file.to_model())),
        }
    }

    /// `None` if the secret is for no file: dockerd does not show such a reference.
    fn from_model(reference: &m::SecretReference) -> Option<Self> {
        let m::SecretReferenceTarget::File(file) = reference.target.as_ref()?;
        Some(Self {
            file: Some(FileTarget::from_model(file)),
            secret_id: reference.secret_id.to_string(),
            secret_name: reference.secret_name.clone(),
        })
    }
}

impl ConfigReference {
    fn to_model(&self) -> Result<m::ConfigReference, SpecError> {
        let target = match (&self.file, self.runtime) {
            (Some(_), Some(_)) => return Err(SpecError::ConfigTargetAmbiguous),
            (Some(file), None) => Some(m::ConfigReferenceTarget::File(file.to_model())),
            (None, Some(Empty)) => Some(m::ConfigReferenceTarget::Runtime(m::RuntimeTarget)),
            (None, None) => None,
        };
        Ok(m::ConfigReference {
            config_id: self.config_id.as_str().into(),
            config_name: self.config_name.clone(),
            target,
        })
    }

    fn from_model(reference: &m::ConfigReference) -> Self {
        let (file, runtime) = match &reference.target {
            Some(m::ConfigReferenceTarget::File(file)) => (Some(FileTarget::from_model(file)), None),
            Some(m::ConfigReferenceTarget::Runtime(m::RuntimeTarget)) => (None, Some(Empty)),
            None => (None, None),
        };
        Self { file, runtime, config_id: reference.config_id.to_string(), config_name: reference.config_name.clone() }
    }
}

impl Mount {
    fn to_model(&self) -> Result<m::Mount, SpecError> {
        Ok(m::Mount {
            kind: optional_word(&self.kind).ok_or_else(|| SpecError::MountType(self.kind.clone()))?,
            source: self.source.clone(),
            target: self.target.clone(),
            readonly: self.read_only,
            bind_options: self.bind_options.as_ref().map(BindOptions::to_model).transpose()?.flatten(),
            volume_options: self.volume_options.as_ref().map(|options| m::VolumeOptions {
                nocopy: options.no_copy,
                labels: options.labels.clone(),
                driver_config: options.driver_config.as_ref().map(Driver::to_model),
                subpath: options.subpath.clone(),
            }),
            tmpfs_options: self.tmpfs_options.as_ref().map(TmpfsOptions::to_model),
            consistency: optional_word(&self.consistency)
                .ok_or_else(|| SpecError::MountConsistency(self.consistency.clone()))?,
        })
    }

    fn from_model(mount: &m::Mount) -> Self {
        let consistency = match mount.consistency {
            m::MountConsistency::Default => "",
            other => other.word(),
        };
        Self {
            kind: mount.kind.word().to_owned(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.readonly,
            consistency: consistency.to_owned(),
            bind_options: mount.bind_options.as_ref().map(BindOptions::from_model),
            volume_options: mount.volume_options.as_ref().map(|options| VolumeOptions {
                no_copy: options.nocopy,
                labels: options.labels.clone(),
                subpath: options.subpath.clone(),
                driver_config: options.driver_config.as_ref().map(Driver::from_model),
            }),
            tmpfs_options: mount.tmpfs_options.as_ref().map(TmpfsOptions::from_model),
            cluster_options: None,
        }
    }
}

impl BindOptions {
    /// `None` if nothing is set: dockerd does not keep an empty one.
    fn to_model(&self) -> Result<Option<m::BindOptions>, SpecError> {
        if is_zero(self) {
            return Ok(None);
        }
        let propagation =
            optional_word(&self.propagation).ok_or_else(|| SpecError::MountPropagation(self.propagation.clone()))?;
        Ok(Some(m::BindOptions {
            propagation,
            nonrecursive: self.non_recursive,
            createmountpoint: self.create_mountpoint,
            readonlynonrecursive: self.read_only_non_recursive,
            readonlyforcerecursive: self.read_only_force_recursive,
        }))
    }

    fn from_model(options: &m::BindOptions) -> Self {
        Self {
            propagation: options.propagation.word().to_owned(),
            non_recursive: options.nonrecursive,
            create_mountpoint: options.createmountpoint,
            read_only_non_recursive: options.readonlynonrecursive,
            read_only_force_recursive: options.readonlyforcerecursive,
        }
    }
}

impl TmpfsOptions {
    fn to_model(&self) -> m::TmpfsOptions {
        let options = match self.options.as_slice() {
            [] => String::new(),
            options => serde_json::to_string(options).expect("lists of strings are always JSON"),
        };
        m::TmpfsOptions { size_bytes: self.size_bytes, mode: self.mode, options }
    }

    /// Options that are no JSON of the known form are not shown.
    fn from_model(options: &m::TmpfsOptions) -> Self {
        Self {
            size_bytes: options.size_bytes,
            mode: options.mode,
            options: serde_json::from_str(&options.options).unwrap_or_default(),
        }
    }
}

/// The value of a word; of an empty one, the default; `None` if the word is unknown.
fn optional_word<T: Word + Default>(word: &str) -> Option<T> {
    if word.is_empty() { Some(T::default()) } else { T::from_word(word) }
}
