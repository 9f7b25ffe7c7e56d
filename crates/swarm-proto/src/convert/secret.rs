//! Conversions of `model::secret`: one field a line, nothing decided.

use model as m;

use super::{ConvertError, FromProto, ToProto, option_from_proto, option_to_proto};
use crate::swarmkit as p;

impl ToProto for m::SecretSpec {
    type Proto = p::SecretSpec;
    fn to_proto(&self) -> p::SecretSpec {
        p::SecretSpec {
            annotations: Some(self.annotations.to_proto()),
            data: self.data.clone(),
            templating: option_to_proto(self.templating.as_ref()),
            driver: option_to_proto(self.driver.as_ref()),
        }
    }
}

impl FromProto for m::SecretSpec {
    type Proto = p::SecretSpec;
    fn from_proto(p: p::SecretSpec) -> Result<Self, ConvertError> {
        Ok(m::SecretSpec {
            annotations: FromProto::from_proto(p.annotations.unwrap_or_default())?,
            data: p.data,
            templating: option_from_proto(p.templating)?,
            driver: option_from_proto(p.driver)?,
        })
    }
}

impl ToProto for m::ConfigSpec {
    type Proto = p::ConfigSpec;
    fn to_proto(&self) -> p::ConfigSpec {
        p::ConfigSpec {
            annotations: Some(self.annotations.to_proto()),
            data: self.data.clone(),
            templating: option_to_proto(self.templating.as_ref()),
        }
    }
}

impl FromProto for m::ConfigSpec {
    type Proto = p::ConfigSpec;
    fn from_proto(p: p::ConfigSpec) -> Result<Self, ConvertError> {
        Ok(m::ConfigSpec {
            annotations: FromProto::from_proto(p.annotations.unwrap_or_default())?,
            data: p.data,
            templating: option_from_proto(p.templating)?,
        })
    }
}

impl ToProto for m::Secret {
    type Proto = p::Secret;
    fn to_proto(&self) -> p::Secret {
        p::Secret {
            id: self.id.to_string(),
            meta: Some(self.meta.to_proto()),
            spec: Some(self.spec.to_proto()),
            internal: self.internal,
        }
    }
}

impl FromProto for m::Secret {
    type Proto = p::Secret;
    fn from_proto(p: p::Secret) -> Result<Self, ConvertError> {
        Ok(m::Secret {
            id: p.id.into(),
            meta: FromProto::from_proto(p.meta.unwrap_or_default())?,
            spec: FromProto::from_proto(p.spec.unwrap_or_default())?,
            internal: p.internal,
        })
    }
}

impl ToProto for m::Config {
    type Proto = p::Config;
    fn to_proto(&self) -> p::Config {
        p::Config { id: self.id.to_string(), meta: Some(self.meta.to_proto()), spec: Some(self.spec.to_proto()) }
    }
}

impl FromProto for m::Config {
    type Proto = p::Config;
    fn from_proto(p: p::Config) -> Result<Self, ConvertError> {
        Ok(m::Config {
            id: p.id.into(),
            meta: FromProto::from_proto(p.meta.unwrap_or_default())?,
            spec: FromProto::from_proto(p.spec.unwrap_or_default())?,
        })
    }
}
