//! Images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::{Empty, is_zero};
use crate::system::Descriptor;

/// One of `GET /images/json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageSummary {
    pub id: String,
    pub parent_id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    /// Seconds since 1970.
    pub created: i64,
    pub size: i64,
    pub shared_size: i64,
    /// Before API 1.44 only.
    #[serde(skip_serializing_if = "is_zero")]
    pub virtual_size: i64,
    pub labels: Option<BTreeMap<String, String>>,
    pub containers: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub descriptor: Option<Descriptor>,
}

/// `GET /images/{name}/json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageInspect {
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub parent: String,
    pub comment: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub created: String,
    pub docker_version: String,
    pub author: String,
    pub config: ImageConfig,
    pub architecture: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub variant: String,
    pub os: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub os_version: String,
    pub size: i64,
    /// Before API 1.44 only.
    #[serde(skip_serializing_if = "is_zero")]
    pub virtual_size: i64,
    pub graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    pub metadata: ImageMetadata,
    #[serde(skip_serializing_if = "is_zero")]
    pub descriptor: Option<Descriptor>,
}

/// What a container of the image starts with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageConfig {
    #[serde(skip_serializing_if = "is_zero")]
    pub user: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "is_zero")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub cmd: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub volumes: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "is_zero")]
    pub working_dir: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub args_escaped: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub healthcheck: Option<crate::container_spec::HealthConfig>,
    #[serde(skip_serializing_if = "is_zero")]
    pub on_build: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub shell: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GraphDriver {
    pub data: Option<BTreeMap<String, String>>,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RootFs {
    #[serde(rename = "Type", skip_serializing_if = "is_zero")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub layers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageMetadata {
    pub last_tag_time: crate::time::Time,
}

/// One of the answer to `DELETE /images/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageDelete {
    #[serde(skip_serializing_if = "is_zero")]
    pub untagged: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub deleted: String,
}

/// One of `GET /images/{name}/history`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageHistory {
    pub id: String,
    pub created: i64,
    pub created_by: String,
    pub tags: Option<Vec<String>>,
    pub size: i64,
    pub comment: String,
}

/// `POST /images/prune`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImagesPruneResponse {
    pub images_deleted: Option<Vec<ImageDelete>>,
    pub space_reclaimed: u64,
}
