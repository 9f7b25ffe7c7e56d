//! Where nodes themselves are on a network, as the gossip tells: the addresses of their balancers. Ours are told in the table
//! of links only, while endpoints of containers are in both tables; dockerd has its balancers in both, by their name.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use discovery::{ENDPOINT_TABLE, EndpointRecord, PEER_TABLE, PeerRecord};
use gossip::{Entry, Name};
use gossip_io::Handle;
use net::Net;

/// Places of one node that are tried: one, and what has just been made or is about to go.
const MAX_PLACES: usize = 4;

/// How the names of dockerd's balancers end, which belong to no service.
const BALANCER: &str = "-endpoint";

/// Where a member is on a network, and whether this machine's kernel knows the way there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) is_linked: bool,
}

/// Looks a member's places up.
pub(super) async fn of(net: &Net, handle: &Handle, network: &str, member: &str) -> Places {
    let entries = |table| async move { handle.entries(network, table).await.unwrap_or_default() };
    let (links, endpoints) = tokio::join!(entries(PEER_TABLE), entries(ENDPOINT_TABLE));
    let known: BTreeSet<Ipv4Addr> = net.peers(network).iter().map(|peer| peer.address).collect();
    places(&links, &endpoints, member, &known)
}

fn places(links: &[(Name, Entry)], endpoints: &[(Name, Entry)], member: &str, known: &BTreeSet<Ipv4Addr>) -> Places {
    let is_balancer = |entry: &Entry| {
        EndpointRecord::decode(&entry.value).is_ok_and(|it| it.service_id.is_empty() && it.name.ends_with(BALANCER))
    };
    let containers = endpoints.iter().filter(|(_, entry)| !is_balancer(entry));
    let containers: BTreeSet<&Name> = containers.map(|(key, _)| key).collect();
    let own = links.iter().filter(|(key, entry)| *entry.owner == *member && !containers.contains(key));
    let addresses = own.filter_map(|(_, entry)| match PeerRecord::decode(&entry.value).ok()?.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let addresses: Vec<Ipv4Addr> = addresses.take(MAX_PLACES).collect();
    Places { is_linked: addresses.iter().any(|address| known.contains(address)), addresses }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(key: &str, owner: &str, last: u8) -> (Name, Entry) {
        let record = PeerRecord {
            address: IpAddr::from([10, 0, 0, last]),
            prefix: 24,
            mac: [2, 66, 10, 0, 0, last],
            tunnel_endpoint: IpAddr::from([192, 0, 2, 1]),
        };
        (key.into(), Entry { owner: owner.into(), value: record.encode().into() })
    }

    #[test]
    fn balancers_are_told_from_containers() {
        let links = [link("one", "a", 2), link("two", "a", 5), link("three", "b", 3), link("four", "b", 6)];
        let endpoint = |key: &str, name: &str, service_id: &str| {
            let (name, service_id) = (name.to_owned(), service_id.to_owned());
            let record = EndpointRecord { name, service_id, ..EndpointRecord::default() };
            (Name::from(key), Entry { owner: "a".into(), value: record.encode().into() })
        };
        let endpoints = [
            endpoint("two", "web.1.x", "service"),
            endpoint("three", "ingress-endpoint", ""),
            endpoint("four", "my-endpoint", "service"),
        ];
        let known = BTreeSet::from([Ipv4Addr::new(10, 0, 0, 3)]);
        let found = |member| places(&links, &endpoints, member, &known);
        assert_eq!(found("a"), Places { addresses: vec![[10, 0, 0, 2].into()], is_linked: false });
        assert_eq!(found("b"), Places { addresses: vec![[10, 0, 0, 3].into()], is_linked: true });
        assert_eq!(found("c"), Places::default());
    }
}
