//! All objects as plain lists: what a raft snapshot holds.

use crate::error::StoreError;
use crate::object::Object;
use crate::view::View;
use model::{Cluster, Config, Extension, Network, Node, Resource, Secret, Service, Task, Volume};
use std::sync::Arc;

/// SwarmKit's `StoreSnapshot`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreSnapshot {
    /// Nodes.
    pub nodes: Vec<Arc<Node>>,
    /// Services.
    pub services: Vec<Arc<Service>>,
    /// Networks.
    pub networks: Vec<Arc<Network>>,
    /// Tasks.
    pub tasks: Vec<Arc<Task>>,
    /// Clusters.
    pub clusters: Vec<Arc<Cluster>>,
    /// Secrets.
    pub secrets: Vec<Arc<Secret>>,
    /// Resources.
    pub resources: Vec<Arc<Resource>>,
    /// Extensions.
    pub extensions: Vec<Arc<Extension>>,
    /// Configs.
    pub configs: Vec<Arc<Config>>,
    /// Volumes.
    pub volumes: Vec<Arc<Volume>>,
}

impl View {
    /// All objects, each kind by identifier.
    pub fn snapshot(&self) -> StoreSnapshot {
        StoreSnapshot {
            nodes: self.nodes().cloned().collect(),
            services: self.services().cloned().collect(),
            networks: self.networks().cloned().collect(),
            tasks: self.tasks().cloned().collect(),
            clusters: self.clusters().cloned().collect(),
            secrets: self.secrets().cloned().collect(),
            resources: self.resources().cloned().collect(),
            extensions: self.extensions().cloned().collect(),
            configs: self.configs().cloned().collect(),
            volumes: self.volumes().cloned().collect(),
        }
    }

    /// A state with exactly the objects of `snapshot`.
    pub fn restore(snapshot: &StoreSnapshot) -> Result<Self, StoreError> {
        let mut view = Self::new();
        let objects = (snapshot.nodes.iter().cloned().map(Object::Node))
            .chain(snapshot.services.iter().cloned().map(Object::Service))
            .chain(snapshot.networks.iter().cloned().map(Object::Network))
            .chain(snapshot.tasks.iter().cloned().map(Object::Task))
            .chain(snapshot.clusters.iter().cloned().map(Object::Cluster))
            .chain(snapshot.secrets.iter().cloned().map(Object::Secret))
            .chain(snapshot.resources.iter().cloned().map(Object::Resource))
            .chain(snapshot.extensions.iter().cloned().map(Object::Extension))
            .chain(snapshot.configs.iter().cloned().map(Object::Config))
            .chain(snapshot.volumes.iter().cloned().map(Object::Volume));
        for object in objects {
            view.apply_one(&crate::Action::Create(object))?;
        }
        Ok(view)
    }
}
