//! One client's connection: cuts what it sends into frames, holds what it has not taken yet.
//!
//! Invariant: only whole frames are queued, so a stream can always be ended with a reason. Called by the loop alone, and
//! never waits.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::limits::{CONTROL_BUFFER_BYTES, STREAM_BUFFER_BYTES};
use crate::protocol::{
    self, Attach, End, EndReason, FRAME_HEAD, FrameError, FrameKind, Message, decode_head, encode_head,
};

/// Number of a connection, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// Calls and replies.
    Control,
    /// Calls, replies and events.
    Subscriber,
    /// Streams of the container.
    Attach(Attach),
    /// Streams of the exec with this id.
    Exec(String),
    /// What is queued is sent still, then it is closed.
    Closing,
}

/// Something a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// A control frame's payload.
    Control(Vec<u8>),
    /// Some bytes of stdin.
    Stdin(&'a [u8]),
    /// The end of stdin.
    StdinEnd,
}

/// Cuts a stream of bytes into frames.
#[derive(Default)]
pub(crate) struct Decoder {
    head: [u8; FRAME_HEAD],
    head_filled: usize,
    /// Payload bytes that are still to come.
    left: usize,
    control: Vec<u8>,
}

impl Decoder {
    /// The next thing in `input`, which is moved past it; None when more input is needed.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Received<'a>>, FrameError> {
        if self.head_filled < FRAME_HEAD {
            let take = input.len().min(FRAME_HEAD - self.head_filled);
            self.head[self.head_filled..self.head_filled + take].copy_from_slice(&input[..take]);
            self.head_filled += take;
            *input = &input[take..];
            if self.head_filled < FRAME_HEAD {
                return Ok(None);
            }
            let (kind, length) = decode_head(self.head)?;
            self.left = length;
            if length == 0 && kind == FrameKind::Stdin {
                self.head_filled = 0;
                return Ok(Some(Received::StdinEnd));
            }
        }
        let (kind, _) = decode_head(self.head)?;
        let take = input.len().min(self.left);
        let (piece, rest) = input.split_at(take);
        *input = rest;
        self.left -= take;
        if self.left == 0 {
            self.head_filled = 0;
        }
        match kind {
            FrameKind::Stdin if take == 0 => Ok(None),
            FrameKind::Stdin => Ok(Some(Received::Stdin(piece))),
            FrameKind::Control => {
                self.control.extend_from_slice(piece);
                Ok((self.left == 0).then(|| Received::Control(std::mem::take(&mut self.control))))
            }
            FrameKind::Stdout | FrameKind::Stderr => Err(FrameError::Kind(kind as u8)),
        }
    }
}

/// One client's connection.
pub(crate) struct Connection {
    /// Its number.
    pub(crate) id: ConnectionId,
    /// What it is for.
    pub(crate) role: Role,
    /// The socket; the loop polls it.
    pub(crate) stream: UnixStream,
    /// Cuts what comes.
    pub(crate) decoder: Decoder,
    /// Whether the client may send still; after its end only the close of the whole connection is awaited.
    pub(crate) input_open: bool,
    /// Nothing can be sent or received any more; the loop drops it.
    pub(crate) broken: bool,
    queue: VecDeque<Box<[u8]>>,
    queued: usize,
    /// Bytes of the queue's first frame that are sent.
    sent: usize,
    /// Since when the queue has been over its limit without anything being taken.
    stalled_since: Option<Instant>,
}

impl Connection {
    /// A connection just accepted.
    pub(crate) fn new(id: ConnectionId, stream: UnixStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection {
            id,
            role: Role::Control,
            stream,
            decoder: Decoder::default(),
            input_open: true,
            broken: false,
            queue: VecDeque::new(),
            queued: 0,
            sent: 0,
            stalled_since: None,
        })
    }

    /// Reads into `buffer`; None when there is nothing now. The client's end of sending clears `input_open`.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self.stream.read(buffer) {
            Ok(0) => self.input_open = false,
            Ok(n) => return Some(n),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.broken = true,
        }
        None
    }

    /// Sends a document.
    pub(crate) fn send(&mut self, message: &Message) {
        let payload = serde_json::to_vec(message).expect("messages have only string keys");
        if payload.len() > protocol::FRAME_MAX || self.queued + payload.len() > CONTROL_BUFFER_BYTES {
            self.broken = true;
            return;
        }
        self.send_frame(FrameKind::Control, &payload);
    }

    /// Sends a frame, at once as far as the socket takes it; the rest is queued.
    pub(crate) fn send_frame(&mut self, kind: FrameKind, payload: &[u8]) {
        let head = encode_head(kind, payload.len());
        let mut taken = 0;
        if self.queue.is_empty() {
            match self.stream.write_vectored(&[IoSlice::new(&head), IoSlice::new(payload)]) {
                Ok(n) => taken = n,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => self.broken = true,
            }
            self.sent = taken;
        }
        let whole = FRAME_HEAD + payload.len();
        if taken < whole && !self.broken {
            self.queue.push_back([&head, payload].concat().into_boxed_slice());
            self.queued += whole - taken;
        }
    }

    /// Whether something waits for the client to take it.
    pub(crate) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether so much waits that whoever produces it should wait.
    pub(crate) fn is_full(&self) -> bool {
        self.queued > STREAM_BUFFER_BYTES
    }

    /// Sends what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) {
        while let Some(first) = self.queue.front() {
            match self.stream.write(&first[self.sent..]) {
                Ok(n) => {
                    self.sent += n;
                    self.queued -= n;
                    self.stalled_since = None;
                    if self.sent == first.len() {
                        self.queue.pop_front();
                        self.sent = 0;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
        self.queue = VecDeque::new();
    }

    /// Since when the client has been taking nothing while others wait for it; None when nobody waits.
    pub(crate) fn stalled_since(&mut self, now: Instant) -> Option<Instant> {
        if self.is_full() {
            Some(*self.stalled_since.get_or_insert(now))
        } else {
            self.stalled_since = None;
            None
        }
    }

    /// The last frame of a stream. One that was too slow loses what waits, except a frame that is under way.
    pub(crate) fn end_stream(&mut self, end: End) {
        if end.reason == EndReason::TooSlow {
            self.queue.truncate(usize::from(self.sent > 0));
            self.queued = self.queue.front().map_or(0, |first| first.len() - self.sent);
        }
        self.role = Role::Closing;
        self.send(&Message::End(end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_the_pieces_end() {
        let mut wire = Vec::new();
        for (kind, payload) in [
            (FrameKind::Control, &b"{}"[..]),
            (FrameKind::Stdin, b"abc"),
            (FrameKind::Stdin, b""),
            (FrameKind::Control, b""),
        ] {
            wire.extend_from_slice(&encode_head(kind, payload.len()));
            wire.extend_from_slice(payload);
        }
        for size in 1..=wire.len() {
            let mut decoder = Decoder::default();
            let (mut controls, mut stdin, mut ends) = (Vec::new(), Vec::new(), 0);
            for mut piece in wire.chunks(size) {
                while !piece.is_empty() {
                    match decoder.next(&mut piece).unwrap() {
                        Some(Received::Control(document)) => controls.push(document),
                        Some(Received::Stdin(bytes)) => stdin.extend_from_slice(bytes),
                        Some(Received::StdinEnd) => ends += 1,
                        None => {}
                    }
                }
            }
            assert_eq!(
                (controls, &stdin[..], ends),
                (vec![b"{}".to_vec(), vec![]], &b"abc"[..], 1),
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_keeps_its_frames_whole() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ConnectionId(1), ours).unwrap();
        while !connection.is_full() {
            connection.send_frame(FrameKind::Stdout, &[7; 60_000]);
        }
        assert!(connection.stalled_since(Instant::now()).is_some());
        connection.end_stream(End { reason: EndReason::TooSlow, exit_code: None });
        assert!(!connection.is_full());
        let reader = std::thread::spawn(move || {
            let mut wire = Vec::new();
            theirs.read_to_end(&mut wire).unwrap();
            wire
        });
        while connection.has_queue() {
            connection.flush();
        }
        drop(connection);
        let wire = reader.join().unwrap();
        let mut rest = &wire[..];
        let mut last = None;
        while !rest.is_empty() {
            let (kind, length) = decode_head(*rest.first_chunk().unwrap()).unwrap();
            last = Some((kind, &rest[FRAME_HEAD..FRAME_HEAD + length]));
            rest = &rest[FRAME_HEAD + length..];
        }
        let (kind, payload) = last.unwrap();
        assert_eq!(kind, FrameKind::Control);
        assert!(matches!(
            serde_json::from_slice(payload),
            Ok(Message::End(End { reason: EndReason::TooSlow, exit_code: None }))
        ));
    }
}
