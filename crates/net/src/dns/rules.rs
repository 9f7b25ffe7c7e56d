//! The rules that lead 127.0.0.11:53 of a container to the sockets of its name server, and answers back.

use std::io;

use super::RESOLVER_ADDRESS;
use crate::nft::{Batch, Cmp, Hook, OUTPUT, POSTROUTING, Rule, Socket, Table};
use crate::{Ipv4Cidr, Protocol, conntrack};

const PORT: u16 = 53;

/// Ports of a name server's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) udp: u16,
    pub(super) tcp: u16,
}

/// Writes the rules into the thread's namespace, in place of those for the sockets of a former daemon.
pub(super) fn install(prefix: &str, ports: Ports) -> io::Result<()> {
    let mut socket = Socket::open()?;
    socket.commit(rules(prefix, ports))?;
    // A program that asks from one socket for long would go on to ask where nobody listens any more.
    conntrack::delete(&mut socket, |flow| flow.protocol == Protocol::Udp.number() && flow.answers == RESOLVER_ADDRESS)
}

fn rules(prefix: &str, ports: Ports) -> Batch {
    let mut batch = Batch::new();
    let table = Table::ip(format!("{prefix}-dns"));
    batch.replace_table(&table);
    batch.add_base_chain(&table, "ask", &Hook::nat(OUTPUT));
    batch.add_base_chain(&table, "answer", &Hook::nat(POSTROUTING));
    let server = Ipv4Cidr::new(RESOLVER_ADDRESS, 32);
    for (protocol, port) in [(Protocol::Udp, ports.udp), (Protocol::Tcp, ports.tcp)] {
        let asked = Rule::new().daddr(Cmp::Eq, server).protocol(protocol).dport(PORT);
        batch.add_rule(&table, "ask", &asked.dnat(RESOLVER_ADDRESS, Some(port)));
        // An answer that comes after its connection has been forgotten.
        let answered = Rule::new().saddr(Cmp::Eq, server).protocol(protocol).sport(port);
        batch.add_rule(&table, "answer", &answered.snat_port(PORT));
    }
    batch
}
