//! A joined empty machine gets its share by itself where the service asks for it, and no request fails meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::hosts::Wire;

#[test]
fn a_joined_machine_gets_its_share_by_itself() {
    let wire = Wire::start(2);
    for host in &wire.hosts {
        host.load_tiny();
    }
    wire.init();
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    a.docker("service create --name dummy --replicas 6 --label skep.rebalance=auto --publish 9005:9005 tiny-service");
    a.until_replicas("dummy", "6/6");
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                wire.get(&a.address, 9005).expect("no request fails");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        wire.join(1, "worker");
        let placed = "service ps dummy --filter desired-state=running --format {{.Node}}/{{.CurrentState}}";
        let on =
            |out: &str, node: &str| out.lines().filter(|line| line.starts_with(&format!("{node}/Running"))).count();
        let even = |out: &str| out.lines().count() == 6 && on(out, "a") == 3 && on(out, "b") == 3;
        // A request that failed ends the wait as well.
        a.until(placed, |out| even(out) || client.is_finished());
        stop.store(true, Ordering::Relaxed);
        client.join().expect("the client");
    });
    assert!(asked.into_inner() > 0);
    for host in [a, b] {
        host.until("ps -q", |out| out.lines().count() == 3);
    }
    let told = a.docker("service ps dummy --no-trunc --format {{.CurrentState}}/{{.Error}}");
    assert!(told.contains("rebalance"), "the reason is told: {told}");
    // `--until` ends with the last whole second.
    a.until("events --since 10m --until 0s --filter type=service --format {{.Actor.Attributes}}", |events| {
        let with = |text: &str| events.lines().filter(|line| line.contains(text)).count();
        let ended = with("skep.rebalance:rebalanced: moved to node b ");
        (with("skep.rebalance:moves slot "), ended) == (3, 3)
    });
}
