//! This machine's networks as the API shows them.

use std::collections::BTreeMap;

use docker_types::network::{PeerInfo, ServiceInfo};
use gossip_io::Handle;
use net::{Net, NetworkInfo};
use tokio::sync::watch;

use super::exchange::Exchange;

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
        let handle = self.gossip.borrow().clone();
        let Some(handle) = handle.filter(|_| self.net.overlays().iter().any(|it| it.network_id == network_id)) else {
            return Vec::new();
        };
        let own = PeerInfo { name: self.net.node_name().to_owned(), ip: handle.advertise().ip().to_string() };
        let others = handle.network_peers(network_id).await.unwrap_or_default();
        let other = |peer: gossip::Peer| PeerInfo { name: peer.name.to_string(), ip: peer.address.ip().to_string() };
        [own].into_iter().chain(others.into_iter().map(other)).collect()
    }

    async fn services(&self, network_id: &str) -> BTreeMap<String, ServiceInfo> {
        self.exchange.services(network_id).await
    }
}
