//! Secrets and configs.

use std::collections::BTreeMap;

use model as m;
use serde::{Deserialize, Serialize};

use crate::json::{Base64, is_zero};
use crate::service::annotations;
use crate::swarm::Version;
use crate::task::Driver;
use crate::time::Time;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SecretSpec {
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub data: Base64,
    #[serde(skip_serializing_if = "is_zero")]
    pub driver: Option<Driver>,
    #[serde(skip_serializing_if = "is_zero")]
    pub templating: Option<Driver>,
}

/// `GET /secrets/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Secret {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: Version,
    pub created_at: Time,
    pub updated_at: Time,
    pub spec: SecretSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigSpec {
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub data: Base64,
    #[serde(skip_serializing_if = "is_zero")]
    pub templating: Option<Driver>,
}

/// `GET /configs/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: Version,
    pub created_at: Time,
    pub updated_at: Time,
    pub spec: ConfigSpec,
}

/// Answer to the creation of a secret or config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateResponse {
    #[serde(rename = "ID")]
    pub id: String,
}

impl SecretSpec {
    /// What it means in the model.
    pub fn to_model(&self) -> m::SecretSpec {
        m::SecretSpec {
            annotations: annotations(&self.name, &self.labels),
            data: self.data.0.clone(),
            templating: self.templating.as_ref().map(Driver::to_model),
            driver: self.driver.as_ref().map(Driver::to_model),
        }
    }
}

impl ConfigSpec {
    /// What it means in the model.
    pub fn to_model(&self) -> m::ConfigSpec {
        m::ConfigSpec {
            annotations: annotations(&self.name, &self.labels),
            data: self.data.0.clone(),
            templating: self.templating.as_ref().map(Driver::to_model),
        }
    }
}

impl Secret {
    /// How a secret is shown: never its data.
    pub fn from_model(secret: &m::Secret) -> Self {
        Self {
            id: secret.id.to_string(),
            version: Version { index: secret.meta.version.0 },
            created_at: secret.meta.created_at.into(),
            updated_at: secret.meta.updated_at.into(),
            spec: SecretSpec {
                name: secret.spec.annotations.name.clone(),
                labels: secret.spec.annotations.labels.clone(),
                data: Base64::default(),
                driver: secret.spec.driver.as_ref().map(Driver::from_model),
                templating: secret.spec.templating.as_ref().map(Driver::from_model),
            },
        }
    }
}

impl Config {
    /// How a config is shown.
    pub fn from_model(config: &m::Config) -> Self {
        Self {
            id: config.id.to_string(),
            version: Version { index: config.meta.version.0 },
            created_at: config.meta.created_at.into(),
            updated_at: config.meta.updated_at.into(),
            spec: ConfigSpec {
                name: config.spec.annotations.name.clone(),
                labels: config.spec.annotations.labels.clone(),
                data: Base64(config.spec.data.clone()),
                templating: config.spec.templating.as_ref().map(Driver::from_model),
            },
        }
    }
}
