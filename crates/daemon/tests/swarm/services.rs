//! What services can have besides replicas and a port.

use std::net::{IpAddr, SocketAddr};

use crate::support::{Daemon, get, host_address, until};

fn swarm() -> Daemon {
    let daemon = Daemon::start(&[]);
    daemon.load_tiny();
    daemon.docker(&daemon.init_words(host_address()));
    daemon
}

#[test]
fn secrets_and_configs_are_mounted_and_gone_afterwards() {
    let daemon = swarm();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hidden").unwrap();
    daemon.docker(&format!("secret create key {}", file.path().display()));
    std::fs::write(file.path(), "shown").unwrap();
    daemon.docker(&format!("config create page {}", file.path().display()));
    daemon
        .docker("service create -d --name one --restart-condition none --secret key tiny-service cat /run/secrets/key");
    daemon.docker("service create -d --name two --restart-condition none --config source=page,target=/page tiny-service cat /page");
    for (service, text) in [("one", "hidden"), ("two", "shown")] {
        until(&format!("the log of {service}"), || {
            daemon.try_docker(&format!("service logs --raw {service}")).out.contains(text).then_some(())
        });
    }
    let refused = daemon.try_docker("secret rm key");
    assert!(
        refused.code != 0 && refused.err.contains("secret 'key' is in use by the following service: one"),
        "{refused:?}"
    );
    daemon.docker("service rm one two");
    daemon.docker("secret rm key");
    daemon.docker("config rm page");
    daemon.docker("swarm leave --force");
}

#[test]
fn an_orderly_stop_of_the_daemon_leaves_tasks_and_ports_alone() {
    let mut daemon = swarm();
    let (address, port) = (host_address(), daemon.port);
    daemon.docker(&format!("service create -d --name web --replicas 2 --publish {port}:9005 tiny-service"));
    daemon.until_replicas("web", "2/2");
    let before = daemon.containers();
    daemon.terminate();
    let at = SocketAddr::new(IpAddr::V4(address), port);
    for _ in 0..20 {
        get(at).expect("the port answers without a daemon");
    }
    daemon.run();
    daemon.until_replicas("web", "2/2");
    assert_eq!(daemon.containers(), before);
    assert_eq!(daemon.docker("service ps -q web").lines().count(), 2, "nothing was replaced");
    daemon.docker("swarm leave --force");
}

#[test]
fn what_cannot_be_placed_says_why() {
    let daemon = swarm();
    daemon.docker("service create -d --name far --constraint node.labels.region==mars tiny-service");
    until("a reason", || {
        let out = daemon.docker("service ps --no-trunc far");
        (out.contains("Pending") && out.contains("scheduling constraints not satisfied on 1 node")).then_some(())
    });
    let node = daemon.docker("node ls -q");
    daemon.docker(&format!("node update --label-add region=mars {}", node.trim()));
    daemon.until_replicas("far", "1/1");
    daemon.docker("service create -d --name none --restart-max-attempts 1 --restart-delay 1ms no-such-image-here");
    until("a rejection", || daemon.docker("service ps --no-trunc none").contains("No such image").then_some(()));
    daemon.docker("swarm leave --force");
}

#[test]
fn ports_in_host_mode_answer_and_updates_roll_back() {
    let daemon = swarm();
    let (address, port) = (host_address(), daemon.port);
    let publish = format!("published={port},target=9005,mode=host");
    daemon.docker(&format!("service create -d --name web --publish {publish} --env A=1 tiny-service"));
    daemon.until_replicas("web", "1/1");
    let at = SocketAddr::new(IpAddr::V4(address), port);
    until("an answer in host mode", || get(at).ok());
    daemon.docker("service update -d --env-add A=2 web");
    let env = || daemon.docker("service inspect web --format {{.Spec.TaskTemplate.ContainerSpec.Env}}");
    assert_eq!(env().trim(), "[A=2]");
    until("the update's end", || {
        let state = daemon.docker("service inspect web --format {{.UpdateStatus.State}}");
        (state.trim() == "completed").then_some(())
    });
    daemon.docker("service rollback -d web");
    assert_eq!(env().trim(), "[A=1]");
    // Between the old task's end and the new one's start the port is free for whoever asks first.
    until("the rollback's end", || {
        let state = daemon.docker("service inspect web --format {{.UpdateStatus.State}}");
        (state.trim() == "rollback_completed").then_some(())
    });
    let taken = daemon.try_docker(&format!("service create -d --name other --publish {publish} tiny-service"));
    assert_eq!(taken.code, 0, "dockerd takes it and leaves it pending: {taken:?}");
    until("a reason", || {
        daemon.docker("service ps --no-trunc other").contains("host-mode port already in use").then_some(())
    });
    daemon.docker("service rm web other");
    daemon.docker("swarm leave --force");
}

#[test]
fn a_published_port_that_is_taken_is_refused() {
    let daemon = swarm();
    let port = daemon.port;
    daemon.docker(&format!("service create -d --name one --publish {port}:9005 tiny-service"));
    let refused = daemon.try_docker(&format!("service create -d --name two --publish {port}:9005 tiny-service"));
    assert_eq!(refused.code, 1);
    let text = format!("port '{port}' is already in use by service 'one'");
    assert!(refused.err.contains(&text), "{refused:?}");
    let refused = daemon.try_docker("service create -d --name one tiny-service");
    assert!(refused.err.contains("name conflicts with an existing object"), "{refused:?}");
    daemon.docker("swarm leave --force");
}

#[test]
fn tasks_and_their_networks_are_shown_as_dockerd_shows_them() {
    let daemon = swarm();
    let port = daemon.port;
    daemon.docker(&format!("service create -d --name web --publish {port}:9005 tiny-service"));
    daemon.docker("service create -d --name quiet tiny-service");
    daemon.until_replicas("web", "1/1");
    daemon.until_replicas("quiet", "1/1");
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(&daemon.docker(line)).unwrap();
    let container = |service: &str| {
        let id = daemon.docker(&format!("ps -q --no-trunc --filter name={service}.1"));
        json(&format!("inspect {}", id.trim()))[0].take()
    };
    let (web, quiet) = (container("web"), container("quiet"));
    let networks = web["NetworkSettings"]["Networks"].as_object().unwrap();
    assert_eq!(networks.keys().collect::<Vec<_>>(), ["ingress"]);
    let address = networks["ingress"]["IPAddress"].as_str().unwrap();
    assert!(address.starts_with("10.0.0."), "{networks:?}");
    assert_eq!(networks["ingress"]["IPAMConfig"]["IPv4Address"], address);
    assert_eq!(web["HostConfig"]["Isolation"], "default");
    assert!(web["HostConfig"]["PortBindings"].as_object().unwrap().is_empty());
    let networks = quiet["NetworkSettings"]["Networks"].as_object().unwrap();
    assert_eq!(networks.keys().collect::<Vec<_>>(), ["bridge"]);
    let ingress = json("network inspect ingress")[0].take();
    let peers = ingress["Peers"].as_array().unwrap();
    assert_eq!((peers.len(), &peers[0]["IP"]), (1, &serde_json::json!(host_address().to_string())));
    let gateway = json("network inspect docker_gwbridge")[0].take();
    let sandbox = web["NetworkSettings"]["SandboxID"].as_str().unwrap();
    let name = &gateway["Containers"][web["Id"].as_str().unwrap()]["Name"];
    assert_eq!(name, &format!("gateway_{}", &sandbox[..12]));
    let service = json("service inspect quiet")[0].take();
    assert_eq!(service["Endpoint"], serde_json::json!({"Spec": {}}));
    assert_eq!(service["Spec"]["TaskTemplate"]["RestartPolicy"].get("Window"), None);
    daemon.docker("service rm web quiet");
    daemon.docker("swarm leave --force");
}
