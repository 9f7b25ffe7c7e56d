//! A task as the others know it: the record of its endpoint on one network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use discovery::{EndpointRecord, Ingress, Port, Protocol};
use model::{PortConfig, PortProtocol, PublishMode, Task};
use net::{Ipv4Cidr, NameRecord};

use super::{request, task_name};
use crate::overlay::address_of;

/// The record; `None` if the task is not on the network.
pub(super) fn endpoint_record(
    task: &Task,
    container: &str,
    hostname: &str,
    network_id: &str,
) -> Option<EndpointRecord> {
    let on_it = |attachment: &&model::NetworkAttachment| {
        attachment.network.as_ref().is_some_and(|network| network.id.as_str() == network_id)
    };
    let attachment = task.networks.iter().find(on_it)?;
    let network = attachment.network.as_ref()?;
    let name = task_name(task);
    let virtual_ips = task.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
    let virtual_ip = virtual_ips.clone().find(|virtual_ip| virtual_ip.network_id.as_str() == network_id);
    let virtual_ip: Option<Ipv4Addr> = virtual_ip.and_then(|it| it.addr.split('/').next()?.parse().ok());
    let ports = request::ports(task, PublishMode::Ingress).filter(|_| network.spec.ingress).filter_map(port);
    Some(EndpointRecord {
        service_name: task.service_annotations.name.clone(),
        service_id: task.service_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        virtual_ip: virtual_ip.map(IpAddr::V4),
        address: address_of(attachment).map(|it: Ipv4Cidr| it.address.into()),
        ports: ports.collect(),
        aliases: attachment.aliases.clone(),
        task_aliases: NameRecord::aliases_of(&name, &[], container, hostname),
        name,
        disabled: false,
        ingress: ingress(&task.service_annotations.labels),
    })
}

/// `skep.ingress.locality=prefer` and `skep.ingress.snat=always`.
fn ingress(labels: &BTreeMap<String, String>) -> Ingress {
    let is = |label: &str, value: &str| labels.get(label).is_some_and(|given| given == value);
    Ingress { prefers_local: is("skep.ingress.locality", "prefer"), hides_clients: is("skep.ingress.snat", "always") }
}

fn port(port: &PortConfig) -> Option<Port> {
    Some(Port {
        protocol: match port.protocol {
            PortProtocol::Tcp => Protocol::Tcp,
            PortProtocol::Udp => Protocol::Udp,
            PortProtocol::Sctp => Protocol::Sctp,
        },
        published: u16::try_from(port.published_port).ok().filter(|port| *port != 0)?,
        target: u16::try_from(port.target_port).ok()?,
    })
}
