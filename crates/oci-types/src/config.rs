//! The image configuration: what an image says about the containers made of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, null_default};

/// The empty object that Go writes for a member of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The document an image id is the digest of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageDocument {
    /// RFC 3339 time of creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// `amd64`, `arm64`, …
    #[serde(deserialize_with = "null_default")]
    pub architecture: String,
    /// Variant of the architecture, `v7`, …
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// `linux`, …
    #[serde(deserialize_with = "null_default")]
    pub os: String,
    /// Version of the operating system; Windows only.
    #[serde(rename = "os.version", deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Comment of the last commit (docker).
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Version of the docker that made it (docker).
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    /// Defaults for containers.
    #[serde(deserialize_with = "null_default")]
    pub config: ContainerConfig,
    /// The layers, by the digests of their uncompressed tars.
    #[serde(deserialize_with = "null_default")]
    pub rootfs: RootFs,
    /// How each layer came to be.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// The layers of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", deserialize_with = "null_default")]
    pub kind: String,
    /// Digests of the uncompressed layers, the base first.
    #[serde(deserialize_with = "null_default")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339 time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who made it.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A remark.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// Defaults that an image gives to its containers (OCI `config`, with docker's additions).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// Host name; seldom set in an image.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Domain name; seldom set in an image.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports the service listens on: `9005/tcp`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Environment, `NAME=value`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// First words of the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Following words, replaced by what the user gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Whether `Cmd` is escaped already (Windows).
    #[serde(deserialize_with = "null_default", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Paths that get an anonymous volume.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Directory to start in.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Triggers for builds on top of this image.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// The user's words about the image.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the container to stop.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds until a stop becomes a kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// How to see whether the container is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Shell for the shell form of commands.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// A health check. Times are nanoseconds as Go writes durations; 0 inherits the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, `CMD` + words, or `CMD-SHELL` + one line; empty inherits.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time one check may take.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time after the start in which failures do not count.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks in the start period.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_missing_are_the_same() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["/x"],"Entrypoint":null,
            "Volumes":null,"ExposedPorts":{"80/tcp":{}},"Unknown":7},"rootfs":{"type":"layers","diff_ids":null},
            "history":null}"#;
        let document: ImageDocument = serde_json::from_str(text).unwrap();
        assert_eq!(document.config.cmd, Some(vec!["/x".to_string()]));
        assert_eq!(document.config.entrypoint, None);
        assert!(document.config.exposed_ports.contains_key("80/tcp"));
        assert!(document.rootfs.diff_ids.is_empty());
        let bare: ImageDocument = serde_json::from_str(r#"{"config":null,"rootfs":null}"#).unwrap();
        assert_eq!(bare, ImageDocument::default());
    }
}
