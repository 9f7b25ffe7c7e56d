//! The control API of a manager that follows, on real managers over mTLS.

use std::sync::Arc;

use manager::{RemoveKind, UpdateKind};
use model::{ContainerSpec, NodeRole, NodeSpec, ObjectVersion, ServiceSpec, TaskRuntime, TaskSpec};
use tonic::Code;

use crate::harness::{Member, Peer, leader, until};

fn service_spec(name: &str) -> ServiceSpec {
    let container = ContainerSpec { image: "busybox".into(), ..Default::default() };
    let task = Arc::new(TaskSpec { runtime: Some(TaskRuntime::Container(container)), ..Default::default() });
    let mut spec = ServiceSpec { task, ..Default::default() };
    spec.annotations.name = name.to_owned();
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_follower_write_on_the_leader_and_read_it_at_once() {
    let a = Peer::found().await;
    let b = Peer::join(&a, "28.5.2+skep.test").await;
    let worker = Member::join(&a.addr, &a.tokens().0).await;
    until("the worker on the follower", async || b.node(&worker.node_id)).await;
    let leading = leader(&[&a, &b]).await;
    let follower = if leading.addr == a.addr { &b } else { &a };
    let control = follower.manager.control();

    let service = control.create_service(service_spec("web")).await.unwrap();
    let here = follower.manager.shared().view();
    assert!(here.service(&service.id).is_some(), "what was written can be read");
    let again = control.create_service(service_spec("web")).await.unwrap_err();
    assert_eq!(again.code, Code::AlreadyExists);
    assert_eq!(again.desc, "name conflicts with an existing object: service web already exists");
    let stale = control.update_service(&service.id, ObjectVersion(1), service_spec("web"), UpdateKind::Replace);
    assert_eq!(stale.await.unwrap_err().desc, "update out of sequence");

    let refused = control.remove_node(&leading.member.node_id, RemoveKind::Force).await.unwrap_err();
    assert!(refused.desc.contains("It must be demoted to worker before removal"), "{refused}");
    let node = follower.node(&worker.node_id).unwrap();
    let promoted = NodeSpec { desired_role: NodeRole::Manager, ..node.spec.clone() };
    control.update_node(&node.id, node.meta.version, promoted).await.unwrap();
    assert_eq!(follower.node(&worker.node_id).unwrap().spec.desired_role, NodeRole::Manager);
    control.remove_service(&service.id).await.unwrap();
    assert!(follower.manager.shared().view().service(&service.id).is_none());
    for peer in [&a, &b] {
        peer.kill().await;
    }
}
