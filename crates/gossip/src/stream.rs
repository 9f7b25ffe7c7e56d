//! Messages of streams: one message each way at most. `Framer` finds a message's end in the bytes of a stream, however they
//! are cut; `seal` and `open` are the layers; `StreamMessage` is what is inside.

use crate::limits::{MAX_MEMBERS, MAX_STREAM_BYTES, MAX_UNPACKED_STREAM_BYTES};
use crate::lzw;
use crate::message::{Ping, PushedMember, kind, read_sequence};
use crate::msgpack::{Malformed, Reader, Writer};
use crate::packet::{Refused, Sealing};
use crate::seal::{self, Keyring};

/// The kind and the length in front of a sealed message, which are its additional data, too.
const SEALED_HEAD: usize = 5;
/// The largest record of a stream: a member with its name and meta data.
const MAX_RECORD_BYTES: usize = 4096;

/// What a stream carries.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum StreamMessage<'a> {
    Ping(Ping),
    Ack(u32),
    PushPull(PushPull<'a>),
    User(&'a [u8]),
    /// The peer says why it refuses.
    Error(String),
}

/// A member's whole knowledge.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct PushPull<'a> {
    pub(crate) join: bool,
    pub(crate) members: Vec<PushedMember>,
    pub(crate) user: &'a [u8],
}

impl PushPull<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(vec![kind::PUSH_PULL]);
        writer.map(3);
        writer.field("Nodes").uint(self.members.len() as u64);
        writer.field("UserStateLen").uint(self.user.len() as u64);
        writer.field("Join").bool(self.join);
        for member in &self.members {
            member.write(&mut writer);
        }
        let mut bytes = writer.into_bytes();
        bytes.extend(self.user);
        bytes
    }
}

/// The message that carries the user's bytes over a stream.
pub(crate) fn encode_user(payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(vec![kind::USER]);
    writer.map(1);
    writer.field("UserMsgLen").uint(payload.len() as u64);
    let mut bytes = writer.into_bytes();
    bytes.extend(payload);
    bytes
}

/// The message of which the reader has taken the kind: a push/pull's head.
struct PushPullHead {
    members: usize,
    user: usize,
    join: bool,
}

impl PushPullHead {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut head = Self { members: 0, user: 0, join: false };
        reader.record(|field, reader| {
            match field {
                b"Nodes" => head.members = reader.narrow()?,
                b"UserStateLen" => head.user = reader.narrow()?,
                b"Join" => head.join = reader.bool()?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        if head.members > MAX_MEMBERS || head.user > MAX_STREAM_BYTES {
            return Err(Malformed::Limit);
        }
        Ok(head)
    }
}

fn read_user_length(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    let mut length = 0;
    reader.record(|field, reader| {
        match field {
            b"UserMsgLen" => length = reader.narrow()?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    if length > MAX_STREAM_BYTES { Err(Malformed::Limit) } else { Ok(length) }
}

impl<'a> StreamMessage<'a> {
    /// The message in `bytes`, which hold nothing else.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (&head, body) = bytes.split_first().ok_or(Malformed::Short)?;
        let reader = &mut Reader::new(body);
        Ok(match head {
            kind::PING => Self::Ping(Ping::read(reader)?),
            kind::ACK => Self::Ack(read_sequence(reader)?),
            kind::USER => {
                let length = read_user_length(reader)?;
                Self::User(reader.rest().get(..length).ok_or(Malformed::Short)?)
            }
            kind::PUSH_PULL => {
                let head = PushPullHead::read(reader)?;
                let members = (0..head.members).map(|_| PushedMember::read(reader)).collect::<Result<_, _>>()?;
                let user = reader.rest().get(..head.user).ok_or(Malformed::Short)?;
                Self::PushPull(PushPull { join: head.join, members, user })
            }
            kind::ERROR => {
                let mut text = &[][..];
                reader.record(|field, reader| {
                    match field {
                        b"Error" => text = reader.raw()?,
                        _ => reader.skip()?,
                    }
                    Ok(())
                })?;
                Self::Error(String::from_utf8_lossy(text.get(..256).unwrap_or(text)).into_owned())
            }
            _ => return Err(Malformed::Kind),
        })
    }
}

/// The bytes on the wire for `message`.
pub(crate) fn seal(sealing: Sealing<'_>, message: &[u8]) -> Result<Vec<u8>, Refused> {
    let packed = if sealing.compression { lzw::compress(message) } else { None };
    // memberlist compresses whatever the size and reads both; a message that grows is left as it is.
    let message = packed.as_deref().filter(|packed| packed.len() < message.len()).unwrap_or(message);
    if message.len() + seal::OVERHEAD > MAX_STREAM_BYTES {
        return Err(Refused::TooLarge);
    }
    if !sealing.keyring.is_active() {
        return Ok(message.to_vec());
    }
    let mut head = [kind::ENCRYPT; SEALED_HEAD];
    head[1..].copy_from_slice(&((message.len() + seal::OVERHEAD) as u32).to_be_bytes());
    let mut bytes = Vec::with_capacity(SEALED_HEAD + message.len() + seal::OVERHEAD);
    bytes.extend(head);
    sealing.keyring.seal(sealing.entropy, message, &head, &mut bytes);
    Ok(bytes)
}

/// The message inside one whole frame.
pub(crate) fn open(keyring: &Keyring, frame: &[u8]) -> Result<Vec<u8>, Refused> {
    let message = match frame.split_first_chunk::<SEALED_HEAD>() {
        Some((head, sealed)) if head[0] == kind::ENCRYPT => keyring.open(sealed, head).ok_or(Refused::Unopened)?,
        _ if keyring.is_active() => return Err(Refused::Unopened),
        _ => frame.to_vec(),
    };
    match message.split_first() {
        Some((&kind::COMPRESS, record)) => {
            lzw::decompress(record, MAX_UNPACKED_STREAM_BYTES).map_err(|error| match error {
                Malformed::Limit => Refused::Limit,
                _ => Refused::Malformed,
            })
        }
        _ => Ok(message),
    }
}

/// Where a stream's message ends, found while its bytes come in. It looks at each byte a few times at most and holds no
/// more than was received, so a length that a peer merely claims costs nothing.
#[derive(Debug)]
pub struct Framer {
    secrecy: Secrecy,
    bytes: Vec<u8>,
    /// Everything before it is understood.
    at: usize,
    stage: Stage,
}

/// Whether messages must be sealed: they must as soon as there are keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Secrecy {
    /// Anything but a sealed message is refused by its first byte.
    Sealed,
    /// There are no keys.
    Clear,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Kind,
    /// One small record, then the end.
    Record,
    /// One compressed layer, then the end.
    Compressed,
    PushPullHead,
    UserHead,
    Members {
        left: usize,
        user: usize,
    },
    /// So many bytes, then the end.
    Raw(usize),
    Done,
}

impl Framer {
    /// A framer at the beginning of a stream.
    pub fn new(secrecy: Secrecy) -> Self {
        Self { secrecy, bytes: Vec::new(), at: 0, stage: Stage::Kind }
    }

    /// Bytes held.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what came in; whether the message is whole now. What follows it is not looked at.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, Refused> {
        if self.bytes.len() + bytes.len() > MAX_STREAM_BYTES + SEALED_HEAD {
            return Err(Refused::TooLarge);
        }
        self.bytes.extend(bytes);
        while self.stage != Stage::Done {
            match self.step() {
                Ok(()) => {}
                // A record is read from its beginning every time, so it must be small.
                Err(Malformed::Short) if self.in_record() && self.bytes.len() - self.at > MAX_RECORD_BYTES => {
                    return Err(Refused::TooLarge);
                }
                Err(Malformed::Short) => return Ok(false),
                Err(Malformed::Limit) => return Err(Refused::TooLarge),
                Err(Malformed::Kind) => return Err(Refused::Malformed),
            }
        }
        Ok(true)
    }

    /// The whole message.
    pub fn into_message(mut self) -> Vec<u8> {
        self.bytes.truncate(self.at);
        self.bytes
    }

    fn in_record(&self) -> bool {
        !matches!(self.stage, Stage::Raw(_) | Stage::Compressed)
    }

    fn step(&mut self) -> Result<(), Malformed> {
        let rest = &self.bytes[self.at..];
        let mut reader = Reader::new(rest);
        let next = match self.stage {
            Stage::Kind => return self.kind(),
            Stage::Record => {
                reader.skip()?;
                Stage::Done
            }
            Stage::Compressed => {
                lzw::skip(&mut reader)?;
                Stage::Done
            }
            Stage::PushPullHead => {
                let head = PushPullHead::read(&mut reader)?;
                Stage::Members { left: head.members, user: head.user }
            }
            Stage::UserHead => Stage::Raw(read_user_length(&mut reader)?),
            Stage::Members { left: 0, user } => Stage::Raw(user),
            Stage::Members { left, user } => {
                reader.skip()?;
                Stage::Members { left: left - 1, user }
            }
            Stage::Raw(length) => {
                reader = Reader::new(rest.get(length..).ok_or(Malformed::Short)?);
                Stage::Done
            }
            Stage::Done => Stage::Done,
        };
        self.at += rest.len() - reader.rest().len();
        self.stage = next;
        Ok(())
    }

    fn kind(&mut self) -> Result<(), Malformed> {
        let head = *self.bytes.get(self.at).ok_or(Malformed::Short)?;
        let mut length = 1;
        self.stage = match head {
            kind::ENCRYPT => {
                let size = self.bytes.get(self.at + 1..self.at + SEALED_HEAD).ok_or(Malformed::Short)?;
                let size = size.iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
                if size > MAX_STREAM_BYTES {
                    return Err(Malformed::Limit);
                }
                length = SEALED_HEAD;
                Stage::Raw(size)
            }
            _ if self.secrecy == Secrecy::Sealed => return Err(Malformed::Kind),
            kind::PUSH_PULL => Stage::PushPullHead,
            kind::USER => Stage::UserHead,
            kind::PING | kind::ACK | kind::ERROR => Stage::Record,
            kind::COMPRESS => Stage::Compressed,
            _ => return Err(Malformed::Kind),
        };
        self.at += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Alive, Liveness, VERSIONS, encode_ack};

    fn push_pull(count: usize) -> Vec<u8> {
        let members = (0..count)
            .map(|number| PushedMember {
                alive: Alive {
                    incarnation: 1,
                    node: format!("node-{number}").as_str().into(),
                    address: ([10, 0, 0, 1], 7946).into(),
                    meta: [][..].into(),
                    versions: VERSIONS,
                },
                liveness: Liveness::Alive,
            })
            .collect();
        PushPull { join: true, members, user: b"state" }.encode()
    }

    fn sealed(keyring: &Keyring, message: &[u8], compression: bool) -> Vec<u8> {
        seal(Sealing { keyring, entropy: &mut stdx::Rng::new(1), compression }, message).expect("small")
    }

    #[test]
    fn a_frame_is_found_however_it_is_cut_and_opens_again() {
        let keyring = Keyring::new(&[vec![1; 16]], 0).expect("a key");
        for message in [push_pull(0), push_pull(3), encode_user(b"word"), encode_user(b""), encode_ack(7)] {
            for (keyring, secrecy) in [(&keyring, Secrecy::Sealed), (&Keyring::default(), Secrecy::Clear)] {
                for compression in [false, true] {
                    let frame = sealed(keyring, &message, compression);
                    for step in [1, 3, frame.len()] {
                        let mut framer = Framer::new(secrecy);
                        let mut done = false;
                        for part in frame.chunks(step) {
                            assert!(!done, "before its end");
                            done = framer.push(part).expect("a frame");
                        }
                        assert!(done, "at its end");
                        assert_eq!(framer.push(b"more"), Ok(true));
                        let found = framer.into_message();
                        assert_eq!(found, frame);
                        assert_eq!(open(keyring, &found).as_deref(), Ok(message.as_slice()));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_frame_or_too_large_is_refused() {
        let check = |bytes: &[u8], expected| {
            assert_eq!(Framer::new(Secrecy::Clear).push(bytes), Err(expected), "{} bytes", bytes.len());
        };
        check(&[99], Refused::Malformed);
        assert_eq!(Framer::new(Secrecy::Sealed).push(&[kind::PING]), Err(Refused::Malformed));
        // A record that never ends.
        check(
            &[&[kind::PING, 0xdf, 0xff, 0xff, 0xff, 0xff][..], &vec![1; MAX_RECORD_BYTES]].concat(),
            Refused::TooLarge,
        );
        check(&[kind::COMPRESS, 0x81, 0xa1, b'x', 1], Refused::Malformed);
        check(&[kind::ENCRYPT, 0xff, 0xff, 0xff, 0xff], Refused::TooLarge);
        let length = (MAX_STREAM_BYTES as u32 + 1).to_be_bytes();
        check(&[&[kind::ENCRYPT][..], &length].concat(), Refused::TooLarge);
        let mut writer = Writer::new(vec![kind::PUSH_PULL]);
        writer.map(1).field("Nodes").uint(MAX_MEMBERS as u64 + 1);
        check(&writer.into_bytes(), Refused::TooLarge);
        let mut writer = Writer::new(vec![kind::USER]);
        writer.map(1).field("UserMsgLen").uint(MAX_STREAM_BYTES as u64 + 1);
        check(&writer.into_bytes(), Refused::TooLarge);
        let keyring = Keyring::new(&[vec![1; 16]], 0).expect("a key");
        assert_eq!(open(&keyring, &encode_ack(1)), Err(Refused::Unopened));
        assert_eq!(open(&Keyring::default(), &sealed(&keyring, &encode_ack(1), true)), Err(Refused::Unopened));
        let mut bent = sealed(&keyring, &encode_ack(1), false);
        bent[4] ^= 1;
        assert_eq!(open(&keyring, &bent), Err(Refused::Unopened));
    }

    #[test]
    fn a_push_pull_comes_back() {
        let bytes = push_pull(2);
        let Ok(StreamMessage::PushPull(found)) = StreamMessage::decode(&bytes) else { panic!("a push/pull") };
        assert_eq!((found.join, found.members.len(), found.user), (true, 2, &b"state"[..]));
        assert_eq!(StreamMessage::decode(&encode_user(b"word")), Ok(StreamMessage::User(b"word")));
        assert_eq!(StreamMessage::decode(&encode_user(b"word")[..12]), Err(Malformed::Short));
    }
}
