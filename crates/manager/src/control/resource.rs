//! Extensions and resources, which only other programs use, and the removal of a task's object.

use model::{Annotations, Any, Extension, ExtensionId, ObjectVersion, Resource, ResourceId, Task, TaskId};
use store::StoreError;
use tonic::Code;

use super::LocalControl;
use crate::error::ControlError;

impl LocalControl {
    /// Removes a task's object; what it was for is not asked.
    pub(crate) async fn remove_task(&self, id: &TaskId) -> Result<(), ControlError> {
        let written = self
            .writer
            .write(|transaction| transaction.remove::<Task>(id).map_err(|_| ControlError::not_found("task", id)));
        written.await
    }

    /// Creates an extension: a kind of resources.
    pub(crate) async fn create_extension(
        &self,
        annotations: Annotations,
        description: String,
    ) -> Result<ExtensionId, ControlError> {
        if annotations.name.is_empty() {
            return Err(ControlError::invalid("extension name must be provided"));
        }
        let id = ExtensionId::from(identity::random_id());
        let name = annotations.name.clone();
        let extension = Extension { id: id.clone(), annotations, description, ..Default::default() };
        let written = self.writer.write(|transaction| {
            transaction.create(extension).map_err(|error| match error {
                StoreError::NameConflict { .. } => {
                    ControlError::new(Code::AlreadyExists, format!("extension {name} already exists"))
                }
                other => other.into(),
            })
        });
        written.await.map(|()| id)
    }

    /// Removes an extension that has no resources.
    pub(crate) async fn remove_extension(&self, id: &ExtensionId) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let gone = || ControlError::new(Code::NotFound, format!("could not find extension {id}"));
            let name = transaction.extension(id).ok_or_else(gone)?.annotations.name.clone();
            if let Some(resource) = transaction.resources().find(|resource| resource.kind == name) {
                let text = format!("extension {name} is in use by resource {}", resource.id);
                return Err(ControlError::invalid(text));
            }
            transaction.remove::<Extension>(id).map_err(ControlError::from)
        });
        written.await
    }

    /// Creates a resource of an extension's kind.
    pub(crate) async fn create_resource(
        &self,
        annotations: Annotations,
        kind: String,
        payload: Option<Any>,
    ) -> Result<ResourceId, ControlError> {
        if annotations.name.is_empty() {
            return Err(ControlError::invalid("Resource must have a name"));
        }
        if kind.is_empty() {
            return Err(ControlError::invalid("Resource must belong to an Extension"));
        }
        let id = ResourceId::from(identity::random_id());
        let resource = Resource { id: id.clone(), annotations, kind, payload, ..Default::default() };
        let written = self.writer.write(|transaction| {
            if transaction.by_name::<Extension>(&resource.kind).is_none() {
                return Err(ControlError::invalid(format!("Kind {} is not registered", resource.kind)));
            }
            let name = &resource.annotations.name;
            if transaction.resources().any(|other| other.annotations.name == *name && other.kind == resource.kind) {
                let text = format!("A resource with name {name} already exists");
                return Err(ControlError::new(Code::AlreadyExists, text));
            }
            transaction.create(resource).map_err(ControlError::from)
        });
        written.await.map(|()| id)
    }

    /// Changes a resource's labels and payload, if `version` is the current one.
    pub(crate) async fn update_resource(
        &self,
        id: &ResourceId,
        version: ObjectVersion,
        annotations: Option<Annotations>,
        payload: Option<Any>,
    ) -> Result<(), ControlError> {
        let written = self.writer.write(|transaction| {
            let stored = transaction.resource(id).ok_or_else(|| ControlError::not_found("resource", id))?;
            let mut resource = Resource::clone(stored);
            if let Some(annotations) = annotations {
                if annotations.name != resource.annotations.name {
                    return Err(ControlError::invalid("cannot change resource name"));
                }
                resource.annotations = annotations;
            }
            resource.payload = payload.or(resource.payload);
            resource.meta.version = version;
            transaction.update(resource).map_err(|error| match error {
                StoreError::OutOfSequence { .. } => ControlError::invalid(error.to_string()),
                other => other.into(),
            })
        });
        written.await
    }

    /// Removes a resource.
    pub(crate) async fn remove_resource(&self, id: &ResourceId) -> Result<(), ControlError> {
        let gone = || ControlError::not_found("resource", id);
        self.writer.write(|transaction| transaction.remove::<Resource>(id).map_err(|_| gone())).await
    }
}
