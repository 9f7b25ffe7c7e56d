//! One consistent state of all objects, with every index. Cloning it costs a few reference counts; clones do not see each
//! other's writes.

use crate::error::StoreError;
use crate::index::{Indexes, RefTarget, RefUser};
use crate::object::{Action, Event, Object, StoreObject};
use crate::table::Table;
use model::{
    Cluster, ClusterId, Config, ConfigId, Extension, ExtensionId, Network, NetworkId, Node, NodeId, Resource,
    ResourceId, Secret, SecretId, Service, ServiceId, Task, TaskId, TaskState, Volume, VolumeId,
};
use std::sync::Arc;

/// A state of the swarm's objects.
#[derive(Clone, Default)]
pub struct View {
    pub(crate) nodes: Table<Node>,
    pub(crate) services: Table<Service>,
    pub(crate) tasks: Table<Task>,
    pub(crate) networks: Table<Network>,
    pub(crate) clusters: Table<Cluster>,
    pub(crate) secrets: Table<Secret>,
    pub(crate) configs: Table<Config>,
    pub(crate) resources: Table<Resource>,
    pub(crate) extensions: Table<Extension>,
    pub(crate) volumes: Table<Volume>,
    pub(crate) indexes: Indexes,
}

macro_rules! lookups {
    ($(($kind:ident, $id:ident, $one:ident, $all:ident)),* $(,)?) => {
        impl View {
            $(
                #[doc = concat!("The `", stringify!($kind), "` with this identifier.")]
                pub fn $one(&self, id: &$id) -> Option<&Arc<$kind>> {
                    self.$all.get(id.as_str())
                }

                #[doc = concat!("Every `", stringify!($kind), "`, by identifier.")]
                pub fn $all(&self) -> impl Iterator<Item = &Arc<$kind>> {
                    self.$all.iter()
                }
            )*
        }
    };
}

lookups! {
    (Node, NodeId, node, nodes),
    (Service, ServiceId, service, services),
    (Task, TaskId, task, tasks),
    (Network, NetworkId, network, networks),
    (Cluster, ClusterId, cluster, clusters),
    (Secret, SecretId, secret, secrets),
    (Config, ConfigId, config, configs),
    (Resource, ResourceId, resource, resources),
    (Extension, ExtensionId, extension, extensions),
    (Volume, VolumeId, volume, volumes),
}

impl View {
    /// A state without objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// The object of kind `T` with this identifier.
    pub fn get<T: StoreObject>(&self, id: &T::Id) -> Option<&Arc<T>> {
        T::table(self).get(std::borrow::Borrow::borrow(id))
    }

    /// The object of kind `T` whose identifier has this text.
    pub fn get_str<T: StoreObject>(&self, id: &str) -> Option<&Arc<T>> {
        T::table(self).get(id)
    }

    /// Every object of kind `T`, by identifier.
    pub fn all<T: StoreObject>(&self) -> impl Iterator<Item = &Arc<T>> {
        T::table(self).iter()
    }

    /// How many objects of kind `T` there are.
    pub fn count<T: StoreObject>(&self) -> usize {
        T::table(self).len()
    }

    /// The object of kind `T` with this name, whatever its case; only kinds with unique names (services, networks,
    /// clusters, secrets, configs, extensions, volumes).
    pub fn by_name<T: StoreObject>(&self, name: &str) -> Option<&Arc<T>> {
        T::table(self).by_name(name)
    }

    /// Objects of kind `T` whose identifiers start with `prefix`.
    pub fn by_id_prefix<'a, T: StoreObject>(&'a self, prefix: &str) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        T::table(self).by_id_prefix(prefix)
    }

    /// Objects of kind `T` whose unique names start with `prefix`, whatever its case.
    pub fn by_name_prefix<'a, T: StoreObject>(&'a self, prefix: &str) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        T::table(self).by_name_prefix(prefix)
    }

    /// The tasks of a service, by slot and identifier.
    pub fn tasks_of_service<'a>(&'a self, id: &ServiceId) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        let id = id.clone();
        self.indexes
            .tasks_by_service
            .range((id.clone(), 0, TaskId::default())..)
            .take_while(move |key| key.0 == id)
            .filter_map(|(_, _, task)| self.tasks.get(task.as_str()))
    }

    /// The tasks of a service's slot, by identifier.
    pub fn tasks_of_slot<'a>(&'a self, id: &ServiceId, slot: u64) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        let id = id.clone();
        self.indexes
            .tasks_by_service
            .range((id.clone(), slot, TaskId::default())..)
            .take_while(move |key| key.0 == id && key.1 == slot)
            .filter_map(|(_, _, task)| self.tasks.get(task.as_str()))
    }

    /// The tasks that have this node, by identifier.
    pub fn tasks_of_node<'a>(&'a self, id: &NodeId) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        let id = id.clone();
        self.indexes
            .tasks_by_node
            .range((id.clone(), TaskId::default())..)
            .take_while(move |key| key.0 == id)
            .filter_map(|(_, task)| self.tasks.get(task.as_str()))
    }

    /// The tasks with this desired state, by identifier.
    pub fn tasks_by_desired_state(&self, desired_state: TaskState) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes
            .tasks_by_desired
            .range((desired_state, TaskId::default())..)
            .take_while(move |key| key.0 == desired_state)
            .filter_map(|(_, task)| self.tasks.get(task.as_str()))
    }

    /// The nodes with this host name, whatever its case.
    pub fn nodes_by_hostname<'a>(&'a self, hostname: &str) -> impl Iterator<Item = &'a Arc<Node>> + use<'a> {
        let hostname: Arc<str> = hostname.to_lowercase().into();
        self.indexes
            .nodes_by_hostname
            .range((hostname.clone(), NodeId::default())..)
            .take_while(move |key| key.0 == hostname)
            .filter_map(|(_, node)| self.nodes.get(node.as_str()))
    }

    /// Who refers to a network, secret or config. Services come first.
    pub fn users_of<'a>(&'a self, target: &RefTarget) -> impl Iterator<Item = &'a RefUser> + use<'a> {
        let target = target.clone();
        self.indexes
            .references
            .range((target.clone(), RefUser::Service(ServiceId::default()))..)
            .take_while(move |key| key.0 == target)
            .map(|(_, user)| user)
    }

    /// The services that refer to a network, secret or config.
    pub fn services_using<'a>(&'a self, target: &RefTarget) -> impl Iterator<Item = &'a Arc<Service>> + use<'a> {
        self.users_of(target).filter_map(|user| match user {
            RefUser::Service(id) => self.service(id),
            RefUser::Task(_) => None,
        })
    }

    /// The tasks that refer to a network, secret or config.
    pub fn tasks_using<'a>(&'a self, target: &RefTarget) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
        self.users_of(target).filter_map(|user| match user {
            RefUser::Service(_) => None,
            RefUser::Task(id) => self.task(id),
        })
    }

    /// The one cluster object there is, once the swarm is initialised.
    pub fn the_cluster(&self) -> Option<&Arc<Cluster>> {
        self.clusters.iter().next()
    }

    /// Does all `actions` or, if one is refused, none of them.
    pub fn apply(&mut self, actions: &[Action]) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::with_capacity(actions.len());
        for action in actions {
            match self.apply_one(action) {
                Ok(event) => events.push(event),
                Err(error) => {
                    self.undo(events);
                    return Err(error);
                }
            }
        }
        Ok(events)
    }

    fn undo(&mut self, events: Vec<Event>) {
        for event in events.into_iter().rev() {
            match event {
                Event::Create(object) => drop(self.take_object(&object)),
                Event::Update { old, .. } => drop(self.put_object(&old)),
                Event::Remove(object) => drop(self.put_object(&object)),
            }
        }
    }

    pub(crate) fn apply_one(&mut self, action: &Action) -> Result<Event, StoreError> {
        match action {
            // Both write first and look at what was there, which saves a look-up in the usual case.
            Action::Create(object) => {
                if let Err(conflict) = self.check_name(object) {
                    return Err(self.find(object).map_or(conflict, |old| StoreError::Exists(old.id())));
                }
                if let Some(old) = self.put_object(object) {
                    self.put_object(&old);
                    return Err(StoreError::Exists(object.id()));
                }
                Ok(Event::Create(object.clone()))
            }
            Action::Update(object) => {
                if let Err(conflict) = self.check_name(object) {
                    return Err(self.find(object).map_or(StoreError::NotFound(object.id()), |_| conflict));
                }
                let Some(old) = self.put_object(object) else {
                    self.take_object(object);
                    return Err(StoreError::NotFound(object.id()));
                };
                Ok(Event::Update { old, new: object.clone() })
            }
            Action::Remove(object) => {
                self.take_object(object).map(Event::Remove).ok_or_else(|| StoreError::NotFound(object.id()))
            }
        }
    }

    /// The stored object with the kind and identifier of `like`.
    pub(crate) fn find(&self, like: &Object) -> Option<Object> {
        match like {
            Object::Node(it) => self.nodes.get(it.id.as_str()).cloned().map(Object::Node),
            Object::Service(it) => self.services.get(it.id.as_str()).cloned().map(Object::Service),
            Object::Task(it) => self.tasks.get(it.id.as_str()).cloned().map(Object::Task),
            Object::Network(it) => self.networks.get(it.id.as_str()).cloned().map(Object::Network),
            Object::Cluster(it) => self.clusters.get(it.id.as_str()).cloned().map(Object::Cluster),
            Object::Secret(it) => self.secrets.get(it.id.as_str()).cloned().map(Object::Secret),
            Object::Config(it) => self.configs.get(it.id.as_str()).cloned().map(Object::Config),
            Object::Resource(it) => self.resources.get(it.id.as_str()).cloned().map(Object::Resource),
            Object::Extension(it) => self.extensions.get(it.id.as_str()).cloned().map(Object::Extension),
            Object::Volume(it) => self.volumes.get(it.id.as_str()).cloned().map(Object::Volume),
        }
    }

    fn check_name(&self, object: &Object) -> Result<(), StoreError> {
        let (free, name) = match object {
            Object::Service(it) => (self.services.name_is_free_for(it), it.unique_name()),
            Object::Network(it) => (self.networks.name_is_free_for(it), it.unique_name()),
            Object::Cluster(it) => (self.clusters.name_is_free_for(it), it.unique_name()),
            Object::Secret(it) => (self.secrets.name_is_free_for(it), it.unique_name()),
            Object::Config(it) => (self.configs.name_is_free_for(it), it.unique_name()),
            Object::Extension(it) => (self.extensions.name_is_free_for(it), it.unique_name()),
            Object::Volume(it) => (self.volumes.name_is_free_for(it), it.unique_name()),
            Object::Node(_) | Object::Task(_) | Object::Resource(_) => return Ok(()),
        };
        if free { Ok(()) } else { Err(StoreError::NameConflict { id: object.id(), name: name.to_owned() }) }
    }

    /// Puts `object` in and keeps the indexes right.
    pub(crate) fn put_object(&mut self, object: &Object) -> Option<Object> {
        match object {
            Object::Node(it) => {
                let old = self.nodes.put(it.clone());
                self.indexes.change_node(old.as_deref(), Some(it));
                old.map(Object::Node)
            }
            Object::Service(it) => {
                let old = self.services.put(it.clone());
                self.indexes.change_service(old.as_deref(), Some(it));
                old.map(Object::Service)
            }
            Object::Task(it) => {
                let old = self.tasks.put(it.clone());
                self.indexes.change_task(old.as_deref(), Some(it));
                old.map(Object::Task)
            }
            Object::Network(it) => self.networks.put(it.clone()).map(Object::Network),
            Object::Cluster(it) => self.clusters.put(it.clone()).map(Object::Cluster),
            Object::Secret(it) => self.secrets.put(it.clone()).map(Object::Secret),
            Object::Config(it) => self.configs.put(it.clone()).map(Object::Config),
            Object::Resource(it) => self.resources.put(it.clone()).map(Object::Resource),
            Object::Extension(it) => self.extensions.put(it.clone()).map(Object::Extension),
            Object::Volume(it) => self.volumes.put(it.clone()).map(Object::Volume),
        }
    }

    /// Takes the object with the kind and identifier of `like` out and keeps the indexes right.
    pub(crate) fn take_object(&mut self, like: &Object) -> Option<Object> {
        match like {
            Object::Node(it) => {
                let old = self.nodes.take(&it.id)?;
                self.indexes.change_node(Some(&old), None);
                Some(Object::Node(old))
            }
            Object::Service(it) => {
                let old = self.services.take(&it.id)?;
                self.indexes.change_service(Some(&old), None);
                Some(Object::Service(old))
            }
            Object::Task(it) => {
                let old = self.tasks.take(&it.id)?;
                self.indexes.change_task(Some(&old), None);
                Some(Object::Task(old))
            }
            Object::Network(it) => self.networks.take(&it.id).map(Object::Network),
            Object::Cluster(it) => self.clusters.take(&it.id).map(Object::Cluster),
            Object::Secret(it) => self.secrets.take(&it.id).map(Object::Secret),
            Object::Config(it) => self.configs.take(&it.id).map(Object::Config),
            Object::Resource(it) => self.resources.take(&it.id).map(Object::Resource),
            Object::Extension(it) => self.extensions.take(&it.id).map(Object::Extension),
            Object::Volume(it) => self.volumes.take(&it.id).map(Object::Volume),
        }
    }
}
