//! Bytes that a real dockerd sent, see `dockerd.txt`: they open, and what they say is understood.

use std::net::SocketAddr;
use std::time::Duration;

use gossip::{Config, Framer, Gossip, Kind, limits};

const RECORDED: &str = include_str!("dockerd.txt");

fn lines<'a>(kind: &'a str) -> impl Iterator<Item = &'static str> + 'a {
    RECORDED.lines().filter_map(move |line| line.strip_prefix(kind)?.strip_prefix(' '))
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("text"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal digits")).collect()
}

/// A frame, found in the bytes of its stream.
fn frame(hex: &str, gossip: &Gossip) -> Vec<u8> {
    let mut framer = Framer::new(gossip.secrecy());
    assert_eq!(framer.push(&bytes(hex)), Ok(true));
    framer.into_message()
}

#[test]
fn what_dockerd_sent_is_understood() {
    let keys: Vec<_> = lines("key").map(bytes).collect();
    let network = lines("network").next().expect("a network");
    let me: SocketAddr = "10.77.0.3:7946".parse().expect("an address");
    let entropy = Box::new(stdx::Rng::new(1));
    let mut gossip = Gossip::new(Config::new("me", me), &keys, 1, entropy, Duration::ZERO).expect("a configuration");
    gossip.join_network(Duration::ZERO, network).expect("joined");
    for hex in lines("push-pull") {
        let frame = frame(hex, &gossip);
        assert!(gossip.stream(Duration::ZERO, &frame).into_bytes().is_some(), "a push/pull is answered");
    }
    let peers = gossip.peers();
    let mut addresses: Vec<_> = peers.iter().map(|peer| peer.address.to_string()).collect();
    addresses.sort();
    assert_eq!(addresses, ["10.77.0.1:7946", "10.77.0.2:7946"]);
    assert!(peers.iter().all(|peer| peer.kind == Kind::Other));
    for hex in lines("bulk-sync") {
        let frame = frame(hex, &gossip);
        gossip.stream(Duration::ZERO, &frame);
    }
    let tasks = gossip.entries(network, "endpoint_table");
    let tasks: Vec<_> = tasks.map(|(_, entry)| String::from_utf8_lossy(&entry.value).into_owned()).collect();
    assert!(["plain.1.", "plain.2."].iter().all(|name| tasks.iter().any(|task| task.contains(name))), "{tasks:?}");
    assert!(gossip.entries(network, "overlay_peer_table").count() >= 2);
    for hex in lines("packet") {
        let packet = bytes(hex);
        assert!(packet.len() <= limits::PACKET_BYTES + 100);
        gossip.packet(Duration::from_secs(1), "10.77.0.1:7946".parse().expect("an address"), &packet);
    }
    assert!(gossip.counters().refused.is_empty(), "{:?}", gossip.counters().refused);
}
