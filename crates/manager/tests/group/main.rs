//! Groups of managers over loopback TCP: joining, forwarding, loss of the leader, roles.

mod attacks;
mod control;
mod harness;

use harness::{LONG, Member, Peer, leader, until};
use manager::Timing;
use model::{NodeRole, NodeState};
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::ca_client::CaClient;

const OURS: &str = "28.5.2+skep.test";

#[tokio::test(flavor = "multi_thread")]
async fn three_managers_take_workers_through_followers_and_outlive_their_leader() {
    let a = Peer::found().await;
    drop(a.member.session(&a.addr, OURS).await.unwrap());
    let b = Peer::join(&a, OURS).await;
    // Through a follower: Join, too, is the leader's.
    let c = Peer::join(&b, OURS).await;
    for peer in [&a, &b, &c] {
        until("all members on every manager", async || {
            (peer.manager.status().borrow().members.len() == 3).then_some(())
        })
        .await;
    }

    // A worker joins through a follower and opens its session there; the leader sees the worker's own address.
    let worker = Member::join(&c.addr, &a.tokens().0).await;
    assert_eq!(worker.role(), NodeRole::Worker);
    let mut session = worker.session(&b.addr, OURS).await.unwrap();
    let message = session.message().await.unwrap().unwrap();
    assert_eq!(message.node.unwrap().id, worker.node_id.as_str());
    for peer in [&a, &b, &c] {
        let node = until("the worker on every manager", async || {
            peer.node(&worker.node_id).filter(|node| node.status.state == NodeState::Ready)
        })
        .await;
        assert_eq!((node.status.addr.as_str(), node.role), ("127.0.0.1", NodeRole::Worker));
    }

    let all = [&a, &b, &c];
    timing_is(&all, Timing::Fast).await;
    let dead = leader(&all).await;
    let left: Vec<_> = all.into_iter().filter(|peer| peer.addr != dead.addr).collect();
    dead.kill().await;
    let killed = std::time::Instant::now();
    let next = leader(&left).await;
    // A bench says how much faster it is; this says that it is not SwarmKit's timing.
    assert!(killed.elapsed() < std::time::Duration::from_secs(10), "{:?}", killed.elapsed());
    eprintln!("another leader after {:?}", killed.elapsed());
    let follower = if next.addr == left[0].addr { left[1] } else { left[0] };
    // The follower's way to the old leader is broken; the call finds the new one.
    let second = Member::join(&follower.addr, &b.tokens().0).await;
    until("the second worker", async || follower.node(&second.node_id)).await;
    follower.kill().await;
    next.kill().await;
}

/// Waits until every manager keeps this timing.
async fn timing_is(peers: &[&Peer], timing: Timing) {
    for peer in peers {
        until("the timing", async || (*peer.manager.timing().borrow() == timing).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timing_is_swarmkits_before_a_stranger_joins() {
    let a = Peer::found().await;
    drop(a.member.session(&a.addr, OURS).await.unwrap());
    let b = Peer::join(&a, OURS).await;
    timing_is(&[&a, &b], Timing::Fast).await;
    // Its certificate alone is enough: nobody knows yet what it runs.
    let stranger = Member::join(&a.addr, &a.tokens().1).await;
    timing_is(&[&a, &b], Timing::SwarmKit).await;
    let c = Peer::join_group(stranger, &b.addr).await;
    drop(c.member.session(&b.addr, OURS).await.unwrap());
    timing_is(&[&a, &b, &c], Timing::Fast).await;
    drop(c.member.session(&b.addr, "28.5.2").await.unwrap());
    timing_is(&[&a, &b, &c], Timing::SwarmKit).await;
    for peer in [&a, &b, &c] {
        peer.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_manager_leaves_the_group_before_it_is_a_worker() {
    let a = Peer::found().await;
    drop(a.member.session(&a.addr, OURS).await.unwrap());
    let b = Peer::join(&a, OURS).await;
    let c = Peer::join(&a, OURS).await;
    // One that never heard of the group could not hear of its removal; its certificate would tell it.
    until("the group's state on the newest manager", async || c.node(&c.member.node_id)).await;
    leader(&[&a, &b, &c]).await.set_role(&c.member.node_id, NodeRole::Worker).await;
    tokio::time::timeout(LONG, c.manager.removed()).await.expect("it is told that it was removed");
    let worker = until("the new role", async || a.node(&c.member.node_id).filter(|node| node.role == NodeRole::Worker));
    worker.await;
    assert_eq!(a.manager.status().borrow().members.len(), 2);
    // Its certificate is a manager's for months; the leader asks the store.
    c.member.renew(&b.addr).await;
    assert_eq!(c.member.role(), NodeRole::Worker);
    c.kill().await;

    b.kill().await;
    a.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_demoted_hands_over_and_is_removed_by_its_successor() {
    let a = Peer::found().await;
    drop(a.member.session(&a.addr, OURS).await.unwrap());
    let b = Peer::join(&a, OURS).await;
    let c = Peer::join(&a, OURS).await;
    let all = [&a, &b, &c];
    let former = leader(&all).await;
    former.set_role(&former.member.node_id, NodeRole::Worker).await;
    tokio::time::timeout(LONG, former.manager.removed()).await.expect("it is removed");
    let left: Vec<_> = all.into_iter().filter(|peer| peer.addr != former.addr).collect();
    let next = leader(&left).await;
    until("the former leader's role", async || {
        next.node(&former.member.node_id).filter(|node| node.role == NodeRole::Worker)
    })
    .await;
    assert_eq!(next.manager.status().borrow().members.len(), 2);
    for peer in [&a, &b, &c] {
        peer.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_calls_fail_with_dockerds_text_and_later_ones_at_once() {
    let a = Peer::found().await;
    drop(a.member.session(&a.addr, OURS).await.unwrap());
    let b = Peer::join(&a, OURS).await;
    until("the leader, as the follower knows it", async || {
        let status = b.manager.status();
        let leader = status.borrow().leader;
        (leader != 0).then_some(())
    })
    .await;
    a.kill().await;
    until("the loss of the leader", async || (b.manager.status().borrow().leader == 0).then_some(())).await;
    let ask = async || {
        let channel = b.member.channel(&b.addr).await;
        let mut client = CaClient::new(channel);
        client.get_root_ca_certificate(p::GetRootCaCertificateRequest {}).await.unwrap_err()
    };
    let text = "The swarm does not have a leader. It's possible that too few managers are online. \
                Make sure more than half of the managers are online.";
    let first = tokio::time::timeout(LONG, ask()).await.unwrap();
    assert_eq!((first.code(), first.message()), (tonic::Code::Unknown, text));
    let asked = std::time::Instant::now();
    assert_eq!(ask().await.message(), text);
    assert!(asked.elapsed() < std::time::Duration::from_secs(5), "{:?}", asked.elapsed());
    b.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_replaced_while_nodes_renew() {
    let a = Peer::found().await;
    let worker = Member::join(&a.addr, &a.tokens().0).await;
    let nodes = [&a.member, &worker];
    for node in nodes {
        drop(node.session(&a.addr, OURS).await.unwrap());
    }
    let cluster = a.manager.shared().view().the_cluster().unwrap().clone();
    let mut spec = cluster.spec.clone();
    spec.ca_config.force_rotate += 1;
    let control = a.manager.control();
    control.update_cluster(cluster.meta.version, spec, manager::KeyRotation::default()).await.unwrap();
    for node in nodes {
        until("the order to renew", async || {
            let state = a.node(&node.node_id).unwrap().certificate.status.state;
            (state == model::IssuanceState::Rotate).then_some(())
        })
        .await;
        node.renew(&a.addr).await;
        // Both roots' followers trust the new certificate.
        drop(node.session(&a.addr, OURS).await.unwrap());
    }
    let after = until("the new root", async || {
        let cluster = a.manager.shared().view().the_cluster().unwrap().clone();
        cluster.root_ca.root_rotation.is_none().then_some(cluster)
    })
    .await;
    assert_ne!(after.root_ca.ca_cert, cluster.root_ca.ca_cert);
    let roots = identity::RootBundle::parse(&after.root_ca.ca_cert).unwrap();
    for node in nodes {
        node.credentials.set_roots(roots.clone(), identity::system_now()).expect("its chain leads to the new root");
    }
    // The new tokens lead a new node to the new root.
    let third = Member::join(&a.addr, &a.tokens().0).await;
    assert_eq!(third.role(), NodeRole::Worker);
    assert_ne!(after.root_ca.join_tokens, cluster.root_ca.join_tokens);
    a.kill().await;
}
