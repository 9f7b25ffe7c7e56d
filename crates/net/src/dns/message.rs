//! DNS messages, as far as a name server needs them that forwards what it does not know: one question is read, address
//! and pointer records are written, and what other servers answer is passed on as it came. RFC 1035, 3596, 6891.
//!
//! Everything read here comes from containers and from the world: any bytes may come.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

/// Bytes of the fixed head of a message.
pub(super) const HEADER_BYTES: usize = 12;
/// What everyone can take in a datagram.
const PLAIN_UDP_BYTES: usize = 512;
/// What we take in a datagram, as told to those who ask.
const OWN_UDP_BYTES: u16 = 4096;
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: usize = 63;
/// How long answers may be kept, as dockerd says.
const TTL_SECONDS: u32 = 600;
/// A name that is the one at the start of the question.
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER_BYTES as u8];
/// A record without its data: pointer to the name, type, class, lifetime, length.
const RECORD_HEAD_BYTES: usize = 12;
/// An OPT record: the root's name, type, size, flags, no options.
const OPT_BYTES: usize = 11;

/// Codes of answers.
pub(super) mod code {
    pub(in crate::dns) const NO_ERROR: u8 = 0;
    pub(in crate::dns) const FORMAT_ERROR: u8 = 1;
    pub(in crate::dns) const SERVER_FAILURE: u8 = 2;
    pub(in crate::dns) const NOT_IMPLEMENTED: u8 = 4;
    pub(in crate::dns) const REFUSED: u8 = 5;
}

/// Types of records.
pub(super) mod kind {
    pub(in crate::dns) const A: u16 = 1;
    pub(in crate::dns) const PTR: u16 = 12;
    pub(in crate::dns) const AAAA: u16 = 28;
    pub(in crate::dns) const OPT: u16 = 41;
}

/// Classes of records.
pub(super) mod class {
    pub(in crate::dns) const IN: u16 = 1;
    pub(in crate::dns) const ANY: u16 = 255;
}

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// A question that can be answered or passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// The message, without anything behind its last record.
    bytes: Vec<u8>,
    /// Where the question's name ends and its type begins.
    name_end: usize,
    /// The name in lower case without the last dot; `None` if its labels cannot be told apart in it.
    pub(super) name: Option<String>,
    pub(super) kind: u16,
    pub(super) class: u16,
    /// How much the asker takes in a datagram, if it said so (EDNS).
    udp_bytes: Option<u16>,
}

/// Bytes that are no question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Nothing to be said: too short, or itself an answer.
    Ignored,
    /// This has to be said.
    Answered(Vec<u8>),
}

impl Query {
    /// Reads a message. What a server does not take is what dockerd's does not take.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unread> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(Unread::Ignored)?;
        if header[2] & 0x80 != 0 {
            return Err(Unread::Ignored);
        }
        if header[2] & 0x78 != 0 {
            return Err(Unread::Answered(bare_header(header, code::NOT_IMPLEMENTED).to_vec()));
        }
        Self::read_body(bytes, header).ok_or_else(|| Unread::Answered(bare_header(header, code::FORMAT_ERROR).to_vec()))
    }

    fn read_body(bytes: &[u8], header: &[u8; HEADER_BYTES]) -> Option<Self> {
        let counts: [u16; 4] = std::array::from_fn(|i| u16::from_be_bytes([header[4 + 2 * i], header[5 + 2 * i]]));
        let [questions, answers, authorities, additions] = counts;
        if questions != 1 || answers > 1 || authorities > 1 || additions > 2 {
            return None;
        }
        let name_end = skip_name(bytes, HEADER_BYTES, Pointers::Forbidden)?;
        let (kind, class) = (u16_at(bytes, name_end)?, u16_at(bytes, name_end + 2)?);
        let mut at = name_end + 4;
        let mut udp_bytes = None;
        for _ in 0..answers + authorities + additions {
            at = skip_name(bytes, at, Pointers::Allowed)?;
            if u16_at(bytes, at)? == kind::OPT {
                udp_bytes = Some(u16_at(bytes, at + 2)?);
            }
            at += 10 + usize::from(u16_at(bytes, at + 8)?);
        }
        let name = text(bytes.get(HEADER_BYTES..name_end)?);
        Some(Self { bytes: bytes.get(..at)?.to_vec(), name_end, name, kind, class, udp_bytes })
    }

    /// The message for another server, under a number of our own.
    pub(super) fn forwarded(&self, id: u16) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        bytes
    }

    /// Whether `bytes` answer what was [forwarded](Self::forwarded) under `id`.
    pub(super) fn is_answered_by(&self, id: u16, bytes: &[u8]) -> bool {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return false };
        if header[..2] != id.to_be_bytes() || header[2] & 0x80 == 0 {
            return false;
        }
        match u16::from_be_bytes([header[4], header[5]]) {
            // some refuse without saying what
            0 => rcode(bytes) != code::NO_ERROR && header[6..] == [0; 6],
            1 => bytes.get(self.question()).is_some_and(|question| {
                let (name, rest) = question.split_at(self.name_end - HEADER_BYTES);
                let (own_name, own_rest) = self.bytes[self.question()].split_at(self.name_end - HEADER_BYTES);
                // lengths of labels are below 'A'
                name.eq_ignore_ascii_case(own_name) && rest == own_rest
            }),
            _ => false,
        }
    }

    /// Another server's answer, under the asker's number.
    pub(super) fn returned(&self, mut answer: Vec<u8>) -> Vec<u8> {
        answer[..2].copy_from_slice(&self.bytes[..2]);
        answer
    }

    /// An answer without records.
    pub(super) fn empty_answer(&self, code: u8) -> Vec<u8> {
        self.answer(code, &[])
    }

    /// An answer with as many of `records` as there is room for; it says so if some are left out.
    pub(super) fn answer_with(&self, records: &[Record], transport: Transport) -> Vec<u8> {
        let room = match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => self.udp_bytes.map_or(0, usize::from).max(PLAIN_UDP_BYTES),
        };
        let mut left = room.saturating_sub(self.question().end + if self.udp_bytes.is_some() { OPT_BYTES } else { 0 });
        let fitting = records.iter().take_while(|record| {
            let rest = left.checked_sub(record.len());
            left = rest.unwrap_or(0);
            rest.is_some()
        });
        let fitting = fitting.count();
        let mut bytes = self.answer(code::NO_ERROR, &records[..fitting]);
        if fitting < records.len() {
            bytes[2] |= 0x02;
        }
        bytes
    }

    fn answer(&self, code: u8, records: &[Record]) -> Vec<u8> {
        let header = self.bytes.first_chunk().expect("a query has a header");
        let question = &self.bytes[self.question()];
        let records_len: usize = records.iter().map(Record::len).sum();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + question.len() + records_len + OPT_BYTES);
        bytes.extend_from_slice(&bare_header(header, code));
        bytes[5] = 1;
        let count = u16::try_from(records.len()).expect("fewer records than bytes of a message");
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(question);
        records.iter().for_each(|record| record.write(&mut bytes));
        if self.udp_bytes.is_some() {
            bytes[11] = 1;
            bytes.push(0);
            bytes.extend_from_slice(&kind::OPT.to_be_bytes());
            bytes.extend_from_slice(&OWN_UDP_BYTES.to_be_bytes());
            bytes.extend_from_slice(&[0; 6]);
        }
        bytes
    }

    fn question(&self) -> Range<usize> {
        HEADER_BYTES..self.name_end + 4
    }
}

/// The code of an answer that has a header.
pub(super) fn rcode(answer: &[u8]) -> u8 {
    answer[3] & 0x0f
}

/// The header of an answer that does not even repeat the question.
fn bare_header(header: &[u8; HEADER_BYTES], code: u8) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..2].copy_from_slice(&header[..2]);
    // an answer; the kind of request and "recursion desired" as asked
    bytes[2] = 0x80 | (header[2] & 0x79);
    // recursion is to be had; "checking disabled" as asked
    bytes[3] = 0x80 | (header[3] & 0x10) | code;
    bytes
}

/// A record under the question's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    /// A name as it stands in a message.
    Pointer(Vec<u8>),
}

impl Record {
    /// The record of a name; `None` if it is none.
    pub(super) fn pointer(name: &str) -> Option<Self> {
        let mut data = Vec::with_capacity(name.len() + 2);
        for label in name.split('.') {
            let len = u8::try_from(label.len()).ok().filter(|len| (1..=LONGEST_LABEL).contains(&usize::from(*len)))?;
            data.push(len);
            data.extend_from_slice(label.as_bytes());
        }
        data.push(0);
        (data.len() <= LONGEST_NAME).then_some(Self::Pointer(data))
    }

    fn len(&self) -> usize {
        RECORD_HEAD_BYTES
            + match self {
                Self::Address(IpAddr::V4(_)) => 4,
                Self::Address(IpAddr::V6(_)) => 16,
                Self::Pointer(name) => name.len(),
            }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let mut write = |kind: u16, data: &[u8]| {
            let len = u16::try_from(data.len()).expect("an address or a name");
            bytes.extend_from_slice(&QUESTION_NAME);
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&class::IN.to_be_bytes());
            bytes.extend_from_slice(&TTL_SECONDS.to_be_bytes());
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(data);
        };
        match self {
            Self::Address(IpAddr::V4(address)) => write(kind::A, &address.octets()),
            Self::Address(IpAddr::V6(address)) => write(kind::AAAA, &address.octets()),
            Self::Pointer(name) => write(kind::PTR, name),
        }
    }
}

/// Whether a name may end in a pointer to another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pointers {
    Allowed,
    /// In the question: there is nothing before it that could be pointed to.
    Forbidden,
}

/// Where the name at `at` ends.
fn skip_name(bytes: &[u8], mut at: usize, pointers: Pointers) -> Option<usize> {
    let start = at;
    loop {
        let len = usize::from(*bytes.get(at)?);
        at += 1;
        match len {
            0 => break,
            1..=LONGEST_LABEL => at += len,
            0xc0.. if pointers == Pointers::Allowed => {
                at += 1;
                break;
            }
            _ => return None,
        }
        // the root's byte counts, too
        if at - start >= LONGEST_NAME {
            return None;
        }
    }
    Some(at)
}

/// The labels of a name, in lower case with dots between them.
fn text(mut name: &[u8]) -> Option<String> {
    let mut text = Vec::with_capacity(name.len());
    while let Some((len, rest)) = name.split_first().filter(|(len, _)| **len > 0) {
        let (label, rest) = rest.split_at_checked(usize::from(*len))?;
        if label.contains(&b'.') {
            return None;
        }
        if !text.is_empty() {
            text.push(b'.');
        }
        text.extend_from_slice(label);
        name = rest;
    }
    text.make_ascii_lowercase();
    String::from_utf8(text).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_be_bytes(*two))
}

/// The address that a lower-case name of `in-addr.arpa` or `ip6.arpa` stands for.
pub(super) fn reversed_address(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut bytes = [0u8; 4];
        let mut labels = labels.split('.');
        for byte in bytes.iter_mut().rev() {
            let label = labels.next()?;
            // no leading zeros or signs: an address has one reverse name
            *byte = label.parse().ok().filter(|byte: &u8| byte.to_string() == label)?;
        }
        return labels.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(bytes)));
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut address = 0u128;
    let mut count = 0;
    for label in labels.split('.') {
        let digit = label.chars().next().filter(|_| label.len() == 1)?.to_digit(16)?;
        address = (address >> 4) | (u128::from(digit) << 124);
        count += 1;
    }
    (count == 32).then(|| IpAddr::V6(address.into()))
}

#[cfg(test)]
mod tests;
