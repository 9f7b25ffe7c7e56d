//! The cluster object: policies, root CA, keys. The fields are SwarmKit's; `swarm-proto` converts them.

#[allow(unused_imports, reason = "one prelude for all files of the model")]
use crate::prelude::*;
use std::collections::BTreeMap;

/// SwarmKit's `AcceptancePolicy`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AcceptancePolicy {
    /// Policies.
    pub policies: Vec<RoleAdmissionPolicy>,
}

/// SwarmKit's `AcceptancePolicy.RoleAdmissionPolicy`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoleAdmissionPolicy {
    /// Role.
    pub role: NodeRole,
    /// Autoaccept.
    pub autoaccept: bool,
    /// Secret.
    pub secret: Option<RoleAdmissionSecret>,
}

/// SwarmKit's `AcceptancePolicy.RoleAdmissionPolicy.Secret`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoleAdmissionSecret {
    /// Data.
    pub data: Vec<u8>,
    /// Alg.
    pub alg: String,
}

/// SwarmKit's `ExternalCA`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExternalCa {
    /// Protocol.
    pub protocol: CaProtocol,
    /// Url.
    pub url: String,
    /// Options.
    pub options: BTreeMap<String, String>,
    /// Ca cert.
    pub ca_cert: Vec<u8>,
}

/// SwarmKit's `ExternalCA.CAProtocol`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum CaProtocol {
    /// `CFSSL`.
    #[default]
    Cfssl = 0,
}

impl CaProtocol {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Cfssl,
            _ => return None,
        })
    }
}

/// SwarmKit's `CAConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaConfig {
    /// Node cert expiry.
    pub node_cert_expiry: Option<Duration>,
    /// External cas.
    pub external_cas: Vec<ExternalCa>,
    /// Signing ca cert.
    pub signing_ca_cert: Vec<u8>,
    /// Signing ca key.
    pub signing_ca_key: Vec<u8>,
    /// Force rotate.
    pub force_rotate: u64,
}

/// SwarmKit's `OrchestrationConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OrchestrationConfig {
    /// Task history retention limit.
    pub task_history_retention_limit: i64,
}

/// SwarmKit's `TaskDefaults`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskDefaults {
    /// Log driver.
    pub log_driver: Option<Driver>,
}

/// SwarmKit's `DispatcherConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DispatcherConfig {
    /// Heartbeat period.
    pub heartbeat_period: Option<Duration>,
}

/// SwarmKit's `RaftConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaftConfig {
    /// Snapshot interval.
    pub snapshot_interval: u64,
    /// Keep old snapshots.
    pub keep_old_snapshots: u64,
    /// Log entries for slow followers.
    pub log_entries_for_slow_followers: u64,
    /// Heartbeat tick.
    pub heartbeat_tick: u32,
    /// Election tick.
    pub election_tick: u32,
}

/// SwarmKit's `EncryptionConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncryptionConfig {
    /// Auto lock managers.
    pub auto_lock_managers: bool,
}

/// SwarmKit's `JoinTokens`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinTokens {
    /// Worker.
    pub worker: String,
    /// Manager.
    pub manager: String,
}

/// SwarmKit's `RootCA`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RootCa {
    /// Ca key: PEM; empty when an external CA signs; never sent to the API or workers.
    pub ca_key: Vec<u8>,
    /// Ca cert: PEM bundle, the trust root.
    pub ca_cert: Vec<u8>,
    /// Ca cert hash: "sha256:`<hex>`" of ca_cert.
    pub ca_cert_hash: String,
    /// Join tokens.
    pub join_tokens: JoinTokens,
    /// Root rotation.
    pub root_rotation: Option<RootRotation>,
    /// Last forced rotation: compared with CAConfig.force_rotate.
    pub last_forced_rotation: u64,
}

/// SwarmKit's `EncryptionKey`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncryptionKey {
    /// Subsystem: "networking:gossip", "networking:ipsec" or "swarm-manager".
    pub subsystem: String,
    /// Algorithm.
    pub algorithm: EncryptionAlgorithm,
    /// Key.
    pub key: Vec<u8>,
    /// Lamport time.
    pub lamport_time: u64,
}

/// SwarmKit's `EncryptionKey.Algorithm`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum EncryptionAlgorithm {
    /// `AES_128_GCM`.
    #[default]
    Aes128Gcm = 0,
}

impl EncryptionAlgorithm {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Aes128Gcm,
            _ => return None,
        })
    }
}

/// SwarmKit's `BlacklistedCertificate`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlacklistedCertificate {
    /// Expiry.
    pub expiry: Option<Timestamp>,
}

/// SwarmKit's `MaybeEncryptedRecord`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaybeEncryptedRecord {
    /// Algorithm.
    pub algorithm: RecordAlgorithm,
    /// Data.
    pub data: Vec<u8>,
    /// Nonce.
    pub nonce: Vec<u8>,
}

/// SwarmKit's `MaybeEncryptedRecord.Algorithm`; the numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum RecordAlgorithm {
    /// `NONE`.
    #[default]
    None = 0,
    /// `SECRETBOX_SALSA20_POLY1305`.
    Secretbox = 1,
    /// `FERNET_AES_128_CBC`.
    Fernet = 2,
}

impl RecordAlgorithm {
    /// The value of a wire number, `None` if SwarmKit has no such number.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Secretbox,
            2 => Self::Fernet,
            _ => return None,
        })
    }
}

/// SwarmKit's `RootRotation`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RootRotation {
    /// Ca cert.
    pub ca_cert: Vec<u8>,
    /// Ca key.
    pub ca_key: Vec<u8>,
    /// Cross signed ca cert.
    pub cross_signed_ca_cert: Vec<u8>,
}

/// SwarmKit's `ClusterSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterSpec {
    /// Annotations.
    pub annotations: Annotations,
    /// Acceptance policy: deprecated.
    pub acceptance_policy: AcceptancePolicy,
    /// Orchestration.
    pub orchestration: OrchestrationConfig,
    /// Raft.
    pub raft: RaftConfig,
    /// Dispatcher.
    pub dispatcher: DispatcherConfig,
    /// Ca config.
    pub ca_config: CaConfig,
    /// Task defaults.
    pub task_defaults: TaskDefaults,
    /// Encryption config.
    pub encryption_config: EncryptionConfig,
}

/// SwarmKit's `Cluster`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Identifier.
    pub id: ClusterId,
    /// Version and times.
    pub meta: Meta,
    /// What the user asked for.
    pub spec: ClusterSpec,
    /// Root ca.
    pub root_ca: RootCa,
    /// Network bootstrap keys: gossip + IPsec keys handed to every node.
    pub network_bootstrap_keys: Vec<EncryptionKey>,
    /// Encryption key lamport clock: last lamport value used for a key.
    pub encryption_key_lamport_clock: u64,
    /// Blacklisted certificates: keyed by node ID (certificate CN); removed nodes.
    pub blacklisted_certificates: BTreeMap<String, BlacklistedCertificate>,
    /// Unlock keys: entry with subsystem "swarm-manager" is the manager KEK.
    pub unlock_keys: Vec<EncryptionKey>,
    /// Fips.
    pub fips: bool,
    /// Default address pool: empty means built-in 10.0.0.0/8.
    pub default_address_pool: Vec<String>,
    /// Subnet size: 0 means 24.
    pub subnet_size: u32,
    /// Vxlan udp port: 0 means 4789.
    pub vxlan_udp_port: u32,
}
