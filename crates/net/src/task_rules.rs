//! The rules in a task's namespace that is on the ingress network.
//!
//! Requests come in on `eth0` with the client's own address; the default route is `eth1`. So that a reply goes back to the
//! ingress sandbox that asked, and not out of `eth1`:
//!
//! ```text
//! in   mangle  last four bytes of the source MAC (an ingress sandbox's is 02:42 + its address) -> conntrack mark, packet mark
//!      nat     published port -> target port
//!      tcp     packet mark of the first packet -> mark of the accepted socket (tcp_fwmark_accept)
//! out  route   conntrack mark -> packet mark; the packet is routed anew, unless its socket's mark led it that way already
//!      rule    mark within the ingress subnet -> a table with one gateway on eth0, known only as a neighbour 02:42:00:00:00:00
//!      egress  last four bytes of the destination MAC <- packet mark
//! ```
//! All else is dropped on the ingress address, as dockerd does.

use crate::links::{Links, ReturnPath};
use crate::netns::Namespace;
use crate::nft::{
    Base, Batch, Cmp, Ct, DataType, Expr, Family, Hook, Meta, OUTPUT, PREROUTING, R1, Rule, Socket, Table, Value,
    Verdict, proto_port,
};
use crate::state::kernel;
use crate::{IngressPort, Ipv4Cidr, NetConfig, NetError, Protocol};
use std::net::Ipv4Addr;

/// Link on the ingress network.
const MESH_LINK: &str = "eth0";
/// Routing table, and priority of the rule that leads to it.
const TABLE: u32 = 1053;
/// A link-local gateway that nobody has.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 255, 253);
/// Its hardware address before the egress chain fills in the last four bytes.
const GATEWAY_MAC: [u8; 6] = [0x02, 0x42, 0, 0, 0, 0];
const PORTS: &str = "published";

/// A task's place in the mesh.
pub(crate) struct TaskMesh<'a> {
    /// Address on the ingress network.
    pub(crate) address: Ipv4Cidr,
    /// Address on the gateway bridge.
    pub(crate) gateway_address: Ipv4Addr,
    /// Published ports.
    pub(crate) ports: &'a [IngressPort],
}

/// Writes everything into a namespace whose links are up.
pub(crate) async fn install(
    config: &NetConfig,
    namespace: &Namespace,
    links: &Links,
    mesh: &TaskMesh<'_>,
) -> Result<(), NetError> {
    let network = mesh.address.network();
    // marks are the bytes of an address as they stand in a packet
    let path = ReturnPath {
        index: links.existing_index(MESH_LINK).await.map_err(kernel("find the link to the ingress"))?,
        table: TABLE,
        gateway: GATEWAY,
        gateway_mac: GATEWAY_MAC,
        mark: u32::from_ne_bytes(network.address.octets()),
        mask: u32::from_ne_bytes(network.mask().to_be_bytes()),
    };
    links.add_return_path(&path).await.map_err(kernel("set the way back to the ingress"))?;
    let batch = rules(&config.table_prefix, mesh);
    let commit = || namespace.enter(|| Socket::open()?.commit(batch));
    commit().map_err(kernel("write a task's rules"))
}

fn rules(prefix: &str, mesh: &TaskMesh<'_>) -> Batch {
    let mut batch = Batch::new();
    let table = Table::ip(format!("{prefix}-task"));
    batch.add_table(&table);
    batch.add_set(&table, PORTS, DataType::ProtoPort, None);
    write_guard(&mut batch, &table, mesh);
    write_translation(&mut batch, &table, mesh);
    write_way_back(&mut batch, &table, prefix, mesh);
    let keys = mesh.ports.iter().map(|port| (proto_port(port.protocol, port.published_port), Value::None));
    let keys: std::collections::BTreeMap<_, _> = keys.collect();
    batch.add_elements(&table, PORTS, &keys.into_iter().collect::<Vec<_>>());
    batch
}

const GUARDED: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Only published ports come in, and only replies go out.
fn write_guard(batch: &mut Batch, table: &Table, mesh: &TaskMesh<'_>) {
    let own = Ipv4Cidr::new(mesh.address.address, 32);
    batch.add_base_chain(table, "guard-in", &Hook::filter(PREROUTING, -150));
    let outside = Rule::new().iif(Cmp::Neq, MESH_LINK).verdict(Verdict::Accept);
    batch.add_rule(table, "guard-in", &outside);
    // a request relayed by a dockerd node has its ingress address as source: the usual route leads back
    let near = Rule::new().saddr(Cmp::Eq, mesh.address).proto_port_in(PORTS).verdict(Verdict::Accept);
    batch.add_rule(table, "guard-in", &near);
    let source_mac_tail = Expr::Payload { base: Base::Link, offset: 8, len: 4, reg: R1 };
    let far = Rule::new().proto_port_in(PORTS).with([
        source_mac_tail,
        Expr::CtSet(Ct::Mark, R1),
        Expr::MetaSet(Meta::Mark, R1),
    ]);
    batch.add_rule(table, "guard-in", &far.verdict(Verdict::Accept));
    batch.add_base_chain(table, "guard-out", &Hook::filter(OUTPUT, 0));
    let inside = Rule::new().oif(Cmp::Eq, "lo").verdict(Verdict::Accept);
    batch.add_rule(table, "guard-out", &inside);
    batch.add_rule(table, "guard-out", &Rule::new().direction(1).verdict(Verdict::Accept));
    for protocol in GUARDED {
        batch.add_rule(table, "guard-in", &Rule::new().protocol(protocol).verdict(Verdict::Drop));
        let begun = Rule::new().saddr(Cmp::Eq, own).protocol(protocol).direction(0);
        batch.add_rule(table, "guard-out", &begun.verdict(Verdict::Drop));
    }
}

/// Published port to target port.
fn write_translation(batch: &mut Batch, table: &Table, mesh: &TaskMesh<'_>) {
    batch.add_base_chain(table, "target", &Hook::nat(PREROUTING));
    for port in mesh.ports {
        let arrives = Rule::new().iif(Cmp::Eq, MESH_LINK).protocol(port.protocol).dport(port.published_port);
        if port.protocol == Protocol::Tcp {
            batch.add_rule(table, "target", &arrives.redirect(port.target_port));
            continue;
        }
        // A datagram server that listens on every address answers from the address that the route to the client has:
        // the gateway's. Were it asked on another, conntrack would not know its answer.
        let near = arrives.clone().saddr(Cmp::Eq, mesh.address).redirect(port.target_port);
        batch.add_rule(table, "target", &near);
        batch.add_rule(table, "target", &arrives.dnat(mesh.gateway_address, Some(port.target_port)));
    }
}

fn write_way_back(batch: &mut Batch, table: &Table, prefix: &str, mesh: &TaskMesh<'_>) {
    let network = mesh.address.network();
    let in_network = [
        Expr::Bitwise { reg: R1, mask: network.mask().to_be_bytes() },
        Expr::Cmp(Cmp::Eq, R1, network.address.octets().to_vec()),
    ];
    batch.add_base_chain(table, "way-back", &Hook::route(-150));
    let restore = Rule::new().direction(1).with([Expr::Ct(Ct::Mark, R1)]).with(in_network.clone());
    let restore = restore.with([Expr::Ct(Ct::Mark, R1), Expr::MetaSet(Meta::Mark, R1)]);
    batch.add_rule(table, "way-back", &restore);
    let device = Table { family: Family::Netdev, name: format!("{prefix}-task") };
    batch.add_table(&device);
    batch.add_base_chain(&device, "way-back", &Hook::egress(MESH_LINK));
    let rewrite = Rule::new().with([Expr::Meta(Meta::Mark, R1)]).with(in_network).with([
        Expr::Meta(Meta::Mark, R1),
        Expr::PayloadSet { base: Base::Link, offset: 2, len: 4, reg: R1, checksum: None },
    ]);
    batch.add_rule(&device, "way-back", &rewrite);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::mac_of;

    #[test]
    fn the_gateways_hardware_address_has_the_head_of_all() {
        assert_eq!(mac_of(Ipv4Addr::UNSPECIFIED), GATEWAY_MAC);
    }
}
