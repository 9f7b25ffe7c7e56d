//! A packet's layers: several messages make a compound one, that is compressed if it gets smaller, gets a checksum if the
//! receiver knows them, and is sealed. Opening goes the other way, with a budget for all that nested layers hold.

use crate::limits::{MAX_PACKET_BYTES, MAX_PACKET_DEPTH, MAX_PACKET_MESSAGES, MAX_UNPACKED_PACKET_BYTES, PACKET_BYTES};
use crate::lzw;
use crate::message::kind;
use crate::seal::{self, Entropy, Keyring};

/// What a compound message adds before its first part, and per part.
pub(crate) const COMPOUND_HEAD: usize = 2;
pub(crate) const COMPOUND_PART: usize = 2;
/// Parts of one compound message: its count is a byte.
const MAX_PARTS: usize = 255;
/// The kind and the checksum.
const CRC_BYTES: usize = 5;
/// The byte that a packet with a label would begin with; dockerd uses none.
const LABEL: u8 = 244;

/// Why a packet or a stream's message was thrown away.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Refused {
    /// Larger than the protocol allows.
    TooLarge,
    /// No key of ours opens it, or it is not sealed though it must be.
    Unopened,
    /// Its checksum is of other bytes.
    Checksum,
    /// It carries a label: another cluster's.
    Label,
    /// It is no message.
    Malformed,
    /// It unpacks to more than a limit.
    Limit,
}

/// What sealing a packet needs.
pub(crate) struct Sealing<'a> {
    pub(crate) keyring: &'a Keyring,
    pub(crate) entropy: &'a mut dyn Entropy,
    pub(crate) compression: bool,
}

/// One message out of `parts`, which are not empty.
pub(crate) fn compound(parts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    if let [only] = parts {
        return only.as_ref().to_vec();
    }
    debug_assert!(parts.len() <= MAX_PARTS, "callers fill one packet, which holds fewer");
    let mut message = vec![kind::COMPOUND, parts.len() as u8];
    for part in parts {
        message.extend((part.as_ref().len() as u16).to_be_bytes());
    }
    for part in parts {
        message.extend(part.as_ref());
    }
    message
}

/// How many bytes messages may take in a packet of `packet_bytes`, after what the layers add.
pub(crate) fn room(packet_bytes: usize, sealed: bool) -> usize {
    packet_bytes.saturating_sub(COMPOUND_HEAD + if sealed { seal::OVERHEAD } else { 0 })
}

/// What the layers add to a message that is not compressed.
pub(crate) fn layers(takes_crc: bool, sealed: bool) -> usize {
    let crc = if takes_crc { CRC_BYTES } else { 0 };
    crc + if sealed { seal::OVERHEAD } else { 0 }
}

/// The packet that carries `message`; with a checksum if the receiver `takes_crc`.
pub(crate) fn pack(sealing: Sealing<'_>, message: &[u8], takes_crc: bool) -> Vec<u8> {
    let packed = if sealing.compression { lzw::compress(message) } else { None };
    let message = packed.as_deref().filter(|packed| packed.len() < message.len()).unwrap_or(message);
    let mut plain = Vec::with_capacity(PACKET_BYTES);
    if takes_crc {
        plain.push(kind::HAS_CRC);
        plain.extend(crc32fast::hash(message).to_be_bytes());
    }
    plain.extend(message);
    if !sealing.keyring.is_active() {
        return plain;
    }
    let mut packet = Vec::with_capacity(plain.len() + seal::OVERHEAD);
    sealing.keyring.seal(sealing.entropy, &plain, b"", &mut packet);
    packet
}

/// The messages in `packet`, their kinds first. Parts that cannot be unpacked are left out and the reason given beside.
pub(crate) fn open(keyring: &Keyring, packet: &[u8]) -> (Vec<Vec<u8>>, Option<Refused>) {
    let mut unpacked = Unpacked { messages: Vec::new(), budget: MAX_UNPACKED_PACKET_BYTES };
    let refused = open_sealed(keyring, packet, &mut unpacked).err();
    (unpacked.messages, refused)
}

fn open_sealed(keyring: &Keyring, packet: &[u8], unpacked: &mut Unpacked) -> Result<(), Refused> {
    if packet.len() > MAX_PACKET_BYTES {
        return Err(Refused::TooLarge);
    }
    if packet.first() == Some(&LABEL) {
        return Err(Refused::Label);
    }
    let opened;
    let mut plain = packet;
    if keyring.is_active() {
        opened = keyring.open(packet, b"").ok_or(Refused::Unopened)?;
        plain = &opened;
    }
    if let Some((head, message)) = plain.split_first_chunk::<CRC_BYTES>()
        && head[0] == kind::HAS_CRC
    {
        if head[1..] != crc32fast::hash(message).to_be_bytes() {
            return Err(Refused::Checksum);
        }
        plain = message;
    }
    unpacked.layer(plain, MAX_PACKET_DEPTH)
}

struct Unpacked {
    messages: Vec<Vec<u8>>,
    /// Bytes that may still be unpacked, so that nested layers cannot multiply.
    budget: usize,
}

impl Unpacked {
    fn layer(&mut self, message: &[u8], depth: usize) -> Result<(), Refused> {
        let (&head, body) = message.split_first().ok_or(Refused::Malformed)?;
        let within = depth.checked_sub(1).ok_or(Refused::Limit);
        match head {
            kind::COMPOUND => self.parts(body, within?),
            kind::COMPRESS => {
                let within = within?;
                let inner = lzw::decompress(body, self.budget).map_err(|error| match error {
                    crate::msgpack::Malformed::Limit => Refused::Limit,
                    _ => Refused::Malformed,
                })?;
                self.budget -= inner.len();
                self.layer(&inner, within)
            }
            _ if self.messages.len() >= MAX_PACKET_MESSAGES => Err(Refused::Limit),
            _ => {
                self.messages.push(message.to_vec());
                Ok(())
            }
        }
    }

    fn parts(&mut self, body: &[u8], depth: usize) -> Result<(), Refused> {
        let (&count, rest) = body.split_first().ok_or(Refused::Malformed)?;
        let (lengths, mut rest) = rest.split_at_checked(2 * usize::from(count)).ok_or(Refused::Malformed)?;
        let mut refused = None;
        for length in lengths.as_chunks::<2>().0 {
            let (part, after) = rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(Refused::Malformed)?;
            rest = after;
            refused = self.layer(part, depth).err().or(refused);
        }
        refused.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        Keyring::new(&[vec![1; 16]], 0).expect("a key")
    }

    fn packed(keyring: &Keyring, message: &[u8], compression: bool, takes_crc: bool) -> Vec<u8> {
        pack(Sealing { keyring, entropy: &mut stdx::Rng::new(1), compression }, message, takes_crc)
    }

    #[test]
    fn every_combination_of_layers_opens() {
        let message = compound(&[[3, 1].to_vec(), [8; 300].to_vec()]);
        for keyring in [keyring(), Keyring::default()] {
            for compression in [false, true] {
                for takes_crc in [false, true] {
                    let packet = packed(&keyring, &message, compression, takes_crc);
                    let messages = vec![[3, 1].to_vec(), [8; 300].to_vec()];
                    assert_eq!(open(&keyring, &packet), (messages, None));
                }
            }
        }
    }

    #[test]
    fn what_must_be_refused_is() {
        let check = |keyring: &Keyring, packet: &[u8], expected| assert_eq!(open(keyring, packet).1, Some(expected));
        let (key, none) = (keyring(), Keyring::default());
        let packet = packed(&key, &[8, 1], false, true);
        let other = Keyring::new(&[vec![2; 16]], 0).expect("a key");
        check(&other, &packet, Refused::Unopened);
        check(&key, &[8, 1], Refused::Unopened);
        check(&key, &[], Refused::Unopened);
        for at in 0..packet.len() {
            let mut bent = packet.clone();
            bent[at] ^= 1;
            assert!(open(&key, &bent).1.is_some(), "byte {at}");
        }
        check(&none, &[], Refused::Malformed);
        check(&none, &[12, 0, 0, 0, 0, 8], Refused::Checksum);
        check(&none, &[LABEL, 1, b'x', 8], Refused::Label);
        check(&none, &vec![8; MAX_PACKET_BYTES + 1], Refused::TooLarge);
        check(&none, &[7, 2, 0, 1, 0, 9, 8], Refused::Malformed);
        check(&none, &[7], Refused::Malformed);
        let bomb = lzw::compress(&vec![8; 2_000_000]).expect("packed");
        check(&none, &bomb, Refused::Limit);
    }

    #[test]
    fn nested_layers_share_depth_and_budget() {
        let mut nested = vec![8, 1];
        for depth in 1..=MAX_PACKET_DEPTH + 1 {
            nested = compound(&[&nested[..], &[8]]);
            let refused = open(&Keyring::default(), &nested).1;
            assert_eq!(refused, (depth > MAX_PACKET_DEPTH).then_some(Refused::Limit), "{depth}");
        }
        // Each part alone is within the budget, all of them are not.
        let part = lzw::compress(&vec![8; MAX_UNPACKED_PACKET_BYTES / 2]).expect("packed");
        let (messages, refused) = open(&Keyring::default(), &compound(&[&part[..], &part, &part]));
        assert_eq!((messages.len(), refused), (2, Some(Refused::Limit)));
        let many = vec![[8_u8]; 200];
        let (messages, refused) = open(&Keyring::default(), &compound(&vec![compound(&many); 6]));
        assert_eq!((messages.len(), refused), (MAX_PACKET_MESSAGES, Some(Refused::Limit)));
    }
}
