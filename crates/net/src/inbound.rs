//! TCP connections that a container has taken, whichever way they came: through this node's mesh, another's, or directly.
//! Read from `/proc/net/tcp` and `tcp6` of its namespace (proc_net_tcp(5)).

use std::collections::BTreeSet;
use std::{fs, io};

use crate::netns::Namespace;

/// `enum tcp_state` of the kernel.
const LISTEN: &str = "0A";
/// Established, half open, closing with something left to say, closed by the other side alone, closing at once, last word.
const OPEN: [&str; 6] = ["01", "03", "04", "08", "0B", "09"];

/// How many connections of others to a port of the namespace are open. Those within it do not count.
pub(crate) fn count(namespace: &Namespace) -> io::Result<usize> {
    let tables = namespace.enter(|| {
        let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        match read("tcp6") {
            // without IPv6
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![read("tcp")?]),
            six => Ok(vec![read("tcp")?, six?]),
        }
    })?;
    Ok(count_in(&tables))
}

/// A line's local address, local port and state.
fn socket(line: &str) -> Option<(&str, &str, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    Some((address, port, fields.nth(1)?))
}

fn count_in(tables: &[String]) -> usize {
    let sockets = || tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(socket);
    let listening: BTreeSet<&str> = sockets().filter(|it| it.2 == LISTEN).map(|it| it.1).collect();
    let is_inbound = |(address, port, state): &(&str, &str, &str)| {
        OPEN.contains(state) && listening.contains(port) && !is_loopback(address)
    };
    sockets().filter(is_inbound).count()
}

/// Addresses are written as words in the machine's order: 127.0.0.1 is `0100007F`.
fn is_loopback(address: &str) -> bool {
    const LOOPBACK6: &str = "00000000000000000000000001000000";
    const MAPPED: &str = "0000000000000000FFFF0000";
    let four = address.strip_prefix(MAPPED).or(Some(address).filter(|address| address.len() == 8));
    address == LOOPBACK6 || four.is_some_and(|four| four.ends_with("7F"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_others_to_open_ports_count() {
        let four = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            0: 00000000:232D 00000000:0000 0A 00000000:00000000\n\
            1: 0500000A:232D C900004D:9C40 01 00000000:00000000\n\
            2: 0500000A:232D C900004D:9C41 08 00000000:00000000\n\
            3: 0500000A:232D C900004D:9C42 06 00000000:00000000\n\
            4: 0100007F:232D 0100007F:9C43 01 00000000:00000000\n\
            5: 0500000A:9C44 0600000A:1538 01 00000000:00000000\n";
        let six = "  sl  local_address                         remote_address                        st\n\
            0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0\n\
            1: 0000000000000000FFFF00000500000A:1F90 0000000000000000FFFF0000C900004D:9C45 01 0:0\n\
            2: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:9C46 01 0:0\n\
            3: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:9C47 01 0:0\n";
        assert_eq!(count_in(&[four.to_owned(), six.to_owned()]), 3);
        assert_eq!(count_in(&["garbage\n1: x\n".to_owned()]), 0);
    }
}
