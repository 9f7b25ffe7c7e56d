//! `/networks`: the swarm's and this machine's.

use std::sync::Arc;

use docker_types::network::PREDEFINED_LABEL;
use model::{Network, ServiceSpec};

use crate::error::ApiError;
use crate::lookup;
use crate::state::ApiState;

/// Whether it is the swarm's own copy of `bridge` or `host`, which users do not see.
fn is_predefined_copy(network: &Network) -> bool {
    network.spec.annotations.labels.get(PREDEFINED_LABEL).is_some_and(|value| value == "true")
}

/// Replaces names of networks in a service's spec by the swarm's identifiers.
pub(crate) async fn resolve_targets(state: &ApiState, spec: &mut ServiceSpec) -> Result<(), ApiError> {
    let task = Arc::make_mut(&mut spec.task);
    let attachments = if task.networks.is_empty() { &mut spec.networks } else { &mut task.networks };
    for attachment in attachments {
        attachment.target = resolve_target(state, &attachment.target).await?;
    }
    Ok(())
}

async fn resolve_target(state: &ApiState, target: &str) -> Result<String, ApiError> {
    Ok(lookup::network(&*state.swarm, target).await?.id.to_string())
}
