//! The rules of a machine's firewall as the kernel holds them, and what they do with one new packet. Where a rule looks at
//! something that is not known here, both ways are followed: what is certain and what is merely possible are told apart.
//!
//! Rules are nftables', which iptables writes today, too. The older tables of `iptables-legacy` are not read; of them only
//! the policies are known.

mod walk;

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A place where the kernel asks.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Hook {
    /// Come, and nothing decided yet.
    Prerouting,
    /// For this machine.
    Input,
    /// Through this machine.
    Forward,
    /// From this machine.
    Output,
    /// About to leave.
    Postrouting,
}

/// Whose packets a table sees.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl Family {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        }
    }
}

/// What happens to a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// This hook's next chain.
    Accept,
    /// Gone.
    Drop,
    /// The next rule.
    Continue,
    /// Back to the chain that jumped here.
    Return,
    /// To a chain, and back at its end.
    Jump(String),
    /// To a chain.
    Goto(String),
}

/// What a rule looks at. Registers are counted in words of four bytes, and values are as they are in the kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Load {
    /// `meta`, by the kernel's number.
    Meta(u32),
    /// Bytes of the network header.
    Network {
        /// From here …
        offset: usize,
        /// … so many.
        len: usize,
    },
    /// Bytes of the transport header.
    Transport {
        /// From here …
        offset: usize,
        /// … so many.
        len: usize,
    },
    /// `ct state`.
    State,
    /// The type of the destination: whether it is this machine.
    DestinationType,
    /// A value of the rule's own.
    Value(Vec<u8>),
    /// Something else.
    Other,
}

/// How values are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compare {
    /// Equal.
    Equal,
    /// Not equal.
    Unequal,
    /// Less, by bytes.
    Less,
    /// Less or equal.
    LessOrEqual,
    /// Greater.
    Greater,
    /// Greater or equal.
    GreaterOrEqual,
}

/// One step of a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Puts something into a register.
    Load {
        /// What.
        what: Load,
        /// Where to.
        register: usize,
    },
    /// `register & mask ^ xor`.
    Mask {
        /// From where.
        source: usize,
        /// Where to.
        register: usize,
        /// The mask.
        mask: Vec<u8>,
        /// What is turned over.
        xor: Vec<u8>,
    },
    /// Goes on only if this holds.
    Compare {
        /// Of which register.
        register: usize,
        /// How.
        compare: Compare,
        /// With what.
        value: Vec<u8>,
    },
    /// Goes on only if the value is in a range, or only if it is not.
    Range {
        /// Of which register.
        register: usize,
        /// The least.
        from: Vec<u8>,
        /// The greatest.
        to: Vec<u8>,
        /// Only if it is not.
        inverted: bool,
    },
    /// Goes on only if a set has the value, or only if it does not; with a verdict map, does what it says.
    Lookup {
        /// The set's name.
        set: String,
        /// Of which register.
        register: usize,
        /// Only if it does not.
        inverted: bool,
    },
    /// Goes on only for a connection whose state is among these: an iptables match.
    States(u32),
    /// Goes on only for packets to this machine, or only for others: an iptables match.
    ToLocal {
        /// For others.
        inverted: bool,
    },
    /// Goes on only for these ports: an iptables match.
    Ports {
        /// 6 or 17, where the match says so.
        protocol: Option<u8>,
        /// Source ports, first and last.
        source: (u16, u16),
        /// Destination ports, first and last of each range.
        destinations: Vec<(u16, u16)>,
        /// Only if the destination is in none of them.
        inverted: bool,
    },
    /// Goes on, or not: it is not known.
    Maybe,
    /// Ends with this.
    Verdict(Verdict),
    /// Refused with a word to the sender.
    Reject,
    /// Changes nothing here: counters, logs, marks.
    Nothing,
}

/// A rule.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rule {
    /// By which `nft` knows it.
    pub handle: u64,
    /// What it does.
    pub steps: Vec<Step>,
}

/// Where a chain begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Base {
    /// The hook.
    pub hook: Hook,
    /// Lower ones first.
    pub priority: i32,
    /// What no rule decides is dropped.
    pub drops: bool,
}

/// A chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chain {
    /// Whose packets it sees.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where it begins; others only jump to it.
    pub base: Option<Base>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// An element of a set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Element {
    /// Its value.
    pub key: Vec<u8>,
    /// The last value of a range of its own.
    pub last: Option<Vec<u8>>,
    /// From here on nothing is in the set.
    pub ends: bool,
    /// What is done with it, in a verdict map.
    pub verdict: Option<Verdict>,
}

/// A set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Set {
    /// Its elements are beginnings and ends of ranges.
    pub is_interval: bool,
    /// Its elements; nothing where they could not be read.
    pub elements: Option<Vec<Element>>,
}

/// All rules.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ruleset {
    /// All chains.
    pub chains: Vec<Chain>,
    /// Sets by family, table and name.
    pub sets: BTreeMap<(Family, String, String), Set>,
}

/// The rules, where they could be read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Rules {
    /// They could.
    Read(Ruleset),
    /// They could not: why.
    Unread(String),
    /// Nobody tried.
    #[default]
    Untried,
}

/// A packet that begins a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet {
    /// Which way it goes: `Input`, `Forward` or `Output`.
    pub hook: Hook,
    /// From whom; nothing if it may be anybody.
    pub source: Option<IpAddr>,
    /// To whom.
    pub destination: Option<IpAddr>,
    /// Whether it is IPv6.
    pub is_v6: bool,
    /// TCP 6, UDP 17, ESP 50.
    pub protocol: u8,
    /// The port it comes from, where that is known.
    pub source_port: Option<u16>,
    /// The port it goes to.
    pub port: Option<u16>,
    /// The link that it comes in by, if any, and its index.
    pub input: Option<(String, u32)>,
    /// The link that it leaves by, if any, and its index.
    pub output: Option<(String, u32)>,
}

/// Where a packet is dropped.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule; the chain's policy if there is none.
    pub handle: Option<u64>,
}

impl Place {
    /// In words.
    pub fn text(&self) -> String {
        let Self { family, table, chain, handle } = self;
        let family = family.word();
        match handle {
            Some(handle) => format!("rule {handle} of chain {chain} in table {family} {table}"),
            None => format!("the policy of chain {chain} in table {family} {table}"),
        }
    }

    /// Whether iptables made the table, so that its own words are the way to change it.
    pub fn is_of_iptables(&self) -> bool {
        let chains = ["INPUT", "FORWARD", "OUTPUT"];
        self.family != Family::Inet && self.table == "filter" && chains.contains(&self.chain.as_str())
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It passes.
    Passes,
    /// It may be dropped here.
    MayDrop(Place),
    /// It is dropped here.
    Drops(Place),
}

impl Ruleset {
    /// What becomes of a packet; `own` tables are not looked at.
    pub fn fate(&self, packet: &Packet, own: &[String]) -> Fate {
        walk::fate(self, packet, own)
    }
}

#[cfg(test)]
mod tests;
