//! The routing mesh between machines: whichever is asked, and whichever runs the task.

mod support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use net::{Backend, BackendNode, ClientAddress, IngressPort, OverlaySpec, PortGroup, Protocol};
use support::cluster::{Cluster, Node, cluster};
use support::{CLIENT_ADDRESS, Client, Ns, Server, ask_udp, greet, group, ingress_spec, udp_client};

const PORT: IngressPort = IngressPort { protocol: Protocol::Tcp, published_port: 9005, target_port: 80 };
const OTHER: IngressPort = IngressPort { protocol: Protocol::Tcp, published_port: 9006, target_port: 81 };
const DATAGRAM: IngressPort = IngressPort { protocol: Protocol::Udp, published_port: 9053, target_port: 53 };
const SERVICE: &str = "service1";
const ONE: [u8; 4] = [10, 0, 0, 5];
const TWO: [u8; 4] = [10, 0, 0, 6];

fn spec() -> OverlaySpec {
    ingress_spec()
}

fn set(node: &Node, groups: Vec<PortGroup>, clients: ClientAddress) {
    node.call(|net| async move { net.set_service(SERVICE, groups, clients).await }).unwrap();
}

fn backend(address: [u8; 4], node: BackendNode) -> Backend {
    Backend { address: address.into(), node }
}

/// A task on each of two machines, and the network between them.
fn tasks(cluster: &Cluster) -> [Ns; 2] {
    let spec = spec();
    cluster.nodes.iter().for_each(|node| node.ensure(spec.clone()));
    let tasks = [(0, "one", "10.0.0.5/24"), (1, "two", "10.0.0.6/24")].map(|(index, word, address): (usize, _, _)| {
        let sandbox = cluster.nodes[index].task(&spec, word, address, &[PORT, OTHER, DATAGRAM]);
        Ns::at(sandbox.netns.as_ref().unwrap())
    });
    cluster.tell(&spec, &[(0, ONE), (1, TWO)]);
    tasks
}

#[test]
fn a_task_on_another_machine_sees_the_clients_address() {
    cluster(3, |cluster| {
        let [_one, two] = tasks(cluster);
        let _servers = [Server::tcp_here(&two, "two", 80), Server::udp_here(&two, "two", 53)];
        for (index, node) in cluster.nodes.iter().enumerate() {
            let place = if index == 1 { BackendNode::Here } else { BackendNode::Keeping };
            set(node, group(vec![PORT, DATAGRAM], vec![backend(TWO, place)]), ClientAddress::Kept);
            let asked = node.address;
            for _ in 0..3 {
                let expected = Ok(format!("two {CLIENT_ADDRESS}"));
                assert_eq!(greet(&cluster.client, &format!("{asked}:9005")), expected, "{asked}");
            }
            // the same flow goes on
            let socket = udp_client(&cluster.client, &format!("{asked}:9053"));
            for _ in 0..2 {
                assert_eq!(ask_udp(&socket).unwrap(), format!("two {CLIENT_ADDRESS}"), "{asked}");
            }
        }
        // several machines at once: each answers for what it was asked
        let mut open: Vec<Client> = cluster
            .nodes
            .iter()
            .map(|node| {
                let asked = format!("{}:9005", node.address);
                cluster.client.run(move || Client::connect(&asked).unwrap())
            })
            .collect();
        let long = "more than fits into one packet ".repeat(1000);
        for client in &mut open {
            assert_eq!(client.echo(&long).unwrap(), long.trim());
        }
    });
}

#[test]
fn whoever_has_the_same_address_on_each_machine_is_hidden_from_the_others() {
    cluster(2, |cluster| {
        let [one, two] = tasks(cluster);
        let _servers =
            [Server::tcp_here(&one, "one", 80), Server::tcp_here(&two, "two", 80), Server::udp_here(&two, "two", 53)];
        let node = &cluster.nodes[0];
        let only = |address, place| {
            set(node, group(vec![PORT, DATAGRAM], vec![backend(address, place)]), ClientAddress::Kept);
        };
        // the machine itself, and its container, ask from an address of the gateway bridge
        only(ONE, BackendNode::Here);
        assert_eq!(greet(&node.host, "127.0.0.1:9005"), Ok("one 172.18.0.1".to_owned()));
        only(TWO, BackendNode::Keeping);
        let balancer = node.balancer(&spec());
        assert_eq!(greet(&node.host, "127.0.0.1:9005"), Ok(format!("two {balancer}")));
        assert_eq!(greet(&one, "192.0.2.1:9005"), Ok(format!("two {balancer}")));
        assert_eq!(ask_udp(&udp_client(&node.host, "127.0.0.1:9053")).unwrap(), format!("two {balancer}"));
        // from an address of its own it is as good as any client
        assert_eq!(greet(&node.host, "192.0.2.1:9005"), Ok("two 192.0.2.1".to_owned()));
    });
}

#[test]
fn a_task_on_a_foreign_machine_sees_the_balancers_address() {
    cluster(2, |cluster| {
        let [one, two] = tasks(cluster);
        let _servers =
            [Server::tcp_here(&one, "one", 80), Server::tcp_here(&two, "two", 80), Server::udp_here(&two, "two", 53)];
        let node = &cluster.nodes[0];
        let balancer = node.balancer(&spec());
        let both = |place| {
            let backends = vec![backend(ONE, BackendNode::Here), backend(TWO, place)];
            group(vec![PORT, DATAGRAM], backends)
        };
        let heard = || -> BTreeMap<String, usize> {
            cluster.client.run(|| {
                let mut heard = BTreeMap::new();
                for _ in 0..10 {
                    *heard.entry(Client::connect("192.0.2.1:9005").unwrap().greeting).or_insert(0) += 1;
                }
                heard
            })
        };
        let expected = |one: &str, two: &str| BTreeMap::from([(format!("one {one}"), 5), (format!("two {two}"), 5)]);
        let hidden = balancer.to_string();
        set(node, both(BackendNode::Foreign), ClientAddress::Kept);
        assert_eq!(heard(), expected(CLIENT_ADDRESS, &hidden));
        set(node, group(vec![PORT, DATAGRAM], vec![backend(TWO, BackendNode::Foreign)]), ClientAddress::Kept);
        assert_eq!(ask_udp(&udp_client(&cluster.client, "192.0.2.1:9053")).unwrap(), format!("two {hidden}"));
        set(node, both(BackendNode::Keeping), ClientAddress::Kept);
        assert_eq!(heard(), expected(CLIENT_ADDRESS, CLIENT_ADDRESS));
        // who wants the old way, has it for all tasks
        set(node, both(BackendNode::Keeping), ClientAddress::Hidden);
        assert_eq!(heard(), expected(&hidden, &hidden));
        set(node, both(BackendNode::Keeping), ClientAddress::Kept);
        assert_eq!(heard(), expected(CLIENT_ADDRESS, CLIENT_ADDRESS));
        // the same when it is written anew
        set(node, both(BackendNode::Foreign), ClientAddress::Kept);
        node.call(|net| async move { net.reconcile(&[support::container("one")].into_iter().collect()).await })
            .unwrap();
        assert_eq!(heard(), expected(CLIENT_ADDRESS, &hidden));
    });
}

#[test]
fn a_port_leads_only_to_tasks_that_have_it() {
    cluster(2, |cluster| {
        let [one, two] = tasks(cluster);
        let _servers = [
            Server::tcp_here(&one, "one", 80),
            Server::tcp_here(&two, "two", 80),
            Server::tcp_here(&two, "two, new", 81),
        ];
        let node = &cluster.nodes[0];
        let (here, there) = (backend(ONE, BackendNode::Here), backend(TWO, BackendNode::Keeping));
        // during an update only one task has the new port
        let groups = vec![
            PortGroup { ports: vec![PORT], backends: vec![here, there] },
            PortGroup { ports: vec![OTHER], backends: vec![there] },
        ];
        set(node, groups, ClientAddress::Kept);
        let ask = |port: u16| greet(&cluster.client, &format!("192.0.2.1:{port}"));
        for _ in 0..4 {
            assert_eq!(ask(9006), Ok(format!("two, new {CLIENT_ADDRESS}")));
        }
        let heard: Vec<_> = (0..2).map(|_| ask(9005).unwrap()).collect();
        assert!(heard.contains(&format!("one {CLIENT_ADDRESS}")) && heard.contains(&format!("two {CLIENT_ADDRESS}")));
        // afterwards all have the same
        set(node, group(vec![PORT, OTHER], vec![there]), ClientAddress::Kept);
        assert_eq!(ask(9005), Ok(format!("two {CLIENT_ADDRESS}")));
        assert_eq!(ask(9006), Ok(format!("two, new {CLIENT_ADDRESS}")));
        set(node, group(vec![OTHER], vec![there]), ClientAddress::Kept);
        assert!(ask(9005).is_err() && ask(9006).is_ok());
        set(node, vec![], ClientAddress::Kept);
        assert!(ask(9006).is_err() && node.net.services().is_empty());
    });
}

#[test]
fn services_stay_when_the_machines_ingress_address_changes() {
    cluster(2, |cluster| {
        let [_one, two] = tasks(cluster);
        let _server = Server::tcp_here(&two, "two", 80);
        let node = &cluster.nodes[0];
        set(node, group(vec![PORT], vec![backend(TWO, BackendNode::Keeping)]), ClientAddress::Kept);
        assert!(greet(&cluster.client, "192.0.2.1:9005").is_ok());
        let address = Ipv4Addr::new(10, 0, 0, 210);
        let moved = OverlaySpec { vtep: Some(node.address), lb_address: Some(address), ..spec() };
        node.call(|net| async move { net.overlay_ensure(moved).await }).unwrap();
        let (id, peer) = (spec().network_id, node.peer(address));
        cluster.nodes[1].call(|net| async move { net.change_peers(&id, vec![peer], vec![]).await }).unwrap();
        assert_eq!(greet(&cluster.client, "192.0.2.1:9005"), Ok(format!("two {CLIENT_ADDRESS}")));
    });
}
