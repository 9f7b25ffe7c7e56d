//! nftables over netlink: an encoder for the part of it that the network needs, and the socket.

mod batch;
mod expr;
mod message;
mod socket;

pub(crate) use batch::{
    Batch, DataType, FORWARD, Family, Hook, INPUT, OUTPUT, POSTROUTING, PREROUTING, Table, Value, address_port,
    address_proto_port, proto_port,
};
pub(crate) use expr::{Base, Cmp, Ct, Expr, Meta, R1, R2, Rule, SetRef, Verdict};
pub(crate) use message::{ACK, DUMP, HEADER_LEN, REQUEST, Writer, attribute, attributes};
pub(crate) use socket::{Reply, Socket, await_news, news, was_table_deleted};
