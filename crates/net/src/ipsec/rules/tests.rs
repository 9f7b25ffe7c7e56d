//! What the kernel has of the rules and the locks, in the words of nft(8) and ip(8): it needs no ESP for these.

use std::process::Command;

use super::super::plan::{Held, Path, Wanted, steps};
use super::super::{held, take};
use super::*;
use crate::ipsec::KeyRing;
use crate::netlink;
use crate::nft::Socket;

/// Runs `test` in a network namespace of its own.
fn apart<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        test()
    });
    thread.join().unwrap()
}

fn output(words: &str) -> String {
    let mut words = words.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_kernel_takes_the_rules() {
    let shown = apart(|| {
        let rules = EncryptedRules {
            own_port: 1023,
            void: "skep-void".to_owned(),
            tunnels: [(4789, 4097)].into(),
            members: BTreeSet::new(),
        };
        let (table, mut batch) = (Table::ip("test"), Batch::new());
        write_rules(&mut batch, &table, &rules);
        Socket::open().unwrap().commit(batch).unwrap();
        output("nft list table ip test")
    });
    let expected = [
        "chain prerouting {",
        "type filter hook prerouting priority raw; policy accept;",
        "ipsec in reqid 13681891 meta pkttype set other",
        "ipsec in spnum 1 reqid 13681891 meta pkttype set other",
        "chain member {",
        "th dport . @th,96,24 . ip saddr @members accept",
        "counter packets 0 bytes 0 drop",
        "chain opened {",
        "ipsec in reqid 13681891 goto member",
        "ipsec in spnum 1 reqid 13681891 goto member",
        "counter packets 0 bytes 0 drop",
        "chain input {",
        "type filter hook input priority mangle; policy accept;",
        "udp dport 1023 counter packets 0 bytes 0 drop",
        "udp dport . @th,96,24 @tunnels goto opened",
        "chain move {",
        "type filter hook input priority 300; policy accept;",
        "udp dport . @th,96,24 @tunnels udp checksum 0 meta mark set 0x00d0c4e3 udp dport set 1023",
        "udp dport . @th,96,24 @tunnels udp checksum != 0 meta mark set 0x00d0c4e3 udp dport set 1023",
        "chain mark {",
        "type filter hook output priority mangle - 10; policy accept;",
        "udp sport 1023 udp dport 4789 rt ipsec exists meta mark set 0x00d0c4e3",
        "chain last {",
        "type filter hook postrouting priority filter; policy accept;",
        "udp sport 1023 udp dport 4789 rt ipsec missing counter packets 0 bytes 0 drop",
        "chain output {",
        "type route hook output priority mangle + 10; policy accept;",
        "oifname \"skep-void\" meta l4proto esp meta mark set 0x00000000",
    ];
    let shown: Vec<&str> = shown.lines().map(str::trim).skip_while(|line| !line.starts_with("chain")).collect();
    let shown: Vec<&str> = shown.into_iter().filter(|line| !line.is_empty() && *line != "}").collect();
    assert_eq!(shown, expected);
}

#[test]
fn the_kernel_takes_the_locks_and_gives_them_back() {
    apart(|| {
        let wanted = Wanted {
            ports: Some((1023, [4789].into())),
            paths: [Path { local: [192, 0, 2, 1].into(), remote: [192, 0, 2, 2].into(), data_port: 4789 }].into(),
            void: 1,
        };
        let mut socket = netlink::Socket::open(netlink_sys::constants::NETLINK_XFRM).unwrap();
        let locks = steps(&Held::default(), &wanted, Some(&KeyRing::default()));
        locks.iter().for_each(|step| take(&mut socket, step).unwrap());
        let shown = output("ip xfrm policy");
        let words: Vec<&str> = shown.split_whitespace().collect();
        let expected = "src 0.0.0.0/0 dst 0.0.0.0/0 proto udp sport 1023 dport 4789 dir out action block priority 53444 \
                        ptype main src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport 1023 dir in action block priority 53444 \
                        ptype main mark 0/0x800000";
        assert_eq!(words, expected.split_whitespace().collect::<Vec<_>>(), "{shown}");
        // somebody else's is not seen
        output("ip xfrm policy add src 10.0.0.0/8 dst 10.0.0.0/8 dir out action block");
        let found = held(&mut socket).unwrap();
        assert_eq!(steps(&found, &wanted, Some(&KeyRing::default())), []);
        assert_eq!(found.policies.len(), 2);
        // twice is as good as once
        locks.iter().for_each(|step| take(&mut socket, step).unwrap());
        let unlocked = steps(&found, &Wanted::default(), None);
        for _ in 0..2 {
            unlocked.iter().for_each(|step| take(&mut socket, step).unwrap());
        }
        assert_eq!(held(&mut socket).unwrap(), Held::default());
        assert!(output("ip xfrm policy").contains("10.0.0.0/8"));
    });
}
