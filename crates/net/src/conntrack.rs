//! Reading and deleting entries of the connection tracking table of a socket's namespace.

use std::io;
use std::net::Ipv4Addr;

use crate::netlink::{ACK, DUMP, REQUEST, Reply, Writer, attribute};
use crate::nft::{HEAD_BYTES, Head, Socket, begin};

const SUBSYSTEM: u16 = 1;
const GET: u16 = (SUBSYSTEM << 8) | 1;
const DELETE: u16 = (SUBSYSTEM << 8) | 2;
const GET_STATISTICS: u16 = (SUBSYSTEM << 8) | 5;
const ENTRIES: u16 = 1;
const ENTRY: u16 = SUBSYSTEM << 8;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const SEEN_REPLY: u32 = 1 << 1;
const ID: u16 = 12;
const NESTED: u16 = 0x8000;
const HEAD: Head = Head { family: libc::AF_INET as u8, resource: 0 };

/// A tracked flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Transport protocol.
    pub(crate) protocol: u8,
    /// Destination port that the client asked for.
    pub(crate) port: u16,
    /// Address that the client asked.
    pub(crate) asked: Ipv4Addr,
    /// Address that answers, after translation.
    pub(crate) answers: Ipv4Addr,
    /// Something has come back.
    pub(crate) is_answered: bool,
}

fn dump(socket: &mut Socket) -> io::Result<Vec<Reply>> {
    let mut writer = Writer::default();
    let start = begin(&mut writer, (GET, REQUEST | DUMP), 1, HEAD);
    writer.end(start);
    socket.request(&writer.bytes)
}

/// What stands behind `nfgenmsg`.
fn attributes(reply: &Reply) -> Option<&[u8]> {
    reply.body.get(HEAD_BYTES..).filter(|_| reply.kind == ENTRY)
}

/// Whether no flow is tracked in the socket's namespace: the table is one for all, and to walk through it takes a while.
fn is_empty(socket: &mut Socket) -> io::Result<bool> {
    let mut writer = Writer::default();
    let start = begin(&mut writer, (GET_STATISTICS, REQUEST), 1, HEAD);
    writer.end(start);
    let replies = socket.request(&writer.bytes)?;
    let count = replies.first().and_then(|reply| attribute(reply.body.get(HEAD_BYTES..)?, ENTRIES));
    Ok(count == Some(&[0; 4]))
}

/// Deletes the IPv4 flows that `is_stale` picks.
pub(crate) fn delete(socket: &mut Socket, is_stale: impl Fn(&Flow) -> bool) -> io::Result<()> {
    if is_empty(socket)? {
        return Ok(());
    }
    for reply in dump(socket)? {
        let Some(attributes) = attributes(&reply) else { continue };
        if !read(attributes).is_some_and(|flow| is_stale(&flow)) {
            continue;
        }
        let mut writer = Writer::default();
        let start = begin(&mut writer, (DELETE, REQUEST | ACK), 2, HEAD);
        for (kind, flag) in [(TUPLE_ORIGINAL, NESTED), (ID, 0)] {
            if let Some(value) = attribute(attributes, kind) {
                writer.bytes(kind | flag, value);
            }
        }
        writer.end(start);
        match socket.request(&writer.bytes) {
            // it ended by itself
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            result => drop(result?),
        }
    }
    Ok(())
}

fn read(attributes: &[u8]) -> Option<Flow> {
    let original = attribute(attributes, TUPLE_ORIGINAL)?;
    let proto = attribute(original, 2)?;
    let address = |tuple: &[u8], kind: u16| -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = attribute(attribute(tuple, 1)?, kind)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    Some(Flow {
        protocol: *attribute(proto, 1)?.first()?,
        port: u16::from_be_bytes(attribute(proto, 3)?.try_into().ok()?),
        asked: address(original, 2)?,
        answers: address(attribute(attributes, TUPLE_REPLY)?, 1)?,
        is_answered: u32::from_be_bytes(attribute(attributes, STATUS)?.try_into().ok()?) & SEEN_REPLY != 0,
    })
}
