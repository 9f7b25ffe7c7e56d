//! Secrets and configs. The fields are SwarmKit's; `swarm-proto` converts them.

#[allow(unused_imports, reason = "one prelude for all files of the model")]
use crate::prelude::*;

/// SwarmKit's `SecretSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecretSpec {
    /// Annotations.
    pub annotations: Annotations,
    /// Data.
    pub data: Vec<u8>,
    /// Templating.
    pub templating: Option<Driver>,
    /// Driver.
    pub driver: Option<Driver>,
}

/// SwarmKit's `ConfigSpec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigSpec {
    /// Annotations.
    pub annotations: Annotations,
    /// Data.
    pub data: Vec<u8>,
    /// Templating.
    pub templating: Option<Driver>,
}

/// SwarmKit's `Secret`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Secret {
    /// Identifier: in assignments for driver-backed secrets may be "`<secretID>`.`<taskID>`".
    pub id: SecretId,
    /// Version and times.
    pub meta: Meta,
    /// What the user asked for.
    pub spec: SecretSpec,
    /// Internal.
    pub internal: bool,
}

/// SwarmKit's `Config`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Identifier.
    pub id: ConfigId,
    /// Version and times.
    pub meta: Meta,
    /// What the user asked for.
    pub spec: ConfigSpec,
}
