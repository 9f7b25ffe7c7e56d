//! Packets through a tunnel that tell what is wrong with it.

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use net::{Net, OverlaySpec};
use support::cluster::{Cluster, Node, cluster};
use support::ingress_spec;

const SESSION: u64 = 0x5ee5_0000_0000_0001;
const SIZES: [u32; 3] = [64, 1350, 1450];
/// Longer than an answer takes here.
const WAIT: Duration = Duration::from_millis(300);

/// Two machines with the ingress network, that know each other's places.
fn machines(cluster: &Cluster) -> OverlaySpec {
    let spec = ingress_spec();
    cluster.nodes.iter().for_each(|node| node.ensure(spec.clone()));
    cluster.tell(&spec, &[]);
    spec
}

/// Sizes of requests that arrived there, sizes that were answered, and whether a datagram was refused.
fn try_path(cluster: &Cluster, spec: &OverlaySpec, from: usize) -> (BTreeSet<u32>, BTreeSet<u32>, bool) {
    let (node, other) = (&cluster.nodes[from], &cluster.nodes[1 - from]);
    let (to, own, id) = (other.balancer(spec), node.balancer(spec), spec.network_id.clone());
    let listening = other.net.clone();
    let (there_id, (started, start)) = (id.clone(), std::sync::mpsc::channel());
    let listener = std::thread::scope(|scope| {
        let there = scope.spawn(move || {
            other.run(async move {
                let probe = listening.tunnel_probe(&there_id).unwrap().unwrap();
                started.send(()).unwrap();
                listen(&probe, own).await.0
            })
        });
        start.recv().unwrap();
        let here = node.call(|net: Net| async move {
            let probe = net.tunnel_probe(&id).unwrap().unwrap();
            assert_eq!((probe.own(), probe.mtu()), (own, 1450));
            SIZES.iter().for_each(|size| probe.send(to, SESSION, *size));
            let answered = listen(&probe, to).await.1;
            (answered, probe.is_datagram_refused(to).await.unwrap())
        });
        (there.join().unwrap(), here)
    });
    let (heard, (answered, refused)) = listener;
    (heard, answered, refused)
}

/// Requests and replies from `from` for a while.
async fn listen(probe: &net::TunnelProbe, from: Ipv4Addr) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let (mut requests, mut replies) = (BTreeSet::new(), BTreeSet::new());
    let hear = async {
        loop {
            let heard = probe.next().await.unwrap();
            if heard.from == from && heard.session == SESSION {
                if heard.is_reply {
                    replies.insert(heard.size)
                } else {
                    requests.insert(heard.size)
                };
            }
        }
    };
    let _: Result<(), _> = tokio::time::timeout(WAIT, hear).await;
    (requests, replies)
}

/// Has the kernel compute what a card would: `ethtool -K LINK tx off`.
fn checksums_by_kernel(link: &str) {
    const ETHTOOL: libc::Ioctl = 0x8946;
    const SET_TX_CHECKSUMS: u32 = 0x17;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut value = [SET_TX_CHECKSUMS, 0];
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names a link and points to a value that lives until the call returns.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}

fn rules(node: &Node, rules: &str) {
    node.host.output("nft", &[rules]);
}

#[test]
fn what_passes_and_what_does_not_is_seen_from_both_ends() {
    cluster(2, |cluster| {
        let spec = machines(cluster);
        let all: BTreeSet<u32> = SIZES.into();
        for from in [0, 1] {
            assert_eq!(try_path(cluster, &spec, from), (all.clone(), all.clone(), true));
        }
        let nowhere = cluster.nodes[0]
            .call(|net| async move { net.tunnel_probe("nosuchnetwork0000000000001").unwrap().is_none() });
        assert!(nowhere);
        // One way: requests do not arrive at the second, those of the second arrive at the first, and its answers too.
        rules(&cluster.nodes[1], "table ip t { chain c { type filter hook input priority 0; udp dport 4789 drop; }; }");
        assert_eq!(try_path(cluster, &spec, 0), (BTreeSet::new(), BTreeSet::new(), false));
        assert_eq!(try_path(cluster, &spec, 1), (all.clone(), BTreeSet::new(), false));
        rules(&cluster.nodes[1], "delete table ip t");
        // A port of the switch that takes nothing larger, without a word. With br_netfilter a bridge would cut packets up.
        let plain = "f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo 0 > $f";
        cluster.switch.output("sh", &["-c", plain]);
        cluster.switch.output("ip", &["link", "set", "node2", "mtu", "1400"]);
        let small: BTreeSet<u32> = [64, 1350].into();
        for from in [0, 1] {
            assert_eq!(try_path(cluster, &spec, from), (small.clone(), small.clone(), true));
        }
        cluster.switch.output("ip", &["link", "set", "node2", "mtu", "1500"]);
        assert_eq!(try_path(cluster, &spec, 0), (all.clone(), all, true));
    });
}

#[test]
fn a_card_that_makes_checksums_wrong_is_told_from_a_path_that_is_cut() {
    cluster(2, |cluster| {
        let spec = machines(cluster);
        let there = &cluster.nodes[1];
        let id = spec.network_id.clone();
        let bad = move || {
            let id = id.clone();
            there.call(|net| async move { net.tunnel_probe(&id).unwrap().unwrap().bad_checksums() })
        };
        let before = bad();
        // The sum begins with a wrong value, and is computed where the packet leaves the machine.
        let node = &cluster.nodes[0];
        node.host.run(|| checksums_by_kernel("eth0"));
        let sandbox = support::Ns::at(&node.netns_folder().join("ingress_sbox"));
        let rule =
            "table ip t { chain c { type filter hook output priority 0; meta l4proto udp @th,48,16 set 0x1234; }; }";
        sandbox.output("nft", &[rule]);
        let (heard, answered, refused) = try_path(cluster, &spec, 0);
        assert_eq!((heard.len(), answered.len(), refused), (3, 3, false), "pings are well");
        assert_eq!(bad() - before, 3);
    });
}
