//! Encrypted overlay networks on a kernel that has ESP. `cargo xtask vm` runs this in one.

mod support;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use net::{EncryptionKey, OverlaySpec, SandboxMode, SandboxSpec};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt, socket, sockopt,
};
use support::cluster::{Cluster, Node, cluster};
use support::wire::{SECRET, Wire};
use support::{Ns, Server, VXLAN_INNER_PORT as PORT, container, greet, overlay_spec, vxlan_datagram};

const ONE: [u8; 4] = [10, 0, 1, 5];
const TWO: [u8; 4] = [10, 0, 1, 6];
const VNI: u32 = 4097;
const DATA_PORT: u16 = 4789;
/// The first choice of every machine here.
const OWN_PORT: u16 = 1023;
/// The promise for what someone removes.
const RESTORED: Duration = Duration::from_secs(5);
/// Longest wait for what is to come, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait for what is not to come.
const SILENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);

fn encrypted(name: &str, third: u8) -> OverlaySpec {
    OverlaySpec { encrypted: true, ..overlay_spec(name, third) }
}

fn keys(times: impl IntoIterator<Item = u64>) -> Vec<EncryptionKey> {
    times.into_iter().map(|time| EncryptionKey { lamport_time: time, key: [time as u8; 16] }).collect()
}

fn set_keys(node: &Node, times: impl IntoIterator<Item = u64>) {
    let keys = keys(times);
    node.call(|net| async move { net.set_encryption_keys(keys).await }).unwrap();
}

/// A container on each of two machines, on an encrypted network, that know of each other.
fn pair(cluster: &Cluster, spec: &OverlaySpec) -> [Ns; 2] {
    let namespaces = [(0, "one", "10.0.1.5/24"), (1, "two", "10.0.1.6/24")].map(|(index, word, address)| {
        let node: &Node = &cluster.nodes[index];
        node.ensure(spec.clone());
        Ns::at(node.container(spec, word, address).netns.as_ref().unwrap())
    });
    cluster.tell(spec, &[(0, ONE), (1, TWO)]);
    namespaces
}

/// A socket that hears what is sent to its port.
fn listener(ns: &Ns) -> UdpSocket {
    ns.run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        socket
    })
}

fn sender(ns: &Ns, to: [u8; 4]) -> UdpSocket {
    ns.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((Ipv4Addr::from(to), PORT)).unwrap();
        socket
    })
}

/// Whether a datagram with the secret arrives, sent again and again.
fn arrives_within(limit: Duration, from: &Ns, to: &Ns, address: [u8; 4]) -> bool {
    let (sender, listener) = (sender(from, address), listener(to));
    let start = Instant::now();
    while start.elapsed() < limit {
        // the kernel may say that there is no way
        let _ = sender.send(SECRET);
        let mut buffer = [0; 64];
        if listener.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == SECRET) {
            return true;
        }
    }
    false
}

fn arrives(from: &Ns, to: &Ns, address: [u8; 4]) -> bool {
    arrives_within(PATIENCE, from, to, address)
}

fn is_silent(from: &Ns, to: &Ns, address: [u8; 4]) -> bool {
    !arrives_within(SILENCE, from, to, address)
}

/// Sends numbered datagrams until it is ended.
struct Stream {
    stop: Arc<AtomicBool>,
    threads: Option<(JoinHandle<u32>, JoinHandle<BTreeSet<u32>>)>,
}

impl Stream {
    fn start(from: &Ns, to: &Ns, address: [u8; 4]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, listener) = (sender(from, address), listener(to));
        let sending = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut count = 0u32;
                while !stop.load(Ordering::Relaxed) {
                    let _ = sender.send(&[SECRET, &count.to_be_bytes()].concat());
                    count += 1;
                    std::thread::sleep(PAUSE);
                }
                count
            })
        };
        let hearing = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut heard = BTreeSet::new();
                let mut buffer = [0; 64];
                loop {
                    match listener.recv(&mut buffer) {
                        Ok(len) => {
                            let number = buffer[..len].strip_prefix(SECRET).unwrap();
                            heard.insert(u32::from_be_bytes(number.try_into().unwrap()));
                        }
                        Err(_) if stop.load(Ordering::Relaxed) => return heard,
                        Err(_) => {}
                    }
                }
            })
        };
        Self { stop, threads: Some((sending, hearing)) }
    }

    /// How many were sent, and how many heard.
    fn end(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let (sending, hearing) = self.threads.take().unwrap();
        (sending.join().unwrap() as usize, hearing.join().unwrap().len())
    }
}

/// When a test fails before its end: who waits for silence would wait for ever.
impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn states(node: &Node) -> String {
    node.host.output("ip", &["xfrm", "state"])
}

fn flush(ns: &Ns, what: &str) {
    match what {
        "rules" => ns.output("nft", &["flush", "ruleset"]),
        what => ns.output("ip", &["xfrm", what, "flush"]),
    };
}

fn assert_nothing_of_ipsec(node: &Node) {
    let policies = node.host.output("ip", &["xfrm", "policy"]);
    assert_eq!((states(node), policies), (String::new(), String::new()));
    let links = node.host.output("ip", &["-br", "link"]);
    assert!(!links.contains("void"), "{links}");
}

#[test]
fn only_sealed_packets_are_on_the_wire() {
    cluster(2, |cluster| {
        let wire = Wire::listen(&cluster.switch);
        let spec = encrypted("secret", 1);
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let [one, two] = pair(cluster, &spec);
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        let server = Server::tcp_here(&two, "two", 80);
        assert_eq!(greet(&one, "10.0.1.6:80"), Ok("two 10.0.1.5".to_owned()));
        drop(server);
        // dockerd's size: nothing is cut on the way
        let links = one.output("ip", &["-d", "link", "show", "eth0"]);
        assert!(links.contains("mtu 1424"), "{links}");
        let (large, listener) = ([SECRET, &[7; 6000]].concat(), listener(&two));
        listener.set_read_timeout(Some(PATIENCE)).unwrap();
        sender(&one, TWO).send(&large).unwrap();
        let mut buffer = vec![0; 8000];
        let len = listener.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], large);
        let seen = wire.end();
        assert!(seen.sealed > 10, "{seen:?}");
        seen.assert_sealed();
        // what a dockerd would have
        let states = states(&cluster.nodes[0]);
        assert_eq!(states.matches("proto esp").count(), 4, "{states}");
        assert_eq!(states.matches("reqid 13681891 mode transport").count(), 4, "{states}");
        assert_eq!(states.matches("aead rfc4106(gcm(aes)) 0x").count(), 4, "{states}");
        // the second key's, and its index for a salt
        let sealing = states.split("src ").find(|state| state.starts_with("192.0.2.1 dst 192.0.2.2")).unwrap();
        let spi = &sealing[sealing.find("spi 0x").unwrap() + 6..][..8];
        assert!(sealing.contains(&format!("0x{}{spi} 64", "02".repeat(16))), "{sealing}");
    });
}

#[test]
fn a_network_in_the_clear_is_not_touched() {
    cluster(2, |cluster| {
        let (secret, open) = (encrypted("secret", 1), overlay_spec("opennet", 2));
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let [one, two] = pair(cluster, &secret);
        let [third, fourth] = [(0, "three", "10.0.2.5/24"), (1, "four", "10.0.2.6/24")].map(|(at, word, address)| {
            cluster.nodes[at].ensure(open.clone());
            Ns::at(cluster.nodes[at].container(&open, word, address).netns.as_ref().unwrap())
        });
        cluster.tell(&open, &[(0, [10, 0, 2, 5]), (1, [10, 0, 2, 6])]);
        let wire = Wire::listen(&cluster.switch);
        assert!(arrives(&third, &fourth, [10, 0, 2, 6]) && arrives(&fourth, &third, [10, 0, 2, 5]));
        let seen = wire.end();
        // the wire is heard, and what is heard would be understood
        assert!(seen.sealed == 0 && !seen.telling.is_empty() && seen.datagrams[&DATA_PORT] > 0, "{seen:?}");
        let wire = Wire::listen(&cluster.switch);
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        wire.end().assert_sealed();
        // the last encrypted network takes everything along
        drop((one, two));
        for node in &cluster.nodes {
            let id = secret.network_id.clone();
            node.call(|net| async move {
                for word in ["one", "two"] {
                    net.remove_sandbox(&container(word)).await.unwrap();
                }
                net.overlay_remove(&id).await
            })
            .unwrap();
            assert_nothing_of_ipsec(node);
            let tables = node.host.output("nft", &["list", "tables"]);
            assert!(!tables.contains("ipsec") && tables.contains("overlay"), "{tables}");
        }
        assert!(arrives(&third, &fourth, [10, 0, 2, 6]));
    });
}

#[test]
fn without_keys_nothing_is_sent() {
    cluster(2, |cluster| {
        let wire = Wire::listen(&cluster.switch);
        let spec = encrypted("secret", 1);
        let [one, two] = pair(cluster, &spec);
        assert!(is_silent(&one, &two, TWO) && is_silent(&two, &one, ONE));
        assert_eq!(wire.so_far().sealed, 0);
        // one side alone
        set_keys(&cluster.nodes[0], [1, 2, 3]);
        assert!(is_silent(&one, &two, TWO) && is_silent(&two, &one, ONE));
        set_keys(&cluster.nodes[1], [1, 2, 3]);
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        // the node leaves the swarm
        set_keys(&cluster.nodes[0], []);
        assert!(is_silent(&one, &two, TWO) && is_silent(&two, &one, ONE));
        wire.end().assert_sealed();
    });
}

#[test]
fn nothing_is_lost_and_nothing_plain_while_keys_rotate() {
    cluster(2, |cluster| {
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let [one, two] = pair(cluster, &encrypted("secret", 1));
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        let wire = Wire::listen(&cluster.switch);
        let (there, back) = (Stream::start(&one, &two, TWO), Stream::start(&two, &one, ONE));
        for first in 2..8u64 {
            let [early, late] = if first % 2 == 0 { [0, 1] } else { [1, 0] };
            for at in [early, late] {
                set_keys(&cluster.nodes[at], first..first + 3);
                // traffic by this mixture of sets
                let before = wire.so_far().sealed;
                while wire.so_far().sealed < before + 20 {
                    std::thread::yield_now();
                }
            }
        }
        for (sent, heard) in [there.end(), back.end()] {
            assert_eq!(sent, heard);
        }
        wire.end().assert_sealed();
        let states = states(&cluster.nodes[0]);
        assert_eq!(states.matches("proto esp").count(), 4, "{states}");
        assert!(!states.contains(&"06".repeat(16)), "{states}");
    });
}

/// Each with the daemon at work and, as it cannot be faster than that, with one that is dead.
#[test]
fn whatever_someone_flushes_nothing_is_plain_and_all_comes_back() {
    cluster(2, |cluster| {
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let [one, two] = pair(cluster, &encrypted("secret", 1));
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        let wire = Wire::listen(&cluster.switch);
        let flushes: [&[&str]; 6] = [
            &["rules"],
            &["policy"],
            &["state"],
            &["state", "policy"],
            &["rules", "policy"],
            &["rules", "policy", "state"],
        ];
        for what in flushes {
            for at in [0, 1] {
                let node = &cluster.nodes[at];
                node.frozen(|| {
                    what.iter().for_each(|what| flush(&node.host, what));
                    is_silent(&one, &two, TWO);
                    is_silent(&two, &one, ONE);
                });
                let start = Instant::now();
                assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE), "{what:?} {at}");
                assert!(start.elapsed() < RESTORED, "{what:?} {at} {:?}", start.elapsed());
                wire.so_far().assert_sealed();
            }
        }
        let streams = [Stream::start(&one, &two, TWO), Stream::start(&two, &one, ONE)];
        for what in flushes {
            cluster.nodes.iter().for_each(|node| what.iter().for_each(|what| flush(&node.host, what)));
            assert!(arrives_after(&wire), "{what:?}");
        }
        for stream in streams {
            stream.end();
        }
        wire.end().assert_sealed();
    });
}

/// Whether something sealed comes by before long.
fn arrives_after(wire: &Wire) -> bool {
    let (before, start) = (wire.so_far().sealed, Instant::now());
    while start.elapsed() < RESTORED {
        if wire.so_far().sealed > before + 20 {
            return true;
        }
        std::thread::sleep(PAUSE);
    }
    false
}

#[test]
fn a_new_daemon_goes_on_with_what_it_finds() {
    cluster(2, |cluster| {
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let spec = encrypted("secret", 1);
        let [one, two] = pair(cluster, &spec);
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        let wire = Wire::listen(&cluster.switch);
        let streams = [Stream::start(&one, &two, TWO), Stream::start(&two, &one, ONE)];
        // they count on: a state that is made anew begins at one
        let sent = |node: &Node| {
            let states = states(node);
            assert_eq!(states.matches("proto esp").count(), 4, "{states}");
            let counts = states.split("oseq 0x").skip(1).map(|rest| rest.split(',').next().unwrap());
            counts.map(|count| u32::from_str_radix(count, 16).unwrap()).max().unwrap()
        };
        let before = sent(&cluster.nodes[0]);
        cluster.nodes[0].restart();
        // the keys come some time later, and may be newer
        let then = sent(&cluster.nodes[0]);
        set_keys(&cluster.nodes[0], [1, 2, 3]);
        assert!(before <= then && then <= sent(&cluster.nodes[0]));
        set_keys(&cluster.nodes[0], [2, 3, 4]);
        set_keys(&cluster.nodes[1], [2, 3, 4]);
        let known = BTreeSet::from([container("one")]);
        cluster.nodes[0].call(|net| async move { net.reconcile(&known).await }).unwrap();
        for (sent, heard) in streams.map(Stream::end) {
            assert_eq!(sent, heard);
        }
        // what someone has broken meanwhile is mended, and what is stale goes
        let node = &cluster.nodes[0];
        node.frozen(|| {
            ["rules", "policy"].iter().for_each(|what| flush(&node.host, what));
            let namespace = node.network_ns(&spec);
            namespace.output("ip", &["link", "del", "vx-001001-secre"]);
            node.host.output("ip", &["link", "del", "skep-test-void"]);
            let stale = "src 192.0.2.1 dst 192.0.2.9 proto esp spi 0x1234 reqid 13681891 mode transport \
                         limit packet-soft 2147483648 aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1000001234 64";
            node.host.output("ip", &[&["xfrm", "state", "add"], &words(stale)[..]].concat());
        });
        cluster.nodes[0].restart();
        let node = &cluster.nodes[0];
        set_keys(node, [2, 3, 4]);
        let known = BTreeSet::from([container("one")]);
        node.call(|net| async move { net.reconcile(&known).await }).unwrap();
        cluster.tell(&spec, &[(0, ONE), (1, TWO)]);
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        assert!(!states(&cluster.nodes[0]).contains("192.0.2.9"));
        wire.end().assert_sealed();
        // of a network that was removed while nobody was there, nothing stays
        let node = &mut cluster.nodes[0];
        drop(one);
        std::fs::remove_file(node.root.path().join("data/network/overlays").join(&spec.network_id)).unwrap();
        std::fs::remove_file(node.root.path().join("data/network/sandboxes").join(container("one"))).unwrap();
        node.network_ns(&spec).output("ip", &["link", "del", "vx-001001-secre"]);
        node.restart();
        assert_nothing_of_ipsec(node);
        let known = BTreeSet::new();
        node.call(|net| async move { net.reconcile(&known).await }).unwrap();
    });
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// Sends a packet of the network, as it would be in the clear, to the first machine.
fn inject(ns: &Ns, from: u16, to: u16) {
    ns.run(move || {
        let socket = UdpSocket::bind(("0.0.0.0", from)).unwrap();
        // the kernel may say that there is no way
        let _ = socket.send_to(&vxlan_datagram(VNI, ONE), (Ipv4Addr::new(192, 0, 2, 1), to));
    });
}

/// `IP_UNICAST_IF`: what is sent without more words leaves by this link.
fn choose_link(socket: &UdpSocket, link: &str) {
    const IP_UNICAST_IF: i32 = 50;
    let index = nix::net::if_::if_nametoindex(link).unwrap().to_be();
    // SAFETY: the option is a number of four bytes, which lives until the call returns.
    let set = unsafe {
        let value: *const libc::c_void = (&raw const index).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, IP_UNICAST_IF, value, 4)
    };
    assert_eq!(set, 0);
}

/// Sends a datagram from the own port to the data port, with a head of its own.
fn send_raw(from: [u8; 4], to: [u8; 4], payload: &[u8]) {
    let flags = SockFlag::SOCK_CLOEXEC;
    let raw = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw).unwrap();
    let len = (8 + payload.len() as u16).to_be_bytes();
    // the kernel fills in what is zero: length, number, checksum
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([from, to].concat());
    packet.extend([OWN_PORT.to_be_bytes(), DATA_PORT.to_be_bytes(), len, [0, 0]].concat());
    packet.extend_from_slice(payload);
    let [a, b, c, d] = to;
    let _ = sendto(raw.as_raw_fd(), &packet, &SockaddrIn::new(a, b, c, d, 0), MsgFlags::empty());
}

#[test]
fn nobody_has_anything_sealed() {
    cluster(2, |cluster| {
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let [one, two] = pair(cluster, &encrypted("secret", 1));
        let there = &cluster.nodes[1];
        let hearing = listener(&one);
        let is_unheard = || hearing.recv(&mut [0; 64]).is_err();
        let wire = Wire::listen(&cluster.switch);
        // A container next to the other end, whose packets leave from the address and the port that the network has: it was
        // first, so that the port is not changed in favour of the network's own flow.
        let mut spec = SandboxSpec::new(&container("plain"), "plain", SandboxMode::Bridge);
        spec.sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into();
        let sandbox = there.call(|net| async move { net.create_sandbox(spec).await }).unwrap();
        let plain = Ns::at(sandbox.netns.as_ref().unwrap());
        let from_container = || {
            for (from, to) in [(OWN_PORT, DATA_PORT), (0, DATA_PORT), (OWN_PORT, OWN_PORT), (0, OWN_PORT)] {
                inject(&plain, from, to);
                assert!(is_unheard(), "{from} {to}");
            }
        };
        from_container();
        // without the rules, those that change its address still there
        there.frozen(|| {
            there.host.output("nft", &["delete", "table", "ip", "skep-test-ipsec"]);
            from_container();
        });
        await_table(&there.host);
        // one that forges the address, on a machine that lets it
        for setting in ["all/rp_filter", "skep0/rp_filter", "skep0/accept_local"] {
            let value = if setting.ends_with("rp_filter") { "0" } else { "1" };
            let path = format!("/proc/sys/net/ipv4/conf/{setting}");
            there.host.run(move || std::fs::write(path, value)).unwrap();
        }
        for _ in 0..2 {
            plain.run(|| send_raw([192, 0, 2, 2], [192, 0, 2, 1], &vxlan_datagram(VNI, ONE)));
            assert!(is_unheard());
        }
        // a process of that machine: the port is the network's
        for address in ["0.0.0.0", "127.0.0.1", "192.0.2.2"] {
            assert!(there.host.run(move || UdpSocket::bind((address, OWN_PORT)).is_err()));
        }
        // another port, into the void: sending there, with a mark, too, as a process with more rights may, or bound to the link
        there.host.run(|| {
            let (socket, to) = (UdpSocket::bind("192.0.2.2:0").unwrap(), (Ipv4Addr::new(192, 0, 2, 1), DATA_PORT));
            choose_link(&socket, "skep-test-void");
            let _ = socket.send_to(&vxlan_datagram(VNI, ONE), to);
            setsockopt(&socket, sockopt::Mark, &1).unwrap();
            let _ = socket.send_to(&vxlan_datagram(VNI, ONE), to);
            setsockopt(&socket, sockopt::BindToDevice, &"skep-test-void".into()).unwrap();
            let _ = socket.send_to(&vxlan_datagram(VNI, ONE), to);
        });
        assert!(is_unheard());
        there.host.run(|| send_raw([192, 0, 2, 2], [192, 0, 2, 1], &vxlan_datagram(VNI, ONE)));
        assert!(is_unheard());
        drop(hearing);
        assert_eq!(wire.end().sealed, 0);
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        drop(plain);
        there.call(|net| async move { net.remove_sandbox(&container("plain")).await }).unwrap();
    });
}

#[test]
fn nothing_comes_in_but_what_was_sealed() {
    cluster(3, |cluster| {
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let [one, two] = pair(cluster, &encrypted("secret", 1));
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        let [here, there, stranger] = [&cluster.nodes[0], &cluster.nodes[1], &cluster.nodes[2]];
        let hearing = listener(&one);
        let is_unheard = || hearing.recv(&mut [0; 64]).is_err();
        // from a node of the network, from a stranger, from the machine itself
        let inject_all = |senders: &[(&Node, u16)]| {
            for (node, from) in senders {
                for to in [DATA_PORT, OWN_PORT] {
                    inject(&node.host, *from, to);
                    assert!(is_unheard(), "{} {from} {to}", node.address);
                }
            }
        };
        inject_all(&[(there, 0), (stranger, OWN_PORT), (here, 0)]);
        // while someone has removed the rules, likewise from the wire
        here.frozen(|| {
            flush(&here.host, "rules");
            inject_all(&[(there, 0), (stranger, OWN_PORT)]);
        });
        assert!(arrives(&one, &two, TWO));
        inject_all(&[(there, 0), (stranger, OWN_PORT), (here, 0)]);
        drop(hearing);
        // a node that is no member any more has the keys still
        cluster.tell(&encrypted("secret", 1), &[(0, ONE)]);
        assert!(is_silent(&two, &one, ONE));
    });
}

/// Until our rules are there again.
fn await_table(host: &Ns) {
    let start = Instant::now();
    while !host.output("nft", &["list", "tables"]).contains("skep-test-ipsec") {
        assert!(start.elapsed() < RESTORED);
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn rules_of_others_lead_nothing_astray() {
    cluster(2, |cluster| {
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let [one, two] = pair(cluster, &encrypted("secret", 1));
        let host = &cluster.nodes[0].host;
        let wire = Wire::listen(&cluster.switch);
        let rule = |text: &str| {
            let table = format!("table ip other {{\nchain other {{\n{text}\n}}\n}}");
            host.output("nft", &[&table]);
        };
        let end = || host.output("nft", &["delete", "table", "ip", "other"]);
        // a dockerd was here: its rule marks what it takes for its own
        rule("type route hook output priority -150; udp dport 4789 @th,96,24 4097 meta mark set 0xd0c4e3");
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        end();
        // another mark: the kernel looks for a way once more, and there is none
        rule("type route hook output priority -150; udp dport 4789 meta mark set 1");
        assert!(is_silent(&one, &two, TWO));
        // likewise without our rules, and without any policy
        cluster.nodes[0].frozen(|| {
            host.output("nft", &["delete", "table", "ip", "skep-test-ipsec"]);
            assert!(is_silent(&one, &two, TWO));
        });
        await_table(host);
        cluster.nodes[0].frozen(|| {
            flush(host, "policy");
            assert!(is_silent(&one, &two, TWO));
        });
        end();
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        // one that refuses says so in the clear, but not what it refuses
        rule("type filter hook input priority 0; udp dport 4789 reject");
        assert!(is_silent(&two, &one, ONE));
        end();
        assert!(arrives(&two, &one, ONE));
        // a kernel whose tunnels put no checksum over the outer datagram
        rule("type filter hook output priority 0; udp sport 1023 udp dport 4789 udp checksum set 0");
        let there = &cluster.nodes[1].host;
        there.output("nft", &["table ip other { chain other { type filter hook input priority 0; udp dport 4789 udp checksum 0 counter; }; }"]);
        assert!(arrives(&one, &two, TWO));
        let seen = there.output("nft", &["list", "table", "ip", "other"]);
        assert!(seen.contains("counter packets") && !seen.contains("packets 0"), "{seen}");
        there.output("nft", &["delete", "table", "ip", "other"]);
        end();
        // a firewall that knows dockerd's ports alone
        rule("type filter hook input priority 0; policy drop; ip protocol esp accept; udp dport 4789 accept");
        assert!(arrives(&two, &one, ONE));
        end();
        wire.end().assert_sealed();
    });
}

/// Makes the kernel believe that a state has sealed so many packets: `XFRM_MSG_NEWAE` with `XFRMA_LTIME_VAL`.
fn set_packets(host: &Ns, destination: Ipv4Addr, spi: u32, packets: u64) {
    let mut body = vec![0; 48];
    body[..4].copy_from_slice(&destination.octets());
    body[16..20].copy_from_slice(&spi.to_be_bytes());
    body[20..23].copy_from_slice(&[2, 0, 50]);
    body.extend_from_slice(&[36, 0, 9, 0]);
    body.extend([0, packets, 0, 0].iter().flat_map(|number: &u64| number.to_ne_bytes()));
    let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
    // request, acknowledge, replace
    message.extend_from_slice(&[0x1e, 0, 0x05, 0x01, 1, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(body);
    let answer = host.run(move || {
        let mut socket = netlink_sys::Socket::new(netlink_sys::constants::NETLINK_XFRM).unwrap();
        socket.bind_auto().unwrap();
        socket.send_to(&message, &netlink_sys::SocketAddr::new(0, 0), 0).unwrap();
        let mut answer = Vec::with_capacity(256);
        socket.recv_from(&mut answer, 0).unwrap();
        answer
    });
    assert_eq!((answer[4], &answer[16..20]), (2, [0; 4].as_slice()), "{answer:?}");
}

#[test]
fn a_worn_state_is_made_anew_before_it_ends() {
    cluster(2, |cluster| {
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let [one, two] = pair(cluster, &encrypted("secret", 1));
        assert!(arrives(&one, &two, TWO));
        let node = &cluster.nodes[0];
        let sealing = || {
            let states = node.host.output("ip", &["-s", "xfrm", "state"]);
            let mut states = states.split("\nsrc ").map(|state| state.trim_start_matches("src "));
            let state = states.find(|state| state.starts_with("192.0.2.1 dst 192.0.2.2"));
            state.unwrap_or_default().to_owned()
        };
        let state = sealing();
        let spi = &state[state.find("spi 0x").unwrap() + 6..][..8];
        let wire = Wire::listen(&cluster.switch);
        set_packets(&node.host, [192, 0, 2, 2].into(), u32::from_str_radix(spi, 16).unwrap(), (1 << 31) - 1);
        assert!(sealing().contains("(bytes), 2147483647(packets)"), "{}", sealing());
        // the kernel looks at the number before it counts
        assert!(arrives(&one, &two, TWO) && arrives(&one, &two, TWO));
        let start = Instant::now();
        // its place is empty for a moment
        while sealing().is_empty() || sealing().contains("(bytes), 2147483648(packets)") {
            assert!(start.elapsed() < RESTORED, "{}", sealing());
            std::thread::sleep(PAUSE);
        }
        assert!(sealing().contains(spi) && arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        wire.end().assert_sealed();
    });
}

#[test]
fn states_that_dockerd_left_are_replaced() {
    cluster(2, |cluster| {
        let spec = encrypted("secret", 1);
        // of another key, but the index of the one to come
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let [one, two] = pair(cluster, &spec);
        let node = &cluster.nodes[0];
        let sealing = states(node);
        let sealing = sealing.split("src ").find(|state| state.starts_with("192.0.2.1 dst 192.0.2.2")).unwrap();
        let spi = &sealing[sealing.find("spi 0x").unwrap() + 4..][..10];
        set_keys(node, []);
        let dockerds = format!(
            "src 192.0.2.1 dst 192.0.2.2 proto esp spi {spi} reqid 13681891 mode transport \
             aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1000001234 64"
        );
        node.host.output("ip", &[&["xfrm", "state", "add"], &words(&dockerds)[..]].concat());
        set_keys(node, [1, 2, 3]);
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        // others' are left alone
        let others = dockerds.replace("reqid 13681891", "reqid 7").replace(spi, "0x7777");
        node.host.output("ip", &[&["xfrm", "state", "add"], &words(&others)[..]].concat());
        set_keys(node, [2, 3, 4]);
        set_keys(node, []);
        assert!(states(node).contains("spi 0x00007777 reqid 7"));
        node.host.output("ip", &["xfrm", "state", "flush"]);
    });
}

#[test]
fn the_own_port_is_one_that_nobody_has() {
    cluster(2, |cluster| {
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let _taken = cluster.nodes[0].host.run(|| UdpSocket::bind(("127.0.0.1", OWN_PORT)).unwrap());
        let [one, two] = pair(cluster, &encrypted("secret", 1));
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        let [_, there] = [&cluster.nodes[0], &cluster.nodes[1]];
        assert!(there.host.run(|| UdpSocket::bind(("0.0.0.0", OWN_PORT)).is_err()));
        // a second network on it
        let other = encrypted("other", 3);
        let [third, fourth] = [(0, "three", "10.0.3.5/24"), (1, "four", "10.0.3.6/24")].map(|(at, word, address)| {
            cluster.nodes[at].ensure(other.clone());
            Ns::at(cluster.nodes[at].container(&other, word, address).netns.as_ref().unwrap())
        });
        cluster.tell(&other, &[(0, [10, 0, 3, 5]), (1, [10, 0, 3, 6])]);
        assert!(arrives(&third, &fourth, [10, 0, 3, 6]) && arrives(&one, &two, TWO));
        assert_eq!(states(there).matches("proto esp").count(), 4);
    });
}

#[test]
fn a_change_of_address_or_port_leaves_containers_in_place() {
    cluster(2, |cluster| {
        cluster.nodes.iter().for_each(|node| set_keys(node, [1, 2, 3]));
        let spec = encrypted("secret", 1);
        // the address is not known at first: nothing has a tunnel
        let first = OverlaySpec { vtep: None, ..spec.clone() };
        for node in &cluster.nodes {
            let first = first.clone();
            node.call(|net| async move { net.overlay_ensure(first).await }).unwrap();
            assert_nothing_of_ipsec(node);
        }
        let [one, two] = pair(cluster, &spec);
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        let wire = Wire::listen(&cluster.switch);
        let other_port = OverlaySpec { data_path_port: 7789, ..spec.clone() };
        cluster.nodes.iter().for_each(|node| node.ensure(other_port.clone()));
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        // another address of the first machine
        cluster.nodes[0].host.output("ip", &["addr", "add", "192.0.2.51/24", "dev", "eth0"]);
        cluster.nodes[0].address = [192, 0, 2, 51].into();
        cluster.nodes[0].ensure(other_port.clone());
        cluster.tell(&spec, &[(0, ONE), (1, TWO)]);
        assert!(arrives(&one, &two, TWO) && arrives(&two, &one, ONE));
        let states = states(&cluster.nodes[1]);
        assert!(states.contains("192.0.2.51") && !states.contains("192.0.2.1 "), "{states}");
        wire.end().assert_sealed();
        // none any more
        let last = OverlaySpec { vtep: None, ..spec };
        for node in &cluster.nodes {
            let last = last.clone();
            node.call(|net| async move { net.overlay_ensure(last).await }).unwrap();
            assert_nothing_of_ipsec(node);
        }
        assert!(is_silent(&one, &two, TWO));
    });
}
