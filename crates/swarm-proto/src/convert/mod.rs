//! Between `model` and protobuf. A number that SwarmKit does not define is an error, everything else passes.

mod cluster;
mod container;
mod network;
mod node;
mod object;
mod resources;
mod secret;
mod service;
mod task;
mod volume;

use model as m;

/// A message held an enum number that SwarmKit does not define.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: unknown enum number {number}")]
pub struct ConvertError {
    /// SwarmKit's message and field name.
    pub field: &'static str,
    /// The number that was there.
    pub number: i32,
}

/// A model type that has a message.
pub trait ToProto {
    /// The message.
    type Proto;
    /// The message with the same content.
    fn to_proto(&self) -> Self::Proto;
}

/// A message that has a model type.
pub trait FromProto: Sized {
    /// The message.
    type Proto;
    /// The same content, typed.
    fn from_proto(p: Self::Proto) -> Result<Self, ConvertError>;
}

fn list_to_proto<M: ToProto>(list: &[M]) -> Vec<M::Proto> {
    list.iter().map(ToProto::to_proto).collect()
}

fn list_from_proto<M: FromProto>(list: Vec<M::Proto>) -> Result<Vec<M>, ConvertError> {
    list.into_iter().map(M::from_proto).collect()
}

fn option_to_proto<M: ToProto>(value: Option<&M>) -> Option<M::Proto> {
    value.map(ToProto::to_proto)
}

fn option_from_proto<M: FromProto>(value: Option<M::Proto>) -> Result<Option<M>, ConvertError> {
    value.map(M::from_proto).transpose()
}

impl ToProto for m::Timestamp {
    type Proto = prost_types::Timestamp;
    fn to_proto(&self) -> Self::Proto {
        prost_types::Timestamp { seconds: self.seconds, nanos: self.nanos }
    }
}

impl FromProto for m::Timestamp {
    type Proto = prost_types::Timestamp;
    fn from_proto(p: Self::Proto) -> Result<Self, ConvertError> {
        Ok(m::Timestamp { seconds: p.seconds, nanos: p.nanos })
    }
}

impl ToProto for m::Duration {
    type Proto = prost_types::Duration;
    fn to_proto(&self) -> Self::Proto {
        prost_types::Duration { seconds: self.seconds, nanos: self.nanos }
    }
}

impl FromProto for m::Duration {
    type Proto = prost_types::Duration;
    fn from_proto(p: Self::Proto) -> Result<Self, ConvertError> {
        Ok(m::Duration { seconds: p.seconds, nanos: p.nanos })
    }
}

impl ToProto for m::Any {
    type Proto = prost_types::Any;
    fn to_proto(&self) -> Self::Proto {
        prost_types::Any { type_url: self.type_url.clone(), value: self.value.clone() }
    }
}

impl FromProto for m::Any {
    type Proto = prost_types::Any;
    fn from_proto(p: Self::Proto) -> Result<Self, ConvertError> {
        Ok(m::Any { type_url: p.type_url, value: p.value })
    }
}
