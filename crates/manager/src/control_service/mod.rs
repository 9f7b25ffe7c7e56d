//! The Control and Logs services of a manager, for other managers that pass on what their users ask for. Reads come from
//! this manager's committed view, writes go through [`LocalControl`]; what a response holds is read after the write.

mod cluster;
mod filter;
mod handlers;
mod logs;
mod nodes;
mod secrets;
mod services;
mod tasks;
#[cfg(test)]
mod tests;

use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::control_server::Control as Service;
use tonic::{Request, Response, Status};

use crate::control::LocalControl;
use crate::error::ControlError;
use handlers::Handlers;
pub(crate) use logs::LogsService;

/// The control API as a gRPC service. It answers for this manager: nothing is passed on from here.
#[derive(Clone)]
pub(crate) struct ControlService(Handlers);

impl ControlService {
    /// On this manager.
    pub(crate) fn new(control: LocalControl) -> Self {
        Self(Handlers { control })
    }
}

/// Implements the service by the handlers of the same names.
macro_rules! service {
    (reads { $($read:ident: $read_request:ident => $read_response:ident;)* }
     writes { $($write:ident: $write_request:ident => $write_response:ident;)* }) => {
        #[tonic::async_trait]
        impl Service for ControlService {
            $(
                async fn $read(
                    &self,
                    request: Request<p::$read_request>,
                ) -> Result<Response<p::$read_response>, Status> {
                    Ok(Response::new(self.0.$read(request.into_inner())?))
                }
            )*
            $(
                async fn $write(
                    &self,
                    request: Request<p::$write_request>,
                ) -> Result<Response<p::$write_response>, Status> {
                    if !self.0.control.writer().is_leading() {
                        return Err(ControlError::lost_leadership().into());
                    }
                    Ok(Response::new(self.0.$write(request.into_inner()).await?))
                }
            )*
        }
    };
}

service! {
    reads {
        get_node: GetNodeRequest => GetNodeResponse;
        list_nodes: ListNodesRequest => ListNodesResponse;
        get_task: GetTaskRequest => GetTaskResponse;
        list_tasks: ListTasksRequest => ListTasksResponse;
        get_service: GetServiceRequest => GetServiceResponse;
        list_services: ListServicesRequest => ListServicesResponse;
        list_service_statuses: ListServiceStatusesRequest => ListServiceStatusesResponse;
        get_network: GetNetworkRequest => GetNetworkResponse;
        list_networks: ListNetworksRequest => ListNetworksResponse;
        get_cluster: GetClusterRequest => GetClusterResponse;
        list_clusters: ListClustersRequest => ListClustersResponse;
        get_secret: GetSecretRequest => GetSecretResponse;
        list_secrets: ListSecretsRequest => ListSecretsResponse;
        get_config: GetConfigRequest => GetConfigResponse;
        list_configs: ListConfigsRequest => ListConfigsResponse;
        get_extension: GetExtensionRequest => GetExtensionResponse;
        get_resource: GetResourceRequest => GetResourceResponse;
        list_resources: ListResourcesRequest => ListResourcesResponse;
        get_volume: GetVolumeRequest => GetVolumeResponse;
        list_volumes: ListVolumesRequest => ListVolumesResponse;
    }
    writes {
        update_node: UpdateNodeRequest => UpdateNodeResponse;
        remove_node: RemoveNodeRequest => RemoveNodeResponse;
        remove_task: RemoveTaskRequest => RemoveTaskResponse;
        create_service: CreateServiceRequest => CreateServiceResponse;
        update_service: UpdateServiceRequest => UpdateServiceResponse;
        remove_service: RemoveServiceRequest => RemoveServiceResponse;
        create_network: CreateNetworkRequest => CreateNetworkResponse;
        remove_network: RemoveNetworkRequest => RemoveNetworkResponse;
        update_cluster: UpdateClusterRequest => UpdateClusterResponse;
        create_secret: CreateSecretRequest => CreateSecretResponse;
        update_secret: UpdateSecretRequest => UpdateSecretResponse;
        remove_secret: RemoveSecretRequest => RemoveSecretResponse;
        create_config: CreateConfigRequest => CreateConfigResponse;
        update_config: UpdateConfigRequest => UpdateConfigResponse;
        remove_config: RemoveConfigRequest => RemoveConfigResponse;
        create_extension: CreateExtensionRequest => CreateExtensionResponse;
        remove_extension: RemoveExtensionRequest => RemoveExtensionResponse;
        create_resource: CreateResourceRequest => CreateResourceResponse;
        update_resource: UpdateResourceRequest => UpdateResourceResponse;
        remove_resource: RemoveResourceRequest => RemoveResourceResponse;
        create_volume: CreateVolumeRequest => CreateVolumeResponse;
        update_volume: UpdateVolumeRequest => UpdateVolumeResponse;
        remove_volume: RemoveVolumeRequest => RemoveVolumeResponse;
    }
}
