//! Conversions between what is gossiped and what `net` is told.

use std::net::{IpAddr, Ipv4Addr};

use discovery::{PeerRecord, Service};
use net::{Backend, BackendNode, IngressPort, Peer, PortGroup, Protocol};

/// An endpoint's id: 64 hex digits, as libnetwork has them.
pub(crate) fn new_endpoint_id() -> String {
    identity::random_bytes::<32>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hardware address that goes with an address.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// A hardware address as `net` writes it.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>().ok()?;
    bytes.try_into().ok()
}

/// Where an address is; `None` for what is not IPv4.
pub(crate) fn peer(record: &PeerRecord) -> Option<Peer> {
    match (record.address, record.tunnel_endpoint) {
        (IpAddr::V4(address), IpAddr::V4(vtep)) => Some(Peer { address, mac: record.mac, vtep }),
        _ => None,
    }
}

/// The tasks behind a service.
pub(crate) fn backends(backends: &[discovery::Backend]) -> Vec<Backend> {
    let backend = |backend: &discovery::Backend| {
        let IpAddr::V4(address) = backend.address else { return None };
        let node = match (backend.here, backend.keeps_clients) {
            (true, _) => BackendNode::Here,
            (false, true) => BackendNode::Keeping,
            (false, false) => BackendNode::Foreign,
        };
        Some(Backend { address, node })
    };
    backends.iter().filter_map(backend).collect()
}

/// Their addresses alone.
pub(crate) fn addresses(service: &[discovery::Backend]) -> Vec<Ipv4Addr> {
    backends(service).iter().map(|backend| backend.address).collect()
}

/// The published ports of a service.
pub(crate) fn port_groups(service: &Service) -> Vec<PortGroup> {
    let port = |port: &discovery::Port| IngressPort {
        protocol: match port.protocol {
            discovery::Protocol::Tcp => Protocol::Tcp,
            discovery::Protocol::Udp => Protocol::Udp,
            discovery::Protocol::Sctp => Protocol::Sctp,
        },
        published_port: port.published,
        target_port: port.target,
    };
    let group = |group: &discovery::PortGroup| {
        let mut led_to = backends(&group.backends);
        if service.ingress.prefers_local && led_to.iter().any(|backend| backend.node == BackendNode::Here) {
            led_to.retain(|backend| backend.node == BackendNode::Here);
        }
        PortGroup { ports: group.ports.iter().map(port).collect(), backends: led_to }
    };
    service.groups.iter().map(group).collect()
}
