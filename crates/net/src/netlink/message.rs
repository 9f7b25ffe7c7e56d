//! Netlink messages: headers and nested attributes, written into one buffer.

const NESTED: u16 = 0x8000;

/// Netlink flags.
pub(crate) const REQUEST: u16 = 0x1;
/// Ask for an acknowledgement.
pub(crate) const ACK: u16 = 0x4;
/// Dump a table.
pub(crate) const DUMP: u16 = 0x300;
/// Create what is missing.
pub(crate) const CREATE: u16 = 0x400;
/// Append to the end (rules).
pub(crate) const APPEND: u16 = 0x800;

/// A growing buffer of netlink messages.
#[derive(Default)]
pub(crate) struct Writer {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    /// Begins a message and returns its start for [`Writer::end`].
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, sequence: u32) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        start
    }

    /// Ends the message that began at `start`.
    pub(crate) fn end(&mut self, start: usize) {
        let len = u32::try_from(self.bytes.len() - start).expect("a message is far smaller than 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Sets the acknowledge flag of the message at `start`.
    pub(crate) fn ask_ack(&mut self, start: usize) {
        let flags = u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]) | ACK;
        self.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// An attribute with plain bytes.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).expect("attribute values are small");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// A string attribute with its final zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// A number in network order, as nftables wants them.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A nested attribute.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).expect("nests are split before they reach 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// One received message.
pub(crate) struct Message<'a> {
    /// Message type.
    pub(crate) kind: u16,
    /// Sequence number.
    pub(crate) sequence: u32,
    /// All behind the netlink header.
    pub(crate) body: &'a [u8],
}

/// Splits a datagram into its messages.
pub(crate) fn messages(mut datagram: &[u8]) -> Vec<Message<'_>> {
    let mut out = Vec::new();
    while datagram.len() >= 16 {
        let word = |at: usize| u32::from_ne_bytes([datagram[at], datagram[at + 1], datagram[at + 2], datagram[at + 3]]);
        let len = word(0) as usize;
        if len < 16 || len > datagram.len() {
            break;
        }
        let kind = u16::from_ne_bytes([datagram[4], datagram[5]]);
        out.push(Message { kind, sequence: word(8), body: &datagram[16..len] });
        datagram = &datagram[len.next_multiple_of(4).min(datagram.len())..];
    }
    out
}

/// Splits attributes into kind (without flags) and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut out = Vec::new();
    while bytes.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        if len < 4 || len > bytes.len() {
            break;
        }
        out.push((u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff, &bytes[4..len]));
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    out
}

/// The first attribute of a kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        let start = writer.begin(0xa00, REQUEST, 7);
        writer.text(1, "filter");
        writer.nest(4, |w| w.be32(1, 3));
        writer.end(start);
        let read = messages(&writer.bytes);
        assert_eq!((read.len(), read[0].kind, read[0].sequence), (1, 0xa00, 7));
        let body = read[0].body;
        assert_eq!(attribute(body, 1), Some(&b"filter\0"[..]));
        assert_eq!(attribute(attribute(body, 4).unwrap(), 1), Some(&[0, 0, 0, 3][..]));
    }

    #[test]
    fn cut_input_is_not_read_past_its_end() {
        for len in 0..24 {
            messages(&[0xff; 24][..len]);
            attributes(&[0x10; 24][..len]);
        }
    }
}
