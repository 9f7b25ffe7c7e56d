//! Conversions of `model::object`: one field a line, nothing decided.

use model as m;

use super::{ConvertError, FromProto, ToProto, list_from_proto, list_to_proto, option_from_proto, option_to_proto};
use crate::swarmkit as p;

impl ToProto for m::IndexEntry {
    type Proto = p::IndexEntry;
    fn to_proto(&self) -> p::IndexEntry {
        p::IndexEntry { key: self.key.clone(), val: self.val.clone() }
    }
}

impl FromProto for m::IndexEntry {
    type Proto = p::IndexEntry;
    fn from_proto(p: p::IndexEntry) -> Result<Self, ConvertError> {
        Ok(m::IndexEntry { key: p.key, val: p.val })
    }
}

impl ToProto for m::Annotations {
    type Proto = p::Annotations;
    fn to_proto(&self) -> p::Annotations {
        p::Annotations {
            name: self.name.clone(),
            labels: self.labels.clone().into_iter().collect(),
            indices: list_to_proto(&self.indices),
        }
    }
}

impl FromProto for m::Annotations {
    type Proto = p::Annotations;
    fn from_proto(p: p::Annotations) -> Result<Self, ConvertError> {
        Ok(m::Annotations {
            name: p.name,
            labels: p.labels.into_iter().collect(),
            indices: list_from_proto(p.indices)?,
        })
    }
}

impl ToProto for m::Driver {
    type Proto = p::Driver;
    fn to_proto(&self) -> p::Driver {
        p::Driver { name: self.name.clone(), options: self.options.clone().into_iter().collect() }
    }
}

impl FromProto for m::Driver {
    type Proto = p::Driver;
    fn from_proto(p: p::Driver) -> Result<Self, ConvertError> {
        Ok(m::Driver { name: p.name, options: p.options.into_iter().collect() })
    }
}

impl ToProto for m::Peer {
    type Proto = p::Peer;
    fn to_proto(&self) -> p::Peer {
        p::Peer { node_id: self.node_id.to_string(), addr: self.addr.clone() }
    }
}

impl FromProto for m::Peer {
    type Proto = p::Peer;
    fn from_proto(p: p::Peer) -> Result<Self, ConvertError> {
        Ok(m::Peer { node_id: p.node_id.into(), addr: p.addr })
    }
}

impl ToProto for m::WeightedPeer {
    type Proto = p::WeightedPeer;
    fn to_proto(&self) -> p::WeightedPeer {
        p::WeightedPeer { peer: option_to_proto(self.peer.as_ref()), weight: self.weight }
    }
}

impl FromProto for m::WeightedPeer {
    type Proto = p::WeightedPeer;
    fn from_proto(p: p::WeightedPeer) -> Result<Self, ConvertError> {
        Ok(m::WeightedPeer { peer: option_from_proto(p.peer)?, weight: p.weight })
    }
}

impl ToProto for m::ResourceReference {
    type Proto = p::ResourceReference;
    fn to_proto(&self) -> p::ResourceReference {
        p::ResourceReference { resource_id: self.resource_id.clone(), resource_type: self.resource_type as i32 }
    }
}

impl FromProto for m::ResourceReference {
    type Proto = p::ResourceReference;
    fn from_proto(p: p::ResourceReference) -> Result<Self, ConvertError> {
        Ok(m::ResourceReference {
            resource_id: p.resource_id,
            resource_type: m::ResourceType::from_number(p.resource_type)
                .ok_or(ConvertError { field: "ResourceReference.resource_type", number: p.resource_type })?,
        })
    }
}

impl ToProto for m::Meta {
    type Proto = p::Meta;
    fn to_proto(&self) -> p::Meta {
        p::Meta {
            version: Some(p::Version { index: self.version.0 }),
            created_at: option_to_proto(self.created_at.as_ref()),
            updated_at: option_to_proto(self.updated_at.as_ref()),
        }
    }
}

impl FromProto for m::Meta {
    type Proto = p::Meta;
    fn from_proto(p: p::Meta) -> Result<Self, ConvertError> {
        Ok(m::Meta {
            version: m::ObjectVersion(p.version.unwrap_or_default().index),
            created_at: option_from_proto(p.created_at)?,
            updated_at: option_from_proto(p.updated_at)?,
        })
    }
}

impl ToProto for m::Resource {
    type Proto = p::Resource;
    fn to_proto(&self) -> p::Resource {
        p::Resource {
            id: self.id.to_string(),
            meta: Some(self.meta.to_proto()),
            annotations: Some(self.annotations.to_proto()),
            kind: self.kind.clone(),
            payload: option_to_proto(self.payload.as_ref()),
        }
    }
}

impl FromProto for m::Resource {
    type Proto = p::Resource;
    fn from_proto(p: p::Resource) -> Result<Self, ConvertError> {
        Ok(m::Resource {
            id: p.id.into(),
            meta: FromProto::from_proto(p.meta.unwrap_or_default())?,
            annotations: FromProto::from_proto(p.annotations.unwrap_or_default())?,
            kind: p.kind,
            payload: option_from_proto(p.payload)?,
        })
    }
}

impl ToProto for m::Extension {
    type Proto = p::Extension;
    fn to_proto(&self) -> p::Extension {
        p::Extension {
            id: self.id.to_string(),
            meta: Some(self.meta.to_proto()),
            annotations: Some(self.annotations.to_proto()),
            description: self.description.clone(),
        }
    }
}

impl FromProto for m::Extension {
    type Proto = p::Extension;
    fn from_proto(p: p::Extension) -> Result<Self, ConvertError> {
        Ok(m::Extension {
            id: p.id.into(),
            meta: FromProto::from_proto(p.meta.unwrap_or_default())?,
            annotations: FromProto::from_proto(p.annotations.unwrap_or_default())?,
            description: p.description,
        })
    }
}
