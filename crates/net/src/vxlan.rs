//! VXLAN devices, and the forwarding and neighbour entries that lead to other nodes.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use futures::{StreamExt, TryStreamExt, stream};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{LinkBridgePort, LinkUnspec, LinkVxlan};

use crate::links::{Links, os_error};
use crate::netns::Namespace;

/// Requests that are under way at once.
const REQUESTS_AT_ONCE: usize = 64;

/// A VXLAN device to be made.
pub(crate) struct Vxlan<'a> {
    pub(crate) name: &'a str,
    pub(crate) vni: u32,
    /// UDP port that it listens on; without an own one, also that of the other nodes.
    pub(crate) port: u16,
    /// The port is an encrypted network's own: it sends from there as well.
    pub(crate) is_own_port: bool,
    /// Source address of the tunnels; the route's if `None`.
    pub(crate) local: Option<Ipv4Addr>,
    pub(crate) mtu: u32,
}

/// One entry of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// An address and its hardware address, for which the device answers ARP.
    Neighbour(Ipv4Addr, [u8; 6]),
    /// The node that a hardware address is on.
    Node([u8; 6], Ipv4Addr),
    /// The bridge's: a hardware address is behind the device.
    Port([u8; 6]),
}

/// Where the packets of an encrypted network's tunnel are sent: the kernel's own choice would be the device's port, and a
/// link by the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outlet {
    /// Index of a link of the namespace that the tunnels stand in.
    pub(crate) link: u32,
    /// UDP port of the other nodes.
    pub(crate) port: u16,
}

/// What the kernel has of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) neighbours: BTreeMap<Ipv4Addr, [u8; 6]>,
    pub(crate) nodes: BTreeMap<[u8; 6], (Ipv4Addr, Option<Outlet>)>,
    /// Hardware addresses that the bridge has behind the device.
    pub(crate) ports: Vec<[u8; 6]>,
}

impl Links {
    /// Makes a VXLAN device in `namespace`. Its tunnels stand in the namespace of this socket: the kernel binds them where
    /// the request is made.
    pub(crate) async fn add_vxlan(&self, vxlan: &Vxlan<'_>, namespace: &Namespace) -> io::Result<()> {
        // Nothing is learned: only what the managers' nodes tell leads anywhere. Misses are told as dockerd's devices do.
        let mut message = LinkVxlan::new(vxlan.name, vxlan.vni)
            .port(vxlan.port)
            .learning(false)
            .proxy(true)
            .l2miss(true)
            .l3miss(true)
            .mtu(vxlan.mtu)
            .setns_by_fd(namespace.fd().as_raw_fd());
        if let Some(local) = vxlan.local {
            message = message.local(local);
        }
        if vxlan.is_own_port {
            // the end of the range is not in it
            message = message.port_range(vxlan.port, vxlan.port + 1);
        }
        self.handle.link().add(message.build()).execute().await.map_err(os_error)
    }

    /// Puts a VXLAN device on a bridge and brings it up.
    pub(crate) async fn start_vxlan(&self, index: u32, bridge: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).controller(bridge).up().build();
        self.handle.link().set(message).execute().await.map_err(os_error)?;
        let message = LinkBridgePort::new(index).learning(false).build();
        self.handle.link().set_port(message).execute().await.map_err(os_error)
    }

    /// Puts a link on a bridge, as a port whose one hardware address is known.
    pub(crate) async fn start_port(&self, name: &str, bridge: u32, mac: [u8; 6]) -> io::Result<()> {
        let index = self.existing_index(name).await?;
        let message = LinkUnspec::new_with_index(index).controller(bridge).up().build();
        self.handle.link().set(message).execute().await.map_err(os_error)?;
        self.fix_port(index, mac).await
    }

    /// The bridge learns nothing from this port, but knows the one hardware address behind it, which moves nowhere: neither
    /// a container nor an answer for a former place of the address may take it away.
    pub(crate) async fn fix_port(&self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        let message = LinkBridgePort::new(index).learning(false).build();
        self.handle.link().set_port(message).execute().await.map_err(os_error)?;
        let request = self.handle.neighbours().add_bridge(index, &mac).state(NeighbourState::Noarp);
        let flags = NeighbourFlags::Controller | NeighbourFlags::Sticky;
        request.flags(flags).replace().execute().await.map_err(os_error)
    }

    /// Sets a link's MTU.
    pub(crate) async fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        self.handle.link().set(message).execute().await.map_err(os_error)
    }

    /// Writes entries of device `index`, replacing what there is of the same key. `outlet` is that of the network.
    pub(crate) async fn add_entries(&self, entries: Vec<(u32, Entry)>, outlet: Option<Outlet>) -> io::Result<()> {
        let requests = stream::iter(entries).map(|(index, entry)| self.add_entry(index, entry, outlet));
        requests.buffer_unordered(REQUESTS_AT_ONCE).try_collect().await
    }

    /// Removes entries. One that is not there is no error.
    pub(crate) async fn remove_entries(&self, entries: Vec<(u32, Entry)>) -> io::Result<()> {
        let requests = stream::iter(entries).map(|(index, entry)| self.remove_entry(index, entry));
        requests.buffer_unordered(REQUESTS_AT_ONCE).try_collect().await
    }

    async fn add_entry(&self, index: u32, entry: Entry, outlet: Option<Outlet>) -> io::Result<()> {
        let neighbours = self.handle.neighbours();
        let request = match entry {
            Entry::Neighbour(address, mac) => neighbours.add(index, IpAddr::V4(address)).link_layer_address(&mac),
            Entry::Node(mac, vtep) => {
                let request = neighbours.add_bridge(index, &mac).destination(IpAddr::V4(vtep));
                let mut request = request.flags(NeighbourFlags::Own);
                if let Some(Outlet { link, port }) = outlet {
                    let attributes = [NeighbourAttribute::Port(port), NeighbourAttribute::IfIndex(link)];
                    request.message_mut().attributes.extend(attributes);
                }
                request
            }
            Entry::Port(mac) => {
                neighbours.add_bridge(index, &mac).state(NeighbourState::Noarp).flags(NeighbourFlags::Controller)
            }
        };
        request.replace().execute().await.map_err(os_error)
    }

    async fn remove_entry(&self, index: u32, entry: Entry) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = index;
        message.header.family = AddressFamily::Bridge;
        match entry {
            Entry::Neighbour(address, _) => {
                message.header.family = AddressFamily::Inet;
                message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
            }
            Entry::Node(mac, _) => {
                message.header.flags = NeighbourFlags::Own;
                message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
            }
            Entry::Port(mac) => {
                message.header.flags = NeighbourFlags::Controller;
                message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
            }
        }
        match self.handle.neighbours().del(message).execute().await.map_err(os_error) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// All entries of the devices of this namespace, by device.
    pub(crate) async fn entries(&self) -> io::Result<BTreeMap<u32, Entries>> {
        let mut found: BTreeMap<u32, Entries> = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Bridge] {
            let request = self.handle.neighbours().get().set_address_family(family);
            let messages: Vec<_> = request.execute().try_collect().await.map_err(os_error)?;
            for message in messages.iter().filter(|message| message.header.family == family) {
                read_entry(found.entry(message.header.ifindex).or_default(), message);
            }
        }
        Ok(found)
    }

    /// Name of the link with this VXLAN id and port.
    pub(crate) async fn vxlan_name(&self, vni: u32, port: u16) -> io::Result<Option<String>> {
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await.map_err(os_error)?;
        Ok(links.iter().filter(|link| is_vxlan(link, vni, port)).find_map(link_name))
    }

    /// MTU of the link that has this address; `None` if no link has it.
    pub(crate) async fn mtu_of(&self, address: Ipv4Addr) -> io::Result<Option<u32>> {
        let request = self.handle.address().get().set_address_filter(IpAddr::V4(address));
        let found: Vec<_> = request.execute().try_collect().await.map_err(os_error)?;
        let Some(index) = found.first().map(|message| message.header.index) else { return Ok(None) };
        let mut links = self.handle.link().get().match_index(index).execute();
        let link = links.try_next().await.map_err(os_error)?;
        Ok(link.and_then(|link| {
            link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            })
        }))
    }
}

const NO_OUTLET: Outlet = Outlet { link: 0, port: 0 };

fn read_entry(entries: &mut Entries, message: &NeighbourMessage) {
    let (mut mac, mut address, mut outlet) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some(*found),
            // a node: the family of the entry is not that of its address
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                address = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from);
            }
            NeighbourAttribute::IfIndex(link) => outlet.get_or_insert(NO_OUTLET).link = *link,
            NeighbourAttribute::Port(port) => outlet.get_or_insert(NO_OUTLET).port = *port,
            _ => {}
        }
    }
    let Some(mac) = mac else { return };
    let is_permanent = message.header.state == NeighbourState::Permanent;
    match (message.header.family, address) {
        (AddressFamily::Inet, Some(address)) if is_permanent => drop(entries.neighbours.insert(address, mac)),
        // whatever its state: nothing is learned here
        (AddressFamily::Bridge, Some(vtep)) => drop(entries.nodes.insert(mac, (vtep, outlet))),
        (AddressFamily::Bridge, None) if message.header.state == NeighbourState::Noarp => entries.ports.push(mac),
        _ => {}
    }
}

fn is_vxlan(link: &LinkMessage, vni: u32, port: u16) -> bool {
    link.attributes.iter().any(|attribute| {
        let LinkAttribute::LinkInfo(infos) = attribute else { return false };
        infos.iter().any(|info| {
            let LinkInfo::Data(InfoData::Vxlan(data)) = info else { return false };
            data.contains(&InfoVxlan::Id(vni)) && data.contains(&InfoVxlan::Port(port))
        })
    })
}

fn link_name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}
