//! What this node is, and who its peers are: from the node, the gossip, the network and, on a manager, the store.

use std::collections::BTreeMap;
use std::net::IpAddr;

use doctor::{Cidr, GossipState, Known, Network, Node, PeerKind, PeerRole, Pools, Standing};
use gossip::limits::PORT;
use gossip::{Acquaintance, Kind, Name, Presence};
use model::NodeRole;
use node::NodeState;

use super::Doctor;
use crate::errors::chain;

/// SwarmKit's size of subnets, if the cluster names none.
const SUBNET_SIZE: u8 = 24;

/// A peer that may be looked at.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) address: IpAddr,
    /// Its host name; empty if it is not known.
    pub(super) name: String,
    pub(super) role: PeerRole,
    pub(super) is_down: bool,
    pub(super) known: Known,
    pub(super) kind: PeerKind,
    /// Its name in the gossip; empty if it is not in it.
    pub(super) member: Name,
    pub(super) gossip_port: u16,
    /// Where it listens for the swarm, if it is a manager.
    pub(super) manager: Option<std::net::SocketAddr>,
}

impl Candidate {
    fn new(address: IpAddr) -> Self {
        Self {
            address,
            name: String::new(),
            role: PeerRole::Unknown,
            is_down: false,
            known: Known::Stranger,
            kind: PeerKind::Unknown,
            member: Name::from(""),
            gossip_port: PORT,
            manager: None,
        }
    }
}

/// What this node is.
pub(super) async fn node(doctor: &Doctor) -> Node {
    let info = doctor.0.node.info();
    let (addresses, data_path_port) = doctor.0.exchange.addresses().await;
    let advertise = addresses.map(|it| it.advertise).or_else(|| info.advertise_ip.parse().ok());
    let data_path = addresses.map(|it| it.data_path);
    let standing = match info.state {
        NodeState::Inactive => Standing::Outside,
        NodeState::Pending => Standing::Pending(info.error.clone()),
        NodeState::Active => Standing::Active,
        NodeState::Failed | NodeState::Expired => Standing::Failed(info.error.clone()),
        NodeState::Locked => Standing::Locked,
    };
    let is_manager = info.state == NodeState::Active && info.role == NodeRole::Manager;
    let manager = doctor.0.node.manager().filter(|_| is_manager);
    let no_leader = manager.as_ref().and_then(|manager| manager.leader_missing()).map(|error| chain(&error));
    let cluster = manager.as_ref().and_then(|manager| manager.shared().view().the_cluster().cloned());
    let pools = cluster.map(|cluster| Pools {
        bases: pools(&cluster.default_address_pool),
        subnet_size: u8::try_from(cluster.subnet_size).ok().filter(|size| *size > 0).unwrap_or(SUBNET_SIZE),
    });
    let (members, strangers) = candidates(doctor).await;
    Node {
        role: if is_manager { PeerRole::Manager } else { PeerRole::Worker },
        no_leader,
        advertise,
        data_path,
        data_path_port: if data_path_port == 0 { net::DATA_PATH_PORT } else { data_path_port },
        gossip: gossip_state(doctor, &standing).await,
        networks: networks(doctor, data_path),
        pools,
        known_addresses: members.iter().chain(&strangers).map(|candidate| candidate.address).collect(),
        standing,
    }
}

/// The pools of a cluster; without any, SwarmKit's own.
fn pools(named: &[String]) -> Vec<Cidr> {
    let pools: Vec<Cidr> = named.iter().filter_map(|pool| Cidr::parse(pool)).collect();
    if pools.is_empty() { vec![Cidr::new([10, 0, 0, 0], 8)] } else { pools }
}

async fn gossip_state(doctor: &Doctor, standing: &Standing) -> GossipState {
    let Some(handle) = doctor.handle() else {
        return if *standing == Standing::Active { GossipState::Waiting } else { GossipState::Off };
    };
    let Ok(report) = handle.report().await else { return GossipState::Waiting };
    let unopened = report.counters.refused.get(&gossip::Refused::Unopened).copied().unwrap_or(0);
    GossipState::Runs { unopened, divergences: report.counters.divergences, troubles: report.troubles }
}

/// Overlay networks that are made here.
fn networks(doctor: &Doctor, data_path: Option<IpAddr>) -> Vec<Network> {
    let net = &doctor.0.net;
    let network = |spec: net::OverlaySpec| Network {
        mtu: net.overlay_mtu(&spec.network_id).unwrap_or(spec.mtu),
        subnets: spec.subnets.iter().map(|it| Cidr::new(it.subnet.address, it.subnet.prefix)).collect(),
        is_encrypted: spec.encrypted,
        ends_here: spec.vtep.is_none() && matches!(data_path, Some(IpAddr::V4(_))),
        vnis: spec.subnets.iter().map(|it| it.vni).collect(),
        id: spec.network_id,
        name: spec.name,
    };
    net.overlays().into_iter().map(network).collect()
}

/// The swarm's other nodes: those that the gossip knows, and those that only managers know of.
pub(super) async fn candidates(doctor: &Doctor) -> (Vec<Candidate>, Vec<Candidate>) {
    let members = match doctor.handle() {
        Some(handle) => handle.members().await.unwrap_or_default(),
        None => Vec::new(),
    };
    let mut found = of_gossip(members);
    let info = doctor.0.node.info();
    let own: Option<IpAddr> = info.advertise_ip.parse().ok();
    for manager in info.managers.iter().filter(|manager| manager.node_id != info.node_id) {
        let Ok(address) = manager.addr.parse::<std::net::SocketAddr>() else { continue };
        if Some(address.ip()) == own {
            continue;
        }
        let candidate = found.entry(address.ip()).or_insert_with(|| Candidate::new(address.ip()));
        (candidate.role, candidate.manager) = (PeerRole::Manager, Some(address));
    }
    if let Some(manager) = doctor.0.node.manager() {
        let view = manager.shared().view();
        for node in view.nodes().filter(|node| node.id.as_str() != info.node_id) {
            add_node(&mut found, node);
        }
    }
    found.into_values().partition(|candidate| candidate.known != Known::Stranger)
}

fn of_gossip(members: Vec<Acquaintance>) -> BTreeMap<IpAddr, Candidate> {
    let mut found: BTreeMap<IpAddr, Candidate> = BTreeMap::new();
    for Acquaintance { peer, presence } in members {
        let is_there = presence == Presence::There;
        // A process that was started anew has another name at the same address: the one that is there counts.
        if !is_there && found.contains_key(&peer.address.ip()) {
            continue;
        }
        let kind = match peer.kind {
            Kind::Skep => PeerKind::Skep,
            // What failed is not known any more.
            Kind::Other if is_there => PeerKind::Other,
            Kind::Other => PeerKind::Unknown,
        };
        let known = if is_there { Known::There } else { Known::Failed };
        let candidate = Candidate {
            known,
            kind,
            member: peer.name,
            gossip_port: peer.address.port(),
            ..Candidate::new(peer.address.ip())
        };
        found.insert(candidate.address, candidate);
    }
    found
}

/// A node as the managers have it.
fn add_node(found: &mut BTreeMap<IpAddr, Candidate>, node: &model::Node) {
    // A manager's address is the one that it advertises; a worker's is the one that it came from.
    let advertised = node.manager_status.as_ref().and_then(|status| status.addr.parse::<std::net::SocketAddr>().ok());
    let Some(address) = advertised.map(|address| address.ip()).or_else(|| node.status.addr.parse().ok()) else {
        return;
    };
    let candidate = found.entry(address).or_insert_with(|| Candidate::new(address));
    candidate.name = node.description.as_ref().map(|it| it.hostname.clone()).unwrap_or_default();
    candidate.is_down = node.status.state == model::NodeState::Down;
    candidate.role = match node.role {
        NodeRole::Manager => PeerRole::Manager,
        NodeRole::Worker => PeerRole::Worker,
    };
    if node.role == NodeRole::Manager {
        candidate.manager = candidate.manager.or(advertised);
    }
}

#[cfg(test)]
mod tests {
    use gossip::Peer;

    use super::*;

    fn member(name: &str, last: u8, kind: Kind, presence: Presence) -> Acquaintance {
        let address = ([192, 0, 2, last], PORT).into();
        Acquaintance { peer: Peer { name: name.into(), address, kind }, presence }
    }

    #[test]
    fn a_member_that_is_there_counts_before_its_former_names() {
        use Presence::{Failed, There};
        let found = of_gossip(vec![
            member("old", 1, Kind::Other, Failed),
            member("new", 1, Kind::Skep, There),
            member("older", 1, Kind::Other, Failed),
            member("lost", 2, Kind::Other, Failed),
            member("docker", 3, Kind::Other, There),
        ]);
        let shown: Vec<_> = found.values().map(|it| (&*it.member, it.known, it.kind)).collect();
        let expected = [
            ("new", Known::There, PeerKind::Skep),
            ("lost", Known::Failed, PeerKind::Unknown),
            ("docker", Known::There, PeerKind::Other),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn nodes_of_the_store_are_added_to_those_of_the_gossip() {
        let mut found = of_gossip(vec![member("new", 1, Kind::Skep, Presence::There)]);
        let mut node = model::Node::default();
        node.status.addr = "192.0.2.1".to_owned();
        node.description =
            Some(model::NodeDescription { hostname: "b".to_owned(), ..model::NodeDescription::default() });
        add_node(&mut found, &node);
        node.status.addr = "192.0.2.9".to_owned();
        node.status.state = model::NodeState::Down;
        add_node(&mut found, &node);
        node.status.addr.clear();
        add_node(&mut found, &node);
        let shown: Vec<_> = found.values().map(|it| (it.name.as_str(), it.known, it.is_down)).collect();
        assert_eq!(shown, [("b", Known::There, false), ("b", Known::Stranger, true)]);
    }

    #[test]
    fn pools_are_read_or_swarmkits() {
        assert_eq!(pools(&[]), [Cidr::new([10, 0, 0, 0], 8)]);
        assert_eq!(pools(&["10.50.0.0/16".to_owned(), "x".to_owned()]), [Cidr::new([10, 50, 0, 0], 16)]);
    }
}
