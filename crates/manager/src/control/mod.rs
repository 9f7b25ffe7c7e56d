//! The control API: validates what users ask for and writes it. Reads go to the committed view directly. Codes and texts
//! are SwarmKit's.

mod cluster;
mod defaults;
mod names;
mod node;
mod secret;
mod service;
mod validate;

use std::sync::Arc;

pub use cluster::{KeyRotation, check_cluster_spec, unlock_key};
pub use defaults::with_defaults;
pub use node::RemoveKind;
pub use service::{ServiceCounts, UpdateKind, service_counts};

use identity::Credentials;

use crate::writer::Writer;

/// Writes of the control API, on the leading manager.
#[derive(Clone)]
pub struct Control {
    writer: Arc<Writer>,
    /// Shown to external CAs.
    credentials: Credentials,
}

impl Control {
    pub(crate) fn new(writer: Arc<Writer>, credentials: Credentials) -> Self {
        Self { writer, credentials }
    }
}
