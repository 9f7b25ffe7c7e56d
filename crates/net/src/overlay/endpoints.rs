//! Containers on overlay networks: planning their links.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{Overlay, OverlayEndpointSpec};
use crate::ipam::mac_text;
use crate::links::{BridgePort, Links};
use crate::sandbox::{Plan, near_name};
use crate::state::{State, new_id};
use crate::store::{NearLink, Place};
use crate::{Endpoint, Ipv4Cidr, NetError};

/// What an end on an overlay network is made with.
pub(crate) struct Attachment {
    pub(crate) network_name: String,
    pub(crate) network_id: String,
    pub(crate) internal: bool,
    pub(crate) ingress: bool,
    pub(crate) bridge_index: u32,
    pub(crate) mtu: u32,
    pub(crate) links: Arc<Links>,
    /// The network's other subnets, behind the gateway.
    pub(crate) routes: Vec<(Ipv4Cidr, Ipv4Addr)>,
}

impl Overlay {
    /// How an endpoint with this address is attached.
    pub(crate) fn attachment(&self, address: Ipv4Addr) -> Result<Attachment, NetError> {
        let spec = &self.record.spec;
        let at = spec.subnet_of(address);
        let (at, device) = at
            .and_then(|at| Some((at, self.devices.get(at)?)))
            .ok_or_else(|| NetError::Invalid(format!("address {address} is in no subnet of network {}", spec.name)))?;
        let gateway = spec.subnets[at].gateway;
        let others = spec.subnets.iter().enumerate().filter(|(other, _)| *other != at);
        Ok(Attachment {
            network_name: spec.name.clone(),
            network_id: spec.network_id.clone(),
            internal: spec.internal,
            ingress: spec.ingress,
            bridge_index: device.bridge,
            mtu: self.record.mtu,
            links: Arc::clone(&self.links),
            routes: others.map(|(_, other)| (other.subnet.network(), gateway)).collect(),
        })
    }
}

impl State {
    /// A network that this node has.
    pub(crate) fn overlay(&self, network_id: &str) -> Result<&Overlay, NetError> {
        self.overlays.get(network_id).ok_or_else(|| NetError::NoNetwork(network_id.to_owned()))
    }

    /// Id of the ingress network.
    pub(crate) fn ingress_id(&self) -> Option<String> {
        let mut overlays = self.overlays.values().map(|overlay| &overlay.record.spec);
        overlays.find(|spec| spec.ingress).map(|spec| spec.network_id.clone())
    }

    /// The attachments a container asks for, in the order of its links: those that lead out come first, then by name, as
    /// dockerd sorts them.
    pub(crate) fn attachments<'a>(
        &self,
        specs: impl IntoIterator<Item = &'a OverlayEndpointSpec>,
    ) -> Result<Vec<(Attachment, &'a OverlayEndpointSpec)>, NetError> {
        let mut attachments = Vec::new();
        for spec in specs {
            let attachment = self.overlay(&spec.network_id)?.attachment(spec.address.address)?;
            if attachment.ingress {
                let text = format!("network {} is the ingress network: only ports lead there", spec.network_id);
                return Err(NetError::Invalid(text));
            }
            attachments.push((attachment, spec));
        }
        attachments.sort_by(|(a, _), (b, _)| (a.internal, &a.network_name).cmp(&(b.internal, &b.network_name)));
        Ok(attachments)
    }
}

/// An endpoint on an overlay network.
pub(crate) fn plan(attachment: Attachment, spec: &OverlayEndpointSpec) -> Result<Plan, NetError> {
    let endpoint_id = new_id()?;
    let mac = spec.mac();
    Ok(Plan {
        near: NearLink { name: near_name(&endpoint_id), place: Place::Network(attachment.network_id.clone()) },
        endpoint: Endpoint {
            network_name: attachment.network_name,
            network_id: attachment.network_id,
            endpoint_id,
            link: String::new(),
            mac: mac_text(mac),
            address: spec.address,
            address6: spec.address6,
            gateway: None,
            gateway_priority: 0,
        },
        bridge_index: attachment.bridge_index,
        mac,
        mtu: attachment.mtu,
        port: BridgePort::Fixed,
        links: attachment.links,
        routes: attachment.routes,
    })
}
