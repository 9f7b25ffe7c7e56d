//! One peer: what reaches it from here and here from it.
//!
//! A peer that runs Skep is asked what arrived there and looks back, so each direction is known by itself. Of another's only
//! the way there and back together is known.

mod path;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::firewall::Hook;
use crate::report::plain;
use crate::walls::{GOSSIP_PORT, MANAGER_PORT, Traffic, Walls};
use crate::{Check, Finding, Level, Observations, Transport};

pub use path::sizes;

/// Clocks that differ by more than this are told …
const SKEW_NOTE_MS: u64 = 1_000;
/// … confuse those who read logs …
const SKEW_WARNING_MS: u64 = 30_000;
/// … and keep nodes out: certificates count from an hour before they are made.
const SKEW_BROKEN_MS: u64 = 45 * 60_000;

/// What a peer is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PeerRole {
    /// A manager.
    Manager,
    /// A worker.
    Worker,
    /// It is not known: workers know only managers for certain.
    #[default]
    Unknown,
}

/// Whose program it runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PeerKind {
    /// Skep.
    Skep,
    /// Another.
    Other,
    /// It is not known.
    #[default]
    Unknown,
}

/// How the gossip knows it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Known {
    /// As a member that is there.
    There,
    /// As one that does not answer.
    Failed,
    /// Not at all.
    #[default]
    Stranger,
}

/// What became of a connection.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Reach {
    /// Nobody tried.
    #[default]
    Untried,
    /// It was made.
    Connected,
    /// The machine is there and refuses.
    Refused,
    /// Nothing came back.
    NoAnswer,
    /// It cannot be sent: what the kernel said.
    Unreachable(String),
}

/// Pings of the gossip that were answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Echoes {
    /// A small packet.
    pub small: bool,
    /// A packet of the size that gossip fills.
    pub full: bool,
}

/// Clocks: the peer's is ahead by this, give or take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Skew {
    /// How far ahead the peer's is, in milliseconds.
    pub offset_ms: i64,
    /// How far that may be wrong.
    pub error_ms: u64,
}

/// A network's tables, here and there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TableView {
    /// The network.
    pub network: String,
    /// They differed, and differed again when they were looked at a second time.
    pub differs: bool,
}

/// Packets through the tunnel of a network, sizes without what the tunnel adds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OverlayView {
    /// The network.
    pub network: String,
    /// The size of its full packets.
    pub mtu: u32,
    /// This node knows where the peer is on the network.
    pub knows_peer: bool,
    /// Requests of the peer's that arrived here.
    pub heard: BTreeSet<u32>,
    /// Requests of ours that were answered.
    pub answered: BTreeSet<u32>,
    /// Whether a datagram with a checksum was answered; nothing if none was sent.
    pub datagram: Option<bool>,
}

/// What a peer says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Word {
    /// Its version.
    pub version: String,
    /// Its connection to our 7946.
    pub reach_gossip: Reach,
    /// Whether our gossip answered over it.
    pub gossip_answered: bool,
    /// Its connection to our 2377; untried if we are no manager.
    pub reach_manager: Reach,
    /// Small notes of ours that arrived.
    pub notes_small: u32,
    /// Full ones.
    pub notes_full: u32,
    /// Its side of the tunnel; nothing if it has none.
    pub overlay: Option<OverlayView>,
    /// The MTU of its link.
    pub link_mtu: u32,
    /// Rules of its firewall that drop what comes from us or goes to us.
    pub walls: Vec<String>,
    /// Datagrams with a wrong checksum that it got meanwhile.
    pub bad_checksums: u64,
}

/// What became of asking the peer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Exam {
    /// It does not run Skep, or it is not known what it runs.
    #[default]
    Impossible,
    /// It did not answer.
    Silent,
    /// It answers others.
    Busy,
    /// It said this.
    Done(Box<Word>),
}

/// A peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its host name; empty if it is not known.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// What it is.
    pub role: PeerRole,
    /// Whose program it runs.
    pub kind: PeerKind,
    /// How the gossip knows it.
    pub known: Known,
    /// The managers have it for down.
    pub is_down: bool,
    /// The connection to its 2377; untried if it is no manager.
    pub reach_manager: Reach,
    /// The connection to its 7946.
    pub reach_gossip: Reach,
    /// Whether its gossip answered over a stream.
    pub gossip_answered: bool,
    /// Pings by packets.
    pub echoes: Echoes,
    /// What it says.
    pub exam: Exam,
    /// Small notes of its that arrived here while it was asked.
    pub notes_small: u32,
    /// Full ones.
    pub notes_full: u32,
    /// Its clock.
    pub skew: Option<Skew>,
    /// Tables.
    pub tables: Vec<TableView>,
    /// The tunnel to it; nothing if this node has none.
    pub overlay: Option<OverlayView>,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            name: String::new(),
            address: IpAddr::from([0, 0, 0, 0]),
            role: PeerRole::default(),
            kind: PeerKind::default(),
            known: Known::default(),
            is_down: false,
            reach_manager: Reach::default(),
            reach_gossip: Reach::default(),
            gossip_answered: false,
            echoes: Echoes::default(),
            exam: Exam::default(),
            notes_small: 0,
            notes_full: 0,
            skew: None,
            tables: Vec::new(),
            overlay: None,
        }
    }
}

impl Peer {
    /// What it is called.
    pub fn label(&self) -> String {
        match plain(&self.name).as_str() {
            "" => self.address.to_string(),
            name => format!("{name} ({})", self.address),
        }
    }

    pub(crate) fn word(&self) -> Option<&Word> {
        match &self.exam {
            Exam::Done(word) => Some(word),
            _ => None,
        }
    }

    /// Whether anything at all came from it.
    fn is_heard(&self) -> bool {
        let answers = |reach: &Reach| matches!(reach, Reach::Connected | Reach::Refused);
        let overlay = self.overlay.as_ref().is_some_and(|it| !it.heard.is_empty() || !it.answered.is_empty());
        let packets = self.echoes.small || self.echoes.full || self.notes_small + self.notes_full > 0;
        answers(&self.reach_manager) || answers(&self.reach_gossip) || packets || overlay
    }
}

/// One peer's findings while they are made.
struct Chart<'a> {
    peer: &'a Peer,
    seen: &'a Observations,
    walls: &'a Walls,
    findings: Vec<Finding>,
}

pub(crate) fn judge(peer: &Peer, seen: &Observations, walls: &Walls, findings: &mut Vec<Finding>) {
    let mut chart = Chart { peer, seen, walls, findings: Vec::new() };
    if peer.is_heard() {
        chart.manager_port();
        chart.gossip_tcp();
        chart.gossip_udp();
        chart.exam();
        chart.clock();
        chart.tables();
        chart.data_path();
    } else {
        chart.silent();
    }
    findings.extend(chart.findings.into_iter().map(|finding| finding.of(&peer.label())));
}

/// Findings about all peers together.
pub(crate) fn judge_all(seen: &Observations, findings: &mut Vec<Finding>) {
    if seen.peers_left_out > 0 {
        let what = format!("{} more peers were not looked at: a run takes so many at most", seen.peers_left_out);
        findings.push(Finding::new(Level::Unknown, Check::Peer, what).remedy("run skep doctor on other nodes, too"));
    }
}

impl Chart<'_> {
    fn add(&mut self, level: Level, check: Check, what: impl Into<String>) {
        self.findings.push(Finding::new(level, check, what));
    }

    fn add_with(&mut self, level: Level, check: Check, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding::new(level, check, what).remedy(remedy));
    }

    /// Why something may not pass, and what to do: by the rules here, by those there, or by something in between.
    fn let_through(&self, hook: Hook, transport: Transport, port: u16) -> String {
        let name = format!("{} {port}", transport.word());
        if let Some(word) = self.walls.word(self.peer.address, Traffic::new(hook, transport, port)) {
            return format!("{word}: let {name} through there");
        }
        let there = self.peer.word().map(|word| word.walls.as_slice()).unwrap_or_default();
        let way = if hook == Hook::Output { "drops" } else { "holds back" };
        if let Some(word) = there.iter().find(|word| word.contains(&format!("{way} {name} "))) {
            return format!("there, {}: let it through", plain(word));
        }
        let (here, there) = if hook == Hook::Output { ("out of here", "in there") } else { ("in here", "out there") };
        format!(
            "no rule of this machine's nftables drops it: let {name} {here}, {there}, and through every firewall, router \
             and security group between; skep doctor there names its own rules"
        )
    }

    fn silent(&mut self) {
        let standing = if self.peer.is_down { "; the managers have it for down, too" } else { "" };
        let what = format!("nothing comes from it, on no port{standing}");
        let remedy = "it is off or cut off, or a firewall drops all between: ping it, and run skep doctor there";
        self.add_with(Level::Broken, Check::Peer, what, remedy);
    }

    fn manager_port(&mut self) {
        let before = self.findings.len();
        let from_there = self.peer.word().map(|word| word.reach_manager.clone()).unwrap_or_default();
        for (reach, hook) in [(self.peer.reach_manager.clone(), Hook::Output), (from_there.clone(), Hook::Input)] {
            self.connection(&reach, hook, MANAGER_PORT, Check::ManagerPort);
        }
        let tried = [&self.peer.reach_manager, &from_there].iter().any(|reach| **reach != Reach::Untried);
        if tried && self.findings.len() == before {
            let both = self.peer.reach_manager != Reach::Untried && from_there != Reach::Untried;
            let way = if both { "both ways" } else { "where it is needed" };
            self.add(Level::Ok, Check::ManagerPort, format!("TCP {MANAGER_PORT} passes {way}"));
        }
    }

    fn gossip_tcp(&mut self) {
        let before = self.findings.len();
        let peer = self.peer;
        self.connection(&peer.reach_gossip, Hook::Output, GOSSIP_PORT, Check::GossipTcp);
        if peer.reach_gossip == Reach::Connected && !peer.gossip_answered {
            let what = "something listens on its TCP 7946 and does not answer as this swarm's gossip";
            let remedy = "another engine of that machine has the port, or its keys are not this swarm's: see its daemon's \
                          log, or have it leave and join again";
            self.add_with(Level::Broken, Check::GossipTcp, what, remedy);
        }
        if let Some(word) = peer.word() {
            self.connection(&word.reach_gossip, Hook::Input, GOSSIP_PORT, Check::GossipTcp);
            if word.reach_gossip == Reach::Connected && !word.gossip_answered {
                let what = "it reaches TCP 7946 at this machine's address, and another answers there than this node";
                let remedy = "look whether two machines have this address, or something redirects the port";
                self.add_with(Level::Broken, Check::GossipTcp, what, remedy);
            }
        }
        if self.findings.len() == before && peer.reach_gossip == Reach::Connected {
            let way = if peer.word().is_some() { "both ways" } else { "from here to there" };
            self.add(Level::Ok, Check::GossipTcp, format!("TCP {GOSSIP_PORT} passes {way}"));
        }
    }

    fn connection(&mut self, reach: &Reach, hook: Hook, port: u16, check: Check) {
        let (who, whom) = if hook == Hook::Output { ("this machine", "it") } else { ("it", "this machine") };
        let way = format!("{who} does not reach TCP {port} of {whom}");
        match reach {
            Reach::Untried | Reach::Connected => {}
            Reach::Refused => {
                let place = if hook == Hook::Output { "there" } else { "here" };
                let what = format!("{way}: the connection is refused, nobody listens");
                let remedy =
                    format!("start the daemon {place}; if it runs, its log says why it does not listen on {port}");
                self.add_with(Level::Broken, check, what, remedy);
            }
            Reach::NoAnswer => {
                let what = format!("{way}: nothing comes back");
                self.add_with(Level::Broken, check, what, self.let_through(hook, Transport::Tcp, port));
            }
            Reach::Unreachable(said) => {
                let what = format!("{way}: {}", plain(said));
                let remedy = format!("look at the routes between the machines (ip route get {})", self.peer.address);
                self.add_with(Level::Broken, check, what, remedy);
            }
        }
    }

    fn gossip_udp(&mut self) {
        let before = self.findings.len();
        match self.peer.word().cloned() {
            Some(word) => {
                self.notes(Hook::Output, word.notes_small, word.notes_full);
                self.notes(Hook::Input, self.peer.notes_small, self.peer.notes_full);
                if self.findings.len() == before {
                    self.add(Level::Ok, Check::GossipUdp, format!("UDP {GOSSIP_PORT} passes both ways"));
                }
            }
            None => self.pings(),
        }
    }

    /// Packets one way, known from their arrival.
    fn notes(&mut self, hook: Hook, small: u32, full: u32) {
        let (from, to) = if hook == Hook::Output { ("here", "there") } else { ("there", "here") };
        if small == 0 && full == 0 {
            let what = format!("UDP {GOSSIP_PORT}: packets from {from} do not arrive {to}");
            self.add_with(Level::Broken, Check::GossipUdp, what, self.let_through(hook, Transport::Udp, GOSSIP_PORT));
        } else if full == 0 {
            let what = format!(
                "UDP {GOSSIP_PORT}: small packets from {from} arrive {to}, those of 1400 bytes do not: tables are told in \
                 those"
            );
            self.add_with(Level::Broken, Check::GossipUdp, what, "see the finding about full packets");
        }
    }

    /// Packets there and back.
    fn pings(&mut self) {
        let Echoes { small, full } = self.peer.echoes;
        if small && full {
            return self.add(Level::Ok, Check::GossipUdp, format!("UDP {GOSSIP_PORT} passes there and back"));
        }
        if small {
            let what = format!("UDP {GOSSIP_PORT}: small packets are answered, those of 1400 bytes are not");
            return self.add_with(Level::Broken, Check::GossipUdp, what, "see the finding about full packets");
        }
        let what = format!("UDP {GOSSIP_PORT}: packets are not answered; which way they are lost could not be checked");
        let remedy = self.let_through(Hook::Output, Transport::Udp, GOSSIP_PORT);
        self.add_with(Level::Broken, Check::GossipUdp, what, remedy);
    }

    fn exam(&mut self) {
        let what = match (&self.peer.exam, self.peer.kind) {
            (Exam::Done(_), _) => return,
            (Exam::Impossible, PeerKind::Other) => {
                "it does not run Skep, so it cannot be asked what arrives there: only what comes back was checked"
            }
            (Exam::Impossible, _) => "it is not in the gossip, so it could not be asked what arrives there",
            (Exam::Silent, _) => "it did not answer what arrives there: only what comes back was checked",
            (Exam::Busy, _) => "it was busy with others' questions: only what comes back was checked",
        };
        self.add(Level::Unknown, Check::Peer, what);
    }

    fn clock(&mut self) {
        let Some(Skew { offset_ms, error_ms }) = self.peer.skew else {
            if self.peer.word().is_some() {
                self.add(Level::Unknown, Check::Clock, "its clock could not be read");
            }
            return;
        };
        // What is certain of the difference.
        let least = offset_ms.unsigned_abs().saturating_sub(error_ms);
        let level = match least {
            SKEW_BROKEN_MS.. => Level::Broken,
            SKEW_WARNING_MS.. => Level::Warning,
            SKEW_NOTE_MS.. => Level::Note,
            _ => Level::Ok,
        };
        let way = if offset_ms < 0 { "behind" } else { "ahead of" };
        let seconds = offset_ms.unsigned_abs() as f64 / 1000.0;
        let sure = error_ms as f64 / 1000.0;
        let what = format!("its clock is {seconds:.3} s {way} this machine's, give or take {sure:.3} s");
        let consequence = match level {
            Level::Broken => ": certificates that one of them makes are not valid for the other",
            Level::Warning => ": times of events and logs do not fit together",
            _ => "",
        };
        let finding = Finding::new(level, Check::Clock, what + consequence);
        self.findings.push(match level {
            Level::Ok => finding,
            _ => finding.remedy("run an NTP client on both (apt install chrony)"),
        });
    }

    fn tables(&mut self) {
        let differing: Vec<_> = self.peer.tables.iter().filter(|it| it.differs).map(|it| it.network.clone()).collect();
        if !differing.is_empty() {
            let what = format!(
                "tables of {} differ from this node's, and did so again a while later: names and addresses of tasks are \
                 not the same on both",
                differing.join(", ")
            );
            let remedy = "nodes find and repair that within seconds where TCP and UDP 7946 pass both ways: see the findings \
                          about these; a task that starts or stops just now may look the same for a moment";
            self.add_with(Level::Warning, Check::Tables, what, remedy);
        } else if !self.peer.tables.is_empty() {
            let count = self.peer.tables.len();
            let networks = if count == 1 { "network" } else { "networks" };
            self.add(Level::Ok, Check::Tables, format!("tables of {count} {networks} are the same on both"));
        }
    }
}
