//! Subnets of networks and of pools against the routes and links of the machine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::{Check, Finding, Host, Level, Node, Route};

/// An IPv4 network.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Cidr {
    /// An address in it.
    pub address: Ipv4Addr,
    /// How many bits all its addresses share, at most 32.
    pub prefix: u8,
}

impl Cidr {
    /// A network.
    pub fn new(address: impl Into<Ipv4Addr>, prefix: u8) -> Self {
        Self { address: address.into(), prefix: prefix.min(32) }
    }

    /// Reads `10.0.0.0/8`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some(Self { address: address.parse().ok()?, prefix })
    }

    fn first(self) -> u32 {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        self.address.to_bits() & mask
    }

    fn last(self) -> u32 {
        self.first() | u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0)
    }

    /// Whether an address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first()..=self.last()).contains(&address.to_bits())
    }

    /// Whether two networks share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.first()), self.prefix)
    }
}

/// A pool is given out from its beginning; one that meets a route only after so many networks is no trouble yet.
const SOON: u32 = 256;

pub(crate) fn judge(host: &Host, node: Option<&Node>, findings: &mut Vec<Finding>) {
    let before = findings.len();
    let routes: Vec<&Route> = host.routes.iter().filter(|route| is_foreign(route, host)).collect();
    let Some(node) = node else { return };
    let reached = |cidr: Cidr| {
        let peers = node.known_addresses.iter().copied().chain(node.advertise).chain(node.data_path);
        peers.into_iter().find(|address| matches!(address, IpAddr::V4(it) if cidr.contains(*it)))
    };
    for network in &node.networks {
        for subnet in &network.subnets {
            let Some(route) = routes.iter().find(|route| route.destination.overlaps(*subnet)) else { continue };
            let node_in_it = reached(*subnet);
            let consequence = match node_in_it {
                Some(address) => format!("tasks on it cannot reach {address}, which is a node of the swarm,"),
                None => format!("tasks on it cannot reach what is behind {}", route.text()),
            };
            let level = if node_in_it.is_some() { Level::Broken } else { Level::Warning };
            let what = format!(
                "network {} has the subnet {subnet}, and this machine has the route {}: {consequence} and answers to \
                 those who ask from there are lost",
                network.name,
                route.text()
            );
            findings.push(Finding::new(level, Check::Subnets, what).remedy(format!(
                "make the network anew with another subnet (network create -d overlay --subnet …), or take the route \
                 away (ip route del {})",
                route.destination
            )));
        }
    }
    for pool in node.pools.iter().flat_map(|pools| &pools.bases) {
        let size = node.pools.as_ref().map_or(24, |pools| pools.subnet_size);
        let met = routes.iter().filter(|route| route.destination.overlaps(*pool));
        let first = met.min_by_key(|route| networks_before(*pool, size, route.destination));
        let Some(route) = first else { continue };
        let count = networks_before(*pool, size, route.destination);
        let is_soon = count < SOON;
        let what = format!(
            "the pool {pool}, from which networks get their subnets, meets the route {} of this machine with its \
             {} network",
            route.text(),
            ordinal(count + 1)
        );
        let level = if is_soon { Level::Warning } else { Level::Note };
        findings.push(Finding::new(level, Check::Subnets, what).remedy(
            "give networks their subnets yourself (--subnet), or found the swarm with a pool that nothing else uses \
             (swarm init --default-addr-pool)",
        ));
    }
    if findings.len() == before && !node.networks.is_empty() {
        findings.push(Finding::new(Level::Ok, Check::Subnets, "no network has a subnet that this machine routes"));
    }
}

/// How many networks of a pool come before the first that meets a route.
fn networks_before(pool: Cidr, size: u8, route: Cidr) -> u32 {
    let shift = 32 - u32::from(size.clamp(1, 32));
    route.first().saturating_sub(pool.first()).checked_shr(shift).unwrap_or(0)
}

fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (1, rest) if rest != 11 => "st",
        (2, rest) if rest != 12 => "nd",
        (3, rest) if rest != 13 => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// A route that Skep did not make, and that is not the one for everything.
fn is_foreign(route: &Route, host: &Host) -> bool {
    let is_own = route.link.as_ref().is_some_and(|link| host.own.bridges.contains(link));
    route.destination.prefix > 0 && !is_own && !route.destination.address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Network, Own, Pools};

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).expect("a network")
    }

    fn host(routes: &[(&str, &str)]) -> Host {
        let route =
            |(to, link): &(&str, &str)| Route { destination: cidr(to), link: Some((*link).to_owned()), gateway: None };
        Host {
            routes: routes.iter().map(route).collect(),
            own: Own { tables: vec![], bridges: vec!["docker0".to_owned()] },
            ..Host::default()
        }
    }

    fn node(subnet: &str) -> Node {
        let network = Network { name: "web".to_owned(), subnets: vec![cidr(subnet)], ..Network::default() };
        Node { networks: vec![network], ..Node::default() }
    }

    fn levels(host: &Host, node: &Node) -> Vec<Level> {
        let mut findings = Vec::new();
        judge(host, Some(node), &mut findings);
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn networks_share_addresses_or_not() {
        let check = |a: &str, b: &str, expected| {
            assert_eq!((cidr(a).overlaps(cidr(b)), cidr(b).overlaps(cidr(a))), (expected, expected), "{a} {b}");
        };
        check("10.0.0.0/8", "10.77.0.0/24", true);
        check("10.0.0.0/24", "10.0.1.0/24", false);
        check("0.0.0.0/0", "10.0.1.0/24", true);
        check("10.0.0.1/32", "10.0.0.1/32", true);
        check("255.255.255.255/32", "10.0.0.1/32", false);
        assert_eq!(cidr("10.0.0.9/24").to_string(), "10.0.0.0/24");
        assert_eq!(Cidr::parse("10.0.0.0/33"), None);
    }

    #[test]
    fn a_subnet_that_is_routed_elsewhere_is_told() {
        let node = node("10.90.0.0/24");
        assert_eq!(levels(&host(&[("10.77.0.0/24", "eth0"), ("0.0.0.0/0", "eth0")]), &node), [Level::Ok]);
        assert_eq!(levels(&host(&[("10.88.0.0/14", "tun0")]), &node), [Level::Warning]);
        assert_eq!(levels(&host(&[("10.90.0.0/16", "docker0")]), &node), [Level::Ok], "its own");
        let with_peer = Node { known_addresses: vec!["10.90.0.7".parse().expect("an address")], ..node };
        assert_eq!(levels(&host(&[("10.90.0.0/16", "eth0")]), &with_peer), [Level::Broken]);
    }

    #[test]
    fn a_pool_that_meets_a_route_soon_is_a_warning_and_late_a_note() {
        let pool = |base: &str| {
            let pools = Pools { bases: vec![cidr(base)], subnet_size: 24 };
            Node { pools: Some(pools), ..Node::default() }
        };
        let routes = host(&[("10.77.0.0/24", "eth0")]);
        assert_eq!(levels(&routes, &pool("10.0.0.0/8")), [Level::Note]);
        assert_eq!(levels(&routes, &pool("10.76.0.0/14")), [Level::Note]);
        assert_eq!(levels(&routes, &pool("10.77.0.0/16")), [Level::Warning]);
        assert_eq!(levels(&routes, &pool("10.77.0.128/25")), [Level::Warning]);
        assert_eq!(levels(&routes, &pool("172.30.0.0/16")), []);
        assert_eq!([1, 2, 11, 23, 112].map(ordinal), ["1st", "2nd", "11th", "23rd", "112th"]);
    }
}
