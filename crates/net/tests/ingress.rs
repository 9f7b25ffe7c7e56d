//! The routing mesh: client addresses, balance, changes under load.

mod support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use net::{
    Backend, ClientAddress, IngressEndpointSpec, IngressPort, Net, PortBinding, Protocol, Sandbox, SandboxMode,
    SandboxSpec,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::SocketError;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, getsockopt, socket};
use support::{
    CLIENT_ADDRESS, Client, HOST_ADDRESS, Ns, Server, ask_udp, container, greet, group, ingress_spec, machine,
    udp_client,
};

const PORT: IngressPort = IngressPort { protocol: Protocol::Tcp, published_port: 9005, target_port: 80 };
const SAME: IngressPort = IngressPort { protocol: Protocol::Tcp, published_port: 9006, target_port: 9006 };
const DATAGRAM: IngressPort = IngressPort { protocol: Protocol::Udp, published_port: 9053, target_port: 53 };
const SERVICE: &str = "service1";

fn backend(last: u8) -> Backend {
    Backend::here(Ipv4Addr::new(10, 0, 0, last))
}

fn task_spec(last: u8, ports: &[IngressPort]) -> SandboxSpec {
    let mut spec = SandboxSpec::new(&container(&format!("task{last}x")), "task", SandboxMode::Swarm);
    spec.ingress = Some(IngressEndpointSpec {
        network_id: ingress_spec().network_id,
        address: format!("10.0.0.{last}/24").parse().unwrap(),
        ports: ports.to_vec(),
    });
    spec
}

async fn task(net: &Net, last: u8) -> Sandbox {
    net.create_sandbox(task_spec(last, &[PORT, SAME, DATAGRAM])).await.unwrap()
}

async fn clear(machine: &support::Machine, net: &Net) {
    net.destroy().await.unwrap();
    machine.assert_nothing_left();
}

#[test]
fn clients_keep_their_address() {
    machine(async |machine| {
        let net = machine.net().await;
        net.overlay_ensure(ingress_spec()).await.unwrap();
        net.overlay_ensure(ingress_spec()).await.unwrap();
        let mut spec = task_spec(5, &[PORT, SAME, DATAGRAM]);
        let host_port = PortBinding {
            protocol: Protocol::Tcp,
            container_port: 81,
            host_address: None,
            host_port: 9081,
            host_port_end: 0,
        };
        spec.ports = vec![host_port];
        let sandbox = net.create_sandbox(spec).await.unwrap();
        let links: Vec<_> = sandbox.endpoints.iter().map(|e| (e.network_name.as_str(), e.link.as_str())).collect();
        assert_eq!(links, [("ingress", "eth0"), ("docker_gwbridge", "eth1")]);
        net.set_service(SERVICE, group(vec![PORT, SAME, DATAGRAM], vec![backend(5)]), ClientAddress::Kept)
            .await
            .unwrap();
        let netns = sandbox.netns.unwrap();
        {
            let own = Ns::at(&netns);
            let _servers = (
                Server::tcp(&netns, "a", 80),
                Server::tcp(&netns, "b", 9006),
                Server::tcp(&netns, "c", 81),
                Server::udp(&netns, "d", 53),
            );
            let check = |ns: &Ns, address: &str, expected: &str| {
                assert_eq!(greet(ns, address).as_deref(), Ok(expected), "{address}");
            };
            check(&machine.client, "192.0.2.1:9005", &format!("a {CLIENT_ADDRESS}"));
            check(&machine.client, "192.0.2.1:9006", &format!("b {CLIENT_ADDRESS}"));
            check(&machine.client, "192.0.2.1:9081", &format!("c {CLIENT_ADDRESS}"));
            check(&machine.host, "192.0.2.1:9005", &format!("a {HOST_ADDRESS}"));
            check(&machine.host, "127.0.0.1:9005", "a 172.18.0.1");
            check(&own, "192.0.2.1:9005", "a 172.18.0.1");
            for (ns, to, from) in [
                (&machine.client, HOST_ADDRESS, CLIENT_ADDRESS),
                (&machine.host, "127.0.0.1", "172.18.0.1"),
                (&machine.host, HOST_ADDRESS, HOST_ADDRESS),
            ] {
                let socket = udp_client(ns, &format!("{to}:9053"));
                assert_eq!(ask_udp(&socket).unwrap(), format!("d {from}"));
                assert_eq!(ask_udp(&socket).unwrap(), format!("d {from}"));
            }
            // the way out is the gateway bridge
            let world = Server::tcp_here(&machine.client, "world", 0);
            check(&own, &format!("{CLIENT_ADDRESS}:{}", world.port), &format!("world {HOST_ADDRESS}"));
        }
        net.remove_service(SERVICE).await.unwrap();
        assert!(greet(&machine.client, "192.0.2.1:9005").is_err());
        clear(machine, &net).await;
    });
}

#[test]
fn connections_are_spread_evenly() {
    machine(async |machine| {
        let net = machine.net().await;
        net.overlay_ensure(ingress_spec()).await.unwrap();
        let mut servers = Vec::new();
        for last in 5..10 {
            let sandbox = task(&net, last).await;
            servers.push(Server::tcp(&sandbox.netns.unwrap(), &format!("task{last}"), 80));
        }
        net.set_service(SERVICE, group(vec![PORT], (5..10).map(backend).collect()), ClientAddress::Kept).await.unwrap();
        let counts = machine.client.run(|| {
            let mut counts = BTreeMap::new();
            for _ in 0..500 {
                *counts.entry(Client::connect("192.0.2.1:9005").unwrap().greeting).or_insert(0) += 1;
            }
            counts
        });
        assert_eq!(counts.len(), 5);
        assert!(counts.values().all(|count| (60..=140).contains(count)), "{counts:?}");
        drop(servers);
        clear(machine, &net).await;
    });
}

#[test]
fn open_connections_outlive_their_backend() {
    machine(async |machine| {
        let net = machine.net().await;
        net.overlay_ensure(ingress_spec()).await.unwrap();
        let (first, second) = (task(&net, 5).await.netns.unwrap(), task(&net, 6).await.netns.unwrap());
        let servers = [
            Server::tcp(&first, "one", 80),
            Server::tcp(&second, "two", 80),
            Server::udp(&first, "one", 53),
            Server::udp(&second, "two", 53),
        ];
        let ports = || vec![PORT, DATAGRAM];
        net.set_service(SERVICE, group(ports(), vec![]), ClientAddress::Kept).await.unwrap();
        assert_eq!(greet(&machine.client, "192.0.2.1:9005"), Err("Connection refused (os error 111)".to_owned()));
        let socket = udp_client(&machine.client, "192.0.2.1:9053");
        assert!(ask_udp(&socket).is_err());
        net.set_service(SERVICE, group(ports(), vec![backend(5)]), ClientAddress::Kept).await.unwrap();
        assert_eq!(ask_udp(&socket).unwrap(), format!("one {CLIENT_ADDRESS}"));
        let mut open = machine.client.run(|| Client::connect("192.0.2.1:9005").unwrap());
        assert_eq!(open.greeting, format!("one {CLIENT_ADDRESS}"));
        net.set_service(SERVICE, group(ports(), vec![backend(6)]), ClientAddress::Kept).await.unwrap();
        for _ in 0..4 {
            assert_eq!(greet(&machine.client, "192.0.2.1:9005"), Ok(format!("two {CLIENT_ADDRESS}")));
        }
        assert_eq!(open.echo("still here").unwrap(), "still here");
        assert_eq!(ask_udp(&socket).unwrap(), format!("two {CLIENT_ADDRESS}"));
        drop(open);
        drop(servers);
        clear(machine, &net).await;
    });
}

#[test]
fn a_connection_that_nobody_has_answered_goes_to_another_backend_when_its_own_is_gone() {
    machine(async |machine| {
        let net = machine.net().await;
        net.overlay_ensure(ingress_spec()).await.unwrap();
        let server = Server::tcp(&task(&net, 5).await.netns.unwrap(), "one", 80);
        // nobody has this address: as a machine that died whole
        net.set_service(SERVICE, group(vec![PORT], vec![backend(7)]), ClientAddress::Kept).await.unwrap();
        let (flags, address) = (SockFlag::SOCK_NONBLOCK, SockaddrIn::new(192, 0, 2, 1, 9005));
        let begun = machine.client.run(move || {
            let stream = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            assert_eq!(connect(stream.as_raw_fd(), &address), Err(Errno::EINPROGRESS));
            stream
        });
        net.set_service(SERVICE, group(vec![PORT], vec![backend(5)]), ClientAddress::Kept).await.unwrap();
        let wait = move || {
            let mut done = [PollFd::new(begun.as_fd(), PollFlags::POLLOUT)];
            poll(&mut done, PollTimeout::from(20_000u16)).unwrap();
            (getsockopt(&begun, SocketError), done[0].revents())
        };
        let done = tokio::task::spawn_blocking(wait).await.unwrap();
        assert_eq!(done, (Ok(0), Some(PollFlags::POLLOUT)));
        drop(server);
        clear(machine, &net).await;
    });
}

#[test]
fn only_published_ports_are_open_on_the_ingress_address() {
    machine(async |machine| {
        let net = machine.net().await;
        net.overlay_ensure(ingress_spec()).await.unwrap();
        let (one, two) = (task(&net, 5).await.netns.unwrap(), task(&net, 6).await.netns.unwrap());
        let servers = [Server::tcp(&one, "one", 80), Server::tcp(&one, "hidden", 81)];
        net.set_service(SERVICE, group(vec![PORT], vec![backend(5)]), ClientAddress::Kept).await.unwrap();
        let closed = |ns: &Ns, address: &'static str| {
            ns.run(move || {
                let timeout = std::time::Duration::from_millis(300);
                std::net::TcpStream::connect_timeout(&address.parse().unwrap(), timeout).is_err()
            })
        };
        assert!(closed(&Ns::at(&two), "10.0.0.5:80"));
        assert!(closed(&Ns::at(&two), "10.0.0.5:81"));
        let gateway = net.sandbox(&container("task5x")).unwrap().endpoints[1].address.address;
        let gateway: &'static str = Box::leak(format!("{gateway}:80").into_boxed_str());
        assert!(closed(&Ns::at(&two), gateway));
        drop(servers);
        clear(machine, &net).await;
    });
}

#[test]
fn a_new_daemon_finds_the_mesh_at_work() {
    machine(async |machine| {
        let net = machine.net().await;
        net.overlay_ensure(ingress_spec()).await.unwrap();
        let sandbox = task(&net, 5).await;
        let server = Server::tcp(&sandbox.netns.clone().unwrap(), "one", 80);
        net.set_service(SERVICE, group(vec![PORT], vec![backend(5)]), ClientAddress::Kept).await.unwrap();
        let mut open = machine.client.run(|| Client::connect("192.0.2.1:9005").unwrap());
        drop(net);
        assert!(greet(&machine.client, "192.0.2.1:9005").is_ok());
        let net = machine.net().await;
        net.overlay_ensure(ingress_spec()).await.unwrap();
        net.reconcile(&[container("task5x")].into_iter().collect()).await.unwrap();
        assert_eq!(net.services(), [SERVICE]);
        assert!(greet(&machine.client, "192.0.2.1:9005").is_ok());
        assert_eq!(open.echo("still here").unwrap(), "still here");
        assert!(std::net::TcpListener::bind("0.0.0.0:9005").is_err());
        net.remove_service(SERVICE).await.unwrap();
        assert!(std::net::TcpListener::bind("0.0.0.0:9005").is_ok());
        let listed: Vec<_> = net.networks().into_iter().map(|n| (n.name, n.containers.len())).collect();
        let expected = [("bridge", 0), ("host", 0), ("none", 0), ("docker_gwbridge", 2), ("ingress", 2)];
        assert_eq!(listed, expected.map(|(name, count)| (name.to_owned(), count)));
        drop(server);
        clear(machine, &net).await;
    });
}

#[test]
fn tables_that_someone_flushed_are_written_anew() {
    machine(async |machine| {
        let net = machine.net().await;
        net.overlay_ensure(ingress_spec()).await.unwrap();
        let sandbox = task(&net, 5).await;
        let server = Server::tcp(&sandbox.netns.clone().unwrap(), "one", 80);
        net.set_service(SERVICE, group(vec![PORT], vec![]), ClientAddress::Kept).await.unwrap();
        let flush = || {
            machine.host.output("nft", &["flush", "ruleset"]);
            Ns::at(&machine.netns_folder().join("ingress_sbox")).output("nft", &["flush", "ruleset"]);
        };
        flush();
        net.set_service(SERVICE, group(vec![PORT, SAME], vec![backend(5)]), ClientAddress::Kept).await.unwrap();
        assert!(greet(&machine.client, "192.0.2.1:9005").is_ok());
        // a port goes over to another service
        let one = Backend::here(Ipv4Addr::new(10, 0, 0, 99));
        net.set_service("service2", group(vec![PORT], vec![one]), ClientAddress::Kept).await.unwrap();
        net.set_service("service2", group(vec![], vec![one]), ClientAddress::Kept).await.unwrap();
        net.set_service(SERVICE, group(vec![], vec![]), ClientAddress::Kept).await.unwrap();
        net.set_service(SERVICE, group(vec![PORT], vec![backend(5)]), ClientAddress::Kept).await.unwrap();
        assert!(greet(&machine.client, "192.0.2.1:9005").is_ok());
        flush();
        net.remove_service("service2").await.unwrap();
        flush();
        net.reconcile(&[container("task5x")].into_iter().collect()).await.unwrap();
        assert!(greet(&machine.client, "192.0.2.1:9005").is_ok());
        flush();
        net.remove_service(SERVICE).await.unwrap();
        drop(server);
        clear(machine, &net).await;
    });
}

#[test]
fn changes_under_load_fail_no_connection() {
    const CHANGES: usize = 600;
    const CONNECTIONS_PER_CHANGE: usize = 10;
    machine(async |machine| {
        let net = machine.net().await;
        net.overlay_ensure(ingress_spec()).await.unwrap();
        let mut servers = Vec::new();
        for last in 5..10 {
            let sandbox = task(&net, last).await;
            servers.push(Server::tcp(&sandbox.netns.unwrap(), &format!("task{last}"), 80));
        }
        net.set_service(SERVICE, group(vec![PORT], (5..10).map(backend).collect()), ClientAddress::Kept).await.unwrap();
        let (done, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let clients = [(&machine.client, "192.0.2.1:9005"), (&machine.host, "127.0.0.1:9005")].map(|(ns, address)| {
            let (done, is_over) = (Arc::clone(&done), Arc::clone(&is_over));
            ns.spawn(move || {
                let mut failures = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    failures.extend(Client::connect(address).err());
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        });
        for change in 0..CHANGES {
            let first = 5 + (change % 5) as u8;
            let backends: Vec<_> = if change % 2 == 0 { vec![backend(first)] } else { (5..10).map(backend).collect() };
            net.set_service(SERVICE, group(vec![PORT], backends), ClientAddress::Kept).await.unwrap();
            if change % 2 == 0 {
                net.reconcile(&(5..10).map(|last| container(&format!("task{last}x"))).collect()).await.unwrap();
            }
            let goal = done.load(Ordering::Relaxed) + CONNECTIONS_PER_CHANGE;
            while done.load(Ordering::Relaxed) < goal {
                std::thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            let failures = client.join().unwrap();
            assert!(failures.is_empty(), "{failures:?}");
        }
        drop(servers);
        clear(machine, &net).await;
    });
}
