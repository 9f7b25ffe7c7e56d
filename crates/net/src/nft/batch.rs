//! A transaction of nftables: all of it or nothing.

use std::net::Ipv4Addr;

use super::expr::{Rule, SetRef, Verdict};
use super::{Head, begin};
use crate::Protocol;
use crate::netlink::{APPEND, CREATE, REQUEST, Writer};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const BATCH_HEAD: Head = Head { family: 0, resource: SUBSYSTEM };
/// Elements of one message: the list is one attribute, whose length is 16 bits.
const ELEMENTS_PER_MESSAGE: usize = 400;
/// Flags of sets.
const ANONYMOUS: u32 = 1;
const CONSTANT: u32 = 2;
const MAP: u32 = 8;

/// Message types.
#[derive(Clone, Copy)]
enum Op {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    DelChain = 5,
    NewRule = 6,
    DelRule = 8,
    NewSet = 9,
    NewElement = 12,
    DelElement = 14,
}

/// Type of the message that tells of it.
pub(super) const TABLE_DELETED: u16 = (SUBSYSTEM << 8) | Op::DelTable as u16;

/// Address families of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Ip = 2,
    Netdev = 5,
}

/// A table of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) name: String,
}

impl Table {
    /// A table for IPv4.
    pub(crate) fn ip(name: impl Into<String>) -> Self {
        Self { family: Family::Ip, name: name.into() }
    }

    /// The request that asks for it.
    pub(super) fn question(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let head = Head { family: self.family as u8, resource: 0 };
        let start = begin(&mut writer, ((SUBSYSTEM << 8) | Op::GetTable as u16, REQUEST), 1, head);
        writer.text(1, &self.name);
        writer.end(start);
        writer.bytes
    }

    /// The table that is there while this one is written anew.
    pub(crate) fn stand_in(&self) -> Self {
        Self { family: self.family, name: format!("{}-stand-in", self.name) }
    }
}

/// Where a base chain hangs.
pub(crate) struct Hook<'a> {
    /// `filter`, `nat` or `route`.
    pub(crate) kind: &'a str,
    /// Number of the hook in its family.
    pub(crate) number: u32,
    /// Order among chains of the hook.
    pub(crate) priority: i32,
    /// Link, for netdev chains.
    pub(crate) device: Option<&'a str>,
}

/// Hook numbers.
pub(crate) const PREROUTING: u32 = 0;
pub(crate) const INPUT: u32 = 1;
pub(crate) const FORWARD: u32 = 2;
pub(crate) const OUTPUT: u32 = 3;
pub(crate) const POSTROUTING: u32 = 4;
pub(crate) const NETDEV_EGRESS: u32 = 1;

impl<'a> Hook<'a> {
    /// A filter chain.
    pub(crate) fn filter(number: u32, priority: i32) -> Self {
        Self { kind: "filter", number, priority, device: None }
    }

    /// A translating chain at the usual priority.
    pub(crate) fn nat(number: u32) -> Self {
        let priority = if number == POSTROUTING { 100 } else { -100 };
        Self { kind: "nat", number, priority, device: None }
    }

    /// A chain that makes locally made packets be routed again.
    pub(crate) fn route(priority: i32) -> Self {
        Self { kind: "route", number: OUTPUT, priority, device: None }
    }

    /// A chain on a link's way out.
    pub(crate) fn egress(device: &'a str) -> Self {
        Self { kind: "filter", number: NETDEV_EGRESS, priority: 0, device: Some(device) }
    }
}

/// Key and value types of sets; the numbers are those of the `nft` program, six bits a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataType {
    /// `inet_proto . inet_service`
    ProtoPort,
    /// `ipv4_addr . inet_proto . inet_service`
    AddressProtoPort,
    /// `ipv4_addr`
    Address,
    /// `ipv4_addr . inet_service`
    AddressPort,
    /// `inet_service . mark`: a port and another number
    PortId,
    /// `inet_service . mark . ipv4_addr`
    PortIdAddress,
    /// `integer`
    Index,
    /// A verdict; only as value.
    Verdict,
}

impl DataType {
    fn number(self) -> u32 {
        match self {
            Self::ProtoPort => (12 << 6) | 13,
            Self::AddressProtoPort => (7 << 12) | (12 << 6) | 13,
            Self::Address => 7,
            Self::AddressPort => (7 << 6) | 13,
            Self::PortId => (13 << 6) | 19,
            Self::PortIdAddress => (13 << 12) | (19 << 6) | 7,
            Self::Index => 4,
            Self::Verdict => 0xffff_ff00,
        }
    }

    fn len(self) -> u32 {
        match self {
            Self::ProtoPort | Self::AddressPort | Self::PortId => 8,
            Self::AddressProtoPort | Self::PortIdAddress => 12,
            Self::Address | Self::Index => 4,
            Self::Verdict => 0,
        }
    }
}

/// The key `protocol . port`.
pub(crate) fn proto_port(protocol: Protocol, port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    vec![protocol.number(), 0, 0, 0, port[0], port[1], 0, 0]
}

/// The key `address . protocol . port`.
pub(crate) fn address_proto_port(address: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<u8> {
    [address.octets().to_vec(), proto_port(protocol, port)].concat()
}

/// The value `address . port`.
pub(crate) fn address_port(address: Ipv4Addr, port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    [&address.octets()[..], &[port[0], port[1], 0, 0]].concat()
}

/// The value of a map's element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// None: a set, or a deletion by key.
    None,
    /// Bytes.
    Data(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// A transaction under construction.
pub(crate) struct Batch {
    writer: Writer,
    sequence: u32,
    last: usize,
    next_set_id: u32,
}

impl Batch {
    /// An empty transaction.
    pub(crate) fn new() -> Self {
        let mut writer = Writer::default();
        let start = begin(&mut writer, (BATCH_BEGIN, REQUEST), 0, BATCH_HEAD);
        writer.end(start);
        Self { writer, sequence: 0, last: start, next_set_id: 1 }
    }

    /// Whether nothing has been added.
    pub(crate) fn is_empty(&self) -> bool {
        self.sequence == 0
    }

    /// The bytes to send, and the sequence number whose acknowledgement means success.
    pub(crate) fn finish(mut self) -> (Vec<u8>, u32) {
        self.writer.ask_ack(self.last);
        let start = begin(&mut self.writer, (BATCH_END, REQUEST), self.sequence + 1, BATCH_HEAD);
        self.writer.end(start);
        (self.writer.bytes, self.sequence)
    }

    fn message(&mut self, op: Op, flags: u16, family: Family, fill: impl FnOnce(&mut Writer)) {
        self.sequence += 1;
        let kind = (SUBSYSTEM << 8) | op as u16;
        let head = Head { family: family as u8, resource: 0 };
        let start = begin(&mut self.writer, (kind, REQUEST | flags), self.sequence, head);
        fill(&mut self.writer);
        self.writer.end(start);
        self.last = start;
    }

    /// Makes a table if it is missing.
    pub(crate) fn add_table(&mut self, table: &Table) {
        self.message(Op::NewTable, CREATE, table.family, |w| {
            w.text(1, &table.name);
            w.be32(2, 0);
        });
    }

    /// Removes a table, which must be there.
    pub(crate) fn delete_table(&mut self, table: &Table) {
        self.message(Op::DelTable, 0, table.family, |w| w.text(1, &table.name));
    }

    /// Makes a table anew: whatever it held is gone when the transaction ends.
    pub(crate) fn replace_table(&mut self, table: &Table) {
        self.add_table(table);
        self.delete_table(table);
        self.add_table(table);
    }

    /// Makes a chain that others jump to.
    pub(crate) fn add_chain(&mut self, table: &Table, chain: &str) {
        self.message(Op::NewChain, CREATE, table.family, |w| {
            w.text(1, &table.name);
            w.text(3, chain);
        });
    }

    /// Makes a chain that hangs on a hook, policy accept.
    pub(crate) fn add_base_chain(&mut self, table: &Table, chain: &str, hook: &Hook<'_>) {
        self.message(Op::NewChain, CREATE, table.family, |w| {
            w.text(1, &table.name);
            w.text(3, chain);
            w.nest(4, |w| {
                w.be32(1, hook.number);
                w.be32(2, hook.priority as u32);
                if let Some(device) = hook.device {
                    w.text(3, device);
                }
            });
            w.be32(5, 1);
            w.text(7, hook.kind);
        });
    }

    /// Removes a chain, which must be empty and not be jumped to.
    pub(crate) fn delete_chain(&mut self, table: &Table, chain: &str) {
        self.message(Op::DelChain, 0, table.family, |w| {
            w.text(1, &table.name);
            w.text(3, chain);
        });
    }

    /// Removes all rules of a chain.
    pub(crate) fn flush_chain(&mut self, table: &Table, chain: &str) {
        self.message(Op::DelRule, 0, table.family, |w| {
            w.text(1, &table.name);
            w.text(2, chain);
        });
    }

    /// Appends a rule.
    pub(crate) fn add_rule(&mut self, table: &Table, chain: &str, rule: &Rule) {
        self.message(Op::NewRule, CREATE | APPEND, table.family, |w| {
            w.text(1, &table.name);
            w.text(2, chain);
            w.nest(4, |w| rule.0.iter().for_each(|expr| expr.write(w)));
        });
    }

    /// Makes a named set (`value` is `None`) or map.
    pub(crate) fn add_set(&mut self, table: &Table, name: &str, key: DataType, value: Option<DataType>) {
        self.new_set(table, name, if value.is_some() { MAP } else { 0 }, (key, value));
    }

    /// Makes a map without a name for one rule, with its elements.
    pub(crate) fn add_anonymous_map(
        &mut self,
        table: &Table,
        key: DataType,
        value: DataType,
        elements: &[(Vec<u8>, Value)],
    ) -> SetRef {
        let name = "__map%d".to_owned();
        let id = self.new_set(table, &name, ANONYMOUS | CONSTANT | MAP, (key, Some(value)));
        let set = SetRef { name, id };
        self.elements(Op::NewElement, table, &set, elements);
        set
    }

    fn new_set(&mut self, table: &Table, name: &str, flags: u32, types: (DataType, Option<DataType>)) -> u32 {
        let ((key, value), id) = (types, self.next_set_id);
        self.next_set_id += 1;
        self.message(Op::NewSet, CREATE, table.family, |w| {
            w.text(1, &table.name);
            w.text(2, name);
            w.be32(3, flags);
            w.be32(4, key.number());
            w.be32(5, key.len());
            if let Some(value) = value {
                w.be32(6, value.number());
                if value != DataType::Verdict {
                    w.be32(7, value.len());
                }
            }
            w.be32(10, id);
        });
        id
    }

    /// Adds elements to a named set or map.
    pub(crate) fn add_elements(&mut self, table: &Table, set: &str, elements: &[(Vec<u8>, Value)]) {
        self.elements(Op::NewElement, table, &SetRef { name: set.to_owned(), id: 0 }, elements);
    }

    /// Removes elements, which must be there, from a named set or map.
    pub(crate) fn delete_elements(&mut self, table: &Table, set: &str, keys: &[Vec<u8>]) {
        let elements: Vec<_> = keys.iter().map(|key| (key.clone(), Value::None)).collect();
        self.elements(Op::DelElement, table, &SetRef { name: set.to_owned(), id: 0 }, &elements);
    }

    fn elements(&mut self, op: Op, table: &Table, set: &SetRef, elements: &[(Vec<u8>, Value)]) {
        let flags = if matches!(op, Op::NewElement) { CREATE } else { 0 };
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.message(op, flags, table.family, |w| {
                w.text(1, &table.name);
                w.text(2, &set.name);
                if set.id != 0 {
                    w.be32(4, set.id);
                }
                w.nest(3, |w| {
                    for (key, value) in chunk {
                        write_element(w, key, value);
                    }
                });
            });
        }
    }
}

fn write_element(w: &mut Writer, key: &[u8], value: &Value) {
    w.nest(1, |w| {
        w.nest(1, |w| w.bytes(1, key));
        match value {
            Value::None => {}
            Value::Data(data) => w.nest(2, |w| w.bytes(1, data)),
            Value::Verdict(verdict) => verdict.write(w, 2),
        }
    });
}
