//! What it costs to reach another machine: `cargo bench -p net --bench overlay`. Needs root; two machines are namespaces on a
//! switch. Ratios count: both machines, client, servers and kernel share the real one's cores.

mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::Ipv4Addr;

use measure::{paths, serve};
use net::{Backend, BackendNode, ClientAddress, IngressPort, OverlaySpec, Protocol};
use support::cluster::{Cluster, cluster};
use support::{Ns, group, ingress_spec, overlay_spec};

const NEAR: [u8; 4] = [10, 0, 1, 5];
const FAR: [u8; 4] = [10, 0, 1, 6];
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
const TASK: [u8; 4] = [10, 0, 0, 6];
const PORT: IngressPort = IngressPort { protocol: Protocol::Tcp, published_port: 9005, target_port: 80 };

fn main() {
    cluster(2, |cluster| {
        serve(&cluster.nodes[1].host);
        let near = containers(cluster);
        // The floor: the same switch and links, without an overlay.
        let routed = "192.0.2.2:80";
        println!("from a machine, and from a container on it");
        let host = &cluster.nodes[0].host;
        let floor = |ns: &Ns, name: &'static str, address: &'static str| paths(ns, &[(name, address)]);
        floor(host, "routed veth", routed);
        paths(&near, &[("overlay", "10.0.1.6:80"), ("service's address", "10.0.1.100:80")]);
        mesh(cluster);
        println!("from a client beside the machines");
        paths(&cluster.client, &[("routed veth", routed), ("port of the other node", "192.0.2.1:9005")]);
    });
}

/// A container on each machine, on one network, behind one address.
fn containers(cluster: &Cluster) -> Ns {
    let spec = OverlaySpec { lb_address: Some(Ipv4Addr::UNSPECIFIED), ..overlay_spec("web", 1) };
    cluster.nodes.iter().for_each(|node| node.ensure(spec.clone()));
    let place = |index: usize, word: &str, address: [u8; 4]| {
        let address = format!("{}/24", Ipv4Addr::from(address));
        Ns::at(cluster.nodes[index].container(&spec, word, &address).netns.as_ref().unwrap())
    };
    let (near, far) = (place(0, "near", NEAR), place(1, "far", FAR));
    cluster.tell(&spec, &[(0, NEAR), (1, FAR)]);
    serve(&far);
    let id = spec.network_id;
    let set = |net: net::Net| async move { net.set_virtual_service(&id, "service1", VIP, vec![FAR.into()]).await };
    cluster.nodes[0].call(set).unwrap();
    near
}

/// A task on the second machine, behind a port that the first one is asked on.
fn mesh(cluster: &Cluster) {
    let spec = ingress_spec();
    cluster.nodes.iter().for_each(|node| node.ensure(spec.clone()));
    let task = cluster.nodes[1].task(&spec, "task", "10.0.0.6/24", &[PORT]);
    cluster.tell(&spec, &[(1, TASK)]);
    serve(&Ns::at(task.netns.as_ref().unwrap()));
    let backend = Backend { address: TASK.into(), node: BackendNode::Keeping };
    let set = |net: net::Net| async move {
        net.set_service("service1", group(vec![PORT], vec![backend]), ClientAddress::Kept).await
    };
    cluster.nodes[0].call(set).unwrap();
}
