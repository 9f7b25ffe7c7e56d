//! Who holds which port of the host. A held TCP or UDP port is also bound, so that other programs see it is taken, and we
//! see theirs. A TCP port listens, as those look for it who ask what is open, but only while rules lead its connections away:
//! the kernel would take them, and nobody would answer.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, UdpSocket};
use std::ops::RangeInclusive;

use socket2::{Domain, Socket, Type};

use crate::{NetError, PortBinding, Protocol, PublishedPort};

/// dockerd's range for ports that nobody chose.
const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;
/// Sockets that are kept bound. Beyond, a port is tried once and then held by its rule alone, so that a machine with very
/// many ports does not run out of descriptors.
const HELD_SOCKETS_MAX: usize = 2048;

/// Connections that wait at a held port: there are none while its rules are in force.
const BACKLOG: i32 = 1;

/// A socket that nobody reads.
enum Held {
    Tcp { socket: Socket, is_listening: bool },
    Udp { _socket: UdpSocket },
    Nothing,
}

struct Holder {
    owner: String,
    address: Ipv4Addr,
    held: Held,
}

/// The ports this daemon holds.
#[derive(Default)]
pub(crate) struct PortTable {
    holders: BTreeMap<(Protocol, u16), Vec<Holder>>,
    next_ephemeral: BTreeMap<Protocol, u16>,
    held_sockets: usize,
}

/// Who asks, for error texts.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// Key under which the ports are released.
    pub(crate) owner: &'a str,
    /// Container name.
    pub(crate) name: &'a str,
    /// Endpoint id.
    pub(crate) endpoint_id: &'a str,
}

/// Why one port cannot be had.
enum Refusal {
    Allocated,
    InUse(io::Error),
}

impl PortTable {
    /// Takes all `bindings` or none.
    pub(crate) fn take(
        &mut self,
        asker: Asker<'_>,
        default_address: Ipv4Addr,
        bindings: &[PortBinding],
    ) -> Result<Vec<PublishedPort>, NetError> {
        let mut taken = Vec::new();
        for binding in bindings {
            match self.take_binding(asker, default_address, binding) {
                Ok(port) => taken.push(port),
                Err(error) => {
                    self.release_ports(asker.owner, &taken);
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    fn take_binding(
        &mut self,
        asker: Asker<'_>,
        default_address: Ipv4Addr,
        binding: &PortBinding,
    ) -> Result<PublishedPort, NetError> {
        let address = binding.host_address.unwrap_or(default_address);
        let published = |host_port| PublishedPort {
            protocol: binding.protocol,
            container_port: binding.container_port,
            host_address: address,
            host_port,
        };
        let is_choice = binding.host_port == 0 || binding.host_port_end > binding.host_port;
        if is_choice {
            for port in self.candidates(binding) {
                if self.hold(asker.owner, binding.protocol, address, port).is_ok() {
                    if binding.host_port == 0 {
                        self.next_ephemeral.insert(binding.protocol, port.wrapping_add(1));
                    }
                    return Ok(published(port));
                }
            }
            return Err(NetError::NoFreePort {
                name: asker.name.to_owned(),
                endpoint_id: asker.endpoint_id.to_owned(),
            });
        }
        let port = binding.host_port;
        match self.hold(asker.owner, binding.protocol, address, port) {
            Ok(()) => Ok(published(port)),
            Err(Refusal::Allocated) => Err(NetError::PortAllocated {
                name: asker.name.to_owned(),
                endpoint_id: asker.endpoint_id.to_owned(),
                address,
                port,
            }),
            Err(Refusal::InUse(error)) => Err(NetError::PortInUse {
                name: asker.name.to_owned(),
                endpoint_id: asker.endpoint_id.to_owned(),
                protocol: binding.protocol,
                address,
                port,
                reason: reason_text(&error),
            }),
        }
    }

    fn candidates(&self, binding: &PortBinding) -> Vec<u16> {
        if binding.host_port != 0 {
            return (binding.host_port..=binding.host_port_end).collect();
        }
        let next = self.next_ephemeral.get(&binding.protocol).copied().filter(|port| EPHEMERAL.contains(port));
        let next = next.unwrap_or(*EPHEMERAL.start());
        (next..=*EPHEMERAL.end()).chain(*EPHEMERAL.start()..next).collect()
    }

    fn hold(&mut self, owner: &str, protocol: Protocol, address: Ipv4Addr, port: u16) -> Result<(), Refusal> {
        if self.is_allocated(protocol, address, port) {
            return Err(Refusal::Allocated);
        }
        let held = bind(protocol, address, port).map_err(Refusal::InUse)?;
        self.keep((protocol, port), Holder { owner: owner.to_owned(), address, held });
        Ok(())
    }

    fn keep(&mut self, key: (Protocol, u16), mut holder: Holder) {
        if self.held_sockets >= HELD_SOCKETS_MAX {
            holder.held = Held::Nothing;
        }
        self.held_sockets += holder.held.sockets();
        self.holders.entry(key).or_default().push(holder);
    }

    fn is_allocated(&self, protocol: Protocol, address: Ipv4Addr, port: u16) -> bool {
        let meets =
            |holder: &Holder| holder.address == address || holder.address.is_unspecified() || address.is_unspecified();
        self.holders.get(&(protocol, port)).is_some_and(|holders| holders.iter().any(meets))
    }

    /// Takes ports again that were open before the daemon started; one that another program has bound meanwhile stays
    /// ours, for its rules are in force.
    pub(crate) fn adopt(&mut self, owner: &str, ports: &[PublishedPort]) {
        for port in ports {
            let is_full = self.held_sockets >= HELD_SOCKETS_MAX;
            let bound =
                if is_full { Ok(Held::Nothing) } else { bind(port.protocol, port.host_address, port.host_port) };
            let held = bound.unwrap_or_else(|error| {
                tracing::warn!(%error, port = port.host_port, protocol = %port.protocol, "published port cannot be held");
                Held::Nothing
            });
            let holder = Holder { owner: owner.to_owned(), address: port.host_address, held };
            self.keep((port.protocol, port.host_port), holder);
        }
    }

    /// Gives all ports of an owner back.
    pub(crate) fn release(&mut self, owner: &str) {
        self.holders.retain(|_, holders| {
            drop_holders(holders, &mut self.held_sockets, |holder| holder.owner == owner);
            !holders.is_empty()
        });
    }

    /// Gives some ports of an owner back.
    pub(crate) fn release_ports(&mut self, owner: &str, ports: &[PublishedPort]) {
        for port in ports {
            let key = (port.protocol, port.host_port);
            if let Some(holders) = self.holders.get_mut(&key) {
                let is_this = |holder: &Holder| holder.owner == owner && holder.address == port.host_address;
                drop_holders(holders, &mut self.held_sockets, is_this);
                if holders.is_empty() {
                    self.holders.remove(&key);
                }
            }
        }
    }
}

impl PortTable {
    /// Rules lead the connections to these ports away from now on.
    pub(crate) fn listen(&mut self, ports: impl IntoIterator<Item = (Protocol, u16)>) {
        for key in ports {
            for holder in self.holders.get_mut(&key).into_iter().flatten() {
                holder.held.listen().unwrap_or_else(|error| {
                    tracing::warn!(%error, port = key.1, "a published port is not seen to listen");
                });
            }
        }
    }

    /// Refuses the connections that came while rules were missing; they would wait for ever.
    pub(crate) fn refuse_waiting(&mut self) {
        for holder in self.holders.values_mut().flatten() {
            holder.held.refuse_waiting().unwrap_or_else(|error| {
                tracing::warn!(%error, address = %holder.address, "a published port is not seen to listen");
            });
        }
    }
}

impl Held {
    fn listen(&mut self) -> io::Result<()> {
        let Self::Tcp { socket, is_listening: is_listening @ false } = self else { return Ok(()) };
        socket.listen(BACKLOG)?;
        *is_listening = true;
        Ok(())
    }

    fn refuse_waiting(&mut self) -> io::Result<()> {
        let Self::Tcp { socket, is_listening: is_listening @ true } = self else { return Ok(()) };
        socket.shutdown(Shutdown::Read)?;
        *is_listening = false;
        self.listen()
    }

    fn sockets(&self) -> usize {
        usize::from(!matches!(self, Self::Nothing))
    }
}

fn drop_holders(holders: &mut Vec<Holder>, held_sockets: &mut usize, is_dropped: impl Fn(&Holder) -> bool) {
    holders.retain(|holder| {
        let is_dropped = is_dropped(holder);
        if is_dropped {
            *held_sockets -= holder.held.sockets();
        }
        !is_dropped
    });
}

fn bind(protocol: Protocol, address: Ipv4Addr, port: u16) -> io::Result<Held> {
    Ok(match protocol {
        Protocol::Tcp => {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            // connections of a program that had the port are no hindrance
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddrV4::new(address, port).into())?;
            // another that reuses the address as well cannot listen beside this one
            socket.set_reuse_address(false)?;
            Held::Tcp { socket, is_listening: false }
        }
        Protocol::Udp => Held::Udp { _socket: UdpSocket::bind((address, port))? },
        Protocol::Sctp => Held::Nothing,
    })
}

/// The system's words as Go writes them.
fn reason_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "address already in use".to_owned(),
        Some(libc::EADDRNOTAVAIL) => "cannot assign requested address".to_owned(),
        Some(libc::EACCES) => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const ASKER: Asker<'_> = Asker { owner: "c1", name: "web", endpoint_id: "e1" };

    fn connect(port: u16) -> io::Result<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
    }

    #[test]
    fn a_port_refuses_until_its_rules_are_there() {
        let mut table = PortTable::default();
        let port = table.take(ASKER, Ipv4Addr::UNSPECIFIED, &[binding(0)]).unwrap()[0].host_port;
        assert_eq!(connect(port).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err(), "it is held all the same");
        table.listen([(Protocol::Tcp, port)]);
        let mut waiting = connect(port).unwrap();
        table.refuse_waiting();
        assert_eq!(waiting.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        connect(port).unwrap();
    }

    fn binding(host_port: u16) -> PortBinding {
        PortBinding {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_address: Some(Ipv4Addr::LOCALHOST),
            host_port,
            host_port_end: 0,
        }
    }

    #[test]
    fn a_port_is_given_once_and_again_after_release() {
        let mut table = PortTable::default();
        let port = table.take(ASKER, Ipv4Addr::UNSPECIFIED, &[binding(0)]).unwrap()[0].host_port;
        assert!(EPHEMERAL.contains(&port));
        let error = table.take(ASKER, Ipv4Addr::UNSPECIFIED, &[binding(port)]).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "driver failed programming external connectivity on endpoint web (e1): \
                 Bind for 127.0.0.1:{port} failed: port is already allocated"
            )
        );
        table.release("c1");
        assert!(table.take(ASKER, Ipv4Addr::UNSPECIFIED, &[binding(port)]).is_ok());
    }

    #[test]
    fn a_port_of_another_program_is_in_use_and_nothing_is_kept() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let mut table = PortTable::default();
        let error = table.take(ASKER, Ipv4Addr::UNSPECIFIED, &[binding(0), binding(port)]).unwrap_err().to_string();
        assert!(error.ends_with(&format!("listen tcp4 127.0.0.1:{port}: bind: address already in use")), "{error}");
        assert!(table.holders.is_empty());
    }
}
