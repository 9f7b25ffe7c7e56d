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

/// Parts of a platform: operating system, architecture, variant.
const WORDS_MAX: usize = 3;

/// What may stand alone for a platform.
const OPERATING_SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const ARCHITECTURES: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// Why a text names no platform; containerd's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// `*`.
    #[error("{0:?}: wildcards not yet supported: invalid argument")]
    Wildcard(String),
    /// The first part, of the whole.
    #[error(
        "{0:?} is an invalid OS component of {1:?}: OSAndVersion specifier component must match \"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.-]*)\\\\))?$\": invalid argument"
    )]
    Os(String, String),
    /// Another part, of the whole.
    #[error(
        "{0:?} is an invalid component of {1:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Word(String, String),
    /// One word that is neither.
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    /// More than three parts.
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    TooLong(String),
}

fn is_word(text: &str, others: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// `windows(10.0.17763)`.
fn os_and_version(text: &str) -> Option<(&str, &str)> {
    let (os, version) = match text.split_once('(') {
        Some((os, rest)) => (os, rest.strip_suffix(')')?),
        None => (text, ""),
    };
    (is_word(os, "_-") && (version.is_empty() || is_word(version, "_.-"))).then_some((os, version))
}

fn normal_os(os: &str) -> String {
    match os.to_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        os => os.to_owned(),
    }
}

/// The usual name of an architecture; no variant where it is the one that is meant anyway.
fn normal_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_lowercase(), variant.to_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "7" | "v7") => ("arm", ""),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        (architecture, variant) => (architecture, variant),
    };
    (architecture.to_owned(), variant.to_owned())
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

    /// Reads `os[(version)][/arch[/variant]]` or an architecture alone, with the usual other names of both.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let quoted = || text.to_owned();
        if text.contains('*') {
            return Err(PlatformError::Wildcard(quoted()));
        }
        let words: Vec<&str> = text.splitn(WORDS_MAX + 1, '/').collect();
        let (os, os_version) =
            os_and_version(words[0]).ok_or_else(|| PlatformError::Os(words[0].to_owned(), quoted()))?;
        if let Some(wrong) = words[1..].iter().find(|word| !is_word(word, "_.-")) {
            return Err(PlatformError::Word((*wrong).to_owned(), quoted()));
        }
        let (os, host) = (normal_os(os), Self::host());
        let (architecture, variant, os) = match words[..] {
            [_] if OPERATING_SYSTEMS.contains(&os.as_str()) => (host.architecture, String::new(), os),
            [word] => {
                let (architecture, variant) = normal_architecture(word, "");
                if !ARCHITECTURES.contains(&architecture.as_str()) {
                    return Err(PlatformError::Unknown(quoted()));
                }
                (architecture, variant, host.os)
            }
            [_, architecture] => {
                let (architecture, variant) = normal_architecture(architecture, "");
                (architecture, variant, os)
            }
            [_, architecture, variant] => {
                let (architecture, mut variant) = normal_architecture(architecture, variant);
                match (architecture.as_str(), variant.as_str()) {
                    ("arm64", "") => "v8".clone_into(&mut variant),
                    ("arm", "") => "v7".clone_into(&mut variant),
                    _ => {}
                }
                (architecture, variant, os)
            }
            _ => return Err(PlatformError::TooLong(quoted())),
        };
        Ok(Self { architecture, os, variant, os_version: os_version.to_owned() })
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
    }

    #[test]
    fn platforms_are_read_as_by_containerd() {
        let host = Platform::host();
        for (text, shown) in [
            ("linux", host.to_string()),
            ("arm64", format!("{}/arm64", host.os)),
            ("s390x", format!("{}/s390x", host.os)),
            ("Linux/X86_64", "linux/amd64".into()),
            ("linux/amd64/v1", "linux/amd64".into()),
            ("linux/amd64/v3", "linux/amd64/v3".into()),
            ("linux/arm64/v8", "linux/arm64/v8".into()),
            ("linux/arm", "linux/arm".into()),
            ("linux/arm/6", "linux/arm/v6".into()),
            ("linux/armel", "linux/arm/v6".into()),
            ("macos/arm64", "darwin/arm64".into()),
            ("windows(10.0.1)/amd64", "windows/amd64".into()),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for (text, error) in [
            ("foo", "\"foo\": unknown operating system or architecture: invalid argument"),
            ("a/b/c/d", "\"a/b/c/d\": cannot parse platform specifier: invalid argument"),
            ("*", "\"*\": wildcards not yet supported: invalid argument"),
            (
                "linux/",
                "\"\" is an invalid component of \"linux/\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument",
            ),
            (
                "",
                "\"\" is an invalid OS component of \"\": OSAndVersion specifier component must match \"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.-]*)\\\\))?$\": invalid argument",
            ),
        ] {
            assert_eq!(Platform::parse(text).unwrap_err().to_string(), error);
        }
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
