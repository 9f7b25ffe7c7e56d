//! Images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::{Empty, is_zero, null_if_zero};
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
    /// Before API 1.45 only: what the container had that a builder made the image of; empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_config: Option<crate::container::ContainerConfig>,
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
    pub user: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(serialize_with = "null_if_zero")]
    pub env: Vec<String>,
    #[serde(serialize_with = "null_if_zero")]
    pub entrypoint: Vec<String>,
    #[serde(serialize_with = "null_if_zero")]
    pub cmd: Vec<String>,
    #[serde(serialize_with = "null_if_zero")]
    pub volumes: BTreeMap<String, Empty>,
    pub working_dir: String,
    #[serde(serialize_with = "null_if_zero")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub args_escaped: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub healthcheck: Option<crate::container_spec::HealthConfig>,
    #[serde(serialize_with = "null_if_zero")]
    pub on_build: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub shell: Vec<String>,
    // Before API 1.50 only, and without a meaning: what a container's configuration has besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_stdin: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_stdout: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_stderr: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_stdin: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin_once: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
}

impl ImageConfig {
    /// Adds the fields that clients of old API versions expect.
    pub fn add_legacy_fields(&mut self) {
        for field in [&mut self.hostname, &mut self.domainname, &mut self.image] {
            *field = Some(String::new());
        }
        let switches = [
            &mut self.attach_stdin,
            &mut self.attach_stdout,
            &mut self.attach_stderr,
            &mut self.open_stdin,
            &mut self.stdin_once,
            &mut self.tty,
        ];
        for field in switches {
            *field = Some(false);
        }
    }
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
