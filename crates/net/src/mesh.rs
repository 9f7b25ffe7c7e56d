//! The table of the ingress sandbox: (protocol, published port) -> one of the service's tasks. The source address stays the
//! client's where the task's node knows the way back.

use std::net::Ipv4Addr;

use crate::balance::{self, Group, Kind, Service, Tag};
use crate::conntrack::Flow;
use crate::nft::{
    Batch, Cmp, DataType, Expr, FORWARD, Hook, POSTROUTING, PREROUTING, R1, Rule, SetRef, Table, Verdict, proto_port,
};
use crate::store::ServiceRecord;
use crate::{BackendNode, ClientAddress, Ipv4Cidr, Protocol};

/// Link of the sandbox to the gateway bridge.
pub(crate) const GATEWAY_LINK: &str = "eth1";

/// A published port.
pub(crate) type Port = (Protocol, u16);

/// Connections to published ports.
pub(crate) struct PublishedPorts {
    /// This node's address on the ingress network.
    pub(crate) own: Ipv4Addr,
    /// The gateway bridge's network. This node itself and its containers ask from there; other nodes have the same.
    pub(crate) near: Ipv4Cidr,
}

impl Kind for PublishedPorts {
    type Key = Port;
    const KEY: DataType = DataType::ProtoPort;

    fn bytes((protocol, port): Port) -> Vec<u8> {
        proto_port(protocol, port)
    }

    fn of(flow: &Flow) -> Port {
        (Protocol::Udp, flow.port)
    }

    fn write_frame(&self, batch: &mut Batch, table: &Table) {
        balance::write_sets::<Self>(batch, table);
        batch.add_base_chain(table, "prerouting", &Hook::nat(PREROUTING));
        let asked = Rule::new().iif(Cmp::Eq, GATEWAY_LINK).key_proto_port();
        batch.add_rule(table, "prerouting", &asked.with([balance::dispatch()]));
        batch.add_base_chain(table, "postrouting", &Hook::nat(POSTROUTING));
        let tagged = |rule: Rule, tag: Tag| {
            let set = SetRef { name: tag.set().to_owned(), id: 0 };
            rule.dnatted().key_destination(R1).with([Expr::Lookup { set, reg: R1, into: None }]).snat(self.own)
        };
        batch.add_rule(table, "postrouting", &tagged(Rule::new(), Tag::Hidden));
        batch.add_rule(table, "postrouting", &tagged(Rule::new().saddr(Cmp::Eq, self.near), Tag::Away));
        write_forward(batch, table);
    }
}

/// Only what has been translated is passed on.
pub(crate) fn write_forward(batch: &mut Batch, table: &Table) {
    batch.add_base_chain(table, "forward", &Hook::filter(FORWARD, 0));
    for rule in [
        Rule::new().established().verdict(Verdict::Accept),
        Rule::new().dnatted().verdict(Verdict::Accept),
        Rule::new().verdict(Verdict::Drop),
    ] {
        batch.add_rule(table, "forward", &rule);
    }
}

/// A service as the table has it.
pub(crate) fn service(record: &ServiceRecord) -> Service<Port> {
    let mut service = Service::default();
    for group in &record.groups {
        let mut backends: Vec<Ipv4Addr> = group.backends.iter().map(|backend| backend.address).collect();
        backends.sort_unstable();
        backends.dedup();
        let mut keys: Vec<Port> = group.ports.iter().map(|port| (port.protocol, port.published_port)).collect();
        keys.sort_unstable();
        keys.dedup();
        service.groups.push(Group { keys, backends });
        for backend in &group.backends {
            let tag = match (backend.node, record.clients) {
                (BackendNode::Foreign, _) | (_, ClientAddress::Hidden) => Tag::Hidden,
                (BackendNode::Keeping, ClientAddress::Kept) => Tag::Away,
                (BackendNode::Here, ClientAddress::Kept) => continue,
            };
            service.tags.insert((tag, backend.address));
        }
    }
    service
}
