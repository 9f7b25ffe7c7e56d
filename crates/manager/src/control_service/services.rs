//! Services and networks over gRPC.

use model::{Network, NetworkSpec, Service, ServiceId, ServiceSpec};
use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;

use super::filter::{any_or_none, common};
use super::handlers::{Handlers, given, required, version};
use super::tasks::runtime;
use crate::control::{UpdateKind, service_counts, with_defaults};
use crate::error::ControlError;

impl Handlers {
    pub(super) fn get_service(&self, request: p::GetServiceRequest) -> Result<p::GetServiceResponse, ControlError> {
        let id = given(request.service_id)?;
        let view = self.view();
        let stored = view.service(&id).ok_or_else(|| ControlError::not_found("service", &id))?;
        let mut service = Service::clone(stored);
        if request.insert_defaults {
            service.spec = with_defaults(service.spec);
        }
        Ok(p::GetServiceResponse { service: Some(service.to_proto()) })
    }

    pub(super) fn list_services(
        &self,
        request: p::ListServicesRequest,
    ) -> Result<p::ListServicesResponse, ControlError> {
        let filters = request.filters.unwrap_or_default();
        let common = common!(filters);
        let takes = |service: &Service| {
            common.takes(service.id.as_str(), &service.spec.annotations)
                && any_or_none(&filters.runtimes, |wanted| wanted == runtime(&service.spec.task))
        };
        Ok(p::ListServicesResponse { services: self.list(takes) })
    }

    pub(super) fn list_service_statuses(
        &self,
        request: p::ListServiceStatusesRequest,
    ) -> Result<p::ListServiceStatusesResponse, ControlError> {
        let view = self.view();
        let status = |id: String| {
            let counts = service_counts(&view, &ServiceId::from(id.as_str())).unwrap_or_default();
            p::ListServiceStatusesResponseServiceStatus {
                service_id: id,
                desired_tasks: counts.desired_tasks,
                running_tasks: counts.running_tasks,
                completed_tasks: counts.completed_tasks,
            }
        };
        Ok(p::ListServiceStatusesResponse { statuses: request.services.into_iter().map(status).collect() })
    }

    pub(super) async fn create_service(
        &self,
        request: p::CreateServiceRequest,
    ) -> Result<p::CreateServiceResponse, ControlError> {
        let service = self.control.create_service(required::<ServiceSpec>(request.spec)?).await?;
        Ok(p::CreateServiceResponse { service: Some(service.to_proto()) })
    }

    pub(super) async fn update_service(
        &self,
        request: p::UpdateServiceRequest,
    ) -> Result<p::UpdateServiceResponse, ControlError> {
        let kind = match request.rollback() {
            p::RollbackRequest::None => UpdateKind::Replace,
            p::RollbackRequest::Previous => UpdateKind::Rollback,
        };
        let id = given(request.service_id)?;
        let version = version(request.service_version)?;
        let spec = required::<ServiceSpec>(request.spec)?;
        let service = self.control.update_service(&id, version, spec, kind).await?;
        Ok(p::UpdateServiceResponse { service: Some(service.to_proto()) })
    }

    pub(super) async fn remove_service(
        &self,
        request: p::RemoveServiceRequest,
    ) -> Result<p::RemoveServiceResponse, ControlError> {
        self.control.remove_service(&given(request.service_id)?).await?;
        Ok(p::RemoveServiceResponse {})
    }

    pub(super) fn get_network(&self, request: p::GetNetworkRequest) -> Result<p::GetNetworkResponse, ControlError> {
        let network = self.read::<Network>("network", &given(request.network_id)?)?;
        Ok(p::GetNetworkResponse { network: Some(network) })
    }

    pub(super) fn list_networks(
        &self,
        request: p::ListNetworksRequest,
    ) -> Result<p::ListNetworksResponse, ControlError> {
        let filters = request.filters.unwrap_or_default();
        let common = common!(filters);
        let networks = self.list(|network: &Network| common.takes(network.id.as_str(), &network.spec.annotations));
        Ok(p::ListNetworksResponse { networks })
    }

    pub(super) async fn create_network(
        &self,
        request: p::CreateNetworkRequest,
    ) -> Result<p::CreateNetworkResponse, ControlError> {
        let id = self.control.create_network(required::<NetworkSpec>(request.spec)?).await?;
        Ok(p::CreateNetworkResponse { network: Some(self.read::<Network>("network", &id)?) })
    }

    pub(super) async fn remove_network(
        &self,
        request: p::RemoveNetworkRequest,
    ) -> Result<p::RemoveNetworkResponse, ControlError> {
        self.control.remove_network(&given(request.network_id)?).await?;
        Ok(p::RemoveNetworkResponse {})
    }
}
