//! NetworkDB's protobuf messages. Each is wrapped with its kind; compound ones hold others. What a peer repeats is walked
//! one by one and not collected: a list of empty elements would take many times its bytes.

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

pub(crate) use prost::Message as Encode;

/// The kinds of messages.
pub(crate) mod kind {
    pub(crate) const NETWORK_EVENT: u64 = 1;
    pub(crate) const TABLE_EVENT: u64 = 2;
    pub(crate) const PUSH_PULL: u64 = 3;
    pub(crate) const BULK_SYNC: u64 = 4;
    pub(crate) const COMPOUND: u64 = 5;
    pub(crate) const NODE_EVENT: u64 = 6;
    /// Ours, sent to our own members only: see `core::aside`.
    pub(crate) const QUESTION: u64 = 1001;
    pub(crate) const ANSWER: u64 = 1002;
    pub(crate) const NOTE: u64 = 1003;
}

/// What a node event or a network event says.
pub(crate) mod presence {
    pub(crate) const JOIN: i32 = 1;
    pub(crate) const LEAVE: i32 = 2;
}

/// What a table event says.
pub(crate) mod change {
    pub(crate) const CREATE: i32 = 1;
    pub(crate) const UPDATE: i32 = 2;
    pub(crate) const DELETE: i32 = 3;
}

/// A member came or goes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeEvent {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(uint64, tag = "2")]
    pub(crate) time: u64,
    #[prost(string, tag = "3")]
    pub(crate) node: String,
}

/// A member came into a network or goes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NetworkEvent {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(uint64, tag = "2")]
    pub(crate) time: u64,
    #[prost(string, tag = "3")]
    pub(crate) node: String,
    #[prost(string, tag = "4")]
    pub(crate) network: String,
}

/// A member's presence in a network, in a push/pull.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NetworkEntry {
    #[prost(string, tag = "1")]
    pub(crate) network: String,
    #[prost(uint64, tag = "2")]
    pub(crate) time: u64,
    #[prost(string, tag = "3")]
    pub(crate) node: String,
    #[prost(bool, tag = "4")]
    pub(crate) leaving: bool,
}

/// A push/pull without its entries, which are field 2.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PushPullHead {
    #[prost(uint64, tag = "1")]
    pub(crate) time: u64,
    #[prost(string, tag = "3")]
    pub(crate) node: String,
}

pub(crate) const PUSH_PULL_ENTRIES: u32 = 2;

/// An entry of a table changed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TableEvent {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(uint64, tag = "2")]
    pub(crate) time: u64,
    #[prost(string, tag = "3")]
    pub(crate) node: String,
    #[prost(string, tag = "4")]
    pub(crate) network: String,
    #[prost(string, tag = "5")]
    pub(crate) table: String,
    #[prost(string, tag = "6")]
    pub(crate) key: String,
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) value: Vec<u8>,
    /// How long its tombstone still stands, in seconds.
    #[prost(int32, tag = "8")]
    pub(crate) residual_seconds: i32,
}

/// A bulk sync without its networks, field 4, and its entries, field 5.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BulkSyncHead {
    #[prost(uint64, tag = "1")]
    pub(crate) time: u64,
    #[prost(bool, tag = "2")]
    pub(crate) unsolicited: bool,
    #[prost(string, tag = "3")]
    pub(crate) node: String,
    /// Ours: the sender waits on the stream until what this tells has been applied. dockerd skips the field.
    #[prost(bool, tag = "1001")]
    pub(crate) confirm: bool,
}

pub(crate) const BULK_SYNC_NETWORKS: u32 = 4;
pub(crate) const BULK_SYNC_PAYLOAD: u32 = 5;

/// The value of an entry in our own table: what a member's entries of a network add up to. See `digest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Digest {
    /// Only entries up to this time are in it.
    #[prost(uint64, tag = "1")]
    pub(crate) until: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) sum: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) entries: u64,
    /// The sender has found a difference before.
    #[prost(bool, tag = "4")]
    pub(crate) again: bool,
}

/// A question, an answer, a note: the user's words between our own members.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Aside {
    #[prost(string, tag = "1")]
    pub(crate) node: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) bytes: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) padding: Vec<u8>,
}

/// Appends a field that holds bytes.
pub(crate) fn put(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend(value);
}

/// The message of `kind` around `data`.
pub(crate) fn wrap(kind: u64, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 12);
    encode_key(1, WireType::Varint, &mut out);
    encode_varint(kind, &mut out);
    put(2, data, &mut out);
    out
}

/// The kind and the data of a message.
pub(crate) fn unwrap(mut message: &[u8]) -> Option<(u64, &[u8])> {
    let (mut kind, mut data) = (0, &[][..]);
    while !message.is_empty() {
        match decode_key(&mut message).ok()? {
            (1, WireType::Varint) => kind = decode_varint(&mut message).ok()?,
            (2, WireType::LengthDelimited) => data = bytes(&mut message)?,
            (tag, wire) => skip_field(wire, tag, &mut message, Default::default()).ok()?,
        }
    }
    Some((kind, data))
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(value)
}

/// The values of the field `tag`, which holds bytes, text or messages; it ends early where the bytes make no sense.
pub(crate) fn repeated(mut message: &[u8], tag: u32) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while !message.is_empty() {
            let (found, wire) = decode_key(&mut message).ok()?;
            if found == tag && wire == WireType::LengthDelimited {
                return bytes(&mut message);
            }
            skip_field(wire, found, &mut message, Default::default()).ok()?;
        }
        None
    })
}

/// A compound message of `parts`, each a whole message.
pub(crate) fn compound(parts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut data = Vec::new();
    for part in parts {
        let mut simple = Vec::with_capacity(part.as_ref().len() + 6);
        put(1, part.as_ref(), &mut simple);
        put(1, &simple, &mut data);
    }
    wrap(kind::COMPOUND, &data)
}

/// The parts of a compound message's data.
pub(crate) fn parts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    repeated(data, 1).map(|simple| repeated(simple, 1).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_and_compounds_come_back() {
        let event = NodeEvent { kind: presence::JOIN, time: 7, node: "a".into() };
        let message = wrap(kind::NODE_EVENT, &event.encode_to_vec());
        assert_eq!(message, [8, 6, 18, 7, 8, 1, 16, 7, 26, 1, b'a']);
        assert_eq!(unwrap(&message), Some((kind::NODE_EVENT, &event.encode_to_vec()[..])));
        let (kind, data) =
            unwrap(&compound(&[&message[..], b"x"])).map(|(kind, data)| (kind, data.to_vec())).expect("whole");
        assert_eq!(kind, kind::COMPOUND);
        assert_eq!(parts(&data).collect::<Vec<_>>(), [&message[..], b"x"]);
    }

    #[test]
    fn nonsense_ends_the_walk() {
        assert_eq!(unwrap(&[0xff; 20]), None);
        assert_eq!(unwrap(&[18, 5, 1]), None);
        assert_eq!(unwrap(&[]), Some((0, &[][..])));
        assert_eq!(repeated(&[10, 1, 7, 10, 9], 1).collect::<Vec<_>>(), [&[7][..]]);
        assert_eq!(repeated(&[8, 1, 18, 0], 2).count(), 1);
        assert_eq!(parts(&[10, 0]).collect::<Vec<_>>(), [&[][..]]);
    }
}
