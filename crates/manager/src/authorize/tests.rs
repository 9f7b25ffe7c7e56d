//! Every method against every kind of caller.

use super::*;
use crate::methods;
use model::{BlacklistedCertificate, Cluster, Node};
use store::Action;

const MANAGER_UNIT: &str = "swarm-manager";
const WORKER_UNIT: &str = "swarm-worker";

const CLUSTER: &str = "cluster";

fn subject(node_id: &str, unit: &str, cluster_id: &str) -> Subject {
    Subject { node_id: node_id.into(), units: vec![unit.to_owned()], cluster_id: cluster_id.into() }
}

fn manager() -> Subject {
    subject("m1", MANAGER_UNIT, CLUSTER)
}

fn worker() -> Subject {
    subject("w1", WORKER_UNIT, CLUSTER)
}

fn view() -> View {
    let mut cluster = Cluster { id: CLUSTER.into(), ..Cluster::default() };
    for gone in ["gone-manager", "gone-worker"] {
        cluster.blacklisted_certificates.insert(gone.to_owned(), BlacklistedCertificate::default());
    }
    let mut actions = vec![Action::Create(cluster.into())];
    for (id, role) in [
        ("m1", NodeRole::Manager),
        ("m2", NodeRole::Manager),
        ("w1", NodeRole::Worker),
        ("demoted", NodeRole::Worker),
        ("gone-manager", NodeRole::Manager),
    ] {
        actions.push(Action::Create(Node { id: id.into(), role, ..Node::default() }.into()));
    }
    let mut view = View::new();
    view.apply(&actions).unwrap();
    view
}

fn forwarding(subject: Option<&Subject>) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    metadata.insert(FORWARDED, "true".parse().unwrap());
    let text = |value: Option<&str>| value.unwrap_or_default().parse().unwrap();
    metadata.insert(FORWARDED_CN, text(subject.map(|subject| subject.node_id.as_str())));
    metadata.insert(FORWARDED_ORG, text(subject.map(|subject| subject.cluster_id.as_str())));
    for unit in subject.iter().flat_map(|subject| &subject.units) {
        metadata.append(FORWARDED_OU, unit.parse().unwrap());
    }
    metadata.insert(REMOTE_ADDR, "10.0.0.9:4711".parse().unwrap());
    metadata.insert(REDIRECT, "10.0.0.9:4711".parse().unwrap());
    metadata
}

/// What comes of a call: the caller's name, `stranger`, or the refusal's text.
fn outcome(
    method: Method,
    peer: Option<&Subject>,
    metadata: &HeaderMap,
    authority: Authority,
) -> Result<String, String> {
    let (view, cluster_id) = (view(), ClusterId::from(CLUSTER));
    let facts = Facts { cluster_id: &cluster_id, view: &view, authority };
    let caller = facts.authorize(method, peer, Some("10.0.0.1".to_owned()), metadata);
    match caller {
        Ok(caller) => Ok(caller.map_or("stranger".to_owned(), |caller| caller.node_id.to_string())),
        Err(status) => {
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
            Err(status.message().to_owned())
        }
    }
}

/// For each access: the outcome of methods for anyone, for nodes, for managers.
fn check(peer: Option<&Subject>, metadata: &HeaderMap, expected: [Result<&str, &str>; 3]) {
    for method in methods::all() {
        let at = match method.access {
            Access::Anyone => 0,
            Access::Nodes => 1,
            Access::Managers => 2,
        };
        let wanted = expected[at].map(str::to_owned).map_err(str::to_owned);
        let found = outcome(method, peer, metadata, Authority::Store);
        assert_eq!(found, wanted, "{}/{} by {peer:?} with {metadata:?}", method.service, method.name);
    }
}

#[test]
fn the_certificate_decides() {
    let none = HeaderMap::new();
    let stranger = Err("Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = \
                        no client certificates in request");
    check(None, &none, [Ok("stranger"), stranger, stranger]);
    let no_manager = Err("Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = \
                          Permission denied: remote certificate not part of OUs: [swarm-manager]");
    check(Some(&worker()), &none, [Ok("w1"), Ok("w1"), no_manager]);
    check(Some(&manager()), &none, [Ok("m1"), Ok("m1"), Ok("m1")]);
    let other = subject("x", "other", CLUSTER);
    let no_role = Err("Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = \
                       Permission denied: remote certificate not part of OUs: [swarm-worker swarm-manager]");
    check(Some(&other), &none, [Ok("stranger"), no_role, no_manager]);
    let both = Subject { units: vec!["x".to_owned(), WORKER_UNIT.to_owned(), MANAGER_UNIT.to_owned()], ..manager() };
    check(Some(&both), &none, [Ok("m1"), Ok("m1"), Ok("m1")]);
}

#[test]
fn another_clusters_and_removed_nodes_are_strangers() {
    let none = HeaderMap::new();
    let foreign = Err("Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = \
                       Permission denied: remote certificate not part of organization: cluster");
    check(Some(&subject("m1", MANAGER_UNIT, "other")), &none, [Ok("stranger"), foreign, foreign]);
    let gone = Err("Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = \
                    Permission denied: node gone-manager was removed from swarm");
    check(Some(&subject("gone-manager", MANAGER_UNIT, CLUSTER)), &none, [Ok("stranger"), gone, gone]);
    let gone = Err("Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = \
                    Permission denied: node gone-worker was removed from swarm");
    let no_manager = Err("Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = \
                          Permission denied: remote certificate not part of OUs: [swarm-manager]");
    check(Some(&subject("gone-worker", WORKER_UNIT, CLUSTER)), &none, [Ok("stranger"), gone, no_manager]);
}

#[test]
fn only_a_manager_forwards() {
    let metadata = forwarding(Some(&subject("m2", MANAGER_UNIT, CLUSTER)));
    let refused = "Permission denied: unauthorized forwarder role: rpc error: code = PermissionDenied desc = ";
    let worker_refused = format!("{refused}Permission denied: remote certificate not part of OUs: [swarm-manager]");
    check(Some(&worker()), &metadata, [Err(&worker_refused); 3]);
    let stranger_refused = format!("{refused}no client certificates in request");
    check(None, &metadata, [Err(&stranger_refused); 3]);
    let foreign_refused = format!("{refused}Permission denied: remote certificate not part of organization: cluster");
    check(Some(&subject("m1", MANAGER_UNIT, "other")), &metadata, [Err(&foreign_refused); 3]);
    let gone_refused = format!("{refused}Permission denied: node gone-manager was removed from swarm");
    check(Some(&subject("gone-manager", MANAGER_UNIT, CLUSTER)), &metadata, [Err(&gone_refused); 3]);
    // Its certificate says manager, the store knows better.
    let demoted = subject("demoted", MANAGER_UNIT, CLUSTER);
    check(Some(&demoted), &metadata, [Err(&worker_refused); 3]);
    // Any of the keys counts, not only the first.
    for key in [FORWARDED, FORWARDED_CN, FORWARDED_ORG, FORWARDED_OU] {
        let mut one = HeaderMap::new();
        one.insert(key, "false".parse().unwrap());
        check(Some(&worker()), &one, [Err(&worker_refused); 3]);
    }
}

#[test]
fn what_is_forwarded_is_checked_as_if_it_came_itself() {
    let none = forwarding(None);
    let missing = Err("Permission denied: missing information in forwarded request");
    check(Some(&manager()), &none, [Ok("stranger"), missing, missing]);
    let no_manager = Err("Permission denied: unauthorized forwarded role, expecting: [swarm-manager]");
    check(Some(&manager()), &forwarding(Some(&worker())), [Ok("w1"), Ok("w1"), no_manager]);
    let other_manager = subject("m2", MANAGER_UNIT, CLUSTER);
    check(Some(&manager()), &forwarding(Some(&other_manager)), [Ok("m2"), Ok("m2"), Ok("m2")]);
    let foreign = Err("Permission denied: organization mismatch, expecting: cluster");
    let metadata = forwarding(Some(&subject("m2", MANAGER_UNIT, "other")));
    check(Some(&manager()), &metadata, [Ok("stranger"), foreign, foreign]);
    let gone = Err("Permission denied: node gone-manager was removed from swarm");
    let metadata = forwarding(Some(&subject("gone-manager", MANAGER_UNIT, CLUSTER)));
    check(Some(&manager()), &metadata, [Ok("stranger"), gone, gone]);
    let metadata = forwarding(Some(&subject("demoted", MANAGER_UNIT, CLUSTER)));
    check(Some(&manager()), &metadata, [Ok("demoted"), Ok("demoted"), no_manager]);
}

#[test]
fn half_a_forwarded_identity_is_none() {
    let missing = Err("Permission denied: missing information in forwarded request");
    for key in [FORWARDED_CN, FORWARDED_ORG, FORWARDED_OU] {
        let mut metadata = forwarding(Some(&worker()));
        metadata.remove(key);
        check(Some(&manager()), &metadata, [missing; 3]);
        let mut metadata = forwarding(Some(&worker()));
        metadata.insert(key, "".parse().unwrap());
        check(Some(&manager()), &metadata, [missing; 3]);
    }
    for key in [FORWARDED, FORWARDED_CN, FORWARDED_ORG] {
        let mut twice = forwarding(Some(&worker()));
        twice.append(key, "m1".parse().unwrap());
        check(Some(&manager()), &twice, [missing; 3]);
    }
    let mut no = forwarding(Some(&worker()));
    no.insert(FORWARDED, "false".parse().unwrap());
    check(Some(&manager()), &no, [missing; 3]);
}

#[test]
fn a_former_managers_certificate_is_a_workers() {
    let demoted = subject("demoted", MANAGER_UNIT, CLUSTER);
    let unknown = subject("unknown", MANAGER_UNIT, CLUSTER);
    let none = HeaderMap::new();
    let method = methods::find("/docker.swarmkit.v1.CA/GetUnlockKey").unwrap();
    let text = outcome(method, Some(&demoted), &none, Authority::Store).unwrap_err();
    assert!(text.ends_with("remote certificate not part of OUs: [swarm-manager]"), "{text}");
    let text = outcome(method, Some(&unknown), &none, Authority::Store).unwrap_err();
    assert!(text.ends_with("node unknown was removed from swarm"), "{text}");
    // A follower may not have heard of the promotion yet; the leader decides.
    assert_eq!(outcome(method, Some(&demoted), &none, Authority::Certificate).unwrap(), "demoted");
    assert_eq!(outcome(method, Some(&unknown), &none, Authority::Certificate).unwrap(), "unknown");
    let session = methods::find("/docker.swarmkit.v1.Dispatcher/Session").unwrap();
    assert_eq!(outcome(session, Some(&demoted), &none, Authority::Store).unwrap(), "demoted");
}

#[test]
fn the_callers_address_is_the_forwarded_ones() {
    let (view, cluster_id) = (view(), ClusterId::from(CLUSTER));
    let facts = Facts { cluster_id: &cluster_id, view: &view, authority: Authority::Store };
    let method = methods::find("/docker.swarmkit.v1.Dispatcher/Session").unwrap();
    let direct = facts.authorize(method, Some(&worker()), Some("10.0.0.1".to_owned()), &HeaderMap::new());
    let direct = direct.unwrap().unwrap();
    assert_eq!(
        (direct.address.as_deref(), direct.forwarded_by, direct.role),
        (Some("10.0.0.1"), None, Some(NodeRole::Worker))
    );
    let metadata = forwarding(Some(&worker()));
    let forwarded = facts.authorize(method, Some(&manager()), Some("10.0.0.1".to_owned()), &metadata);
    let forwarded = forwarded.unwrap().unwrap();
    assert_eq!(forwarded.address.as_deref(), Some("10.0.0.9"));
    assert_eq!(forwarded.forwarded_by, Some("m1".into()));
    assert_eq!(host_of("[fe80::1]:2377"), "fe80::1");
}

#[test]
fn a_worker_cannot_point_the_loop_guard_or_its_address_elsewhere() {
    let mut metadata = HeaderMap::new();
    metadata.insert(REMOTE_ADDR, "10.9.9.9:1".parse().unwrap());
    metadata.insert(REDIRECT, "10.9.9.9:1".parse().unwrap());
    check(Some(&manager()), &metadata, [Ok("m1"), Ok("m1"), Ok("m1")]);
    let (view, cluster_id) = (view(), ClusterId::from(CLUSTER));
    let facts = Facts { cluster_id: &cluster_id, view: &view, authority: Authority::Store };
    let method = methods::find("/docker.swarmkit.v1.Dispatcher/Session").unwrap();
    let caller = facts.authorize(method, Some(&worker()), Some("10.0.0.1".to_owned()), &metadata).unwrap().unwrap();
    assert_eq!(caller.address.as_deref(), Some("10.0.0.1"));
}
