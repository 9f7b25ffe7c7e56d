//! The swarm's networks in `net`'s words.

use std::net::{IpAddr, Ipv4Addr};

use agent::NodeAddresses;
use model::{AddressFamily, Network, NetworkAttachment};
use net::{Ipv4Cidr, OverlaySpec, OverlaySubnet};

/// The driver whose networks span nodes.
pub(crate) const OVERLAY_DRIVER: &str = "overlay";
const VXLAN_IDS: &str = "com.docker.network.driver.overlay.vxlanid_list";
const MTU: &str = "com.docker.network.driver.mtu";
const ENCRYPTED: &str = "encrypted";
/// The label of networks that every node has by itself: `host`, `bridge`.
const PREDEFINED: &str = "com.docker.swarm.predefined";

/// Where this node's tunnels are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DataPath {
    /// `None` while it is unknown.
    pub(crate) address: Option<Ipv4Addr>,
    /// UDP port; 0 for VXLAN's own.
    pub(crate) port: u16,
}

impl DataPath {
    pub(crate) fn new(addresses: Option<NodeAddresses>, port: u32) -> Self {
        let address = addresses.and_then(|addresses| match addresses.data_path {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        Self { address, port: u16::try_from(port).unwrap_or(0) }
    }
}

/// Whether a network spans nodes.
pub(crate) fn is_overlay(network: &Network) -> bool {
    let driver = network.driver_state.as_ref().or(network.spec.driver_config.as_ref());
    let predefined = network.spec.annotations.labels.contains_key(PREDEFINED);
    !predefined && driver.is_some_and(|driver| driver.name == OVERLAY_DRIVER)
}

/// A network as this node shall have it; `balancer` is this node's own address on it.
pub(crate) fn overlay_spec(
    network: &Network,
    balancer: Option<Ipv4Addr>,
    data_path: DataPath,
) -> Result<OverlaySpec, String> {
    let name = &network.spec.annotations.name;
    let options = network.driver_state.as_ref().map(|driver| &driver.options);
    let option = |key: &str| options.and_then(|options| options.get(key)).map(String::as_str);
    let mut ids = option(VXLAN_IDS).unwrap_or_default().split(',').map(|id| id.trim().parse().unwrap_or(0));
    let mut subnets = Vec::new();
    for config in network.ipam.iter().flat_map(|ipam| &ipam.configs) {
        // No tunnel, and so no id, as on dockerd's nodes.
        if config.family == AddressFamily::Ipv6 || config.subnet.contains(':') {
            continue;
        }
        let vni = ids.next().unwrap_or(0);
        let bad = |what: &str| format!("network {name} has no usable {what}");
        let subnet: Ipv4Cidr = config.subnet.parse().map_err(|_| bad("subnet"))?;
        let gateway = config.gateway.split('/').next().unwrap_or_default();
        subnets.push(OverlaySubnet { subnet, gateway: gateway.parse().map_err(|_| bad("gateway"))?, vni });
    }
    let port = if data_path.port == 0 { net::DATA_PATH_PORT } else { data_path.port };
    Ok(OverlaySpec {
        network_id: network.id.to_string(),
        name: name.clone(),
        subnets,
        mtu: option(MTU).and_then(|mtu| mtu.parse().ok()).unwrap_or(0),
        internal: network.spec.internal,
        ingress: network.spec.ingress,
        encrypted: options.is_some_and(|options| options.contains_key(ENCRYPTED)),
        lb_address: balancer,
        vtep: data_path.address,
        data_path_port: port,
    })
}

/// The first IPv4 address of an attachment.
pub(crate) fn address_of(attachment: &NetworkAttachment) -> Option<Ipv4Cidr> {
    attachment.addresses.iter().find_map(|address| address.parse().ok())
}

#[cfg(test)]
mod tests {
    use model::{Driver, IpamConfig, IpamOptions};

    use super::*;

    fn network(configs: &[(&str, &str)], options: &[(&str, &str)]) -> Network {
        let config = |(subnet, gateway): &(&str, &str)| IpamConfig {
            subnet: (*subnet).to_owned(),
            gateway: (*gateway).to_owned(),
            ..IpamConfig::default()
        };
        let mut network = Network { id: "network0000000000000000001".into(), ..Network::default() };
        network.spec.annotations.name = "net".to_owned();
        network.ipam = Some(IpamOptions { configs: configs.iter().map(config).collect(), ..IpamOptions::default() });
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        network.driver_state = Some(Driver { name: OVERLAY_DRIVER.to_owned(), options });
        network
    }

    #[test]
    fn each_subnet_has_its_tunnel() {
        let both = [("10.0.1.0/24", "10.0.1.1"), ("fd00::/64", "fd00::1"), ("10.0.2.0/24", "10.0.2.1/24")];
        let network = network(&both, &[(VXLAN_IDS, "4097,4098"), (MTU, "1400"), (ENCRYPTED, "")]);
        assert!(is_overlay(&network));
        let spec = overlay_spec(&network, Some(Ipv4Addr::new(10, 0, 1, 4)), DataPath::default()).unwrap();
        let subnets: Vec<_> = spec.subnets.iter().map(|it| (it.subnet.to_string(), it.vni)).collect();
        assert_eq!(subnets, [("10.0.1.0/24".to_owned(), 4097), ("10.0.2.0/24".to_owned(), 4098)]);
        assert_eq!(spec.subnets[1].gateway, Ipv4Addr::new(10, 0, 2, 1));
        assert_eq!((spec.mtu, spec.encrypted, spec.data_path_port, spec.vtep), (1400, true, 4789, None));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let text =
            |configs: &[(&str, &str)]| overlay_spec(&network(configs, &[]), None, DataPath::default()).unwrap_err();
        assert_eq!(text(&[("10.0.1.0", "10.0.1.1")]), "network net has no usable subnet");
        assert_eq!(text(&[("10.0.1.0/24", "")]), "network net has no usable gateway");
    }

    #[test]
    fn networks_of_the_node_itself_span_nothing() {
        let mut network = network(&[], &[]);
        network.spec.annotations.labels.insert(PREDEFINED.to_owned(), String::new());
        assert!(!is_overlay(&network));
    }
}
