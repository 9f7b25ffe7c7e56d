//! What the kernel can do, what it is set to, its table of connections and its clock.

use std::fs;
use std::io;

use doctor::{ClockState, Conntrack, Feature, Features, KernelSettings};

use crate::ipsec;
use crate::links::{BridgePort, Links, Veth};
use crate::netns::Namespace;
use crate::nft::{Batch, DataType, Hook, PREROUTING, Socket, Table};
use crate::vxlan::Vxlan;

/// The kernel's version.
pub(super) fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn tried(result: io::Result<()>) -> Feature {
    match result {
        Ok(()) => Feature::Present,
        // "Operation not supported (os error 95)", without its number.
        Err(error) => Feature::Missing(error.to_string().split(" (").next().unwrap_or_default().to_lowercase()),
    }
}

/// Tries what networks need, in a namespace that is gone afterwards with all in it.
pub(super) async fn features() -> Features {
    // Without root nothing can be tried.
    let Ok(namespace) = Namespace::nameless() else { return Features::default() };
    let Ok(links) = Links::open_in(&namespace) else { return Features::default() };
    let mac = [2, 0, 0, 0, 0, 1];
    let bridge = links.ensure_bridge("try-bridge", mac, 1500).await;
    let veth = match &bridge {
        Ok(index) => {
            let veth = Veth {
                name: "try-veth",
                bridge: *index,
                peer_name: "try-peer",
                peer_mac: mac,
                mtu: 1500,
                port: BridgePort::Plain,
            };
            tried(links.add_veth(&veth, &namespace).await)
        }
        Err(_) => Feature::Unknown,
    };
    let port = crate::DATA_PATH_PORT;
    let vxlan = Vxlan { name: "try-vxlan", vni: 1, port, is_own_port: false, local: None, mtu: 1450 };
    let vxlan = tried(links.add_vxlan(&vxlan, &namespace).await);
    let nf_tables = tried(namespace.enter(try_tables));
    let esp = tried(namespace.enter(ipsec::try_esp));
    Features { bridge: tried(bridge.map(drop)), veth, vxlan, nf_tables, esp }
}

/// A table as ours are: a map, and a chain that translates.
fn try_tables() -> io::Result<()> {
    let table = Table::ip("try");
    let mut batch = Batch::new();
    batch.add_table(&table);
    batch.add_set(&table, "map", DataType::ProtoPort, Some(DataType::AddressPort));
    batch.add_base_chain(&table, "nat", &Hook::nat(PREROUTING));
    Socket::open()?.commit(batch)
}

fn flag(path: &str) -> Option<bool> {
    Some(fs::read_to_string(path).ok()?.trim() != "0")
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

pub(super) fn settings() -> KernelSettings {
    KernelSettings {
        ip_forward: flag("/proc/sys/net/ipv4/ip_forward"),
        bridge_nf_call_iptables: flag("/proc/sys/net/bridge/bridge-nf-call-iptables"),
    }
}

/// The table of the thread's namespace.
pub(super) fn conntrack(place: &str) -> Option<Conntrack> {
    let used = number("/proc/sys/net/netfilter/nf_conntrack_count")?;
    let most = number("/proc/sys/net/netfilter/nf_conntrack_max")?;
    let dropped = fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").map_or(0, |text| dropped(&text));
    Some(Conntrack { place: place.to_owned(), used, most, dropped })
}

/// Packets and connections that a full table has cost: a line of hexadecimal numbers for each processor, under names.
fn dropped(text: &str) -> u64 {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let columns: Vec<usize> =
        ["drop", "early_drop"].into_iter().filter_map(|wanted| names.iter().position(|name| *name == wanted)).collect();
    let line = |line: &str| {
        let numbers: Vec<_> = line.split_whitespace().map(|it| u64::from_str_radix(it, 16).unwrap_or(0)).collect();
        columns.iter().filter_map(|column| numbers.get(*column)).sum::<u64>()
    };
    lines.map(line).sum()
}

/// Whether anything keeps the clock.
pub(super) fn clock() -> ClockState {
    // SAFETY: all-zero bytes are a valid `timex`, and with `modes` 0 the kernel only writes into it.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        let state = libc::adjtimex(&raw mut timex);
        (state, timex.status)
    };
    match state {
        -1 => ClockState::Unknown,
        _ if status & libc::STA_UNSYNC != 0 => ClockState::Free,
        _ => ClockState::Kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Rule, Verdict};

    #[test]
    fn drops_of_all_processors_are_added() {
        let text = "entries searched found drop early_drop icmp_error\n00000010 0 0 0000000a 00000001 0\n0 0 0 2 0 9\n";
        assert_eq!(dropped(text), 13);
        assert_eq!(dropped("entries\n1\n"), 0);
        assert_eq!(dropped(""), 0);
    }

    /// A rule that asks for a connection's state makes the kernel track connections.
    fn track() -> io::Result<()> {
        let table = Table::ip("try");
        let mut batch = Batch::new();
        batch.add_table(&table);
        batch.add_base_chain(&table, "nat", &Hook::nat(PREROUTING));
        batch.add_rule(&table, "nat", &Rule::new().established().verdict(Verdict::Accept));
        Socket::open()?.commit(batch)
    }

    /// The bound is the whole machine's, and a test must not change it: flows are real, a small bound is written in.
    #[tokio::test]
    async fn flows_fill_the_table_of_their_namespace_and_a_full_one_is_said() {
        const FLOWS: u64 = 64;
        const LOOPBACK: u32 = 1;
        let namespace = Namespace::nameless().expect("a namespace");
        Links::open_in(&namespace).expect("a socket").set_up(LOOPBACK).await.expect("the loopback is up");
        let flood = || {
            track()?;
            let before = conntrack("here");
            let sockets =
                (0..FLOWS).map(|_| std::net::UdpSocket::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
            for socket in &sockets {
                socket.send_to(b"x", "127.0.0.1:9")?;
            }
            Ok((before.expect("a table"), conntrack("here").expect("a table")))
        };
        let (before, after) = namespace.enter(flood).expect("packets");
        assert_eq!((before.used, before.dropped), (0, 0));
        assert!(after.used >= FLOWS && after.most == before.most, "{after:?}");
        let mut watch = doctor::ConntrackWatch::default();
        assert_eq!(watch.look(&[before]), []);
        assert_eq!(watch.look(std::slice::from_ref(&after)), []);
        let said = watch.look(&[Conntrack { most: after.used, ..after }]);
        assert!(matches!(&said[..], [doctor::ConntrackNews::Full(_)]), "{said:?}");
    }

    #[tokio::test]
    async fn this_machine_can_do_what_the_tests_need() {
        let Features { bridge, veth, vxlan, nf_tables, esp } = features().await;
        let all = [&bridge, &veth, &vxlan, &nf_tables];
        assert!(all.iter().all(|feature| **feature == Feature::Present), "{all:?}");
        assert_ne!(esp, Feature::Unknown);
    }
}
