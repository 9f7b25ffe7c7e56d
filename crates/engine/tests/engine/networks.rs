//! Networks of a container: what is kept of them, changes while it rests and while it runs, what is refused.

use docker_types::container::{EndpointIpamConfig, EndpointSettings, Inspect, NetworkingConfig};
use engine::{DisconnectMode, EngineError, ErrorKind};

use crate::support::{World, shell, with_host};

fn networks(inspect: &Inspect) -> Vec<&str> {
    inspect.network_settings.networks.iter().flatten().map(|(name, _)| name.as_str()).collect()
}

fn settings(address: &str, alias: &str) -> EndpointSettings {
    let wanted = EndpointIpamConfig { ipv4_address: address.into(), ..EndpointIpamConfig::default() };
    EndpointSettings {
        ipam_config: Some(wanted).filter(|_| !address.is_empty()),
        aliases: Some(vec![alias.into()]).filter(|_| !alias.is_empty()),
        ..EndpointSettings::default()
    }
}

fn refused(result: Result<(), EngineError>, kind: ErrorKind, text: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains(text)), (kind, true), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_changes_networks_while_it_runs() {
    let world = World::new().await;
    let engine = &world.engine;
    let id = world.create("web", shell("trap exit TERM; sleep 1000 & wait")).await;
    engine.start(&id).await.unwrap();
    let hosts = world.container_directory(&id).join("hosts");
    std::fs::write(&hosts, format!("{}192.0.2.9\tmine\n", std::fs::read_to_string(&hosts).unwrap())).unwrap();
    let mut events = engine.subscribe(None, None);
    engine.connect(&id, "own", settings("172.17.0.9", "www")).await.unwrap();
    let inspect = world.inspect(&id).await;
    assert_eq!(networks(&inspect), ["bridge", "own"]);
    let own = &inspect.network_settings.networks.as_ref().unwrap()["own"];
    assert_eq!((own.ip_address.as_str(), own.network_id.as_str()), ("172.17.0.9", "o".repeat(64).as_str()));
    assert_eq!(own.dns_names.as_deref().unwrap(), ["web", "www", &id[..12]]);
    let event = events.next().await.unwrap();
    let about = ["container", "name", "type"].map(|key| event.actor.attributes[key].as_str());
    assert_eq!(
        (event.kind.as_str(), event.action.as_str(), about),
        ("network", "connect", [id.as_str(), "own", "bridge"])
    );
    let text = std::fs::read_to_string(&hosts).unwrap();
    assert!(text.contains("192.0.2.9\tmine\n") && text.contains("172.17.0.9\t"), "{text}");
    let resolv_conf = std::fs::read_to_string(world.container_directory(&id).join("resolv.conf")).unwrap();
    assert_eq!(resolv_conf, "nameserver 127.0.0.11\n");
    refused(engine.connect(&id, "own", settings("", "")).await, ErrorKind::Forbidden, "endpoint with name web already");
    engine.connect(&id, "mesh", settings("", "")).await.unwrap();
    let mesh = world.inspect(&id).await.network_settings.networks.unwrap()["mesh"].clone();
    assert_eq!(mesh.ipam_config.unwrap().ipv4_address, "172.17.0.2", "as the swarm gave it");
    refused(
        engine.connect(&id, "mesh", settings("", "")).await,
        ErrorKind::Conflict,
        "web is already attached to network mesh",
    );
    engine.rename(&id, "shop").await.unwrap();
    let own = world.inspect(&id).await.network_settings.networks.unwrap()["own"].clone();
    assert_eq!(own.dns_names.unwrap()[0], "shop");
    for network in ["bridge", "mesh"] {
        engine.disconnect(&id, network, DisconnectMode::Safe).await.unwrap();
    }
    refused(
        engine.disconnect(&id, "mesh", DisconnectMode::Safe).await,
        ErrorKind::Internal,
        "is not connected to network mesh",
    );
    refused(engine.disconnect(&id, "nope", DisconnectMode::Safe).await, ErrorKind::NotFound, "network nope not found");
    for (network, text) in [("mesh", "endpoint gone not found"), ("nope", "network nope not found")] {
        refused(engine.disconnect("gone", network, DisconnectMode::Force).await, ErrorKind::NotFound, text);
    }
    assert_eq!(networks(&world.inspect(&id).await), ["own"]);
    assert!(!std::fs::read_to_string(&hosts).unwrap().contains("172.17.0.2\t"));
    // what it was on counts at the next start
    engine.restart(&id, Default::default()).await.unwrap();
    let inspect = world.inspect(&id).await;
    assert_eq!(networks(&inspect), ["own"]);
    assert_eq!(inspect.network_settings.networks.unwrap()["own"].ip_address, "172.17.0.9");
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_rests_changes_networks() {
    let world = World::new().await;
    let engine = &world.engine;
    let id = world.create("web", shell("sleep 1000")).await;
    engine.connect(&id, "own", settings("172.17.0.9", "")).await.unwrap();
    engine.connect(&id, "unknown", settings("", "")).await.unwrap();
    assert_eq!(networks(&world.inspect(&id).await), ["bridge", "own", "unknown"]);
    refused(engine.start(&id).await, ErrorKind::NotFound, "container networking: network unknown not found");
    for network in ["unknown", "bridge"] {
        engine.disconnect(&id, network, DisconnectMode::Safe).await.unwrap();
    }
    refused(
        engine.disconnect(&id, "bridge", DisconnectMode::Safe).await,
        ErrorKind::Internal,
        "is not connected to the network bridge",
    );
    engine.start(&id).await.unwrap();
    assert_eq!(networks(&world.inspect(&id).await), ["own"]);
    let mut options = engine::ListOptions { all: true, ..Default::default() };
    for (filter, found) in [("own", 1), ("ooo", 1), ("bridge", 0)] {
        options.filters = Default::default();
        options.filters.insert("network", filter);
        assert_eq!(engine.list(options.clone()).await.unwrap().len(), found, "{filter}");
    }
    engine.kill(&id, None).await.unwrap();
    world.wait(&id).await;
    // without any it is on none, not on the default one
    engine.disconnect(&id, "own", DisconnectMode::Safe).await.unwrap();
    engine.start(&id).await.unwrap();
    assert!(networks(&world.inspect(&id).await).is_empty());
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_together_is_refused() {
    let world = World::new().await;
    let engine = &world.engine;
    let in_mode = async |name: &str, mode: &str| {
        world.create(name, with_host(shell("sleep 1000"), |host| host.network_mode = mode.into())).await
    };
    let (plain, host, none) =
        (in_mode("plain", "").await, in_mode("hosted", "host").await, in_mode("alone", "none").await);
    let sharing = in_mode("sharing", &format!("container:{plain}")).await;
    let connect = async |id: &str, network: &str| engine.connect(id, network, settings("", "")).await;
    let invalid = ErrorKind::InvalidParameter;
    refused(connect(&plain, "host").await, invalid, "container must be created in host network mode");
    refused(connect(&plain, "none").await, invalid, "one of the networks in private (none) mode");
    refused(connect(&none, "bridge").await, invalid, "one of the networks in private (none) mode");
    refused(connect(&host, "bridge").await, invalid, "container sharing network namespace");
    refused(connect(&sharing, "bridge").await, invalid, "container sharing network namespace");
    refused(
        engine.connect(&plain, "bridge", settings("172.17.0.9", "")).await,
        invalid,
        "user specified IP address is supported on user defined networks only",
    );
    refused(
        engine.connect(&plain, "own", settings("10.9.0.1", "")).await,
        invalid,
        "no configured subnet or ip-range contain the IP address 10.9.0.1",
    );
    engine.start(&host).await.unwrap();
    refused(
        engine.disconnect(&host, "host", DisconnectMode::Safe).await,
        invalid,
        "container was created in host network mode",
    );
    // dockerd's way out of "none"
    engine.disconnect(&none, "none", DisconnectMode::Safe).await.unwrap();
    connect(&none, "bridge").await.unwrap();
    engine.start(&none).await.unwrap();
    assert_eq!(networks(&world.inspect(&none).await), ["bridge"]);
    let bad = NetworkingConfig { endpoints_config: Some([("bridge".into(), Some(settings("", "x")))].into()) };
    let mut request = shell("true");
    request.networking_config = Some(bad);
    let error = engine.create(None, request, Default::default()).await.unwrap_err().to_string();
    let text = "network-scoped alias is supported only for containers in user defined networks";
    assert_eq!(error, format!("invalid config for network bridge: invalid endpoint settings:\n{text}"));
    for id in [plain, host, none, sharing] {
        world.remove(&id).await;
    }
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_do_not_go_with_the_network_are_refused() {
    let world = World::new().await;
    let joined = world.create("joined", shell("true")).await;
    let links = "network can't be used with links. This would result in undefined behavior";
    type Change = fn(&mut docker_types::container::HostConfig);
    let cases: [(&str, Change, &str); 6] = [
        ("container:", |_| (), "invalid network mode: invalid container format container:<name|id>"),
        ("container:joined", |host| host.links = Some(vec!["a:b".into()]), &format!("container type {links}")),
        ("container:joined", |host| host.dns = Some(vec!["9.9.9.9".into()]), "dns and the network mode"),
        ("container:joined", |host| host.extra_hosts = Some(vec!["a:1.2.3.4".into()]), "custom host-to-IP mapping"),
        (
            "container:joined",
            |host| host.publish_all_ports = true,
            "port publishing and the container type network mode",
        ),
        ("host", |host| host.links = Some(vec!["a:b".into()]), "host type networking can't be used with links"),
    ];
    for (mode, change, text) in cases {
        let request = with_host(shell("true"), |host| {
            host.network_mode = mode.into();
            change(host);
        });
        let error = world.engine.create(None, request, Default::default()).await.unwrap_err().to_string();
        assert!(error.contains(text), "{mode}: {error}");
    }
    let mut request = with_host(shell("true"), |host| host.network_mode = "container:joined".into());
    request.exposed_ports.insert("80/tcp".into(), Default::default());
    let error = world.engine.create(None, request, Default::default()).await.unwrap_err().to_string();
    assert_eq!(error, "conflicting options: port exposing and the container type network mode");
    world.remove(&joined).await;
    world.assert_clean();
}
