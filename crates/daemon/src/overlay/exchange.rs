//! What this node's endpoints are, what the others' are, and what the kernel and the name servers are told of both.
//!
//! ```text
//!   containers ─► own endpoints ─┬─► Tables ─► changes ─► net: tunnels, balancing, names
//!                                ▼      ▲
//!                              gossip ──┘ others' endpoints
//! ```
//!
//! One lock, held while changes are applied: whoever has put something into the tables returns when the kernel has it.

mod announce;
mod apply;
mod greet;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use agent::NodeAddresses;
use announce::{announce, join, peer_record, places_of, tell_disabled, withdraw};
use discovery::{EndpointId, EndpointRecord, Origin, PeerRecord, Tables};
use gossip_io::Handle;
use model::{Network, Node};
use net::{Ipv4Cidr, Net, NetError, OverlaySpec, Sandbox};
use tokio::sync::{Mutex, MutexGuard, watch};

use super::own_file::{OwnFile, SavedOwn};
use super::specs::{DataPath, address_of, is_overlay, overlay_spec};
use super::withdrawal::Withdrawal;
use super::words;
use crate::errors::chain;

/// Who owns the names of this machine's tables: one writer, so that the order of changes is theirs.
const OWNER: &str = "swarm";

/// Where own endpoints are.
const HERE: Origin = Origin { here: true, keeps_clients: true };

/// The exchange. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Exchange(Arc<Shared>);

struct Shared {
    net: Net,
    file: OwnFile,
    state: Mutex<State>,
    /// Networks on which this node has an address of its own, as they come.
    attached: watch::Sender<BTreeSet<String>>,
    /// Networks that are open, see `greet`.
    open: watch::Sender<BTreeSet<String>>,
    gossip: watch::Sender<Option<Handle>>,
}

/// Why a network could not be made here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HoldError {
    /// What the managers say of it makes no network.
    #[error("{0}")]
    Unusable(String),
    /// The kernel, or what is made of it, says no.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl HoldError {
    /// Whether another try on this machine would end alike.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Net(NetError::NoEncryption { .. }))
    }
}

#[derive(Default)]
struct State {
    addresses: Option<NodeAddresses>,
    data_path: DataPath,
    /// This node's own addresses, by network.
    balancers: BTreeMap<String, Balancer>,
    /// Networks that are made here.
    held: BTreeMap<String, Held>,
    own: BTreeMap<Place, Own>,
    tables: Tables,
    gossip: Option<Handle>,
}

/// A network and an endpoint.
type Place = (String, String);

struct Balancer {
    network: Arc<Network>,
    address: Ipv4Cidr,
    endpoint: String,
}

#[derive(Default)]
struct Held {
    is_ingress: bool,
    /// It has no tunnels, though it should: another engine's swarm has them.
    ends_here: bool,
    /// See `greet`.
    is_open: bool,
    /// Tasks and containers that need it.
    holders: BTreeSet<String>,
}

impl Held {
    /// Takes a holder out. Whether nobody needs the network any more.
    fn leave(&mut self, holder: &str) -> bool {
        self.holders.remove(holder) && self.holders.is_empty() && !self.is_ingress
    }
}

/// An endpoint of this node as it was announced.
struct Own {
    /// Its key in the gossip: the endpoint, or something new if a former daemon, under another name, has told of it already.
    /// Two members cannot own one entry.
    key: String,
    container: String,
    peer: Option<PeerRecord>,
    record: Option<EndpointRecord>,
    /// What the gossip has of it, by table.
    told: BTreeMap<&'static str, Vec<u8>>,
}

impl Own {
    fn new(key: &str, container: &str) -> Self {
        Self { key: key.to_owned(), container: container.to_owned(), peer: None, record: None, told: BTreeMap::new() }
    }
}

impl Exchange {
    /// With what a former daemon left: its networks, and its tasks that took connections.
    pub(crate) fn open(net: Net, exec_root: &Path) -> Self {
        let file = OwnFile::new(exec_root);
        let mut state = State::default();
        for spec in net.overlays() {
            state.data_path = DataPath { address: spec.vtep, port: spec.data_path_port };
            state.held.insert(spec.network_id, Held { is_ingress: spec.ingress, is_open: true, ..Held::default() });
        }
        for saved in file.read() {
            let Ok(record) = EndpointRecord::decode(&saved.record) else { continue };
            let place = (saved.network, saved.endpoint);
            let Some(held) = state.held.get_mut(&place.0) else { continue };
            held.holders.insert(saved.container.clone());
            state.tables.set_endpoint(&place.0, &place.1, HERE, record.clone());
            let own = Own::new(&words::new_endpoint_id(), &saved.container);
            state.own.insert(place, Own { record: Some(record), ..own });
        }
        let attached = watch::channel(BTreeSet::new()).0;
        let open = watch::channel(state.held.keys().cloned().collect()).0;
        let gossip = watch::channel(None).0;
        Self(Arc::new(Shared { net, file, state: Mutex::new(state), attached, open, gossip }))
    }

    /// The containers that run, with their links; what is known of others is forgotten.
    pub(crate) async fn adopt(&self, running: &BTreeSet<String>) {
        for container in running {
            if let Some(sandbox) = self.0.net.sandbox(container) {
                self.link_as(container, &sandbox, |_| words::new_endpoint_id()).await;
            }
        }
        let state = self.lock().await;
        let gone: BTreeSet<String> = state.own.values().map(|own| own.container.clone()).collect();
        drop(state);
        for container in gone.difference(running).filter(|container| !container.is_empty()) {
            self.unlink(container).await;
        }
        self.apply(&mut *self.lock().await).await;
    }

    /// Whether the kernel has links to other nodes, from a former daemon or told of since.
    pub(crate) async fn waits_for_others(&self) -> bool {
        let state = self.lock().await;
        state.held.keys().any(|id| !self.0.net.peers(id).is_empty())
    }

    /// Removes from the kernel what a former daemon left there and nobody tells of any more. To be called when the others
    /// have had time to tell.
    pub(crate) async fn settle(&self) {
        let state = self.lock().await;
        let net = &self.0.net;
        let known = |network: &str, service: &str| state.tables.service(network, service).is_some();
        let ingress = state.held.iter().find(|(_, held)| held.is_ingress).map(|(id, _)| id.clone());
        for service in net.services() {
            if ingress.as_ref().is_none_or(|id| !known(id, &service))
                && let Err(error) = net.remove_service(&service).await
            {
                tracing::warn!(service, error = chain(&error), "published ports of a service that is gone stay open");
            }
        }
        for id in state.held.keys() {
            for service in net.virtual_services(id) {
                if !known(id, &service)
                    && let Err(error) = net.remove_virtual_service(id, &service).await
                {
                    tracing::warn!(service, error = chain(&error), "the address of a service that is gone stays");
                }
            }
            let links = state.tables.links(id).filter_map(|record| words::peer(&record)).collect();
            if let Err(error) = net.set_peers(id, links).await {
                tracing::warn!(network = id, error = chain(&error), "links of a network could not be set");
            }
        }
    }

    /// The networks on which this node has an address.
    pub(crate) fn attached(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.attached.subscribe()
    }

    /// Takes this node's addresses; known before the node object comes.
    pub(crate) async fn set_addresses(&self, addresses: Option<NodeAddresses>) {
        self.lock().await.addresses = addresses;
    }

    /// The address that others know this node by.
    pub(crate) async fn address(&self) -> Option<IpAddr> {
        self.lock().await.addresses.map(|addresses| addresses.advertise)
    }

    /// This node's addresses, and the port of its tunnels: 0 while it is VXLAN's own.
    pub(crate) async fn addresses(&self) -> (Option<NodeAddresses>, u16) {
        let state = self.lock().await;
        (state.addresses, state.data_path.port)
    }

    async fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().await
    }

    /// Takes the node as the managers have it. The ingress network is made at once, others when a task needs them. One that
    /// cannot be made is in no other's way.
    pub(crate) async fn configure(&self, node: &Node) -> Result<(), HoldError> {
        let mut state = self.lock().await;
        let mut failed = Ok(());
        state.data_path = DataPath::new(state.addresses, node.vxlan_udp_port);
        let mut seen = BTreeSet::new();
        for attachment in node.attachments.iter().chain(node.attachment.as_ref()) {
            let Some(network) = attachment.network.as_ref().filter(|network| is_overlay(network)) else { continue };
            let Some(address) = address_of(attachment) else { continue };
            let id = network.id.to_string();
            seen.insert(id.clone());
            if state.balancers.get(&id).is_none_or(|known| known.address != address || known.network != *network) {
                self.withdraw_balancer(&mut state, &id).await;
                let balancer = Balancer { network: network.clone(), address, endpoint: words::new_endpoint_id() };
                state.balancers.insert(id.clone(), balancer);
            }
            if network.spec.ingress || state.held.contains_key(&id) {
                let held = self.hold(&mut state, network).await;
                failed = failed.and(held);
            }
        }
        let gone: Vec<String> = state.balancers.keys().filter(|id| !seen.contains(*id)).cloned().collect();
        for id in gone {
            self.withdraw_balancer(&mut state, &id).await;
            state.balancers.remove(&id);
            if state.held.get(&id).is_some_and(|held| held.holders.is_empty()) {
                self.let_go(&mut state, &id).await;
            }
        }
        self.0.attached.send_replace(seen);
        failed
    }

    /// Makes a network for a task that will be on it.
    pub(crate) async fn prepare(&self, network: &Network, task: &str) -> Result<(), HoldError> {
        let mut state = self.lock().await;
        self.hold(&mut state, network).await?;
        state.held.entry(network.id.to_string()).or_default().holders.insert(task.to_owned());
        Ok(())
    }

    /// A task is gone; a network that nobody needs any more goes with it.
    pub(crate) async fn release(&self, task: &str) {
        let mut state = self.lock().await;
        self.release_in(&mut state, task).await;
    }

    async fn release_in(&self, state: &mut State, holder: &str) {
        let left = state.held.iter_mut().filter_map(|(id, held)| held.leave(holder).then(|| id.clone()));
        let empty: Vec<String> = left.collect();
        for id in empty {
            self.let_go(state, &id).await;
        }
    }

    /// Makes the network, or changes it to what it should be, and comes into its gossip.
    async fn hold(&self, state: &mut State, network: &Network) -> Result<(), HoldError> {
        let id = network.id.to_string();
        let balancer = state.balancers.get(&id).map(|balancer| balancer.address.address);
        let spec = overlay_spec(network, balancer, state.data_path).map_err(HoldError::Unusable)?;
        let ended_here = state.held.get(&id).is_some_and(|held| held.ends_here);
        let alone = state.gossip.is_none();
        let ends_here = self.make(spec, alone, ended_here).await?;
        let is_new = !state.held.contains_key(&id);
        let held = state.held.entry(id.clone()).or_default();
        (held.is_ingress, held.ends_here) = (network.spec.ingress, ends_here);
        if is_new && let Some(gossip) = state.gossip.clone() {
            join(&gossip, &id).await;
        }
        self.announce_balancer(state, &id).await;
        if is_new {
            self.greet(&id);
        }
        Ok(())
    }

    /// Makes a network. Where another engine's swarm has its tunnels, and so the port of the gossip too, this node has nobody
    /// to reach by them: the network ends at this machine then. Whether it does.
    async fn make(&self, spec: OverlaySpec, alone: bool, ended_here: bool) -> Result<bool, NetError> {
        if !(alone && ended_here) {
            match self.0.net.overlay_ensure(spec.clone()).await {
                Err(error @ NetError::VniInUse { .. }) if alone || ended_here => {
                    let network = spec.name.as_str();
                    tracing::error!(network, error = chain(&error), "the network ends at this machine");
                }
                made => return made.map(|()| false),
            }
        }
        self.0.net.overlay_ensure(OverlaySpec { vtep: None, ..spec }).await.map(|()| true)
    }

    /// Tries again to make tunnels that are missing.
    async fn reach_out(&self, state: &mut State) {
        let ending: Vec<String> =
            state.held.iter().filter(|(_, held)| held.ends_here).map(|(id, _)| id.clone()).collect();
        for id in ending {
            let Some(network) = state.balancers.get(&id).map(|balancer| balancer.network.clone()) else { continue };
            if let Err(error) = self.hold(state, &network).await {
                tracing::error!(network = id, error = chain(&error), "a network could not be made");
            }
        }
    }

    /// Takes a network down that nobody here is on.
    async fn let_go(&self, state: &mut State, id: &str) {
        state.held.remove(id);
        self.show_open(state);
        if let Some(gossip) = &state.gossip
            && let Err(error) = gossip.leave_network(id).await
        {
            tracing::debug!(network = id, %error, "the network was not in the gossip");
        }
        state.tables.remove_network(id);
        self.apply(state).await;
        self.0.net.names().drop_network(id);
        if let Err(error) = self.0.net.overlay_remove(id).await {
            tracing::warn!(network = id, error = chain(&error), "a network could not be removed");
        }
    }

    async fn announce_balancer(&self, state: &mut State, id: &str) {
        let (Some(balancer), Some(vtep)) = (state.balancers.get(id), state.data_path.address) else { return };
        let place = (id.to_owned(), balancer.endpoint.clone());
        if state.own.contains_key(&place) {
            return;
        }
        let peer = peer_record(balancer.address, words::mac_of(balancer.address.address), vtep);
        state.own.insert(place.clone(), Own { peer: Some(peer), ..Own::new(&place.1, "") });
        announce(state, &place).await;
    }

    async fn withdraw_balancer(&self, state: &mut State, id: &str) {
        if let Some(balancer) = state.balancers.get(id) {
            let place = (id.to_owned(), balancer.endpoint.clone());
            withdraw(state, &place).await;
        }
    }

    /// A container's links are made: the others may send to it.
    pub(crate) async fn link(&self, container: &str, sandbox: &Sandbox) {
        self.link_as(container, sandbox, str::to_owned).await;
    }

    async fn link_as(&self, container: &str, sandbox: &Sandbox, key: impl Fn(&str) -> String) {
        let mut state = self.lock().await;
        for endpoint in &sandbox.endpoints {
            let place = (endpoint.network_id.clone(), endpoint.endpoint_id.clone());
            let Some(held) = state.held.get_mut(&place.0) else { continue };
            held.holders.insert(container.to_owned());
            if state.own.get(&place).is_some_and(|own| own.peer.is_some()) {
                continue;
            }
            let mac = words::parse_mac(&endpoint.mac);
            let peer = state.data_path.address.zip(mac).map(|(vtep, mac)| peer_record(endpoint.address, mac, vtep));
            state.own.entry(place.clone()).or_insert_with(|| Own::new(&key(&place.1), container)).peer = peer;
            announce(&mut state, &place).await;
        }
    }

    /// A container's links are gone.
    pub(crate) async fn unlink(&self, container: &str) {
        let mut state = self.lock().await;
        let places: Vec<Place> = places_of(&state, container);
        self.take_out(&mut state, &places).await;
        self.release_in(&mut state, container).await;
    }

    /// A container's link to one network is about to go.
    pub(crate) async fn unlink_from(&self, container: &str, network: &str) {
        let mut state = self.lock().await;
        let places: Vec<Place> = places_of(&state, container).into_iter().filter(|place| place.0 == network).collect();
        self.take_out(&mut state, &places).await;
    }

    /// It is gone; a network that nobody needs any more goes with it.
    pub(crate) async fn release_from(&self, container: &str, network: &str) {
        let mut state = self.lock().await;
        if state.held.get_mut(network).is_some_and(|held| held.leave(container)) {
            self.let_go(&mut state, network).await;
        }
    }

    async fn take_out(&self, state: &mut State, places: &[Place]) {
        for place in places {
            withdraw(state, place).await;
            state.tables.remove_endpoint(&place.0, &place.1);
        }
        self.apply(state).await;
        self.save(state);
    }

    /// A container has another name: the records that have the old one are told anew.
    pub(crate) async fn rename(&self, container: &str, name: &str) {
        let mut state = self.lock().await;
        for place in places_of(&state, container) {
            let Some(record) = state.own.get_mut(&place).and_then(|own| own.record.as_mut()) else { continue };
            name.clone_into(&mut record.name);
            let record = record.clone();
            state.tables.set_endpoint(&place.0, &place.1, HERE, record);
            announce(&mut state, &place).await;
        }
        self.save(&state);
        self.apply(&mut state).await;
    }

    /// A network of the swarm as the managers have it, if this node has an address on it.
    pub(crate) async fn network(&self, id: &str) -> Option<Arc<Network>> {
        self.lock().await.balancers.get(id).map(|balancer| balancer.network.clone())
    }

    /// Keeps which tasks take connections, for the next daemon.
    fn save(&self, state: &State) {
        let saved = state.own.iter().filter_map(|((network, endpoint), own)| {
            Some(SavedOwn {
                network: network.clone(),
                endpoint: endpoint.clone(),
                container: own.container.clone(),
                record: own.record.as_ref()?.encode(),
            })
        });
        self.0.file.write(&saved.collect::<Vec<_>>());
    }

    /// A container may be asked for by its names, and a task takes connections. `record` is made for each of its networks.
    /// Returns when this machine's tables have it.
    pub(crate) async fn enable(
        &self,
        container: &str,
        record: impl Fn(&str) -> Option<EndpointRecord>,
    ) -> Result<(), NetError> {
        let networks = places_of(&*self.lock().await, container).into_iter().map(|(network, _)| network);
        self.until_open(&networks.collect::<Vec<_>>()).await;
        let mut state = self.lock().await;
        for place in places_of(&state, container) {
            let Some(record) = record(&place.0) else { continue };
            let Some(own) = state.own.get_mut(&place) else { continue };
            if own.record.as_ref() == Some(&record) {
                continue;
            }
            own.record = Some(record.clone());
            state.tables.set_endpoint(&place.0, &place.1, HERE, record);
            announce(&mut state, &place).await;
        }
        self.save(&state);
        self.try_apply(&mut state).await
    }

    /// A task gets no new connections, on no node. Returns when this machine's tables have it and the others were told;
    /// [`Withdrawal::known`] waits until they have it too. `None`: it got none before.
    pub(crate) async fn disable(&self, container: &str) -> Result<Option<Withdrawal>, NetError> {
        let mut state = self.lock().await;
        let mut disabled = Vec::new();
        for place in places_of(&state, container) {
            let Some(own) = state.own.get_mut(&place) else { continue };
            let Some(record) = own.record.as_mut().filter(|record| !record.disabled) else { continue };
            record.disabled = true;
            let record = record.clone();
            state.tables.set_endpoint(&place.0, &place.1, HERE, record.clone());
            disabled.push((place, record));
        }
        if disabled.is_empty() {
            return Ok(None);
        }
        self.save(&state);
        let applied = self.try_apply(&mut state).await;
        let told = tell_disabled(&mut state, disabled).await;
        applied.map(|()| Some(told))
    }

    /// Gossip has begun, or has ended: what is here is told, and what the others tell replaces what was known.
    pub(crate) async fn set_gossip(&self, handle: Option<Handle>) {
        let mut state = self.lock().await;
        state.gossip.clone_from(&handle);
        state.own.values_mut().for_each(|own| own.told.clear());
        let Some(gossip) = handle else {
            self.0.gossip.send_replace(None);
            return;
        };
        self.reach_out(&mut state).await;
        for id in state.held.keys() {
            join(&gossip, id).await;
        }
        let places: Vec<Place> = state.own.keys().cloned().collect();
        for place in places {
            announce(&mut state, &place).await;
        }
        self.0.gossip.send_replace(Some(gossip));
    }

    /// Takes what others announce; `None`: it is gone. Whether the kernel has all of it.
    pub(crate) async fn take(&self, told: Vec<(Told, Option<Arc<[u8]>>)>) -> bool {
        let mut state = self.lock().await;
        for (Told { table, network, endpoint, keeps_clients }, value) in told {
            tracing::debug!(?table, network, endpoint, gone = value.is_none(), "told by another node");
            // News of a network that this node has left may still be on its way, and what a former daemon of this node told of
            // its endpoints goes round until its name is forgotten.
            let is_own = state.own.contains_key(&(network.clone(), endpoint.clone()));
            if is_own || !state.held.contains_key(&network) {
                continue;
            }
            match (table, value) {
                (Table::Endpoints, Some(value)) => match EndpointRecord::decode(&value) {
                    Ok(record) => {
                        let origin = Origin { here: false, keeps_clients };
                        state.tables.set_endpoint(&network, &endpoint, origin, record);
                    }
                    Err(error) => tracing::warn!(network, endpoint, %error, "a node announces no endpoint"),
                },
                (Table::Endpoints, None) => state.tables.remove_endpoint(&network, &endpoint),
                (Table::Links, Some(value)) => match PeerRecord::decode(&value) {
                    Ok(record) => state.tables.set_link(&network, &endpoint, record),
                    Err(error) => tracing::warn!(network, endpoint, %error, "a node announces no link"),
                },
                (Table::Links, None) => state.tables.remove_link(&network, &endpoint),
            }
        }
        self.apply(&mut state).await
    }

    /// The endpoints of a network, and the nodes that they are on.
    pub(crate) async fn endpoints(&self, network: &str) -> Vec<(EndpointId, Arc<EndpointRecord>, Option<IpAddr>)> {
        let state = self.lock().await;
        let own_node = state.data_path.address.map(IpAddr::V4);
        let node = |id: &EndpointId, link: Option<&PeerRecord>| {
            let is_own = state.own.contains_key(&(network.to_owned(), id.to_string()));
            link.map(|link| link.tunnel_endpoint).or(own_node.filter(|_| is_own))
        };
        let known = state.tables.endpoints(network);
        known.map(|(id, record, link)| (id.clone(), record.clone(), node(id, link))).collect()
    }

    /// This node is in no swarm.
    pub(crate) async fn forget(&self) {
        let mut state = self.lock().await;
        let networks: Vec<String> = state.held.keys().cloned().collect();
        for id in networks {
            self.let_go(&mut state, &id).await;
        }
        *state = State::default();
        self.save(&state);
        self.0.attached.send_replace(BTreeSet::new());
    }
}

/// Something that another node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) table: Table,
    pub(crate) network: String,
    pub(crate) endpoint: String,
    /// Its node lets clients' addresses through.
    pub(crate) keeps_clients: bool,
}

/// Where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// `endpoint_table`.
    Endpoints,
    /// `overlay_peer_table`.
    Links,
}
