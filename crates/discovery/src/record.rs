//! The values of libnetwork's two tables: what a node says of an endpoint (`endpoint_table`), and where its link is
//! (`overlay_peer_table`). Protobuf of `libnetwork/agent.proto` and of the overlay driver.

use std::net::{IpAddr, SocketAddr};

use prost::Message;

/// The table of endpoints.
pub const ENDPOINT_TABLE: &str = "endpoint_table";
/// The table of the overlay driver's peers.
pub const PEER_TABLE: &str = "overlay_peer_table";

/// Ports, aliases, or aliases of one task that a record may hold; more are left out.
const MAX_LIST: usize = 4096;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A published port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port of every node, and of the task's address on the ingress network.
    pub published: u16,
    /// Port that the task's program listens on.
    pub target: u16,
}

/// An endpoint, as its node announces it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointRecord {
    /// The container's name.
    pub name: String,
    /// The service's name; empty for a container that belongs to none.
    pub service_name: String,
    /// The service's id, likewise.
    pub service_id: String,
    /// The service's address on this network; `None` with `--endpoint-mode dnsrr` and for single containers.
    pub virtual_ip: Option<IpAddr>,
    /// The endpoint's own address.
    pub address: Option<IpAddr>,
    /// Published ports; on the ingress network only.
    pub ports: Vec<Port>,
    /// Further names of the service.
    pub aliases: Vec<String>,
    /// Further names of the container.
    pub task_aliases: Vec<String>,
    /// The task is about to stop: it gets no new connections.
    pub disabled: bool,
    /// How connections to the service's published ports are to be led.
    pub ingress: Ingress,
}

/// A service's wishes for its published ports: Skep's own; a dockerd has none, and skips those of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ingress {
    /// A node that has tasks of its own gives them the connections that it is asked for.
    pub prefers_local: bool,
    /// Tasks see the node that was asked, not the client.
    pub hides_clients: bool,
}

/// Where an endpoint's link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerRecord {
    /// Its address.
    pub address: IpAddr,
    /// Length of its subnet's prefix.
    pub prefix: u8,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The node's address for VXLAN.
    pub tunnel_endpoint: IpAddr,
}

/// A value that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No protobuf of this message.
    #[error("not a record")]
    Malformed,
    /// An address that cannot be read.
    #[error("{0:?} is no address")]
    Address(String),
    /// A hardware address that cannot be read.
    #[error("{0:?} is no hardware address")]
    Mac(String),
}

impl EndpointRecord {
    /// As it stands in the table.
    pub fn encode(&self) -> Vec<u8> {
        // dockerd prints an absent address this way; its own nodes expect a text.
        let text = |address: Option<IpAddr>| address.map_or_else(|| "<nil>".to_owned(), |it| it.to_string());
        let port = |port: &Port| wire::Port {
            name: String::new(),
            protocol: port.protocol as i32,
            target_port: port.target.into(),
            published_port: port.published.into(),
        };
        let record = wire::Endpoint {
            name: self.name.clone(),
            service_name: self.service_name.clone(),
            service_id: self.service_id.clone(),
            virtual_ip: text(self.virtual_ip),
            endpoint_ip: text(self.address),
            ingress_ports: self.ports.iter().map(port).collect(),
            aliases: self.aliases.clone(),
            task_aliases: self.task_aliases.clone(),
            service_disabled: self.disabled,
            prefers_local: self.ingress.prefers_local,
            hides_clients: self.ingress.hides_clients,
        };
        record.encode_to_vec()
    }

    /// Reads a value. Addresses that are none count as absent, as with dockerd, and so do ports that are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record = wire::Endpoint::decode(bytes).map_err(|_| RecordError::Malformed)?;
        let port = |port: wire::Port| {
            let protocol = match port.protocol {
                0 => Protocol::Tcp,
                1 => Protocol::Udp,
                2 => Protocol::Sctp,
                _ => return None,
            };
            let number = |port: u32| u16::try_from(port).ok().filter(|port| *port != 0);
            Some(Port { protocol, published: number(port.published_port)?, target: number(port.target_port)? })
        };
        let shortened = |mut list: Vec<String>| {
            list.truncate(MAX_LIST);
            list
        };
        let mut ports: Vec<Port> = record.ingress_ports.into_iter().take(MAX_LIST).filter_map(port).collect();
        ports.sort_unstable();
        ports.dedup();
        Ok(Self {
            name: record.name,
            service_name: record.service_name,
            service_id: record.service_id,
            virtual_ip: usable(&record.virtual_ip),
            address: usable(&record.endpoint_ip),
            ports,
            aliases: shortened(record.aliases),
            task_aliases: shortened(record.task_aliases),
            disabled: record.service_disabled,
            ingress: Ingress { prefers_local: record.prefers_local, hides_clients: record.hides_clients },
        })
    }
}

/// An address that a host can have.
fn usable(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let is_none = address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast;
    (!is_none).then_some(address)
}

impl PeerRecord {
    /// As it stands in the table.
    pub fn encode(&self) -> Vec<u8> {
        let record = wire::Peer {
            endpoint_ip: format!("{}/{}", self.address, self.prefix),
            endpoint_mac: self.mac.map(|byte| format!("{byte:02x}")).join(":"),
            tunnel_endpoint_ip: self.tunnel_endpoint.to_string(),
        };
        record.encode_to_vec()
    }

    /// Reads a value.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record = wire::Peer::decode(bytes).map_err(|_| RecordError::Malformed)?;
        let bad = || RecordError::Address(record.endpoint_ip.clone());
        let (address, prefix) = record.endpoint_ip.split_once('/').ok_or_else(bad)?;
        let address = usable(address).ok_or_else(bad)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(bad)?;
        let mac = read_mac(&record.endpoint_mac).ok_or_else(|| RecordError::Mac(record.endpoint_mac.clone()))?;
        let tunnel_endpoint = usable(&record.tunnel_endpoint_ip);
        let tunnel_endpoint = tunnel_endpoint.ok_or_else(|| RecordError::Address(record.tunnel_endpoint_ip.clone()))?;
        Ok(Self { address, prefix, mac, tunnel_endpoint })
    }
}

/// A hardware address of one host.
fn read_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|it| it.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let is_one = mac[0] & 1 == 0 && mac != [0; 6];
    (parts.next().is_none() && is_one).then_some(mac)
}

/// Where a node listens for gossip, from a manager's address `host:port`: the port is not configurable with dockerd.
pub fn seed(manager: &str, port: u16) -> Option<SocketAddr> {
    let manager: SocketAddr = manager.parse().ok()?;
    Some(SocketAddr::new(manager.ip(), port))
}

mod wire {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Peer {
        #[prost(string, tag = "1")]
        pub(super) endpoint_ip: String,
        #[prost(string, tag = "2")]
        pub(super) endpoint_mac: String,
        #[prost(string, tag = "3")]
        pub(super) tunnel_endpoint_ip: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Port {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(int32, tag = "2")]
        pub(super) protocol: i32,
        #[prost(uint32, tag = "3")]
        pub(super) target_port: u32,
        #[prost(uint32, tag = "4")]
        pub(super) published_port: u32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Endpoint {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) service_name: String,
        #[prost(string, tag = "3")]
        pub(super) service_id: String,
        #[prost(string, tag = "4")]
        pub(super) virtual_ip: String,
        #[prost(string, tag = "5")]
        pub(super) endpoint_ip: String,
        #[prost(message, repeated, tag = "6")]
        pub(super) ingress_ports: Vec<Port>,
        #[prost(string, repeated, tag = "7")]
        pub(super) aliases: Vec<String>,
        #[prost(string, repeated, tag = "8")]
        pub(super) task_aliases: Vec<String>,
        #[prost(bool, tag = "9")]
        pub(super) service_disabled: bool,
        #[prost(bool, tag = "1001")]
        pub(super) prefers_local: bool,
        #[prost(bool, tag = "1002")]
        pub(super) hides_clients: bool,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> EndpointRecord {
        EndpointRecord {
            name: "web.1.abc".into(),
            service_name: "web".into(),
            service_id: "s".into(),
            virtual_ip: None,
            address: Some("10.0.1.5".parse().unwrap()),
            ports: vec![Port { protocol: Protocol::Sctp, published: 80, target: 8080 }],
            aliases: vec!["www".into()],
            task_aliases: vec!["0123456789ab".into()],
            disabled: true,
            ingress: Ingress { prefers_local: true, hides_clients: false },
        }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        assert_eq!(EndpointRecord::decode(&endpoint().encode()), Ok(endpoint()));
        let peer = PeerRecord {
            address: "10.0.1.5".parse().unwrap(),
            prefix: 24,
            mac: [2, 0x42, 10, 0, 1, 5],
            tunnel_endpoint: "192.0.2.7".parse().unwrap(),
        };
        assert_eq!(PeerRecord::decode(&peer.encode()), Ok(peer));
    }

    #[test]
    fn an_absent_address_is_written_as_dockerd_does() {
        let bytes = endpoint().encode();
        assert!(bytes.windows(7).any(|part| part == b"\x22\x05<nil>"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let peer = |endpoint_ip: &str, endpoint_mac: &str, tunnel_endpoint_ip: &str| {
            let record = wire::Peer {
                endpoint_ip: endpoint_ip.into(),
                endpoint_mac: endpoint_mac.into(),
                tunnel_endpoint_ip: tunnel_endpoint_ip.into(),
            };
            PeerRecord::decode(&record.encode_to_vec())
        };
        let (ip, mac, tunnel) = ("10.0.1.5/24", "02:42:0a:00:01:05", "192.0.2.7");
        assert!(peer(ip, mac, tunnel).is_ok());
        for bad in ["", "10.0.1.5", "10.0.1.5/33", "127.0.0.1/8", "224.0.0.1/24", "0.0.0.0/0", "x/24"] {
            assert_eq!(peer(bad, mac, tunnel), Err(RecordError::Address(bad.into())));
        }
        for bad in ["", "02:42:0a:00:01", "02:42:0a:00:01:05:06", "01:42:0a:00:01:05", "+2:42:0a:00:01:05"] {
            assert_eq!(peer(ip, bad, tunnel), Err(RecordError::Mac(bad.into())));
        }
        assert_eq!(peer(ip, mac, "255.255.255.255"), Err(RecordError::Address("255.255.255.255".into())));
        assert_eq!(PeerRecord::decode(&[0xff]), Err(RecordError::Malformed));
        assert_eq!(EndpointRecord::decode(&[0x0a, 0xff]), Err(RecordError::Malformed));
    }
}
