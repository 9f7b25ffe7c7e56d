//! Service discovery in sandboxes: a real client in the container's namespace, and name servers of our own behind it.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use net::{
    DnsConfig, DnsNetwork, IngressEndpointSpec, NameRecord, Net, NetError, Sandbox, SandboxMode, SandboxSpec,
    ServiceNames,
};
use simple_dns::rdata::{A, OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};
use support::{CLIENT_ADDRESS, Machine, Ns, container, ingress_spec, machine};

const SERVER: &str = "127.0.0.11:53";
const PATIENCE: Duration = Duration::from_secs(20);

fn network(name: &str) -> DnsNetwork {
    DnsNetwork { id: format!("id-{name}"), name: name.to_owned(), aliases: BTreeMap::new() }
}

fn record(network: &str, name: &str, last: u8) -> NameRecord {
    NameRecord {
        network_id: format!("id-{network}"),
        endpoint_id: format!("{name}-{last}"),
        owner: "node".into(),
        name: name.into(),
        task_aliases: vec![],
        service: None,
        address: Ipv4Addr::new(10, 0, 1, last),
        address_v6: None,
        is_disabled: false,
    }
}

fn task(network: &str, index: u8, virtual_ip: Option<Ipv4Addr>) -> NameRecord {
    let service = Some(ServiceNames { name: "web".into(), aliases: vec!["shop".into()], virtual_ip });
    NameRecord { service, ..record(network, &format!("web.{index}.x"), 10 + index) }
}

fn spec(word: &str, mode: SandboxMode, networks: &[&str]) -> SandboxSpec {
    let mut spec = SandboxSpec::new(&container(word), word, mode);
    spec.dns_networks = networks.iter().map(|name| network(name)).collect();
    spec
}

async fn sandbox(net: &Net, spec: SandboxSpec) -> Sandbox {
    net.create_sandbox(spec).await.unwrap()
}

/// Runs a client while the servers of this runtime go on.
async fn inside<T: Send + 'static>(sandbox: &Sandbox, work: impl FnOnce() -> T + Send + 'static) -> T {
    let ns = Ns::at(sandbox.netns.as_ref().unwrap());
    tokio::task::spawn_blocking(move || ns.run(work)).await.unwrap()
}

fn question(id: u16, name: &str, kind: TYPE, udp_bytes: Option<u16>) -> Vec<u8> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).unwrap().into_owned();
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    *packet.opt_mut() = udp_bytes.map(|udp_packet_size| OPT { opt_codes: vec![], udp_packet_size, version: 0 });
    packet.build_bytes_vec().unwrap()
}

fn client() -> UdpSocket {
    client_of(SERVER)
}

fn client_of(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn exchange(socket: &UdpSocket, message: &[u8]) -> Vec<u8> {
    socket.send(message).unwrap();
    let mut buffer = [0; 65535];
    let len = socket.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(SERVER).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn exchange_tcp(stream: &mut TcpStream, message: &[u8]) -> Vec<u8> {
    stream.write_all(&[&(message.len() as u16).to_be_bytes(), message].concat()).unwrap();
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut answer).unwrap();
    answer
}

/// What an answer says: code, addresses or names in order, and whether it is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    code: RCODE,
    said: Vec<String>,
    is_cut: bool,
}

fn parse(bytes: &[u8], id: u16) -> Answer {
    let packet = Packet::parse(bytes).unwrap();
    assert_eq!(packet.id(), id);
    let said = packet.answers.iter().map(|answer| match &answer.rdata {
        RData::A(a) => Ipv4Addr::from(a.address).to_string(),
        RData::PTR(name) => name.0.to_string(),
        other => format!("{other:?}"),
    });
    let is_cut = packet.has_flags(PacketFlag::TRUNCATION);
    Answer { code: packet.rcode(), said: said.collect(), is_cut }
}

async fn ask(sandbox: &Sandbox, name: &str, kind: TYPE) -> (RCODE, BTreeSet<String>) {
    let name = name.to_owned();
    let answer = inside(sandbox, move || parse(&exchange(&client(), &question(7, &name, kind, None)), 7)).await;
    (answer.code, answer.said.into_iter().collect())
}

async fn check(sandbox: &Sandbox, name: &str, expected: &[&str]) {
    let expected: BTreeSet<_> = expected.iter().map(|address| (*address).to_owned()).collect();
    assert_eq!(ask(sandbox, name, TYPE::A).await, (RCODE::NoError, expected), "{name}");
}

/// A name server of the world: answers every name with one address, except for some words.
struct World {
    listener: i32,
    threads: Vec<JoinHandle<()>>,
    is_stopped: Arc<AtomicBool>,
}

impl World {
    fn start(ns: &Ns, address: &str, answer: &str) -> Self {
        let (address, answer) = (address.to_owned(), answer.parse::<Ipv4Addr>().unwrap());
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (udp, tcp) = ns.run(move || {
            let udp = UdpSocket::bind((address.as_str(), 53)).unwrap();
            udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            (udp, TcpListener::bind((address.as_str(), 53)).unwrap())
        });
        let listener = tcp.as_raw_fd();
        let (flag, tcp_flag) = (Arc::clone(&is_stopped), Arc::clone(&is_stopped));
        let udp = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !flag.load(Ordering::Acquire) {
                if let Ok((len, peer)) = udp.recv_from(&mut buffer) {
                    serve_udp(&udp, &buffer[..len], peer, answer);
                }
            }
        });
        let tcp = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = tcp.accept() {
                if tcp_flag.load(Ordering::Acquire) {
                    break;
                }
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
                stream.read_exact(&mut message).unwrap();
                let bytes = reply(&message, answer, 200, false);
                stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()).unwrap();
            }
        });
        Self { listener, threads: vec![udp, tcp], is_stopped }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Release);
        // wakes the thread out of accept
        let _ = nix::sys::socket::shutdown(self.listener, nix::sys::socket::Shutdown::Both);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// `hole` is not answered, `fail` fails, `forged` is answered wrongly first, `big` needs a connection.
fn serve_udp(socket: &UdpSocket, message: &[u8], peer: SocketAddr, answer: Ipv4Addr) {
    let name = Packet::parse(message).unwrap().questions[0].qname.to_string();
    let send = |bytes: &[u8]| assert!(socket.send_to(bytes, peer).is_ok());
    if name.starts_with("hole") {
        return;
    }
    if name.starts_with("fail") {
        let mut bytes = reply(message, answer, 0, false);
        bytes[3] |= 2;
        return send(&bytes);
    }
    if name.starts_with("forged") {
        let mut bytes = reply(message, Ipv4Addr::new(6, 6, 6, 6), 1, false);
        bytes[1] ^= 1;
        send(&bytes);
        bytes[1] ^= 1;
        bytes[13] = b'g';
        send(&bytes);
        send(&[1, 2, 3]);
    }
    send(&reply(message, answer, if name.starts_with("big") { 0 } else { 1 }, name.starts_with("big")));
}

fn reply(message: &[u8], answer: Ipv4Addr, count: u32, is_cut: bool) -> Vec<u8> {
    let query = Packet::parse(message).unwrap();
    let mut packet = Packet::new_reply(query.id());
    if is_cut {
        packet.set_flags(PacketFlag::TRUNCATION);
    }
    let name = query.questions[0].qname.clone();
    for index in 0..count {
        let data = RData::A(A { address: u32::from(answer) + index });
        packet.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, 60, data));
    }
    packet.questions = query.questions.clone();
    packet.build_bytes_vec().unwrap()
}

fn write_host_conf(machine: &Machine, text: &str) -> net::NetConfig {
    let path = machine.root.path().join("resolv.conf");
    std::fs::write(&path, text).unwrap();
    net::NetConfig { host_resolv_conf: path, ..machine.config() }
}

async fn finish(machine: &Machine, net: Net) {
    net.destroy().await.unwrap();
    machine.assert_nothing_left();
}

#[test]
fn members_of_a_network_find_each_other() {
    machine(async |machine| {
        let net = Net::open(write_host_conf(machine, "search example.org\n")).await.unwrap();
        let one = sandbox(&net, spec("c1", SandboxMode::Bridge, &["front", "back"])).await;
        let plain = sandbox(&net, spec("c2", SandboxMode::Bridge, &[])).await;
        let names = net.names();
        names.upsert(task("front", 1, Some(Ipv4Addr::new(10, 0, 1, 2))));
        names.upsert(task("back", 2, None));
        names.upsert(task("back", 3, None));
        check(&one, "web", &["10.0.1.2"]).await;
        check(&one, "Tasks.WEB", &["10.0.1.11"]).await;
        check(&one, "shop.back", &["10.0.1.12", "10.0.1.13"]).await;
        check(&one, "web.2.x", &["10.0.1.12"]).await;
        assert_eq!(ask(&one, "web", TYPE::AAAA).await, (RCODE::NoError, BTreeSet::new()));
        let name = BTreeSet::from(["web.1.x.front".to_owned()]);
        assert_eq!(ask(&one, "11.1.0.10.in-addr.arpa", TYPE::PTR).await, (RCODE::NoError, name));
        // nobody knows, and there is nobody else to ask
        assert_eq!(ask(&one, "nobody", TYPE::A).await, (RCODE::ServerFailure, BTreeSet::new()));
        names.remove("id-back", "web.2.x-12", "node");
        check(&one, "tasks.web.back", &["10.0.1.13"]).await;
        let output = inside(&one, || {
            let output =
                std::process::Command::new("busybox").args(["nslookup", "web", "127.0.0.11"]).output().unwrap();
            (output.status.success(), String::from_utf8(output.stdout).unwrap())
        });
        let (is_success, text) = output.await;
        assert!(is_success && text.contains("Address: 10.0.1.2\n"), "{text}");
        let text = net.etc_files(&container("c1")).unwrap().resolv_conf;
        assert!(text.contains("nameserver 127.0.0.11\nsearch example.org\noptions ndots:0\n"), "{text}");
        let text = net.etc_files(&container("c2")).unwrap().resolv_conf;
        assert!(!text.contains("127.0.0.11"), "{text}");
        let is_answered = inside(&plain, || {
            let socket = client();
            socket.send(&[0; 12]).is_ok() && socket.recv(&mut [0]).is_ok()
        });
        assert!(!is_answered.await);
        finish(machine, net).await;
    });
}

#[test]
fn a_container_keeps_port_53_for_itself() {
    machine(async |machine| {
        let net = Net::open(write_host_conf(machine, "")).await.unwrap();
        let one = sandbox(&net, spec("c1", SandboxMode::Bridge, &["front"])).await;
        net.names().upsert(record("front", "db", 9));
        let own = World::start(&Ns::at(one.netns.as_ref().unwrap()), "0.0.0.0", "7.7.7.7");
        check(&one, "db", &["10.0.1.9"]).await;
        let address = one.endpoints[0].address.address;
        for to in [format!("{address}:53"), "127.0.0.1:53".to_owned()] {
            let answer = inside(&one, move || parse(&exchange(&client_of(&to), &question(3, "db", TYPE::A, None)), 3));
            assert_eq!(answer.await.said, ["7.7.7.7"]);
        }
        drop(own);
        finish(machine, net).await;
    });
}

#[test]
fn what_does_not_fit_into_a_datagram_is_asked_again_by_tcp() {
    machine(async |machine| {
        let net = Net::open(write_host_conf(machine, "")).await.unwrap();
        let one = sandbox(&net, spec("c1", SandboxMode::Bridge, &["front"])).await;
        for index in 1..=80 {
            net.names().upsert(task("front", index, None));
        }
        let (plain, roomy, tcp, again) = inside(&one, || {
            let socket = client();
            let plain = parse(&exchange(&socket, &question(1, "web", TYPE::A, None)), 1);
            let roomy = parse(&exchange(&socket, &question(2, "web", TYPE::A, Some(4096))), 2);
            let mut stream = connect();
            let tcp = parse(&exchange_tcp(&mut stream, &question(3, "web", TYPE::A, None)), 3);
            let again = parse(&exchange_tcp(&mut stream, &question(4, "web", TYPE::A, None)), 4);
            (plain, roomy, tcp, again)
        })
        .await;
        assert_eq!((plain.is_cut, plain.said.len()), (true, 30));
        assert_eq!((roomy.is_cut, roomy.said.len()), (false, 80));
        assert_eq!((tcp.is_cut, tcp.said.len()), (false, 80));
        // the same tasks, in another order
        assert_ne!(tcp.said, again.said);
        assert_eq!(BTreeSet::from_iter(tcp.said), BTreeSet::from_iter(again.said));
        finish(machine, net).await;
    });
}

#[test]
fn what_nobody_knows_is_asked_of_the_hosts_servers() {
    machine(async |machine| {
        let conf = "nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\nnameserver 127.0.0.4\n";
        let net = Net::open(write_host_conf(machine, conf)).await.unwrap();
        let one = sandbox(&net, spec("c1", SandboxMode::Bridge, &["front"])).await;
        // nobody is at the second
        let first = World::start(&machine.host, "127.0.0.1", "1.1.1.1");
        let third = World::start(&machine.host, "127.0.0.3", "3.3.3.3");
        check(&one, "example.org", &["1.1.1.1"]).await;
        check(&one, "forged.example.org", &["1.1.1.1"]).await;
        let (cut, whole) = inside(&one, || {
            let cut = parse(&exchange(&client(), &question(1, "big.example.org", TYPE::A, None)), 1);
            (cut, parse(&exchange_tcp(&mut connect(), &question(2, "big.example.org", TYPE::A, None)), 2))
        })
        .await;
        assert_eq!((cut.is_cut, cut.said.len(), whole.said.len()), (true, 0, 200));
        // all fail
        assert_eq!(ask(&one, "fail.example.org", TYPE::A).await, (RCODE::ServerFailure, BTreeSet::new()));
        drop(first);
        check(&one, "example.org", &["3.3.3.3"]).await;
        drop(third);
        // the fourth is not asked
        let fourth = World::start(&machine.host, "127.0.0.4", "4.4.4.4");
        assert_eq!(ask(&one, "example.org", TYPE::A).await, (RCODE::ServerFailure, BTreeSet::new()));
        drop(fourth);
        finish(machine, net).await;
    });
}

#[test]
fn tasks_of_the_mesh_ask_too() {
    machine(async |machine| {
        let net = Net::open(write_host_conf(machine, "nameserver 127.0.0.1\n")).await.unwrap();
        net.overlay_ensure(ingress_spec()).await.unwrap();
        let world = World::start(&machine.host, "127.0.0.1", "1.1.1.1");
        let mut spec = spec("c1", SandboxMode::Swarm, &["front"]);
        let (network_id, address) = (ingress_spec().network_id, "10.0.0.5/24".parse().unwrap());
        spec.ingress = Some(IngressEndpointSpec { network_id, address, ports: vec![] });
        let one = sandbox(&net, spec).await;
        net.names().upsert(record("front", "db", 9));
        check(&one, "db", &["10.0.1.9"]).await;
        check(&one, "example.org", &["1.1.1.1"]).await;
        drop(world);
        net.remove_sandbox(&container("c1")).await.unwrap();
        net.ingress_remove().await.unwrap();
        finish(machine, net).await;
    });
}

#[test]
fn servers_of_the_user_are_asked_from_the_container() {
    machine(async |machine| {
        let net = Net::open(write_host_conf(machine, "nameserver 127.0.0.1\n")).await.unwrap();
        let host = World::start(&machine.host, "127.0.0.1", "1.1.1.1");
        let beyond = World::start(&machine.client, CLIENT_ADDRESS, "2.2.2.2");
        let dns = |servers: &[&str]| DnsConfig {
            servers: servers.iter().map(|server| (*server).to_owned()).collect(),
            ..DnsConfig::default()
        };
        let mut out = spec("c1", SandboxMode::Bridge, &["front"]);
        out.dns = dns(&["127.0.0.11", CLIENT_ADDRESS]);
        let out = sandbox(&net, out).await;
        check(&out, "example.org", &["2.2.2.2"]).await;
        let whole =
            inside(&out, || parse(&exchange_tcp(&mut connect(), &question(2, "example.org", TYPE::A, None)), 2));
        assert_eq!(whole.await.said.len(), 200);
        // no way out: the host is not asked, a server within reach is
        let shut = sandbox(&net, spec("c2", SandboxMode::None, &["front"])).await;
        net.names().upsert(record("front", "db", 9));
        check(&shut, "db", &["10.0.1.9"]).await;
        assert_eq!(ask(&shut, "example.org", TYPE::A).await, (RCODE::ServerFailure, BTreeSet::new()));
        let mut near = spec("c3", SandboxMode::None, &["front"]);
        near.dns = dns(&["127.0.0.1"]);
        let near = sandbox(&net, near).await;
        let own = World::start(&Ns::at(near.netns.as_ref().unwrap()), "127.0.0.1", "3.3.3.3");
        check(&near, "example.org", &["3.3.3.3"]).await;
        drop((host, beyond, own));
        finish(machine, net).await;
    });
}

#[test]
fn a_new_daemon_goes_on_where_the_old_one_stopped() {
    machine(async |machine| {
        let config = write_host_conf(machine, "");
        let net = Net::open(config.clone()).await.unwrap();
        let one = sandbox(&net, spec("c1", SandboxMode::Bridge, &["front"])).await;
        net.names().upsert(record("front", "db", 9));
        let ask_again = async |socket: &Arc<UdpSocket>| {
            let socket = Arc::clone(socket);
            inside(&one, move || parse(&exchange(&socket, &question(1, "db", TYPE::A, None)), 1).said).await
        };
        let socket = Arc::new(inside(&one, client).await);
        assert_eq!(ask_again(&socket).await, ["10.0.1.9"]);
        let ns = Ns::at(one.netns.as_ref().unwrap());
        let rules = || ns.output("nft", &["list", "table", "ip", "skep-test-dns"]);
        let before = rules();
        drop(net);
        let net = Net::open(config.clone()).await.unwrap();
        net.names().upsert(record("front", "db", 8));
        assert_eq!(ask_again(&socket).await, ["10.0.1.8"]);
        check(&one, "db", &["10.0.1.8"]).await;
        assert_eq!(rules(), before);
        // a program of the container takes the port between two daemons
        drop(net);
        let (_, port) = before.split_once("udp dport 53 dnat to 127.0.0.11:").unwrap();
        let port: u16 = port.lines().next().unwrap().parse().unwrap();
        let thief = take_port(&one, port).await;
        let net = Net::open(config).await.unwrap();
        net.names().upsert(record("front", "db", 7));
        // a client that keeps its socket is led to the new one
        assert_eq!(ask_again(&socket).await, ["10.0.1.7"]);
        check(&one, "db", &["10.0.1.7"]).await;
        let after = rules();
        assert_eq!(before.lines().count(), after.lines().count());
        assert_ne!(before, after);
        drop(thief);
        net.reconcile(&BTreeSet::from([container("c1")])).await.unwrap();
        check(&one, "db", &["10.0.1.7"]).await;
        finish(machine, net).await;
    });
}

/// Takes the port of a name server once that is gone.
async fn take_port(sandbox: &Sandbox, port: u16) -> UdpSocket {
    let begin = Instant::now();
    loop {
        match inside(sandbox, move || UdpSocket::bind(("127.0.0.11", port))).await {
            Ok(socket) => return socket,
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
        }
    }
}

#[test]
fn a_container_that_asks_without_end_does_not_stop_the_others() {
    machine(async |machine| {
        let net = Net::open(write_host_conf(machine, "nameserver 127.0.0.1\n")).await.unwrap();
        let world = World::start(&machine.host, "127.0.0.1", "1.1.1.1");
        let greedy = sandbox(&net, spec("c1", SandboxMode::Bridge, &["front"])).await;
        let modest = sandbox(&net, spec("c2", SandboxMode::Bridge, &["front"])).await;
        net.names().upsert(record("front", "db", 9));
        // until no more may wait
        let (flood, sent) = inside(&greedy, || {
            let socket = client();
            socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let (mut buffer, mut sent) = ([0; 512], 0);
            loop {
                socket.send(&question(1, "hole.example.org", TYPE::A, None)).unwrap();
                sent += 1;
                if sent % 40 == 0
                    && let Ok(len) = socket.recv(&mut buffer)
                {
                    assert_eq!(parse(&buffer[..len], 1).code, RCODE::Refused);
                    return (socket, sent);
                }
            }
        })
        .await;
        assert!(sent > 1024, "{sent}");
        let begin = Instant::now();
        check(&modest, "example.org", &["1.1.1.1"]).await;
        check(&greedy, "db", &["10.0.1.9"]).await;
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        drop((flood, world));
        finish(machine, net).await;
    });
}

#[test]
fn a_name_server_needs_a_namespace_and_goes_with_it() {
    machine(async |machine| {
        let net = Net::open(write_host_conf(machine, "")).await.unwrap();
        let host = net.create_sandbox(spec("c0", SandboxMode::Host, &["front"])).await;
        assert!(matches!(host, Err(NetError::Invalid(_))), "{host:?}");
        sandbox(&net, spec("c1", SandboxMode::Bridge, &["front"])).await;
        // who shares the namespace shares the server
        let shared = sandbox(&net, spec("c2", SandboxMode::Container(container("c1")), &[])).await;
        assert!(net.etc_files(&container("c2")).unwrap().resolv_conf.contains("nameserver 127.0.0.11\n"));
        net.names().upsert(record("front", "db", 9));
        check(&shared, "db", &["10.0.1.9"]).await;
        net.remove_sandbox(&container("c2")).await.unwrap();
        check(&shared, "db", &["10.0.1.9"]).await;
        let ns = Ns::at(shared.netns.as_ref().unwrap());
        let sockets = || ns.output("ss", &["-Hlntu"]).lines().count();
        assert_eq!(sockets(), 2);
        // the namespace is kept open here: the sockets in it must be gone all the same
        net.remove_sandbox(&container("c1")).await.unwrap();
        assert_eq!(sockets(), 0);
        finish(machine, net).await;
    });
}
