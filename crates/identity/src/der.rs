//! Writes the little DER that certificates and requests are made of. Pure; lengths are those of what is passed in.
//!
//! Certificates are put together here and not with a library because names must be carried over byte for byte: a chain
//! is built by comparing the issuer's encoded name, and an imported CA may encode its own in any of several string types.

use time::OffsetDateTime;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// Any element: tag, length, content.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let skip = bytes.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (bytes.len() - skip) as u8);
        out.extend_from_slice(&bytes[skip..]);
    }
    out.extend_from_slice(content);
    out
}

/// A SEQUENCE of encoded elements.
pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &parts.concat())
}

/// A SET of one encoded element.
pub(crate) fn set(part: &[u8]) -> Vec<u8> {
    element(SET, part)
}

/// An explicitly tagged element.
pub(crate) fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    element(0xa0 | number, content)
}

/// An implicitly tagged primitive element.
pub(crate) fn implicit(number: u8, content: &[u8]) -> Vec<u8> {
    element(0x80 | number, content)
}

/// TRUE.
pub(crate) fn yes() -> Vec<u8> {
    element(BOOLEAN, &[0xff])
}

/// A non-negative INTEGER from big-endian bytes.
pub(crate) fn integer(bytes: &[u8]) -> Vec<u8> {
    let skip = bytes.iter().take_while(|byte| **byte == 0).count().min(bytes.len().saturating_sub(1));
    let mut content = bytes[skip..].to_vec();
    if content.first().is_none_or(|byte| byte & 0x80 != 0) {
        content.insert(0, 0);
    }
    element(INTEGER, &content)
}

/// A BIT STRING of whole bytes.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    bits(bytes, 0)
}

/// A BIT STRING whose last byte has unused bits.
pub(crate) fn bits(bytes: &[u8], unused: u8) -> Vec<u8> {
    element(BIT_STRING, &[&[unused], bytes].concat())
}

/// An OCTET STRING.
pub(crate) fn octets(bytes: &[u8]) -> Vec<u8> {
    element(OCTET_STRING, bytes)
}

/// An OBJECT IDENTIFIER from its encoded content.
pub(crate) fn oid(content: &[u8]) -> Vec<u8> {
    element(OID, content)
}

/// A string: PrintableString where the alphabet allows it, as Go does, else UTF8String.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let printable = |byte: u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte);
    let tag = if text.bytes().all(printable) { PRINTABLE_STRING } else { UTF8_STRING };
    element(tag, text.as_bytes())
}

/// A time: UTCTime until 2049, GeneralizedTime after.
pub(crate) fn time(unix_seconds: i64) -> Vec<u8> {
    let at = OffsetDateTime::from_unix_timestamp(unix_seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let rest =
        format!("{:02}{:02}{:02}{:02}{:02}Z", u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second());
    match at.year() {
        year @ 1950..=2049 => element(UTC_TIME, format!("{:02}{rest}", year % 100).as_bytes()),
        year => element(GENERALIZED_TIME, format!("{year:04}{rest}").as_bytes()),
    }
}

/// An element that was read.
pub(crate) struct Element<'a> {
    /// Its tag.
    pub(crate) tag: u8,
    /// Its content.
    pub(crate) content: &'a [u8],
    /// Tag, length and content.
    pub(crate) raw: &'a [u8],
}

/// Reads the next element, with low tag numbers and definite lengths only; what follows it is the second part.
pub(crate) fn read(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((Element { tag, content, raw: &input[..input.len() - after.len()] }, after))
}

/// Reads the elements of a SEQUENCE that is the whole input.
pub(crate) fn read_sequence(input: &[u8]) -> Option<Vec<Element<'_>>> {
    let (outer, after) = read(input)?;
    if outer.tag != SEQUENCE || !after.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    let mut rest = outer.content;
    while !rest.is_empty() {
        let (part, after) = read(rest)?;
        parts.push(part);
        rest = after;
    }
    Some(parts)
}

/// The whole bytes of a BIT STRING without unused bits.
pub(crate) fn read_bit_string<'a>(element: &Element<'a>) -> Option<&'a [u8]> {
    match element.content.split_first() {
        Some((0, bytes)) if element.tag == BIT_STRING => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_der() {
        assert_eq!(integer(&[]), [2, 1, 0]);
        assert_eq!(integer(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[0, 0, 0x7f]), [2, 1, 0x7f]);
        assert_eq!(element(4, &[0; 0x7f])[..2], [4, 0x7f]);
        assert_eq!(element(4, &[0; 0x80])[..3], [4, 0x81, 0x80]);
        assert_eq!(element(4, &[0; 0x100])[..4], [4, 0x82, 1, 0]);
        assert_eq!(text("swarm-ca")[0], PRINTABLE_STRING);
        assert_eq!(text("a_b")[0], UTF8_STRING);
        assert_eq!(time(0), [b"\x17\x0d".as_slice(), b"700101000000Z"].concat());
        assert_eq!(time(2_524_608_000), [b"\x18\x0f".as_slice(), b"20500101000000Z"].concat());
        assert_eq!(time(2_524_607_999), [b"\x17\x0d".as_slice(), b"491231235959Z"].concat());
    }

    #[test]
    fn elements_come_back() {
        let outer = sequence(&[&integer(&[1]), &octets(&[7; 300])]);
        let parts = read_sequence(&outer).unwrap();
        assert_eq!((parts[0].tag, parts[0].content), (INTEGER, [1].as_slice()));
        assert_eq!(parts[1].content, [7; 300]);
        for cut in 0..outer.len() {
            assert!(read_sequence(&outer[..cut]).is_none());
        }
        assert!(read_sequence(&[SEQUENCE, 0x80, 0, 0]).is_none(), "no indefinite lengths");
        assert!(read_sequence(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]).is_none());
    }
}
