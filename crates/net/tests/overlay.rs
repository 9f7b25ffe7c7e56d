//! Overlay networks between machines.

mod support;

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use net::{Connection, OverlayEndpointSpec, OverlaySpec, SandboxMode, SandboxSpec};
use support::cluster::{Cluster, Node, cluster};
use support::{Ns, Server, container, greet, overlay_spec, ping, vxlan_datagram};

const ONE: [u8; 4] = [10, 0, 1, 5];
const TWO: [u8; 4] = [10, 0, 1, 6];

fn at(netns: &Option<std::path::PathBuf>) -> Ns {
    Ns::at(netns.as_ref().unwrap())
}

/// Two machines, a container each, that know of each other.
fn pair(cluster: &Cluster, spec: &OverlaySpec) -> [Ns; 2] {
    let namespaces = [(0, "one", "10.0.1.5/24"), (1, "two", "10.0.1.6/24")].map(|(index, word, address)| {
        let node: &Node = &cluster.nodes[index];
        node.ensure(spec.clone());
        at(&node.container(spec, word, address).netns)
    });
    cluster.tell(spec, &[(0, ONE), (1, TWO)]);
    namespaces
}

/// Whether a ping comes back at once.
fn reaches(ns: &Ns, address: [u8; 4]) -> bool {
    ping(ns, address.into())
}

fn is_cut_off(ns: &Ns, address: [u8; 4]) -> bool {
    !support::ping_within(ns, address.into(), Duration::from_millis(300))
}

#[test]
fn containers_reach_each_other_across_machines() {
    cluster(2, |cluster| {
        let spec = overlay_spec("web", 1);
        let [one, two] = pair(cluster, &spec);
        assert!(reaches(&one, TWO) && reaches(&two, ONE));
        let server = Server::tcp_here(&two, "two", 80);
        assert_eq!(greet(&one, "10.0.1.6:80"), Ok("two 10.0.1.5".to_owned()));
        // as large as fits: nothing is cut on the way
        let links = one.output("ip", &["-d", "link", "show", "eth0"]);
        assert!(links.contains("mtu 1450"), "{links}");
        // the way out
        let routes = one.output("ip", &["route"]);
        assert!(routes.contains("default via 172.18.0.1 dev eth1"), "{routes}");
        let world = Server::tcp_here(&cluster.client, "world", 0);
        assert_eq!(
            greet(&one, &format!("{}:{}", support::CLIENT_ADDRESS, world.port)),
            Ok("world 192.0.2.1".to_owned())
        );
        let hosts = cluster.nodes[0].net.etc_files(&container("one")).unwrap().hosts;
        assert!(hosts.ends_with("10.0.1.5\tone000000000\n"), "{hosts}");
        let listed = cluster.nodes[0].net.networks();
        let listed = listed.iter().find(|network| network.name == "web").unwrap();
        assert_eq!((listed.driver.as_str(), listed.containers.len()), ("overlay", 1));
        drop((server, world));
        // what is not told is not reached
        cluster.tell(&spec, &[(0, ONE)]);
        assert!(is_cut_off(&one, TWO));
        cluster.tell(&spec, &[(0, ONE), (1, TWO)]);
        assert!(reaches(&one, TWO));
    });
}

#[test]
fn packets_of_strangers_are_dropped() {
    cluster(3, |cluster| {
        let spec = overlay_spec("web", 1);
        let [one, _two] = pair(cluster, &spec);
        let stranger = &cluster.nodes[2];
        let listener = one.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:7000").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            socket
        });
        let frame = vxlan_datagram(spec.subnets[0].vni, ONE);
        let send = |node: &Node| {
            let frame = frame.clone();
            node.host.run(move || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.send_to(&frame, "192.0.2.1:4789").unwrap();
            });
        };
        let heard = || listener.recv_from(&mut [0; 64]).is_ok();
        send(stranger);
        assert!(!heard());
        // the same from a node of the network arrives: the packet is right
        send(&cluster.nodes[1]);
        assert!(heard());
        // one that has left is a stranger again
        cluster.tell(&spec, &[(0, ONE)]);
        send(&cluster.nodes[1]);
        assert!(!heard());
    });
}

#[test]
fn an_address_moves_with_its_container() {
    cluster(3, |cluster| {
        let spec = overlay_spec("web", 1);
        let [one, two] = pair(cluster, &spec);
        let third = &cluster.nodes[2];
        third.ensure(spec.clone());
        cluster.tell(&spec, &[(0, ONE), (1, TWO)]);
        assert!(reaches(&one, TWO));
        drop(two);
        let remove = |node: &Node| node.call(|net| async move { net.remove_sandbox(&container("two")).await }).unwrap();
        remove(&cluster.nodes[1]);
        let (old, new) = (cluster.nodes[1].peer(TWO.into()), third.peer(TWO.into()));
        let change = |node: &Node, added: Vec<net::Peer>, removed: Vec<net::Peer>| {
            let id = spec.network_id.clone();
            node.call(|net| async move { net.change_peers(&id, added, removed).await }).unwrap();
        };
        // made there before it is gone here, as the news may come
        let moved = at(&third.container(&spec, "two", "10.0.1.6/24").netns);
        for node in &cluster.nodes {
            change(node, vec![new], vec![]);
            change(node, vec![], vec![old]);
        }
        assert!(reaches(&one, TWO) && reaches(&moved, ONE));
        drop(moved);
        remove(third);
        // to the very machine that has known it as a peer, which hears of the old place last
        let here = at(&cluster.nodes[0].container(&spec, "two", "10.0.1.6/24").netns);
        assert!(reaches(&one, TWO) && reaches(&here, ONE));
        change(&cluster.nodes[0], vec![new], vec![]);
        assert!(reaches(&one, TWO));
        change(&cluster.nodes[0], vec![], vec![new]);
        assert!(reaches(&one, TWO) && reaches(&here, ONE));
    });
}

#[test]
fn a_new_daemon_takes_networks_over_and_mends_them() {
    cluster(2, |cluster| {
        let spec = overlay_spec("web", 1);
        let [one, two] = pair(cluster, &spec);
        let known = || [container("one")].into_iter().collect();
        assert!(reaches(&one, TWO));
        cluster.nodes[0].restart();
        let node = &cluster.nodes[0];
        assert_eq!(node.net.peers(&spec.network_id), [cluster.nodes[1].peer(TWO.into())]);
        assert!(reaches(&one, TWO) && reaches(&two, ONE));
        let namespace = node.network_ns(&spec);
        let reconcile = || {
            let report = node.call(|net| async move { net.reconcile(&known()).await }).unwrap();
            assert_eq!(report, net::ReconcileReport::default());
        };
        for damage in [
            ["link", "del", "vx-001001-webne"].as_slice(),
            &["link", "del", "ov-001001-webne"],
            &["neigh", "flush", "dev", "vx-001001-webne", "nud", "permanent"],
        ] {
            namespace.output("ip", damage);
            // what the container remembers
            one.output("ip", &["neigh", "flush", "dev", "eth0"]);
            assert!(is_cut_off(&one, TWO), "{damage:?}");
            reconcile();
            assert!(reaches(&one, TWO) && reaches(&two, ONE), "{damage:?}");
        }
        namespace.output("bridge", &["fdb", "del", "02:42:0a:00:01:06", "dev", "vx-001001-webne", "self"]);
        namespace.output(
            "bridge",
            &["fdb", "add", "02:42:0a:00:01:77", "dev", "vx-001001-webne", "self", "dst", "192.0.2.9"],
        );
        reconcile();
        let entries = namespace.output("bridge", &["fdb", "show", "dev", "vx-001001-webne"]);
        assert!(entries.contains("02:42:0a:00:01:06 dst 192.0.2.2") && !entries.contains("01:77"), "{entries}");
        node.host.output("nft", &["flush", "ruleset"]);
        reconcile();
        assert!(node.host.output("nft", &["list", "ruleset"]).contains("192.0.2.2"));
        drop(namespace);
        // a network that is gone takes its containers' links along, but comes back itself, with all that was known of it
        nix::mount::umount(&node.netns_folder().join("1-webnetwork")).unwrap();
        let report = node.call(|net| async move { net.reconcile(&known()).await }).unwrap();
        assert_eq!(report.lost_sandboxes, [container("one")]);
        drop(one);
        let again = at(&node.container(&spec, "again", "10.0.1.5/24").netns);
        assert!(reaches(&again, TWO) && reaches(&two, ONE));
    });
}

#[test]
fn a_change_of_the_tunnel_address_leaves_containers_in_place() {
    cluster(2, |cluster| {
        let spec = overlay_spec("web", 1);
        let [one, two] = pair(cluster, &spec);
        assert!(reaches(&one, TWO));
        // first alone, then with tunnels again
        let node = &cluster.nodes[0];
        let alone = spec.clone();
        node.call(|net| async move { net.overlay_ensure(alone).await }).unwrap();
        assert!(is_cut_off(&one, TWO));
        node.ensure(spec.clone());
        assert!(reaches(&one, TWO) && reaches(&two, ONE));
        node.host.output("ip", &["addr", "add", "192.0.2.51/24", "dev", "eth0"]);
        let moved = OverlaySpec { vtep: Some(Ipv4Addr::new(192, 0, 2, 51)), ..spec.clone() };
        node.call(|net| async move { net.overlay_ensure(moved).await }).unwrap();
        assert!(is_cut_off(&one, TWO), "the other machine does not know the new address yet");
        let peer = net::Peer { vtep: Ipv4Addr::new(192, 0, 2, 51), ..node.peer(ONE.into()) };
        let id = spec.network_id.clone();
        cluster.nodes[1].call(|net| async move { net.set_peers(&id, vec![peer]).await }).unwrap();
        assert!(reaches(&one, TWO) && reaches(&two, ONE));
        // to another port
        let port = |node: &Node, vtep: Ipv4Addr| {
            let spec = OverlaySpec { vtep: Some(vtep), data_path_port: 7789, ..spec.clone() };
            node.call(|net| async move { net.overlay_ensure(spec).await }).unwrap();
        };
        port(node, Ipv4Addr::new(192, 0, 2, 51));
        assert!(is_cut_off(&one, TWO));
        port(&cluster.nodes[1], cluster.nodes[1].address);
        assert!(reaches(&one, TWO) && reaches(&two, ONE));
    });
}

#[test]
fn an_id_that_another_device_has_is_told() {
    cluster(1, |cluster| {
        let node = &cluster.nodes[0];
        let add = ["link", "add", "other0", "type", "vxlan", "id", "4097", "dstport", "4789"];
        node.host.output("ip", &add);
        let spec = OverlaySpec { vtep: Some(node.address), ..overlay_spec("web", 1) };
        let refused = spec.clone();
        let error = node.call(|net| async move { net.overlay_ensure(refused).await }).unwrap_err().to_string();
        assert_eq!(error, "network web cannot be made here: VXLAN id 4097 on UDP port 4789 belongs to link other0");
        assert!(node.net.overlays().is_empty());
        node.host.output("ip", &["link", "del", "other0"]);
        node.ensure(spec.clone());
        let twin = OverlaySpec { network_id: "othernetworkid00000000001".to_owned(), name: "other".to_owned(), ..spec };
        let error = node.call(|net| async move { net.overlay_ensure(twin).await }).unwrap_err().to_string();
        assert!(error.ends_with("VXLAN id 4097 on UDP port 4789 belongs to network web"), "{error}");
        assert_eq!(node.net.overlays().len(), 1);
    });
}

/// Whether this kernel has ESP with dockerd's algorithm.
fn has_esp(ns: &Ns) -> bool {
    ns.run(|| {
        let state = "src 127.0.0.1 dst 127.0.0.2 proto esp spi 0x999";
        let aead = "aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1001020304 64";
        let run = |words: String| std::process::Command::new("ip").args(words.split(' ')).output().unwrap().status;
        let is_there = run(format!("xfrm state add {state} {aead}")).success();
        assert_eq!(run(format!("xfrm state delete {state}")).success(), is_there);
        is_there
    })
}

#[test]
fn a_network_that_cannot_be_encrypted_is_not_made() {
    cluster(1, |cluster| {
        let node = &cluster.nodes[0];
        let ensure = |spec: &OverlaySpec| {
            let spec = spec.clone();
            node.call(|net| async move { net.overlay_ensure(spec).await }).map_err(|error| error.to_string())
        };
        let secret = OverlaySpec { encrypted: true, vtep: Some(node.address), ..overlay_spec("secret", 3) };
        // one that ends at this machine has nothing to encrypt
        assert_eq!(ensure(&OverlaySpec { vtep: None, ..secret.clone() }), Ok(()));
        let strange = OverlaySpec { vtep: Some([192, 0, 2, 77].into()), ..secret.clone() };
        let head = "network secret is to be encrypted, which this machine cannot do: ";
        let text = format!("{head}its tunnel address 192.0.2.77 is on none of its links; nothing of it is sent");
        assert_eq!(ensure(&strange), Err(text));
        let made = ensure(&secret);
        if has_esp(&node.host) {
            assert_eq!(made, Ok(()));
        } else {
            let error = made.unwrap_err();
            let is_clear = error.starts_with(&format!("{head}its kernel has no ESP with AES-GCM ("));
            assert!(is_clear && error.ends_with("; nothing of it is sent"), "{error}");
            // nothing of it is there, and nothing is said that is not so
            let links = node.network_ns(&secret).output("ip", &["-br", "link"]);
            assert!(!links.contains("vx-") && !links.contains("no-"), "{links}");
            assert!(!node.host.output("ip", &["-br", "link"]).contains("void"));
            assert!(!node.host.output("nft", &["list", "tables"]).contains("ipsec"));
            assert_eq!(node.host.output("ip", &["xfrm", "policy"]), "");
        }
    });
}

#[test]
fn a_network_whose_id_is_taken_meanwhile_is_taken_over_without_tunnels() {
    cluster(2, |cluster| {
        let spec = overlay_spec("web", 1);
        let [one, _two] = pair(cluster, &spec);
        let node = &mut cluster.nodes[0];
        let three = at(&node.container(&spec, "three", "10.0.1.7/24").netns);
        let tunnel = "vx-001001-webne";
        node.network_ns(&spec).output("ip", &["link", "del", tunnel]);
        let add = ["link", "add", "other0", "type", "vxlan", "id", "4097", "dstport", "4789"];
        node.host.output("ip", &add);
        node.restart();
        let alone = spec.clone();
        node.call(|net| async move { net.overlay_ensure(alone).await }).unwrap();
        assert!(reaches(&one, [10, 0, 1, 7]) && reaches(&three, ONE), "both are where they were");
        assert!(is_cut_off(&one, TWO));
        node.host.output("ip", &["link", "del", "other0"]);
        node.ensure(spec.clone());
        cluster.tell(&spec, &[(0, ONE), (1, TWO)]);
        assert!(reaches(&one, TWO));
    });
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    cluster(2, |cluster| {
        let (web, db) = (overlay_spec("web", 1), overlay_spec("db", 2));
        let internal = OverlaySpec { internal: true, ..overlay_spec("inner", 3) };
        let [one, _two] = pair(cluster, &web);
        for node in &cluster.nodes {
            node.ensure(db.clone());
            node.ensure(internal.clone());
        }
        let node = &cluster.nodes[0];
        let other = at(&cluster.nodes[1].container(&db, "other", "10.0.2.6/24").netns);
        cluster.tell(&db, &[(0, [10, 0, 2, 5]), (1, [10, 0, 2, 6])]);
        let connect = |id: &str, address: &str| {
            let spec = Connection::Overlay(OverlayEndpointSpec::new(id, address.parse().unwrap()));
            node.call(|net| async move { net.connect(&container("one"), spec, Default::default()).await })
        };
        let endpoint = connect(&db.network_id, "10.0.2.5/24").unwrap();
        assert_eq!((endpoint.link.as_str(), endpoint.mac.as_str()), ("eth2", "02:42:0a:00:02:05"));
        assert_eq!(connect(&db.network_id, "10.0.2.5/24").unwrap(), endpoint);
        assert!(connect(&db.network_id, "10.0.2.9/24").is_err());
        assert!(connect(&web.network_id, "10.0.9.9/24").is_err());
        assert!(reaches(&one, [10, 0, 2, 6]) && reaches(&other, [10, 0, 2, 5]));
        let disconnect = |id: &str| {
            let id = id.to_owned();
            node.call(|net| async move { net.disconnect(&container("one"), &id).await })
        };
        disconnect(&web.network_id).unwrap();
        assert!(disconnect(&web.network_id).is_err());
        assert!(is_cut_off(&one, TWO) && reaches(&one, [10, 0, 2, 6]));
        // with the last network that leads out goes the way out
        connect(&internal.network_id, "10.0.3.5/24").unwrap();
        disconnect(&db.network_id).unwrap();
        let links = one.output("ip", &["-br", "link"]);
        assert_eq!(links.lines().count(), 2, "{links}");
        connect(&web.network_id, "10.0.1.5/24").unwrap();
        assert!(one.output("ip", &["route"]).contains("default"));
        assert!(reaches(&one, TWO));
    });
}

#[test]
fn links_come_in_dockerds_order() {
    cluster(1, |cluster| {
        let node = &cluster.nodes[0];
        let (web, db) = (overlay_spec("web", 1), overlay_spec("db", 2));
        let internal = OverlaySpec { internal: true, ..overlay_spec("alone", 3) };
        for spec in [&web, &db, &internal] {
            node.ensure(spec.clone());
        }
        let mut spec = SandboxSpec::new(&container("one"), "one", SandboxMode::Swarm);
        spec.overlays = vec![
            OverlayEndpointSpec::new(&web.network_id, "10.0.1.5/24".parse().unwrap()),
            OverlayEndpointSpec::new(&internal.network_id, "10.0.3.5/24".parse().unwrap()),
            OverlayEndpointSpec {
                address6: Some(("fd00::5".parse().unwrap(), 64)),
                mac: Some([2, 0, 0, 0, 0, 9]),
                ..OverlayEndpointSpec::new(&db.network_id, "10.0.2.5/24".parse().unwrap())
            },
        ];
        let sandbox = node.call(|net| async move { net.create_sandbox(spec).await }).unwrap();
        let links: Vec<_> = sandbox.endpoints.iter().map(|e| (e.link.as_str(), e.network_name.as_str())).collect();
        assert_eq!(links, [("eth0", "db"), ("eth1", "web"), ("eth2", "alone"), ("eth3", "docker_gwbridge")]);
        assert_eq!(sandbox.endpoints[0].mac, "02:00:00:00:00:09");
        let addresses = at(&sandbox.netns).output("ip", &["-br", "addr"]);
        assert!(addresses.contains("fd00::5/64"), "{addresses}");
        let hosts = node.net.etc_files(&container("one")).unwrap().hosts;
        let own: Vec<_> = hosts.lines().filter(|line| line.ends_with("one000000000")).collect();
        let expected = ["10.0.2.5", "fd00::5", "10.0.1.5", "10.0.3.5"].map(|own| format!("{own}\tone000000000"));
        assert_eq!(own, expected);
        // only internal networks: no way out
        let mut spec = SandboxSpec::new(&container("two"), "two", SandboxMode::Swarm);
        spec.overlays = vec![OverlayEndpointSpec::new(&internal.network_id, "10.0.3.6/24".parse().unwrap())];
        let sandbox = node.call(|net| async move { net.create_sandbox(spec).await }).unwrap();
        let routes = at(&sandbox.netns).output("ip", &["route"]);
        assert_eq!(routes.trim(), "10.0.3.0/24 dev eth0 proto kernel scope link src 10.0.3.6");
    });
}

#[test]
fn subnets_of_a_network_reach_each_other() {
    cluster(2, |cluster| {
        let mut spec = overlay_spec("web", 1);
        spec.subnets.push(overlay_spec("web", 2).subnets[0]);
        for node in &cluster.nodes {
            node.ensure(spec.clone());
        }
        let one = at(&cluster.nodes[0].container(&spec, "one", "10.0.1.5/24").netns);
        let two = at(&cluster.nodes[1].container(&spec, "two", "10.0.2.6/24").netns);
        cluster.tell(&spec, &[(0, ONE), (1, [10, 0, 2, 6])]);
        assert!(reaches(&one, [10, 0, 2, 6]) && reaches(&two, ONE));
    });
}
