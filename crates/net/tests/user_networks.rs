//! Networks of the user's own on one machine: who reaches whom, names, ways out, what is refused, what lasts.

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;

use net::{
    BridgeEndpointSpec, BridgeNetworkSpec, Connection, DnsNetwork, Net, NetError, PortBinding, Protocol, Sandbox,
    SandboxMode, SandboxSpec,
};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};
use support::{CLIENT_ADDRESS, Machine, Ns, Server, container, greet, machine, ping_within};

const SOON: Duration = Duration::from_millis(400);
/// How long an answer that must come may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn network(name: &str, subnet: &str) -> BridgeNetworkSpec {
    BridgeNetworkSpec { name: name.to_owned(), subnet: subnet.parse().ok(), ..BridgeNetworkSpec::default() }
}

/// A container on networks, by id and name, with one more name on each.
fn spec(word: &str, networks: &[(&str, &str)]) -> SandboxSpec {
    let mut spec = SandboxSpec::new(&container(word), word, SandboxMode::Networks);
    for (id, name) in networks {
        let names = vec![word.to_owned(), format!("{word}-alias")];
        spec.bridges.push(BridgeEndpointSpec { names, ..BridgeEndpointSpec::new(id) });
        spec.dns_networks.push(dns(id, name));
    }
    spec
}

fn dns(id: &str, name: &str) -> DnsNetwork {
    DnsNetwork { id: id.to_owned(), name: name.to_owned(), aliases: Default::default() }
}

async fn run(net: &Net, spec: SandboxSpec) -> (Sandbox, Ns) {
    let sandbox = net.create_sandbox(spec).await.unwrap();
    let ns = Ns::at(sandbox.netns.as_ref().unwrap());
    (sandbox, ns)
}

/// What a name leads to, asked in a namespace while the servers of this runtime go on.
async fn resolve(ns: &Ns, name: &str) -> Vec<Ipv4Addr> {
    let mut packet = Packet::new_query(7);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).unwrap().into_owned();
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false));
    let question = packet.build_bytes_vec().unwrap();
    let asked = ns.spawn(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        socket.send(&question).unwrap();
        let mut buffer = [0; 1024];
        let len = socket.recv(&mut buffer).unwrap();
        let answer = Packet::parse(&buffer[..len]).unwrap();
        let address = |data: &RData<'_>| match data {
            RData::A(A { address }) => Some(Ipv4Addr::from(*address)),
            _ => None,
        };
        answer.answers.iter().filter_map(|record| address(&record.rdata)).collect()
    });
    tokio::task::spawn_blocking(move || asked.join().unwrap()).await.unwrap()
}

fn default_route(ns: &Ns) -> String {
    let routes = ns.output("ip", &["route"]);
    routes.lines().find(|line| line.starts_with("default")).unwrap_or_default().trim().to_owned()
}

fn publish(host_port: u16) -> PortBinding {
    PortBinding { protocol: Protocol::Tcp, container_port: 80, host_address: None, host_port, host_port_end: 0 }
}

fn own_address(sandbox: &Sandbox) -> Ipv4Addr {
    sandbox.endpoints[0].address.address
}

#[test]
fn containers_of_one_network_find_each_other_and_no_others() {
    machine(async |machine| {
        let net = machine.net().await;
        let front = net.create_network(network("front", "10.10.1.0/24")).await.unwrap();
        let back = net.create_network(network("back", "")).await.unwrap();
        let (web, web_ns) = run(&net, spec("web", &[(&front, "front")])).await;
        let (shop, shop_ns) = run(&net, spec("shop", &[(&front, "front")])).await;
        let (db, db_ns) = run(&net, spec("db", &[(&back, "back")])).await;
        let (_, plain_ns) = run(&net, SandboxSpec::new(&container("plain"), "plain", SandboxMode::Bridge)).await;
        assert_eq!(
            (web.endpoints[0].address.to_string().as_str(), own_address(&shop).octets()[3]),
            ("10.10.1.2/24", 3)
        );
        for name in ["shop", "SHOP-alias", "shop.front"] {
            assert_eq!(resolve(&web_ns, name).await, [own_address(&shop)], "{name}");
        }
        assert!(resolve(&db_ns, "shop").await.is_empty(), "another network's");
        assert!(ping_within(&web_ns, own_address(&shop), PATIENCE));
        for (ns, address) in [(&db_ns, &web), (&plain_ns, &web), (&web_ns, &db)] {
            assert!(!ping_within(ns, own_address(address), SOON), "{}", own_address(address));
        }
        // out into the world, and nothing in
        let world = Server::tcp_here(&machine.client, "world", 0);
        let outside = format!("{CLIENT_ADDRESS}:{}", world.port);
        assert_eq!(greet(&web_ns, &outside).as_deref(), Ok("world 192.0.2.1"));
        machine.client.output("ip", &["route", "add", "10.10.1.0/24", "via", "192.0.2.1"]);
        let served = Server::tcp(web.netns.as_ref().unwrap(), "web", 80);
        let hidden = machine.client.run(|| TcpStream::connect_timeout(&"10.10.1.2:80".parse().unwrap(), SOON).is_err());
        assert!(hidden);
        net.rename(&container("shop"), "store").unwrap();
        assert_eq!(resolve(&web_ns, "store").await, [own_address(&shop)]);
        assert!(resolve(&web_ns, "shop").await.is_empty());
        net.remove_sandbox(&container("shop")).await.unwrap();
        assert!(resolve(&web_ns, "store").await.is_empty());
        drop((shop_ns, world, served));
        net.destroy().await.unwrap();
        machine.assert_nothing_left();
    });
}

#[test]
fn an_internal_network_leads_nowhere() {
    machine(async |machine| {
        let net = machine.net().await;
        let inner = BridgeNetworkSpec { internal: true, ..network("inner", "10.10.1.0/24") };
        let inner = net.create_network(inner).await.unwrap();
        let outer = net.create_network(network("outer", "10.10.2.0/24")).await.unwrap();
        let mut published = spec("one", &[(&inner, "inner")]);
        published.ports.push(publish(8080));
        let (one, one_ns) = run(&net, published).await;
        let (two, two_ns) = run(&net, spec("two", &[(&inner, "inner")])).await;
        let (other, other_ns) = run(&net, spec("other", &[(&outer, "outer")])).await;
        assert!(ping_within(&one_ns, own_address(&two), PATIENCE));
        assert_eq!((default_route(&one_ns).as_str(), one.ports.len()), ("", 0));
        // not even by a route of its own
        one_ns.output("ip", &["route", "add", "default", "via", "10.10.1.1"]);
        assert!(!ping_within(&one_ns, CLIENT_ADDRESS.parse().unwrap(), SOON));
        assert!(!ping_within(&one_ns, own_address(&other), SOON));
        assert!(!ping_within(&other_ns, own_address(&one), SOON));
        assert!(greet(&machine.client, "192.0.2.1:8080").is_err());
        drop(two_ns);
        net.destroy().await.unwrap();
        machine.assert_nothing_left();
    });
}

#[test]
fn a_running_container_changes_networks() {
    machine(async |machine| {
        let net = machine.net().await;
        let app = net.create_network(network("app", "10.10.1.0/24")).await.unwrap();
        let zone = net.create_network(network("zone", "10.10.2.0/24")).await.unwrap();
        let bridge = net.networks()[0].id.clone();
        let (db, _db_ns) = run(&net, spec("db", &[(&app, "app")])).await;
        let mut start = SandboxSpec::new(&container("web"), "web", SandboxMode::Networks);
        start.bridges.push(BridgeEndpointSpec::new(&bridge));
        start.ports.push(publish(8080));
        let (web, ns) = run(&net, start).await;
        let served = Server::tcp(web.netns.as_ref().unwrap(), "web", 80);
        assert_eq!(greet(&machine.client, "192.0.2.1:8080").as_deref(), Ok("web 192.0.2.100"));
        assert!(!net.etc_files(&container("web")).unwrap().resolv_conf.contains("127.0.0.11"));
        let connect = async |id: &str, address: Option<&str>| {
            let address = address.map(|address| address.parse().unwrap());
            let names = vec!["web".to_owned(), "www".to_owned()];
            let spec = BridgeEndpointSpec { address, names, ..BridgeEndpointSpec::new(id) };
            net.connect(&container("web"), Connection::Bridge(spec), [("d".to_owned(), "db".to_owned())].into()).await
        };
        let endpoint = connect(&app, Some("10.10.1.9")).await.unwrap();
        assert_eq!((endpoint.link.as_str(), endpoint.address.to_string().as_str()), ("eth1", "10.10.1.9/24"));
        assert_eq!(connect(&app, Some("10.10.1.9")).await.unwrap(), endpoint);
        assert!(matches!(connect(&app, None).await, Err(NetError::EndpointExists { .. })));
        assert_eq!(resolve(&ns, "db").await, [own_address(&db)]);
        assert_eq!(resolve(&ns, "d").await, [own_address(&db)], "linked");
        let files = net.etc_files(&container("web")).unwrap();
        assert!(files.resolv_conf.contains("nameserver 127.0.0.11") && files.hosts.contains("10.10.1.9\tweb"));
        // of several networks the first by name leads out, and the ports follow
        assert_eq!(default_route(&ns), "default via 10.10.1.1 dev eth1 proto static");
        assert_eq!(greet(&machine.client, "192.0.2.1:8080").as_deref(), Ok("web 192.0.2.100"));
        connect(&zone, None).await.unwrap();
        net.disconnect(&container("web"), &app).await.unwrap();
        assert_eq!(default_route(&ns), "default via 172.17.0.1 dev eth0 proto static");
        net.disconnect(&container("web"), &bridge).await.unwrap();
        assert_eq!(default_route(&ns), "default via 10.10.2.1 dev eth2 proto static");
        assert_eq!(greet(&machine.client, "192.0.2.1:8080").as_deref(), Ok("web 192.0.2.100"));
        assert!(resolve(&ns, "db").await.is_empty());
        net.disconnect(&container("web"), &zone).await.unwrap();
        assert_eq!(default_route(&ns), "");
        assert!(greet(&machine.client, "192.0.2.1:8080").is_err());
        let error = net.disconnect(&container("web"), &zone).await.unwrap_err().to_string();
        assert!(error.contains("is not connected to network"), "{error}");
        connect(&bridge, None).await.unwrap();
        assert_eq!(greet(&machine.client, "192.0.2.1:8080").as_deref(), Ok("web 192.0.2.100"));
        drop(served);
        net.destroy().await.unwrap();
        machine.assert_nothing_left();
    });
}

#[test]
fn addresses_are_given_once_and_within_their_range() {
    machine(async |machine| {
        let net = machine.net().await;
        let small = BridgeNetworkSpec {
            range: "10.10.1.8/30".parse().ok(),
            gateway: "10.10.1.1".parse().ok(),
            reserved: [("printer".to_owned(), Ipv4Addr::new(10, 10, 1, 10))].into(),
            ..network("small", "10.10.1.0/24")
        };
        let id = net.create_network(small).await.unwrap();
        let shown = net.networks().into_iter().find(|network| network.id == id).unwrap();
        let subnet = &shown.subnets[0];
        assert_eq!((subnet.gateway.to_string().as_str(), subnet.range), ("10.10.1.1", "10.10.1.8/30".parse().ok()));
        let mut given = BTreeSet::new();
        for word in ["a", "b", "c"] {
            given.insert(own_address(&run(&net, spec(word, &[(&id, "small")])).await.0).octets()[3]);
        }
        assert_eq!(given, BTreeSet::from([8, 9, 11]));
        let full = net.create_sandbox(spec("d", &[(&id, "small")])).await.unwrap_err();
        assert!(matches!(full, NetError::NoFreeAddress { .. }), "{full}");
        let ask = async |word: &str, address: &str| {
            let mut wanted = spec(word, &[(&id, "small")]);
            wanted.bridges[0].address = address.parse().ok();
            net.create_sandbox(wanted).await.map(|sandbox| own_address(&sandbox).to_string())
        };
        assert_eq!(ask("e", "10.10.1.100").await.unwrap(), "10.10.1.100", "outside of the range, when asked for");
        for (address, text) in [
            ("10.10.1.1", "Address already in use"),
            ("10.10.1.100", "Address already in use"),
            ("10.10.1.255", "Address already in use"),
            ("10.9.1.1", "no configured subnet or ip-range contain the IP address 10.9.1.1"),
        ] {
            let error = ask("f", address).await.unwrap_err().to_string();
            assert!(error.ends_with(text), "{error}");
        }
        let auto = net.create_network(network("auto", "")).await.unwrap();
        let mut wanted = spec("f", &[(&auto, "auto")]);
        wanted.bridges[0].address = "172.18.0.9".parse().ok();
        let error = net.create_sandbox(wanted).await.unwrap_err().to_string();
        assert!(error.contains("only when connecting to networks with user configured subnets"), "{error}");
        net.destroy().await.unwrap();
        machine.assert_nothing_left();
    });
}

#[test]
fn networks_that_cannot_be_are_refused() {
    machine(async |machine| {
        let net = machine.net().await;
        let id = net.create_network(network("one", "10.10.1.0/24")).await.unwrap();
        let refusal = async |spec: BridgeNetworkSpec| net.create_network(spec).await.unwrap_err().to_string();
        assert_eq!(refusal(network("one", "")).await, "network with name one already exists");
        assert_eq!(refusal(network("bridge", "")).await, "network with name bridge already exists");
        let overlap = "invalid pool request: Pool overlaps with other one on this address space";
        assert_eq!(refusal(network("two", "10.10.0.0/16")).await, overlap);
        assert_eq!(refusal(network("two", "172.17.3.0/24")).await, overlap);
        let option = |value: &str| [("com.docker.network.bridge.name".to_owned(), value.to_owned())].into();
        let same_link = BridgeNetworkSpec { options: option("skep0"), ..network("two", "") };
        assert_eq!(refusal(same_link).await, "bridge name skep0 is another network's");
        let (sandbox, _ns) = run(&net, spec("web", &[(&id, "one")])).await;
        let used = net.remove_network(&id).await.unwrap_err().to_string();
        let endpoint = &sandbox.endpoints[0].endpoint_id[..12];
        assert_eq!(used, format!("network one has active endpoints (name:\"web\" id:\"{endpoint}\")"));
        net.remove_sandbox(&container("web")).await.unwrap();
        net.remove_network(&id).await.unwrap();
        assert!(matches!(net.remove_network(&id).await, Err(NetError::NoNetwork(_))));
        // a link that was there before is used, and stays
        machine.host.output("ip", &["link", "add", "lan0", "type", "bridge"]);
        let own = BridgeNetworkSpec { options: option("lan0"), ..network("own", "10.10.1.0/24") };
        let own = net.create_network(own).await.unwrap();
        net.remove_network(&own).await.unwrap();
        machine.host.output("ip", &["link", "del", "lan0"]);
        net.destroy().await.unwrap();
        machine.assert_nothing_left();
    });
}

#[test]
fn networks_outlive_the_daemon_and_their_containers_go_on() {
    machine(async |machine| {
        let net = machine.net().await;
        let id = net.create_network(network("app", "10.10.1.0/24")).await.unwrap();
        let labelled = BridgeNetworkSpec { labels: [("a".to_owned(), "b".to_owned())].into(), ..network("gone", "") };
        let gone = net.create_network(labelled).await.unwrap();
        let (db, _) = run(&net, spec("db", &[(&id, "app")])).await;
        let mut published = spec("web", &[(&id, "app")]);
        published.ports.push(publish(8080));
        let (web, ns) = run(&net, published).await;
        let before = net.networks();
        drop(net);
        // as after a reboot
        let gone_link = format!("br-{}", &gone[..12]);
        machine.host.output("ip", &["link", "del", &gone_link]);
        let net = machine.net().await;
        let known = [container("db"), container("web")].into();
        assert_eq!(net.reconcile(&known).await.unwrap(), Default::default());
        assert_eq!(net.networks(), before);
        machine.host.output("ip", &["link", "show", &gone_link]);
        assert_eq!(resolve(&ns, "db").await, [own_address(&db)]);
        assert!(ping_within(&ns, own_address(&db), PATIENCE));
        let served = Server::tcp(web.netns.as_ref().unwrap(), "web", 80);
        assert_eq!(greet(&machine.client, "192.0.2.1:8080").as_deref(), Ok("web 192.0.2.100"));
        let (third, _) = run(&net, spec("third", &[(&id, "app")])).await;
        assert_eq!(third.endpoints[0].address.address, IpAddr::V4(Ipv4Addr::new(10, 10, 1, 4)));
        drop(served);
        net.destroy().await.unwrap();
        assert!(unused(machine));
        machine.assert_nothing_left();
    });
}

fn unused(machine: &Machine) -> bool {
    !machine.host.output("ip", &["-br", "link"]).contains("br-")
}
