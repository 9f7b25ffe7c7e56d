//! Services with addresses of their own on overlay networks.

mod support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use net::{OverlaySpec, OverlaySubnet};
use support::cluster::{Cluster, Node, cluster};
use support::{Client, Ns, Server, ask_udp, container, greet, overlay_spec, ping, udp_client};

const SERVICE: &str = "service1";
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
const CLIENT: [u8; 4] = [10, 0, 1, 5];
const NEAR: [u8; 4] = [10, 0, 1, 6];
const FAR: [u8; 4] = [10, 0, 1, 7];

fn spec() -> OverlaySpec {
    OverlaySpec { lb_address: Some(Ipv4Addr::UNSPECIFIED), ..overlay_spec("web", 1) }
}

fn set(node: &Node, backends: &[[u8; 4]]) {
    set_at(node, VIP, backends);
}

fn set_at(node: &Node, address: Ipv4Addr, backends: &[[u8; 4]]) {
    let backends = backends.iter().map(|address| Ipv4Addr::from(*address)).collect();
    let id = spec().network_id;
    node.call(|net| async move { net.set_virtual_service(&id, SERVICE, address, backends).await }).unwrap();
}

/// A client and a task on the first machine, a task on the second.
struct Stage {
    client: Ns,
    near: Ns,
    far: Ns,
}

fn stage(cluster: &Cluster) -> Stage {
    let spec = spec();
    let place = |index: usize, word: &str, address: [u8; 4]| {
        let address = format!("{}/24", Ipv4Addr::from(address));
        Ns::at(cluster.nodes[index].container(&spec, word, &address).netns.as_ref().unwrap())
    };
    cluster.nodes.iter().for_each(|node| node.ensure(spec.clone()));
    let (client, near, far) = (place(0, "client", CLIENT), place(0, "near", NEAR), place(1, "far", FAR));
    cluster.tell(&spec, &[(0, CLIENT), (0, NEAR), (1, FAR)]);
    Stage { client, near, far }
}

#[test]
fn connections_to_a_services_address_are_spread_over_its_tasks() {
    cluster(2, |cluster| {
        let Stage { client, near, far } = stage(cluster);
        let _servers = [
            Server::tcp_here(&near, "near", 80),
            Server::tcp_here(&far, "far", 80),
            Server::udp_here(&near, "near", 53),
            Server::udp_here(&far, "far", 53),
        ];
        for node in &cluster.nodes {
            set(node, &[NEAR, FAR]);
            assert_eq!(node.net.virtual_services(&spec().network_id), [SERVICE]);
        }
        // from this machine's balancer, on whose address the answers come back
        let counts = client.run(|| {
            let mut counts = BTreeMap::new();
            for _ in 0..40 {
                *counts.entry(Client::connect("10.0.1.100:80").unwrap().greeting).or_insert(0) += 1;
            }
            counts
        });
        let even = ["near 10.0.1.201", "far 10.0.1.201"].map(|greeting| (greeting.to_owned(), 20));
        assert_eq!(counts, BTreeMap::from(even));
        let heard: Vec<String> = (0..4).map(|_| ask_udp(&udp_client(&client, "10.0.1.100:53")).unwrap()).collect();
        assert_eq!(heard.iter().filter(|answer| *answer == "far 10.0.1.201").count(), 2, "{heard:?}");
        assert!(ping(&client, VIP));
        // a task may ask its own service, and be asked
        for task in [&near, &far] {
            let answers: Vec<_> = (0..4).map(|_| greet(task, "10.0.1.100:80").unwrap()).collect();
            let own = if std::ptr::eq(task, &near) { "10.0.1.201" } else { "10.0.1.202" };
            assert!(answers.contains(&format!("near {own}")) && answers.contains(&format!("far {own}")), "{answers:?}");
        }
        let listed = cluster.nodes[0].net.networks();
        let listed = &listed.iter().find(|network| network.name == "web").unwrap().containers;
        let balancer = listed.iter().find(|it| it.container_id == "lb-web").unwrap();
        assert_eq!((balancer.name.as_str(), balancer.address.to_string().as_str()), ("web-endpoint", "10.0.1.201/24"));
    });
}

#[test]
fn open_connections_go_on_and_datagrams_move_when_a_task_goes() {
    cluster(2, |cluster| {
        let Stage { client, near, far } = stage(cluster);
        let _servers = [
            Server::tcp_here(&near, "near", 80),
            Server::tcp_here(&far, "far", 80),
            Server::udp_here(&near, "near", 53),
            Server::udp_here(&far, "far", 53),
        ];
        let node = &cluster.nodes[0];
        set(node, &[]);
        assert_eq!(greet(&client, "10.0.1.100:80"), Err("Connection refused (os error 111)".to_owned()));
        let socket = udp_client(&client, "10.0.1.100:53");
        assert!(ask_udp(&socket).is_err());
        set(node, &[FAR]);
        assert_eq!(ask_udp(&socket).unwrap(), "far 10.0.1.201");
        let mut open = client.run(|| Client::connect("10.0.1.100:80").unwrap());
        let open_to = |index: usize, word: &'static str| {
            cluster.nodes[index].call(move |net| async move { net.open_connections(&container(word)).await }).unwrap()
        };
        assert_eq!((open_to(0, "near"), open_to(1, "far"), open_to(1, "nobody")), (0, 1, 0));
        set(node, &[NEAR]);
        assert_eq!(ask_udp(&socket).unwrap(), "near 10.0.1.201");
        assert_eq!(greet(&client, "10.0.1.100:80"), Ok("near 10.0.1.201".to_owned()));
        assert_eq!(open.echo("still here").unwrap(), "still here");
        // to another address
        set_at(node, Ipv4Addr::new(10, 0, 1, 101), &[NEAR]);
        assert!(greet(&client, "10.0.1.101:80").is_ok() && !ping_soon(&client, VIP));
        let id = spec().network_id;
        node.call(|net| async move { net.remove_virtual_service(&id, SERVICE).await }).unwrap();
        assert!(!ping_soon(&client, Ipv4Addr::new(10, 0, 1, 101)));
    });
}

fn ping_soon(ns: &Ns, address: Ipv4Addr) -> bool {
    support::ping_within(ns, address, Duration::from_millis(300))
}

#[test]
fn changes_of_a_services_tasks_fail_no_connection() {
    const CHANGES: usize = 300;
    const CONNECTIONS_PER_CHANGE: usize = 5;
    cluster(2, |cluster| {
        let Stage { client, near, far } = stage(cluster);
        let _servers = [Server::tcp_here(&near, "near", 80), Server::tcp_here(&far, "far", 80)];
        let node = &cluster.nodes[0];
        set(node, &[NEAR, FAR]);
        let (done, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let load = {
            let (done, is_over) = (Arc::clone(&done), Arc::clone(&is_over));
            client.spawn(move || {
                let mut failures = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    failures.extend(Client::connect("10.0.1.100:80").err());
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        };
        let known = || ["client", "near"].map(container).into_iter().collect();
        for change in 0..CHANGES {
            set(node, [&[NEAR][..], &[FAR], &[NEAR, FAR]][change % 3]);
            if change % 10 == 0 {
                node.call(|net| async move { net.reconcile(&known()).await }).unwrap();
            }
            let goal = done.load(Ordering::Relaxed) + CONNECTIONS_PER_CHANGE;
            while done.load(Ordering::Relaxed) < goal {
                std::thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Relaxed);
        let failures = load.join().unwrap();
        assert!(failures.is_empty(), "{failures:?}");
    });
}

fn is_cut_off(client: &Ns) -> bool {
    client.run(|| {
        let timeout = Duration::from_millis(300);
        std::net::TcpStream::connect_timeout(&"10.0.1.100:80".parse().unwrap(), timeout).is_err()
    })
}

#[test]
fn a_new_daemon_finds_services_at_work_and_mends_them() {
    cluster(2, |cluster| {
        let Stage { client, near, far } = stage(cluster);
        let _servers = [Server::tcp_here(&near, "near", 80), Server::tcp_here(&far, "far", 80)];
        set(&cluster.nodes[0], &[NEAR, FAR]);
        let mut open = client.run(|| Client::connect("10.0.1.100:80").unwrap());
        cluster.nodes[0].restart();
        let node = &cluster.nodes[0];
        assert_eq!(node.net.virtual_services(&spec().network_id), [SERVICE]);
        assert_eq!(open.echo("still here").unwrap(), "still here");
        let reconcile = || {
            let known = ["client", "near"].map(container).into_iter().collect();
            let report = node.call(|net| async move { net.reconcile(&known).await }).unwrap();
            assert_eq!(report, net::ReconcileReport::default());
        };
        let balancer = node.balancer_path(&spec());
        let damage = |program: &str, arguments: &[&str]| {
            Ns::at(&balancer).output(program, arguments);
            // what the client remembers
            client.output("ip", &["neigh", "flush", "dev", "eth0"]);
            assert!(is_cut_off(&client), "{arguments:?}");
            reconcile();
            assert!(greet(&client, "10.0.1.100:80").is_ok(), "{arguments:?}");
        };
        damage("nft", &["flush", "ruleset"]);
        assert_eq!(open.echo("still here").unwrap(), "still here");
        damage("ip", &["addr", "del", "10.0.1.100/32", "dev", "eth0"]);
        damage("ip", &["link", "del", "eth0"]);
        nix::mount::umount(&balancer).unwrap();
        reconcile();
        assert!(greet(&client, "10.0.1.100:80").is_ok());
        // a network that is gone comes back with its services
        nix::mount::umount(&node.netns_folder().join("1-webnetwork")).unwrap();
        let known = ["client", "near"].map(container).into_iter().collect();
        node.call(|net| async move { net.reconcile(&known).await }).unwrap();
        let again = Ns::at(node.container(&spec(), "again", "10.0.1.9/24").netns.as_ref().unwrap());
        cluster.tell(&spec(), &[(0, [10, 0, 1, 9]), (1, FAR)]);
        set(node, &[FAR]);
        assert_eq!(greet(&again, "10.0.1.100:80"), Ok("far 10.0.1.201".to_owned()));
        // the balancer gets another address
        let moved = OverlaySpec { vtep: Some(node.address), lb_address: Some(Ipv4Addr::new(10, 0, 1, 210)), ..spec() };
        node.call(|net| async move { net.overlay_ensure(moved).await }).unwrap();
        let (id, peer) = (spec().network_id, node.peer(Ipv4Addr::new(10, 0, 1, 210)));
        cluster.nodes[1].call(|net| async move { net.change_peers(&id, vec![peer], vec![]).await }).unwrap();
        again.output("ip", &["neigh", "flush", "dev", "eth0"]);
        assert_eq!(greet(&again, "10.0.1.100:80"), Ok("far 10.0.1.210".to_owned()));
    });
}

#[test]
fn a_service_may_have_its_address_in_another_subnet() {
    cluster(2, |cluster| {
        let mut spec = spec();
        let subnet = "10.0.9.0/24".parse().unwrap();
        spec.subnets.push(OverlaySubnet { subnet, gateway: Ipv4Addr::new(10, 0, 9, 1), vni: 4105 });
        cluster.nodes.iter().for_each(|node| node.ensure(spec.clone()));
        let place = |index: usize, word: &str, address: &str| {
            Ns::at(cluster.nodes[index].container(&spec, word, address).netns.as_ref().unwrap())
        };
        let (client, far) = (place(0, "client", "10.0.9.5/24"), place(1, "far", "10.0.9.7/24"));
        cluster.tell(&spec, &[(0, [10, 0, 9, 5]), (1, [10, 0, 9, 7])]);
        let _server = Server::tcp_here(&far, "far", 80);
        let node = &cluster.nodes[0];
        let vip = Ipv4Addr::new(10, 0, 9, 100);
        set_at(node, vip, &[[10, 0, 9, 7]]);
        assert_eq!(greet(&client, "10.0.9.100:80"), Ok("far 10.0.1.201".to_owned()));
        assert!(ping(&client, vip));
        set_at(node, VIP, &[[10, 0, 9, 7]]);
        assert_eq!(greet(&client, "10.0.1.100:80"), Ok("far 10.0.1.201".to_owned()));
        assert!(!ping_soon(&client, vip));
    });
}

#[test]
fn addresses_that_no_service_can_have_are_refused() {
    cluster(1, |cluster| {
        let node = &cluster.nodes[0];
        let set = |address: [u8; 4]| {
            let id = spec().network_id;
            let set =
                node.call(|net| async move { net.set_virtual_service(&id, SERVICE, address.into(), vec![]).await });
            set.map_err(|error| error.to_string())
        };
        assert_eq!(set([10, 0, 1, 100]).unwrap_err(), "network webnetworkid0000000000001 not found");
        node.ensure(OverlaySpec { lb_address: None, ..spec() });
        assert_eq!(set([10, 0, 1, 100]).unwrap_err(), "this node has no address for a balancer on network web");
        node.ensure(spec());
        assert_eq!(set([10, 0, 9, 1]).unwrap_err(), "network web: no subnet has 10.0.9.1");
        for address in [[10, 0, 1, 1], [10, 0, 1, 201]] {
            let expected = format!("network web: no service can have {}", Ipv4Addr::from(address));
            assert_eq!(set(address).unwrap_err(), expected);
        }
        assert_eq!(set([10, 0, 1, 100]), Ok(()));
    });
}
