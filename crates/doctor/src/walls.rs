//! What the machine's own firewall does with what a swarm sends: which rule stands where a peer's packets end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::firewall::{Fate, Hook, Packet, Place, Rules, Ruleset};
use crate::node::Standing;
use crate::{Check, Finding, Host, Level, Node, Observations, Peer, PeerRole, Transport};

/// 2377/tcp.
pub(crate) const MANAGER_PORT: u16 = 2377;
/// 7946.
pub(crate) const GOSSIP_PORT: u16 = 7946;
/// VXLAN's own.
pub(crate) const DATA_PATH_PORT: u16 = 4789;
const ESP: u8 = 50;
/// Peers that one sentence names.
const NAMES: usize = 4;

/// What is sent: to or from this machine, and what.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Traffic {
    /// Where this machine's rules see it.
    pub(crate) hook: Hook,
    /// TCP or UDP; nothing for ESP.
    pub(crate) transport: Option<Transport>,
    /// The port; 0 for ESP.
    pub(crate) port: u16,
}

impl Traffic {
    pub(crate) fn new(hook: Hook, transport: Transport, port: u16) -> Self {
        Self { hook, transport: Some(transport), port }
    }

    fn text(self) -> String {
        match self.transport {
            Some(transport) => format!("{} {}", transport.word(), self.port),
            None => "ESP (IP protocol 50)".to_owned(),
        }
    }
}

/// What the rules do with each peer's packets.
#[derive(Debug, Default)]
pub(crate) struct Walls(BTreeMap<(IpAddr, Traffic), Fate>);

impl Walls {
    /// Where this machine drops, or may drop, a peer's packets, in words.
    pub(crate) fn word(&self, peer: IpAddr, traffic: Traffic) -> Option<String> {
        match self.0.get(&(peer, traffic))? {
            Fate::Passes => None,
            Fate::Drops(place) => Some(format!("{} of this machine drops it", place.text())),
            Fate::MayDrop(place) => Some(format!(
                "{} of this machine may be what drops it (it depends on something that is not known here)",
                place.text()
            )),
        }
    }
}

/// Judges the rules.
pub(crate) fn judge(seen: &Observations, findings: &mut Vec<Finding>) -> Walls {
    let host = &seen.host;
    legacy(host, findings);
    let rules = match &host.firewall {
        Rules::Read(rules) => rules,
        Rules::Untried => return Walls::default(),
        Rules::Unread(why) => {
            let what = format!("the firewall's rules could not be read: {why}");
            findings.push(Finding::new(Level::Unknown, Check::Firewall, what));
            return Walls::default();
        }
    };
    let before = findings.len();
    forwarding(host, seen.node.as_ref(), rules, findings);
    let walls = swarm(seen, rules, findings);
    if findings.len() == before {
        let what = "no firewall rule of this machine is in the way of the swarm";
        findings.push(Finding::new(Level::Ok, Check::Firewall, what));
    }
    walls
}

fn legacy(host: &Host, findings: &mut Vec<Finding>) {
    let policies = &host.legacy;
    if policies.forward_drops {
        let commands = |bridge: &String| {
            format!(
                "iptables-legacy -I FORWARD -i {bridge} -j ACCEPT; iptables-legacy -I FORWARD -o {bridge} -j ACCEPT"
            )
        };
        let what = "chain FORWARD of iptables-legacy drops forwarded packets by its policy, which keeps containers from \
                    the network unless a rule there lets them through";
        let remedy = host.own.bridges.iter().map(commands).collect::<Vec<_>>().join("; ");
        findings.push(Finding::new(Level::Warning, Check::Firewall, what).remedy(remedy));
    }
    for (drops, chain, dport) in
        [(policies.input_drops, "INPUT", "--dport"), (policies.output_drops, "OUTPUT", "--dport")]
    {
        if drops {
            let what = format!(
                "chain {chain} of iptables-legacy drops by its policy; its rules are not read, so whether they let the \
                 swarm through is seen by what arrives"
            );
            let remedy = format!(
                "iptables-legacy -I {chain} -p tcp -m multiport {dport}s 2377,7946 -j ACCEPT; iptables-legacy -I {chain} \
                 -p udp -m multiport {dport}s 7946,4789 -j ACCEPT"
            );
            findings.push(Finding::new(Level::Note, Check::Firewall, what).remedy(remedy));
        }
    }
}

/// Whether containers get out and others get to their published ports.
fn forwarding(host: &Host, node: Option<&Node>, rules: &Ruleset, findings: &mut Vec<Finding>) {
    let default = host.routes.iter().find(|route| route.destination.prefix == 0).and_then(|route| route.link.clone());
    let advertised = node.and_then(|node| node.advertise).and_then(|it| host.link_of(it)).map(|it| it.name.clone());
    let link = |name: &str| host.links.iter().find(|it| it.name == name).map(|it| (it.name.clone(), it.index));
    let Some(outside) = default.or(advertised).and_then(|name| link(&name)) else { return };
    let mut found: BTreeMap<Place, (Vec<String>, Vec<&str>)> = BTreeMap::new();
    // With br_netfilter even what stays on a bridge passes the rules for what is forwarded.
    let is_bridged = host.settings.bridge_nf_call_iptables == Some(true);
    for (number, bridge) in host.own.bridges.iter().enumerate() {
        let Some(inside) = link(bridge) else { continue };
        let within = "containers on it do not reach each other (net.bridge.bridge-nf-call-iptables is 1)";
        let ways = [
            // Those on the second bridge are kept apart on purpose.
            Some((&inside, &inside, within)).filter(|_| is_bridged && number == 0),
            Some((&inside, &outside, "containers have no way out")),
            Some((&outside, &inside, "published ports do not answer")),
        ];
        for (input, output, consequence) in ways.into_iter().flatten() {
            let packet = Packet {
                hook: Hook::Forward,
                source: None,
                destination: None,
                is_v6: false,
                protocol: Transport::Tcp.number(),
                source_port: None,
                port: None,
                input: Some(input.clone()),
                output: Some(output.clone()),
            };
            if let Fate::Drops(place) = rules.fate(&packet, &host.own.tables) {
                let (bridges, consequences) = found.entry(place).or_default();
                if !bridges.contains(bridge) {
                    bridges.push(bridge.clone());
                }
                if !consequences.contains(&consequence) {
                    consequences.push(consequence);
                }
            }
        }
    }
    for (place, (bridges, consequences)) in found {
        let what = format!(
            "{} drops what is forwarded to and from {}: {}",
            place.text(),
            bridges.join(" and "),
            consequences.join(" and ")
        );
        findings.push(Finding::new(Level::Broken, Check::Firewall, what).remedy(let_through(&place, &bridges)));
    }
}

fn let_through(place: &Place, bridges: &[String]) -> String {
    let commands = bridges.iter().map(|bridge| {
        if place.is_of_iptables() {
            return format!("iptables -I FORWARD -i {bridge} -j ACCEPT; iptables -I FORWARD -o {bridge} -j ACCEPT");
        }
        let chain = format!("nft insert rule {} {} {}", place.family.word(), place.table, place.chain);
        format!("{chain} iifname {bridge} accept; {chain} oifname {bridge} accept")
    });
    commands.collect::<Vec<_>>().join("; ")
}

/// What the swarm sends between two machines.
fn traffic(node: Option<&Node>, peer: Option<&Peer>) -> Vec<Traffic> {
    let data_path_port = node.map_or(DATA_PATH_PORT, |node| node.data_path_port);
    let mut all = Vec::new();
    for hook in [Hook::Input, Hook::Output] {
        all.push(Traffic::new(hook, Transport::Tcp, GOSSIP_PORT));
        all.push(Traffic::new(hook, Transport::Udp, GOSSIP_PORT));
        all.push(Traffic::new(hook, Transport::Udp, data_path_port));
        let to_manager = match hook {
            Hook::Output => peer.is_some_and(|peer| peer.role == PeerRole::Manager),
            _ => node.is_some_and(|node| node.role == PeerRole::Manager),
        };
        if to_manager {
            all.push(Traffic::new(hook, Transport::Tcp, MANAGER_PORT));
        }
        if node.is_some_and(|node| node.networks.iter().any(|network| network.is_encrypted)) {
            all.push(Traffic { hook, transport: None, port: 0 });
        }
    }
    all
}

fn swarm(seen: &Observations, rules: &Ruleset, findings: &mut Vec<Finding>) -> Walls {
    let (host, node) = (&seen.host, seen.node.as_ref());
    let mut walls = Walls::default();
    let mut found: BTreeMap<(Place, Traffic), Vec<String>> = BTreeMap::new();
    let anybody = seen.peers.is_empty().then_some(None);
    for peer in seen.peers.iter().map(Some).chain(anybody) {
        for traffic in traffic(node, peer) {
            let fate = rules.fate(&packet(host, node, peer, traffic), &host.own.tables);
            if let Fate::Drops(place) = &fate {
                let names = found.entry((place.clone(), traffic)).or_default();
                names.extend(peer.map(Peer::label));
            }
            if let Some(peer) = peer {
                walls.0.insert((peer.address, traffic), fate);
            }
        }
    }
    let is_at_work = node.is_some_and(|node| node.standing == Standing::Active);
    for ((place, traffic), names) in found {
        let way = if traffic.hook == Hook::Input { "from" } else { "to" };
        let whom = match names.len() {
            0 => "other machines".to_owned(),
            count if count == seen.peers.len() && count > 1 => "all peers".to_owned(),
            count if count > NAMES => format!("{} and {} others", names[..NAMES].join(", "), count - NAMES),
            _ => names.join(", "),
        };
        let what = format!("{} drops {} {way} {whom}", place.text(), traffic.text());
        let level = if is_at_work { Level::Broken } else { Level::Warning };
        findings.push(Finding::new(level, Check::Firewall, what).remedy(accept(&place, traffic)));
    }
    walls
}

/// Rules of this machine that drop what comes from a peer or goes to it, for the peer to read.
pub fn towards(host: &Host, node: &Node, peer: &Peer) -> Vec<String> {
    let Rules::Read(rules) = &host.firewall else { return Vec::new() };
    let mut words = Vec::new();
    for traffic in traffic(Some(node), Some(peer)) {
        let (place, verb) = match rules.fate(&packet(host, Some(node), Some(peer), traffic), &host.own.tables) {
            Fate::Passes => continue,
            Fate::Drops(place) => (place, ""),
            Fate::MayDrop(place) => (place, "perhaps "),
        };
        let way = if traffic.hook == Hook::Input { "drops" } else { "holds back" };
        words.push(format!("{} {verb}{way} {} of {}", place.text(), traffic.text(), peer.address));
    }
    words
}

fn accept(place: &Place, traffic: Traffic) -> String {
    let Place { family, table, chain, .. } = place;
    match traffic.transport {
        Some(transport) => {
            let protocol = transport.word().to_lowercase();
            if place.is_of_iptables() {
                return format!("iptables -I {chain} -p {protocol} --dport {} -j ACCEPT", traffic.port);
            }
            format!("nft insert rule {} {table} {chain} {protocol} dport {} accept", family.word(), traffic.port)
        }
        None if place.is_of_iptables() => format!("iptables -I {chain} -p esp -j ACCEPT"),
        None => format!("nft insert rule {} {table} {chain} meta l4proto esp accept", family.word()),
    }
}

fn packet(host: &Host, node: Option<&Node>, peer: Option<&Peer>, traffic: Traffic) -> Packet {
    let theirs = peer.map(|peer| peer.address);
    let is_gossip = traffic.port == GOSSIP_PORT || traffic.port == MANAGER_PORT;
    let own = node.and_then(|node| if is_gossip { node.advertise } else { node.data_path.or(node.advertise) });
    let link = own.and_then(|own| host.link_of(own)).map(|link| (link.name.clone(), link.index));
    // Where nothing is known of the way, the first link that is not one of ours stands for it.
    let outside = |link: &&crate::Link| link.name != "lo" && !host.own.bridges.contains(&link.name);
    let link = link.or_else(|| host.links.iter().find(outside).map(|link| (link.name.clone(), link.index)));
    let is_input = traffic.hook == Hook::Input;
    let (source, destination) = if is_input { (theirs, own) } else { (own, theirs) };
    let is_between_gossips = traffic.transport == Some(Transport::Udp) && traffic.port == GOSSIP_PORT;
    Packet {
        hook: traffic.hook,
        source,
        destination,
        is_v6: theirs.or(own).is_some_and(|address| address.is_ipv6()),
        protocol: traffic.transport.map_or(ESP, Transport::number),
        source_port: is_between_gossips.then_some(GOSSIP_PORT),
        port: traffic.transport.map(|_| traffic.port),
        input: link.clone().filter(|_| is_input),
        output: link.filter(|_| !is_input),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{Base, Chain, Compare, Family, Load, Rule, Step, Verdict};
    use crate::{Cidr, Link, Own, Route};

    /// `udp dport PORT drop`, in a table of somebody's.
    fn drops_udp(port: u16, hook: Hook) -> Ruleset {
        let steps = vec![
            Step::Load { what: Load::Meta(16), register: 4 },
            Step::Compare { register: 4, compare: Compare::Equal, value: vec![17] },
            Step::Load { what: Load::Transport { offset: 2, len: 2 }, register: 4 },
            Step::Compare { register: 4, compare: Compare::Equal, value: port.to_be_bytes().to_vec() },
            Step::Verdict(Verdict::Drop),
        ];
        let chain = Chain {
            family: Family::Inet,
            table: "mine".to_owned(),
            name: "in".to_owned(),
            base: Some(Base { hook, priority: 0, drops: false }),
            rules: vec![Rule { handle: 4, steps }],
        };
        Ruleset { chains: vec![chain], ..Ruleset::default() }
    }

    fn seen(rules: Ruleset) -> Observations {
        let peer = |last| Peer { address: IpAddr::from([192, 0, 2, last]), ..Peer::default() };
        let node = Node { standing: Standing::Active, data_path_port: 4789, ..Node::default() };
        let host = Host { firewall: Rules::Read(rules), ..Host::default() };
        Observations { host, node: Some(node), peers: vec![peer(2), peer(3)], peers_left_out: 0 }
    }

    #[test]
    fn a_rule_that_drops_a_port_is_named_with_its_remedy() {
        let mut findings = Vec::new();
        let walls = judge(&seen(drops_udp(4789, Hook::Input)), &mut findings);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].what, "rule 4 of chain in in table inet mine drops UDP 4789 from all peers");
        let remedy = findings[0].remedy.as_deref();
        assert_eq!(remedy, Some("nft insert rule inet mine in udp dport 4789 accept"));
        let peer = IpAddr::from([192, 0, 2, 2]);
        let word = |hook, port| walls.word(peer, Traffic::new(hook, Transport::Udp, port));
        assert!(word(Hook::Input, 4789).is_some_and(|word| word.contains("rule 4")));
        assert_eq!(word(Hook::Output, 4789), None);
        assert_eq!(word(Hook::Input, 7946), None);
    }

    #[test]
    fn a_peer_is_told_of_the_rules_in_its_way() {
        let told = |hook| {
            let seen = seen(drops_udp(7946, hook));
            towards(&seen.host, seen.node.as_ref().expect("a node"), &seen.peers[0])
        };
        assert_eq!(told(Hook::Input), ["rule 4 of chain in in table inet mine drops UDP 7946 of 192.0.2.2"]);
        assert_eq!(told(Hook::Output), ["rule 4 of chain in in table inet mine holds back UDP 7946 of 192.0.2.2"]);
    }

    #[test]
    fn a_machine_without_peers_is_judged_for_anybody() {
        let mut findings = Vec::new();
        let mut seen = seen(drops_udp(7946, Hook::Output));
        (seen.peers, seen.node) = (Vec::new(), None);
        judge(&seen, &mut findings);
        assert_eq!(findings[0].level, Level::Warning);
        assert!(findings[0].what.ends_with("drops UDP 7946 to other machines"), "{findings:?}");
    }

    #[test]
    fn a_policy_of_drop_keeps_containers_in_unless_a_rule_lets_them_out() {
        let chain = |rules| Chain {
            family: Family::Ip,
            table: "filter".to_owned(),
            name: "FORWARD".to_owned(),
            base: Some(Base { hook: Hook::Forward, priority: 0, drops: true }),
            rules,
        };
        let link = |index, name: &str| Link { index, name: name.to_owned(), ..Link::default() };
        let default = Cidr::parse("0.0.0.0/0").expect("a network");
        let route = Route { destination: default, link: Some("eth0".to_owned()), gateway: None };
        let mut host = Host {
            links: vec![link(1, "lo"), link(2, "eth0"), link(3, "docker0")],
            routes: vec![route],
            own: Own { tables: vec![], bridges: vec!["docker0".to_owned(), "docker_gwbridge".to_owned()] },
            ..Host::default()
        };
        let mut findings = Vec::new();
        let rules = Ruleset { chains: vec![chain(vec![])], ..Ruleset::default() };
        forwarding(&host, None, &rules, &mut findings);
        let expected = "the policy of chain FORWARD in table ip filter drops what is forwarded to and from docker0: \
                        containers have no way out and published ports do not answer";
        assert_eq!(findings[0].what, expected);
        assert!(
            findings[0].remedy.as_ref().is_some_and(|it| it.starts_with("iptables -I FORWARD -i docker0 -j ACCEPT"))
        );
        let name = |meta, name: &str| {
            let mut value = name.as_bytes().to_vec();
            value.push(0);
            vec![
                Step::Load { what: Load::Meta(meta), register: 4 },
                Step::Compare { register: 4, compare: Compare::Equal, value },
                Step::Verdict(Verdict::Accept),
            ]
        };
        let rules = [name(6, "docker0"), name(7, "docker0")];
        let rules = rules.map(|steps| Rule { handle: 1, steps }).to_vec();
        findings.clear();
        forwarding(&host, None, &Ruleset { chains: vec![chain(rules)], ..Ruleset::default() }, &mut findings);
        assert_eq!(findings, []);
        findings.clear();
        host.settings.bridge_nf_call_iptables = Some(true);
        forwarding(&host, None, &Ruleset { chains: vec![chain(vec![])], ..Ruleset::default() }, &mut findings);
        assert!(findings[0].what.contains("containers on it do not reach each other"), "{findings:?}");
        findings.clear();
        host.links.pop();
        forwarding(&host, None, &Ruleset { chains: vec![chain(vec![])], ..Ruleset::default() }, &mut findings);
        assert_eq!(findings, [], "the bridge is not made yet");
    }
}
