//! What the network's paths cost: `cargo bench -p net --bench paths`. Needs root; works in namespaces of its own.
//!
//! Ratios count, not absolute times: client, servers and kernel share the machine's cores.

mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::Ipv4Addr;
use std::time::Instant;

use measure::{CONNECTIONS, ROUNDS, connections, median, paths, serve};
use net::{
    Backend, ClientAddress, IngressEndpointSpec, IngressPort, Net, PortBinding, Protocol, Sandbox, SandboxMode,
    SandboxSpec,
};
use support::{Ns, container, group, ingress_spec, machine};

const MANY_PORTS: u16 = 30_000;

fn main() {
    machine(async |machine| {
        let net = machine.net().await;
        net.overlay_ensure(ingress_spec()).await.unwrap();
        sandboxes(&net).await;
        let bridge = bridge_container(&net).await;
        let task = task(&net, 5).await;
        serve(&Ns::at(&bridge.netns.unwrap()));
        serve(&Ns::at(&task.netns.unwrap()));
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
