//! This machine's networks as `GET /networks` shows them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use docker_types::network::{EndpointResource, Ipam, IpamConfig, Network, PeerInfo, ServiceInfo};
use docker_types::time::Time;
use net::NetworkInfo;

/// Networks of this machine, and what it knows of the swarm's. `daemon` gives them.
#[async_trait]
pub trait LocalNetworks: Send + Sync + 'static {
    /// All of them, those of the swarm too that are set up here.
    fn networks(&self) -> Vec<NetworkInfo>;
    /// The nodes that are in a network, this one first; none if it is not.
    async fn peers(&self, network_id: &str) -> Vec<PeerInfo>;
    /// The services on a network as this node knows them, by name; those without a service under "".
    async fn services(&self, network_id: &str) -> BTreeMap<String, ServiceInfo>;
}

/// A network in Docker's JSON.
pub(crate) fn shown(info: NetworkInfo) -> Network {
    let ipam = |(subnet, gateway): (net::Ipv4Cidr, std::net::Ipv4Addr)| IpamConfig {
        subnet: subnet.to_string(),
        gateway: gateway.to_string(),
        ..IpamConfig::default()
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
    Network {
        name: info.name,
        id: info.id,
        created: Time(Some(timestamp(info.created_unix_ns))),
        scope: info.scope,
        driver: info.driver,
        enable_ipv4: true,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: None,
            config: Some(info.ipam.map(ipam).into_iter().collect()),
        },
        ingress: info.ingress,
        containers: Some(info.containers.into_iter().map(endpoint).collect()),
        options: Some(info.options),
        labels: Some(BTreeMap::new()),
        ..Network::default()
    }
}

fn timestamp(unix_ns: i128) -> model::Timestamp {
    let seconds = i64::try_from(unix_ns.div_euclid(1_000_000_000)).unwrap_or_default();
    let nanos = i32::try_from(unix_ns.rem_euclid(1_000_000_000)).unwrap_or_default();
    model::Timestamp { seconds, nanos }
}
