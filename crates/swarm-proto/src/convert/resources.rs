//! Conversions of `model::resources`: one field a line, nothing decided.

use model as m;

use super::{ConvertError, FromProto, ToProto, list_from_proto, list_to_proto, option_from_proto, option_to_proto};
use crate::swarmkit as p;

impl ToProto for m::NamedGenericResource {
    type Proto = p::NamedGenericResource;
    fn to_proto(&self) -> p::NamedGenericResource {
        p::NamedGenericResource { kind: self.kind.clone(), value: self.value.clone() }
    }
}

impl FromProto for m::NamedGenericResource {
    type Proto = p::NamedGenericResource;
    fn from_proto(p: p::NamedGenericResource) -> Result<Self, ConvertError> {
        Ok(m::NamedGenericResource { kind: p.kind, value: p.value })
    }
}

impl ToProto for m::DiscreteGenericResource {
    type Proto = p::DiscreteGenericResource;
    fn to_proto(&self) -> p::DiscreteGenericResource {
        p::DiscreteGenericResource { kind: self.kind.clone(), value: self.value }
    }
}

impl FromProto for m::DiscreteGenericResource {
    type Proto = p::DiscreteGenericResource;
    fn from_proto(p: p::DiscreteGenericResource) -> Result<Self, ConvertError> {
        Ok(m::DiscreteGenericResource { kind: p.kind, value: p.value })
    }
}

impl ToProto for m::GenericResource {
    type Proto = p::GenericResource;
    fn to_proto(&self) -> p::GenericResource {
        p::GenericResource {
            resource: self.resource.as_ref().map(|v| match v {
                m::GenericResourceKind::NamedResourceSpec(v) => {
                    p::generic_resource::Resource::NamedResourceSpec(v.to_proto())
                }
                m::GenericResourceKind::DiscreteResourceSpec(v) => {
                    p::generic_resource::Resource::DiscreteResourceSpec(v.to_proto())
                }
            }),
        }
    }
}

impl FromProto for m::GenericResource {
    type Proto = p::GenericResource;
    fn from_proto(p: p::GenericResource) -> Result<Self, ConvertError> {
        Ok(m::GenericResource {
            resource: match p.resource {
                None => None,
                Some(v) => Some(match v {
                    p::generic_resource::Resource::NamedResourceSpec(v) => {
                        m::GenericResourceKind::NamedResourceSpec(FromProto::from_proto(v)?)
                    }
                    p::generic_resource::Resource::DiscreteResourceSpec(v) => {
                        m::GenericResourceKind::DiscreteResourceSpec(FromProto::from_proto(v)?)
                    }
                }),
            },
        })
    }
}

impl ToProto for m::Resources {
    type Proto = p::Resources;
    fn to_proto(&self) -> p::Resources {
        p::Resources {
            nano_cpus: self.nano_cpus,
            memory_bytes: self.memory_bytes,
            generic: list_to_proto(&self.generic),
        }
    }
}

impl FromProto for m::Resources {
    type Proto = p::Resources;
    fn from_proto(p: p::Resources) -> Result<Self, ConvertError> {
        Ok(m::Resources { nano_cpus: p.nano_cpus, memory_bytes: p.memory_bytes, generic: list_from_proto(p.generic)? })
    }
}

impl ToProto for m::ResourceRequirements {
    type Proto = p::ResourceRequirements;
    fn to_proto(&self) -> p::ResourceRequirements {
        p::ResourceRequirements {
            limits: option_to_proto(self.limits.as_ref()),
            reservations: option_to_proto(self.reservations.as_ref()),
            swap_bytes: self.swap_bytes,
            memory_swappiness: self.memory_swappiness,
        }
    }
}

impl FromProto for m::ResourceRequirements {
    type Proto = p::ResourceRequirements;
    fn from_proto(p: p::ResourceRequirements) -> Result<Self, ConvertError> {
        Ok(m::ResourceRequirements {
            limits: option_from_proto(p.limits)?,
            reservations: option_from_proto(p.reservations)?,
            swap_bytes: p.swap_bytes,
            memory_swappiness: p.memory_swappiness,
        })
    }
}

impl ToProto for m::Platform {
    type Proto = p::Platform;
    fn to_proto(&self) -> p::Platform {
        p::Platform { architecture: self.architecture.clone(), os: self.os.clone() }
    }
}

impl FromProto for m::Platform {
    type Proto = p::Platform;
    fn from_proto(p: p::Platform) -> Result<Self, ConvertError> {
        Ok(m::Platform { architecture: p.architecture, os: p.os })
    }
}
