//! Netlink for subsystems that no crate of ours speaks: messages, and a socket of one namespace.

mod message;
mod socket;

pub(crate) use message::{ACK, APPEND, CREATE, DUMP, REQUEST, Writer, attribute, attributes};
pub(crate) use socket::{News, Reply, Socket};
