//! Manifests and indexes, OCI's and Docker's (schema 2), which differ in their media types only.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Digest, null_default};

/// Media types.
pub mod media_type {
    /// Docker image manifest, version 2, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker manifest, schema 1: no longer supported by dockerd either.
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    /// Docker manifest, schema 1, signed.
    pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// Docker image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, not compressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, not compressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

    /// Whether this is a list of manifests.
    pub fn is_index(text: &str) -> bool {
        matches!(text, DOCKER_LIST | OCI_INDEX)
    }

    /// Whether this is a manifest of one image.
    pub fn is_manifest(text: &str) -> bool {
        matches!(text, DOCKER_MANIFEST | OCI_MANIFEST)
    }
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// By the first bytes, which are more honest than media types.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // zstd frames may follow a skippable one
            [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50 => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// What a piece of content is and where to find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size in bytes.
    #[serde(default)]
    pub size: u64,
    /// In an index: what the image runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// In an index: notes, such as the name of the image.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Places to download a foreign layer from; refused.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `amd64`, …
    #[serde(deserialize_with = "null_default")]
    pub architecture: String,
    /// `linux`, …
    #[serde(deserialize_with = "null_default")]
    pub os: String,
    /// Version of the operating system.
    #[serde(rename = "os.version", deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Variant of the architecture.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// `linux/amd64`.
    pub fn linux_amd64() -> Self {
        Self { architecture: "amd64".into(), os: "linux".into(), ..Self::default() }
    }

    /// What this machine runs.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.into(), os: "linux".into(), ..Self::default() }
    }

    /// Reads `os[/arch[/variant]]`, with the usual other names of architectures; `None` for a malformed text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split('/');
        let os = words.next()?.to_lowercase();
        let architecture = words.next().map_or_else(|| Self::host().architecture, str::to_lowercase);
        let variant = words.next().unwrap_or_default().to_lowercase();
        if os.is_empty() || architecture.is_empty() || words.next().is_some() {
            return None;
        }
        let architecture = match architecture.as_str() {
            "x86_64" | "x86-64" => "amd64".into(),
            "aarch64" => "arm64".into(),
            _ => architecture,
        };
        Some(Self { architecture, os, variant, ..Self::default() })
    }

    /// Whether an image for `offered` runs where `self` is asked for.
    pub fn accepts(&self, offered: &Platform) -> bool {
        let same_variant = self.variant.is_empty()
            || offered.variant == self.variant
            || (self.architecture == "arm64" && offered.variant.is_empty() && self.variant == "v8");
        self.os == offered.os && self.architecture == offered.architecture && same_variant
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(formatter, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// The manifest of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    #[serde(default)]
    pub schema_version: u32,
    /// Media type; may be missing in OCI manifests.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the base first.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
}

/// A list of manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    #[serde(default)]
    pub schema_version: u32,
    /// Media type; may be missing in OCI indexes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The manifests.
    #[serde(default, deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        let wanted = Platform::linux_amd64();
        assert!(wanted.accepts(&Platform::parse("linux/x86_64").unwrap()));
        assert!(!wanted.accepts(&Platform::parse("linux/arm64/v8").unwrap()));
        assert!(!wanted.accepts(&Platform::parse("windows/amd64").unwrap()));
        assert_eq!(Platform::parse("linux/arm/v7").unwrap().to_string(), "linux/arm/v7");
        assert_eq!(Platform::parse("a/b/c/d"), None);
        assert_eq!(Platform::parse(""), None);
    }

    #[test]
    fn compressions() {
        for (start, expected) in [
            (&[0x1f, 0x8b, 8][..], Compression::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&[0x50, 0x2a, 0x4d, 0x18], Compression::Zstd),
            (b"etc/", Compression::None),
            (b"", Compression::None),
        ] {
            assert_eq!(Compression::detect(start), expected);
        }
    }
}
