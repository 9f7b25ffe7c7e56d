//! Containers on overlay networks: planning their links, and changing those of a container that runs.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{Overlay, OverlayEndpointSpec};
use crate::ipam::mac_text;
use crate::links::{BridgePort, Links};
use crate::net::Inner;
use crate::netns::Namespace;
use crate::sandbox::{HostPlan, Plan, near_name};
use crate::state::{GWBRIDGE, State, kernel, new_id};
use crate::store::{Folder, NearLink, Place, SandboxRecord};
use crate::{Endpoint, Ipv4Cidr, NetError, SandboxMode};

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
        },
        bridge_index: attachment.bridge_index,
        mac,
        mtu: attachment.mtu,
        port: BridgePort::Fixed,
        links: attachment.links,
        routes: attachment.routes,
    })
}

impl Inner {
    /// See [`crate::Net::connect`].
    pub(crate) async fn connect(&self, container_id: &str, spec: OverlayEndpointSpec) -> Result<Endpoint, NetError> {
        let gateway_index = self.gateway_for(container_id, &spec)?;
        let gateway_index = if gateway_index { Some(self.ensure_gwbridge().await?) } else { None };
        let (path, plans) = {
            let mut state = self.state();
            match state.existing_endpoint(container_id, &spec)? {
                Some(endpoint) => return Ok(endpoint),
                None => self.plan_connection(&mut state, container_id, &spec, gateway_index)?,
            }
        };
        let endpoint = plans[0].endpoint.clone();
        let built = async {
            let namespace = Namespace::pinned(&path).map_err(kernel("open a container's namespace"))?;
            let namespace = namespace.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))?;
            let inside = Links::open_in(&namespace).map_err(kernel("open a route netlink socket"))?;
            for plan in &plans {
                plan.build(&namespace, &inside).await?;
            }
            Ok(())
        };
        let built: Result<(), NetError> = built.await;
        let ids: Vec<&str> = plans.iter().map(|plan| plan.endpoint.endpoint_id.as_str()).collect();
        match built {
            // A daemon that dies before this leaves a link that belongs to nobody, which the next one removes.
            Ok(()) => self.save_sandbox(container_id).map(|()| endpoint),
            Err(error) => {
                self.drop_endpoints(container_id, &ids).await?;
                Err(error)
            }
        }
    }

    /// See [`crate::Net::disconnect`].
    pub(crate) async fn disconnect(&self, container_id: &str, network_id: &str) -> Result<(), NetError> {
        let ids = {
            let state = self.state();
            let record = state.sandboxes.get(container_id);
            let record = record.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))?;
            let spec = &state.overlay(network_id)?.record.spec;
            if spec.ingress {
                return Err(NetError::Invalid(format!("no container is disconnected from network {}", spec.name)));
            }
            let endpoints = &record.sandbox.endpoints;
            let gone = endpoints.iter().filter(|endpoint| endpoint.network_id == network_id);
            let mut ids: Vec<String> = gone.map(|endpoint| endpoint.endpoint_id.clone()).collect();
            if ids.is_empty() {
                let text = format!("container {container_id} is not connected to network {}", spec.name);
                return Err(NetError::Invalid(text));
            }
            let needs_gateway = |endpoint: &Endpoint| {
                endpoint.network_id != network_id
                    && state.overlay(&endpoint.network_id).is_ok_and(|overlay| !overlay.record.spec.internal)
            };
            if record.sandbox.ports.is_empty() && !endpoints.iter().any(needs_gateway) {
                let gateways = endpoints.iter().filter(|endpoint| endpoint.network_name == GWBRIDGE);
                ids.extend(gateways.map(|endpoint| endpoint.endpoint_id.clone()));
            }
            ids
        };
        self.drop_endpoints(container_id, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        self.save_sandbox(container_id)
    }

    /// Whether a container needs a way out for this connection.
    fn gateway_for(&self, container_id: &str, spec: &OverlayEndpointSpec) -> Result<bool, NetError> {
        let state = self.state();
        let record = state.sandboxes.get(container_id).filter(|record| record.is_ready);
        let record = record.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))?;
        let has_gateway = record.sandbox.endpoints.iter().any(|endpoint| endpoint.gateway.is_some());
        let internal = state.overlay(&spec.network_id)?.record.spec.internal;
        Ok(!internal && !has_gateway && record.spec.mode == SandboxMode::Swarm)
    }

    /// Chooses the endpoints and notes them in the sandbox, so that names and addresses are taken.
    fn plan_connection(
        &self,
        state: &mut State,
        container_id: &str,
        spec: &OverlayEndpointSpec,
        gateway_index: Option<u32>,
    ) -> Result<(std::path::PathBuf, Vec<Plan>), NetError> {
        let mut attachments = state.attachments([spec])?;
        let (attachment, spec) = attachments.remove(0);
        let mut plans = vec![plan(attachment, spec)?];
        if let Some(index) = gateway_index {
            let network = state.networks.gwbridge.clone().ok_or_else(|| NetError::NoNetwork(GWBRIDGE.to_owned()))?;
            plans.push(self.host_plan(state, HostPlan { network, name: GWBRIDGE, mac: None, index })?);
        }
        let record = state.sandboxes.get_mut(container_id);
        let record = record.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))?;
        let path = own_namespace(record)?;
        for plan in &mut plans {
            plan.endpoint.link = free_link(record);
            record.sandbox.endpoints.push(plan.endpoint.clone());
            record.links.push(plan.near.clone());
        }
        Ok((path, plans))
    }

    fn save_sandbox(&self, container_id: &str) -> Result<(), NetError> {
        let state = self.state();
        let record = state.sandboxes.get(container_id);
        let record = record.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))?;
        self.store.write_record(Folder::Sandboxes, container_id, record)
    }

    /// Removes endpoints, and their links, from a sandbox.
    async fn drop_endpoints(&self, container_id: &str, endpoint_ids: &[&str]) -> Result<(), NetError> {
        let mut ends = Vec::new();
        if let Some(record) = self.state().sandboxes.get_mut(container_id) {
            let pairs = record.links.drain(..).zip(record.sandbox.endpoints.drain(..));
            let is_gone = |endpoint: &Endpoint| endpoint_ids.contains(&endpoint.endpoint_id.as_str());
            let (gone, kept): (Vec<_>, Vec<_>) = pairs.partition(|(_, endpoint)| is_gone(endpoint));
            (record.links, record.sandbox.endpoints) = kept.into_iter().unzip();
            ends.extend(gone.into_iter().map(|(near, _)| near));
        }
        for near in ends {
            if let Some(links) = self.links_at(&near.place) {
                links.remove(&near.name).await.map_err(kernel(format!("remove link {}", near.name)))?;
            }
        }
        Ok(())
    }
}

impl State {
    /// The endpoint of an earlier, equal request.
    fn existing_endpoint(&self, container_id: &str, spec: &OverlayEndpointSpec) -> Result<Option<Endpoint>, NetError> {
        let record = self.sandboxes.get(container_id);
        let record = record.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))?;
        let mut endpoints = record.sandbox.endpoints.iter();
        match endpoints.find(|endpoint| endpoint.network_id == spec.network_id) {
            Some(endpoint) if endpoint.address == spec.address => Ok(Some(endpoint.clone())),
            Some(endpoint) => Err(NetError::Invalid(format!(
                "endpoint with name {} already exists in network {}",
                record.spec.name, endpoint.network_name
            ))),
            None => Ok(None),
        }
    }
}

/// The namespace of a sandbox that has one to itself.
fn own_namespace(record: &SandboxRecord) -> Result<std::path::PathBuf, NetError> {
    match (&record.spec.mode, &record.sandbox.netns) {
        (SandboxMode::Bridge | SandboxMode::Swarm, Some(path)) => Ok(path.clone()),
        _ => {
            let id = &record.spec.container_id;
            Err(NetError::Invalid(format!("container {id} shares a network namespace or has none to connect")))
        }
    }
}

/// The first `eth` name that no endpoint has.
fn free_link(record: &SandboxRecord) -> String {
    let mut names = (0..).map(|index| format!("eth{index}"));
    let is_free = |name: &String| record.sandbox.endpoints.iter().all(|endpoint| endpoint.link != *name);
    names.find(is_free).expect("a container has fewer links than there are numbers")
}
