//! The host's nftables: four tables, and one more where networks are encrypted. Their cost for a packet does not grow with the
//! number of ports.
//!
//! ```text
//! <prefix>-filter   who may be forwarded to a bridge; 127.0.0.0/8 is not reachable from bridges
//! <prefix>-ports    published ports of containers (two maps), masquerading
//! <prefix>-ingress  published ports of services: one set, one destination, the ingress sandbox
//! <prefix>-overlay  a tunnel takes packets only from nodes that have an endpoint on its network
//! <prefix>-ipsec    the same for encrypted networks, whose way it is: see `ipsec`
//! ```
//!
//! An accept here does not override another table's drop; `warnings` looks for such tables.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

use crate::ipsec::{self, EncryptedRules};
use crate::mesh::Port;
use crate::nft::{
    Batch, Cmp, DataType, Expr, FORWARD, Hook, INPUT, OUTPUT, POSTROUTING, PREROUTING, R1, R2, Rule, SetRef, Socket,
    Table, Value, Verdict, address_port, address_proto_port, proto_port,
};
use crate::overlay::{Guard, Member};
use crate::{Ipv4Cidr, Protocol, PublishedPort};

/// A bridge as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    /// Link name.
    pub(crate) link: String,
    /// Its subnet.
    pub(crate) subnet: Ipv4Cidr,
    /// Its containers may reach each other.
    pub(crate) icc: bool,
    /// What leaves it is masqueraded.
    pub(crate) masquerade: bool,
    /// Nothing leaves it, and nothing comes in.
    pub(crate) internal: bool,
}

/// A published port and the container behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    /// The port.
    pub(crate) port: PublishedPort,
    /// The container's address.
    pub(crate) address: Ipv4Addr,
}

/// Everything the host's tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostRules {
    /// The bridges.
    pub(crate) bridges: Vec<BridgeRules>,
    /// Published ports of containers.
    pub(crate) forwards: Vec<Forward>,
    /// Address of the ingress sandbox on the gateway bridge.
    pub(crate) ingress: Option<Ipv4Addr>,
    /// Published ports of services.
    pub(crate) ingress_ports: Vec<(Protocol, u16)>,
    /// Tunnels that are guarded: UDP port and VXLAN id.
    pub(crate) gates: BTreeSet<(u16, u32)>,
    /// Who may use them.
    pub(crate) members: BTreeSet<Member>,
    /// Encrypted networks, if there are any.
    pub(crate) encrypted: Option<EncryptedRules>,
}

impl HostRules {
    /// Ports that lead somewhere.
    pub(crate) fn ports(&self) -> impl Iterator<Item = Port> {
        self.forwards.iter().map(Forward::port).chain(self.ingress_ports.iter().copied())
    }
}

impl Forward {
    /// The port of the host.
    pub(crate) fn port(&self) -> Port {
        (self.port.protocol, self.port.host_port)
    }
}

/// The host's firewall. Without `--iptables` it takes everything and does nothing.
pub(crate) struct Firewall {
    socket: Option<Socket>,
    filter: Table,
    ports: Table,
    ingress: Table,
    overlay: Table,
    /// There while a network is encrypted.
    ipsec: Table,
    has_encrypted: bool,
    /// The tables have been written, and not been removed by us.
    is_up: bool,
}

const GATES: &str = "tunnels";
const MEMBERS: &str = "members";
const ANY: &str = "any-address";
const ONE: &str = "one-address";
const INGRESS_PORTS: &str = "ports";
const LOOPBACK: Ipv4Cidr = Ipv4Cidr::new(Ipv4Addr::new(127, 0, 0, 0), 8);

impl Firewall {
    /// Opens it in the thread's namespace.
    pub(crate) fn open(prefix: &str, enabled: bool) -> io::Result<Self> {
        let table = |what: &str| Table::ip(format!("{prefix}-{what}"));
        let socket = if enabled { Some(Socket::open()?) } else { None };
        Ok(Self {
            socket,
            filter: table("filter"),
            ports: table("ports"),
            ingress: table("ingress"),
            overlay: table("overlay"),
            ipsec: table("ipsec"),
            has_encrypted: false,
            is_up: false,
        })
    }

    fn commit(&mut self, batch: Batch) -> io::Result<()> {
        match &mut self.socket {
            Some(socket) => socket.commit(batch),
            None => Ok(()),
        }
    }

    /// The socket, for reading other tables.
    pub(crate) fn socket(&mut self) -> Option<&mut Socket> {
        self.socket.as_mut()
    }

    /// Names of our tables.
    pub(crate) fn table_names(&self) -> [&str; 5] {
        self.tables().map(|table| table.name.as_str())
    }

    /// Writes all tables anew. At every moment one set of them counts.
    pub(crate) fn replace(&mut self, rules: &HostRules) -> io::Result<()> {
        let stand_ins = self.tables().map(Table::stand_in);
        let [first, second] =
            [&stand_ins, &self.tables().map(Table::clone)].map(|[filter, ports, ingress, overlay, ipsec]| {
                let mut batch = Batch::new();
                write_filter(&mut batch, filter, rules);
                write_ports(&mut batch, ports, rules);
                write_ingress(&mut batch, ingress, rules);
                write_overlay(&mut batch, overlay, rules);
                write_ipsec(&mut batch, ipsec, rules);
                batch
            });
        let Some(socket) = self.socket.as_mut() else { return Ok(()) };
        (self.is_up, self.has_encrypted) = (true, rules.encrypted.is_some());
        socket.replace(first, second, &stand_ins)
    }

    /// Whether all tables are there that should be, whatever is in them.
    pub(crate) fn is_whole(&mut self) -> io::Result<bool> {
        let count = if self.has_encrypted { 5 } else { 4 };
        let tables = self.tables().map(Table::clone);
        let Some(socket) = self.socket.as_mut().filter(|_| self.is_up) else { return Ok(true) };
        for table in &tables[..count] {
            if !socket.has_table(table)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes all tables.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        self.is_up = false;
        let mut batch = Batch::new();
        for table in self.tables().into_iter().flat_map(|table| [table.clone(), table.stand_in()]) {
            batch.add_table(&table);
            batch.delete_table(&table);
        }
        self.commit(batch)
    }

    /// The one that is not always there comes last.
    fn tables(&self) -> [&Table; 5] {
        [&self.filter, &self.ports, &self.ingress, &self.overlay, &self.ipsec]
    }

    /// Opens ports.
    pub(crate) fn add_forwards(&mut self, forwards: &[Forward]) -> io::Result<()> {
        let mut batch = Batch::new();
        add_forward_elements(&mut batch, &self.ports, forwards);
        self.commit(batch)
    }

    /// Closes ports.
    pub(crate) fn delete_forwards(&mut self, forwards: &[Forward]) -> io::Result<()> {
        let mut batch = Batch::new();
        let (any, one) = split(forwards);
        let keys = |elements: Vec<(Vec<u8>, Value)>| elements.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        batch.delete_elements(&self.ports, ANY, &keys(any));
        batch.delete_elements(&self.ports, ONE, &keys(one));
        self.commit(batch)
    }

    /// Opens and closes ports of services.
    pub(crate) fn change_ingress_ports(
        &mut self,
        added: &[(Protocol, u16)],
        removed: &[(Protocol, u16)],
    ) -> io::Result<()> {
        let mut batch = Batch::new();
        let keys: Vec<_> = removed.iter().map(|(protocol, port)| proto_port(*protocol, *port)).collect();
        batch.delete_elements(&self.ingress, INGRESS_PORTS, &keys);
        batch.add_elements(&self.ingress, INGRESS_PORTS, &ingress_elements(added));
        self.commit(batch)
    }

    /// Lets nodes into tunnels, and shuts them out.
    pub(crate) fn change_members(&mut self, guard: Guard, added: &[Member], removed: &[Member]) -> io::Result<()> {
        let (table, set) = match guard {
            Guard::Plain => (&self.overlay, MEMBERS),
            Guard::Encrypted => (&self.ipsec, ipsec::MEMBERS),
        };
        let mut batch = Batch::new();
        batch.delete_elements(table, set, &removed.iter().map(member_key).collect::<Vec<_>>());
        batch.add_elements(table, set, &keys_only(added.iter().map(member_key)));
        self.commit(batch)
    }

    /// Guards tunnels, or no longer.
    pub(crate) fn change_gates(&mut self, added: &[(u16, u32)], removed: &[(u16, u32)]) -> io::Result<()> {
        let mut batch = Batch::new();
        let gone: Vec<_> = removed.iter().filter(|gate| !added.contains(gate)).map(gate_key).collect();
        batch.delete_elements(&self.overlay, GATES, &gone);
        let new = added.iter().filter(|gate| !removed.contains(gate)).map(gate_key);
        batch.add_elements(&self.overlay, GATES, &keys_only(new));
        self.commit(batch)
    }
}

fn add_forward_elements(batch: &mut Batch, ports: &Table, forwards: &[Forward]) {
    let (any, one) = split(forwards);
    batch.add_elements(ports, ANY, &any);
    batch.add_elements(ports, ONE, &one);
}

fn write_filter(batch: &mut Batch, table: &Table, rules: &HostRules) {
    batch.replace_table(table);
    batch.add_base_chain(table, "raw", &Hook::filter(PREROUTING, -300));
    batch.add_base_chain(table, "forward", &Hook::filter(FORWARD, 0));
    batch.add_base_chain(table, "output", &Hook::filter(OUTPUT, 0));
    for bridge in rules.bridges.iter().filter(|bridge| bridge.internal) {
        let away = Rule::new().iif(Cmp::Eq, &bridge.link).oif(Cmp::Neq, &bridge.link);
        batch.add_rule(table, "forward", &away.verdict(Verdict::Drop));
    }
    for bridge in &rules.bridges {
        // a container that uses its neighbour's published port would be told to go there directly, past the translation
        let redirect = Rule::new().oif(Cmp::Eq, &bridge.link).icmp_redirect().verdict(Verdict::Drop);
        batch.add_rule(table, "output", &redirect);
        let chain = format!("to-{}", bridge.link);
        let inside = Rule::new().iif(Cmp::Eq, &bridge.link);
        // the bridges have route_localnet, for published ports on 127.0.0.1: no container may use it
        let loopback = inside.clone().daddr(Cmp::Eq, LOOPBACK).verdict(Verdict::Drop);
        batch.add_rule(table, "raw", &loopback);
        batch.add_chain(table, &chain);
        let from_outside =
            [Rule::new().established().verdict(Verdict::Accept), Rule::new().dnatted().verdict(Verdict::Accept)];
        let rules = [
            inside.verdict(if bridge.icc { Verdict::Accept } else { Verdict::Drop }),
            Rule::new().verdict(Verdict::Drop),
        ];
        let from_outside = from_outside.iter().filter(|_| !bridge.internal);
        from_outside.chain(&rules).for_each(|rule| batch.add_rule(table, &chain, rule));
        let jump = Rule::new().oif(Cmp::Eq, &bridge.link).verdict(Verdict::Jump(chain));
        batch.add_rule(table, "forward", &jump);
    }
}

fn write_ports(batch: &mut Batch, table: &Table, rules: &HostRules) {
    batch.replace_table(table);
    batch.add_set(table, ANY, DataType::ProtoPort, Some(DataType::AddressPort));
    batch.add_set(table, ONE, DataType::AddressProtoPort, Some(DataType::AddressPort));
    batch.add_chain(table, "published");
    // address . protocol . port: three registers in a row
    let key_one = Rule::new().with([
        Expr::Payload { base: crate::nft::Base::Network, offset: 16, len: 4, reg: R1 },
        Expr::Meta(crate::nft::Meta::L4Proto, R2),
        Expr::Payload { base: crate::nft::Base::Transport, offset: 2, len: 2, reg: R2 + 1 },
    ]);
    batch.add_rule(table, "published", &translate(key_one, ONE));
    batch.add_rule(table, "published", &translate(Rule::new().key_proto_port(), ANY));
    hook_local(batch, table, "published");
    batch.add_base_chain(table, "postrouting", &Hook::nat(POSTROUTING));
    for bridge in &rules.bridges {
        let (out, from) = (Rule::new().oif(Cmp::Eq, &bridge.link), bridge.subnet.network());
        // the host's own clients at 127.0.0.1, and containers that use a port published by a neighbour
        batch.add_rule(table, "postrouting", &out.clone().saddr(Cmp::Eq, LOOPBACK).masquerade());
        batch.add_rule(table, "postrouting", &out.saddr(Cmp::Eq, from).dnatted().masquerade());
        if bridge.masquerade {
            let away = Rule::new().oif(Cmp::Neq, &bridge.link).saddr(Cmp::Eq, from);
            batch.add_rule(table, "postrouting", &away.masquerade());
        }
    }
    add_forward_elements(batch, table, &rules.forwards);
}

fn write_ingress(batch: &mut Batch, table: &Table, rules: &HostRules) {
    batch.replace_table(table);
    batch.add_set(table, INGRESS_PORTS, DataType::ProtoPort, None);
    batch.add_chain(table, "mesh");
    if let Some(address) = rules.ingress {
        batch.add_rule(table, "mesh", &Rule::new().proto_port_in(INGRESS_PORTS).dnat(address, None));
    }
    hook_local(batch, table, "mesh");
    batch.add_elements(table, INGRESS_PORTS, &ingress_elements(&rules.ingress_ports));
}

/// The check is made where packets have been put together again: a fragment has no VXLAN header to look at.
fn write_overlay(batch: &mut Batch, table: &Table, rules: &HostRules) {
    batch.replace_table(table);
    batch.add_set(table, GATES, DataType::PortId, None);
    batch.add_set(table, MEMBERS, DataType::PortIdAddress, None);
    batch.add_chain(table, "tunnel");
    let lookup = |name: &str| Expr::Lookup { set: SetRef { name: name.to_owned(), id: 0 }, reg: R1, into: None };
    let known = Rule::new().key_port_vni().key_source(R2 + 1).with([lookup(MEMBERS)]);
    batch.add_rule(table, "tunnel", &known.verdict(Verdict::Accept));
    batch.add_rule(table, "tunnel", &Rule::new().with([Expr::Counter]).verdict(Verdict::Drop));
    batch.add_base_chain(table, "input", &Hook::filter(INPUT, -150));
    let guarded = Rule::new().protocol(Protocol::Udp).key_port_vni().with([lookup(GATES)]);
    batch.add_rule(table, "input", &guarded.verdict(Verdict::Jump("tunnel".to_owned())));
    batch.add_elements(table, GATES, &keys_only(rules.gates.iter().map(gate_key)));
    batch.add_elements(table, MEMBERS, &keys_only(rules.members.iter().map(member_key)));
}

fn write_ipsec(batch: &mut Batch, table: &Table, rules: &HostRules) {
    let Some(encrypted) = &rules.encrypted else {
        // a former daemon's, or of a network that is gone
        batch.add_table(table);
        return batch.delete_table(table);
    };
    ipsec::write_rules(batch, table, encrypted);
    batch.add_elements(table, ipsec::TUNNELS, &keys_only(encrypted.tunnels.iter().map(gate_key)));
    batch.add_elements(table, ipsec::MEMBERS, &keys_only(encrypted.members.iter().map(member_key)));
}

fn gate_key((port, vni): &(u16, u32)) -> Vec<u8> {
    let (port, vni) = (port.to_be_bytes(), vni.to_be_bytes());
    // as loaded from a packet: the id's three bytes come first
    vec![port[0], port[1], 0, 0, vni[1], vni[2], vni[3], 0]
}

fn member_key((port, vni, node): &Member) -> Vec<u8> {
    [gate_key(&(*port, *vni)), node.octets().to_vec()].concat()
}

fn keys_only(keys: impl Iterator<Item = Vec<u8>>) -> Elements {
    keys.map(|key| (key, Value::None)).collect()
}

/// Packets for an address of this machine, from outside and from itself, go to `chain`.
fn hook_local(batch: &mut Batch, table: &Table, chain: &str) {
    for (name, hook) in [("prerouting", PREROUTING), ("output", OUTPUT)] {
        batch.add_base_chain(table, name, &Hook::nat(hook));
        let jump = Rule::new().daddr_local().verdict(Verdict::Jump(chain.to_owned()));
        batch.add_rule(table, name, &jump);
    }
}

fn translate(key: Rule, map: &str) -> Rule {
    let set = SetRef { name: map.to_owned(), id: 0 };
    key.with([Expr::Lookup { set, reg: R1, into: Some(R1) }, Expr::Dnat { address: R1, port: Some(R2) }])
}

type Elements = Vec<(Vec<u8>, Value)>;

/// Elements of the two maps.
fn split(forwards: &[Forward]) -> (Elements, Elements) {
    let (mut any, mut one) = (Elements::new(), Elements::new());
    for Forward { port, address } in forwards {
        let value = Value::Data(address_port(*address, port.container_port));
        if port.host_address.is_unspecified() {
            any.push((proto_port(port.protocol, port.host_port), value));
        } else {
            one.push((address_proto_port(port.host_address, port.protocol, port.host_port), value));
        }
    }
    (any, one)
}

fn ingress_elements(ports: &[(Protocol, u16)]) -> Elements {
    ports.iter().map(|(protocol, port)| (proto_port(*protocol, *port), Value::None)).collect()
}
