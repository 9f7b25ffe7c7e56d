//! One overlay network over Skep's nodes and a real dockerd's: tasks find one another and talk both ways.

use crate::hosts::{Host, Wire};
use crate::mesh::{container, lines, run};
use crate::support::{hostname, until};

/// A Skep manager `a`, a worker `b` that is a dockerd, a Skep worker `c`.
fn below_a_skep() -> Wire {
    let mut wire = Wire::bare(3);
    wire.hosts[0].run();
    wire.hosts[1].run_dockerd();
    wire.hosts[2].run();
    started(wire)
}

/// A dockerd manager `a`, a Skep worker `b`, a worker `c` that is a dockerd.
fn below_a_dockerd() -> Wire {
    let mut wire = Wire::bare(3);
    wire.hosts[0].run_dockerd();
    wire.hosts[1].run();
    wire.hosts[2].run_dockerd();
    started(wire)
}

fn started(wire: Wire) -> Wire {
    for host in &wire.hosts {
        host.load_tiny();
    }
    wire.init();
    wire.join(1, "worker");
    wire.join(2, "worker");
    wire
}

/// Tasks of a service without an address of its own, one on each node, find each other by name and answer each other.
fn all_talk_to_all(wire: &Wire) {
    let manager = &wire.hosts[0];
    manager.docker("network create -d overlay mesh");
    manager.docker(
        "service create -d --no-resolve-image --name each --mode global --network mesh --endpoint-mode dnsrr tiny-service",
    );
    manager.until("service ls --filter name=each --format {{.Replicas}}", |out| out == "3/3");
    let containers: Vec<String> = wire.hosts.iter().map(|host| container(host, "each")).collect();
    let mut names: Vec<&str> = containers.iter().map(|container| &container[..12]).collect();
    names.sort_unstable();
    for (host, id) in wire.hosts.iter().zip(&containers) {
        for name in ["each", "tasks.each"] {
            let command = format!("resolve {name}");
            until(&format!("three addresses on {}", host.name), || {
                (lines(host, id, &command).len() == 3).then_some(())
            });
        }
        let mut answered: Vec<String> = until(&format!("an answer of each to {}", host.name), || {
            let addresses = lines(host, id, "resolve each");
            let answers = addresses.iter().map(|address| run(host, id, &format!("get / {address}")));
            let names: Option<Vec<String>> =
                answers.map(|answer| answer.contains("hostname").then(|| hostname(&answer))).collect();
            names.filter(|names| names.len() == 3)
        });
        answered.sort();
        assert_eq!(answered, names, "asked on {}", host.name);
    }
    // What goes is forgotten on both sides.
    let gone = |host: &Host, id: &str, left: usize| {
        until(&format!("{left} left on {}", host.name), || {
            (lines(host, id, "resolve each").len() == left).then_some(())
        });
    };
    manager.docker("service update -d --no-resolve-image --constraint-add node.hostname!=b each");
    for index in [0, 2] {
        gone(&wire.hosts[index], &container(&wire.hosts[index], "each"), 2);
    }
    manager.docker("service rm each");
}

#[test]
fn tasks_on_a_skep_and_on_a_dockerd_below_it_talk_both_ways() {
    let wire = below_a_skep();
    all_talk_to_all(&wire);
    let [a, b, c] = wire.hosts.as_slice() else { unreachable!("three machines") };
    // dockerd's own mesh needs IPVS, which is not needed for its tasks to be reached.
    let place = "--constraint node.hostname==b -p 9005:9005";
    a.docker(&format!("service create -d --no-resolve-image --name web {place} tiny-service"));
    a.until_replicas("web", "1/1");
    let task = container(b, "web");
    for host in [a, c] {
        let answer = until(&format!("an answer by way of {}", host.name), || wire.get(&host.address, 9005).ok());
        assert_eq!(hostname(&answer), task[..12]);
        let peer = wire.get_path(&host.address, 9005, "/peer").expect("an answer");
        assert!(peer.starts_with("10.0.0."), "a dockerd's task sees the node that was asked: {peer}");
    }
}

#[test]
fn tasks_on_a_skep_and_on_dockerds_above_and_beside_it_talk_both_ways() {
    let wire = below_a_dockerd();
    all_talk_to_all(&wire);
    let [a, b, c] = wire.hosts.as_slice() else { unreachable!("three machines") };
    a.docker("service create -d --no-resolve-image --name web --constraint node.hostname==c -p 9005:9005 tiny-service");
    a.until("service ls --filter name=web --format {{.Replicas}}", |out| out == "1/1");
    let task = container(c, "web");
    let answer = until("an answer by way of the Skep", || wire.get(&b.address, 9005).ok());
    assert_eq!(hostname(&answer), task[..12]);
}
