//! A real dockerd in the same swarm: as a worker below a Skep manager, and as the manager of a Skep worker.

use crate::hosts::{Host, Wire};

const NODES: &str = "node ls --format {{.Hostname}}/{{.Status}}/{{.Availability}}";
const TASKS: &str = "service ps plain --filter desired-state=running --format {{.Node}}/{{.CurrentState}}";

/// Tasks that run on a node, as the manager tells.
fn on(out: &str, node: &str) -> usize {
    out.lines().filter(|line| line.starts_with(&format!("{node}/Running "))).count()
}

fn has(line: &'static str) -> impl Fn(&str) -> bool {
    move |out| out.lines().any(|found| found == line)
}

/// The number of containers that a machine runs, once it is the wanted one.
fn until_running(host: &Host, wanted: usize) {
    host.until("ps -q", |out| out.lines().count() == wanted);
}

#[test]
fn a_dockerd_works_below_a_skep_manager() {
    let mut wire = Wire::bare(3);
    wire.hosts[0].run();
    wire.hosts[1].run();
    wire.hosts[2].run_dockerd();
    for host in &wire.hosts {
        host.load_tiny();
    }
    wire.init();
    wire.join(1, "worker");
    wire.join(2, "worker");
    let [a, b, c] = wire.hosts.as_slice() else { unreachable!("three machines") };
    a.until(NODES, |out| has("b/Ready/Active")(out) && has("c/Ready/Active")(out));
    let version = a.docker("node inspect c --format {{.Description.Engine.EngineVersion}}");
    assert_eq!(version.trim(), c.docker("version --format {{.Server.Version}}").trim());
    a.docker("service create --name plain --replicas 6 tiny-service");
    a.until(TASKS, |out| ["a", "b", "c"].iter().all(|node| on(out, node) == 2));
    until_running(c, 2);
    a.docker("node update --availability drain c");
    a.until(TASKS, |out| on(out, "c") == 0 && on(out, "a") + on(out, "b") == 6);
    until_running(c, 0);
    a.docker("node update --availability active c");
    a.docker("service update --force plain");
    a.until(TASKS, |out| on(out, "c") == 2);
    until_running(c, 2);
    assert_eq!(c.docker("swarm leave").trim(), "Node left the swarm.");
    a.until(NODES, has("c/Down/Active"));
    a.until(TASKS, |out| on(out, "a") + on(out, "b") == 6);
    a.docker("node rm c");
    until_running(b, 3);
}

#[test]
fn a_skep_works_below_a_dockerd_manager() {
    let mut wire = Wire::bare(2);
    wire.hosts[0].run_dockerd();
    wire.hosts[1].run();
    for host in &wire.hosts {
        host.load_tiny();
    }
    wire.init();
    wire.join(1, "worker");
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    a.until(NODES, has("b/Ready/Active"));
    a.docker("service create --name plain --replicas 4 tiny-service");
    a.until(TASKS, |out| on(out, "a") == 2 && on(out, "b") == 2);
    until_running(b, 2);
    a.docker("service create --detach --name talks --mode global --restart-condition none tiny-service echo said");
    a.until("service logs talks", |out| {
        ["@a", "@b"].iter().all(|node| out.lines().any(|line| line.contains(node) && line.ends_with("| said")))
    });
    a.docker("service rm talks");
    let containers = b.docker("ps -q --no-trunc");
    let inspected = a.docker("service ps plain -q --no-trunc --filter node=b --filter desired-state=running");
    for task in inspected.lines() {
        let container = a.docker(&format!("inspect {task} --format {{{{.Status.ContainerStatus.ContainerID}}}}"));
        assert!(containers.lines().any(|line| line == container.trim()), "{container} of {containers}");
    }
    // A container that ends by itself is seen there and replaced.
    let killed = containers.lines().next().expect("a container");
    b.docker(&format!("kill {killed}"));
    a.until(
        "service ps plain --filter desired-state=shutdown --format {{.Node}}/{{.CurrentState}}/{{.Error}}",
        |out| out.lines().any(|line| line.starts_with("b/Failed ") && line.contains("task: non-zero exit (137)")),
    );
    a.until(TASKS, |out| on(out, "a") + on(out, "b") == 4);
    assert_eq!(b.docker("swarm leave").trim(), "Node left the swarm.");
    a.until(NODES, has("b/Down/Active"));
    a.until(TASKS, |out| on(out, "a") == 4);
    assert_eq!(b.running(), 0);
}
