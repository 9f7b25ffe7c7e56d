//! The cluster over gRPC: without its secrets.

use model::{Cluster, ClusterId, ClusterSpec};
use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;

use super::filter::common;
use super::handlers::{Handlers, given, required, version};
use crate::control::KeyRotation;
use crate::error::ControlError;

/// Where overlay subnets come from if the founder did not say.
const DEFAULT_ADDRESS_POOL: &str = "10.0.0.0/8";
/// Their prefix length.
const DEFAULT_SUBNET_SIZE: u32 = 24;
/// The data path's port.
const DEFAULT_VXLAN_PORT: u32 = 4789;

impl Handlers {
    fn cluster(&self, id: &ClusterId) -> Result<p::Cluster, ControlError> {
        let view = self.view();
        view.cluster(id).map(|cluster| redacted(cluster)).ok_or_else(|| ControlError::not_found("cluster", id))
    }

    pub(super) fn get_cluster(&self, request: p::GetClusterRequest) -> Result<p::GetClusterResponse, ControlError> {
        Ok(p::GetClusterResponse { cluster: Some(self.cluster(&given(request.cluster_id)?)?) })
    }

    pub(super) fn list_clusters(
        &self,
        request: p::ListClustersRequest,
    ) -> Result<p::ListClustersResponse, ControlError> {
        let filters = request.filters.unwrap_or_default();
        let common = common!(filters);
        let view = self.view();
        let takes = |cluster: &&std::sync::Arc<Cluster>| common.takes(cluster.id.as_str(), &cluster.spec.annotations);
        let clusters = view.clusters().filter(takes).map(|cluster| redacted(cluster)).collect();
        Ok(p::ListClustersResponse { clusters })
    }

    pub(super) async fn update_cluster(
        &self,
        request: p::UpdateClusterRequest,
    ) -> Result<p::UpdateClusterResponse, ControlError> {
        let id: ClusterId = given(request.cluster_id)?;
        let version = version(request.cluster_version)?;
        let spec = required::<ClusterSpec>(request.spec)?;
        self.cluster(&id)?;
        let rotation = request.rotation.unwrap_or_default();
        let rotation = KeyRotation {
            worker_join_token: rotation.worker_join_token,
            manager_join_token: rotation.manager_join_token,
            manager_unlock_key: rotation.manager_unlock_key,
        };
        self.control.update_cluster(version, spec, rotation).await?;
        Ok(p::UpdateClusterResponse { cluster: Some(self.cluster(&id)?) })
    }
}

/// What callers may see: no key of any kind. Absent settings of the address pool show what they mean.
fn redacted(cluster: &Cluster) -> p::Cluster {
    let mut shown = cluster.clone();
    shown.root_ca.ca_key.clear();
    if let Some(rotation) = &mut shown.root_ca.root_rotation {
        rotation.ca_key.clear();
    }
    shown.spec.ca_config.signing_ca_cert.clear();
    shown.spec.ca_config.signing_ca_key.clear();
    shown.network_bootstrap_keys.clear();
    shown.unlock_keys.clear();
    if shown.default_address_pool.is_empty() {
        shown.default_address_pool.push(DEFAULT_ADDRESS_POOL.to_owned());
    }
    let defaulted = |value: &mut u32, default| *value = if *value == 0 { default } else { *value };
    defaulted(&mut shown.subnet_size, DEFAULT_SUBNET_SIZE);
    defaulted(&mut shown.vxlan_udp_port, DEFAULT_VXLAN_PORT);
    shown.to_proto()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{EncryptionKey, RootRotation};

    #[test]
    fn no_key_is_shown() {
        let key = EncryptionKey { key: b"secret".to_vec(), ..Default::default() };
        let mut cluster = Cluster {
            network_bootstrap_keys: vec![key.clone()],
            unlock_keys: vec![key],
            subnet_size: 26,
            ..Default::default()
        };
        cluster.root_ca.ca_key = b"secret".to_vec();
        cluster.root_ca.root_rotation = Some(RootRotation { ca_key: b"secret".to_vec(), ..Default::default() });
        cluster.spec.ca_config.signing_ca_key = b"secret".to_vec();
        let shown = redacted(&cluster);
        assert_eq!((shown.subnet_size, shown.vxlan_udp_port), (26, 4789));
        let bytes = prost::Message::encode_to_vec(&shown);
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }
}
