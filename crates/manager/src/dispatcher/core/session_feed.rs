//! What one session is told of its node, the managers, the network keys and the root CA: all of it at first, and again
//! whenever a part changes. One instance for each Session stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Cluster, Node, NodeId};
use store::View;
use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;

/// Weight of a manager in the list that nodes get; SwarmKit's.
const MANAGER_WEIGHT: i64 = 10;

/// Who this manager is to the nodes.
#[derive(Clone, Debug)]
pub struct ManagerIdentity {
    /// Its node.
    pub node_id: NodeId,
    /// Where nodes reach it, `host:port`.
    pub advertise_addr: String,
    /// The trust root, PEM.
    pub root_ca: Vec<u8>,
}

/// The managers as nodes are told of them.
pub type Peers = Arc<Vec<p::WeightedPeer>>;

/// The managers' list from the members of the raft group; this manager alone while the group is not known, since nodes
/// drop all managers that are not listed.
pub fn peers_of(members: &BTreeMap<u64, p::RaftMember>, own: &ManagerIdentity) -> Peers {
    let peer = |node_id: String, addr: String| p::WeightedPeer {
        peer: Some(p::Peer { node_id, addr }),
        weight: MANAGER_WEIGHT,
    };
    let mut peers: Vec<_> = members.values().map(|member| peer(member.node_id.clone(), member.addr.clone())).collect();
    if peers.is_empty() {
        peers.push(peer(own.node_id.to_string(), own.advertise_addr.clone()));
    }
    Arc::new(peers)
}

/// One session's messages.
pub struct SessionFeed {
    node: NodeId,
    session_id: String,
    told: Option<Told>,
}

/// What was sent, by reference to what the store and all sessions share.
struct Told {
    node: Arc<Node>,
    cluster: Arc<Cluster>,
    peers: Peers,
}

impl SessionFeed {
    /// A session that was told nothing yet.
    pub fn new(node: NodeId, session_id: String) -> Self {
        Self { node, session_id, told: None }
    }

    /// The next message; `None` if the node knows all that there is.
    pub fn next(&mut self, view: &View, peers: &Peers) -> Option<p::SessionMessage> {
        let told =
            Told { node: view.node(&self.node)?.clone(), cluster: view.the_cluster()?.clone(), peers: peers.clone() };
        let news = self.told.as_ref().is_none_or(|known| !known.says_the_same(&told));
        let told = self.told.insert(told);
        news.then(|| told.message(&self.session_id))
    }

    /// The last message of a session that ends: the node looks for another manager in it.
    pub fn last(&self, peers: &Peers) -> Option<p::SessionMessage> {
        let told = self.told.as_ref()?;
        let last = Told { node: told.node.clone(), cluster: told.cluster.clone(), peers: peers.clone() };
        Some(last.message(&self.session_id))
    }
}

impl Told {
    fn says_the_same(&self, other: &Self) -> bool {
        let same_cluster = Arc::ptr_eq(&self.cluster, &other.cluster)
            || (self.cluster.network_bootstrap_keys == other.cluster.network_bootstrap_keys
                && self.cluster.root_ca.ca_cert == other.cluster.root_ca.ca_cert);
        let same_node = Arc::ptr_eq(&self.node, &other.node) || self.node == other.node;
        same_cluster && same_node && (Arc::ptr_eq(&self.peers, &other.peers) || self.peers == other.peers)
    }

    fn message(&self, session_id: &str) -> p::SessionMessage {
        p::SessionMessage {
            session_id: session_id.to_owned(),
            node: Some(self.node.to_proto()),
            managers: self.peers.to_vec(),
            network_bootstrap_keys: self.cluster.network_bootstrap_keys.iter().map(ToProto::to_proto).collect(),
            root_ca: self.cluster.root_ca.ca_cert.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Action;

    #[test]
    fn a_message_follows_a_change_and_nothing_else() {
        let own = ManagerIdentity { node_id: "m".into(), advertise_addr: "10.0.0.1:2377".into(), root_ca: Vec::new() };
        let alone = peers_of(&BTreeMap::new(), &own);
        let member = |id: u64| p::RaftMember { raft_id: id, node_id: format!("m{id}"), ..Default::default() };
        let three = peers_of(&(1..=3).map(|id| (id, member(id))).collect(), &own);
        let mut cluster = Cluster { id: "c".into(), ..Default::default() };
        let mut node = Node { id: "n".into(), ..Default::default() };
        let mut view = View::new();
        view.apply(&[Action::Create(cluster.clone().into()), Action::Create(node.clone().into())]).unwrap();
        let mut feed = SessionFeed::new("n".into(), "session".into());
        assert_eq!(feed.next(&view, &alone).unwrap().managers.len(), 1, "the list is never empty");
        assert!(feed.next(&view, &alone).is_none());
        assert_eq!(feed.next(&view, &three).unwrap().managers.len(), 3);
        cluster.spec.annotations.labels.insert("a".into(), "b".into());
        view.apply(&[Action::Update(cluster.clone().into())]).unwrap();
        assert!(feed.next(&view, &three).is_none());
        cluster.root_ca.ca_cert = b"new".to_vec();
        node.status.addr = "10.0.0.9".into();
        view.apply(&[Action::Update(cluster.into()), Action::Update(node.into())]).unwrap();
        assert_eq!(feed.next(&view, &three).unwrap().root_ca, b"new");
        assert_eq!(feed.last(&alone).unwrap().managers.len(), 1);
    }
}
