//! The article's first half, word for word.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::registry::Registry;
use crate::support::{Daemon, dummy_image, get, host_address, hostname};

#[test]
fn the_article_with_the_docker_command_line() {
    let registry = Registry::start();
    registry.push(&dummy_image(), "agrrh/dummy-service-py:latest");
    let daemon = Daemon::start(&["--registry-mirror", &registry.mirror()]);
    let (address, port) = (host_address(), daemon.port);

    let out = daemon.docker(&daemon.init_words(address));
    assert!(out.contains("is now a manager") && out.contains("docker swarm join --token SWMTKN-1-"), "{out}");
    daemon.docker(&format!("service create --name dummy --publish {port}:9005 agrrh/dummy-service-py"));
    let listed = daemon.docker("service ls");
    let line = listed.lines().nth(1).expect("a service");
    for word in ["dummy", "replicated", "1/1", "agrrh/dummy-service-py:latest", &format!("*:{port}->9005/tcp")] {
        assert!(line.contains(word), "{word} is missing in {line}");
    }
    let at = SocketAddr::new(IpAddr::V4(address), port);
    let first: serde_json::Value = serde_json::from_str(&get(at).unwrap()).unwrap();
    let second: serde_json::Value = serde_json::from_str(&get(at).unwrap()).unwrap();
    assert_eq!(first["hostname"], second["hostname"]);
    assert_ne!(first["uuid"], second["uuid"]);
    let id = daemon.docker("ps -q");
    assert_eq!(first["hostname"].as_str(), Some(id.trim()), "the host name is the container's id");
    assert!(get(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)).is_ok(), "127.0.0.1 answers, too");

    daemon.docker("service scale dummy=5");
    assert!(daemon.docker("service ls").contains("5/5"));
    let mut answered: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..500 {
        *answered.entry(hostname(&get(at).unwrap())).or_default() += 1;
    }
    assert_eq!(answered.len(), 5, "{answered:?}");
    assert!(answered.values().all(|count| (60..=140).contains(count)), "{answered:?}");

    let shown = daemon.docker("service ps dummy");
    assert_eq!(shown.lines().filter(|line| line.contains("Running")).count(), 5, "{shown}");
    let before = daemon.containers();
    daemon.docker("service update --force dummy");
    let after = daemon.containers();
    assert_eq!(after.len(), 5);
    assert!(before.keys().all(|id| !after.contains_key(id)), "every task is replaced");
    assert_eq!(daemon.docker("ps -q").lines().count(), 5);
    daemon.docker("service rm dummy");
    crate::support::until("no container", || daemon.docker("ps -aq").is_empty().then_some(()));
    assert!(get(at).is_err(), "the port is closed");

    let refused = daemon.try_docker("swarm leave");
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains(
            "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last \
             manager erases all current state of the swarm. Use `--force` to ignore this message."
        ),
        "{}",
        refused.err
    );
    assert_eq!(daemon.docker("swarm leave --force").trim(), "Node left the swarm.");
}

#[test]
fn the_article_with_skeps_own_command_line() {
    let daemon = Daemon::start(&[]);
    daemon.load_tiny();
    let (address, port) = (host_address(), daemon.port);
    daemon.skep(&daemon.init_words(address));
    daemon.skep(&format!("service create --name dummy --publish {port}:9005 tiny-service"));
    assert!(daemon.skep("service ls").contains("1/1"));
    daemon.skep("service scale dummy=3");
    assert!(daemon.skep("service ls").contains("3/3"));
    let at = SocketAddr::new(IpAddr::V4(address), port);
    let names: std::collections::BTreeSet<String> = (0..60).map(|_| hostname(&get(at).unwrap())).collect();
    assert_eq!(names.len(), 3);
    assert!(daemon.skep("service ps dummy").contains("Running"));
    daemon.skep("service update --force dummy");
    assert_eq!(daemon.skep("ps -q").lines().count(), 3);
    assert!(daemon.skep("service logs dummy").contains("listening"));
    daemon.skep("service rm dummy");
    let refused = daemon.try_skep("swarm leave");
    assert!(refused.code != 0 && refused.err.contains("last manager"), "{refused:?}");
    daemon.skep("swarm leave --force");
}
