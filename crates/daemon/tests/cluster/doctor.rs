//! `skep doctor` finds the faults that break overlays in practice, on real machines, and names them.

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
