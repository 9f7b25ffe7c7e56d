//! Groups of managers over loopback TCP: joining, forwarding, loss of the leader, roles.

mod harness;

use harness::{LONG, Member, Peer, leader, until};
use model::{NodeRole, NodeState};

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

    let dead = leader(&[&a, &b, &c]).await;
    assert_eq!(dead.addr, a.addr, "nothing happened that could have cost it its leadership");
    dead.kill().await;
    let next = leader(&[&b, &c]).await;
    let follower = if next.addr == b.addr { &c } else { &b };
    // The follower's way to the old leader is broken; the call finds the new one.
    let second = Member::join(&follower.addr, &b.tokens().0).await;
    until("the second worker", async || follower.node(&second.node_id)).await;
    follower.kill().await;
    next.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_manager_leaves_the_group_before_it_is_a_worker() {
    let a = Peer::found().await;
    drop(a.member.session(&a.addr, OURS).await.unwrap());
    let b = Peer::join(&a, OURS).await;
    let c = Peer::join(&a, OURS).await;
    a.set_role(&c.member.node_id, NodeRole::Worker).await;
    tokio::time::timeout(LONG, c.manager.removed()).await.expect("it is told that it was removed");
    let worker = until("the new role", async || a.node(&c.member.node_id).filter(|node| node.role == NodeRole::Worker));
    worker.await;
    assert_eq!(a.manager.status().borrow().members.len(), 2);
    // Its certificate is a manager's for months; the leader asks the store.
    c.member.renew(&b.addr).await;
    assert_eq!(c.member.role(), NodeRole::Worker);
    c.kill().await;

    // The leader itself: another one leads first, and removes it.
    until("b in the group for good", async || (b.manager.status().borrow().leader == 1).then_some(())).await;
    b.kill().await;
    a.kill().await;
}
