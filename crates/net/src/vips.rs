//! The table of a network's balancer: a service's address -> one of its tasks. Connections come from the balancer's own
//! address, so that they go back through it; the port stays.

use std::net::Ipv4Addr;

use crate::Protocol;
use crate::balance::{self, Group, Kind, Service};
use crate::conntrack::Flow;
use crate::mesh::write_forward;
use crate::nft::{Batch, DataType, Hook, POSTROUTING, PREROUTING, R1, Rule, Table};
use crate::store::VirtualRecord;

/// Connections to services' own addresses.
pub(crate) struct VirtualAddresses {
    /// This node's address on the network.
    pub(crate) own: Ipv4Addr,
}

/// Anything else that asks a service's address, such as an echo request, is answered by the balancer itself.
const BALANCED: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

impl Kind for VirtualAddresses {
    type Key = Ipv4Addr;
    const KEY: DataType = DataType::Address;

    fn bytes(address: Ipv4Addr) -> Vec<u8> {
        address.octets().to_vec()
    }

    fn of(flow: &Flow) -> Ipv4Addr {
        flow.asked
    }

    fn write_frame(&self, batch: &mut Batch, table: &Table) {
        balance::write_sets::<Self>(batch, table);
        batch.add_base_chain(table, "prerouting", &Hook::nat(PREROUTING));
        for protocol in BALANCED {
            let asked = Rule::new().protocol(protocol).key_destination(R1);
            batch.add_rule(table, "prerouting", &asked.with([balance::dispatch()]));
        }
        batch.add_base_chain(table, "postrouting", &Hook::nat(POSTROUTING));
        batch.add_rule(table, "postrouting", &Rule::new().dnatted().snat(self.own));
        write_forward(batch, table);
    }
}

/// A service as the table has it.
pub(crate) fn service(record: &VirtualRecord) -> Service<Ipv4Addr> {
    let group = Group { keys: vec![record.address], backends: record.backends.clone() };
    Service { groups: vec![group], ..Service::default() }
}
