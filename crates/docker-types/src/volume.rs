//! Volumes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::is_zero;
use crate::time::Time;

/// `GET /volumes/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Volume {
    #[serde(skip_serializing_if = "is_zero")]
    pub cluster_volume: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "is_zero")]
    pub created_at: Time,
    pub driver: String,
    pub labels: Option<BTreeMap<String, String>>,
    pub mountpoint: String,
    pub name: String,
    pub options: Option<BTreeMap<String, String>>,
    pub scope: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub status: BTreeMap<String, serde_json::Value>,
    #[serde(skip_serializing_if = "is_zero")]
    pub usage_data: Option<UsageData>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UsageData {
    pub ref_count: i64,
    /// Bytes.
    pub size: i64,
}

/// `POST /volumes/create`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeCreateRequest {
    #[serde(skip_serializing_if = "is_zero")]
    pub cluster_volume_spec: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "is_zero")]
    pub driver: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub driver_opts: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
}

/// `GET /volumes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeList {
    pub volumes: Vec<Volume>,
    pub warnings: Option<Vec<String>>,
}

/// `POST /volumes/prune`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumesPruneResponse {
    pub volumes_deleted: Option<Vec<String>>,
    pub space_reclaimed: u64,
}
