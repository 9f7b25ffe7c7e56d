//! memberlist's messages: one byte of kind and a msgpack record, or opaque bytes. Read as Go reads them: fields in any
//! order, unknown ones skipped, absent ones zero. Lengths of names and meta data are bounded here, once for all users.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::limits::{MAX_META_BYTES, MAX_NAME_BYTES, PORT};
use crate::msgpack::{Malformed, Reader, Writer};

/// A member's name, a network's identifier, a table's name: shared, as the same few stand in many places.
pub type Name = Arc<str>;

/// The kinds of memberlist's messages, by their byte on the wire.
pub(crate) mod kind {
    pub(crate) const PING: u8 = 0;
    pub(crate) const INDIRECT_PING: u8 = 1;
    pub(crate) const ACK: u8 = 2;
    pub(crate) const SUSPECT: u8 = 3;
    pub(crate) const ALIVE: u8 = 4;
    pub(crate) const DEAD: u8 = 5;
    pub(crate) const PUSH_PULL: u8 = 6;
    pub(crate) const COMPOUND: u8 = 7;
    pub(crate) const USER: u8 = 8;
    pub(crate) const COMPRESS: u8 = 9;
    pub(crate) const ENCRYPT: u8 = 10;
    pub(crate) const NACK: u8 = 11;
    pub(crate) const HAS_CRC: u8 = 12;
    pub(crate) const ERROR: u8 = 13;
}

/// The version bytes that this node announces: protocol least, most and current, then the same for the user of memberlist.
pub(crate) const VERSIONS: Versions = Versions([1, 5, 2, 0, 0, 0]);

/// Protocol versions of a member.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Versions(pub(crate) [u8; 6]);

impl Versions {
    fn read(bytes: &[u8]) -> Self {
        Self(bytes.first_chunk().copied().unwrap_or_default())
    }

    /// Whether a packet to such a member carries a checksum.
    pub(crate) fn takes_crc(self) -> bool {
        self.0[1] >= 5
    }

    /// Whether such a member answers an indirect ping with a nack.
    pub(crate) fn sends_nack(self) -> bool {
        self.0[1] >= 4
    }

    /// Whether such a member answers a ping over a stream.
    pub(crate) fn takes_stream_ping(self) -> bool {
        self.0[1] >= 3
    }
}

/// Who asks for an answer, for answers that go to another address than the packet came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Source {
    pub(crate) address: SocketAddr,
    pub(crate) name: Name,
}

/// "Are you there?"
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Ping {
    pub(crate) sequence: u32,
    /// Whom it is meant for: a process that was started anew at the same address does not answer for the old one.
    pub(crate) node: Name,
    pub(crate) source: Option<Source>,
}

/// "Ask that one for me."
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct IndirectPing {
    pub(crate) ping: Ping,
    pub(crate) target: SocketAddr,
    pub(crate) nack: bool,
}

/// A member is alive, by its own word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Alive {
    pub(crate) incarnation: u32,
    pub(crate) node: Name,
    pub(crate) address: SocketAddr,
    pub(crate) meta: Arc<[u8]>,
    pub(crate) versions: Versions,
}

/// One member's word against another: it is suspected, or dead; of itself: it left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Accusation {
    pub(crate) incarnation: u32,
    pub(crate) node: Name,
    pub(crate) from: Name,
}

/// How a member is known to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Liveness {
    Alive,
    Suspect,
    Dead,
    Left,
}

impl Liveness {
    fn read(value: u64) -> Result<Self, Malformed> {
        Ok(match value {
            0 => Self::Alive,
            1 => Self::Suspect,
            2 => Self::Dead,
            3 => Self::Left,
            _ => return Err(Malformed::Kind),
        })
    }
}

/// A member as a push/pull tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PushedMember {
    pub(crate) alive: Alive,
    pub(crate) liveness: Liveness,
}

/// A message of a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Message<'a> {
    Ping(Ping),
    IndirectPing(IndirectPing),
    Ack(u32),
    Nack(u32),
    Suspect(Accusation),
    Alive(Alive),
    Dead(Accusation),
    User(&'a [u8]),
}

pub(crate) fn name(bytes: &[u8]) -> Result<Name, Malformed> {
    if bytes.len() > MAX_NAME_BYTES {
        return Err(Malformed::Limit);
    }
    Ok(std::str::from_utf8(bytes).map_err(|_| Malformed::Kind)?.into())
}

/// An address's bytes; of an IPv4 address always four, as members compare them byte by byte.
fn ip_bytes(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    }
}

fn ip(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).map_err(|_| Malformed::Kind)?;
    Ok(IpAddr::from(Ipv6Addr::from(sixteen)).to_canonical())
}

fn port_or_default(port: u16) -> u16 {
    if port == 0 { PORT } else { port }
}

/// The fields that say who asks; those of a packet without them stay empty.
#[derive(Default)]
struct SourceFields<'a> {
    address: &'a [u8],
    port: u16,
    name: &'a [u8],
}

impl<'a> SourceFields<'a> {
    fn field(&mut self, field: &[u8], reader: &mut Reader<'a>) -> Result<(), Malformed> {
        match field {
            b"SourceAddr" => self.address = reader.raw()?,
            b"SourcePort" => self.port = reader.narrow()?,
            b"SourceNode" => self.name = reader.raw()?,
            _ => reader.skip()?,
        }
        Ok(())
    }

    fn source(&self) -> Result<Option<Source>, Malformed> {
        if self.address.is_empty() || self.port == 0 {
            return Ok(None);
        }
        Ok(Some(Source { address: (ip(self.address)?, self.port).into(), name: name(self.name)? }))
    }
}

fn write_source(writer: &mut Writer, source: &Source) {
    writer.field("SourceAddr").raw(&ip_bytes(source.address.ip()));
    writer.field("SourcePort").uint(source.address.port().into());
    writer.field("SourceNode").raw(source.name.as_bytes());
}

impl Ping {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (mut sequence, mut node, mut source) = (0, &[][..], SourceFields::default());
        reader.record(|field, reader| {
            match field {
                b"SeqNo" => sequence = reader.narrow()?,
                b"Node" => node = reader.raw()?,
                _ => source.field(field, reader)?,
            }
            Ok(())
        })?;
        Ok(Self { sequence, node: name(node)?, source: source.source()? })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_padded(0)
    }

    /// With a field that no reader knows, so that the packet gets larger.
    pub(crate) fn encode_padded(&self, pad: usize) -> Vec<u8> {
        let mut writer = Writer::new(vec![kind::PING]);
        writer.map(if self.source.is_some() { 5 } else { 2 } + u8::from(pad > 0));
        if pad > 0 {
            writer.field("Pad").raw(&vec![0; pad]);
        }
        writer.field("SeqNo").uint(self.sequence.into());
        writer.field("Node").raw(self.node.as_bytes());
        if let Some(source) = &self.source {
            write_source(&mut writer, source);
        }
        writer.into_bytes()
    }
}

impl IndirectPing {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (mut sequence, mut node, mut target, mut port, mut nack) = (0, &[][..], &[][..], 0, false);
        let mut source = SourceFields::default();
        reader.record(|field, reader| {
            match field {
                b"SeqNo" => sequence = reader.narrow()?,
                b"Target" => target = reader.raw()?,
                b"Port" => port = reader.narrow()?,
                b"Node" => node = reader.raw()?,
                b"Nack" => nack = reader.bool()?,
                _ => source.field(field, reader)?,
            }
            Ok(())
        })?;
        let ping = Ping { sequence, node: name(node)?, source: source.source()? };
        Ok(Self { ping, target: (ip(target)?, port_or_default(port)).into(), nack })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(vec![kind::INDIRECT_PING]);
        writer.map(if self.ping.source.is_some() { 8 } else { 5 });
        writer.field("SeqNo").uint(self.ping.sequence.into());
        writer.field("Target").raw(&ip_bytes(self.target.ip()));
        writer.field("Port").uint(self.target.port().into());
        writer.field("Node").raw(self.ping.node.as_bytes());
        writer.field("Nack").bool(self.nack);
        if let Some(source) = &self.ping.source {
            write_source(&mut writer, source);
        }
        writer.into_bytes()
    }
}

impl Accusation {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (mut incarnation, mut node, mut from) = (0, &[][..], &[][..]);
        reader.record(|field, reader| {
            match field {
                b"Incarnation" => incarnation = reader.narrow()?,
                b"Node" => node = reader.raw()?,
                b"From" => from = reader.raw()?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        Ok(Self { incarnation, node: name(node)?, from: name(from)? })
    }

    /// The message of `kind`: a suspicion or a death.
    pub(crate) fn encode(&self, kind: u8) -> Vec<u8> {
        let mut writer = Writer::new(vec![kind]);
        writer.map(3);
        writer.field("Incarnation").uint(self.incarnation.into());
        writer.field("Node").raw(self.node.as_bytes());
        writer.field("From").raw(self.from.as_bytes());
        writer.into_bytes()
    }
}

/// The fields that an alive message and a member of a push/pull share.
#[derive(Default)]
struct AliveFields<'a> {
    incarnation: u32,
    node: &'a [u8],
    address: &'a [u8],
    port: u16,
    meta: &'a [u8],
    versions: &'a [u8],
}

impl<'a> AliveFields<'a> {
    fn field(&mut self, field: &[u8], reader: &mut Reader<'a>) -> Result<(), Malformed> {
        match field {
            b"Incarnation" => self.incarnation = reader.narrow()?,
            b"Node" | b"Name" => self.node = reader.raw()?,
            b"Addr" => self.address = reader.raw()?,
            b"Port" => self.port = reader.narrow()?,
            b"Meta" => self.meta = reader.raw()?,
            b"Vsn" => self.versions = reader.raw()?,
            _ => reader.skip()?,
        }
        Ok(())
    }

    fn alive(&self) -> Result<Alive, Malformed> {
        if self.meta.len() > MAX_META_BYTES {
            return Err(Malformed::Limit);
        }
        Ok(Alive {
            incarnation: self.incarnation,
            node: name(self.node)?,
            address: (ip(self.address)?, port_or_default(self.port)).into(),
            meta: self.meta.into(),
            versions: Versions::read(self.versions),
        })
    }
}

impl Alive {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut fields = AliveFields::default();
        reader.record(|field, reader| fields.field(field, reader))?;
        fields.alive()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(vec![kind::ALIVE]);
        writer.map(6);
        writer.field("Incarnation").uint(self.incarnation.into());
        writer.field("Node").raw(self.node.as_bytes());
        self.write_rest(&mut writer);
        writer.into_bytes()
    }

    fn write_rest(&self, writer: &mut Writer) {
        writer.field("Addr").raw(&ip_bytes(self.address.ip()));
        writer.field("Port").uint(self.address.port().into());
        writer.field("Meta").raw(&self.meta);
        writer.field("Vsn").raw(&self.versions.0);
    }
}

impl PushedMember {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (mut fields, mut liveness) = (AliveFields::default(), 0);
        reader.record(|field, reader| match field {
            b"State" => {
                liveness = reader.uint()?;
                Ok(())
            }
            _ => fields.field(field, reader),
        })?;
        Ok(Self { alive: fields.alive()?, liveness: Liveness::read(liveness)? })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.map(7);
        writer.field("Name").raw(self.alive.node.as_bytes());
        self.alive.write_rest(writer);
        writer.field("Incarnation").uint(self.alive.incarnation.into());
        writer.field("State").uint(self.liveness as u64);
    }
}

/// The message that answers a ping.
pub(crate) fn encode_ack(sequence: u32) -> Vec<u8> {
    let mut writer = Writer::new(vec![kind::ACK]);
    writer.map(2);
    writer.field("SeqNo").uint(sequence.into());
    writer.field("Payload").nil();
    writer.into_bytes()
}

/// The message that says that an indirect ping had no answer.
pub(crate) fn encode_nack(sequence: u32) -> Vec<u8> {
    let mut writer = Writer::new(vec![kind::NACK]);
    writer.map(1);
    writer.field("SeqNo").uint(sequence.into());
    writer.into_bytes()
}

/// The message that carries the user's bytes in a packet.
pub(crate) fn encode_user(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 1);
    bytes.push(kind::USER);
    bytes.extend(payload);
    bytes
}

/// The sequence number of an ack or a nack.
pub(crate) fn read_sequence(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    let mut sequence = 0;
    reader.record(|field, reader| {
        match field {
            b"SeqNo" => sequence = reader.narrow()?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(sequence)
}

impl<'a> Message<'a> {
    /// The message in `bytes`, its kind first; layers are `packet`'s.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (&head, body) = bytes.split_first().ok_or(Malformed::Short)?;
        let reader = &mut Reader::new(body);
        Ok(match head {
            kind::PING => Self::Ping(Ping::read(reader)?),
            kind::INDIRECT_PING => Self::IndirectPing(IndirectPing::read(reader)?),
            kind::ACK => Self::Ack(read_sequence(reader)?),
            kind::NACK => Self::Nack(read_sequence(reader)?),
            kind::SUSPECT => Self::Suspect(Accusation::read(reader)?),
            kind::ALIVE => Self::Alive(Alive::read(reader)?),
            kind::DEAD => Self::Dead(Accusation::read(reader)?),
            kind::USER => Self::User(body),
            _ => return Err(Malformed::Kind),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Option<Source> {
        Some(Source { address: "10.0.0.1:7946".parse().expect("an address"), name: "me".into() })
    }

    fn same(bytes: &[u8], message: Message<'_>) {
        assert_eq!(Message::decode(bytes), Ok(message));
        for cut in 1..bytes.len() {
            if bytes[0] != kind::USER {
                assert!(Message::decode(&bytes[..cut]).is_err(), "{cut} of {bytes:x?}");
            }
        }
    }

    #[test]
    fn messages_come_back_as_they_were_sent() {
        for source in [None, source()] {
            let ping = Ping { sequence: 70_000, node: "other".into(), source };
            same(&ping.encode(), Message::Ping(ping.clone()));
            let target = "[fd00::1]:7946".parse().expect("an address");
            let indirect = IndirectPing { ping, target, nack: true };
            same(&indirect.encode(), Message::IndirectPing(indirect.clone()));
        }
        let accusation = Accusation { incarnation: 3, node: "a".into(), from: "b".into() };
        same(&accusation.encode(kind::SUSPECT), Message::Suspect(accusation.clone()));
        same(&accusation.encode(kind::DEAD), Message::Dead(accusation.clone()));
        let alive = Alive {
            incarnation: 1,
            node: "0123456789ab".into(),
            address: "10.0.0.1:7946".parse().expect("an address"),
            meta: b"skep"[..].into(),
            versions: VERSIONS,
        };
        same(&alive.encode(), Message::Alive(alive.clone()));
        same(&encode_ack(5), Message::Ack(5));
        same(&encode_nack(6), Message::Nack(6));
        same(&encode_user(b"word"), Message::User(b"word"));
        let member = PushedMember { alive, liveness: Liveness::Left };
        let mut writer = Writer::default();
        member.write(&mut writer);
        assert_eq!(PushedMember::read(&mut Reader::new(&writer.into_bytes())), Ok(member));
    }

    #[test]
    fn limits_and_odd_addresses() {
        let alive = |node: &str, address: &[u8], meta: usize| {
            let mut writer = Writer::new(vec![kind::ALIVE]);
            writer.map(4);
            writer.field("Node").raw(node.as_bytes());
            writer.field("Addr").raw(address);
            writer.field("Meta").raw(&vec![1; meta]);
            writer.field("Unknown").uint(9);
            let bytes = writer.into_bytes();
            match Message::decode(&bytes) {
                Ok(Message::Alive(alive)) => Ok(alive.address),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error),
            }
        };
        let four: SocketAddr = "10.0.0.1:7946".parse().expect("an address");
        assert_eq!(alive("a", &[10, 0, 0, 1], MAX_META_BYTES), Ok(four));
        assert_eq!(alive("a", &"::ffff:10.0.0.1".parse::<Ipv6Addr>().expect("an address").octets(), 0), Ok(four));
        assert_eq!(alive("a", &[10, 0, 0], 0), Err(Malformed::Kind));
        assert_eq!(alive("a", &[10, 0, 0, 1], MAX_META_BYTES + 1), Err(Malformed::Limit));
        assert_eq!(alive(&"n".repeat(MAX_NAME_BYTES), &[10, 0, 0, 1], 0), Ok(four));
        assert_eq!(alive(&"n".repeat(MAX_NAME_BYTES + 1), &[10, 0, 0, 1], 0), Err(Malformed::Limit));
    }
}
