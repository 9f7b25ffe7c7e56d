//! Conversions of `model::cluster`: one field a line, nothing decided.

use model as m;

use super::{ConvertError, FromProto, ToProto, list_from_proto, list_to_proto, option_from_proto, option_to_proto};
use crate::swarmkit as p;

impl ToProto for m::AcceptancePolicy {
    type Proto = p::AcceptancePolicy;
    fn to_proto(&self) -> p::AcceptancePolicy {
        p::AcceptancePolicy { policies: list_to_proto(&self.policies) }
    }
}

impl FromProto for m::AcceptancePolicy {
    type Proto = p::AcceptancePolicy;
    fn from_proto(p: p::AcceptancePolicy) -> Result<Self, ConvertError> {
        Ok(m::AcceptancePolicy { policies: list_from_proto(p.policies)? })
    }
}

impl ToProto for m::RoleAdmissionPolicy {
    type Proto = p::RoleAdmissionPolicy;
    fn to_proto(&self) -> p::RoleAdmissionPolicy {
        p::RoleAdmissionPolicy {
            role: self.role as i32,
            autoaccept: self.autoaccept,
            secret: option_to_proto(self.secret.as_ref()),
        }
    }
}

impl FromProto for m::RoleAdmissionPolicy {
    type Proto = p::RoleAdmissionPolicy;
    fn from_proto(p: p::RoleAdmissionPolicy) -> Result<Self, ConvertError> {
        Ok(m::RoleAdmissionPolicy {
            role: m::NodeRole::from_number(p.role)
                .ok_or(ConvertError { field: "AcceptancePolicy.RoleAdmissionPolicy.role", number: p.role })?,
            autoaccept: p.autoaccept,
            secret: option_from_proto(p.secret)?,
        })
    }
}

impl ToProto for m::RoleAdmissionSecret {
    type Proto = p::RoleAdmissionSecret;
    fn to_proto(&self) -> p::RoleAdmissionSecret {
        p::RoleAdmissionSecret { data: self.data.clone(), alg: self.alg.clone() }
    }
}

impl FromProto for m::RoleAdmissionSecret {
    type Proto = p::RoleAdmissionSecret;
    fn from_proto(p: p::RoleAdmissionSecret) -> Result<Self, ConvertError> {
        Ok(m::RoleAdmissionSecret { data: p.data, alg: p.alg })
    }
}

impl ToProto for m::ExternalCa {
    type Proto = p::ExternalCa;
    fn to_proto(&self) -> p::ExternalCa {
        p::ExternalCa {
            protocol: self.protocol as i32,
            url: self.url.clone(),
            options: self.options.clone().into_iter().collect(),
            ca_cert: self.ca_cert.clone(),
        }
    }
}

impl FromProto for m::ExternalCa {
    type Proto = p::ExternalCa;
    fn from_proto(p: p::ExternalCa) -> Result<Self, ConvertError> {
        Ok(m::ExternalCa {
            protocol: m::CaProtocol::from_number(p.protocol)
                .ok_or(ConvertError { field: "ExternalCA.protocol", number: p.protocol })?,
            url: p.url,
            options: p.options.into_iter().collect(),
            ca_cert: p.ca_cert,
        })
    }
}

impl ToProto for m::CaConfig {
    type Proto = p::CaConfig;
    fn to_proto(&self) -> p::CaConfig {
        p::CaConfig {
            node_cert_expiry: option_to_proto(self.node_cert_expiry.as_ref()),
            external_cas: list_to_proto(&self.external_cas),
            signing_ca_cert: self.signing_ca_cert.clone(),
            signing_ca_key: self.signing_ca_key.clone(),
            force_rotate: self.force_rotate,
        }
    }
}

impl FromProto for m::CaConfig {
    type Proto = p::CaConfig;
    fn from_proto(p: p::CaConfig) -> Result<Self, ConvertError> {
        Ok(m::CaConfig {
            node_cert_expiry: option_from_proto(p.node_cert_expiry)?,
            external_cas: list_from_proto(p.external_cas)?,
            signing_ca_cert: p.signing_ca_cert,
            signing_ca_key: p.signing_ca_key,
            force_rotate: p.force_rotate,
        })
    }
}

impl ToProto for m::OrchestrationConfig {
    type Proto = p::OrchestrationConfig;
    fn to_proto(&self) -> p::OrchestrationConfig {
        p::OrchestrationConfig { task_history_retention_limit: self.task_history_retention_limit }
    }
}

impl FromProto for m::OrchestrationConfig {
    type Proto = p::OrchestrationConfig;
    fn from_proto(p: p::OrchestrationConfig) -> Result<Self, ConvertError> {
        Ok(m::OrchestrationConfig { task_history_retention_limit: p.task_history_retention_limit })
    }
}

impl ToProto for m::TaskDefaults {
    type Proto = p::TaskDefaults;
    fn to_proto(&self) -> p::TaskDefaults {
        p::TaskDefaults { log_driver: option_to_proto(self.log_driver.as_ref()) }
    }
}

impl FromProto for m::TaskDefaults {
    type Proto = p::TaskDefaults;
    fn from_proto(p: p::TaskDefaults) -> Result<Self, ConvertError> {
        Ok(m::TaskDefaults { log_driver: option_from_proto(p.log_driver)? })
    }
}

impl ToProto for m::DispatcherConfig {
    type Proto = p::DispatcherConfig;
    fn to_proto(&self) -> p::DispatcherConfig {
        p::DispatcherConfig { heartbeat_period: option_to_proto(self.heartbeat_period.as_ref()) }
    }
}

impl FromProto for m::DispatcherConfig {
    type Proto = p::DispatcherConfig;
    fn from_proto(p: p::DispatcherConfig) -> Result<Self, ConvertError> {
        Ok(m::DispatcherConfig { heartbeat_period: option_from_proto(p.heartbeat_period)? })
    }
}

impl ToProto for m::RaftConfig {
    type Proto = p::RaftConfig;
    fn to_proto(&self) -> p::RaftConfig {
        p::RaftConfig {
            snapshot_interval: self.snapshot_interval,
            keep_old_snapshots: self.keep_old_snapshots,
            log_entries_for_slow_followers: self.log_entries_for_slow_followers,
            heartbeat_tick: self.heartbeat_tick,
            election_tick: self.election_tick,
        }
    }
}

impl FromProto for m::RaftConfig {
    type Proto = p::RaftConfig;
    fn from_proto(p: p::RaftConfig) -> Result<Self, ConvertError> {
        Ok(m::RaftConfig {
            snapshot_interval: p.snapshot_interval,
            keep_old_snapshots: p.keep_old_snapshots,
            log_entries_for_slow_followers: p.log_entries_for_slow_followers,
            heartbeat_tick: p.heartbeat_tick,
            election_tick: p.election_tick,
        })
    }
}

impl ToProto for m::EncryptionConfig {
    type Proto = p::EncryptionConfig;
    fn to_proto(&self) -> p::EncryptionConfig {
        p::EncryptionConfig { auto_lock_managers: self.auto_lock_managers }
    }
}

impl FromProto for m::EncryptionConfig {
    type Proto = p::EncryptionConfig;
    fn from_proto(p: p::EncryptionConfig) -> Result<Self, ConvertError> {
        Ok(m::EncryptionConfig { auto_lock_managers: p.auto_lock_managers })
    }
}

impl ToProto for m::JoinTokens {
    type Proto = p::JoinTokens;
    fn to_proto(&self) -> p::JoinTokens {
        p::JoinTokens { worker: self.worker.clone(), manager: self.manager.clone() }
    }
}

impl FromProto for m::JoinTokens {
    type Proto = p::JoinTokens;
    fn from_proto(p: p::JoinTokens) -> Result<Self, ConvertError> {
        Ok(m::JoinTokens { worker: p.worker, manager: p.manager })
    }
}

impl ToProto for m::RootCa {
    type Proto = p::RootCa;
    fn to_proto(&self) -> p::RootCa {
        p::RootCa {
            ca_key: self.ca_key.clone(),
            ca_cert: self.ca_cert.clone(),
            ca_cert_hash: self.ca_cert_hash.clone(),
            join_tokens: Some(self.join_tokens.to_proto()),
            root_rotation: option_to_proto(self.root_rotation.as_ref()),
            last_forced_rotation: self.last_forced_rotation,
        }
    }
}

impl FromProto for m::RootCa {
    type Proto = p::RootCa;
    fn from_proto(p: p::RootCa) -> Result<Self, ConvertError> {
        Ok(m::RootCa {
            ca_key: p.ca_key,
            ca_cert: p.ca_cert,
            ca_cert_hash: p.ca_cert_hash,
            join_tokens: FromProto::from_proto(p.join_tokens.unwrap_or_default())?,
            root_rotation: option_from_proto(p.root_rotation)?,
            last_forced_rotation: p.last_forced_rotation,
        })
    }
}

impl ToProto for m::EncryptionKey {
    type Proto = p::EncryptionKey;
    fn to_proto(&self) -> p::EncryptionKey {
        p::EncryptionKey {
            subsystem: self.subsystem.clone(),
            algorithm: self.algorithm as i32,
            key: self.key.clone(),
            lamport_time: self.lamport_time,
        }
    }
}

impl FromProto for m::EncryptionKey {
    type Proto = p::EncryptionKey;
    fn from_proto(p: p::EncryptionKey) -> Result<Self, ConvertError> {
        Ok(m::EncryptionKey {
            subsystem: p.subsystem,
            algorithm: m::EncryptionAlgorithm::from_number(p.algorithm)
                .ok_or(ConvertError { field: "EncryptionKey.algorithm", number: p.algorithm })?,
            key: p.key,
            lamport_time: p.lamport_time,
        })
    }
}

impl ToProto for m::BlacklistedCertificate {
    type Proto = p::BlacklistedCertificate;
    fn to_proto(&self) -> p::BlacklistedCertificate {
        p::BlacklistedCertificate { expiry: option_to_proto(self.expiry.as_ref()) }
    }
}

impl FromProto for m::BlacklistedCertificate {
    type Proto = p::BlacklistedCertificate;
    fn from_proto(p: p::BlacklistedCertificate) -> Result<Self, ConvertError> {
        Ok(m::BlacklistedCertificate { expiry: option_from_proto(p.expiry)? })
    }
}

impl ToProto for m::MaybeEncryptedRecord {
    type Proto = p::MaybeEncryptedRecord;
    fn to_proto(&self) -> p::MaybeEncryptedRecord {
        p::MaybeEncryptedRecord { algorithm: self.algorithm as i32, data: self.data.clone(), nonce: self.nonce.clone() }
    }
}

impl FromProto for m::MaybeEncryptedRecord {
    type Proto = p::MaybeEncryptedRecord;
    fn from_proto(p: p::MaybeEncryptedRecord) -> Result<Self, ConvertError> {
        Ok(m::MaybeEncryptedRecord {
            algorithm: m::RecordAlgorithm::from_number(p.algorithm)
                .ok_or(ConvertError { field: "MaybeEncryptedRecord.algorithm", number: p.algorithm })?,
            data: p.data,
            nonce: p.nonce,
        })
    }
}

impl ToProto for m::RootRotation {
    type Proto = p::RootRotation;
    fn to_proto(&self) -> p::RootRotation {
        p::RootRotation {
            ca_cert: self.ca_cert.clone(),
            ca_key: self.ca_key.clone(),
            cross_signed_ca_cert: self.cross_signed_ca_cert.clone(),
        }
    }
}

impl FromProto for m::RootRotation {
    type Proto = p::RootRotation;
    fn from_proto(p: p::RootRotation) -> Result<Self, ConvertError> {
        Ok(m::RootRotation { ca_cert: p.ca_cert, ca_key: p.ca_key, cross_signed_ca_cert: p.cross_signed_ca_cert })
    }
}

impl ToProto for m::ClusterSpec {
    type Proto = p::ClusterSpec;
    fn to_proto(&self) -> p::ClusterSpec {
        p::ClusterSpec {
            annotations: Some(self.annotations.to_proto()),
            acceptance_policy: Some(self.acceptance_policy.to_proto()),
            orchestration: Some(self.orchestration.to_proto()),
            raft: Some(self.raft.to_proto()),
            dispatcher: Some(self.dispatcher.to_proto()),
            ca_config: Some(self.ca_config.to_proto()),
            task_defaults: Some(self.task_defaults.to_proto()),
            encryption_config: Some(self.encryption_config.to_proto()),
        }
    }
}

impl FromProto for m::ClusterSpec {
    type Proto = p::ClusterSpec;
    fn from_proto(p: p::ClusterSpec) -> Result<Self, ConvertError> {
        Ok(m::ClusterSpec {
            annotations: FromProto::from_proto(p.annotations.unwrap_or_default())?,
            acceptance_policy: FromProto::from_proto(p.acceptance_policy.unwrap_or_default())?,
            orchestration: FromProto::from_proto(p.orchestration.unwrap_or_default())?,
            raft: FromProto::from_proto(p.raft.unwrap_or_default())?,
            dispatcher: FromProto::from_proto(p.dispatcher.unwrap_or_default())?,
            ca_config: FromProto::from_proto(p.ca_config.unwrap_or_default())?,
            task_defaults: FromProto::from_proto(p.task_defaults.unwrap_or_default())?,
            encryption_config: FromProto::from_proto(p.encryption_config.unwrap_or_default())?,
        })
    }
}

impl ToProto for m::Cluster {
    type Proto = p::Cluster;
    fn to_proto(&self) -> p::Cluster {
        p::Cluster {
            id: self.id.to_string(),
            meta: Some(self.meta.to_proto()),
            spec: Some(self.spec.to_proto()),
            root_ca: Some(self.root_ca.to_proto()),
            network_bootstrap_keys: list_to_proto(&self.network_bootstrap_keys),
            encryption_key_lamport_clock: self.encryption_key_lamport_clock,
            blacklisted_certificates: self
                .blacklisted_certificates
                .iter()
                .map(|(k, v)| (k.clone(), v.to_proto()))
                .collect(),
            unlock_keys: list_to_proto(&self.unlock_keys),
            fips: self.fips,
            default_address_pool: self.default_address_pool.clone(),
            subnet_size: self.subnet_size,
            vxlan_udp_port: self.vxlan_udp_port,
        }
    }
}

impl FromProto for m::Cluster {
    type Proto = p::Cluster;
    fn from_proto(p: p::Cluster) -> Result<Self, ConvertError> {
        Ok(m::Cluster {
            id: p.id.into(),
            meta: FromProto::from_proto(p.meta.unwrap_or_default())?,
            spec: FromProto::from_proto(p.spec.unwrap_or_default())?,
            root_ca: FromProto::from_proto(p.root_ca.unwrap_or_default())?,
            network_bootstrap_keys: list_from_proto(p.network_bootstrap_keys)?,
            encryption_key_lamport_clock: p.encryption_key_lamport_clock,
            blacklisted_certificates: p
                .blacklisted_certificates
                .into_iter()
                .map(|(k, v)| Ok((k, FromProto::from_proto(v)?)))
                .collect::<Result<_, ConvertError>>()?,
            unlock_keys: list_from_proto(p.unlock_keys)?,
            fips: p.fips,
            default_address_pool: p.default_address_pool,
            subnet_size: p.subnet_size,
            vxlan_udp_port: p.vxlan_udp_port,
        })
    }
}
