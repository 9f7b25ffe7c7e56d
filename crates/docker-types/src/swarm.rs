//! The swarm itself: `/swarm` and its requests.

use std::collections::BTreeMap;

use model::{CaProtocol, ClusterSpec, Duration, ExternalCa as ModelExternalCa};
use serde::{Deserialize, Serialize};

use crate::json::{Base64, is_zero};
use crate::time::Time;

/// Docker's default for pools that overlay subnets are cut from.
pub const DEFAULT_ADDRESS_POOL: &str = "10.0.0.0/8";
/// Docker's default size of overlay subnets.
pub const DEFAULT_SUBNET_SIZE: u32 = 24;
/// Docker's default VXLAN port.
pub const DEFAULT_DATA_PATH_PORT: u32 = 4789;

/// `Version` of every object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Version {
    #[serde(skip_serializing_if = "is_zero")]
    pub index: u64,
}

/// What users can set of the swarm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Spec {
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub orchestration: OrchestrationConfig,
    pub raft: RaftConfig,
    pub dispatcher: DispatcherConfig,
    #[serde(rename = "CAConfig")]
    pub ca_config: CaConfig,
    pub task_defaults: TaskDefaults,
    pub encryption_config: EncryptionConfig,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct OrchestrationConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_history_retention_limit: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RaftConfig {
    #[serde(skip_serializing_if = "is_zero")]
    pub snapshot_interval: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_old_snapshots: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub log_entries_for_slow_followers: u64,
    pub election_tick: u32,
    pub heartbeat_tick: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DispatcherConfig {
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub heartbeat_period: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CaConfig {
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub node_cert_expiry: i64,
    #[serde(rename = "ExternalCAs", skip_serializing_if = "Vec::is_empty")]
    pub external_cas: Vec<ExternalCa>,
    #[serde(rename = "SigningCACert", skip_serializing_if = "is_zero")]
    pub signing_ca_cert: String,
    #[serde(rename = "SigningCAKey", skip_serializing_if = "is_zero")]
    pub signing_ca_key: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub force_rotate: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExternalCa {
    pub protocol: String,
    #[serde(rename = "URL")]
    pub url: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    #[serde(rename = "CACert")]
    pub ca_cert: String,
}

/// dockerd reads and writes no field of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDefaults {}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EncryptionConfig {
    pub auto_lock_managers: bool,
}

/// Why a swarm spec was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid CAProtocol: \"{0}\"")]
pub struct UnknownCaProtocol(pub String);

impl Spec {
    /// Writes what is set over `base`, as dockerd does at init; over an empty base, as it does at updates.
    pub fn merge_into(&self, mut base: ClusterSpec) -> Result<ClusterSpec, UnknownCaProtocol> {
        set_text(&mut base.annotations.name, &self.name);
        if !self.labels.is_empty() {
            base.annotations.labels = self.labels.clone();
        }
        set(&mut base.orchestration.task_history_retention_limit, self.orchestration.task_history_retention_limit);
        set(&mut base.raft.snapshot_interval, non_zero(self.raft.snapshot_interval));
        set(&mut base.raft.keep_old_snapshots, self.raft.keep_old_snapshots);
        set(&mut base.raft.log_entries_for_slow_followers, non_zero(self.raft.log_entries_for_slow_followers));
        set(&mut base.raft.election_tick, non_zero(self.raft.election_tick));
        set(&mut base.raft.heartbeat_tick, non_zero(self.raft.heartbeat_tick));
        let span = |nanos: i64| non_zero(nanos).map(|nanos| Some(Duration::from_nanos(nanos)));
        set(&mut base.dispatcher.heartbeat_period, span(self.dispatcher.heartbeat_period));
        set(&mut base.ca_config.node_cert_expiry, span(self.ca_config.node_cert_expiry));
        set_bytes(&mut base.ca_config.signing_ca_cert, &self.ca_config.signing_ca_cert);
        set_bytes(&mut base.ca_config.signing_ca_key, &self.ca_config.signing_ca_key);
        base.ca_config.force_rotate = self.ca_config.force_rotate;
        for external in &self.ca_config.external_cas {
            base.ca_config.external_cas.push(external.to_model()?);
        }
        base.encryption_config.auto_lock_managers = self.encryption_config.auto_lock_managers;
        Ok(base)
    }

    /// The spec as it is shown; the signing key never is.
    pub fn from_model(spec: &ClusterSpec) -> Self {
        let nanos = |span: Option<Duration>| span.map_or(0, Duration::total_nanos);
        Self {
            name: spec.annotations.name.clone(),
            labels: spec.annotations.labels.clone(),
            orchestration: OrchestrationConfig {
                task_history_retention_limit: Some(spec.orchestration.task_history_retention_limit),
            },
            raft: RaftConfig {
                snapshot_interval: spec.raft.snapshot_interval,
                keep_old_snapshots: Some(spec.raft.keep_old_snapshots),
                log_entries_for_slow_followers: spec.raft.log_entries_for_slow_followers,
                election_tick: spec.raft.election_tick,
                heartbeat_tick: spec.raft.heartbeat_tick,
            },
            dispatcher: DispatcherConfig { heartbeat_period: nanos(spec.dispatcher.heartbeat_period) },
            ca_config: CaConfig {
                node_cert_expiry: nanos(spec.ca_config.node_cert_expiry),
                external_cas: spec.ca_config.external_cas.iter().map(ExternalCa::from_model).collect(),
                signing_ca_cert: lossy(&spec.ca_config.signing_ca_cert),
                signing_ca_key: String::new(),
                force_rotate: spec.ca_config.force_rotate,
            },
            task_defaults: TaskDefaults {},
            encryption_config: EncryptionConfig { auto_lock_managers: spec.encryption_config.auto_lock_managers },
        }
    }
}

impl ExternalCa {
    fn to_model(&self) -> Result<ModelExternalCa, UnknownCaProtocol> {
        if !self.protocol.eq_ignore_ascii_case("cfssl") {
            return Err(UnknownCaProtocol(self.protocol.clone()));
        }
        Ok(ModelExternalCa {
            protocol: CaProtocol::Cfssl,
            url: self.url.clone(),
            options: self.options.clone(),
            ca_cert: self.ca_cert.clone().into_bytes(),
        })
    }

    fn from_model(external: &ModelExternalCa) -> Self {
        let CaProtocol::Cfssl = external.protocol;
        Self {
            protocol: "cfssl".to_owned(),
            url: external.url.clone(),
            options: external.options.clone(),
            ca_cert: lossy(&external.ca_cert),
        }
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn set_text(target: &mut String, value: &str) {
    if !value.is_empty() {
        value.clone_into(target);
    }
}

fn set_bytes(target: &mut Vec<u8>, value: &str) {
    if !value.is_empty() {
        *target = value.as_bytes().to_vec();
    }
}

fn non_zero<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `GET /swarm` with join tokens, `Swarm.Cluster` of `/info` without.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Swarm {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: Version,
    pub created_at: Time,
    pub updated_at: Time,
    pub spec: Spec,
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    pub root_rotation_in_progress: bool,
    pub default_addr_pool: Vec<String>,
    pub subnet_size: u32,
    pub data_path_port: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_tokens: Option<JoinTokens>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JoinTokens {
    pub worker: String,
    pub manager: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TlsInfo {
    #[serde(skip_serializing_if = "is_zero")]
    pub trust_root: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub cert_issuer_subject: Base64,
    #[serde(skip_serializing_if = "is_zero")]
    pub cert_issuer_public_key: Base64,
}

/// `POST /swarm/init`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InitRequest {
    pub listen_addr: String,
    pub advertise_addr: String,
    pub data_path_addr: String,
    pub data_path_port: u32,
    pub force_new_cluster: bool,
    pub spec: Spec,
    pub auto_lock_managers: bool,
    pub availability: String,
    pub default_addr_pool: Vec<String>,
    pub subnet_size: u32,
}

/// `POST /swarm/join`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JoinRequest {
    pub listen_addr: String,
    pub advertise_addr: String,
    pub data_path_addr: String,
    pub remote_addrs: Vec<String>,
    /// Accept by secret.
    pub join_token: String,
    pub availability: String,
}

/// `POST /swarm/unlock` and `GET /swarm/unlockkey`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UnlockKey {
    pub unlock_key: String,
}

/// Whether join tokens are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShowTokens {
    /// In `GET /swarm`.
    Yes,
    /// In `GET /info`.
    No,
}

impl Swarm {
    /// How the cluster is shown. `tls` is what a certificate parser finds in the trust root.
    pub fn from_model(cluster: &model::Cluster, tls: TlsInfo, tokens: ShowTokens) -> Self {
        let pool = if cluster.default_address_pool.is_empty() {
            vec![DEFAULT_ADDRESS_POOL.to_owned()]
        } else {
            cluster.default_address_pool.clone()
        };
        let or = |value: u32, default| if value == 0 { default } else { value };
        Self {
            id: cluster.id.to_string(),
            version: Version { index: cluster.meta.version.0 },
            created_at: cluster.meta.created_at.into(),
            updated_at: cluster.meta.updated_at.into(),
            spec: Spec::from_model(&cluster.spec),
            tls_info: TlsInfo { trust_root: lossy(&cluster.root_ca.ca_cert), ..tls },
            root_rotation_in_progress: cluster.root_ca.root_rotation.is_some(),
            default_addr_pool: pool,
            subnet_size: or(cluster.subnet_size, DEFAULT_SUBNET_SIZE),
            data_path_port: or(cluster.vxlan_udp_port, DEFAULT_DATA_PATH_PORT),
            join_tokens: (tokens == ShowTokens::Yes).then(|| JoinTokens {
                worker: cluster.root_ca.join_tokens.worker.clone(),
                manager: cluster.root_ca.join_tokens.manager.clone(),
            }),
        }
    }
}
