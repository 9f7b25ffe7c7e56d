//! The swarm's network: any node answers for tasks on others, and tasks find each other by name.

use crate::hosts::{Host, Wire};
use crate::support::{hostname, until};

/// The swarm of so many machines, each with the tiny image.
pub fn swarm(count: usize) -> Wire {
    let wire = Wire::start(count);
    for host in &wire.hosts {
        host.load_tiny();
    }
    wire.init();
    for joiner in 1..count {
        wire.join(joiner, "worker");
    }
    wire
}

/// The one container of a service on a machine.
pub fn container(host: &Host, service: &str) -> String {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    until("a container", || {
        let ids = host.docker(&format!("ps -q --no-trunc --filter {filter}"));
        ids.lines().next().map(str::to_owned)
    })
}

/// What a command in a container prints.
pub fn run(host: &Host, container: &str, command: &str) -> String {
    host.try_docker(&format!("exec {container} /tiny-service {command}")).out
}

/// The same by line, sorted.
pub fn lines(host: &Host, container: &str, command: &str) -> Vec<String> {
    let mut lines: Vec<String> = run(host, container, command).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn any_node_answers_from_tasks_on_others_and_tasks_see_the_client() {
    let wire = swarm(3);
    let a = &wire.hosts[0];
    a.docker("service create -d --name web --replicas 2 --constraint node.hostname==b -p 9005:9005 tiny-service");
    a.until_replicas("web", "2/2");
    for host in &wire.hosts {
        let mut names: Vec<String> = until("an answer of each task", || {
            let answers: Option<Vec<_>> = (0..4).map(|_| wire.get(&host.address, 9005).ok()).collect();
            let mut names: Vec<String> = answers?.iter().map(|body| hostname(body)).collect();
            names.sort();
            names.dedup();
            (names.len() == 2).then_some(names)
        });
        names.truncate(2);
        let running = wire.hosts[1].docker("ps -q");
        assert!(names.iter().all(|name| running.contains(&name[..12])), "{names:?} {running}");
    }
    for host in &wire.hosts {
        let peer = wire.get_path(&host.address, 9005, "/peer").expect("an answer");
        assert_eq!(peer.trim(), "10.77.0.254", "asked {}", host.name);
    }
    // The tables follow: another task, and none.
    a.docker("service scale -d web=1");
    a.until("service ps web --filter desired-state=running -q", |out| out.lines().count() == 1);
    wire.hosts[1].until("ps -q", |out| out.lines().count() == 1);
    let last = container(&wire.hosts[1], "web");
    for host in &wire.hosts {
        for _ in 0..4 {
            assert_eq!(hostname(&wire.get(&host.address, 9005).expect("an answer")), last[..12]);
        }
    }
    a.docker("service rm web");
    for host in &wire.hosts {
        until("a closed port", || wire.get(&host.address, 9005).is_err().then_some(()));
    }
}

#[test]
fn tasks_on_one_network_find_each_other_on_all_nodes() {
    let wire = swarm(2);
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    a.docker("network create -d overlay --subnet 10.90.0.0/24 mesh");
    a.docker("service create -d --name web --network mesh --mode global tiny-service");
    a.docker("service create -d --name each --network mesh --mode global --endpoint-mode dnsrr tiny-service");
    for service in ["web", "each"] {
        a.until_replicas(service, "2/2");
    }
    // [{network address/24}]
    let virtual_ips = a.docker("service inspect web --format {{.Endpoint.VirtualIPs}}");
    let virtual_ip = virtual_ips.trim().trim_end_matches("/24}]").split(' ').next_back().expect("one").to_owned();
    let mut expected = [a, b].map(|host| container(host, "web")[..12].to_owned());
    expected.sort();
    for host in [a, b] {
        let id = container(host, "each");
        until("both tasks' names", || (lines(host, &id, "resolve tasks.web").len() == 2).then_some(()));
        assert_eq!(lines(host, &id, "resolve web"), std::slice::from_ref(&virtual_ip));
        assert_eq!(lines(host, &id, "resolve web.mesh"), std::slice::from_ref(&virtual_ip));
        until("both tasks by one name", || (lines(host, &id, "resolve each").len() == 2).then_some(()));
        for address in lines(host, &id, "resolve tasks.web") {
            assert!(run(host, &id, &format!("get / {address}")).contains("hostname"), "{address}");
        }
        let mut seen: Vec<String> = (0..4).map(|_| hostname(&run(host, &id, "get / web"))).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, expected, "asked on {}", host.name);
    }
    let in_use = a.try_docker("network rm mesh");
    assert!(in_use.code == 1 && in_use.err.contains("is in use by service"), "{in_use:?}");
    a.docker("service rm web each");
    for host in [a, b] {
        host.until("ps -aq", str::is_empty);
    }
    a.until("network rm mesh", |_| true);
    b.until("network ls -q --filter name=mesh", str::is_empty);
}
