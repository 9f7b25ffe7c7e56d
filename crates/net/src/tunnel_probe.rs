//! Packets through a network's tunnel to another node, to see whether they pass: from this node's own place on the network,
//! which is its ingress sandbox or its balancer, to the other's. The kernel there answers by itself, whoever's engine it is:
//! echo requests with echoes, datagrams to a port that nobody listens on with a refusal.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, recvfrom, sendto, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;

use crate::ingress::sandbox_path;
use crate::netns::Namespace;
use crate::overlay::balancer_path;
use crate::state::kernel;
use crate::{Net, NetError};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const IP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
const SESSION: usize = 8;
/// The least packet that tells which session it belongs to.
const LEAST: usize = IP_HEADER + ICMP_HEADER + SESSION;
const PACKET_BYTES: usize = 65_535;
/// A port that nobody listens on.
const CLOSED_PORT: u16 = 65_533;
/// Datagrams sent until one is refused: the kernel limits how often it refuses.
const DATAGRAMS: usize = 3;
const REFUSAL: Duration = Duration::from_millis(250);

/// Sockets at this node's place on a network.
pub struct TunnelProbe {
    echoes: AsyncFd<OwnedFd>,
    namespace: Namespace,
    own: Ipv4Addr,
    mtu: u32,
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// From whom.
    pub from: Ipv4Addr,
    /// It is the answer to a request of ours.
    pub is_reply: bool,
    /// Which session it belongs to.
    pub session: u64,
    /// How long the packet is.
    pub size: u32,
}

impl Net {
    /// Opens sockets at this node's place on a network; `None` if it has none: then nothing can be sent from there.
    pub fn tunnel_probe(&self, network_id: &str) -> Result<Option<TunnelProbe>, NetError> {
        let Some((path, own, mtu)) = self.own_place(network_id) else { return Ok(None) };
        let namespace = Namespace::pinned(&path).map_err(|source| NetError::File { path, source })?;
        let Some(namespace) = namespace else { return Ok(None) };
        let echoes = namespace.enter(|| open_echoes(own));
        let echoes = echoes.and_then(|socket| {
            // SAFETY: the descriptor is owned by what is registered, and stays the same until that is dropped.
            Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
        });
        let echoes = echoes.map_err(kernel("open a socket for echoes"))?;
        Ok(Some(TunnelProbe { echoes, namespace, own, mtu }))
    }

    /// MTU of a network.
    pub fn overlay_mtu(&self, network_id: &str) -> Option<u32> {
        self.inner().state().overlays.get(network_id).map(|overlay| overlay.record.mtu)
    }

    /// Where this node itself is on a network: the namespace, its address there, and the network's MTU.
    fn own_place(&self, network_id: &str) -> Option<(std::path::PathBuf, Ipv4Addr, u32)> {
        let inner = self.inner();
        let state = inner.state();
        let overlay = state.overlays.get(network_id)?;
        let mtu = overlay.record.mtu;
        if let Some(ingress) = state.ingress.as_ref().filter(|ingress| ingress.record.network_id == network_id) {
            return Some((sandbox_path(&inner.config), ingress.record.mesh.address.address, mtu));
        }
        let balancer = overlay.record.balancer.as_ref()?;
        Some((balancer_path(&inner.config, network_id), balancer.endpoint.address.address, mtu))
    }
}

fn open_echoes(own: Ipv4Addr) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp)?;
    let value: libc::c_int = libc::IP_PMTUDISC_PROBE;
    // Never cut, and whatever the kernel believes of the path.
    // SAFETY: the value is an int that lives until the call returns, and its size is given.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(own, 0)))?;
    Ok(socket)
}

impl TunnelProbe {
    /// The size of the network's full packets.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// This node's address there.
    pub fn own(&self) -> Ipv4Addr {
        self.own
    }

    /// Sends an echo request in a packet of `size`, that nobody on the way may cut. It may be lost, and one that this
    /// machine itself finds too large is.
    pub fn send(&self, to: Ipv4Addr, session: u64, size: u32) {
        let bytes = request(session, size);
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        // Full queues, no route, too large: all of it is a packet that does not arrive.
        let _ = sendto(self.echoes.as_raw_fd(), &bytes, &to, MsgFlags::empty());
    }

    /// The next request or reply of any session. It may be dropped while it waits, and nothing is lost.
    pub async fn next(&self) -> io::Result<Heard> {
        let mut buffer = vec![0; PACKET_BYTES];
        loop {
            let mut ready = self.echoes.readable().await?;
            let received =
                ready.try_io(|socket| recvfrom::<SockaddrIn>(socket.as_raw_fd(), &mut buffer).map_err(io::Error::from));
            match received {
                // Somebody on the way says that a packet was too large: it did not arrive.
                Ok(Err(_)) | Err(_) => {}
                Ok(Ok((length, _))) => {
                    if let Some(heard) = read(&buffer[..length]) {
                        return Ok(heard);
                    }
                }
            }
        }
    }

    /// Whether a datagram, whose checksum the network card may be told to compute, is refused by the kernel there as one to
    /// a closed port.
    pub async fn is_datagram_refused(&self, to: Ipv4Addr) -> io::Result<bool> {
        let own = self.own;
        let socket = self.namespace.enter(|| {
            let socket = std::net::UdpSocket::bind((own, 0))?;
            socket.set_nonblocking(true)?;
            socket.connect((to, CLOSED_PORT))?;
            Ok(socket)
        })?;
        let socket = UdpSocket::from_std(socket)?;
        let mut buffer = [0; 64];
        for _ in 0..DATAGRAMS {
            match socket.send(b"skep doctor").await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(true),
                Err(_) | Ok(_) => {}
            }
            match tokio::time::timeout(REFUSAL, socket.recv(&mut buffer)).await {
                Err(_) => {}
                Ok(Err(error)) => return Ok(error.kind() == io::ErrorKind::ConnectionRefused),
                // Somebody listens: it arrived.
                Ok(Ok(_)) => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Datagrams with a wrong checksum that came here so far.
    pub fn bad_checksums(&self) -> u64 {
        let text = self.namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
        text.map_or(0, |text| wrong_checksums(&text))
    }
}

/// An echo request for a packet of `size` with its IP header.
fn request(session: u64, size: u32) -> Vec<u8> {
    let length = (size as usize).clamp(LEAST, PACKET_BYTES) - IP_HEADER;
    let mut bytes = vec![0; length];
    bytes[0] = ECHO_REQUEST;
    bytes[4..6].copy_from_slice(&session.to_be_bytes()[..2]);
    bytes[ICMP_HEADER..ICMP_HEADER + SESSION].copy_from_slice(&session.to_be_bytes());
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The internet's checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Reads a packet with its IP header; nothing for what is neither request nor reply.
fn read(packet: &[u8]) -> Option<Heard> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let icmp = packet.get(header.max(IP_HEADER)..)?;
    let is_reply = match *icmp.first()? {
        ECHO_REQUEST => false,
        ECHO_REPLY => true,
        _ => return None,
    };
    let session: [u8; SESSION] = icmp.get(ICMP_HEADER..ICMP_HEADER + SESSION)?.try_into().ok()?;
    Some(Heard {
        from: source.into(),
        is_reply,
        session: u64::from_be_bytes(session),
        size: u32::try_from(packet.len()).ok()?,
    })
}

fn wrong_checksums(text: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return 0 };
    let at = names.split_whitespace().position(|name| name == "InCsumErrors");
    let number = at.and_then(|at| numbers.split_whitespace().nth(at));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_back_with_its_size() {
        for size in [0, 36, 64, 1450, 70_000] {
            let request = request(0x1234_5678_9abc_def0, size);
            let expected = (size as usize).clamp(LEAST, PACKET_BYTES);
            assert_eq!(request.len() + IP_HEADER, expected);
            assert_eq!(checksum(&request), 0, "with its checksum in it");
            let mut packet = vec![0x45];
            packet.resize(IP_HEADER, 0);
            packet[12..16].copy_from_slice(&[10, 0, 0, 2]);
            packet.extend(&request);
            let heard = read(&packet).expect("a request");
            let expected = Heard {
                from: [10, 0, 0, 2].into(),
                is_reply: false,
                session: 0x1234_5678_9abc_def0,
                size: expected as u32,
            };
            assert_eq!(heard, expected);
            for cut in 0..LEAST {
                assert_eq!(read(&packet[..cut]), None);
            }
        }
        assert_eq!(read(&[0xff; 100]), None);
    }

    #[test]
    fn wrong_checksums_are_counted_by_the_kernel() {
        let text = "Ip: a b\nIp: 1 2\nUdp: InDatagrams NoPorts InCsumErrors\nUdp: 5 6 7\nUdpLite: InDatagrams\n";
        assert_eq!(wrong_checksums(text), 7);
        assert_eq!(wrong_checksums("Udp: InDatagrams\nUdp: 1\n"), 0);
        assert_eq!(wrong_checksums(""), 0);
    }
}
