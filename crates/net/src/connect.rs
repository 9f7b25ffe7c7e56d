//! Changing the networks of a container that runs.
//!
//! ```text
//! connect:     endpoint noted ─► link ─┐                             ┌─► way out ─► ports ─► name server ─► record
//! disconnect:  link, endpoint removed ─┴─► docker_gwbridge as needed ┘
//! ```
//! One change of a container at a time. A daemon that dies in between leaves a link that belongs to nobody, which the next
//! one removes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::bridges::Wish;
use crate::dns;
use crate::firewall::Forward;
use crate::links::Links;
use crate::net::Inner;
use crate::netns::Namespace;
use crate::overlay;
use crate::sandbox::{Plan, set_way_out};
use crate::state::{GWBRIDGE, State, forwards, kernel, way_out};
use crate::store::{Folder, SandboxRecord};
use crate::{BridgeEndpointSpec, DnsNetwork, Endpoint, NetError, OverlayEndpointSpec, SandboxMode};

/// A network that a container is connected to, and its place there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// A network over machines.
    Overlay(OverlayEndpointSpec),
    /// A bridge of this machine.
    Bridge(BridgeEndpointSpec),
}

impl Connection {
    fn network_id(&self) -> &str {
        match self {
            Self::Overlay(spec) => &spec.network_id,
            Self::Bridge(spec) => &spec.network_id,
        }
    }
}

/// Whether a container has a name server: from the moment on at which it first was on a network with names.
pub(crate) fn has_resolver(record: &SandboxRecord) -> bool {
    record.dns_ports.is_some() || !record.spec.dns_networks.is_empty()
}

impl Inner {
    /// See [`crate::Net::connect`].
    pub(crate) async fn connect(
        &self,
        container_id: &str,
        connection: Connection,
        links: BTreeMap<String, String>,
    ) -> Result<Endpoint, NetError> {
        let turn = self.turns.of(&turn_key(container_id));
        let _turn = turn.lock().await;
        if let Some(endpoint) = self.state().existing_endpoint(container_id, &connection)? {
            return Ok(endpoint);
        }
        let before = self.forwards_of(container_id)?;
        let plan = self.plan_connection(container_id, &connection)?;
        let endpoint = plan.endpoint.clone();
        let built = match self.build_link(container_id, &plan).await {
            Ok(()) => self.settle_ways(container_id, &before).await,
            Err(error) => Err(error),
        };
        if let Err(error) = built {
            self.drop_endpoints(container_id, &[&endpoint.endpoint_id]).await?;
            self.settle_ways(container_id, &before).await?;
            return Err(error);
        }
        self.note_connection(container_id, &connection, &endpoint, links)?;
        self.refresh_resolver(container_id).await?;
        if let Connection::Bridge(spec) = &connection {
            self.name_endpoint(&endpoint, &spec.names);
        }
        Ok(endpoint)
    }

    /// See [`crate::Net::disconnect`].
    pub(crate) async fn disconnect(&self, container_id: &str, network_id: &str) -> Result<(), NetError> {
        let turn = self.turns.of(&turn_key(container_id));
        let _turn = turn.lock().await;
        let gone = self.state().endpoint_to_remove(container_id, network_id)?;
        let before = self.forwards_of(container_id)?;
        self.unname_endpoint(&gone);
        self.drop_endpoints(container_id, &[&gone.endpoint_id]).await?;
        self.settle_ways(container_id, &before).await?;
        self.change_record(container_id, |record| {
            record.spec.overlays.retain(|spec| spec.network_id != network_id);
            record.spec.bridges.retain(|spec| spec.network_id != network_id);
            record.spec.dns_networks.retain(|network| network.id != network_id);
        })?;
        self.refresh_resolver(container_id).await
    }

    /// See [`crate::Net::rename`].
    pub(crate) fn rename(&self, container_id: &str, name: &str) -> Result<(), NetError> {
        self.change_record(container_id, |record| {
            let before = std::mem::replace(&mut record.spec.name, name.to_owned());
            name.clone_into(&mut record.sandbox.name);
            for own in record.spec.bridges.iter_mut().flat_map(|spec| &mut spec.names).filter(|own| **own == before) {
                name.clone_into(own);
            }
        })?;
        if let Some(record) = self.state().sandboxes.get(container_id) {
            self.name_sandbox(record);
        }
        Ok(())
    }

    fn forwards_of(&self, container_id: &str) -> Result<Vec<Forward>, NetError> {
        self.state().ready(container_id).map(forwards)
    }

    fn change_record(&self, container_id: &str, change: impl FnOnce(&mut SandboxRecord)) -> Result<(), NetError> {
        let mut state = self.state();
        let record = state.sandboxes.get_mut(container_id);
        let record = record.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))?;
        change(record);
        self.store.write_record(Folder::Sandboxes, container_id, record)
    }

    /// Chooses the endpoint and notes it in the sandbox, so that name and address are taken.
    fn plan_connection(&self, container_id: &str, connection: &Connection) -> Result<Plan, NetError> {
        let mut state = self.state();
        own_namespace(state.ready(container_id)?)?;
        let plan = match connection {
            Connection::Overlay(spec) => {
                let (attachment, spec) = state.attachments([spec])?.remove(0);
                overlay::plan(attachment, spec)?
            }
            Connection::Bridge(spec) => {
                let network = self.host_network(&state, &spec.network_id)?;
                self.host_plan(&mut state, network, spec.wish())?
            }
        };
        state.note_endpoint(container_id, plan)
    }

    async fn build_link(&self, container_id: &str, plan: &Plan) -> Result<(), NetError> {
        let (namespace, inside) = self.inside(container_id)?;
        plan.build(&namespace, &inside).await
    }

    /// The namespace of a container, and a socket in it.
    fn inside(&self, container_id: &str) -> Result<(Namespace, Links), NetError> {
        let path = own_namespace(self.state().ready(container_id)?)?;
        let namespace = Namespace::pinned(&path).map_err(kernel("open a container's namespace"))?;
        let namespace = namespace.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))?;
        let inside = Links::open_in(&namespace).map_err(kernel("open a route netlink socket"))?;
        Ok((namespace, inside))
    }

    /// Brings the way out in line with a container's networks: the endpoint on `docker_gwbridge`, the default route, the ports.
    /// `before` is where the ports led.
    async fn settle_ways(&self, container_id: &str, before: &[Forward]) -> Result<(), NetError> {
        let (needs, gateway) = self.state().gateway_of(container_id)?;
        match (needs, gateway) {
            (true, None) => {
                let index = self.ensure_gwbridge().await?;
                let plan = {
                    let mut state = self.state();
                    let network = self.gateway_bridge(&state, index)?;
                    let plan = self.host_plan(&mut state, network, Wish::default())?;
                    state.note_endpoint(container_id, plan)?
                };
                self.build_link(container_id, &plan).await?;
            }
            (false, Some(endpoint_id)) => self.drop_endpoints(container_id, &[&endpoint_id]).await?,
            _ => {}
        }
        let endpoints = self.state().ready(container_id)?.sandbox.endpoints.clone();
        let (_, inside) = self.inside(container_id)?;
        set_way_out(&inside, way_out(&endpoints)).await?;
        self.settle_ports(container_id, before)
    }

    fn settle_ports(&self, container_id: &str, before: &[Forward]) -> Result<(), NetError> {
        let mut state = self.state();
        let SandboxRecord { spec, sandbox, .. } = state.ready(container_id)?.clone();
        let ports = match way_out(&sandbox.endpoints) {
            None => {
                state.ports.release(container_id);
                Vec::new()
            }
            Some(_) if sandbox.ports.is_empty() => self.take_ports(&mut state, &spec, &sandbox.endpoints)?,
            Some(_) => sandbox.ports,
        };
        let Some(record) = state.sandboxes.get_mut(container_id) else { return Ok(()) };
        record.sandbox.ports = ports;
        let after = forwards(record);
        if after != before { state.move_forwards(&self.config, before, &after) } else { Ok(()) }
    }

    fn note_connection(
        &self,
        container_id: &str,
        connection: &Connection,
        endpoint: &Endpoint,
        links: BTreeMap<String, String>,
    ) -> Result<(), NetError> {
        let has_names = match connection {
            Connection::Overlay(_) => true,
            Connection::Bridge(spec) => self.state().bridges.contains_key(&spec.network_id),
        };
        self.change_record(container_id, |record| {
            match connection {
                Connection::Overlay(spec) => record.spec.overlays.push(spec.clone()),
                Connection::Bridge(spec) => record.spec.bridges.push(spec.clone()),
            }
            if has_names {
                let (id, name) = (endpoint.network_id.clone(), endpoint.network_name.clone());
                record.spec.dns_networks.push(DnsNetwork { id, name, aliases: links });
                record.spec.dns_networks.sort_by(|one, other| one.name.cmp(&other.name));
            }
        })
    }

    /// Tells a container's name server which networks it is on now; starts it if it is on one for the first time.
    async fn refresh_resolver(&self, container_id: &str) -> Result<(), NetError> {
        let record = self.state().ready(container_id)?.clone();
        if !has_resolver(&record) || self.dns.change(container_id, self.dns_view(&record)) {
            return Ok(());
        }
        self.start_resolver(&record, dns::Age::New).await
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
    fn ready(&self, container_id: &str) -> Result<&SandboxRecord, NetError> {
        let record = self.sandboxes.get(container_id).filter(|record| record.is_ready);
        record.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))
    }

    /// The endpoint of an earlier, equal request.
    fn existing_endpoint(&self, container_id: &str, connection: &Connection) -> Result<Option<Endpoint>, NetError> {
        let record = self.ready(container_id)?;
        let mut endpoints = record.sandbox.endpoints.iter();
        let Some(endpoint) = endpoints.find(|endpoint| endpoint.network_id == connection.network_id()) else {
            return Ok(None);
        };
        let is_equal = match connection {
            Connection::Overlay(spec) => spec.address == endpoint.address,
            Connection::Bridge(spec) => record.spec.bridges.contains(spec),
        };
        if is_equal {
            return Ok(Some(endpoint.clone()));
        }
        let (name, network) = (&record.spec.name, &endpoint.network_name);
        Err(NetError::EndpointExists { name: name.clone(), network: network.clone() })
    }

    /// What [`Inner::disconnect`] removes.
    fn endpoint_to_remove(&self, container_id: &str, network_id: &str) -> Result<Endpoint, NetError> {
        let record = self.ready(container_id)?;
        let spec = self.overlays.get(network_id).map(|overlay| &overlay.record.spec);
        if let Some(spec) = spec.filter(|spec| spec.ingress) {
            return Err(NetError::Invalid(format!("no container is disconnected from network {}", spec.name)));
        }
        let mut endpoints = record.sandbox.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.network_id == network_id);
        endpoint.cloned().ok_or_else(|| {
            let network = spec.map_or(network_id, |spec| &spec.name);
            NetError::Invalid(format!("container {container_id} is not connected to network {network}"))
        })
    }

    /// Gives an endpoint its link's name and notes it in its sandbox.
    fn note_endpoint(&mut self, container_id: &str, mut plan: Plan) -> Result<Plan, NetError> {
        let record = self.sandboxes.get_mut(container_id);
        let record = record.ok_or_else(|| NetError::NoSandbox(container_id.to_owned()))?;
        plan.endpoint.link = free_link(record);
        record.sandbox.endpoints.push(plan.endpoint.clone());
        record.links.push(plan.near.clone());
        Ok(plan)
    }

    /// Whether a container needs an endpoint on `docker_gwbridge`, and the one that it has: networks over machines lead no way
    /// out by themselves.
    fn gateway_of(&self, container_id: &str) -> Result<(bool, Option<String>), NetError> {
        let record = self.ready(container_id)?;
        let wants = |endpoint: &Endpoint| {
            self.overlays.get(&endpoint.network_id).is_some_and(|overlay| !overlay.record.spec.internal)
        };
        let endpoints = &record.sandbox.endpoints;
        let is_chosen = record.spec.bridges.iter().any(|spec| self.is_gwbridge(&spec.network_id));
        let gateway = endpoints.iter().find(|endpoint| endpoint.network_name == GWBRIDGE && !is_chosen);
        let has_other = endpoints.iter().any(|endpoint| {
            endpoint.gateway.is_some() && gateway.is_none_or(|gateway| gateway.endpoint_id != endpoint.endpoint_id)
        });
        let needs = record.spec.ingress.is_some() || (!has_other && endpoints.iter().any(wants));
        Ok((needs, gateway.map(|endpoint| endpoint.endpoint_id.clone())))
    }

    fn is_gwbridge(&self, network_id: &str) -> bool {
        self.networks.gwbridge.as_ref().is_some_and(|network| network.id == network_id)
    }
}

fn turn_key(container_id: &str) -> String {
    format!("container {container_id}")
}

/// The namespace of a sandbox that has one to itself.
fn own_namespace(record: &SandboxRecord) -> Result<PathBuf, NetError> {
    match (&record.spec.mode, &record.sandbox.netns) {
        (SandboxMode::Host | SandboxMode::Container(_), _) | (_, None) => {
            let id = &record.spec.container_id;
            Err(NetError::Invalid(format!("container {id} shares a network namespace or has none to connect")))
        }
        (_, Some(path)) => Ok(path.clone()),
    }
}

/// The first `eth` name that no endpoint has.
fn free_link(record: &SandboxRecord) -> String {
    let mut names = (0..).map(|index| format!("eth{index}"));
    let is_free = |name: &String| record.sandbox.endpoints.iter().all(|endpoint| endpoint.link != *name);
    names.find(is_free).expect("a container has fewer links than there are numbers")
}
