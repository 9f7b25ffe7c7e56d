//! What all calls share: the view, and how a request is read. Also the calls for extensions, resources and volumes,
//! which the engine itself never makes.

use model::{Annotations, Any, Extension, ObjectVersion, Resource, Volume};
use store::{StoreObject, View};
use swarm_proto::convert::{FromProto, ToProto};
use swarm_proto::swarmkit as p;
use tonic::Code;

use super::filter::{any_or_none, common};
use crate::control::LocalControl;
use crate::error::ControlError;

/// Answers the calls.
#[derive(Clone)]
pub(super) struct Handlers {
    pub(super) control: LocalControl,
}

/// SwarmKit's answer to a request without what it is about.
pub(super) fn invalid_argument() -> ControlError {
    ControlError::invalid("invalid argument")
}

/// A part of a request that must be there.
pub(super) fn required<T: FromProto>(part: Option<T::Proto>) -> Result<T, ControlError> {
    parsed(part)?.ok_or_else(invalid_argument)
}

/// A part of a request.
pub(super) fn parsed<T: FromProto>(part: Option<T::Proto>) -> Result<Option<T>, ControlError> {
    part.map(T::from_proto).transpose().map_err(|error| ControlError::invalid(error.to_string()))
}

/// The version that an update is made on.
pub(super) fn version(version: Option<p::Version>) -> Result<ObjectVersion, ControlError> {
    version.map(|version| ObjectVersion(version.index)).ok_or_else(invalid_argument)
}

/// An identifier, which must not be empty.
pub(super) fn given<Id: From<String>>(id: String) -> Result<Id, ControlError> {
    if id.is_empty() { Err(invalid_argument()) } else { Ok(id.into()) }
}

impl Handlers {
    /// The committed state now.
    pub(super) fn view(&self) -> View {
        self.control.writer().shared().view()
    }

    /// An object, as a message.
    pub(super) fn read<T>(&self, kind: &str, id: &T::Id) -> Result<T::Proto, ControlError>
    where
        T: StoreObject + ToProto,
    {
        let view = self.view();
        let id_text: &str = std::borrow::Borrow::borrow(id);
        view.get::<T>(id).map(|object| object.to_proto()).ok_or_else(|| ControlError::not_found(kind, id_text))
    }

    /// The objects that pass, as messages.
    pub(super) fn list<T>(&self, takes: impl Fn(&T) -> bool) -> Vec<T::Proto>
    where
        T: StoreObject + ToProto,
    {
        self.view().all::<T>().filter(|object| takes(object)).map(|object| object.to_proto()).collect()
    }

    pub(super) fn get_extension(
        &self,
        request: p::GetExtensionRequest,
    ) -> Result<p::GetExtensionResponse, ControlError> {
        let extension = self.read::<Extension>("extension", &given(request.extension_id)?)?;
        Ok(p::GetExtensionResponse { extension: Some(extension) })
    }

    pub(super) async fn create_extension(
        &self,
        request: p::CreateExtensionRequest,
    ) -> Result<p::CreateExtensionResponse, ControlError> {
        let annotations = parsed::<Annotations>(request.annotations)?.unwrap_or_default();
        let id = self.control.create_extension(annotations, request.description).await?;
        Ok(p::CreateExtensionResponse { extension: Some(self.read::<Extension>("extension", &id)?) })
    }

    pub(super) async fn remove_extension(
        &self,
        request: p::RemoveExtensionRequest,
    ) -> Result<p::RemoveExtensionResponse, ControlError> {
        self.control.remove_extension(&given(request.extension_id)?).await?;
        Ok(p::RemoveExtensionResponse {})
    }

    pub(super) fn get_resource(&self, request: p::GetResourceRequest) -> Result<p::GetResourceResponse, ControlError> {
        let resource = self.read::<Resource>("resource", &given(request.resource_id)?)?;
        Ok(p::GetResourceResponse { resource: Some(resource) })
    }

    pub(super) fn list_resources(
        &self,
        request: p::ListResourcesRequest,
    ) -> Result<p::ListResourcesResponse, ControlError> {
        let filters = request.filters.unwrap_or_default();
        let common = common!(filters);
        let takes = |resource: &Resource| {
            common.takes(resource.id.as_str(), &resource.annotations)
                && (filters.kind.is_empty() || filters.kind == resource.kind)
        };
        Ok(p::ListResourcesResponse { resources: self.list(takes) })
    }

    pub(super) async fn create_resource(
        &self,
        request: p::CreateResourceRequest,
    ) -> Result<p::CreateResourceResponse, ControlError> {
        let annotations = parsed::<Annotations>(request.annotations)?.unwrap_or_default();
        let payload = parsed::<Any>(request.payload)?;
        let id = self.control.create_resource(annotations, request.kind, payload).await?;
        Ok(p::CreateResourceResponse { resource: Some(self.read::<Resource>("resource", &id)?) })
    }

    pub(super) async fn update_resource(
        &self,
        request: p::UpdateResourceRequest,
    ) -> Result<p::UpdateResourceResponse, ControlError> {
        let id = given(request.resource_id)?;
        let version = version(request.resource_version)?;
        let annotations = parsed::<Annotations>(request.annotations)?;
        self.control.update_resource(&id, version, annotations, parsed::<Any>(request.payload)?).await?;
        Ok(p::UpdateResourceResponse { resource: Some(self.read::<Resource>("resource", &id)?) })
    }

    pub(super) async fn remove_resource(
        &self,
        request: p::RemoveResourceRequest,
    ) -> Result<p::RemoveResourceResponse, ControlError> {
        self.control.remove_resource(&given(request.resource_id)?).await?;
        Ok(p::RemoveResourceResponse {})
    }

    pub(super) fn get_volume(&self, request: p::GetVolumeRequest) -> Result<p::GetVolumeResponse, ControlError> {
        let volume = self.read::<Volume>("volume", &given(request.volume_id)?)?;
        Ok(p::GetVolumeResponse { volume: Some(volume) })
    }

    pub(super) fn list_volumes(&self, request: p::ListVolumesRequest) -> Result<p::ListVolumesResponse, ControlError> {
        let filters = request.filters.unwrap_or_default();
        let common = common!(filters);
        let takes = |volume: &Volume| {
            let driver = volume.spec.driver.as_ref().map_or("", |driver| driver.name.as_str());
            common.takes(volume.id.as_str(), &volume.spec.annotations)
                && any_or_none(&filters.groups, |group| *group == volume.spec.group)
                && any_or_none(&filters.drivers, |wanted| wanted == driver)
        };
        Ok(p::ListVolumesResponse { volumes: self.list(takes) })
    }

    pub(super) async fn create_volume(
        &self,
        _: p::CreateVolumeRequest,
    ) -> Result<p::CreateVolumeResponse, ControlError> {
        Err(no_volumes())
    }

    pub(super) async fn update_volume(
        &self,
        _: p::UpdateVolumeRequest,
    ) -> Result<p::UpdateVolumeResponse, ControlError> {
        Err(no_volumes())
    }

    pub(super) async fn remove_volume(
        &self,
        _: p::RemoveVolumeRequest,
    ) -> Result<p::RemoveVolumeResponse, ControlError> {
        Err(no_volumes())
    }
}

fn no_volumes() -> ControlError {
    ControlError::new(Code::Unimplemented, "cluster volumes (CSI) are not built: this manager cannot change them")
}
