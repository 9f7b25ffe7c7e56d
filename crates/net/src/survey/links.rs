//! Links, addresses, routes, and VXLAN links of the machine's own namespace.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use doctor::{Cidr, Host, Link, Route, VxlanLink};
use futures::TryStreamExt;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use crate::links::{Links, os_error};

const LOCAL_TABLE: u8 = 255;

pub(super) async fn fill(links: &Links, host: &mut Host) -> io::Result<()> {
    let messages: Vec<LinkMessage> = links.handle.link().get().execute().try_collect().await.map_err(os_error)?;
    let mut found: BTreeMap<u32, Link> = messages.iter().map(|message| (message.header.index, link(message))).collect();
    host.vxlans = messages.iter().filter_map(vxlan).collect();
    let addresses: Vec<_> = links.handle.address().get().execute().try_collect().await.map_err(os_error)?;
    for message in addresses {
        let Some(link) = found.get_mut(&message.header.index) else { continue };
        let prefix = message.header.prefix_len;
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address = address.or_else(|| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        });
        match address {
            Some(IpAddr::V4(address)) => link.addresses.push(Cidr::new(address, prefix)),
            Some(IpAddr::V6(address)) => link.addresses6.push(address),
            None => {}
        }
    }
    let request = links.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
    let routes: Vec<RouteMessage> = request.execute().try_collect().await.map_err(os_error)?;
    host.routes = routes.iter().filter_map(|message| route(message, &found)).collect();
    host.links = found.into_values().collect();
    Ok(())
}

fn link(message: &LinkMessage) -> Link {
    let mut link =
        Link { index: message.header.index, is_up: message.header.flags.contains(LinkFlags::Up), ..Link::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}

fn vxlan(message: &LinkMessage) -> Option<VxlanLink> {
    let data = message.attributes.iter().find_map(|attribute| {
        let LinkAttribute::LinkInfo(infos) = attribute else { return None };
        infos.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
            _ => None,
        })
    })?;
    let mut found = VxlanLink { name: link(message).name, ..VxlanLink::default() };
    for info in data {
        match info {
            InfoVxlan::Id(vni) => found.vni = *vni,
            InfoVxlan::Port(port) => found.port = *port,
            _ => {}
        }
    }
    Some(found)
}

fn route(message: &RouteMessage, links: &BTreeMap<u32, Link>) -> Option<Route> {
    if message.header.table == LOCAL_TABLE || message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut route = Route { destination: Cidr::new(destination, 0), link: None, gateway: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(*address),
            RouteAttribute::Oif(index) => route.link = links.get(index).map(|link| link.name.clone()),
            _ => {}
        }
    }
    route.destination = Cidr::new(destination, message.header.destination_prefix_length);
    Some(route)
}
