//! What `--metrics-addr` tells of a swarm of one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::{Daemon, host_address, until};

/// Where the daemon says that it serves them.
fn address(daemon: &Daemon) -> SocketAddr {
    let log = daemon.log();
    let line = log.lines().find_map(|line| line.split_once("metrics API listening on ")).expect("a line of the log");
    line.1.trim().parse().expect("an address")
}

/// Values by metric with its labels. Each line of the text must be a comment or a metric and its value.
fn read(at: SocketAddr) -> BTreeMap<String, f64> {
    let mut stream = TcpStream::connect(at).expect("the port is open");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let lines = body.lines().filter(|line| !line.starts_with("# "));
    let value = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(value).collect()
}

#[test]
fn counts_are_right_before_and_after_a_service_of_three() {
    let daemon = Daemon::start(&["--metrics-addr", "127.0.0.1:0"]);
    assert!(!daemon.log().contains("has no effect"), "{}", daemon.log());
    let at = address(&daemon);
    let zeros = [
        "swarm_node_manager",
        "swarm_manager_leader",
        "swarm_manager_services_total",
        "swarm_manager_nodes{state=\"ready\"}",
        "engine_daemon_container_states_containers{state=\"running\"}",
        "skep_node_state{state=\"active\"}",
    ];
    let before = read(at);
    for name in zeros {
        assert_eq!(before.get(name), Some(&0.0), "{name} in {before:?}");
    }
    assert!(!before.keys().any(|name| name.starts_with("swarm_node_info")), "{before:?}");
    daemon.load_tiny();
    daemon.docker(&daemon.init_words(host_address()));
    daemon.docker("service create -d --name web --replicas 3 tiny-service");
    daemon.until_replicas("web", "3/3");
    let ids = daemon.docker("info --format {{.Swarm.NodeID}},{{.Swarm.Cluster.ID}},{{.ID}},{{.ServerVersion}}");
    let [node, cluster, engine, version] = ids.trim().split(',').collect::<Vec<_>>()[..] else { panic!("{ids}") };
    let expected = [
        ("swarm_node_manager", 1.0),
        (&format!("swarm_node_info{{node_id=\"{node}\",swarm_id=\"{cluster}\"}}"), 1.0),
        ("swarm_manager_leader", 1.0),
        ("swarm_manager_services_total", 1.0),
        ("swarm_manager_networks_total", 3.0),
        ("swarm_manager_secrets_total", 0.0),
        ("swarm_manager_nodes{state=\"ready\"}", 1.0),
        ("swarm_manager_tasks_total{state=\"running\"}", 3.0),
        ("swarm_manager_tasks_total{state=\"new\"}", 0.0),
        ("engine_daemon_container_states_containers{state=\"running\"}", 3.0),
        ("skep_node_state{state=\"active\"}", 1.0),
        ("skep_node_session", 1.0),
        ("skep_raft_members", 1.0),
        ("skep_gossip_peers", 0.0),
        ("skep_gossip_divergences_total", 0.0),
    ];
    let mut last = BTreeMap::new();
    // One after the other, so that one that never comes is named.
    for (name, value) in expected {
        until(&format!("{name} {value}"), || {
            last = read(at);
            (last.get(name) == Some(&value)).then_some(())
        });
    }
    let info = last.keys().find(|name| name.starts_with("engine_daemon_engine_info{")).expect("an engine");
    for label in [format!("daemon_id=\"{engine}\""), format!("version=\"{version}\""), "os_type=\"linux\"".to_owned()] {
        assert!(info.contains(&label), "{label} in {info}");
    }
    // Images, networks and containers have told of themselves.
    assert!(last["engine_daemon_events_total"] > before["engine_daemon_events_total"] + 3.0, "{last:?}");
    assert!(last["process_resident_memory_bytes"] > 1e6 && last["skep_conntrack_max_entries{place=\"host\"}"] > 0.0);
    daemon.docker("service rm web");
    until("the end of the service", || {
        let now = read(at);
        (now["swarm_manager_services_total"] == 0.0
            && now["engine_daemon_container_states_containers{state=\"running\"}"] == 0.0)
            .then_some(())
    });
    daemon.docker("swarm leave --force");
    let after = read(at);
    assert!(!after.keys().any(|name| name.starts_with("swarm_node_info")), "{after:?}");
    assert_eq!(after["swarm_node_manager"], 0.0);
}
