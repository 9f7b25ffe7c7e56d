//! `/networks`: the swarm's and this machine's, in one list.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use docker_types::event::{Actor, EventMessage};
use docker_types::filters::Filters;
use docker_types::network::{
    Network, NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest,
    NetworksPruneResponse, PREDEFINED_LABEL, PeerInfo,
};
use engine::DisconnectMode;
use http::StatusCode;
use model::ServiceSpec;

use crate::error::{ApiError, ApiResult};
use crate::local_networks::shown;
use crate::request::{ClientVersion, Json, Params};
use crate::state::{Context, Shared};
use crate::swarm_backend::{LocalNodeState, NotManager, ObjectFilter, SwarmError};
use crate::{answer, lookup, network_rules};

/// Networks that are there from the start.
const PREDEFINED: [&str; 4] = ["bridge", "host", "none", "default"];
/// The driver whose networks are the swarm's.
pub(crate) const OVERLAY: &str = "overlay";
const SWARM_SCOPE: &str = "swarm";
/// The bridge that leads out of the swarm's networks.
pub(crate) const GATEWAY_BRIDGE: &str = "docker_gwbridge";
const PRUNE_FILTERS: &[&str] = &["label", "label!", "until"];
const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

pub(crate) fn is_predefined(name: &str) -> bool {
    PREDEFINED.contains(&name)
}

/// Whether it is the swarm's own copy of `bridge` or `host`, which users do not see.
fn is_predefined_copy(network: &model::Network) -> bool {
    network.spec.annotations.labels.get(PREDEFINED_LABEL).is_some_and(|value| value == "true")
}

/// Networks of the swarm that users see; none where this node cannot know them.
async fn swarm_networks(state: &Context) -> Vec<Network> {
    let networks = state.swarm.networks(ObjectFilter::default()).await.unwrap_or_default();
    networks.iter().filter(|network| !is_predefined_copy(network)).map(Network::from_model).collect()
}

/// Networks of this machine.
fn local_networks(state: &Context) -> Vec<Network> {
    state.networks.networks().into_iter().map(shown).collect()
}

/// All networks once. The swarm knows more of its own ones, but not which containers here are in them.
async fn all_networks(state: &Context) -> Vec<Network> {
    let mut networks: BTreeMap<String, Network> = BTreeMap::new();
    for network in swarm_networks(state).await {
        networks.insert(network.id.clone(), network);
    }
    for local in local_networks(state) {
        let id = local.id.clone();
        let known = match networks.remove(&id) {
            Some(known) => Some(known),
            None => state.networks.of_swarm(&id).await.as_ref().map(Network::from_model),
        };
        let shown = match known {
            Some(mut network) => {
                take_part(&mut network, local, state.networks.peers(&id).await);
                network
            }
            None => local,
        };
        networks.insert(id, shown);
    }
    networks.into_values().collect()
}

/// A network of the swarm as a node shows it that is in it itself.
fn take_part(network: &mut Network, local: Network, peers: Vec<PeerInfo>) {
    network.containers = local.containers;
    network.labels.get_or_insert_default();
    network.options.get_or_insert_default();
    network.peers = peers;
}

pub(crate) async fn list(State(state): State<Shared>, params: Params) -> ApiResult {
    let filters = params.filters(FILTERS)?;
    let mut shown = Vec::new();
    for mut network in all_networks(&state).await {
        if passes(&filters, &network)? {
            // Lists do not tell who is in a network.
            network.containers = Some(BTreeMap::new());
            shown.push(network);
        }
    }
    Ok(answer::ok(&shown))
}

fn passes(filters: &Filters, network: &Network) -> Result<bool, ApiError> {
    let builtin = is_predefined(&network.name);
    let mut kind_passes = !filters.contains("type");
    for kind in filters.get("type") {
        kind_passes |= match kind {
            "builtin" => builtin,
            "custom" => !builtin,
            _ => return Err(ApiError::internal(format!("invalid filter: 'type'='{kind}'"))),
        };
    }
    let in_use = network.containers.as_ref().is_some_and(|containers| !containers.is_empty())
        || !network.services.is_empty()
        || builtin
        || network.ingress;
    Ok(kind_passes
        && dangling(filters)?.is_none_or(|dangling| dangling != in_use)
        && filters.matches_part("name", &network.name)
        && filters.matches_part("id", &network.id)
        && filters.matches_exact("driver", &network.driver)
        && filters.matches_exact("scope", &network.scope)
        && filters.matches_labels("label", network.labels.as_ref().unwrap_or(&BTreeMap::new())))
}

fn dangling(filters: &Filters) -> Result<Option<bool>, ApiError> {
    let refused = |text: &str| Err(ApiError::bad_request(text));
    match filters.flag("dangling") {
        Ok(flag) => Ok(flag),
        Err(_) if filters.values("dangling").len() > 1 => {
            refused("got more than one value for filter key \"dangling\"")
        }
        Err(_) => refused("invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")"),
    }
}

/// What a user's word for a network may mean.
#[derive(Default)]
struct Candidates {
    by_id: Option<Network>,
    by_name: Vec<Network>,
    by_prefix: Vec<Network>,
}

async fn candidates(state: &Context, term: &str, scope: &str) -> Candidates {
    let mut found = Candidates::default();
    let in_scope = |network: &Network| scope.is_empty() || network.scope == scope;
    for network in all_networks(state).await.into_iter().filter(in_scope) {
        if network.id == term {
            found.by_id = Some(network);
        } else if network.name == term {
            found.by_name.push(network);
        } else if network.id.starts_with(term) {
            found.by_prefix.push(network);
        }
    }
    found
}

impl Candidates {
    /// The one network; `ambiguous` words the refusal from the number of matches and what they were found by.
    fn one(self, term: &str, ambiguous: impl Fn(usize, &str) -> String) -> Result<Network, ApiError> {
        if let Some(network) = self.by_id {
            return Ok(network);
        }
        for (mut networks, found_by) in [(self.by_name, "name"), (self.by_prefix, "ID prefix")] {
            match networks.len() {
                0 => {}
                1 => return Ok(networks.remove(0)),
                count => return Err(ApiError::bad_request(ambiguous(count, found_by))),
            }
        }
        Err(ApiError::not_found(format!("network {term} not found")))
    }
}

pub(crate) async fn inspect(State(state): State<Shared>, Path(term): Path<String>, params: Params) -> ApiResult {
    let scope = params.get("scope");
    let found = candidates(&state, &term, scope).await;
    // The swarm's copies of bridge and host are for those who ask for the swarm's: `service create --network host`.
    if scope == SWARM_SCOPE
        && found.by_id.is_none()
        && let Ok(network) = lookup::network(&*state.swarm, &term).await
    {
        return Ok(answer::ok(&Network::from_model(&network)));
    }
    let ambiguous = |count, by: &str| format!("{count} matches found based on {by}: network {term} is ambiguous");
    let mut network = found.one(&term, ambiguous)?;
    if params.flag("verbose") {
        network.services = state.networks.services(&network.id).await;
    }
    Ok(answer::ok(&network))
}

pub(crate) async fn create(
    State(state): State<Shared>,
    version: ClientVersion,
    Json(mut body): Json<NetworkCreateRequest>,
) -> ApiResult {
    let taken = ApiError::conflict(format!("network with name {} already exists", body.name));
    let named = state.swarm.networks(ObjectFilter::by_name(&body.name)).await.unwrap_or_default();
    if !named.is_empty() {
        return Err(taken);
    }
    if is_predefined(&body.name) {
        let text = format!("operation is not permitted on predefined {} network ", body.name);
        return Err(ApiError::forbidden(text));
    }
    if body.driver.is_empty() {
        "bridge".clone_into(&mut body.driver);
    }
    let is_manager = state.swarm.info().await.control_available;
    if body.driver == OVERLAY && !is_manager {
        return Err(ApiError::forbidden(SwarmError::NotManager(NotManager::NoSwarm).to_string()));
    }
    if !version.at_least(48) {
        body.enable_ipv4 = None;
    }
    network_rules::check(&mut body)?;
    if local_networks(&state).iter().any(|network| network.name == body.name) {
        return Err(taken);
    }
    let id = if body.driver == OVERLAY || body.scope == SWARM_SCOPE {
        create_in_swarm(&state, &body).await?
    } else {
        create_here(&state, &body).await?
    };
    Ok(answer::created(&NetworkCreateResponse { id, warning: String::new() }))
}

async fn create_in_swarm(state: &Context, body: &NetworkCreateRequest) -> Result<String, ApiError> {
    let info = state.swarm.info().await;
    if !info.control_available {
        return Err(ApiError::forbidden(match info.local_node_state {
            LocalNodeState::Active => {
                "Cannot create a multi-host network from a worker node. Please create the network from a manager node."
            }
            _ => "cannot create a swarm scoped network when swarm is not active",
        }));
    }
    if body.enable_ipv4 == Some(false) {
        return Err(ApiError::bad_request("IPv4 cannot be disabled in a Swarm scoped network"));
    }
    Ok(state.swarm.create_network(body.to_model()).await?.to_string())
}

async fn create_here(state: &Context, body: &NetworkCreateRequest) -> Result<String, ApiError> {
    let driver = &body.driver;
    match driver.as_str() {
        "bridge" => {
            let id = state.networks.create(network_rules::to_bridge(body)?).await?;
            tell(state, "create", &id, &body.name, driver);
            Ok(id)
        }
        "macvlan" | "ipvlan" => {
            let text = format!("making networks of driver {driver:?} is not supported by Skep yet");
            Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, text))
        }
        "host" | "null" => Err(ApiError::forbidden(format!("only one instance of {driver:?} network is allowed"))),
        _ => Err(ApiError::not_found(format!("plugin {driver:?} not found"))),
    }
}

/// An event of a network of this machine.
fn tell(state: &Context, action: &str, id: &str, name: &str, driver: &str) {
    let attributes = [("name", name), ("type", driver)].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    state.engine.publish(EventMessage {
        kind: "network".to_owned(),
        action: action.to_owned(),
        actor: Actor { id: id.to_owned(), attributes },
        ..EventMessage::default()
    });
}

pub(crate) async fn connect(
    State(state): State<Shared>,
    Path(network): Path<String>,
    Json(body): Json<NetworkConnectRequest>,
) -> ApiResult {
    state.engine.connect(&body.container, &network, body.endpoint_config.unwrap_or_default()).await?;
    Ok(answer::empty())
}

pub(crate) async fn disconnect(
    State(state): State<Shared>,
    Path(network): Path<String>,
    Json(body): Json<NetworkDisconnectRequest>,
) -> ApiResult {
    let mode = if body.force { DisconnectMode::Force } else { DisconnectMode::Safe };
    state.engine.disconnect(&body.container, &network, mode).await?;
    Ok(answer::empty())
}

pub(crate) async fn remove(State(state): State<Shared>, Path(term): Path<String>) -> ApiResult {
    let ambiguous = |count, by: &str| format!("network {term} is ambiguous ({count} matches found based on {by})");
    let network = candidates(&state, &term, "").await.one(&term, ambiguous)?;
    if network.scope == SWARM_SCOPE {
        state.swarm.remove_network(&network.id.as_str().into()).await?;
    } else {
        remove_here(&state, &network).await?;
    }
    Ok(answer::no_content())
}

async fn remove_here(state: &Context, network: &Network) -> Result<(), ApiError> {
    let name = &network.name;
    if is_predefined(name) {
        return Err(ApiError::forbidden(format!("{name} is a pre-defined network and cannot be removed")));
    }
    if name == GATEWAY_BRIDGE {
        let text = format!("removing network {name} is not supported by Skep yet");
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, text));
    }
    let removed = state.networks.remove(&network.id).await.map_err(ApiError::from);
    removed.map_err(|error| ApiError::new(error.status, format!("error while removing network: {}", error.message)))?;
    tell(state, "destroy", &network.id, name, &network.driver);
    Ok(())
}

/// `POST /networks/prune`: networks that nothing uses, the swarm's and this machine's.
pub(crate) async fn prune(State(state): State<Shared>, params: Params) -> ApiResult {
    let filters = params.filters(PRUNE_FILTERS)?;
    let until = crate::images::until(&filters)?;
    let none = BTreeMap::new();
    let is_kept = |network: &Network| {
        let labels = network.labels.as_ref().unwrap_or(&none);
        network.ingress
            || is_predefined(&network.name)
            || network.name == GATEWAY_BRIDGE
            || until.is_some_and(|until| network.created.0.is_some_and(|at| at.seconds > until))
            || !filters.matches_labels("label", labels)
            || (filters.contains("label!") && filters.matches_labels("label!", labels))
    };
    let mut done = NetworksPruneResponse::default();
    for network in swarm_networks(&state).await.into_iter().filter(|network| !is_kept(network)) {
        // One that is in use is refused by the swarm.
        if state.swarm.remove_network(&network.id.as_str().into()).await.is_ok() {
            done.networks_deleted.get_or_insert_default().push(network.name);
        }
    }
    for network in local_networks(&state).into_iter().filter(|it| it.scope != SWARM_SCOPE && !is_kept(it)) {
        let is_used = network.containers.as_ref().is_some_and(|containers| !containers.is_empty());
        if !is_used && remove_here(&state, &network).await.is_ok() {
            done.networks_deleted.get_or_insert_default().push(network.name);
        }
    }
    state.engine.publish(EventMessage {
        kind: "network".to_owned(),
        action: "prune".to_owned(),
        actor: Actor { attributes: [("reclaimed".to_owned(), "0".to_owned())].into(), ..Actor::default() },
        ..EventMessage::default()
    });
    Ok(answer::ok(&done))
}

/// Replaces names of networks in a service's spec by the swarm's identifiers.
pub(crate) async fn resolve_targets(state: &Context, spec: &mut ServiceSpec) -> Result<(), ApiError> {
    let task = Arc::make_mut(&mut spec.task);
    let attachments = if task.networks.is_empty() { &mut spec.networks } else { &mut task.networks };
    for attachment in attachments {
        attachment.target = resolve_target(state, &attachment.target).await?;
    }
    Ok(())
}

async fn resolve_target(state: &Context, target: &str) -> Result<String, ApiError> {
    let refusal = match lookup::network(&*state.swarm, target).await {
        Ok(network) => return Ok(network.id.to_string()),
        Err(error) => error,
    };
    let locals = local_networks(state);
    match locals.iter().find(|network| network.id == target || network.name == target) {
        // The swarm has copies of these, found by name.
        Some(local) if is_predefined(&local.name) => {
            Ok(lookup::network(&*state.swarm, &local.name).await?.id.to_string())
        }
        Some(local) => Err(ApiError::forbidden(format!(
            "The network {} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.",
            local.name
        ))),
        // dockerd leaves this one unclassified.
        None if refusal.status == http::StatusCode::NOT_FOUND => Err(ApiError::internal(refusal.message)),
        None => Err(refusal),
    }
}
