//! This machine's networks as `GET /networks` shows them.

use std::collections::BTreeMap;

use docker_types::network::{EndpointResource, Ipam, IpamConfig, Network};
use docker_types::time::Time;
use net::NetworkInfo;

/// Networks of this machine. `daemon` gives [`net::Net`].
pub trait LocalNetworks: Send + Sync + 'static {
    /// All of them, the ingress network too where it is set up.
    fn networks(&self) -> Vec<NetworkInfo>;
    /// This node's name among the peers of the swarm's networks.
    fn node_name(&self) -> String;
}

impl LocalNetworks for net::Net {
    fn networks(&self) -> Vec<NetworkInfo> {
        Self::networks(self)
    }

    fn node_name(&self) -> String {
        Self::node_name(self).to_owned()
    }
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
