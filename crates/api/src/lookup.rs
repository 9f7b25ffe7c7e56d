//! From what a user typed to an object of the swarm: whole identifier, then name, then beginning of an identifier.

use model::{Config, Network, Node, Secret, Service, ServiceId, Task};

use crate::error::ApiError;
use crate::swarm_backend::{
    InsertDefaults, NodeFilter, ObjectFilter, ServiceFilter, SwarmBackend, SwarmResult, TaskFilter,
};

/// `None` if there is no such object; other refusals stay.
fn found<T>(result: SwarmResult<T>) -> Result<Option<T>, ApiError> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The one object of a list.
fn only<T>(mut matches: Vec<T>, kind: &str, input: &str) -> Result<T, ApiError> {
    match matches.len() {
        0 => Err(ApiError::not_found(format!("{kind} {input} not found"))),
        1 => Ok(matches.remove(0)),
        count => Err(ApiError::bad_request(format!("{kind} {input} is ambiguous ({count} matches found)"))),
    }
}

macro_rules! lookup {
    ($(#[$doc:meta])* $name:ident: $kind:literal -> $object:ty, $get:ident, $list:ident, $filter:expr) => {
        $(#[$doc])*
        pub(crate) async fn $name(swarm: &dyn SwarmBackend, input: &str) -> Result<$object, ApiError> {
            if let Some(object) = found(swarm.$get(&input.into()).await)? {
                return Ok(object);
            }
            let named = swarm.$list(($filter)(ObjectFilter::by_name(input))).await?;
            if !named.is_empty() {
                return only(named, $kind, input);
            }
            only(swarm.$list(($filter)(ObjectFilter::by_id_prefix(input))).await?, $kind, input)
        }
    };
}

lookup!(
    /// A node.
    node: "node" -> Node, node, nodes, |object| NodeFilter { object, ..NodeFilter::default() }
);
lookup!(
    /// A task.
    task: "task" -> Task, task, tasks, |object| TaskFilter { object, ..TaskFilter::default() }
);
lookup!(
    /// A secret.
    secret: "secret" -> Secret, secret, secrets, |object| object
);
lookup!(
    /// A config.
    config: "config" -> Config, config, configs, |object| object
);
lookup!(
    /// A network of the swarm.
    network: "network" -> Network, network, networks, |object| object
);

/// A service.
pub(crate) async fn service(
    swarm: &dyn SwarmBackend,
    input: &str,
    defaults: InsertDefaults,
) -> Result<Service, ApiError> {
    let id: ServiceId = input.into();
    if let Some(service) = found(swarm.service(&id, defaults).await)? {
        return Ok(service);
    }
    let filter = |object| ServiceFilter { object, ..ServiceFilter::default() };
    let mut matches = swarm.services(filter(ObjectFilter::by_name(input))).await?;
    if matches.is_empty() {
        matches = swarm.services(filter(ObjectFilter::by_id_prefix(input))).await?;
    }
    let service = only(matches, "service", input)?;
    match defaults {
        InsertDefaults::No => Ok(service),
        InsertDefaults::Yes => Ok(swarm.service(&service.id, defaults).await?),
    }
}
