//! This machine's networks as the API shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use discovery::{EndpointId, EndpointRecord, Port};
use docker_types::network::{PeerInfo, ServiceInfo, TaskInfo};
use engine::NetworkError;
use gossip_io::Handle;
use model::Network;
use net::{BridgeNetworkSpec, Net, NetworkInfo};
use tokio::sync::watch;

use super::exchange::Exchange;
use crate::network::failed;

/// Implements the API's trait.
pub(crate) struct ShownNetworks {
    pub(crate) net: Net,
    pub(crate) exchange: Exchange,
    pub(crate) gossip: watch::Receiver<Option<Handle>>,
}

#[async_trait::async_trait]
impl api::LocalNetworks for ShownNetworks {
    fn networks(&self) -> Vec<NetworkInfo> {
        self.net.networks()
    }

    async fn peers(&self, network_id: &str) -> Vec<PeerInfo> {
        if !self.net.overlays().iter().any(|it| it.network_id == network_id) {
            return Vec::new();
        }
        let ip = self.exchange.address().await.map_or_else(String::new, |address| address.to_string());
        let own = PeerInfo { name: self.net.node_name().to_owned(), ip };
        let handle = self.gossip.borrow().clone();
        let others = match handle {
            Some(handle) => handle.network_peers(network_id).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let other = |peer: gossip::Peer| PeerInfo { name: peer.name.to_string(), ip: peer.address.ip().to_string() };
        [own].into_iter().chain(others.into_iter().map(other)).collect()
    }

    async fn services(&self, network_id: &str) -> BTreeMap<String, ServiceInfo> {
        services(self.exchange.endpoints(network_id).await)
    }

    async fn of_swarm(&self, network_id: &str) -> Option<Network> {
        self.exchange.network(network_id).await.map(|network| Network::clone(&network))
    }

    async fn create(&self, spec: BridgeNetworkSpec) -> Result<String, NetworkError> {
        self.net.create_network(spec).await.map_err(failed)
    }

    async fn remove(&self, network_id: &str) -> Result<(), NetworkError> {
        self.net.remove_network(network_id).await.map_err(failed)
    }
}

/// Endpoints by service, as dockerd groups them: a service's address and ports are those of its first endpoint.
fn services(endpoints: Vec<(EndpointId, Arc<EndpointRecord>, Option<IpAddr>)>) -> BTreeMap<String, ServiceInfo> {
    let text = |address: Option<IpAddr>| address.map_or_else(|| "<nil>".to_owned(), |it| it.to_string());
    let port = |port: &Port| format!("Target: {}, Publish: {}", port.target, port.published);
    let mut services: BTreeMap<String, ServiceInfo> = BTreeMap::new();
    for (id, record, node) in endpoints {
        let service = services.entry(record.service_name.clone()).or_insert_with(|| ServiceInfo {
            vip: text(record.virtual_ip),
            ports: record.ports.iter().map(port).collect(),
            ..ServiceInfo::default()
        });
        service.tasks.push(TaskInfo {
            name: record.name.clone(),
            endpoint_id: id.to_string(),
            endpoint_ip: text(record.address),
            info: node.map(|node| ("Host IP".to_owned(), node.to_string())).into_iter().collect(),
        });
    }
    services
}
