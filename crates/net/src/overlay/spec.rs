//! What callers ask for: overlay networks, their peers, a container's place on them.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::ipam::mac_of;
use crate::{Ipv4Cidr, NetError};

/// VXLAN's own port.
pub const DATA_PATH_PORT: u16 = 4789;
/// Subnets of one network; each has a VXLAN device.
pub(crate) const SUBNETS_MAX: usize = 64;
/// VXLAN ids have 24 bits.
const VNI_MAX: u32 = (1 << 24) - 1;

/// One subnet of an overlay network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlaySubnet {
    /// Subnet.
    pub subnet: Ipv4Cidr,
    /// Gateway; every node's bridge holds it.
    pub gateway: Ipv4Addr,
    /// VXLAN id, from `vxlanid_list`; 0 if the managers gave none, then the network ends at this node.
    pub vni: u32,
}

/// An overlay network as this node has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlaySpec {
    /// Id of the network.
    pub network_id: String,
    /// Name of the network.
    pub name: String,
    /// Subnets, at least one.
    pub subnets: Vec<OverlaySubnet>,
    /// MTU of the links; 0 for the underlay's less what VXLAN adds.
    pub mtu: u32,
    /// Containers get no way out through this network.
    pub internal: bool,
    /// It is the ingress network; a node has one at the most, and it needs an address of this node.
    pub ingress: bool,
    /// Nothing may leave this node unencrypted.
    pub encrypted: bool,
    /// This node's address for its load balancer on the network, from `Node.attachments`.
    pub lb_address: Option<Ipv4Addr>,
    /// This node's own tunnel address; `None` while it is unknown, then the network ends at this node.
    pub vtep: Option<Ipv4Addr>,
    /// UDP port of the tunnels, the cluster's `data_path_port`.
    pub data_path_port: u16,
}

/// An endpoint of an overlay network on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// The endpoint's address.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Tunnel address of the node it is on.
    pub vtep: Ipv4Addr,
}

/// A container's attachment to an overlay network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayEndpointSpec {
    /// Id of the network.
    pub network_id: String,
    /// Address with the subnet's prefix, from the managers' allocator.
    pub address: Ipv4Cidr,
    /// IPv6 address with its prefix length.
    pub address6: Option<(Ipv6Addr, u8)>,
    /// Hardware address; `02:42` and the address if `None`.
    pub mac: Option<[u8; 6]>,
}

impl OverlayEndpointSpec {
    /// An attachment with the usual hardware address.
    pub fn new(network_id: &str, address: Ipv4Cidr) -> Self {
        Self { network_id: network_id.to_owned(), address, address6: None, mac: None }
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        self.mac.unwrap_or(mac_of(self.address.address))
    }
}

impl OverlaySpec {
    /// The subnet that an address is in.
    pub(crate) fn subnet_of(&self, address: Ipv4Addr) -> Option<usize> {
        self.subnets.iter().position(|subnet| subnet.subnet.contains(address))
    }

    /// This node's balancer address with its subnet's prefix.
    pub(crate) fn lb_cidr(&self) -> Option<Ipv4Cidr> {
        let address = self.lb_address?;
        let subnet = self.subnets.get(self.subnet_of(address)?)?;
        Some(Ipv4Cidr::new(address, subnet.subnet.prefix))
    }

    pub(crate) fn check(&self) -> Result<(), NetError> {
        check_network_id(&self.network_id)?;
        let invalid = |text: String| Err(NetError::Invalid(format!("network {}: {text}", self.name)));
        if self.subnets.is_empty() || self.subnets.len() > SUBNETS_MAX {
            return invalid(format!("{} subnets; 1 to {SUBNETS_MAX} are possible", self.subnets.len()));
        }
        for (index, subnet) in self.subnets.iter().enumerate() {
            if !subnet.subnet.contains(subnet.gateway) {
                return invalid(format!("gateway {} is not in subnet {}", subnet.gateway, subnet.subnet));
            }
            if subnet.vni > VNI_MAX {
                return invalid(format!("VXLAN id {} has more than 24 bits", subnet.vni));
            }
            let before = &self.subnets[..index];
            if before.iter().any(|other| other.subnet.overlaps(subnet.subnet)) {
                return invalid(format!("subnet {} overlaps another one", subnet.subnet));
            }
            if subnet.vni != 0 && before.iter().any(|other| other.vni == subnet.vni) {
                return invalid(format!("VXLAN id {} is used twice", subnet.vni));
            }
        }
        match self.lb_address {
            Some(address) if self.subnet_of(address).is_none() => invalid(format!("{address} is in no subnet of it")),
            None if self.ingress => invalid("the ingress network needs an address of this node".to_owned()),
            _ if self.data_path_port == 0 => invalid("the data path port is 0".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Ids become names of files, namespaces and links.
pub(crate) fn check_network_id(id: &str) -> Result<(), NetError> {
    let is_id = (10..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id { Ok(()) } else { Err(NetError::Invalid(format!("invalid network id {id:?}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> OverlaySpec {
        let subnet = |text: &str, gateway: [u8; 4], vni| OverlaySubnet {
            subnet: text.parse().unwrap(),
            gateway: gateway.into(),
            vni,
        };
        OverlaySpec {
            network_id: "network0000000000000000001".to_owned(),
            name: "net".to_owned(),
            subnets: vec![subnet("10.0.1.0/24", [10, 0, 1, 1], 4097), subnet("10.0.2.0/24", [10, 0, 2, 1], 4098)],
            mtu: 0,
            internal: false,
            ingress: false,
            encrypted: false,
            lb_address: Some(Ipv4Addr::new(10, 0, 2, 2)),
            vtep: None,
            data_path_port: DATA_PATH_PORT,
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let check = |change: fn(&mut OverlaySpec), expected: &str| {
            let mut spec = spec();
            change(&mut spec);
            let text = spec.check().err().map(|error| error.to_string()).unwrap_or_default();
            assert!(text.contains(expected) && expected.is_empty() == text.is_empty(), "{text} {expected}");
        };
        check(|_| {}, "");
        check(|spec| spec.network_id = "../../etc/passwd".to_owned(), "invalid network id");
        check(|spec| spec.network_id = "short".to_owned(), "invalid network id");
        check(|spec| spec.subnets.clear(), "0 subnets");
        check(|spec| spec.subnets[0].gateway = Ipv4Addr::new(10, 9, 0, 1), "is not in subnet");
        check(|spec| spec.subnets[1].vni = 4097, "used twice");
        check(|spec| spec.subnets[1].vni = 1 << 24, "24 bits");
        check(|spec| spec.subnets[1].subnet = "10.0.0.0/16".parse().unwrap(), "overlaps");
        check(|spec| spec.lb_address = Some(Ipv4Addr::new(10, 9, 0, 1)), "in no subnet");
        check(|spec| (spec.ingress, spec.lb_address) = (true, None), "needs an address");
        check(|spec| spec.data_path_port = 0, "port is 0");
        let many = |spec: &mut OverlaySpec| {
            spec.lb_address = None;
            let subnets = (0..=SUBNETS_MAX as u8).map(|index| OverlaySubnet {
                subnet: Ipv4Cidr::new(Ipv4Addr::new(10, 1, index, 0), 24),
                gateway: Ipv4Addr::new(10, 1, index, 1),
                vni: 5000 + u32::from(index),
            });
            spec.subnets = subnets.collect();
        };
        check(many, "65 subnets");
    }

    #[test]
    fn the_balancers_address_has_its_subnets_prefix() {
        assert_eq!(spec().lb_cidr().map(|cidr| cidr.to_string()).as_deref(), Some("10.0.2.2/24"));
    }
}
