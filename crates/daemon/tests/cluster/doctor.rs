//! `skep doctor` finds the faults that break overlays in practice, on real machines, and names them.

use std::fs;
use std::net::UdpSocket;

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::hosts::{Host, Wire};
use crate::support::{Done, until};

/// A report as `--json` gives it, with the exit code.
struct Report {
    code: i32,
    findings: Vec<Value>,
    text: String,
}

impl Report {
    fn of(host: &Host) -> Self {
        let done = host.try_skep("doctor --json");
        let report: Value = serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"));
        let findings = report["Findings"].as_array().expect("findings").clone();
        Self { code: done.code, findings, text: done.out }
    }

    /// What is wrong, as level, check and peer's name.
    fn wrong(&self) -> Vec<String> {
        let word = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        let wrong = self.findings.iter().filter(|it| ["broken", "warning"].contains(&&*word(it, "Level")));
        let mut wrong: Vec<String> = wrong
            .map(|it| {
                let peer = word(it, "Peer");
                format!("{} {} {}", word(it, "Level"), word(it, "Check"), peer.split(' ').next().unwrap_or_default())
            })
            .collect();
        wrong.sort();
        wrong
    }

    /// What a finding of this check says, with its remedy.
    fn says(&self, check: &str) -> String {
        let found = self.findings.iter().find(|it| it["Check"] == check && it["Level"] != "ok");
        let found = found.unwrap_or_else(|| panic!("nothing of {check}: {}", self.text));
        format!("{} → {}", found["What"].as_str().unwrap_or_default(), found["Remedy"].as_str().unwrap_or_default())
    }
}

/// Machines in one swarm that know each other's places.
fn swarm(count: usize) -> Wire {
    let wire = Wire::start(count);
    wire.init();
    for joiner in 1..count {
        wire.join(joiner, "worker");
    }
    for host in &wire.hosts {
        until("a healthy swarm", || Report::of(host).wrong().is_empty().then_some(()));
    }
    wire
}

/// Rules in a table of a test's own.
fn rules(host: &Host, rules: &str) {
    let done = Done::of(host.inside("nft").arg(rules).output().expect("nft"));
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn a_healthy_swarm_is_called_so() {
    let wire = swarm(2);
    for host in &wire.hosts {
        let report = Report::of(host);
        assert_eq!(report.code, 0, "{}", report.text);
        for check in ["gossip-tcp", "gossip-udp", "data-path", "mtu", "checksums", "clock", "tables"] {
            let found = report.findings.iter().find(|it| it["Check"] == check && !it["Peer"].is_null());
            assert!(found.is_some_and(|it| it["Level"] == "ok"), "{check}: {}", report.text);
        }
        let shown = host.try_skep("doctor");
        assert_eq!(shown.code, 0, "{shown:?}");
        println!("{}", shown.out);
    }
}

#[test]
fn packets_that_a_firewall_drops_are_named_with_their_way_and_the_rule() {
    let wire = swarm(2);
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    // Gossip from a to b, one way.
    let head = "table inet mine { chain in { type filter hook input priority 0;";
    rules(b, &format!("{head} ip saddr {} udp dport 7946 drop; }}; }}", a.address));
    let report = Report::of(a);
    assert_eq!((report.code, report.wrong()), (2, vec!["broken gossip-udp b".to_owned()]), "{}", report.text);
    let said = report.says("gossip-udp");
    assert!(said.contains("packets from here do not arrive there"), "{said}");
    assert!(said.contains("there, rule ") && said.contains("of chain in in table inet mine drops UDP 7946"), "{said}");
    let report = Report::of(b);
    assert_eq!(report.wrong(), ["broken firewall ", "broken gossip-udp a"], "{}", report.text);
    assert!(report.says("gossip-udp").contains("packets from there do not arrive here"), "{}", report.text);
    assert!(report.says("firewall").contains("nft insert rule inet mine in udp dport 7946 accept"), "{}", report.text);
    rules(b, "delete table inet mine");
    // Tunnels to b.
    rules(b, &format!("{head} udp dport 4789 drop; }}; }}"));
    let report = Report::of(a);
    assert_eq!(report.wrong(), ["broken data-path b"], "{}", report.text);
    let said = report.says("data-path");
    assert!(said.contains("packets from here through UDP 4789 do not arrive there"), "{said}");
    assert!(said.contains("of chain in in table inet mine drops UDP 4789"), "{said}");
    rules(b, "delete table inet mine");
    // All that a sends to b's 7946 by TCP: it cannot be asked.
    rules(b, &format!("{head} ip saddr {} tcp dport 7946 drop; }}; }}", a.address));
    let report = Report::of(a);
    assert!(report.wrong().contains(&"broken gossip-tcp b".to_owned()), "{}", report.text);
    assert!(report.text.contains("it did not answer what arrives there"), "{}", report.text);
    rules(b, "delete table inet mine");
    until("a healthy swarm", || Report::of(a).wrong().is_empty().then_some(()));
}

#[test]
fn a_path_that_is_too_small_for_full_packets_is_measured() {
    let wire = swarm(2);
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    // The switch's port of b drops what is too large, without a word. With br_netfilter a bridge would cut packets up.
    let plain = "f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo 0 > $f";
    assert_eq!(wire.on_wire(&["sh", "-c", plain]).code, 0);
    let port = Done::of(b.inside("cat").arg("/sys/class/net/eth0/iflink").output().expect("cat"));
    let links = wire.on_wire(&["ip", "-o", "link"]).out;
    let line = links.lines().find(|line| line.starts_with(&format!("{}: ", port.out.trim()))).expect("the port");
    let name = line.split([' ', '@']).nth(1).expect("a name");
    assert_eq!(wire.on_wire(&["ip", "link", "set", name, "mtu", "1400"]).code, 0);
    let report = Report::of(a);
    // Gossip's full packets are 1428 bytes long.
    let both_ways = ["broken gossip-udp b", "broken gossip-udp b", "broken mtu b"];
    assert_eq!(report.wrong(), both_ways, "{}", report.text);
    let said = report.says("mtu");
    assert!(said.contains("do not pass either way: 1350 bytes do, 1450 do not"), "{said}");
    assert!(said.contains("--opt com.docker.network.driver.mtu=1350"), "{said}");
}

#[test]
fn a_subnet_that_the_machine_routes_elsewhere_is_told() {
    let wire = swarm(1);
    let a = &wire.hosts[0];
    a.load_tiny();
    a.docker("network create -d overlay --subnet 10.90.0.0/24 mesh");
    a.docker("service create -d --name web --network mesh tiny-service");
    a.until_replicas("web", "1/1");
    assert_eq!(Report::of(a).wrong(), [""; 0]);
    let route = ["route", "add", "10.90.0.0/16", "dev", "eth0"];
    assert_eq!(Done::of(a.inside("ip").args(route).output().expect("ip")).code, 0);
    let report = Report::of(a);
    assert_eq!((report.code, report.wrong()), (1, vec!["warning subnets ".to_owned()]), "{}", report.text);
    assert!(report.text.contains("network mesh has the subnet 10.90.0.0/24"), "{}", report.text);
    assert!(report.text.contains("10.90.0.0/16 dev eth0"), "{}", report.text);
}

#[test]
fn a_port_that_another_has_is_told_on_both_sides() {
    let wire = Wire::start(2);
    wire.init();
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    let init = fs::read_to_string(b.file("init")).expect("an init");
    let namespace = fs::File::open(format!("/proc/{}/ns/net", init.trim())).expect("its network");
    let held = std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("its network");
        UdpSocket::bind("0.0.0.0:7946").expect("the port")
    });
    let held = held.join().expect("no panic");
    wire.join(1, "worker");
    let report = Report::of(b);
    assert!(report.wrong().contains(&"broken engines ".to_owned()), "{}", report.text);
    let said = report.says("engines");
    assert!(said.contains("this node does not gossip: UDP port 7946 is held by a program"), "{said}");
    let report = Report::of(a);
    assert!(report.wrong().contains(&"broken gossip-tcp b".to_owned()), "{}", report.text);
    assert!(report.says("gossip-tcp").contains("the connection is refused"), "{}", report.text);
    drop(held);
    for host in [a, b] {
        until("a healthy swarm", || Report::of(host).wrong().is_empty().then_some(()));
    }
}

#[test]
fn without_a_daemon_the_machine_itself_is_looked_at() {
    let wire = Wire::bare(1);
    let a = &wire.hosts[0];
    rules(a, "table inet mine { chain out { type filter hook output priority 0; udp dport 4789 drop; }; }");
    let nobody = format!("unix://{}", a.file("nobody").display());
    let skep = env!("CARGO_BIN_EXE_skep");
    let done = Done::of(a.inside(skep).args(["-H", &nobody, "doctor"]).output().expect("skep"));
    assert_eq!(done.code, 1, "{done:?}");
    for words in ["Cannot connect to the daemon", "drops UDP 4789 to other machines", "can do what networks need"] {
        let text = done.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(words), "{words}: {}", done.out);
    }
}

#[test]
fn of_a_dockerd_it_is_known_what_comes_back() {
    let mut wire = Wire::bare(2);
    wire.hosts[0].run();
    wire.hosts[1].run_dockerd();
    wire.init();
    wire.join(1, "worker");
    let [a, b] = wire.hosts.as_slice() else { unreachable!("two machines") };
    let healthy = until("a healthy swarm", || {
        let report = Report::of(a);
        (report.wrong().is_empty() && report.text.contains("pass both ways")).then_some(report)
    });
    assert!(healthy.text.contains("it does not run Skep"), "{}", healthy.text);
    for words in
        ["TCP 7946 passes from here to there", "tunnels (UDP 4789) pass both ways", "packets of 1450 bytes pass"]
    {
        assert!(healthy.text.contains(words), "{words}: {}", healthy.text);
    }
    rules(b, "table inet mine { chain in { type filter hook input priority 0; udp dport { 4789, 7946 } drop; }; }");
    let report = Report::of(a);
    assert_eq!(report.wrong(), ["broken data-path b", "broken gossip-udp b"], "{}", report.text);
    assert!(report.says("data-path").contains("which way they are lost could not be checked"), "{}", report.text);
}
