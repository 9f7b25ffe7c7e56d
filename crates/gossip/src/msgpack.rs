//! The msgpack dialect of memberlist (go-msgpack 0.5): the old specification, in which text and bytes are one family,
//! "raw". The writer makes that family only, as old readers take no other for text; the reader takes the newer forms too.

use thiserror::Error;

/// How deep a value that is skipped may nest.
const MAX_SKIP_DEPTH: usize = 8;
/// Fields of one record that are looked at.
const MAX_FIELDS: usize = 64;

/// Why bytes are no value.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum Malformed {
    /// The bytes end inside the value: more may make it whole.
    #[error("a value is cut off")]
    Short,
    /// A value of another kind was expected, or it is out of range.
    #[error("a value of the wrong kind or range")]
    Kind,
    /// Nested or filled beyond a limit.
    #[error("a value beyond a limit")]
    Limit,
}

/// Writes values in the shortest old form.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A writer that appends to `bytes`.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// What was written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The head of a map with fewer than 16 fields.
    pub(crate) fn map(&mut self, fields: u8) -> &mut Self {
        debug_assert!(fields < 16, "records are small");
        self.bytes.push(0x80 | fields);
        self
    }

    /// Text or bytes.
    pub(crate) fn raw(&mut self, value: &[u8]) -> &mut Self {
        match value.len() {
            length @ 0..32 => self.bytes.push(0xa0 | length as u8),
            length @ 32..65_536 => {
                self.bytes.push(0xda);
                self.bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                self.bytes.push(0xdb);
                self.bytes.extend((length as u32).to_be_bytes());
            }
        }
        self.bytes.extend(value);
        self
    }

    /// A number.
    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        match value {
            0..0x80 => self.bytes.push(value as u8),
            0x80..0x100 => self.bytes.extend([0xcc, value as u8]),
            0x100..0x1_0000 => {
                self.bytes.push(0xcd);
                self.bytes.extend((value as u16).to_be_bytes());
            }
            0x1_0000..0x1_0000_0000 => {
                self.bytes.push(0xce);
                self.bytes.extend((value as u32).to_be_bytes());
            }
            _ => {
                self.bytes.push(0xcf);
                self.bytes.extend(value.to_be_bytes());
            }
        }
        self
    }

    /// A truth value.
    pub(crate) fn bool(&mut self, value: bool) -> &mut Self {
        self.bytes.push(if value { 0xc3 } else { 0xc2 });
        self
    }

    /// Nothing.
    pub(crate) fn nil(&mut self) -> &mut Self {
        self.bytes.push(0xc0);
        self
    }

    /// A field's name; its value follows.
    pub(crate) fn field(&mut self, name: &str) -> &mut Self {
        self.raw(name.as_bytes())
    }
}

/// Reads values from the front of its bytes.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (value, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(value)
    }

    fn number(&mut self, length: usize) -> Result<u64, Malformed> {
        Ok(self.take(length)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// Reads a record: calls `field` with each name and the reader at its value. A field that `field` does not know must be
    /// skipped by it.
    pub(crate) fn record(
        &mut self,
        mut field: impl FnMut(&'a [u8], &mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let fields = match self.byte()? {
            head @ 0x80..=0x8f => usize::from(head & 0xf),
            0xde => self.number(2)? as usize,
            0xdf => self.number(4)? as usize,
            _ => return Err(Malformed::Kind),
        };
        if fields > MAX_FIELDS {
            return Err(Malformed::Limit);
        }
        for _ in 0..fields {
            let name = self.raw()?;
            field(name, self)?;
        }
        Ok(())
    }

    /// Text or bytes of any form; nothing is empty.
    pub(crate) fn raw(&mut self) -> Result<&'a [u8], Malformed> {
        let length = match self.byte()? {
            head @ 0xa0..=0xbf => u64::from(head & 0x1f),
            0xc0 => 0,
            0xc4 | 0xd9 => self.number(1)?,
            0xc5 | 0xda => self.number(2)?,
            0xc6 | 0xdb => self.number(4)?,
            _ => return Err(Malformed::Kind),
        };
        self.take(length as usize)
    }

    /// A number that is not negative; nothing is 0.
    pub(crate) fn uint(&mut self) -> Result<u64, Malformed> {
        let signed = |value: u64, bits: u32| if value >> (bits - 1) == 0 { Ok(value) } else { Err(Malformed::Kind) };
        match self.byte()? {
            head @ 0..=0x7f => Ok(u64::from(head)),
            0xc0 => Ok(0),
            0xcc => self.number(1),
            0xcd => self.number(2),
            0xce => self.number(4),
            0xcf => self.number(8),
            0xd0 => signed(self.number(1)?, 8),
            0xd1 => signed(self.number(2)?, 16),
            0xd2 => signed(self.number(4)?, 32),
            0xd3 => signed(self.number(8)?, 64),
            _ => Err(Malformed::Kind),
        }
    }

    /// A number of a narrower type.
    pub(crate) fn narrow<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        T::try_from(self.uint()?).map_err(|_| Malformed::Kind)
    }

    /// A truth value; nothing is false.
    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0xc0 | 0xc2 => Ok(false),
            0xc3 => Ok(true),
            _ => Err(Malformed::Kind),
        }
    }

    /// Passes over a value of any kind.
    pub(crate) fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_within(MAX_SKIP_DEPTH)
    }

    fn skip_within(&mut self, depth: usize) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed::Limit)?;
        let (bytes, values) = match self.byte()? {
            0..=0x7f | 0xc0..=0xc3 | 0xe0..=0xff => (0, 0),
            head @ 0x80..=0x8f => (0, 2 * u64::from(head & 0xf)),
            head @ 0x90..=0x9f => (0, u64::from(head & 0xf)),
            head @ 0xa0..=0xbf => (u64::from(head & 0x1f), 0),
            0xc4 | 0xd9 => (self.number(1)?, 0),
            0xc5 | 0xda => (self.number(2)?, 0),
            0xc6 | 0xdb => (self.number(4)?, 0),
            0xc7 => (self.number(1)? + 1, 0),
            0xc8 => (self.number(2)? + 1, 0),
            0xc9 => (self.number(4)? + 1, 0),
            head @ 0xcc..=0xd3 => (1 << (head & 3), 0),
            0xca => (4, 0),
            0xcb => (8, 0),
            head @ 0xd4..=0xd8 => ((1 << (head - 0xd4)) + 1, 0),
            0xdc => (0, self.number(2)?),
            0xdd => (0, self.number(4)?),
            0xde => (0, 2 * self.number(2)?),
            0xdf => (0, 2 * self.number(4)?),
        };
        self.take(bytes as usize)?;
        for _ in 0..values {
            self.skip_within(depth)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_raw_family_is_written_and_every_form_is_read() {
        let check = |length: usize, head: &[u8]| {
            let value = vec![7; length];
            let mut writer = Writer::default();
            writer.raw(&value);
            let bytes = writer.into_bytes();
            assert!(bytes.starts_with(head), "{length}");
            assert_eq!(Reader::new(&bytes).raw(), Ok(value.as_slice()));
        };
        check(0, &[0xa0]);
        check(31, &[0xbf]);
        check(32, &[0xda, 0, 32]);
        check(255, &[0xda, 0, 255]);
        check(65_535, &[0xda, 0xff, 0xff]);
        check(65_536, &[0xdb, 0, 1, 0, 0]);
        for newer in [&[0xd9, 1, 7][..], &[0xc4, 1, 7], &[0xc5, 0, 1, 7], &[0xc6, 0, 0, 0, 1, 7]] {
            assert_eq!(Reader::new(newer).raw(), Ok(&[7][..]));
        }
    }

    #[test]
    fn numbers_take_the_shortest_form_and_signed_ones_are_read() {
        for value in [0, 127, 128, 255, 256, 65_535, 65_536, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            let mut writer = Writer::default();
            writer.uint(value);
            assert_eq!(Reader::new(&writer.into_bytes()).uint(), Ok(value));
        }
        assert_eq!(Reader::new(&[0xd1, 1, 0]).uint(), Ok(256));
        assert_eq!(Reader::new(&[0xd0, 0xff]).uint(), Err(Malformed::Kind));
        assert_eq!(Reader::new(&[0xe0]).uint(), Err(Malformed::Kind));
        assert_eq!(Reader::new(&[0xcd, 1]).uint(), Err(Malformed::Short));
        assert_eq!(Reader::new(&[0xcd, 1, 0]).narrow::<u8>(), Err(Malformed::Kind));
    }

    #[test]
    fn skipping_is_exact_and_bounded() {
        let values: [&[u8]; 9] = [
            &[0xc0],
            &[0xcb, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x82, 0xa1, b'a', 1, 0xa1, b'b', 0x92, 1, 2],
            &[0xd4, 1, 9],
            &[0xc7, 2, 1, 9, 9],
            &[0xdc, 0, 2, 1, 1],
            &[0xd3, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xca, 0, 0, 0, 0],
            &[0xff],
        ];
        for value in values {
            let mut reader = Reader::new(value);
            assert_eq!(reader.skip(), Ok(()), "{value:x?}");
            assert!(reader.rest().is_empty(), "{value:x?}");
        }
        assert_eq!(Reader::new(&[0x91; 32]).skip(), Err(Malformed::Limit));
        assert_eq!(Reader::new(&[0xdd, 0xff, 0xff, 0xff, 0xff]).skip(), Err(Malformed::Short));
    }
}
