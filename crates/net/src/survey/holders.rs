//! Who listens on the swarm's ports, as `/proc` tells.

use std::collections::BTreeMap;
use std::fs;

use doctor::{Holder, Transport};

/// TCP's state of a listener.
const LISTENING: &str = "0A";
/// Processes looked at.
const MAX_PROCESSES: usize = 65_536;

/// Finds the holders; `data_path_port` is UDP.
pub(super) fn find(ports: &[u16], data_path_port: u16) -> Vec<Holder> {
    let mut sockets = Vec::new();
    for (transport, files) in
        [(Transport::Tcp, ["/proc/net/tcp", "/proc/net/tcp6"]), (Transport::Udp, ["/proc/net/udp", "/proc/net/udp6"])]
    {
        for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
            let wanted = |port: &u16| ports.contains(port) || (transport == Transport::Udp && *port == data_path_port);
            sockets.extend(listeners(&text, transport).filter(|(port, _)| wanted(port)).map(|it| (transport, it)));
        }
    }
    if sockets.is_empty() {
        return Vec::new();
    }
    let owners = owners(sockets.iter().map(|(_, (_, inode))| *inode).collect());
    let mut holders: Vec<Holder> = Vec::new();
    for (transport, (port, inode)) in sockets {
        let pid = owners.get(&inode).copied();
        let program = pid.map(|pid| (program(pid), pid));
        let is_daemon = pid == Some(std::process::id());
        let holder = Holder { transport, port, program, is_daemon };
        if !holders.contains(&holder) {
            holders.push(holder);
        }
    }
    holders
}

/// Port and inode of each listener.
fn listeners(text: &str, transport: Transport) -> impl Iterator<Item = (u16, u64)> + '_ {
    text.lines().skip(1).filter_map(move |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (local, remote, state, inode) = (words.get(1)?, words.get(2)?, words.get(3)?, words.get(9)?);
        let waits = match transport {
            Transport::Tcp => *state == LISTENING,
            // A socket with a peer takes nobody else's packets.
            Transport::Udp => remote.ends_with(":0000"),
        };
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        waits.then_some((port, inode.parse().ok()?))
    })
}

/// Processes that hold these sockets.
fn owners(wanted: Vec<u64>) -> BTreeMap<u64, u32> {
    let mut found = BTreeMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return found };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.take(MAX_PROCESSES) {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for target in files.flatten().filter_map(|file| fs::read_link(file.path()).ok()) {
            let text = target.to_string_lossy();
            let inode = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            if let Some(inode) = inode.and_then(|inode| inode.parse().ok())
                && wanted.contains(&inode)
            {
                found.entry(inode).or_insert(pid);
            }
        }
    }
    found
}

fn program(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).map(|name| name.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                    0: 00000000:1F0A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n\
                    1: 0100007F:1F0A 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n\
                    cut off\n";
        assert_eq!(listeners(text, Transport::Tcp).collect::<Vec<_>>(), [(7946, 4711)]);
        assert_eq!(listeners(text, Transport::Udp).collect::<Vec<_>>(), [(7946, 4711)]);
    }

    #[test]
    fn our_own_sockets_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let ports = [tcp.local_addr().expect("bound").port(), udp.local_addr().expect("bound").port()];
        let found = find(&ports[..1], ports[1]);
        for (transport, port) in [(Transport::Tcp, ports[0]), (Transport::Udp, ports[1])] {
            let holder = found.iter().find(|holder| (holder.transport, holder.port) == (transport, port));
            let holder = holder.expect("the holder");
            assert!(holder.is_daemon && holder.program.as_ref().is_some_and(|(_, pid)| *pid == std::process::id()));
        }
        drop(tcp);
        assert!(find(&ports[..1], 0).iter().all(|holder| holder.transport == Transport::Udp));
    }
}
