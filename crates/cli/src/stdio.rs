//! The terminal's side of attach, exec and logs: frames apart, both directions.

use std::io::Write;

use anyhow::Result;
use client::Hijacked;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::terminal::{DetachKeys, Raw, Typed};

/// Longest frame taken from a daemon.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// Which of the terminal's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

impl Stream {
    /// Writes to it; a reader that has gone is no error of ours.
    pub(crate) fn print(self, bytes: &[u8]) {
        match self {
            Self::Out => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush()).ok();
            }
            Self::Err => {
                std::io::stderr().lock().write_all(bytes).ok();
            }
        }
    }
}

/// Takes Docker's frames apart: stream, three zeros, length, payload.
pub(crate) struct Demux {
    framed: bool,
    buffer: Vec<u8>,
}

impl Demux {
    pub(crate) fn new(framed: bool) -> Self {
        Self { framed, buffer: Vec::new() }
    }

    /// Feeds bytes and hands out every whole payload.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(Stream, &[u8])) {
        if !self.framed {
            take(Stream::Out, bytes);
            return;
        }
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(header) = self.buffer.get(at..at + 8) {
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            let stream = if header[0] == 1 { Stream::Out } else { Stream::Err };
            if length > MAX_FRAME_BYTES {
                self.buffer.clear();
                return;
            }
            let Some(payload) = self.buffer.get(at + 8..at + 8 + length) else { break };
            take(stream, payload);
            at += 8 + length;
        }
        self.buffer.drain(..at);
    }
}

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The daemon closed the stream.
    Closed,
    /// The user let go.
    Detached,
}

/// Copies both ways until the daemon ends the stream, or the user lets go of it by `keys`.
pub(crate) async fn copy(hijacked: Hijacked, stdin: bool, tty: bool, keys: DetachKeys) -> Result<Ended> {
    let _raw = if tty && stdin { Raw::enter() } else { None };
    let mut demux = Demux::new(!tty && hijacked.multiplexed);
    let (mut from, to) = tokio::io::split(hijacked.io);
    let mut input = tokio::spawn(async move {
        match stdin {
            true => send(to, tty.then(|| Typed::new(keys))).await,
            // The writing half must stay open as long as the daemon sends.
            false => std::future::pending().await,
        }
    });
    let mut bytes = vec![0; 32 << 10];
    let ended = loop {
        tokio::select! {
            // A read that is given up has read nothing.
            count = from.read(&mut bytes) => match count? {
                0 => break Ended::Closed,
                count => demux.feed(&bytes[..count], |stream, payload| stream.print(payload)),
            },
            // It ends only when the user lets go.
            _ = &mut input => break Ended::Detached,
        }
    };
    input.abort();
    Ok(ended)
}

/// Sends what is typed; returns when the user lets go, and never otherwise.
async fn send(mut to: impl AsyncWrite + Unpin, mut typed: Option<Typed>) {
    let (mut terminal, mut bytes) = (tokio::io::stdin(), vec![0; 8 << 10]);
    while let Ok(count @ 1..) = terminal.read(&mut bytes).await {
        let (out, detached) = match &mut typed {
            Some(typed) => typed.feed(&bytes[..count]),
            None => (bytes[..count].to_vec(), false),
        };
        if to.write_all(&out).await.is_err() {
            break;
        }
        to.flush().await.ok();
        if detached {
            return;
        }
    }
    // No more input; the daemon may have much to say yet.
    to.shutdown().await.ok();
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::{Demux, Stream};

    #[test]
    fn frames_are_put_together_from_pieces() {
        let mut demux = Demux::new(true);
        let mut seen = Vec::new();
        let bytes = [1, 0, 0, 0, 0, 0, 0, 2, b'h', b'i', 2, 0, 0, 0, 0, 0, 0, 1, b'!'];
        for byte in bytes {
            demux.feed(&[byte], |stream, payload| seen.push((stream, payload.to_vec())));
        }
        assert_eq!(seen, [(Stream::Out, b"hi".to_vec()), (Stream::Err, b"!".to_vec())]);
    }
}
