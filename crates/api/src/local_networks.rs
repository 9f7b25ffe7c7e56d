//! This machine's networks as `GET /networks` shows them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use docker_types::network::{EndpointResource, Ipam, IpamConfig, Network, PeerInfo, ServiceInfo};
use docker_types::time::Time;
use engine::NetworkError;
use net::{BridgeNetworkSpec, NetworkInfo, SubnetInfo};

use crate::networks::GATEWAY_BRIDGE;

/// Networks of this machine, and what it knows of the swarm's. `daemon` gives them.
#[async_trait]
pub trait LocalNetworks: Send + Sync + 'static {
    /// All of them, those of the swarm too that are set up here.
    fn networks(&self) -> Vec<NetworkInfo>;
    /// The nodes that are in a network, this one first; none if it is not.
    async fn peers(&self, network_id: &str) -> Vec<PeerInfo>;
    /// The services on a network as this node knows them, by name; those without a service under "".
    async fn services(&self, network_id: &str) -> BTreeMap<String, ServiceInfo>;
    /// A network of the swarm as the managers have it, if this node is in it.
    async fn of_swarm(&self, network_id: &str) -> Option<model::Network>;
    /// Makes a network of this machine; returns its id.
    async fn create(&self, spec: BridgeNetworkSpec) -> Result<String, NetworkError>;
    /// Removes a network of this machine that nobody is on.
    async fn remove(&self, network_id: &str) -> Result<(), NetworkError>;
}

/// Bridges that no user made.
const BY_THE_DAEMON: [&str; 2] = ["bridge", GATEWAY_BRIDGE];

/// A network in Docker's JSON.
pub(crate) fn shown(info: NetworkInfo) -> Network {
    let ipam = |subnet: SubnetInfo| IpamConfig {
        subnet: subnet.subnet.to_string(),
        gateway: subnet.gateway.to_string(),
        ip_range: subnet.range.map(|range| range.to_string()).unwrap_or_default(),
        auxiliary_addresses: subnet.reserved.into_iter().map(|(name, it)| (name, it.to_string())).collect(),
    };
    let endpoint = |container: net::NetworkContainer| {
        let resource = EndpointResource {
            name: container.name,
            endpoint_id: container.endpoint_id,
            mac_address: container.mac,
            ipv4_address: container.address.to_string(),
            ipv6_address: String::new(),
        };
        (container.container_id, resource)
    };
    // As the command line sends them; networks that the daemon made itself were made without.
    let is_users = info.driver == "bridge" && !BY_THE_DAEMON.contains(&info.name.as_str());
    let ipam_options = is_users.then(BTreeMap::new);
    Network {
        name: info.name,
        id: info.id,
        created: Time(Some(timestamp(info.created_unix_ns))),
        scope: info.scope,
        driver: info.driver,
        enable_ipv4: true,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: ipam_options,
            config: Some(info.subnets.into_iter().map(ipam).collect()),
        },
        internal: info.internal,
        attachable: info.attachable,
        ingress: info.ingress,
        containers: Some(info.containers.into_iter().map(endpoint).collect()),
        options: Some(info.options),
        labels: Some(info.labels),
        ..Network::default()
    }
}

fn timestamp(unix_ns: i128) -> model::Timestamp {
    let seconds = i64::try_from(unix_ns.div_euclid(1_000_000_000)).unwrap_or_default();
    let nanos = i32::try_from(unix_ns.rem_euclid(1_000_000_000)).unwrap_or_default();
    model::Timestamp { seconds, nanos }
}
