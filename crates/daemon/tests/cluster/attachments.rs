//! Plain containers on networks of the swarm: started there, connected and disconnected, found by name from everywhere, through
//! restarts of the daemon and of the container.

use serde_json::Value;

use crate::hosts::Host;
use crate::mesh::{container, lines, run, swarm};
use crate::support::{hostname, until};

/// A network that plain containers may be on.
const MESH: &str = "network create -d overlay --attachable --subnet 10.90.0.0/24 mesh";

/// What a command that inspects says of the one thing it is about.
fn inspect(host: &Host, line: &str) -> Value {
    let shown: Value = serde_json::from_str(&host.docker(line)).expect("JSON");
    shown[0].clone()
}

/// The name of a container in a network's description.
fn name(container: &Value) -> &str {
    container["Name"].as_str().expect("a name")
}

/// The address of a container on a network.
fn address(host: &Host, container: &str, network: &str) -> String {
    let format = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
    host.docker(&format!("inspect {container} --format {format}")).trim().to_owned()
}

#[test]
fn containers_and_tasks_find_each_other_on_all_nodes() {
    let wire = swarm(2);
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    a.docker(MESH);
    a.docker("service create -d --name web --network mesh --mode global tiny-service");
    a.until_replicas("web", "2/2");
    b.docker("run -d --name one --network mesh --network-alias first tiny-service");
    a.docker("run -d --name two --network mesh --hostname zwei tiny-service");
    let (one, two) = (address(b, "one", "mesh"), address(a, "two", "mesh"));
    let id = b.docker("ps -q --filter name=one").trim().to_owned();
    for (host, from) in [(a, "two"), (a, &container(a, "web")), (b, "one"), (b, &container(b, "web"))] {
        for (name, address) in [("one", &one), ("first", &one), (&id, &one), ("two.mesh", &two), ("zwei", &two)] {
            until("a name", || (lines(host, from, &format!("resolve {name}")) == [address.clone()]).then_some(()));
        }
        assert_eq!(lines(host, from, "resolve tasks.web").len(), 2);
        assert!(run(host, from, "get / one").contains("hostname"), "{} {from}", host.name);
        assert_eq!(hostname(&run(host, from, "get / two")), "zwei");
    }
    // one's own name changes for everybody
    b.docker("rename one uno");
    until("the new name", || (lines(a, "two", "resolve uno") == [one.clone()]).then_some(()));
    until("no old name", || lines(a, "two", "resolve one").is_empty().then_some(()));
    let shown = inspect(b, "network inspect mesh");
    assert_eq!((&shown["Attachable"], &shown["IPAM"]["Config"][0]["Subnet"]), (&true.into(), &"10.90.0.0/24".into()));
    let on_it: Vec<&str> = shown["Containers"].as_object().expect("containers").values().map(name).collect();
    assert!(on_it.len() == 3 && on_it.contains(&"uno"), "the task, the container, the balancer: {on_it:?}");
    assert_eq!(shown["Peers"].as_array().expect("peers").len(), 2);
    b.docker("rm -f uno");
    until("no name", || lines(a, "two", "resolve uno").is_empty().then_some(()));
    a.docker("service rm web");
    a.docker("rm -f two");
    for host in [a, b] {
        host.until("ps -aq", str::is_empty);
    }
    a.until("network rm mesh", |_| true);
    b.until("network ls -q --filter name=mesh", str::is_empty);
}
