//! Links, addresses, routes, rules and neighbours of one namespace, through `rtnetlink`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};

use crate::Ipv4Cidr;
use crate::netns::Namespace;

/// The route netlink socket of one namespace.
pub(crate) struct Links {
    pub(crate) handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A veth pair: one end on a bridge here, the other in a sandbox.
pub(crate) struct Veth<'a> {
    /// Name here.
    pub(crate) name: &'a str,
    /// Index of the bridge here.
    pub(crate) bridge: u32,
    /// Name in the sandbox.
    pub(crate) peer_name: &'a str,
    /// Hardware address in the sandbox.
    pub(crate) peer_mac: [u8; 6],
    /// MTU of both ends.
    pub(crate) mtu: u32,
    /// How the bridge treats the near end.
    pub(crate) port: BridgePort,
}

/// How a bridge treats one of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BridgePort {
    /// As usual.
    Plain,
    /// What came from it may go back to it: with br_netfilter, a container that uses a port published by itself.
    Hairpin,
    /// Likewise, and other isolated ports are out of its reach.
    Isolated,
    /// Behind it is one hardware address, and nothing is learned from it: see [`Links::fix_port`].
    Fixed,
}

impl Links {
    /// Opens a socket in the namespace that `enter` leads the thread into; must be called within a tokio runtime.
    pub(crate) fn open_here(runtime: &tokio::runtime::Handle) -> io::Result<Self> {
        let guard = runtime.enter();
        let (connection, handle, _messages) = rtnetlink::new_connection()?;
        drop(guard);
        Ok(Self { handle, connection: runtime.spawn(connection) })
    }

    /// Opens a socket in `namespace`.
    pub(crate) fn open_in(namespace: &Namespace) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        namespace.enter(|| Self::open_here(&runtime))
    }

    /// The index of a link; `None` if there is none of that name.
    pub(crate) async fn index(&self, name: &str) -> io::Result<Option<u32>> {
        let mut found = self.handle.link().get().match_name(name).execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) => match os_error(error) {
                error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Makes a bridge if it is missing, brings it up, and returns its index.
    pub(crate) async fn ensure_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> io::Result<u32> {
        let index = self.ensure_bridge_from(name, LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).up()).await?;
        self.set_up(index).await?;
        Ok(index)
    }

    /// Likewise, with an index that is given and, if none is, any hardware address.
    pub(crate) async fn ensure_numbered_bridge(
        &self,
        name: &str,
        index: u32,
        mac: Option<[u8; 6]>,
        mtu: u32,
    ) -> io::Result<u32> {
        let mut message = LinkBridge::new(name).index(index).mtu(mtu).up();
        if let Some(mac) = mac {
            message = message.address(mac.to_vec());
        }
        let index = self.ensure_bridge_from(name, message).await?;
        self.set_up(index).await?;
        Ok(index)
    }

    async fn ensure_bridge_from(&self, name: &str, message: LinkMessageBuilder<LinkBridge>) -> io::Result<u32> {
        if self.index(name).await?.is_none() {
            match self.handle.link().add(message.build()).execute().await.map_err(os_error) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                result => result?,
            }
        }
        self.existing_index(name).await
    }

    /// Makes a bridge if it is missing, and takes it down: whatever comes to its ports ends there. Returns its index.
    pub(crate) async fn ensure_dead_bridge(&self, name: &str) -> io::Result<u32> {
        let index = self.ensure_bridge_from(name, LinkBridge::new(name)).await?;
        let message = LinkUnspec::new_with_index(index).down().build();
        self.handle.link().set(message).execute().await.map_err(os_error)?;
        Ok(index)
    }

    /// Brings a link up.
    pub(crate) async fn set_up(&self, index: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.map_err(os_error)
    }

    /// Makes a veth pair with its far end, still down, in `sandbox`: the kernel opens no end whose peer is not linked yet.
    pub(crate) async fn add_veth(&self, veth: &Veth<'_>, sandbox: &Namespace) -> io::Result<()> {
        let peer: LinkMessage = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.peer_name.to_owned())
            .address(veth.peer_mac.to_vec())
            .mtu(veth.mtu)
            .setns_by_fd(sandbox.fd().as_raw_fd())
            .build();
        let message = LinkVeth::new(veth.name, veth.peer_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(veth.bridge)
            .mtu(veth.mtu)
            .up()
            .build();
        self.handle.link().add(message).execute().await.map_err(os_error)?;
        if veth.port == BridgePort::Fixed {
            let index = self.existing_index(veth.name).await?;
            self.fix_port(index, veth.peer_mac).await?;
        } else if veth.port != BridgePort::Plain {
            let index = self.existing_index(veth.name).await?;
            let message = LinkBridgePort::new(index).hairpin(true).isolated(veth.port == BridgePort::Isolated).build();
            self.handle.link().set_port(message).execute().await.map_err(os_error)?;
        }
        Ok(())
    }

    /// Removes a link. `Ok` if there is none of that name.
    pub(crate) async fn remove(&self, name: &str) -> io::Result<()> {
        let Some(index) = self.index(name).await? else { return Ok(()) };
        match self.handle.link().del(index).execute().await.map_err(os_error) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// Names of the links that are ports of a bridge.
    pub(crate) async fn ports(&self, bridge: u32) -> io::Result<Vec<String>> {
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await.map_err(os_error)?;
        Ok(links
            .into_iter()
            .filter(|link| link.attributes.contains(&LinkAttribute::Controller(bridge)))
            .filter_map(|link| {
                link.attributes.into_iter().find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                })
            })
            .collect())
    }

    /// Brings a new link of a sandbox up, with its address and, if given, the default route.
    pub(crate) async fn start(&self, name: &str, address: Ipv4Cidr, gateway: Option<Ipv4Addr>) -> io::Result<()> {
        let index = self.existing_index(name).await?;
        self.add_address(index, address).await?;
        self.set_up(index).await?;
        match gateway {
            Some(gateway) => self.add_default_route(gateway).await,
            None => Ok(()),
        }
    }

    /// The index of a link that must be there.
    pub(crate) async fn existing_index(&self, name: &str) -> io::Result<u32> {
        self.index(name).await?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Adds an address. `Ok` if it is there.
    pub(crate) async fn add_address(&self, index: u32, address: Ipv4Cidr) -> io::Result<()> {
        let request = self.handle.address().add(index, IpAddr::V4(address.address), address.prefix);
        match request.execute().await.map_err(os_error) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Adds an IPv6 address to a link, at once usable: the managers see to it that nobody else has it.
    pub(crate) async fn add_address6(&self, name: &str, address: Ipv6Addr, prefix: u8) -> io::Result<()> {
        let index = self.existing_index(name).await?;
        let mut request = self.handle.address().add(index, IpAddr::V6(address), prefix);
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.map_err(os_error)
    }

    /// Removes an address. `Ok` if it is not there.
    pub(crate) async fn remove_address(&self, index: u32, address: Ipv4Cidr) -> io::Result<()> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address.address, address.prefix);
        match self.handle.address().del(message.build()).execute().await.map_err(os_error) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            result => result,
        }
    }

    /// Adds a route to a network. `Ok` if there is one.
    pub(crate) async fn add_route(&self, network: Ipv4Cidr, gateway: Ipv4Addr) -> io::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new();
        let route = route.destination_prefix(network.address, network.prefix).gateway(gateway).build();
        match self.handle.route().add(route).execute().await.map_err(os_error) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Removes the route to a network. `Ok` if there is none.
    pub(crate) async fn remove_route(&self, network: Ipv4Cidr) -> io::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(network.address, network.prefix).build();
        match self.handle.route().del(route).execute().await.map_err(os_error) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// The IPv4 addresses of a link.
    pub(crate) async fn addresses(&self, index: u32) -> io::Result<Vec<Ipv4Cidr>> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let messages: Vec<_> = request.execute().try_collect().await.map_err(os_error)?;
        Ok(messages
            .into_iter()
            .filter(|message| message.header.family == AddressFamily::Inet)
            .filter_map(|message| {
                let prefix = message.header.prefix_len;
                message.attributes.into_iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(address)) => Some(Ipv4Cidr::new(address, prefix)),
                    _ => None,
                })
            })
            .collect())
    }

    /// Adds a default route.
    pub(crate) async fn add_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        self.handle.route().add(route).execute().await.map_err(os_error)
    }

    /// Makes this the default route, in place of another one if there is one.
    pub(crate) async fn set_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        self.handle.route().add(route).replace().execute().await.map_err(os_error)
    }

    /// Removes the default route. `Ok` if there is none.
    pub(crate) async fn remove_default_route(&self) -> io::Result<()> {
        match self.handle.route().del(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute().await.map_err(os_error)
        {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// Destinations of the IPv4 routes of all tables but the local one.
    pub(crate) async fn route_destinations(&self) -> io::Result<Vec<Ipv4Cidr>> {
        const LOCAL_TABLE: u8 = 255;
        let request = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let routes: Vec<_> = request.execute().try_collect().await.map_err(os_error)?;
        Ok(routes
            .into_iter()
            .filter(|route| route.header.table != LOCAL_TABLE)
            .filter_map(|route| {
                let prefix = route.header.destination_prefix_length;
                route.attributes.into_iter().find_map(|attribute| match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(Ipv4Cidr::new(address, prefix)),
                    _ => None,
                })
            })
            .collect())
    }

    /// The way back to the ingress: packets whose mark is in `net` leave by link `index` through a gateway that exists only as
    /// a neighbour entry with the address `mac`.
    pub(crate) async fn add_return_path(&self, path: &ReturnPath) -> io::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(path.gateway)
            .output_interface(path.index)
            .table_id(path.table)
            .onlink()
            .build();
        let neighbour = self.handle.neighbours().add(path.index, IpAddr::V4(path.gateway));
        neighbour.link_layer_address(&path.gateway_mac).execute().await.map_err(os_error)?;
        self.handle.route().add(route).execute().await.map_err(os_error)?;
        let rule = self.handle.rule().add().v4().table_id(path.table).priority(path.table);
        let mut rule = rule.action(RuleAction::ToTable).fw_mark(path.mark);
        rule.message_mut().attributes.push(RuleAttribute::FwMask(path.mask));
        rule.execute().await.map_err(os_error)
    }
}

/// See [`Links::add_return_path`].
pub(crate) struct ReturnPath {
    /// The link.
    pub(crate) index: u32,
    /// The routing table, also the rule's priority.
    pub(crate) table: u32,
    /// A gateway address nobody has.
    pub(crate) gateway: Ipv4Addr,
    /// Its hardware address.
    pub(crate) gateway_mac: [u8; 6],
    /// Marks that take this path …
    pub(crate) mark: u32,
    /// … under this mask.
    pub(crate) mask: u32,
}

pub(crate) fn os_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
