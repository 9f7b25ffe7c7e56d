//! The netlink socket of one namespace. The kernel works a request off within `send`, so every answer is there when it
//! returns: nothing here waits.

use std::io;

use netlink_sys::{Socket as RawSocket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::message::{Message, messages};

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Room for answers: one datagram of a dump.
const RECEIVE_BYTES: usize = 64 * 1024;
/// What a socket takes at once without being told that it may take more.
const SENT_BYTES: usize = 128 * 1024;

/// A socket; it stays in the namespace it was opened in.
pub(crate) struct Socket {
    raw: RawSocket,
    sent_limit: usize,
}

/// One message of an answer.
pub(crate) struct Reply {
    /// Message type.
    pub(crate) kind: u16,
    /// All behind the netlink header.
    pub(crate) body: Vec<u8>,
}

impl Socket {
    /// Opens one in the thread's namespace; `protocol` is a number of `NETLINK_…`.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut raw = RawSocket::new(protocol)?;
        raw.bind_auto()?;
        Ok(Self { raw, sent_limit: SENT_BYTES })
    }

    /// Sends messages of which only the last, by sequence number, is acknowledged if all went well.
    pub(crate) fn transact(&mut self, bytes: &[u8], last: u32) -> io::Result<()> {
        self.send(bytes)?;
        let mut acknowledged = false;
        let mut failure = None;
        self.drain(|message| {
            if message.kind == ERROR {
                match error_of(message.body) {
                    None => acknowledged |= message.sequence == last,
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

    /// Sends a request (not a batch) and returns its answers; an error answer is `Err`.
    pub(crate) fn request(&mut self, bytes: &[u8]) -> io::Result<Vec<Reply>> {
        self.send(bytes)?;
        let mut replies = Vec::new();
        let mut failure = None;
        self.drain(|message| match message.kind {
            ERROR => {
                if let Some(error) = error_of(message.body) {
                    failure.get_or_insert(error);
                }
            }
            DONE => {}
            kind => replies.push(Reply { kind, body: message.body.to_vec() }),
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

    fn drain(&mut self, mut each: impl FnMut(&Message<'_>)) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        loop {
            buffer.clear();
            match self.raw.recv_from(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => messages(&buffer).iter().for_each(&mut each),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A socket that hears of changes, and the types of messages that are of interest.
pub(crate) struct News {
    socket: RawSocket,
    kinds: &'static [u16],
}

impl News {
    /// Opens a socket in the thread's namespace that hears what is told to some groups.
    pub(crate) fn open(protocol: isize, groups: &[u32], kinds: &'static [u16]) -> io::Result<Self> {
        let mut socket = RawSocket::new(protocol)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        groups.iter().try_for_each(|group| socket.add_membership(*group))?;
        Ok(Self { socket, kinds })
    }

    /// Makes it something to be awaited. Must be called within a runtime.
    pub(crate) fn listen(self) -> io::Result<Listener> {
        // SAFETY: the socket owns its descriptor, which stays the same until the socket is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(self.socket, Interest::READABLE) }?;
        Ok(Listener { socket, kinds: self.kinds })
    }
}

/// News that can be awaited.
pub(crate) struct Listener {
    socket: AsyncFd<RawSocket>,
    kinds: &'static [u16],
}

impl Listener {
    /// Until a message of interest has come, or more messages than there is room for.
    pub(crate) async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            match self.read() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&self) -> io::Result<bool> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        self.socket.get_ref().recv_from(&mut buffer, libc::MSG_DONTWAIT)?;
        Ok(messages(&buffer).iter().any(|message| self.kinds.contains(&message.kind)))
    }
}

fn error_of(body: &[u8]) -> Option<io::Error> {
    let code = body.get(..4).map_or(-libc::EPROTO, |code| i32::from_ne_bytes([code[0], code[1], code[2], code[3]]));
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}
