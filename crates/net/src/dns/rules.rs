//! The rules that lead 127.0.0.11:53 of a container to the sockets of its name server, and answers back.

use std::io;

use serde::{Deserialize, Serialize};

use super::RESOLVER_ADDRESS;
use crate::nft::{Batch, Cmp, Hook, OUTPUT, POSTROUTING, Rule, Socket, Table};
use crate::{Ipv4Cidr, Protocol, conntrack};

const PORT: u16 = 53;

/// Ports of a name server's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(super) udp: u16,
    pub(super) tcp: u16,
}

/// Writes the rules into the thread's namespace, in place of what a former daemon left.
pub(super) fn install(prefix: &str, ports: Ports) -> io::Result<()> {
    Socket::open()?.commit(rules(prefix, ports))
}

/// Ends the flows to sockets of a former daemon: a program that asks from one socket for long would go on to ask where
/// nobody listens any more. Reads the kernel's whole table, 10 ms.
pub(super) fn end_flows() -> io::Result<()> {
    let is_ours = |flow: &conntrack::Flow| flow.answers == RESOLVER_ADDRESS;
    conntrack::delete(&mut Socket::open()?, is_ours)
}

fn rules(prefix: &str, ports: Ports) -> Batch {
    let mut batch = Batch::new();
    let table = Table::ip(format!("{prefix}-dns"));
    // only the rules of what is there are replaced: questions go on meanwhile
    batch.add_table(&table);
    for (chain, hook) in [("ask", OUTPUT), ("answer", POSTROUTING)] {
        batch.add_base_chain(&table, chain, &Hook::nat(hook));
        batch.flush_chain(&table, chain);
    }
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
