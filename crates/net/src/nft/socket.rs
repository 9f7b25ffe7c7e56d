//! The netfilter socket of one namespace. The kernel works a request off within `send`, so every answer is there when
//! it returns: nothing here waits.

use std::io;

use netlink_sys::{Socket as RawSocket, SocketAddr, constants::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::batch::{Batch, TABLE_DELETED, Table};
use super::message::messages;

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// A transaction that races with another table's is tried again by the kernel; a signal may still break it.
const MAX_TRIES: u32 = 5;
/// Room for answers: one datagram of a dump.
const RECEIVE_BYTES: usize = 64 * 1024;

/// A netfilter socket; it stays in the namespace it was opened in.
pub(crate) struct Socket {
    raw: RawSocket,
    sent_limit: usize,
}

/// One message of an answer.
pub(crate) struct Reply {
    /// Message type.
    pub(crate) kind: u16,
    /// All behind the netlink header, `nfgenmsg` first.
    pub(crate) body: Vec<u8>,
}

impl Socket {
    /// Opens one in the thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut raw = RawSocket::new(NETLINK_NETFILTER)?;
        raw.bind_auto()?;
        Ok(Self { raw, sent_limit: 128 * 1024 })
    }

    /// Commits a transaction. `Ok` means that the kernel works by it.
    pub(crate) fn commit(&mut self, batch: Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (bytes, last) = batch.finish();
        let mut tries = 1;
        loop {
            match self.transact(&bytes, last) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && tries < MAX_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    /// Writes tables anew without a moment in which neither the old nor the new ones count. A transaction switches rules
    /// by packet, but the elements of sets at once: a packet that has begun with the old rules finds the old sets empty. So
    /// stand-ins with the same contents are there while the tables are replaced.
    pub(crate) fn replace(&mut self, stand_ins: Batch, tables: Batch, gone: &[Table]) -> io::Result<()> {
        self.commit(stand_ins)?;
        let replaced = self.commit(tables);
        let mut batch = Batch::new();
        for table in gone {
            // Somebody may have flushed it meanwhile.
            batch.add_table(table);
            batch.delete_table(table);
        }
        let removed = self.commit(batch);
        replaced.and(removed)
    }

    fn transact(&mut self, bytes: &[u8], last: u32) -> io::Result<()> {
        self.send(bytes)?;
        let mut acknowledged = false;
        let mut failure = None;
        self.drain(|kind, sequence, body| {
            if kind == ERROR {
                match error_of(body) {
                    None => acknowledged |= sequence == last,
                    Some(error) => {
                        failure.get_or_insert(error);
                    }
                }
            }
        })?;
        match failure {
            Some(error) => Err(error),
            None if acknowledged => Ok(()),
            None => Err(io::Error::other("the kernel did not acknowledge the transaction")),
        }
    }

    /// Whether there is a table of this name.
    pub(crate) fn has_table(&mut self, table: &Table) -> io::Result<bool> {
        match self.request(&table.question()) {
            Ok(replies) => Ok(!replies.is_empty()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a request (not a batch) and returns its answers; an error answer is `Err`.
    pub(crate) fn request(&mut self, bytes: &[u8]) -> io::Result<Vec<Reply>> {
        self.send(bytes)?;
        let mut replies = Vec::new();
        let mut failure = None;
        self.drain(|kind, _, body| match kind {
            ERROR => {
                if let Some(error) = error_of(body) {
                    failure.get_or_insert(error);
                }
            }
            DONE => {}
            _ => replies.push(Reply { kind, body: body.to_vec() }),
        })?;
        failure.map_or(Ok(replies), Err)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.sent_limit {
            setsockopt(&self.raw, sockopt::SndBufForce, &(bytes.len() + 4096))?;
            self.sent_limit = bytes.len();
        }
        let sent = self.raw.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::Error::other("a netlink request was cut")) }
    }

    fn drain(&mut self, mut each: impl FnMut(u16, u32, &[u8])) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        loop {
            buffer.clear();
            match self.raw.recv_from(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {
                    for message in messages(&buffer) {
                        each(message.kind, message.sequence, message.body);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Opens a socket in the thread's namespace that hears of every change of nftables there.
pub(crate) fn news() -> io::Result<RawSocket> {
    const NFNLGRP_NFTABLES: u32 = 7;
    let mut raw = RawSocket::new(NETLINK_NETFILTER)?;
    raw.bind_auto()?;
    raw.set_non_blocking(true)?;
    raw.add_membership(NFNLGRP_NFTABLES)?;
    Ok(raw)
}

/// Makes news something to be awaited. Must be called within a runtime.
pub(crate) fn await_news(news: RawSocket) -> io::Result<AsyncFd<RawSocket>> {
    // SAFETY: the socket owns its descriptor, which stays the same until the socket is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(news, Interest::READABLE) }?)
}

/// Reads the next piece of news; whether a table was deleted.
pub(crate) fn was_table_deleted(news: &RawSocket) -> io::Result<bool> {
    let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
    news.recv_from(&mut buffer, libc::MSG_DONTWAIT)?;
    Ok(messages(&buffer).iter().any(|message| message.kind == TABLE_DELETED))
}

fn error_of(body: &[u8]) -> Option<io::Error> {
    let code = body.get(..4).map_or(-libc::EPROTO, |code| i32::from_ne_bytes([code[0], code[1], code[2], code[3]]));
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}
