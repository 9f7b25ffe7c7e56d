//! Events, as `GET /events` streams them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::is_zero;

/// One line of `GET /events`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventMessage {
    /// The action again; only for containers and images.
    #[serde(skip_serializing_if = "is_zero")]
    pub status: String,
    /// The actor's id again; only for containers and images.
    #[serde(skip_serializing_if = "is_zero")]
    pub id: String,
    /// The container's image; only for containers.
    #[serde(skip_serializing_if = "is_zero")]
    pub from: String,
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local` or `swarm`.
    #[serde(skip_serializing_if = "is_zero")]
    pub scope: String,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "is_zero")]
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano", skip_serializing_if = "is_zero")]
    pub time_nano: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}
