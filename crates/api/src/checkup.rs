//! `GET /skep/doctor`: what keeps the swarm's networks from working, as this node finds it. A path of Skep's own, below none
//! that Docker uses; `skep doctor` shows the answer.

use async_trait::async_trait;
use axum::extract::State;
use axum::response::Response;

use crate::answer;
use crate::state::Shared;

/// Looks for what is wrong. `daemon` does it.
#[async_trait]
pub trait Checkup: Send + Sync + 'static {
    /// Looks, some seconds long, and tells.
    async fn report(&self) -> doctor::Report;
}

pub(crate) async fn examine(State(state): State<Shared>) -> Response {
    answer::ok(&state.doctor.report().await)
}
