//! Docker's framing of several streams on one: a byte for the stream, three zeros, a big-endian length, the payload.

use bytes::{BufMut, Bytes, BytesMut};

/// Media type of framed streams, for clients of API 1.42 and newer.
pub(crate) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// Media type of all others.
pub(crate) const RAW: &str = "application/vnd.docker.raw-stream";

/// Which stream a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Channel {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// An error of the engine's own.
    System = 3,
}

/// Whether streams are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// One raw stream: the container has a terminal.
    Raw,
    /// Frames.
    Framed,
}

impl Framing {
    /// A container with a terminal has but one stream.
    pub(crate) fn of_tty(tty: bool) -> Self {
        if tty { Self::Raw } else { Self::Framed }
    }

    /// The media type that tells a client of that version.
    pub(crate) fn content_type(self, client: crate::request::ClientVersion) -> &'static str {
        if self == Self::Framed && client.at_least(42) { MULTIPLEXED } else { RAW }
    }

    /// The payload as it is sent.
    pub(crate) fn wrap(self, channel: Channel, payload: Bytes) -> Bytes {
        if self == Self::Raw {
            return payload;
        }
        let mut frame = BytesMut::with_capacity(8 + payload.len());
        frame.put_u8(channel as u8);
        frame.put_bytes(0, 3);
        frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        frame.put_slice(&payload);
        frame.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_dockers_header() {
        let frame = Framing::Framed.wrap(Channel::Stderr, Bytes::from_static(b"hi\n"));
        assert_eq!(&frame[..], b"\x02\0\0\0\0\0\0\x03hi\n");
        assert_eq!(&Framing::Raw.wrap(Channel::Stdout, Bytes::from_static(b"hi"))[..], b"hi");
    }
}
