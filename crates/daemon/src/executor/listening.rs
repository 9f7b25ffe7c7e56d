//! Whether a started program has opened its published ports. A container runs from the moment its program is executed, but
//! a connection that comes before the program listens is refused; so a task without a health check is waited for until it
//! listens, or for a bounded time if it never does.
//!
//! Read from `/proc/<pid>/net/{tcp,tcp6,udp,udp6,sctp/eps}`, which shows the sockets of that process's network namespace.

use std::time::Duration;

use model::{PortConfig, PortProtocol};
use tokio::time::Instant;

/// How long a program may take to listen before the task counts as running all the same.
const LIMIT: Duration = Duration::from_secs(5);
/// Time between the first two looks; it doubles.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);
/// Longest time between two looks.
const LONGEST_LOOK: Duration = Duration::from_millis(50);
/// `st` of a listening TCP socket (`TCP_LISTEN`).
const LISTEN: &str = "0A";
/// `SST` of a listening SCTP socket.
const SCTP_LISTEN: &str = "10";
/// As the table of SCTP endpoints has it.
const LOOPBACK6: &str = "0000:0000:0000:0000:0000:0000:0000:0001";

/// Waits until every port that can be seen is open in the process's namespace, the process is gone, or the time is over.
pub(super) async fn until_listening(pid: i64, ports: &[PortConfig]) {
    let deadline = Instant::now() + LIMIT;
    let mut pause = SHORTEST_LOOK;
    while Instant::now() < deadline {
        match is_listening(pid, ports) {
            Some(false) => {}
            Some(true) | None => return,
        }
        // The kernel has no event for it that does not need a filter in the container's namespace.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_LOOK);
    }
    tracing::debug!(pid, "a task does not listen on its published ports");
}

/// `None`: the process is gone.
fn is_listening(pid: i64, ports: &[PortConfig]) -> Option<bool> {
    for port in ports {
        let (tables, has_socket): (&[&str], Finder) = match port.protocol {
            PortProtocol::Tcp => (&["tcp", "tcp6"], has_listener),
            PortProtocol::Udp => (&["udp", "udp6"], has_datagram_socket),
            PortProtocol::Sctp => (&["sctp/eps"], has_sctp_listener),
        };
        let mut open = false;
        for table in tables {
            match std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) {
                Ok(text) => open |= has_socket(&text, port.target_port),
                // Without IPv6 there is no such table.
                Err(_) if table.ends_with('6') => {}
                // It comes with the kernel's module; where that cannot be loaded, nobody will listen.
                Err(_) if port.protocol == PortProtocol::Sctp => open = true,
                Err(_) => return None,
            }
        }
        if !open {
            return Some(false);
        }
    }
    Some(true)
}

/// Looks for a port in the text of a table.
type Finder = fn(&str, u32) -> bool;

fn has_listener(table: &str, port: u32) -> bool {
    sockets(table).any(|(local_port, state)| local_port == port && state == LISTEN)
}

fn has_datagram_socket(table: &str, port: u32) -> bool {
    sockets(table).any(|(local_port, _)| local_port == port)
}

/// Port and state of each socket that more than the container itself can reach.
fn sockets(table: &str) -> impl Iterator<Item = (u32, &str)> {
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _, state) = (words.next()?, words.next()?, words.next()?);
        let (address, port) = local.split_once(':')?;
        let is_loopback = address == "0100007F" || address == "00000000000000000000000001000000";
        let port = u32::from_str_radix(port, 16).ok()?;
        (!is_loopback).then_some((port, state))
    })
}

/// Here numbers are decimal, and an endpoint has several addresses.
fn has_sctp_listener(table: &str, port: u32) -> bool {
    table.lines().skip(1).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, state, _, local_port, _, _, addresses @ ..] = words.as_slice() else { return false };
        let is_loopback = |address: &&str| address.starts_with("127.") || *address == LOOPBACK6;
        *state == SCTP_LISTEN && local_port.parse() == Ok(port) && !addresses.iter().all(is_loopback)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_found() {
        let table = "  sl  local_address rem_address   st\n\
             0: 0100007F:0050 00000000:0000 0A 0\n\
             1: 00000000:232D 00000000:0000 0A 0\n\
             2: 00000000:1F90 0100007F:C350 01 0\n";
        assert!(has_listener(table, 9005));
        assert!(!has_listener(table, 80), "only loopback");
        assert!(!has_listener(table, 8080), "a connection is no listener");
        assert!(has_datagram_socket(table, 8080), "datagram sockets have no such state");
    }

    #[test]
    fn listening_sctp_sockets_are_found() {
        let table = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n\
             0000000000000000 0000000000000000 2   10  30   9006      0  5523 0.0.0.0 \n\
             0000000000000000 0000000000000000 2   10  31   9007      0  5524 127.0.0.1 \n\
             0000000000000000 0000000000000000 2   7   32   9008      0  5525 10.0.0.5 \n\
             0000000000000000 0000000000000000 2   10  33   9009      0  5526 127.0.0.1 10.0.0.5 \n";
        assert!(has_sctp_listener(table, 9006));
        assert!(!has_sctp_listener(table, 9007), "only loopback");
        assert!(!has_sctp_listener(table, 9008), "it does not listen");
        assert!(has_sctp_listener(table, 9009), "one address is enough");
        assert!(!has_sctp_listener(table, 9010));
    }

    #[test]
    fn a_process_that_is_gone_is_not_waited_for() {
        let port = PortConfig { target_port: 1, ..PortConfig::default() };
        assert_eq!(is_listening(i64::from(i32::MAX), &[port]), None);
    }
}
