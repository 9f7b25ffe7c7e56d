//! What the network's paths cost: `cargo bench -p net --bench paths`. Needs root; works in namespaces of its own.
//!
//! Ratios count, not absolute times: client, servers and kernel share the machine's cores.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use net::{
    Backend, ClientAddress, IngressEndpointSpec, IngressPort, Net, PortBinding, Protocol, Sandbox, SandboxMode,
    SandboxSpec,
};
use nix::sys::socket::{setsockopt, sockopt};
use support::{Ns, container, group, ingress_spec, machine};

const ROUNDS: usize = 7;
const CONNECTIONS: usize = 2000;
const REQUESTS: usize = 20_000;
const TRANSFER_BYTES: usize = 512 << 20;
const MANY_PORTS: u16 = 30_000;

fn main() {
    machine(async |machine| {
        let net = machine.net().await;
        net.overlay_ensure(ingress_spec()).await.unwrap();
        sandboxes(&net).await;
        let bridge = bridge_container(&net).await;
        let task = task(&net, 5).await;
        serve(&bridge.netns.unwrap());
        serve(&task.netns.unwrap());
        let backends: Vec<_> = vec![Backend::here(Ipv4Addr::new(10, 0, 0, 5))];
        net.set_service("bench", group(vec![port(9005, 80)], backends.clone()), ClientAddress::Kept).await.unwrap();
        let host = &machine.host;
        let direct = bridge.endpoints[0].address.address;
        paths(host, &[("container, direct", &format!("{direct}:80")), ("container, -p", "192.0.2.1:8080")]);
        let direct = task.endpoints[1].address.address;
        paths(host, &[("task, direct", &format!("{direct}:80")), ("task, mesh", "192.0.2.1:9005")]);
        updates(&net).await;
        first_packet(machine, &net, &backends).await;
        net.destroy().await.unwrap();
    });
}

fn port(published_port: u16, target_port: u16) -> IngressPort {
    IngressPort { protocol: Protocol::Tcp, published_port, target_port }
}

async fn bridge_container(net: &Net) -> Sandbox {
    let mut spec = SandboxSpec::new(&container("c1"), "web", SandboxMode::Bridge);
    let (protocol, host_address) = (Protocol::Tcp, None);
    spec.ports = vec![PortBinding { protocol, container_port: 80, host_address, host_port: 8080, host_port_end: 0 }];
    net.create_sandbox(spec).await.unwrap()
}

async fn task(net: &Net, last: u8) -> Sandbox {
    let mut spec = SandboxSpec::new(&container(&format!("task{last}x")), "task", SandboxMode::Swarm);
    spec.ingress = Some(IngressEndpointSpec {
        network_id: ingress_spec().network_id,
        address: format!("10.0.0.{last}/24").parse().unwrap(),
        ports: vec![port(9005, 80)],
    });
    net.create_sandbox(spec).await.unwrap()
}

/// Two threads accept. First byte of a connection: `e` echoes every byte, `s` swallows all and answers at the end.
fn serve(netns: &Path) {
    let (sender, receiver) = std::sync::mpsc::channel();
    Ns::at(netns).spawn(move || {
        let listener = TcpListener::bind("0.0.0.0:80").unwrap();
        sender.send(()).unwrap();
        let second = listener.try_clone().unwrap();
        std::thread::spawn(move || second.incoming().flatten().for_each(answer));
        listener.incoming().flatten().for_each(answer);
    });
    receiver.recv().unwrap();
}

fn answer(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 1 << 18];
    let mut is_echo = None;
    while let Ok(len) = stream.read(&mut buffer) {
        if len == 0 {
            let _ = stream.write_all(b"!");
            return;
        }
        if *is_echo.get_or_insert(buffer[0] == b'e') && stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    // ends with a reset, so that thousands of connections do not use up the client's ports
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger).unwrap();
    stream
}

fn connections(address: &str) -> Duration {
    let begin = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut stream = connect(address);
        stream.write_all(b"e").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    begin.elapsed()
}

fn requests(address: &str) -> Duration {
    let mut stream = connect(address);
    let begin = Instant::now();
    for _ in 0..REQUESTS {
        stream.write_all(b"e").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    begin.elapsed()
}

fn transfer(address: &str) -> Duration {
    let mut stream = connect(address);
    let block = vec![b's'; 1 << 17];
    let begin = Instant::now();
    for _ in 0..TRANSFER_BYTES / block.len() {
        stream.write_all(&block).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    begin.elapsed()
}

/// Something that is done `amount` times.
struct Measure {
    what: &'static str,
    run: fn(&str) -> Duration,
    amount: usize,
}

const MEASURES: [Measure; 3] = [
    Measure { what: "connections/s", run: connections, amount: CONNECTIONS },
    Measure { what: "requests/s on one connection", run: requests, amount: REQUESTS },
    Measure { what: "MiB/s", run: transfer, amount: TRANSFER_BYTES >> 20 },
];

/// Measures the paths in turn, so that the machine's moods meet all of them, and prints medians.
fn paths(ns: &Ns, paths: &[(&str, &str)]) {
    for Measure { what, run, amount } in MEASURES {
        let mut times = vec![Vec::new(); paths.len()];
        for _ in 0..ROUNDS {
            for ((_, address), times) in paths.iter().zip(&mut times) {
                let address = (*address).to_owned();
                times.push(ns.run(move || run(&address)));
            }
        }
        let rates: Vec<f64> = times.iter_mut().map(|times| amount as f64 / median(times).as_secs_f64()).collect();
        for ((name, _), rate) in paths.iter().zip(&rates) {
            println!("{name:20} {rate:10.0} {what} ({:.0} %)", 100.0 * rate / rates[0]);
        }
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

async fn sandboxes(net: &Net) {
    let (mut create, mut remove) = (Vec::new(), Vec::new());
    for index in 0..20 {
        let id = container(&format!("s{index}x"));
        let begin = Instant::now();
        net.create_sandbox(SandboxSpec::new(&id, "s", SandboxMode::Bridge)).await.unwrap();
        create.push(begin.elapsed());
        let begin = Instant::now();
        net.remove_sandbox(&id).await.unwrap();
        remove.push(begin.elapsed());
    }
    println!("sandbox on the bridge: create {:?}, remove {:?}", median(&mut create), median(&mut remove));
    let begin = Instant::now();
    let ids: Vec<_> = (0..50).map(|index| container(&format!("p{index}x"))).collect();
    let all = ids.iter().enumerate().map(|(index, id)| {
        let mut spec = SandboxSpec::new(id, "p", SandboxMode::Swarm);
        spec.ingress = Some(IngressEndpointSpec {
            network_id: ingress_spec().network_id,
            address: format!("10.0.0.{}/24", 100 + index).parse().unwrap(),
            ports: vec![port(9005, 80)],
        });
        let net = net.clone();
        tokio::spawn(async move { net.create_sandbox(spec).await.unwrap() })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    println!("50 tasks on the ingress at once: create {:?}", begin.elapsed());
    let begin = Instant::now();
    for id in &ids {
        net.remove_sandbox(id).await.unwrap();
    }
    println!("50 tasks: remove {:?}", begin.elapsed());
}

async fn updates(net: &Net) {
    for count in [5u8, 200] {
        let mut times = Vec::new();
        for round in 0..50u8 {
            let backends = (0..count).map(|last| Backend::here(Ipv4Addr::new(10, 0, round % 2, last)));
            let begin = Instant::now();
            net.set_service("other", group(vec![port(9100, 80)], backends.collect()), ClientAddress::Kept)
                .await
                .unwrap();
            times.push(begin.elapsed());
        }
        println!("set_service with {count} backends: {:?}", median(&mut times));
    }
    net.remove_service("other").await.unwrap();
}

async fn first_packet(machine: &support::Machine, net: &Net, backends: &[Backend]) {
    let cost = |ns: &Ns| {
        let mut times: Vec<_> = (0..ROUNDS).map(|_| ns.run(|| connections("192.0.2.1:9005"))).collect();
        median(&mut times) / CONNECTIONS as u32
    };
    let few = cost(&machine.host);
    let begin = Instant::now();
    let ports = (0..MANY_PORTS).map(|index| port(10_000 + index, 80)).collect();
    net.set_service("many", group(ports, backends.to_vec()), ClientAddress::Kept).await.unwrap();
    println!("{MANY_PORTS} ports opened in {:?}", begin.elapsed());
    let many = cost(&machine.host);
    let percent = 100.0 * (many.as_secs_f64() / few.as_secs_f64() - 1.0);
    println!("connection at 1 port: {few:?}; at {MANY_PORTS} ports: {many:?} ({percent:+.1} %)");
    let begin = Instant::now();
    net.set_service("other", group(vec![port(9100, 80)], backends.to_vec()), ClientAddress::Kept).await.unwrap();
    println!("one more port then: {:?}", begin.elapsed());
    net.remove_service("many").await.unwrap();
}
