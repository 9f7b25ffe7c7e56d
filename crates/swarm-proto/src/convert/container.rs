//! Conversions of `model::container`: one field a line, nothing decided.

use model as m;

use super::{ConvertError, FromProto, ToProto, list_from_proto, list_to_proto, option_from_proto, option_to_proto};
use crate::swarmkit as p;

impl ToProto for m::Image {
    type Proto = p::Image;
    fn to_proto(&self) -> p::Image {
        p::Image { reference: self.reference.clone() }
    }
}

impl FromProto for m::Image {
    type Proto = p::Image;
    fn from_proto(p: p::Image) -> Result<Self, ConvertError> {
        Ok(m::Image { reference: p.reference })
    }
}

impl ToProto for m::Mount {
    type Proto = p::Mount;
    fn to_proto(&self) -> p::Mount {
        p::Mount {
            kind: self.kind as i32,
            source: self.source.clone(),
            target: self.target.clone(),
            readonly: self.readonly,
            bind_options: option_to_proto(self.bind_options.as_ref()),
            volume_options: option_to_proto(self.volume_options.as_ref()),
            tmpfs_options: option_to_proto(self.tmpfs_options.as_ref()),
            consistency: self.consistency as i32,
        }
    }
}

impl FromProto for m::Mount {
    type Proto = p::Mount;
    fn from_proto(p: p::Mount) -> Result<Self, ConvertError> {
        Ok(m::Mount {
            kind: m::MountType::from_number(p.kind).ok_or(ConvertError { field: "Mount.type", number: p.kind })?,
            source: p.source,
            target: p.target,
            readonly: p.readonly,
            bind_options: option_from_proto(p.bind_options)?,
            volume_options: option_from_proto(p.volume_options)?,
            tmpfs_options: option_from_proto(p.tmpfs_options)?,
            consistency: m::MountConsistency::from_number(p.consistency)
                .ok_or(ConvertError { field: "Mount.consistency", number: p.consistency })?,
        })
    }
}

impl ToProto for m::BindOptions {
    type Proto = p::BindOptions;
    fn to_proto(&self) -> p::BindOptions {
        p::BindOptions {
            propagation: self.propagation as i32,
            nonrecursive: self.nonrecursive,
            createmountpoint: self.createmountpoint,
            readonlynonrecursive: self.readonlynonrecursive,
            readonlyforcerecursive: self.readonlyforcerecursive,
        }
    }
}

impl FromProto for m::BindOptions {
    type Proto = p::BindOptions;
    fn from_proto(p: p::BindOptions) -> Result<Self, ConvertError> {
        Ok(m::BindOptions {
            propagation: m::MountPropagation::from_number(p.propagation)
                .ok_or(ConvertError { field: "Mount.BindOptions.propagation", number: p.propagation })?,
            nonrecursive: p.nonrecursive,
            createmountpoint: p.createmountpoint,
            readonlynonrecursive: p.readonlynonrecursive,
            readonlyforcerecursive: p.readonlyforcerecursive,
        })
    }
}

impl ToProto for m::VolumeOptions {
    type Proto = p::VolumeOptions;
    fn to_proto(&self) -> p::VolumeOptions {
        p::VolumeOptions {
            nocopy: self.nocopy,
            labels: self.labels.clone().into_iter().collect(),
            driver_config: option_to_proto(self.driver_config.as_ref()),
            subpath: self.subpath.clone(),
        }
    }
}

impl FromProto for m::VolumeOptions {
    type Proto = p::VolumeOptions;
    fn from_proto(p: p::VolumeOptions) -> Result<Self, ConvertError> {
        Ok(m::VolumeOptions {
            nocopy: p.nocopy,
            labels: p.labels.into_iter().collect(),
            driver_config: option_from_proto(p.driver_config)?,
            subpath: p.subpath,
        })
    }
}

impl ToProto for m::TmpfsOptions {
    type Proto = p::TmpfsOptions;
    fn to_proto(&self) -> p::TmpfsOptions {
        p::TmpfsOptions { size_bytes: self.size_bytes, mode: self.mode, options: self.options.clone() }
    }
}

impl FromProto for m::TmpfsOptions {
    type Proto = p::TmpfsOptions;
    fn from_proto(p: p::TmpfsOptions) -> Result<Self, ConvertError> {
        Ok(m::TmpfsOptions { size_bytes: p.size_bytes, mode: p.mode, options: p.options })
    }
}

impl ToProto for m::FileTarget {
    type Proto = p::FileTarget;
    fn to_proto(&self) -> p::FileTarget {
        p::FileTarget { name: self.name.clone(), uid: self.uid.clone(), gid: self.gid.clone(), mode: self.mode }
    }
}

impl FromProto for m::FileTarget {
    type Proto = p::FileTarget;
    fn from_proto(p: p::FileTarget) -> Result<Self, ConvertError> {
        Ok(m::FileTarget { name: p.name, uid: p.uid, gid: p.gid, mode: p.mode })
    }
}

impl ToProto for m::RuntimeTarget {
    type Proto = p::RuntimeTarget;
    fn to_proto(&self) -> p::RuntimeTarget {
        p::RuntimeTarget {}
    }
}

impl FromProto for m::RuntimeTarget {
    type Proto = p::RuntimeTarget;
    fn from_proto(_: p::RuntimeTarget) -> Result<Self, ConvertError> {
        Ok(m::RuntimeTarget)
    }
}

impl ToProto for m::SecretReference {
    type Proto = p::SecretReference;
    fn to_proto(&self) -> p::SecretReference {
        p::SecretReference {
            secret_id: self.secret_id.to_string(),
            secret_name: self.secret_name.clone(),
            target: self.target.as_ref().map(|v| match v {
                m::SecretReferenceTarget::File(v) => p::secret_reference::Target::File(v.to_proto()),
            }),
        }
    }
}

impl FromProto for m::SecretReference {
    type Proto = p::SecretReference;
    fn from_proto(p: p::SecretReference) -> Result<Self, ConvertError> {
        Ok(m::SecretReference {
            secret_id: p.secret_id.into(),
            secret_name: p.secret_name,
            target: match p.target {
                None => None,
                Some(v) => Some(match v {
                    p::secret_reference::Target::File(v) => m::SecretReferenceTarget::File(FromProto::from_proto(v)?),
                }),
            },
        })
    }
}

impl ToProto for m::ConfigReference {
    type Proto = p::ConfigReference;
    fn to_proto(&self) -> p::ConfigReference {
        p::ConfigReference {
            config_id: self.config_id.to_string(),
            config_name: self.config_name.clone(),
            target: self.target.as_ref().map(|v| match v {
                m::ConfigReferenceTarget::File(v) => p::config_reference::Target::File(v.to_proto()),
                m::ConfigReferenceTarget::Runtime(v) => p::config_reference::Target::Runtime(v.to_proto()),
            }),
        }
    }
}

impl FromProto for m::ConfigReference {
    type Proto = p::ConfigReference;
    fn from_proto(p: p::ConfigReference) -> Result<Self, ConvertError> {
        Ok(m::ConfigReference {
            config_id: p.config_id.into(),
            config_name: p.config_name,
            target: match p.target {
                None => None,
                Some(v) => Some(match v {
                    p::config_reference::Target::File(v) => m::ConfigReferenceTarget::File(FromProto::from_proto(v)?),
                    p::config_reference::Target::Runtime(v) => {
                        m::ConfigReferenceTarget::Runtime(FromProto::from_proto(v)?)
                    }
                }),
            },
        })
    }
}

impl ToProto for m::HealthConfig {
    type Proto = p::HealthConfig;
    fn to_proto(&self) -> p::HealthConfig {
        p::HealthConfig {
            test: self.test.clone(),
            interval: option_to_proto(self.interval.as_ref()),
            timeout: option_to_proto(self.timeout.as_ref()),
            retries: self.retries,
            start_period: option_to_proto(self.start_period.as_ref()),
            start_interval: option_to_proto(self.start_interval.as_ref()),
        }
    }
}

impl FromProto for m::HealthConfig {
    type Proto = p::HealthConfig;
    fn from_proto(p: p::HealthConfig) -> Result<Self, ConvertError> {
        Ok(m::HealthConfig {
            test: p.test,
            interval: option_from_proto(p.interval)?,
            timeout: option_from_proto(p.timeout)?,
            retries: p.retries,
            start_period: option_from_proto(p.start_period)?,
            start_interval: option_from_proto(p.start_interval)?,
        })
    }
}

impl ToProto for m::Privileges {
    type Proto = p::Privileges;
    fn to_proto(&self) -> p::Privileges {
        p::Privileges {
            credential_spec: option_to_proto(self.credential_spec.as_ref()),
            selinux_context: option_to_proto(self.selinux_context.as_ref()),
            seccomp: option_to_proto(self.seccomp.as_ref()),
            apparmor: option_to_proto(self.apparmor.as_ref()),
            no_new_privileges: self.no_new_privileges,
        }
    }
}

impl FromProto for m::Privileges {
    type Proto = p::Privileges;
    fn from_proto(p: p::Privileges) -> Result<Self, ConvertError> {
        Ok(m::Privileges {
            credential_spec: option_from_proto(p.credential_spec)?,
            selinux_context: option_from_proto(p.selinux_context)?,
            seccomp: option_from_proto(p.seccomp)?,
            apparmor: option_from_proto(p.apparmor)?,
            no_new_privileges: p.no_new_privileges,
        })
    }
}

impl ToProto for m::CredentialSpec {
    type Proto = p::CredentialSpec;
    fn to_proto(&self) -> p::CredentialSpec {
        p::CredentialSpec {
            source: self.source.as_ref().map(|v| match v {
                m::CredentialSpecSource::File(v) => p::credential_spec::Source::File(v.clone()),
                m::CredentialSpecSource::Registry(v) => p::credential_spec::Source::Registry(v.clone()),
                m::CredentialSpecSource::Config(v) => p::credential_spec::Source::Config(v.clone()),
            }),
        }
    }
}

impl FromProto for m::CredentialSpec {
    type Proto = p::CredentialSpec;
    fn from_proto(p: p::CredentialSpec) -> Result<Self, ConvertError> {
        Ok(m::CredentialSpec {
            source: p.source.map(|v| match v {
                p::credential_spec::Source::File(v) => m::CredentialSpecSource::File(v),
                p::credential_spec::Source::Registry(v) => m::CredentialSpecSource::Registry(v),
                p::credential_spec::Source::Config(v) => m::CredentialSpecSource::Config(v),
            }),
        })
    }
}

impl ToProto for m::SeLinuxContext {
    type Proto = p::SeLinuxContext;
    fn to_proto(&self) -> p::SeLinuxContext {
        p::SeLinuxContext {
            disable: self.disable,
            user: self.user.clone(),
            role: self.role.clone(),
            kind: self.kind.clone(),
            level: self.level.clone(),
        }
    }
}

impl FromProto for m::SeLinuxContext {
    type Proto = p::SeLinuxContext;
    fn from_proto(p: p::SeLinuxContext) -> Result<Self, ConvertError> {
        Ok(m::SeLinuxContext { disable: p.disable, user: p.user, role: p.role, kind: p.kind, level: p.level })
    }
}

impl ToProto for m::SeccompOpts {
    type Proto = p::SeccompOpts;
    fn to_proto(&self) -> p::SeccompOpts {
        p::SeccompOpts { mode: self.mode as i32, profile: self.profile.clone() }
    }
}

impl FromProto for m::SeccompOpts {
    type Proto = p::SeccompOpts;
    fn from_proto(p: p::SeccompOpts) -> Result<Self, ConvertError> {
        Ok(m::SeccompOpts {
            mode: m::SeccompMode::from_number(p.mode)
                .ok_or(ConvertError { field: "Privileges.SeccompOpts.mode", number: p.mode })?,
            profile: p.profile,
        })
    }
}

impl ToProto for m::AppArmorOpts {
    type Proto = p::AppArmorOpts;
    fn to_proto(&self) -> p::AppArmorOpts {
        p::AppArmorOpts { mode: self.mode as i32 }
    }
}

impl FromProto for m::AppArmorOpts {
    type Proto = p::AppArmorOpts;
    fn from_proto(p: p::AppArmorOpts) -> Result<Self, ConvertError> {
        Ok(m::AppArmorOpts {
            mode: m::AppArmorMode::from_number(p.mode)
                .ok_or(ConvertError { field: "Privileges.AppArmorOpts.mode", number: p.mode })?,
        })
    }
}

impl ToProto for m::ContainerSpec {
    type Proto = p::ContainerSpec;
    fn to_proto(&self) -> p::ContainerSpec {
        p::ContainerSpec {
            image: self.image.clone(),
            labels: self.labels.clone().into_iter().collect(),
            command: self.command.clone(),
            args: self.args.clone(),
            env: self.env.clone(),
            dir: self.dir.clone(),
            user: self.user.clone(),
            mounts: list_to_proto(&self.mounts),
            stop_grace_period: option_to_proto(self.stop_grace_period.as_ref()),
            pull_options: option_to_proto(self.pull_options.as_ref()),
            groups: self.groups.clone(),
            secrets: list_to_proto(&self.secrets),
            tty: self.tty,
            hostname: self.hostname.clone(),
            dns_config: option_to_proto(self.dns_config.as_ref()),
            healthcheck: option_to_proto(self.healthcheck.as_ref()),
            hosts: self.hosts.clone(),
            open_stdin: self.open_stdin,
            read_only: self.read_only,
            stop_signal: self.stop_signal.clone(),
            configs: list_to_proto(&self.configs),
            privileges: option_to_proto(self.privileges.as_ref()),
            init: self.init,
            isolation: self.isolation as i32,
            pids_limit: self.pids_limit,
            sysctls: self.sysctls.clone().into_iter().collect(),
            capability_add: self.capability_add.clone(),
            capability_drop: self.capability_drop.clone(),
            ulimits: list_to_proto(&self.ulimits),
            oom_score_adj: self.oom_score_adj,
        }
    }
}

impl FromProto for m::ContainerSpec {
    type Proto = p::ContainerSpec;
    fn from_proto(p: p::ContainerSpec) -> Result<Self, ConvertError> {
        Ok(m::ContainerSpec {
            image: p.image,
            labels: p.labels.into_iter().collect(),
            command: p.command,
            args: p.args,
            env: p.env,
            dir: p.dir,
            user: p.user,
            mounts: list_from_proto(p.mounts)?,
            stop_grace_period: option_from_proto(p.stop_grace_period)?,
            pull_options: option_from_proto(p.pull_options)?,
            groups: p.groups,
            secrets: list_from_proto(p.secrets)?,
            tty: p.tty,
            hostname: p.hostname,
            dns_config: option_from_proto(p.dns_config)?,
            healthcheck: option_from_proto(p.healthcheck)?,
            hosts: p.hosts,
            open_stdin: p.open_stdin,
            read_only: p.read_only,
            stop_signal: p.stop_signal,
            configs: list_from_proto(p.configs)?,
            privileges: option_from_proto(p.privileges)?,
            init: p.init,
            isolation: m::Isolation::from_number(p.isolation)
                .ok_or(ConvertError { field: "ContainerSpec.isolation", number: p.isolation })?,
            pids_limit: p.pids_limit,
            sysctls: p.sysctls.into_iter().collect(),
            capability_add: p.capability_add,
            capability_drop: p.capability_drop,
            ulimits: list_from_proto(p.ulimits)?,
            oom_score_adj: p.oom_score_adj,
        })
    }
}

impl ToProto for m::PullOptions {
    type Proto = p::PullOptions;
    fn to_proto(&self) -> p::PullOptions {
        p::PullOptions { registry_auth: self.registry_auth.clone() }
    }
}

impl FromProto for m::PullOptions {
    type Proto = p::PullOptions;
    fn from_proto(p: p::PullOptions) -> Result<Self, ConvertError> {
        Ok(m::PullOptions { registry_auth: p.registry_auth })
    }
}

impl ToProto for m::DnsConfig {
    type Proto = p::DnsConfig;
    fn to_proto(&self) -> p::DnsConfig {
        p::DnsConfig {
            nameservers: self.nameservers.clone(),
            search: self.search.clone(),
            options: self.options.clone(),
        }
    }
}

impl FromProto for m::DnsConfig {
    type Proto = p::DnsConfig;
    fn from_proto(p: p::DnsConfig) -> Result<Self, ConvertError> {
        Ok(m::DnsConfig { nameservers: p.nameservers, search: p.search, options: p.options })
    }
}

impl ToProto for m::Ulimit {
    type Proto = p::Ulimit;
    fn to_proto(&self) -> p::Ulimit {
        p::Ulimit { name: self.name.clone(), soft: self.soft, hard: self.hard }
    }
}

impl FromProto for m::Ulimit {
    type Proto = p::Ulimit;
    fn from_proto(p: p::Ulimit) -> Result<Self, ConvertError> {
        Ok(m::Ulimit { name: p.name, soft: p.soft, hard: p.hard })
    }
}
