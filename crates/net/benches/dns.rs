//! What name servers of containers answer: `cargo bench -p net --bench dns`. Needs root; works in namespaces of its own.
//!
//! The floor is a socket that echoes, driven by the same runtime in the same namespace: ratios count, not absolute times.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use net::{DnsConfig, DnsNetwork, NameRecord, Names, Net, NetConfig, Sandbox, SandboxMode, SandboxSpec, ServiceNames};
use support::{CLIENT_ADDRESS, Ns, container, machine};

const ROUNDS: usize = 7;
const QUESTIONS: usize = 40_000;
const FORWARDED: usize = 4_000;
/// Questions of a client that are under way at once.
const WINDOW: usize = 32;
const SERVICES: u16 = 1_000;
const TASKS: u16 = 10;
const SANDBOXES: usize = 200;
const RESOLVER: &str = "127.0.0.11:53";

fn main() {
    machine(async |machine| {
        std::fs::write(machine.root.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        let net = Net::open(config(machine)).await.unwrap();
        memory(&net).await;
        let net = restart(machine, net).await;
        table(net.names());
        let one = sandbox(&net, "c1", DnsConfig::default()).await;
        let own = DnsConfig { servers: vec![CLIENT_ADDRESS.to_owned()], ..DnsConfig::default() };
        let other = sandbox(&net, "c2", own).await;
        let echo = echo(one.netns.as_deref().unwrap()).await;
        world(&machine.host, "127.0.0.1");
        world(&machine.client, CLIENT_ADDRESS);
        let a = 1;
        let paths = [
            Case::new("echo", &one, &echo, question("service500", a)),
            Case::new("virtual address", &one, RESOLVER, question("service500", a)),
            Case::new("10 tasks", &one, RESOLVER, question("tasks.service500", a)),
            Case::new("name.network", &one, RESOLVER, question("service500.1.x.front", a)),
            Case::new("address to name", &one, RESOLVER, question("77.7.1.10.in-addr.arpa", 12)),
        ];
        measure(&paths, QUESTIONS).await;
        let paths = [
            Case::new("echo", &one, &echo, question("example.org", a)),
            Case::new("by the host's server", &one, RESOLVER, question("example.org", a)),
            Case::new("by the user's server", &other, RESOLVER, question("example.org", a)),
        ];
        measure(&paths, FORWARDED).await;
        net.destroy().await.unwrap();
    });
}

fn spec(word: &str, mode: SandboxMode) -> SandboxSpec {
    let mut spec = SandboxSpec::new(&container(word), word, mode);
    spec.dns_networks = vec![DnsNetwork { id: "front".into(), name: "front".into(), aliases: BTreeMap::new() }];
    spec
}

async fn sandbox(net: &Net, word: &str, dns: DnsConfig) -> Sandbox {
    net.create_sandbox(SandboxSpec { dns, ..spec(word, SandboxMode::Bridge) }).await.unwrap()
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Sandboxes with and without a name server.
async fn memory(net: &Net) {
    let mut kib = Vec::new();
    let mut times = Vec::new();
    for has_resolver in [false, true] {
        let before = resident_kib();
        for index in 0..SANDBOXES {
            let mut spec = spec(&format!("m{has_resolver}{index}x"), SandboxMode::None);
            spec.dns_networks.truncate(has_resolver.into());
            let begin = Instant::now();
            net.create_sandbox(spec).await.unwrap();
            times.push(begin.elapsed());
        }
        kib.push(resident_kib() - before);
    }
    let (without, with) = times.split_at_mut(SANDBOXES);
    println!("sandbox without name server: {:?}, with: {:?}", median(without), median(with));
    println!("{SANDBOXES} sandboxes: {} KiB without name servers, {} KiB with", kib[0], kib[1]);
}

/// A new daemon takes over.
async fn restart(machine: &support::Machine, net: Net) -> Net {
    drop(net);
    let begin = Instant::now();
    let net = Net::open(config(machine)).await.unwrap();
    println!("a daemon with {SANDBOXES} name servers starts in {:?}", begin.elapsed());
    for has_resolver in [false, true] {
        for index in 0..SANDBOXES {
            net.remove_sandbox(&container(&format!("m{has_resolver}{index}x"))).await.unwrap();
        }
    }
    net
}

fn config(machine: &support::Machine) -> NetConfig {
    NetConfig { host_resolv_conf: machine.root.path().join("resolv.conf"), ..machine.config() }
}

/// Fills the table, and changes it.
fn table(names: &Names) {
    let record = |service: u16, task: u16, is_disabled: bool| NameRecord {
        network_id: "front".into(),
        endpoint_id: format!("{service:032x}{task:032x}"),
        owner: format!("node{}", task % 5),
        name: format!("service{service}.{task}.x"),
        task_aliases: vec![format!("{service:06x}{task:06x}")],
        service: Some(ServiceNames {
            name: format!("service{service}"),
            aliases: vec![format!("alias{service}")],
            virtual_ip: Some(Ipv4Addr::from(0x0a00_0000 + u32::from(service))),
        }),
        address: Ipv4Addr::from(0x0a01_0000 + u32::from(service * TASKS + task)),
        address_v6: None,
        is_disabled,
    };
    let all = || (0..SERVICES).flat_map(|service| (0..TASKS).map(move |task| (service, task)));
    let before = resident_kib();
    let begin = Instant::now();
    all().for_each(|(service, task)| names.upsert(record(service, task, false)));
    let count = usize::from(SERVICES * TASKS);
    println!("{count} endpoints: known in {:?}, {} KiB", begin.elapsed(), resident_kib() - before);
    for is_disabled in [true, false] {
        let begin = Instant::now();
        all().for_each(|(service, task)| names.upsert(record(service, task, is_disabled)));
        println!("{count} endpoints: changed in {:?}", begin.elapsed());
    }
}

/// A socket in a namespace that sends everything back; its address.
async fn echo(netns: &Path) -> String {
    let socket = Ns::at(netns).run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while socket.readable().await.is_ok() {
            while let Ok((len, peer)) = socket.try_recv_from(&mut buffer) {
                let _ = socket.try_send_to(&buffer[..len], peer);
            }
        }
    });
    address
}

/// A name server that sends questions back as answers, in a thread that ends with the process.
fn world(ns: &Ns, address: &'static str) {
    let socket = ns.run(move || UdpSocket::bind((address, 53)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            let _ = socket.send_to(&buffer[..len], peer);
        }
    });
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// A question, and where it is asked.
struct Case {
    what: &'static str,
    netns: std::path::PathBuf,
    address: String,
    message: Vec<u8>,
}

impl Case {
    fn new(what: &'static str, sandbox: &Sandbox, address: &str, message: Vec<u8>) -> Self {
        let netns = sandbox.netns.clone().unwrap();
        Self { what, netns, address: address.to_owned(), message }
    }
}

fn ask(path: (String, Vec<u8>), count: usize) -> Duration {
    let (address, message) = path;
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let begin = Instant::now();
    let mut buffer = [0; 4096];
    for index in 0..count + WINDOW {
        if index >= WINDOW {
            let len = socket.recv(&mut buffer).unwrap();
            assert_eq!(buffer[3] & 0x0f, 0, "{len}");
        }
        if index < count {
            socket.send(&message).unwrap();
        }
    }
    begin.elapsed()
}

/// Measures the paths in turn, so that the machine's moods meet all of them, and prints medians.
async fn measure(paths: &[Case], count: usize) {
    let mut times = vec![Vec::new(); paths.len()];
    for _ in 0..ROUNDS {
        for (path, times) in paths.iter().zip(&mut times) {
            let (ns, path) = (Ns::at(&path.netns), (path.address.clone(), path.message.clone()));
            times.push(tokio::task::spawn_blocking(move || ns.run(move || ask(path, count))).await.unwrap());
        }
    }
    let rates: Vec<f64> = times.iter_mut().map(|times| count as f64 / median(times).as_secs_f64()).collect();
    for (path, rate) in paths.iter().zip(&rates) {
        println!("{:22} {rate:10.0} answers/s ({:.0} %)", path.what, 100.0 * rate / rates[0]);
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
