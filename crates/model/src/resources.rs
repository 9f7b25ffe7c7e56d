//! Processor, memory and generic resources, platforms. The fields are SwarmKit's; `swarm-proto` converts them.

#[allow(unused_imports, reason = "one prelude for all files of the model")]
use crate::prelude::*;

/// SwarmKit's `NamedGenericResource`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedGenericResource {
    /// Kind.
    pub kind: String,
    /// Value.
    pub value: String,
}

/// SwarmKit's `DiscreteGenericResource`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiscreteGenericResource {
    /// Kind.
    pub kind: String,
    /// Value.
    pub value: i64,
}

/// SwarmKit's `GenericResource`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenericResource {
    /// Which one of the kinds it is, if any.
    pub resource: Option<GenericResourceKind>,
}

/// The `resource` of a [`GenericResource`].
#[derive(Clone, Debug, PartialEq)]
pub enum GenericResourceKind {
    /// `named_resource_spec`.
    NamedResourceSpec(NamedGenericResource),
    /// `discrete_resource_spec`.
    DiscreteResourceSpec(DiscreteGenericResource),
}

/// SwarmKit's `Resources`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// Nano cpus.
    pub nano_cpus: i64,
    /// Memory bytes.
    pub memory_bytes: i64,
    /// Generic.
    pub generic: Vec<GenericResource>,
}

/// SwarmKit's `ResourceRequirements`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceRequirements {
    /// Limits.
    pub limits: Option<Resources>,
    /// Reservations.
    pub reservations: Option<Resources>,
    /// Swap bytes.
    pub swap_bytes: Option<i64>,
    /// Memory swappiness.
    pub memory_swappiness: Option<i64>,
}

/// SwarmKit's `Platform`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Platform {
    /// Architecture.
    pub architecture: String,
    /// Os.
    pub os: String,
}
