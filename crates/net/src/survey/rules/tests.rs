//! Rules as `nft` and `iptables` write them, read back in a namespace of its own and asked.

use std::net::IpAddr;
use std::process::Command;

use doctor::firewall::{Fate, Packet};

use super::*;
use crate::netns::Namespace;

/// Reads what a script of `nft` made.
fn read_rules(script: &str) -> Ruleset {
    let namespace = Namespace::nameless().expect("a namespace");
    let done = namespace.enter(|| Command::new("sh").args(["-c", "printf %s \"$0\" | nft -f -", script]).output());
    let done = done.expect("nft");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    namespace.enter(|| read(&["own".to_owned()])).expect("rules")
}

fn packet(protocol: u8, port: u16) -> Packet {
    Packet {
        hook: Hook::Input,
        source: Some(IpAddr::from([192, 0, 2, 2])),
        destination: Some(IpAddr::from([192, 0, 2, 1])),
        is_v6: false,
        protocol,
        source_port: None,
        port: Some(port),
        input: Some(("eth0".to_owned(), 2)),
        output: None,
    }
}

/// The chain where a packet surely ends; empty if it passes; with a question mark if it may end there.
fn end(rules: &Ruleset, packet: &Packet) -> String {
    match rules.fate(packet, &[]) {
        Fate::Passes => String::new(),
        Fate::Drops(place) => place.chain,
        Fate::MayDrop(place) => format!("{}?", place.chain),
    }
}

fn check(script: &str, expected: &[((u8, u16), &str)]) {
    let rules = read_rules(script);
    for ((protocol, port), chain) in expected {
        assert_eq!(end(&rules, &packet(*protocol, *port)), *chain, "{port} of {protocol}\n{script}\n{rules:#?}");
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

#[test]
fn debians_usual_firewall() {
    let script = "table inet filter { chain input { type filter hook input priority 0; policy drop;
        ct state established,related accept
        iif lo accept
        ip protocol icmp accept
        tcp dport { 22, 80, 2377 } accept
        udp dport 7000-8000 accept
        ip saddr 192.0.2.0/24 tcp dport 7946 accept
        counter reject
    }
    }";
    check(script, &[((TCP, 22), ""), ((TCP, 23), "input"), ((TCP, 2377), ""), ((TCP, 7946), "")]);
    check(script, &[((UDP, 7946), ""), ((UDP, 4789), "input")]);
}

#[test]
fn jumps_maps_and_intervals() {
    let script = "table inet zones {
        set blocked { type ipv4_addr; flags interval; elements = { 192.0.2.0-192.0.2.5, 198.51.100.0/24 } }
        map ports { type inet_service : verdict; elements = { 4789 : drop, 7946 : accept, 80 : jump web } }
        chain web { ip saddr @blocked drop; }
        chain zone { udp dport vmap @ports; }
        chain input { type filter hook input priority filter; policy accept;
            iifname \"eth*\" jump zone
            tcp dport != 2377 ip saddr . tcp dport { 192.0.2.2 . 5000-5010 } drop
        }
    }";
    check(script, &[((UDP, 4789), "zone"), ((UDP, 7946), ""), ((UDP, 80), "web"), ((UDP, 81), "")]);
    check(script, &[((TCP, 5005), "input"), ((TCP, 5011), ""), ((TCP, 2377), "")]);
}

#[test]
fn what_is_not_known_is_possible_and_other_hooks_count() {
    let script = "table inet other { chain input { type filter hook input priority 0;
        udp dport 7946 limit rate 5/second accept
        udp dport 7946 drop
        udp dport 4789 @ih,0,8 8 drop
        fib daddr type != local drop
    }
    }";
    check(script, &[((UDP, 7946), "input?"), ((UDP, 4789), "input?"), ((TCP, 7946), "")]);
    let raw = "table ip raw { chain early { type filter hook prerouting priority raw; udp dport 4789 drop; }; }";
    check(raw, &[((UDP, 4789), "early"), ((UDP, 4788), "")]);
    let own = "table ip own { chain input { type filter hook input priority 0; policy drop; }; }";
    check(own, &[((UDP, 4789), "")]);
}

#[test]
fn a_machine_without_rules() {
    check("add table ip empty", &[((UDP, 4789), "")]);
}

/// What iptables makes of its words, where it is installed: matches in its own form, some of them translated.
#[test]
fn rules_of_iptables() {
    if Command::new("iptables-nft").arg("--version").output().is_err() {
        return;
    }
    let namespace = Namespace::nameless().expect("a namespace");
    let rules = "-P INPUT DROP
        -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        -A INPUT -p tcp -m multiport --dports 22,2377,7000:7945 -m comment --comment some -j ACCEPT
        -N SWARM
        -A INPUT -j SWARM
        -A SWARM -m addrtype ! --dst-type LOCAL -j DROP
        -A SWARM -m addrtype --dst-type LOCAL -p udp --dport 7946 -m state --state NEW -j ACCEPT
        -A SWARM -p udp -m udp --dport 4789 -j REJECT
        -A SWARM -m recent --name x --rcheck -p tcp --dport 9 -j ACCEPT";
    for rule in rules.lines() {
        let words = rule.split_whitespace();
        let done = namespace.enter(|| Command::new("iptables-nft").args(words).output()).expect("iptables");
        assert!(done.status.success(), "{rule}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let rules = namespace.enter(|| read(&[])).expect("rules");
    let expected =
        [((TCP, 22), ""), ((TCP, 7944), ""), ((TCP, 7946), "INPUT"), ((UDP, 7946), ""), ((UDP, 4789), "SWARM")];
    for ((protocol, port), chain) in expected.into_iter().chain([((TCP, 9), "INPUT?")]) {
        assert_eq!(end(&rules, &packet(protocol, port)), chain, "{port} of {protocol}\n{rules:#?}");
    }
}
