//! The machine itself: its kernel, its links and addresses, its clock.

use std::net::{IpAddr, Ipv4Addr};

use crate::firewall::Rules;
use crate::{Check, Cidr, Conntrack, Finding, Level, Node, conntrack};

/// What VXLAN adds to a packet: headers of IP, UDP and VXLAN, and the inner Ethernet header.
pub(crate) const VXLAN_BYTES: u32 = 50;
/// What encryption adds at most.
pub(crate) const ESP_BYTES: u32 = 36;

/// Whether the kernel can do something.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Feature {
    /// It can.
    Present,
    /// It cannot: what it said.
    Missing(String),
    /// It was not tried: why.
    #[default]
    Unknown,
}

/// What the kernel can do, tried in a namespace of its own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Features {
    /// Bridges.
    pub bridge: Feature,
    /// Pairs of links.
    pub veth: Feature,
    /// VXLAN.
    pub vxlan: Feature,
    /// nftables, with address translation.
    pub nf_tables: Feature,
    /// ESP, for encrypted networks.
    pub esp: Feature,
}

/// Settings; nothing where the kernel has none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KernelSettings {
    /// `net.ipv4.ip_forward`.
    pub ip_forward: Option<bool>,
    /// `net.bridge.bridge-nf-call-iptables`.
    pub bridge_nf_call_iptables: Option<bool>,
}

/// A link.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// It is up.
    pub is_up: bool,
    /// Its IPv4 addresses.
    pub addresses: Vec<Cidr>,
    /// Its IPv6 addresses.
    pub addresses6: Vec<std::net::Ipv6Addr>,
    /// The driver of its card; nothing for one without a card.
    pub driver: Option<String>,
    /// Whether the card computes checksums.
    pub checksums_in_card: Option<bool>,
}

impl Link {
    fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(it) => self.addresses.iter().any(|own| own.address == it),
            IpAddr::V6(it) => self.addresses6.contains(&it),
        }
    }
}

/// A route, IPv4.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Where to.
    pub destination: Cidr,
    /// Through which link.
    pub link: Option<String>,
    /// By which router.
    pub gateway: Option<Ipv4Addr>,
}

impl Route {
    pub(crate) fn text(&self) -> String {
        let gateway = self.gateway.map(|it| format!(" via {it}")).unwrap_or_default();
        let link = self.link.as_ref().map(|it| format!(" dev {it}")).unwrap_or_default();
        format!("{}{gateway}{link}", self.destination)
    }
}

/// A VXLAN link in the machine's own namespace.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct VxlanLink {
    /// Its name.
    pub name: String,
    /// Its id.
    pub vni: u32,
    /// Its UDP port.
    pub port: u16,
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Who listens on a port of the swarm's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// TCP or UDP.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// The program and its process, if it is one that is seen from here: the kernel itself holds VXLAN's.
    pub program: Option<(String, u32)>,
    /// It is the daemon that answered.
    pub is_daemon: bool,
}

/// Policies of the older tables.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LegacyPolicies {
    /// What comes in is dropped.
    pub input_drops: bool,
    /// What goes through is dropped.
    pub forward_drops: bool,
    /// What goes out is dropped.
    pub output_drops: bool,
}

/// What keeps the clock.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ClockState {
    /// Something does.
    Kept,
    /// Nothing does.
    Free,
    /// It is not known.
    #[default]
    Unknown,
}

/// What Skep itself made here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Own {
    /// Names of its nftables tables.
    pub tables: Vec<String>,
    /// Names of its bridges.
    pub bridges: Vec<String>,
}

/// A machine.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its kernel's version.
    pub kernel: String,
    /// What the kernel can do.
    pub features: Features,
    /// Settings.
    pub settings: KernelSettings,
    /// Tables of connections.
    pub conntracks: Vec<Conntrack>,
    /// Its links.
    pub links: Vec<Link>,
    /// Its routes, the local ones left out.
    pub routes: Vec<Route>,
    /// VXLAN links in its own namespace.
    pub vxlans: Vec<VxlanLink>,
    /// Who listens on the swarm's ports.
    pub holders: Vec<Holder>,
    /// The rules of its firewall.
    pub firewall: Rules,
    /// Policies of the older tables.
    pub legacy: LegacyPolicies,
    /// What keeps its clock.
    pub clock: ClockState,
    /// What Skep made.
    pub own: Own,
}

impl Host {
    /// The link that has an address.
    pub fn link_of(&self, address: IpAddr) -> Option<&Link> {
        self.links.iter().find(|link| link.has(address))
    }
}

pub(crate) fn judge(host: &Host, node: Option<&Node>, findings: &mut Vec<Finding>) {
    features(host, node, findings);
    settings(host, findings);
    findings.extend(host.conntracks.iter().filter(|table| table.most > 0).map(conntrack::judge));
    if let Some(node) = node {
        addresses(host, node, findings);
    }
    if host.clock == ClockState::Free {
        let what = "nothing keeps this machine's clock: the kernel calls it unsynchronised";
        let remedy = "run an NTP client (apt install chrony), unless the host of this virtual machine keeps it";
        findings.push(Finding::new(Level::Note, Check::Clock, what).remedy(remedy));
    }
}

fn features(host: &Host, node: Option<&Node>, findings: &mut Vec<Finding>) {
    let Features { bridge, veth, vxlan, nf_tables, esp } = &host.features;
    let needed = [
        ("bridges", bridge, "bridge", "no container has a network"),
        ("pairs of links", veth, "veth", "no container has a network"),
        ("VXLAN", vxlan, "vxlan", "networks end at this machine"),
        ("nftables", nf_tables, "nf_tables nft_chain_nat", "no port is published"),
    ];
    let mut missing = 0;
    for (name, feature, module, consequence) in needed {
        if let Feature::Missing(said) = feature {
            missing += 1;
            let what = format!("the kernel {} has no {name} ({said}): {consequence}", host.kernel);
            let remedy = format!("modprobe {module}, or a kernel that has it (Debian: linux-image-amd64)");
            findings.push(Finding::new(Level::Broken, Check::Kernel, what).remedy(remedy));
        }
    }
    let encrypted = node.iter().flat_map(|node| &node.networks).find(|network| network.is_encrypted);
    if let Feature::Missing(said) = esp {
        let finding = match encrypted {
            Some(network) => Finding::new(
                Level::Broken,
                Check::Kernel,
                format!("network {} is encrypted, and the kernel has no ESP ({said})", network.name),
            ),
            None => Finding::new(
                Level::Note,
                Check::Kernel,
                format!("the kernel has no ESP ({said}): networks with --opt encrypted cannot be had here"),
            ),
        };
        findings.push(finding.remedy("modprobe esp4, or a kernel that has it (CONFIG_INET_ESP)"));
    }
    let tried = needed.iter().filter(|(_, feature, ..)| **feature != Feature::Unknown).count();
    if missing == 0 && tried == needed.len() {
        let what = format!("the kernel {} can do what networks need", host.kernel);
        findings.push(Finding::new(Level::Ok, Check::Kernel, what));
    } else if missing == 0 {
        let what = "what the kernel can do could not be tried: that needs root";
        findings.push(Finding::new(Level::Unknown, Check::Kernel, what));
    }
}

fn settings(host: &Host, findings: &mut Vec<Finding>) {
    match host.settings.ip_forward {
        Some(true) => findings.push(Finding::new(Level::Ok, Check::Settings, "the kernel forwards packets")),
        // A daemon switches it on when it starts; before that it is as it may be.
        Some(false) if host.own.bridges.iter().any(|bridge| host.links.iter().any(|link| link.name == *bridge)) => {
            let what = "the kernel forwards no packets (net.ipv4.ip_forward is 0): containers have no way out and \
                        published ports do not answer";
            let remedy = "sysctl -w net.ipv4.ip_forward=1, and find out who switches it off: look for ip_forward in \
                          /etc/sysctl.conf and /etc/sysctl.d";
            findings.push(Finding::new(Level::Broken, Check::Settings, what).remedy(remedy));
        }
        Some(false) | None => {}
    }
}

fn addresses(host: &Host, node: &Node, findings: &mut Vec<Finding>) {
    let before = findings.len();
    let again =
        "docker swarm leave, and join again with --advertise-addr and --data-path-addr of an address that it has";
    match node.data_path {
        Some(address) if host.link_of(address).is_none() => {
            let what = format!(
                "no link of this machine has the address {address}, from which its tunnels come: others expect them \
                 from there"
            );
            findings.push(Finding::new(Level::Broken, Check::Addresses, what).remedy(again));
        }
        Some(IpAddr::V6(address)) => {
            let what = format!("the data path address {address} is IPv6: Skep's tunnels need IPv4");
            findings.push(Finding::new(Level::Broken, Check::Addresses, what).remedy(again));
        }
        _ => {}
    }
    if let Some(address) = node.advertise.filter(|it| node.data_path != Some(*it) && host.link_of(*it).is_none()) {
        let what = format!(
            "no link of this machine has the address {address}, by which others know it: that works only where \
             something translates it"
        );
        findings.push(Finding::new(Level::Warning, Check::Addresses, what).remedy(again));
    }
    let link = node.data_path.and_then(|address| host.link_of(address));
    for network in node.networks.iter().filter(|network| !network.ends_here) {
        let Some(link) = link else { break };
        let more = VXLAN_BYTES + if network.is_encrypted { ESP_BYTES } else { 0 };
        if network.mtu + more > link.mtu {
            let what = format!(
                "network {} takes packets of {} bytes, which with their tunnel are {} bytes long; {} takes {}",
                network.name,
                network.mtu,
                network.mtu + more,
                link.name,
                link.mtu
            );
            let remedy = format!(
                "ip link set {} mtu {}, or make the network anew with --opt com.docker.network.driver.mtu={}",
                link.name,
                network.mtu + more,
                link.mtu.saturating_sub(more)
            );
            findings.push(Finding::new(Level::Warning, Check::Mtu, what).remedy(remedy));
        }
    }
    if findings.len() == before
        && let Some(link) = link
    {
        let what = format!("tunnels leave by {}, whose MTU of {} is enough for all networks", link.name, link.mtu);
        findings.push(Finding::new(Level::Ok, Check::Addresses, what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Network;

    fn judged(host: &Host, node: Option<&Node>) -> Vec<Finding> {
        let mut findings = Vec::new();
        judge(host, node, &mut findings);
        findings
    }

    fn worst(host: &Host, node: Option<&Node>, check: Check) -> Level {
        let levels = judged(host, node).into_iter().filter(|it| it.check == check).map(|it| it.level);
        levels.max().expect("it was checked")
    }

    fn able() -> Features {
        use Feature::Present;
        Features { bridge: Present, veth: Present, vxlan: Present, nf_tables: Present, esp: Present }
    }

    #[test]
    fn what_the_kernel_cannot_do_is_told() {
        let host = |features| Host { features, ..Host::default() };
        assert_eq!(worst(&host(able()), None, Check::Kernel), Level::Ok);
        assert_eq!(worst(&host(Features::default()), None, Check::Kernel), Level::Unknown);
        let missing = || Feature::Missing("Operation not supported".to_owned());
        assert_eq!(worst(&host(Features { vxlan: missing(), ..able() }), None, Check::Kernel), Level::Broken);
        let no_esp = host(Features { esp: missing(), ..able() });
        assert_eq!(worst(&no_esp, None, Check::Kernel), Level::Note);
        let network = Network { name: "safe".to_owned(), is_encrypted: true, ..Network::default() };
        let node = Node { networks: vec![network], ..Node::default() };
        assert_eq!(worst(&no_esp, Some(&node), Check::Kernel), Level::Broken);
    }

    #[test]
    fn forwarding_matters_where_there_are_bridges() {
        let mut host = Host::default();
        host.settings.ip_forward = Some(false);
        assert!(judged(&host, None).iter().all(|finding| finding.check != Check::Settings));
        host.own.bridges.push("docker0".to_owned());
        host.links.push(Link { name: "docker0".to_owned(), ..Link::default() });
        assert_eq!(worst(&host, None, Check::Settings), Level::Broken);
        host.settings.ip_forward = Some(true);
        assert_eq!(worst(&host, None, Check::Settings), Level::Ok);
    }

    #[test]
    fn addresses_that_are_gone_and_links_that_are_too_small_are_told() {
        let address: IpAddr = "192.0.2.1".parse().expect("an address");
        let cidr = Cidr::parse("192.0.2.1/24").expect("a network");
        let link = Link { name: "eth0".to_owned(), mtu: 1500, addresses: vec![cidr], ..Link::default() };
        let mut host = Host { links: vec![link], ..Host::default() };
        let network = Network { name: "web".to_owned(), mtu: 1450, ..Network::default() };
        let (advertise, data_path) = (Some(address), Some(address));
        let mut node = Node { advertise, data_path, networks: vec![network], ..Node::default() };
        assert_eq!(worst(&host, Some(&node), Check::Addresses), Level::Ok);
        node.networks[0].is_encrypted = true;
        assert_eq!(worst(&host, Some(&node), Check::Mtu), Level::Warning);
        node.networks[0].is_encrypted = false;
        host.links[0].mtu = 1499;
        assert_eq!(worst(&host, Some(&node), Check::Mtu), Level::Warning);
        node.advertise = Some("198.51.100.1".parse().expect("an address"));
        assert_eq!(worst(&host, Some(&node), Check::Addresses), Level::Warning);
        node.data_path = node.advertise;
        assert_eq!(worst(&host, Some(&node), Check::Addresses), Level::Broken);
    }
}
