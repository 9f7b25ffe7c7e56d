//! Several nodes in one process, over TLS on loopback: joining, roles, leaving, restarts, and what is refused.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use manager::{KeyRotation, Manager, RemoveKind};
use model::{ClusterSpec, NodeAvailability, NodeId, NodeRole, NodeState as Observed, ServiceId, TaskId};
use node::{
    GroupError, InitRequest, JoinRequest, LeaveError, LeaveMode, LeaveRefusal, NodeError, NodeState, StartError,
    SwarmNode,
};
use support::{Books, LONG, init_request, own_address, service_spec};
use tempfile::TempDir;

/// A node on an address and in a folder of its own.
struct TestNode {
    node: SwarmNode,
    books: Arc<Books>,
    folder: TempDir,
    addr: String,
}

impl TestNode {
    async fn new() -> Self {
        let (folder, books) = (tempfile::tempdir().unwrap(), Arc::new(Books::default()));
        let node = support::open(folder.path(), &books).await;
        Self { node, books, folder, addr: own_address() }
    }

    /// A founder.
    async fn founder() -> Self {
        let founder = Self::new().await;
        let request = InitRequest { listen_addr: founder.addr.clone(), ..init_request() };
        founder.node.init(request).await.expect("a swarm");
        founder
    }

    fn join_request(&self, remote: &str, token: &str) -> JoinRequest {
        JoinRequest {
            listen_addr: self.addr.clone(),
            advertise_addr: self.addr.clone(),
            remote_addrs: vec![remote.to_owned()],
            join_token: token.to_owned(),
            ..JoinRequest::default()
        }
    }

    /// A node that joined through another.
    async fn joined(through: &Self, role: NodeRole) -> Self {
        let joiner = Self::new().await;
        let token = through.token(role);
        joiner.node.join(joiner.join_request(&through.addr, &token)).await.expect("a join");
        joiner
    }

    fn token(&self, role: NodeRole) -> String {
        let view = self.manager().shared().view();
        let tokens = view.the_cluster().expect("a cluster").root_ca.join_tokens.clone();
        if role == NodeRole::Manager { tokens.manager } else { tokens.worker }
    }

    fn manager(&self) -> Arc<Manager> {
        self.node.manager().expect("a manager")
    }

    fn id(&self) -> NodeId {
        self.node.info().node_id.into()
    }

    async fn reopened(self) -> Self {
        self.node.stop().await;
        let node = support::open(self.folder.path(), &self.books).await;
        Self { node, ..self }
    }

    /// Waits until this manager's committed state satisfies `found`.
    async fn until<T>(&self, what: &str, found: impl FnMut(&store::View) -> Option<T>) -> T {
        let mut watch = self.manager().shared().watch();
        let found = tokio::time::timeout(LONG, watch.until(found)).await;
        found.unwrap_or_else(|_| panic!("waited for {what}")).expect("the manager lives")
    }

    async fn until_node(&self, id: &NodeId, state: Observed) -> String {
        let found = |view: &store::View| {
            let node = view.node(id)?;
            (node.status.state == state).then(|| node.status.message.clone())
        };
        self.until(&format!("{id} {state:?}"), found).await
    }

    /// The tasks of a service that run, by node.
    async fn until_spread(&self, service: &ServiceId, expected: &[(&NodeId, usize)]) {
        let found = |view: &store::View| {
            let tasks = support::running(view, service);
            let on = |node: &NodeId| {
                tasks.iter().filter(|id| view.task(id).is_some_and(|task| task.node_id.as_ref() == Some(node))).count()
            };
            expected.iter().all(|(node, count)| on(node) == *count).then_some(())
        };
        self.until(&format!("tasks on {expected:?}"), found).await;
    }

    async fn until_role(&self, role: NodeRole, state: NodeState) {
        let mut session = self.node.managers();
        let reached = async {
            loop {
                let info = self.node.info();
                if info.role == role && info.state == state {
                    return;
                }
                // The role changes with the certificate, the state a moment later without a sign of its own.
                tokio::select! {
                    changed = session.changed() => changed.expect("the node lives"),
                    () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
                }
            }
        };
        let reached = tokio::time::timeout(LONG, reached).await;
        reached.unwrap_or_else(|_| panic!("waited for {role:?}, have {:?}", self.node.info()));
    }

    async fn set_role(&self, id: &NodeId, role: NodeRole) {
        let node = self.manager().shared().view().node(id).expect("a node").clone();
        let spec = model::NodeSpec { desired_role: role, ..node.spec.clone() };
        self.manager().control().update_node(id, node.meta.version, spec).await.expect("a new role");
    }

    fn running(&self) -> BTreeSet<TaskId> {
        self.books.running.lock().unwrap().clone()
    }
}

async fn end(nodes: Vec<TestNode>) {
    for node in nodes {
        node.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_joins_takes_its_share_and_leaves() {
    let a = TestNode::founder().await;
    let b = TestNode::joined(&a, NodeRole::Worker).await;
    let info = b.node.info();
    assert_eq!((info.state, info.role), (NodeState::Active, NodeRole::Worker));
    assert!(b.node.manager().is_none());
    assert_eq!(info.managers.iter().map(|m| m.addr.as_str()).collect::<Vec<_>>(), [a.addr.as_str()]);
    let (a_id, b_id) = (a.id(), b.id());
    a.until_node(&b_id, Observed::Ready).await;
    let service = a.manager().control().create_service(service_spec("dummy", 4)).await.unwrap();
    a.until_spread(&service.id, &[(&a_id, 2), (&b_id, 2)]).await;
    assert_eq!(b.running().len(), 2);

    b.node.leave(LeaveMode::Safe).await.unwrap();
    assert_eq!(b.node.info().state, NodeState::Inactive);
    assert!(!b.folder.path().join("swarm").exists());
    assert!(b.running().is_empty());
    let message = a.until_node(&b_id, Observed::Down).await;
    assert_eq!(message, "node left the swarm");
    a.until_spread(&service.id, &[(&a_id, 4)]).await;
    a.manager().control().remove_node(&b_id, RemoveKind::Safe).await.unwrap();

    // It may come again, as another node.
    b.node.join(b.join_request(&a.addr, &a.token(NodeRole::Worker))).await.unwrap();
    assert_ne!(b.id(), b_id);
    end(vec![b, a]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_runs_on_through_a_restart_without_any_manager() {
    let a = TestNode::founder().await;
    let b = TestNode::joined(&a, NodeRole::Worker).await;
    let b_id = b.id();
    let service = a.manager().control().create_service(service_spec("dummy", 2)).await.unwrap();
    a.until_spread(&service.id, &[(&a.id(), 1), (&b_id, 1)]).await;
    let tasks = b.running();
    a.node.stop().await;
    b.node.stop().await;
    b.books.ends.lock().unwrap().clear();
    let b = b.reopened().await;
    assert_eq!(b.books.ends.lock().unwrap().keys().cloned().collect::<BTreeSet<_>>(), tasks, "taken up at once");
    assert_eq!((b.node.info().state, b.node.info().role), (NodeState::Pending, NodeRole::Worker));
    assert!(b.books.stopped.lock().unwrap().is_empty());

    // The manager comes back and finds the same tasks.
    let a = a.reopened().await;
    b.until_role(NodeRole::Worker, NodeState::Active).await;
    a.until_spread(&service.id, &[(&b_id, 1)]).await;
    assert_eq!(b.running(), tasks);
    end(vec![b, a]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_joins_and_the_swarm_survives_restarts() {
    let a = TestNode::founder().await;
    let b = TestNode::joined(&a, NodeRole::Manager).await;
    b.until_role(NodeRole::Manager, NodeState::Active).await;
    let cluster = a.manager().shared().view().the_cluster().unwrap().id.clone();
    assert_eq!(b.manager().shared().view().the_cluster().unwrap().id, cluster);
    let refused = b.node.leave(LeaveMode::Safe).await;
    let expected = LeaveRefusal::QuorumLost { remaining: 1, total: 2 };
    assert!(matches!(refused, Err(LeaveError::Refused(refusal)) if refusal == expected), "{refused:?}");
    let service = a.manager().control().create_service(service_spec("dummy", 2)).await.unwrap();
    b.until_spread(&service.id, &[(&a.id(), 1), (&b.id(), 1)]).await;

    // Both go and come; each goes on from its own log.
    let ids = (a.id(), b.id());
    let (a, b) = (a.reopened().await, b.reopened().await);
    a.until_role(NodeRole::Manager, NodeState::Active).await;
    b.until_role(NodeRole::Manager, NodeState::Active).await;
    assert_eq!((a.id(), b.id()), ids);
    b.until_spread(&service.id, &[(&a.id(), 1), (&b.id(), 1)]).await;
    end(vec![b, a]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_promoted_and_demoted_while_they_run() {
    let a = TestNode::founder().await;
    let b = TestNode::joined(&a, NodeRole::Worker).await;
    let service = a.manager().control().create_service(service_spec("dummy", 2)).await.unwrap();
    a.until_spread(&service.id, &[(&a.id(), 1), (&b.id(), 1)]).await;
    let tasks = b.running();
    assert!(tokio::net::TcpStream::connect(&b.addr).await.is_err(), "a worker does not listen");

    a.set_role(&b.id(), NodeRole::Manager).await;
    b.until_role(NodeRole::Manager, NodeState::Active).await;
    b.until("the service", |view| view.service(&service.id).cloned()).await;
    tokio::net::TcpStream::connect(&b.addr).await.expect("a manager listens");

    a.set_role(&b.id(), NodeRole::Worker).await;
    b.until_role(NodeRole::Worker, NodeState::Active).await;
    let gone = async {
        while b.node.manager().is_some() || b.folder.path().join("swarm/raft").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("the raft state is wiped");
    assert!(tokio::net::TcpStream::connect(&b.addr).await.is_err(), "the port is closed");
    let key = std::fs::read_to_string(b.folder.path().join("swarm/certificates/swarm-node.key")).unwrap();
    assert!(!key.contains("raft-dek"), "a worker keeps no key of a raft log");
    assert_eq!(b.running(), tasks, "tasks do not notice");

    a.set_role(&b.id(), NodeRole::Manager).await;
    b.until_role(NodeRole::Manager, NodeState::Active).await;
    end(vec![b, a]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_foreign_and_rotated_tokens_are_refused_and_leave_nothing() {
    let (a, other) = (TestNode::founder().await, TestNode::founder().await);
    let b = TestNode::new().await;
    let join = |token: &str| b.node.join(b.join_request(&a.addr, token));
    assert!(matches!(join("SWMTKN-1-x").await, Err(NodeError::Token(_))));
    let foreign = other.token(NodeRole::Worker);
    assert!(matches!(join(&foreign).await, Err(NodeError::Join(identity::JoinError::Fingerprint { .. }))));
    let old = a.token(NodeRole::Worker);
    let cluster = a.manager().shared().view().the_cluster().unwrap().clone();
    let rotation = KeyRotation { worker_join_token: true, ..KeyRotation::default() };
    a.manager().control().update_cluster(cluster.meta.version, cluster.spec.clone(), rotation).await.unwrap();
    let refused = join(&old).await.unwrap_err();
    assert_eq!(refused.to_string(), "A valid join token is necessary to join this cluster");
    assert_eq!(b.node.info().state, NodeState::Inactive);
    assert!(!b.folder.path().join("swarm").exists());
    join(&a.token(NodeRole::Worker)).await.unwrap();
    end(vec![b, a, other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_cannot_be_reached_is_not_taken() {
    let a = TestNode::founder().await;
    let b = TestNode::new().await;
    // Discarded on every machine: nothing listens there.
    let request = JoinRequest {
        advertise_addr: "127.255.255.254:1".to_owned(),
        ..b.join_request(&a.addr, &a.token(NodeRole::Manager))
    };
    let refused = b.node.join(request).await.unwrap_err();
    let NodeError::Manager(error) = &refused else { panic!("{refused:?}") };
    let StartError::Group(GroupError::Refused(status)) = &**error else { panic!("{error:?}") };
    let opening = "could not connect to prospective new cluster member using its advertised address";
    assert!(status.message().starts_with(opening), "{status}");
    assert_eq!(b.node.info().state, NodeState::Inactive);
    assert_eq!(a.manager().status().borrow().members.len(), 1, "the group is what it was");
    assert_eq!(a.manager().shared().view().nodes().count(), 1, "and so are the nodes");
    a.manager().control().create_service(service_spec("dummy", 1)).await.expect("the swarm goes on");
    end(vec![b, a]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_machines_with_one_identity_are_told_of() {
    let a = TestNode::founder().await;
    let b = TestNode::joined(&a, NodeRole::Worker).await;
    let (folder, books) = (tempfile::tempdir().unwrap(), Arc::new(Books::default()));
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg("-r").arg(b.folder.path().join("swarm")).arg(folder.path()).status().unwrap().success());
    let twin = support::open(folder.path(), &books).await;
    let told = |view: &store::View| view.node(&b.id())?.status.message.contains("two machines").then_some(());
    a.until("word of the twin", told).await;
    twin.stop().await;
    end(vec![b, a]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_cluster_opens_nothing() {
    let (a, other) = (TestNode::founder().await, TestNode::founder().await);
    let b = TestNode::joined(&other, NodeRole::Worker).await;
    b.node.stop().await;
    // The other cluster's node, sent to this one.
    let swarm = b.folder.path().join("swarm");
    let file = swarm.join("docker-state.json");
    let saved = std::fs::read_to_string(&file).unwrap().replace(&other.addr, &a.addr);
    std::fs::write(&file, saved).unwrap();
    std::fs::write(swarm.join("state.json"), format!(r#"[{{"node_id":"{}","addr":"{}"}}]"#, a.id(), a.addr)).unwrap();
    let node = support::open(b.folder.path(), &b.books).await;
    let refused = async {
        loop {
            let info = node.info();
            assert!(!info.session.registered);
            if !info.session.error.is_empty() {
                return info;
            }
            tokio::task::yield_now().await;
        }
    };
    let info = tokio::time::timeout(LONG, refused).await.expect("a refusal");
    assert_eq!(info.state, NodeState::Pending);
    assert!(a.manager().shared().view().node(&info.node_id.into()).is_none());
    node.stop().await;
    end(vec![a, other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_asks_to_leave_and_join_again() {
    let a = TestNode::founder().await;
    let b = TestNode::joined(&a, NodeRole::Worker).await;
    b.node.stop().await;
    let cluster = a.manager().shared().view().the_cluster().unwrap().clone();
    let root =
        identity::RootAuthority { cert_pem: cluster.root_ca.ca_cert.clone(), key_pem: cluster.root_ca.ca_key.clone() };
    let now = identity::system_now();
    let long_ago = model::Timestamp { seconds: now.seconds - 91 * 86_400, ..now };
    let files = identity::CertificateFiles::new(&b.folder.path().join("swarm"));
    let id = files.load(None).unwrap().unwrap().node_id;
    let issued = root.issue(&id, NodeRole::Worker, &cluster.id, None, long_ago).unwrap();
    let key = identity::KeyFile { key_pem: issued.key_pem, ..identity::KeyFile::default() };
    files.store_pair(&issued.cert_pem, &key, None).unwrap();

    let node = support::open(b.folder.path(), &b.books).await;
    let info = node.info();
    assert_eq!(info.state, NodeState::Expired);
    assert!(info.error.contains("not valid after"), "{}", info.error);
    let join = || node.join(b.join_request(&a.addr, &a.token(NodeRole::Worker)));
    assert!(matches!(join().await, Err(NodeError::InSwarm)));
    node.leave(LeaveMode::Safe).await.unwrap();
    join().await.unwrap();
    node.stop().await;
    end(vec![a]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_root_reaches_every_node() {
    let a = TestNode::founder().await;
    let b = TestNode::joined(&a, NodeRole::Worker).await;
    let cluster = a.manager().shared().view().the_cluster().unwrap().clone();
    let old = cluster.root_ca.ca_cert.clone();
    let mut spec: ClusterSpec = cluster.spec.clone();
    spec.ca_config.force_rotate += 1;
    a.manager().control().update_cluster(cluster.meta.version, spec, KeyRotation::default()).await.unwrap();
    let new = a
        .until("the end of the rotation", |view| {
            let root = &view.the_cluster()?.root_ca;
            (root.root_rotation.is_none() && root.ca_cert != old).then(|| root.ca_cert.clone())
        })
        .await;
    let file = b.folder.path().join("swarm/certificates/swarm-root-ca.crt");
    let taken = async {
        while std::fs::read(&file).unwrap() != new {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, taken).await.expect("the worker trusts the new root alone");
    // Whoever joins now needs a token for the new root, and both kinds still work.
    let c = TestNode::joined(&a, NodeRole::Worker).await;
    end(vec![c, b, a]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_lost_the_others_goes_on_alone_with_force() {
    let a = TestNode::founder().await;
    let b = TestNode::joined(&a, NodeRole::Manager).await;
    let service = a.manager().control().create_service(service_spec("dummy", 1)).await.unwrap();
    b.until("the service", |view| view.service(&service.id).cloned()).await;
    a.node.stop().await;
    let request = InitRequest { listen_addr: b.addr.clone(), force_new_cluster: true, ..init_request() };
    let id = b.id();
    assert_eq!(b.node.init(request).await.unwrap(), id);
    assert_eq!(b.manager().status().borrow().members.len(), 1);
    assert!(b.manager().shared().view().service(&service.id).is_some(), "what the swarm knew is there");
    let other = model::ServiceSpec { endpoint: None, ..service_spec("other", 1) };
    b.manager().control().create_service(other).await.expect("it writes again");
    end(vec![b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn availability_comes_with_the_join() {
    let a = TestNode::founder().await;
    let b = TestNode::new().await;
    let request =
        JoinRequest { availability: NodeAvailability::Drain, ..b.join_request(&a.addr, &a.token(NodeRole::Worker)) };
    b.node.join(request).await.unwrap();
    let node = a.manager().shared().view().node(&b.id()).unwrap().clone();
    assert_eq!(node.spec.availability, NodeAvailability::Drain);
    end(vec![b, a]).await;
}
