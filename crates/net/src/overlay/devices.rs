//! Bridges and VXLAN devices of a network.

use std::io;
use std::time::Duration;

use super::{OverlayRecord, OverlaySpec};
use crate::ipam::mac_of;
use crate::links::Links;
use crate::netns::Namespace;
use crate::state::kernel;
use crate::vxlan::Vxlan;
use crate::{Ipv4Cidr, NetError};

/// How long the links of a namespace that is gone may stay.
const FADING: Duration = Duration::from_millis(500);
const FADING_LOOK: Duration = Duration::from_millis(10);

/// The links of one subnet, by index in the network's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) bridge: u32,
    /// `None` while the network ends at this node.
    pub(crate) vxlan: Option<u32>,
}

/// The bridge that stays down, in an encrypted network's namespace.
const SINK: &str = "sink";

/// Where devices are made.
pub(crate) struct Site<'a> {
    /// Socket in the host's namespace: there the tunnels stand.
    pub(crate) host: &'a Links,
    /// The network's namespace …
    pub(crate) namespace: &'a Namespace,
    /// … and the socket in it.
    pub(crate) links: &'a Links,
    /// The number of the void's link.
    pub(crate) void: u32,
}

impl OverlayRecord {
    fn short_id(&self) -> &str {
        &self.spec.network_id[..5]
    }

    pub(super) fn bridge_name(&self, subnet: usize) -> String {
        let vni = self.spec.subnets[subnet].vni;
        // without an id from the managers the subnet's place tells them apart
        let number = if vni == 0 { subnet as u32 } else { vni };
        format!("ov-{number:06x}-{}", self.short_id())
    }

    pub(super) fn vxlan_name(&self, subnet: usize) -> String {
        format!("vx-{:06x}-{}", self.spec.subnets[subnet].vni, self.short_id())
    }

    /// The device that has an encrypted network's place on the wire.
    fn plug_name(&self, subnet: usize) -> String {
        format!("no-{:06x}-{}", self.spec.subnets[subnet].vni, self.short_id())
    }
}

/// Makes what is missing. The second value says whether anything was.
pub(super) async fn ensure(site: &Site<'_>, record: &OverlayRecord) -> Result<(Vec<Device>, bool), NetError> {
    let (mut devices, mut is_new) = (Vec::new(), false);
    for (at, subnet) in record.spec.subnets.iter().enumerate() {
        let name = record.bridge_name(at);
        let found = site.links.index(&name).await.map_err(kernel("find a network's bridge"))?;
        is_new |= found.is_none();
        let mac = mac_of(subnet.gateway);
        let bridge = match at {
            0 if record.spec.encrypted => {
                site.links.ensure_numbered_bridge(&name, site.void, Some(mac), record.mtu).await
            }
            _ => site.links.ensure_bridge(&name, mac, record.mtu).await,
        };
        let bridge = bridge.map_err(kernel(format!("make bridge {name}")))?;
        site.links.set_mtu(bridge, record.mtu).await.map_err(kernel(format!("set the MTU of {name}")))?;
        let gateway = Ipv4Cidr::new(subnet.gateway, subnet.subnet.prefix);
        site.links.add_address(bridge, gateway).await.map_err(kernel(format!("set the address of {name}")))?;
        let vxlan = match record.spec.vtep {
            Some(_) if subnet.vni != 0 => {
                if record.encryption.is_some() {
                    ensure_plug(site, record, at).await?;
                }
                Some(ensure_vxlan(site, record, at, bridge, &mut is_new).await?)
            }
            _ => None,
        };
        devices.push(Device { bridge, vxlan });
    }
    Ok((devices, is_new))
}

/// Makes the device that takes what comes for an encrypted network by the port on the wire, and lets it end. It holds the
/// port, too: without anybody there, the kernel would answer with an error that quotes the packet, which may have been opened.
async fn ensure_plug(site: &Site<'_>, record: &OverlayRecord, at: usize) -> Result<(), NetError> {
    let (name, spec) = (record.plug_name(at), &record.spec);
    let action = || kernel(format!("make VXLAN device {name}"));
    let sink = site.links.ensure_dead_bridge(SINK).await.map_err(kernel(format!("make bridge {SINK}")))?;
    if site.links.index(&name).await.map_err(action())?.is_none() {
        let (vni, port) = (spec.subnets[at].vni, spec.data_path_port);
        let plug = Vxlan { name: &name, vni, port, is_own_port: false, local: record.local, mtu: record.mtu };
        add_vxlan(site, spec, &plug).await?;
    }
    let index = site.links.existing_index(&name).await.map_err(action())?;
    site.links.start_vxlan(index, sink).await.map_err(action())
}

async fn ensure_vxlan(
    site: &Site<'_>,
    record: &OverlayRecord,
    at: usize,
    bridge: u32,
    is_new: &mut bool,
) -> Result<u32, NetError> {
    let (name, spec) = (record.vxlan_name(at), &record.spec);
    let vni = spec.subnets[at].vni;
    let action = || kernel(format!("make VXLAN device {name}"));
    let found = site.links.index(&name).await.map_err(action())?;
    let index = match found {
        Some(index) => index,
        None => {
            *is_new = true;
            let own_port = record.encryption.map(|encryption| encryption.own_port);
            let port = own_port.unwrap_or(spec.data_path_port);
            let (is_own_port, local, mtu) = (own_port.is_some(), record.local, record.mtu);
            let vxlan = Vxlan { name: &name, vni, port, is_own_port, local, mtu };
            add_vxlan(site, spec, &vxlan).await?;
            site.links.existing_index(&name).await.map_err(action())?
        }
    };
    site.links.start_vxlan(index, bridge).await.map_err(action())?;
    Ok(index)
}

/// The kernel takes a while to remove the links of a namespace that is gone; another's are there to stay.
async fn add_vxlan(site: &Site<'_>, spec: &OverlaySpec, vxlan: &Vxlan<'_>) -> Result<(), NetError> {
    let action = || kernel(format!("make VXLAN device {}", vxlan.name));
    let deadline = tokio::time::Instant::now() + FADING;
    loop {
        match site.host.add_vxlan(vxlan, site.namespace).await {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            result => return result.map_err(action()),
        }
        let owner = site.host.vxlan_name(vxlan.vni, vxlan.port).await.map_err(action())?;
        if owner.is_some() || tokio::time::Instant::now() > deadline {
            return Err(NetError::VniInUse {
                network: spec.name.clone(),
                vni: vxlan.vni,
                port: vxlan.port,
                owner: owner.map_or_else(|| "another namespace".to_owned(), |link| format!("link {link}")),
            });
        }
        tokio::time::sleep(FADING_LOOK).await;
    }
}

/// Removes the tunnels, so that their ids are free when this returns: with the namespace they would go some time later.
pub(super) async fn remove_tunnels(links: &Links, record: &OverlayRecord) -> io::Result<()> {
    for (at, subnet) in record.spec.subnets.iter().enumerate() {
        if subnet.vni != 0 {
            links.remove(&record.vxlan_name(at)).await?;
            links.remove(&record.plug_name(at)).await?;
        }
    }
    Ok(())
}
