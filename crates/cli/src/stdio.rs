//! The terminal's side of attach, exec and logs: frames apart, raw mode, both directions.

use std::io::Write;

use anyhow::Result;
use client::Hijacked;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// The terminal in raw mode until dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0).ok();
    }
}

/// Copies both ways until the daemon ends the stream.
pub(crate) async fn copy(hijacked: Hijacked, stdin: bool, tty: bool) -> Result<()> {
    let _raw = if tty && stdin { Raw::enter() } else { None };
    let mut demux = Demux::new(!tty && hijacked.multiplexed);
    let io = hijacked.io;
    let (mut from, mut to) = tokio::io::split(io);
    let input = tokio::spawn(async move {
        if !stdin {
            // The writing half must stay open as long as the daemon sends.
            std::future::pending::<()>().await;
        }
        let mut terminal = tokio::io::stdin();
        if tokio::io::copy(&mut terminal, &mut to).await.is_ok() {
            to.shutdown().await.ok();
        }
        std::future::pending::<()>().await;
    });
    let mut bytes = vec![0; 32 << 10];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            break;
        }
        demux.feed(&bytes[..count], |stream, payload| stream.print(payload));
    }
    input.abort();
    Ok(())
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
