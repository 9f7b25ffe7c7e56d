//! The default bridge, published ports, leftovers.

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use net::{Net, PortBinding, Protocol, SandboxMode, SandboxSpec};
use support::{CLIENT_ADDRESS, HOST_ADDRESS, Ns, Server, ask_udp, container, greet, machine, ping, udp_client};

fn publish(protocol: Protocol, container_port: u16, host_port: u16) -> PortBinding {
    PortBinding { protocol, container_port, host_address: None, host_port, host_port_end: 0 }
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    machine(async |machine| {
        let net = machine.net().await;
        assert_eq!(net.warnings(), Vec::<String>::new());
        let mut spec = SandboxSpec::new(&container("c1"), "web", SandboxMode::Bridge);
        spec.ports = vec![publish(Protocol::Tcp, 80, 8080), publish(Protocol::Udp, 53, 0)];
        let sandbox = net.create_sandbox(spec.clone()).await.unwrap();
        assert_eq!(net.create_sandbox(spec).await.unwrap(), sandbox);
        let other = net.create_sandbox(SandboxSpec::new(&container("c2"), "other", SandboxMode::Bridge)).await.unwrap();
        let netns = sandbox.netns.clone().unwrap();
        let endpoint = &sandbox.endpoints[0];
        assert_eq!(
            (endpoint.address.to_string().as_str(), endpoint.mac.as_str()),
            ("172.17.0.2/16", "02:42:ac:11:00:02")
        );
        {
            let _tcp = Server::tcp(&netns, "web", 80);
            let _hidden = Server::tcp(&netns, "hidden", 81);
            let _udp = Server::udp(&netns, "dns", 53);
            let inside = Ns::at(&other.netns.clone().unwrap());
            let own = Ns::at(&netns);
            let check = |ns: &Ns, address: &str, expected: &str| {
                assert_eq!(greet(ns, address).as_deref(), Ok(expected), "{address}");
            };
            check(&machine.client, "192.0.2.1:8080", &format!("web {CLIENT_ADDRESS}"));
            check(&machine.host, "127.0.0.1:8080", "web 172.17.0.1");
            check(&machine.host, "192.0.2.1:8080", &format!("web {HOST_ADDRESS}"));
            check(&machine.host, "172.17.0.1:8080", "web 172.17.0.1");
            check(&machine.host, "172.17.0.2:80", "web 172.17.0.1");
            check(&inside, "172.17.0.2:80", "web 172.17.0.3");
            check(&inside, "192.0.2.1:8080", "web 172.17.0.1");
            check(&own, "192.0.2.1:8080", "web 172.17.0.1");
            // routed past the published ports
            machine.client.output("ip", &["route", "add", "172.17.0.0/16", "via", HOST_ADDRESS]);
            let hidden = machine.client.run(|| {
                let address = "172.17.0.2:81".parse().unwrap();
                std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(300)).is_err()
            });
            assert!(hidden);
            let port = sandbox.ports[1].host_port;
            assert!((32768..=60999).contains(&port));
            for (ns, to, from) in
                [(&machine.client, HOST_ADDRESS, CLIENT_ADDRESS), (&machine.host, "127.0.0.1", "172.17.0.1")]
            {
                let socket = udp_client(ns, &format!("{to}:{port}"));
                assert_eq!(ask_udp(&socket).unwrap(), format!("dns {from}"));
            }
            // out into the world, masqueraded
            let client_server = Server::tcp_here(&machine.client, "world", 0);
            check(&own, &format!("{CLIENT_ADDRESS}:{}", client_server.port), &format!("world {HOST_ADDRESS}"));
            assert!(ping(&own, CLIENT_ADDRESS.parse().unwrap()));
            assert!(ping(&inside, Ipv4Addr::new(172, 17, 0, 2)));
        }
        net.remove_sandbox(&container("c1")).await.unwrap();
        net.remove_sandbox(&container("c1")).await.unwrap();
        assert!(greet(&machine.client, "192.0.2.1:8080").is_err());
        net.destroy().await.unwrap();
        machine.assert_nothing_left();
    });
}

#[test]
fn a_port_is_had_once() {
    machine(async |machine| {
        let net = machine.net().await;
        let spec = |word: &str, port| {
            let mut spec = SandboxSpec::new(&container(word), word, SandboxMode::Bridge);
            spec.ports = vec![publish(Protocol::Tcp, 80, 9000), publish(Protocol::Tcp, 80, port)];
            spec
        };
        net.create_sandbox(spec("c1", 9001)).await.unwrap();
        let error = net.create_sandbox(spec("c2", 9002)).await.unwrap_err().to_string();
        assert!(error.starts_with("driver failed programming external connectivity on endpoint c2 ("), "{error}");
        assert!(error.ends_with("): Bind for 0.0.0.0:9000 failed: port is already allocated"), "{error}");
        net.release_ports(&container("c1")).await.unwrap();
        let _other = std::net::TcpListener::bind("0.0.0.0:9003").unwrap();
        let error = net.create_sandbox(spec("c3", 9003)).await.unwrap_err().to_string();
        assert!(error.ends_with("): listen tcp4 0.0.0.0:9003: bind: address already in use"), "{error}");
        net.create_sandbox(spec("c4", 9004)).await.unwrap();
        net.destroy().await.unwrap();
        machine.assert_nothing_left();
    });
}

#[test]
fn sixteen_at_once() {
    machine(async |machine| {
        let net = machine.net().await;
        let made = (0..16).map(|index| {
            let net = net.clone();
            let mut spec = SandboxSpec::new(&container(&format!("c{index}x")), "c", SandboxMode::Bridge);
            spec.ports = vec![publish(Protocol::Tcp, 80, 0)];
            tokio::spawn(async move { net.create_sandbox(spec).await.unwrap() })
        });
        let mut addresses = BTreeSet::new();
        let mut ports = BTreeSet::new();
        for sandbox in made.collect::<Vec<_>>() {
            let sandbox = sandbox.await.unwrap();
            addresses.insert(sandbox.endpoints[0].address.address);
            ports.insert(sandbox.ports[0].host_port);
        }
        assert_eq!((addresses.len(), ports.len()), (16, 16));
        assert_eq!(net.networks()[0].containers.len(), 16);
        net.destroy().await.unwrap();
        machine.assert_nothing_left();
    });
}

#[test]
fn a_new_daemon_goes_on_and_clears_up() {
    machine(async |machine| {
        let net = machine.net().await;
        let id = net.networks()[0].id.clone();
        let mut spec = SandboxSpec::new(&container("c1"), "kept", SandboxMode::Bridge);
        spec.ports = vec![publish(Protocol::Tcp, 80, 8080)];
        let kept = net.create_sandbox(spec.clone()).await.unwrap();
        spec.container_id = container("c2");
        spec.ports = vec![publish(Protocol::Tcp, 80, 8081)];
        net.create_sandbox(spec.clone()).await.unwrap();
        spec.container_id = container("c3");
        spec.ports.clear();
        let lost = net.create_sandbox(spec).await.unwrap();
        let _server = Server::tcp(&kept.netns.clone().unwrap(), "kept", 80);
        drop(net);
        let lost_path = lost.netns.unwrap();
        nix::mount::umount(&lost_path).unwrap();
        std::fs::write(machine.netns_folder().join("stray"), "").unwrap();
        machine.host.output("nft", &["flush", "ruleset"]);
        machine.host.output("ip", &["link", "add", "veth0123abc", "type", "veth", "peer", "name", "p0"]);
        machine.host.output("ip", &["link", "set", "veth0123abc", "master", "skep0"]);

        let net: Net = machine.net().await;
        assert_eq!(net.networks()[0].id, id);
        let known = [container("c1"), container("c3")].into_iter().collect();
        let report = net.reconcile(&known).await.unwrap();
        assert_eq!(report.removed_sandboxes, [container("c2")]);
        assert_eq!(report.lost_sandboxes, [container("c3")]);
        assert_eq!(report.removed_namespaces, ["stray"]);
        assert_eq!(net.sandbox(&container("c1")).as_ref(), Some(&kept));
        let answer = greet(&machine.client, "192.0.2.1:8080");
        assert_eq!(answer, Ok(format!("kept {CLIENT_ADDRESS}")));
        assert!(std::net::TcpListener::bind("0.0.0.0:8080").is_err());
        assert!(std::net::TcpListener::bind("0.0.0.0:8081").is_ok());
        assert!(!machine.host.output("ip", &["-br", "link"]).contains("veth0123abc"));
        drop(_server);
        net.destroy().await.unwrap();
        machine.assert_nothing_left();
    });
}

#[test]
fn modes_and_files() {
    machine(async |machine| {
        let net = machine.net().await;
        let spec = |word: &str, mode| SandboxSpec::new(&container(word), word, mode);
        let web = net.create_sandbox(spec("c1", SandboxMode::Bridge)).await.unwrap();
        let host = net.create_sandbox(spec("c2", SandboxMode::Host)).await.unwrap();
        let none = net.create_sandbox(spec("c3", SandboxMode::None)).await.unwrap();
        let shared = net.create_sandbox(spec("c4", SandboxMode::Container(container("c1")))).await.unwrap();
        assert_eq!((host.netns, shared.netns), (None, web.netns.clone()));
        let links = Ns::at(&none.netns.unwrap()).output("ip", &["-br", "addr"]);
        assert!(links.contains("127.0.0.1/8") && !links.contains("eth0"), "{links}");
        let files = net.etc_files(&container("c1")).unwrap();
        assert!(files.hosts.ends_with("172.17.0.2\tc10000000000\n"), "{}", files.hosts);
        assert_eq!(files.hostname, "c10000000000\n");
        net.remove_sandbox(&container("c4")).await.unwrap();
        assert!(web.netns.unwrap().exists());
        let names: Vec<_> =
            net.networks().into_iter().map(|network| (network.name, network.containers.len())).collect();
        assert_eq!(names, [("bridge".to_owned(), 1), ("host".to_owned(), 1), ("none".to_owned(), 1)]);
        net.destroy().await.unwrap();
        machine.assert_nothing_left();
    });
}

#[test]
fn a_policy_of_drop_is_seen() {
    machine(async |machine| {
        machine.host.output(
            "nft",
            &["add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"],
        );
        let net = machine.net().await;
        let warnings = net.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("iptables -I FORWARD -i skep0 -j ACCEPT"), "{warnings:?}");
        net.destroy().await.unwrap();
        drop(net);
        machine.host.output("nft", &["delete table ip filter"]);
        // iptables' own tables are not in every kernel
        if !std::path::Path::new("/proc/thread-self/net/ip_tables_names").exists() {
            return;
        }
        for (policy, expected) in [("ACCEPT", 0), ("DROP", 1)] {
            machine.host.output("iptables-legacy", &["-w", "-P", "FORWARD", policy]);
            let net = machine.net().await;
            let warnings = net.warnings();
            assert_eq!(
                warnings.iter().filter(|text| text.contains("iptables-legacy -I")).count(),
                expected,
                "{warnings:?}"
            );
            net.destroy().await.unwrap();
        }
    });
}
