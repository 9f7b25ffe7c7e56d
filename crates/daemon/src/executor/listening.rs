//! Whether a started program has opened its published ports. A container runs from the moment its program is executed, but
//! a connection that comes before the program listens is refused; so a task without a health check is waited for until it
//! listens, or for a bounded time if it never does.
//!
//! Read from `/proc/<pid>/net/{tcp,tcp6,udp,udp6}`, which shows the sockets of that process's network namespace.

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
        let (tables, stream) = match port.protocol {
            PortProtocol::Tcp => (["tcp", "tcp6"], true),
            PortProtocol::Udp => (["udp", "udp6"], false),
            // Their table is there only where the kernel has SCTP.
            PortProtocol::Sctp => continue,
        };
        let mut open = false;
        for table in tables {
            match std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) {
                Ok(text) => open |= has_socket(&text, port.target_port, stream),
                // Without IPv6 there is no such table.
                Err(_) if table.ends_with('6') => {}
                Err(_) => return None,
            }
        }
        if !open {
            return Some(false);
        }
    }
    Some(true)
}

fn has_socket(table: &str, port: u32, stream: bool) -> bool {
    table.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (Some(local), _, Some(state)) = (words.next(), words.next(), words.next()) else { return false };
        let Some((address, local_port)) = local.split_once(':') else { return false };
        let is_loopback = address == "0100007F" || address == "00000000000000000000000001000000";
        u32::from_str_radix(local_port, 16) == Ok(port) && !is_loopback && (!stream || state == LISTEN)
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
        assert!(has_socket(table, 9005, true));
        assert!(!has_socket(table, 80, true), "only loopback");
        assert!(!has_socket(table, 8080, true), "a connection is no listener");
        assert!(has_socket(table, 8080, false), "datagram sockets have no such state");
    }

    #[test]
    fn a_process_that_is_gone_is_not_waited_for() {
        let port = PortConfig { target_port: 1, ..PortConfig::default() };
        assert_eq!(is_listening(i64::from(i32::MAX), &[port]), None);
    }
}
