//! The rules of encrypted networks: they lead what is sealed out of the void, and what was opened to the networks' own port.
//! They are a table of their own, there only where a network is encrypted: it needs more of the kernel than the others.
//!
//! Without them nothing passes; what they drop is what would pass by somebody else's doing.

use std::collections::BTreeSet;

use super::plan::{MARK, REQUEST_ID};
use crate::Protocol;
use crate::nft::{
    Base, Batch, Cmp, DataType, Expr, Hook, INPUT, Meta, OUTPUT, POSTROUTING, PREROUTING, R1, R2, Rule, SetRef, Table,
    Verdict,
};
use crate::overlay::Member;

/// Encrypted tunnels by UDP port and VXLAN id.
pub(crate) const TUNNELS: &str = "tunnels";
/// The nodes that may use them.
pub(crate) const MEMBERS: &str = "members";
const ESP: u8 = 50;
/// `PACKET_OTHERHOST`
const OTHER_HOST: u8 = 3;
/// Places of our state among those that a packet came out of: the only one, or behind that of a tunnel between two networks.
const PLACES: [u32; 2] = [0, 1];
/// Before other tables look at where a packet comes from.
const EARLY: i32 = -300;
/// With the gates of other networks.
const GATE: i32 = -150;
/// Before and after iptables' mangle.
const BEFORE_MANGLE: i32 = -160;
const AFTER_MANGLE: i32 = -140;
/// After the operator's rules, which know of the port on the wire alone.
const LATE: i32 = 300;
/// Before source ports are translated.
const BEFORE_NAT: i32 = 0;

/// What the table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EncryptedRules {
    /// The networks' own port.
    pub(crate) own_port: u16,
    /// Name of the void's link.
    pub(crate) void: String,
    /// UDP port on the wire and VXLAN id of the networks.
    pub(crate) tunnels: BTreeSet<(u16, u32)>,
    /// Who may use them.
    pub(crate) members: BTreeSet<Member>,
}

/// Writes the table, but for the elements of its sets.
pub(crate) fn write_rules(batch: &mut Batch, table: &Table, rules: &EncryptedRules) {
    batch.replace_table(table);
    batch.add_set(table, TUNNELS, DataType::PortId, None);
    batch.add_set(table, MEMBERS, DataType::PortIdAddress, None);
    let ports: BTreeSet<u16> = rules.tunnels.iter().map(|(port, _)| *port).collect();
    write_way_in(batch, table, rules.own_port);
    write_way_out(batch, table, rules, &ports);
}

fn write_way_in(batch: &mut Batch, table: &Table, own_port: u16) {
    batch.add_base_chain(table, "prerouting", &Hook::filter(PREROUTING, EARLY));
    for place in PLACES {
        // whatever befalls it, no ICMP error quotes it in the clear: none answers a packet for another host
        let quiet = [Expr::Immediate(R1, vec![OTHER_HOST]), Expr::MetaSet(Meta::PacketType, R1)];
        batch.add_rule(table, "prerouting", &opened(place).with(quiet));
    }
    let dropped = || Rule::new().with([Expr::Counter]).verdict(Verdict::Drop);
    batch.add_chain(table, "member");
    let known = Rule::new().key_port_vni().key_source(R2 + 1).with([lookup(MEMBERS)]);
    batch.add_rule(table, "member", &known.verdict(Verdict::Accept));
    batch.add_rule(table, "member", &dropped());
    batch.add_chain(table, "opened");
    for place in PLACES {
        batch.add_rule(table, "opened", &opened(place).verdict(Verdict::Goto("member".to_owned())));
    }
    batch.add_rule(table, "opened", &dropped());
    batch.add_base_chain(table, "input", &Hook::filter(INPUT, GATE));
    // only what was moved there may be there
    let stray = Rule::new().protocol(Protocol::Udp).dport(own_port).with([Expr::Counter]);
    batch.add_rule(table, "input", &stray.verdict(Verdict::Drop));
    batch.add_rule(table, "input", &tunnelled().verdict(Verdict::Goto("opened".to_owned())));
    batch.add_base_chain(table, "move", &Hook::filter(INPUT, LATE));
    // a checksum of zero is none, and stays: nodes with a kernel older than 4.6 send such datagrams
    for (has, checksum) in [(Cmp::Eq, None), (Cmp::Neq, Some(UDP_CHECKSUM))] {
        let moved = tunnelled().with([
            Expr::Payload { base: Base::Transport, offset: UDP_CHECKSUM, len: 2, reg: R1 },
            Expr::Cmp(has, R1, vec![0; 2]),
        ]);
        let moved = moved.mark(MARK).with([
            Expr::Immediate(R1, own_port.to_be_bytes().to_vec()),
            Expr::PayloadSet { base: Base::Transport, offset: 2, len: 2, reg: R1, checksum },
        ]);
        batch.add_rule(table, "move", &moved);
    }
}

fn write_way_out(batch: &mut Batch, table: &Table, rules: &EncryptedRules, ports: &BTreeSet<u16>) {
    batch.add_base_chain(table, "mark", &Hook::filter(OUTPUT, BEFORE_MANGLE));
    batch.add_base_chain(table, "last", &Hook::filter(POSTROUTING, BEFORE_NAT));
    for port in ports {
        let ours = Rule::new().protocol(Protocol::Udp).sport(rules.own_port).dport(*port);
        // dockerd's rules may have outlived it: the mark that they would set leads astray, unless it is there already
        batch.add_rule(table, "mark", &ours.clone().with(is_sealed(1)).mark(MARK));
        let plain = ours.with(is_sealed(0)).with([Expr::Counter]);
        batch.add_rule(table, "last", &plain.verdict(Verdict::Drop));
    }
    // another mark, and the kernel looks for a way once more: the void is no choice of its own
    batch.add_base_chain(table, "output", &Hook::route(AFTER_MANGLE));
    let sealed = Rule::new().oif(Cmp::Eq, &rules.void);
    let sealed = sealed.with([Expr::Meta(Meta::L4Proto, R1), Expr::Cmp(Cmp::Eq, R1, vec![ESP])]);
    batch.add_rule(table, "output", &sealed.mark(0));
}

/// Offset of the checksum in UDP's header.
const UDP_CHECKSUM: u32 = 6;

fn lookup(set: &str) -> Expr {
    Expr::Lookup { set: SetRef { name: set.to_owned(), id: 0 }, reg: R1, into: None }
}

fn tunnelled() -> Rule {
    Rule::new().protocol(Protocol::Udp).key_port_vni().with([lookup(TUNNELS)])
}

/// The packet came out of a state with our request id.
fn opened(place: u32) -> Rule {
    Rule::new().with([Expr::OpenedBy { place, reg: R1 }, Expr::Cmp(Cmp::Eq, R1, REQUEST_ID.to_ne_bytes().to_vec())])
}

/// The packet will be sealed (or not), by whatever policy.
fn is_sealed(yes: u8) -> [Expr; 2] {
    [Expr::WillBeSealed(R1), Expr::Cmp(Cmp::Eq, R1, vec![yes])]
}

#[cfg(test)]
mod tests;
