//! Where this machine's node stands: its swarm, its gossip, its networks, and other engines that are in its way.

use std::net::IpAddr;

use crate::{Check, Cidr, Finding, Host, Level, PeerRole, Transport};

const GOSSIP_PORT: u16 = 7946;

/// Where the node stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Standing {
    /// In no swarm.
    #[default]
    Outside,
    /// In a swarm.
    Active,
    /// In a swarm, and has not heard of it yet.
    Pending(String),
    /// In a swarm, and could not start, or not go on.
    Failed(String),
    /// Waits for the unlock key.
    Locked,
}

/// The gossip.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum GossipState {
    /// There is none, and none is wanted.
    #[default]
    Off,
    /// It cannot begin.
    Waiting,
    /// It runs.
    Runs {
        /// Packets and streams that no key opened.
        unopened: u64,
        /// Differences found and repaired.
        divergences: u64,
        /// How badly this node itself does, 0 to 7.
        troubles: u32,
    },
}

/// An overlay network as this node has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Network {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its IPv4 subnets.
    pub subnets: Vec<Cidr>,
    /// Its MTU.
    pub mtu: u32,
    /// It is encrypted.
    pub is_encrypted: bool,
    /// It ends at this machine: another engine has its tunnels.
    pub ends_here: bool,
    /// VXLAN ids of its subnets.
    pub vnis: Vec<u32>,
}

/// What networks get their subnets from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pools {
    /// The pools.
    pub bases: Vec<Cidr>,
    /// Prefix length of the subnets.
    pub subnet_size: u8,
}

/// This machine's node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Where it stands.
    pub standing: Standing,
    /// What it is.
    pub role: PeerRole,
    /// Why it does not see a leader, if it is a manager.
    pub no_leader: Option<String>,
    /// The address that others know it by.
    pub advertise: Option<IpAddr>,
    /// The address of its tunnels.
    pub data_path: Option<IpAddr>,
    /// Their port.
    pub data_path_port: u16,
    /// Its gossip.
    pub gossip: GossipState,
    /// Networks that are made here.
    pub networks: Vec<Network>,
    /// The swarm's pools, as managers know them.
    pub pools: Option<Pools>,
    /// Addresses of the swarm's nodes.
    pub known_addresses: Vec<IpAddr>,
}

pub(crate) fn judge(node: &Node, host: &Host, findings: &mut Vec<Finding>) {
    standing(node, findings);
    gossip(node, host, findings);
    ends(node, host, findings);
}

fn standing(node: &Node, findings: &mut Vec<Finding>) {
    let finding = |level, what: &str| Finding::new(level, Check::Node, what);
    findings.push(match &node.standing {
        Standing::Outside => finding(Level::Note, "this machine is in no swarm: there are no peers to look at"),
        Standing::Pending(why) => {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            finding(Level::Warning, &format!("this node has not heard of its swarm yet{why}"))
                .remedy("look whether a manager answers on its port 2377: see below")
        }
        Standing::Failed(why) => finding(Level::Broken, &format!("this node is not at work in its swarm: {why}"))
            .remedy("the daemon's log says more; see \"When a manager breaks\" in docs/operating.md"),
        Standing::Locked => finding(Level::Broken, "this node's swarm is locked").remedy("skep swarm unlock"),
        Standing::Active => match &node.no_leader {
            Some(why) => finding(Level::Broken, why).remedy(
                "start the other managers, or see \"Losing managers\" in docs/cluster.md: without more than half of them \
                 nothing can be changed",
            ),
            None => finding(Level::Ok, "this node is at work in its swarm"),
        },
    });
}

/// Who holds a port, in words.
pub(crate) fn holder(host: &Host, transport: Transport, port: u16) -> Option<String> {
    let holder = host.holders.iter().find(|it| it.transport == transport && it.port == port && !it.is_daemon)?;
    Some(match &holder.program {
        Some((program, pid)) => format!("{program} (process {pid})"),
        None => "a program that is not seen from here".to_owned(),
    })
}

fn gossip(node: &Node, host: &Host, findings: &mut Vec<Finding>) {
    match node.gossip {
        GossipState::Off => {}
        GossipState::Waiting => {
            let held = [Transport::Tcp, Transport::Udp]
                .into_iter()
                .find_map(|transport| holder(host, transport, GOSSIP_PORT).map(|by| (transport, by)));
            let (by, remedy) = match held {
                Some((transport, by)) => (
                    format!("{} port {GOSSIP_PORT} is held by {by}", transport.word()),
                    "only one engine of a machine can gossip: stop the other, or have it leave its swarm; this daemon \
                     tries again every ten seconds",
                ),
                None => (
                    "it cannot listen on port 7946, or has had no keys yet".to_owned(),
                    "the daemon's log says why; it tries again every ten seconds",
                ),
            };
            let what = format!("this node does not gossip: {by}. Networks of the swarm end at this machine");
            findings.push(Finding::new(Level::Broken, Check::Engines, what).remedy(remedy));
        }
        GossipState::Runs { unopened, divergences, troubles } => {
            if unopened > 0 {
                let what =
                    format!("{unopened} packets or streams to port {GOSSIP_PORT} were opened by no key of this swarm");
                findings.push(Finding::new(Level::Note, Check::Gossip, what).remedy(
                    "another swarm gossips with this machine's address, or a node was away while keys were rotated: \
                     restart its daemon",
                ));
            }
            if divergences > 0 {
                let what = format!(
                    "tables differed from another node's {divergences} times since the daemon's start, and were repaired"
                );
                findings.push(Finding::new(Level::Note, Check::Gossip, what));
            }
            let finding = match troubles {
                0..3 => Finding::new(Level::Ok, Check::Gossip, "this node gossips"),
                _ => Finding::new(
                    Level::Warning,
                    Check::Gossip,
                    format!("this node misses so many answers that it takes itself for slow ({troubles} of 7)"),
                )
                .remedy("look whether the machine is overloaded or loses packets"),
            };
            findings.push(finding);
        }
    }
}

fn ends(node: &Node, host: &Host, findings: &mut Vec<Finding>) {
    for network in node.networks.iter().filter(|network| network.ends_here) {
        let rival =
            host.vxlans.iter().find(|link| network.vnis.contains(&link.vni) && link.port == node.data_path_port);
        let program = holder(host, Transport::Udp, node.data_path_port);
        let (by, remedy) = match (rival, program) {
            (Some(link), _) => (
                format!("the link {} has VXLAN id {} of port {}", link.name, link.vni, link.port),
                format!(
                    "remove it (ip link del {}) if the engine that made it is gone, or stop that engine",
                    link.name
                ),
            ),
            (None, Some(by))
                if host.holders.iter().any(|it| it.port == node.data_path_port && it.program.is_some()) =>
            {
                (
                    format!("UDP port {} is held by {by}", node.data_path_port),
                    "stop it, or found the swarm with another --data-path-port".to_owned(),
                )
            }
            _ => (
                "another engine of this machine has its VXLAN id".to_owned(),
                "stop the other engine or have it leave its swarm, or found the swarm with another --data-path-port"
                    .to_owned(),
            ),
        };
        let what = format!("network {} ends at this machine: {by}", network.name);
        findings.push(Finding::new(Level::Broken, Check::Engines, what).remedy(remedy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Holder, VxlanLink};

    fn judged(node: &Node, host: &Host) -> Vec<Finding> {
        let mut findings = Vec::new();
        judge(node, host, &mut findings);
        findings
    }

    #[test]
    fn every_standing_has_its_word() {
        let check = |standing, level, word: &str| {
            let found = judged(&Node { standing, ..Node::default() }, &Host::default());
            assert!(found[0].level == level && found[0].what.contains(word), "{found:?}");
        };
        check(Standing::Outside, Level::Note, "in no swarm");
        check(Standing::Active, Level::Ok, "at work");
        check(Standing::Pending("no manager".to_owned()), Level::Warning, "no manager");
        check(Standing::Failed("expired".to_owned()), Level::Broken, "expired");
        check(Standing::Locked, Level::Broken, "locked");
        let node = Node { standing: Standing::Active, no_leader: Some("no leader".to_owned()), ..Node::default() };
        assert_eq!(judged(&node, &Host::default())[0].level, Level::Broken);
    }

    #[test]
    fn who_holds_the_port_is_named() {
        let node = Node { gossip: GossipState::Waiting, ..Node::default() };
        let holder = |transport, program, is_daemon| Holder { transport, port: 7946, program, is_daemon };
        let text = |holders: Vec<Holder>| judged(&node, &Host { holders, ..Host::default() })[1].what.clone();
        let program = || Some(("dockerd".to_owned(), 12));
        assert!(
            text(vec![holder(Transport::Udp, program(), false)])
                .contains("UDP port 7946 is held by dockerd (process 12)")
        );
        assert!(text(vec![holder(Transport::Tcp, None, false)]).contains("not seen from here"));
        assert!(text(vec![holder(Transport::Udp, program(), true)]).contains("cannot listen"));
    }

    #[test]
    fn who_has_the_tunnels_is_named() {
        let network = Network { name: "web".to_owned(), ends_here: true, vnis: vec![4097], ..Network::default() };
        let node = Node { networks: vec![network], data_path_port: 4789, ..Node::default() };
        let link = |port| VxlanLink { name: "vx-1".to_owned(), vni: 4097, port };
        let text = |vxlans, holders| judged(&node, &Host { vxlans, holders, ..Host::default() })[1].what.clone();
        assert!(text(vec![link(4789)], vec![]).contains("link vx-1 has VXLAN id 4097 of port 4789"));
        assert!(text(vec![link(8472)], vec![]).contains("another engine"));
        let program = Some(("ovs".to_owned(), 7));
        let holder = Holder { transport: Transport::Udp, port: 4789, program, is_daemon: false };
        assert!(text(vec![], vec![holder]).contains("UDP port 4789 is held by ovs (process 7)"));
    }

    #[test]
    fn gossip_that_does_badly_is_told() {
        let check = |unopened, divergences, troubles, expected: &[Level]| {
            let node = Node { gossip: GossipState::Runs { unopened, divergences, troubles }, ..Node::default() };
            let levels: Vec<_> = judged(&node, &Host::default())[1..].iter().map(|it| it.level).collect();
            assert_eq!(levels, expected);
        };
        check(0, 0, 0, &[Level::Ok]);
        check(4, 2, 2, &[Level::Note, Level::Note, Level::Ok]);
        check(0, 0, 3, &[Level::Warning]);
    }
}
