//! The article's second half: a second machine joins, takes its share, leaves.

use crate::hosts::Wire;
use crate::support::until;

fn states(node_ls: &str) -> Vec<String> {
    let mut rows: Vec<String> = node_ls.lines().map(str::to_owned).collect();
    rows.sort();
    rows
}

const NODES: &str =
    "node ls --format {{.Hostname}}/{{.Status}}/{{.Availability}}/{{.ManagerStatus}}/{{.EngineVersion}}";

#[test]
fn a_second_machine_joins_takes_its_share_and_leaves() {
    let wire = Wire::start(2);
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    for host in [a, b] {
        host.load_tiny();
    }
    wire.init();
    a.docker("service create --name dummy --replicas 5 --publish 9005:9005 tiny-service");
    a.until_replicas("dummy", "5/5");
    wire.join(1, "worker");
    let version = a.docker("version --format {{.Server.Version}}");
    let version = version.trim();
    let expected = vec![format!("a/Ready/Active/Leader/{version}"), format!("b/Ready/Active//{version}")];
    a.until(NODES, |out| states(out) == expected);
    assert_eq!(b.running(), 0, "who joins gets nothing by itself");
    for (host, other) in [(a, b), (b, a)] {
        let line = format!("address={}:7946", other.address);
        until("gossip with the other", || {
            host.log().lines().any(|it| it.contains("a node gossips") && it.contains(&line)).then_some(())
        });
    }
    a.docker("service update --force --detach=false dummy");
    let (on_a, on_b) = (a.running(), b.running());
    assert!(matches!((on_a, on_b), (2, 3) | (3, 2)), "{on_a} and {on_b}");
    let nodes = a.docker("service ps dummy --filter desired-state=running --format {{.Node}}");
    let on = |node: &str| nodes.lines().filter(|line| *line == node).count();
    assert_eq!((on("a"), on("b")), (on_a, on_b));
    for host in [a, b] {
        assert!(wire.get(&host.address, 9005).is_ok(), "each node answers for the tasks on it");
    }
    let refused = b.try_docker("node ls");
    assert_eq!(refused.code, 1);
    assert!(
        refused
            .err
            .contains("This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state."),
        "{refused:?}"
    );
    assert_eq!(b.docker("swarm leave").trim(), "Node left the swarm.");
    a.until(NODES, |out| states(out)[1].starts_with("b/Down/Active/"));
    assert_eq!(b.running(), 0, "it stopped its tasks before it left");
    until("the end of its gossip", || a.log().contains("a node does not gossip any more").then_some(()));
    a.until("ps -q", |out| out.lines().count() == 5);
    a.until_replicas("dummy", "5/5");
    a.docker("node rm b");
    assert_eq!(a.docker("node ls -q").lines().count(), 1);
    assert_eq!(b.docker("info --format {{.Swarm.LocalNodeState}}").trim(), "inactive");
}
