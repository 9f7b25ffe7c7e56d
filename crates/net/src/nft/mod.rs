//! Netfilter over netlink: an encoder for the part of nftables that the network needs, and the socket.

mod batch;
mod expr;
mod socket;

pub(crate) use batch::{
    Batch, DataType, FORWARD, Family, Hook, INPUT, OUTPUT, POSTROUTING, PREROUTING, Table, Value, address_port,
    address_proto_port, proto_port,
};
pub(crate) use expr::{Base, Cmp, Ct, Expr, Meta, R1, R2, Rule, SetRef, Verdict};
pub(crate) use socket::{Socket, news};

use crate::netlink::Writer;

/// Bytes of `nfgenmsg`, which stands before the attributes of every message.
pub(crate) const HEAD_BYTES: usize = 4;

/// Begins a message of a netfilter subsystem and returns its start for [`Writer::end`].
pub(crate) fn begin(writer: &mut Writer, (kind, flags): (u16, u16), sequence: u32, head: Head) -> usize {
    let start = writer.begin(kind, flags, sequence);
    writer.bytes.extend_from_slice(&[head.family, 0]);
    writer.bytes.extend_from_slice(&head.resource.to_be_bytes());
    start
}

/// `nfgenmsg`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Head {
    pub(crate) family: u8,
    pub(crate) resource: u16,
}
