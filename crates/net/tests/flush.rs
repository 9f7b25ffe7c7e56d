//! `nft flush ruleset` by the operator's firewall.

mod support;

use std::fmt::Debug;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use net::{Backend, ClientAddress, IngressPort, OverlaySpec, Protocol};
use support::cluster::{Node, cluster};
use support::{CLIENT_ADDRESS, Ns, Server, ask_udp, greet, group, ingress_spec, overlay_spec, udp_client};
use tracing::field::{Field, Visit};
use tracing::span;

/// The promise.
const LIMIT: Duration = Duration::from_secs(5);
const DATAGRAM: IngressPort = IngressPort { protocol: Protocol::Udp, published_port: 9053, target_port: 53 };
const PORT: IngressPort = IngressPort { protocol: Protocol::Tcp, published_port: 9005, target_port: 80 };

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what is logged at warning or above.
struct Log;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        LOG.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Waits until the tables are there again.
fn await_tables(ns: &Ns, names: &[&str]) {
    let start = Instant::now();
    loop {
        let tables = ns.output("nft", &["list", "tables"]);
        if names.iter().all(|name| tables.contains(name)) {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{tables}");
        std::thread::yield_now();
    }
}

#[test]
fn tables_that_someone_removes_are_back_in_time_and_one_line_tells() {
    tracing::subscriber::set_global_default(Log).unwrap();
    cluster(1, |cluster| {
        let node: &Node = &cluster.nodes[0];
        let (ingress, web) = (ingress_spec(), overlay_spec("web", 1));
        let web = OverlaySpec { lb_address: ingress.lb_address, ..web };
        node.ensure(ingress.clone());
        node.ensure(web.clone());
        let task = Ns::at(node.task(&ingress, "task", "10.0.0.5/24", &[PORT, DATAGRAM]).netns.as_ref().unwrap());
        let asker = Ns::at(node.container(&web, "asker", "10.0.1.5/24").netns.as_ref().unwrap());
        let server = Ns::at(node.container(&web, "server", "10.0.1.6/24").netns.as_ref().unwrap());
        let _servers = [
            Server::tcp_here(&task, "task", 80),
            Server::udp_here(&task, "task", 53),
            Server::tcp_here(&server, "server", 80),
        ];
        let id = web.network_id.clone();
        node.call(|net| async move {
            let groups = group(vec![PORT, DATAGRAM], vec![Backend::here([10, 0, 0, 5].into())]);
            net.set_service("service1", groups, ClientAddress::Kept).await.unwrap();
            net.set_virtual_service(&id, "service1", [10, 0, 1, 100].into(), vec![[10, 0, 1, 6].into()]).await.unwrap();
        });
        let socket = udp_client(&cluster.client, "192.0.2.1:9053");
        assert!(ask_udp(&socket).is_ok());
        let sandbox = Ns::at(&node.netns_folder().join("ingress_sbox"));
        let balancer = Ns::at(&node.balancer_path(&web));
        let host = ["skep-test-filter", "skep-test-ports", "skep-test-ingress", "skep-test-overlay"].as_slice();
        for (ns, names) in [(&node.host, host), (&sandbox, &["skep-test-mesh"]), (&balancer, &["skep-test-vips"])] {
            LOG.lock().unwrap().clear();
            ns.output("nft", &["flush", "ruleset"]);
            // a flow that begins now knows of no translation
            let lost = udp_client(&cluster.client, "192.0.2.1:9053");
            lost.send(b"hello").unwrap();
            await_tables(ns, names);
            assert_eq!(greet(&cluster.client, "192.0.2.1:9005"), Ok(format!("task {CLIENT_ADDRESS}")));
            assert_eq!(greet(&asker, "10.0.1.100:80"), Ok("server 10.0.1.201".to_owned()));
            await_answer(&lost);
            assert!(ask_udp(&socket).is_ok());
            // It is written when the tables are, which others may see first.
            let start = Instant::now();
            while LOG.lock().unwrap().is_empty() {
                assert!(start.elapsed() < LIMIT);
                std::thread::yield_now();
            }
            let log = LOG.lock().unwrap();
            assert!(log.len() == 1 && log[0].contains("someone removed our nftables tables"), "{log:?}");
        }
        // one table is as good as all
        LOG.lock().unwrap().clear();
        node.host.output("nft", &["delete", "table", "ip", "skep-test-overlay"]);
        await_tables(&node.host, host);
    });
}

/// The flow of a socket is led to the task again.
fn await_answer(socket: &std::net::UdpSocket) {
    let start = Instant::now();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while !ask_udp(socket).is_ok_and(|answer| answer.starts_with("task")) {
        assert!(start.elapsed() < LIMIT);
    }
}
