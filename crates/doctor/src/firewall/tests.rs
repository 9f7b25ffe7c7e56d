//! Rulesets as operators write them, and what becomes of packets.

use super::*;

const UDP: u8 = 17;

fn packet() -> Packet {
    Packet {
        hook: Hook::Input,
        source: Some(IpAddr::from([192, 0, 2, 2])),
        destination: Some(IpAddr::from([192, 0, 2, 1])),
        is_v6: false,
        protocol: UDP,
        source_port: None,
        port: Some(4789),
        input: Some(("eth0".to_owned(), 2)),
        output: None,
    }
}

fn chain(name: &str, base: Option<(i32, bool)>, rules: Vec<Vec<Step>>) -> Chain {
    let base = base.map(|(priority, drops)| Base { hook: Hook::Input, priority, drops });
    let rules = rules.into_iter().enumerate();
    let rules = rules.map(|(at, steps)| Rule { handle: at as u64 + 1, steps }).collect();
    Chain { family: Family::Inet, table: "t".to_owned(), name: name.to_owned(), base, rules }
}

fn ruleset(chains: Vec<Chain>) -> Ruleset {
    Ruleset { chains, ..Ruleset::default() }
}

fn equal(what: Load, value: &[u8]) -> Vec<Step> {
    let value = value.to_vec();
    vec![Step::Load { what, register: 4 }, Step::Compare { register: 4, compare: Compare::Equal, value }]
}

fn and(parts: &[Vec<Step>], verdict: Verdict) -> Vec<Step> {
    let mut steps = parts.concat();
    steps.push(Step::Verdict(verdict));
    steps
}

fn port(port: u16) -> Vec<Step> {
    equal(Load::Transport { offset: 2, len: 2 }, &port.to_be_bytes())
}

fn protocol(number: u8) -> Vec<Step> {
    equal(Load::Meta(16), &[number])
}

/// `ct state established,related`.
fn established() -> Vec<Step> {
    vec![
        Step::Load { what: Load::State, register: 4 },
        Step::Mask { source: 4, register: 4, mask: 6_u32.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Step::Compare { register: 4, compare: Compare::Unequal, value: vec![0; 4] },
    ]
}

fn place(chain: &str, handle: Option<u64>) -> Place {
    Place { family: Family::Inet, table: "t".to_owned(), chain: chain.to_owned(), handle }
}

fn check(rules: &Ruleset, packet: &Packet, expected: Fate) {
    assert_eq!(rules.fate(packet, &[]), expected, "{rules:#?}");
}

#[test]
fn a_usual_firewall_drops_what_it_does_not_name() {
    let rules = |more: Vec<Vec<Step>>| {
        let mut all =
            vec![and(&[established()], Verdict::Accept), and(&[equal(Load::Meta(6), &name("lo"))], Verdict::Accept)];
        all.extend(more);
        ruleset(vec![chain("input", Some((0, true)), all)])
    };
    check(&rules(vec![]), &packet(), Fate::Drops(place("input", None)));
    let accept = and(&[protocol(UDP), port(4789)], Verdict::Accept);
    check(&rules(vec![accept.clone()]), &packet(), Fate::Passes);
    check(&rules(vec![accept]), &Packet { port: Some(7946), ..packet() }, Fate::Drops(place("input", None)));
    let lo = Packet { input: Some(("lo".to_owned(), 1)), ..packet() };
    check(&rules(vec![]), &lo, Fate::Passes);
}

fn name(link: &str) -> Vec<u8> {
    let mut name = link.as_bytes().to_vec();
    name.resize(16, 0);
    name
}

#[test]
fn an_accept_counts_in_its_table_only() {
    let accepts = chain("first", Some((-10, false)), vec![and(&[port(4789)], Verdict::Accept)]);
    let drops = chain("second", Some((10, false)), vec![vec![Step::Nothing], and(&[port(4789)], Verdict::Drop)]);
    check(&ruleset(vec![drops.clone(), accepts.clone()]), &packet(), Fate::Drops(place("second", Some(2))));
    let own = ruleset(vec![drops, accepts]);
    assert_eq!(own.fate(&packet(), &["t".to_owned()]), Fate::Passes, "our own tables are not judged");
}

#[test]
fn chains_jump_and_return() {
    let to = |verdict| and(&[], verdict);
    let rules = ruleset(vec![
        chain(
            "input",
            Some((0, true)),
            vec![to(Verdict::Jump("zone".to_owned())), and(&[port(4789)], Verdict::Accept)],
        ),
        chain("zone", None, vec![and(&[port(1)], Verdict::Drop), to(Verdict::Return), to(Verdict::Drop)]),
    ]);
    check(&rules, &packet(), Fate::Passes);
    let rules = ruleset(vec![
        chain("input", Some((0, true)), vec![to(Verdict::Goto("zone".to_owned())), to(Verdict::Accept)]),
        chain("zone", None, vec![]),
    ]);
    check(&rules, &packet(), Fate::Drops(place("input", None)));
    // A loop, which the kernel would not take.
    let rules = ruleset(vec![chain("input", Some((0, false)), vec![to(Verdict::Jump("input".to_owned()))])]);
    check(&rules, &packet(), Fate::Passes);
}

#[test]
fn what_is_not_known_is_possible_not_certain() {
    let maybe = |verdict| vec![Step::Maybe, Step::Verdict(verdict)];
    let only = |rules| ruleset(vec![chain("input", Some((0, false)), rules)]);
    check(&only(vec![maybe(Verdict::Drop)]), &packet(), Fate::MayDrop(place("input", Some(1))));
    let after = only(vec![maybe(Verdict::Accept), and(&[], Verdict::Drop)]);
    check(&after, &packet(), Fate::MayDrop(place("input", Some(2))));
    let before = only(vec![maybe(Verdict::Drop), and(&[], Verdict::Drop)]);
    check(&before, &packet(), Fate::Drops(place("input", Some(2))));
    let jump = ruleset(vec![
        chain("input", Some((0, false)), vec![maybe(Verdict::Jump("deep".to_owned()))]),
        chain("deep", None, vec![and(&[], Verdict::Drop)]),
    ]);
    check(&jump, &packet(), Fate::MayDrop(place("deep", Some(1))));
    // From an unknown sender.
    let source = and(&[equal(Load::Network { offset: 12, len: 4 }, &[192, 0, 2, 2])], Verdict::Drop);
    check(&only(vec![source.clone()]), &packet(), Fate::Drops(place("input", Some(1))));
    check(&only(vec![source.clone()]), &Packet { source: None, ..packet() }, Fate::MayDrop(place("input", Some(1))));
    let other = Packet { source: Some(IpAddr::from([192, 0, 2, 3])), ..packet() };
    check(&only(vec![source]), &other, Fate::Passes);
    check(&only(vec![vec![Step::Reject]]), &packet(), Fate::Drops(place("input", Some(1))));
}

#[test]
fn prefixes_ranges_and_iptables_matches() {
    let only = |steps: Vec<Step>| ruleset(vec![chain("input", Some((0, false)), vec![steps])]);
    let masked = |mask: [u8; 4], value: [u8; 4]| {
        vec![
            Step::Load { what: Load::Network { offset: 12, len: 4 }, register: 4 },
            Step::Mask { source: 4, register: 4, mask: mask.to_vec(), xor: vec![0; 4] },
            Step::Compare { register: 4, compare: Compare::Equal, value: value.to_vec() },
            Step::Verdict(Verdict::Drop),
        ]
    };
    let dropped = Fate::Drops(place("input", Some(1)));
    check(&only(masked([255, 255, 255, 0], [192, 0, 2, 0])), &packet(), dropped.clone());
    check(&only(masked([255, 255, 0, 0], [10, 0, 0, 0])), &packet(), Fate::Passes);
    let range = |from: u16, to: u16, inverted| {
        let (from, to) = (from.to_be_bytes().to_vec(), to.to_be_bytes().to_vec());
        let load = Step::Load { what: Load::Transport { offset: 2, len: 2 }, register: 8 };
        vec![load, Step::Range { register: 8, from, to, inverted }, Step::Verdict(Verdict::Drop)]
    };
    check(&only(range(1, 1023, true)), &packet(), dropped.clone());
    check(&only(range(1, 1023, false)), &packet(), Fate::Passes);
    let ports = |protocol, destination| {
        let (source, destinations) = ((0, u16::MAX), vec![(22, 22), destination]);
        let ports = Step::Ports { protocol: Some(protocol), source, destinations, inverted: false };
        vec![ports, Step::Verdict(Verdict::Drop)]
    };
    check(&only(ports(UDP, (4789, 4789))), &packet(), dropped.clone());
    check(&only(ports(6, (4789, 4789))), &packet(), Fate::Passes);
    check(&only(vec![Step::States(6), Step::Verdict(Verdict::Drop)]), &packet(), Fate::Passes);
    check(&only(vec![Step::States(8), Step::Verdict(Verdict::Drop)]), &packet(), dropped);
}

#[test]
fn sets_intervals_and_verdict_maps() {
    let element = |key: u16, ends| Element { key: key.to_be_bytes().to_vec(), last: None, ends, verdict: None };
    let look = |set: Set, inverted| {
        let load = Step::Load { what: Load::Transport { offset: 2, len: 2 }, register: 4 };
        let lookup = Step::Lookup { set: "s".to_owned(), register: 4, inverted };
        let mut rules =
            ruleset(vec![chain("input", Some((0, false)), vec![vec![load, lookup, Step::Verdict(Verdict::Drop)]])]);
        rules.sets.insert((Family::Inet, "t".to_owned(), "s".to_owned()), set);
        rules
    };
    let dropped = Fate::Drops(place("input", Some(1)));
    let plain = Set { is_interval: false, elements: Some(vec![element(22, false), element(4789, false)]) };
    check(&look(plain.clone(), false), &packet(), dropped.clone());
    check(&look(plain.clone(), true), &packet(), Fate::Passes);
    check(&look(plain, true), &Packet { port: Some(80), ..packet() }, dropped.clone());
    // 4000-4999 and from 5000 on another range.
    let elements =
        vec![element(0, true), element(5000, true), element(4000, false), element(5000, false), element(6000, true)];
    let interval = Set { is_interval: true, elements: Some(elements) };
    check(&look(interval.clone(), false), &packet(), dropped.clone());
    check(&look(interval.clone(), false), &Packet { port: Some(5000), ..packet() }, dropped.clone());
    check(&look(interval.clone(), false), &Packet { port: Some(6000), ..packet() }, Fate::Passes);
    check(&look(interval, false), &Packet { port: Some(80), ..packet() }, Fate::Passes);
    check(&look(Set { is_interval: false, elements: None }, false), &packet(), Fate::MayDrop(place("input", Some(1))));
    let verdicts = Element { verdict: Some(Verdict::Drop), ..element(4789, false) };
    let map = look(Set { is_interval: false, elements: Some(vec![verdicts]) }, false);
    check(&map, &packet(), dropped);
}

#[test]
fn families_see_their_own_packets() {
    let mut v6 = chain("input", Some((0, false)), vec![and(&[], Verdict::Drop)]);
    v6.family = Family::Ip6;
    let rules = ruleset(vec![v6]);
    check(&rules, &packet(), Fate::Passes);
    let packet = Packet { is_v6: true, source: None, destination: None, ..packet() };
    let place = Place { family: Family::Ip6, ..place("input", Some(1)) };
    check(&rules, &packet, Fate::Drops(place));
}
