//! What is on the wire between machines.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use super::Ns;

/// What shall never be seen, at the beginning of whatever containers of an encrypted network send.
pub const SECRET: &[u8] = b"between the two of us";
const ETHERNET_BYTES: usize = 14;
const FRAME_BYTES: usize = 65536;
/// Room for what comes while the reader is not running: tests are emulated.
const BUFFER_BYTES: usize = 64 << 20;

/// Listens on every port of a switch.
pub struct Wire {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Frames of ESP.
    pub sealed: usize,
    /// Frames of UDP by destination port.
    pub datagrams: BTreeMap<u16, usize>,
    /// Frames that tell the secret.
    pub telling: Vec<String>,
}

impl Wire {
    pub fn listen(switch: &Ns) -> Self {
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let socket = switch.run(open);
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut frame = vec![0; FRAME_BYTES];
                loop {
                    match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                        Ok(len) => look(&frame[..len], &mut seen.lock().unwrap()),
                        // silence
                        Err(nix::errno::Errno::EAGAIN) if stop.load(Ordering::Relaxed) => return,
                        Err(nix::errno::Errno::EAGAIN) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        };
        Self { seen, stop, thread: Some(thread) }
    }

    /// What has been seen until nothing more came.
    pub fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.seen.lock().unwrap().clone()
    }

    /// What has been seen by now.
    pub fn so_far(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).unwrap();
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 200_000)).unwrap();
    socket
}

fn look(frame: &[u8], seen: &mut Seen) {
    if frame.windows(SECRET.len()).any(|window| window == SECRET) {
        seen.telling.push(format!("{:02x?}", &frame[..frame.len().min(64)]));
    }
    let Some(packet) = frame.get(ETHERNET_BYTES..).filter(|packet| packet.len() >= 28 && packet[0] == 0x45) else {
        return;
    };
    match packet[9] {
        50 => seen.sealed += 1,
        17 => *seen.datagrams.entry(u16::from_be_bytes([packet[22], packet[23]])).or_default() += 1,
        _ => {}
    }
}

impl Seen {
    /// Nothing but sealed packets. Panics otherwise.
    pub fn assert_sealed(&self) {
        assert!(self.telling.is_empty(), "{self:?}");
        assert!(self.datagrams.is_empty(), "{self:?}");
    }
}
