//! `GET /events`: the engine's bus, onto which the swarm's changes are put too ([`forward_swarm`], run by the server).

use std::convert::Infallible;

use axum::extract::State;
use docker_types::event::{Actor, EventMessage};
use docker_types::filters::Filters;
use futures::StreamExt;
use oci_types::Reference;
use tokio_util::sync::CancellationToken;

use crate::answer;
use crate::error::{ApiError, ApiResult};
use crate::request::{ClientVersion, Params};
use crate::state::Shared;
use crate::streams::{nanoseconds, point_in_time, until_the_end};
use crate::swarm::events::describe;

/// Types whose filter of the same name takes the beginning of an identifier or name.
const ACTORS: [&str; 9] = ["container", "plugin", "volume", "network", "daemon", "service", "node", "secret", "config"];
/// Actions that carry a detail behind a colon, so that a filter names their beginning.
const DETAILED: [&str; 3] = ["health_status", "exec_create", "exec_start"];

/// What is sent to one client.
struct Selection {
    filters: Filters,
    /// Images' creation is told to clients of API 1.46 and newer.
    image_creation: bool,
}

pub(crate) async fn events(State(state): State<Shared>, version: ClientVersion, params: Params) -> ApiResult {
    let since = point_in_time(&params, "since")?;
    let until = point_in_time(&params, "until")?;
    if until.is_some_and(|until| since.is_some_and(|since| until < since)) {
        return Err(ApiError::bad_request(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            params.get("since"),
            params.get("until")
        )));
    }
    let selection = Selection { filters: Filters::parse(params.get("filters"))?, image_creation: version.at_least(46) };
    let events = state.engine.subscribe(since, until);
    let lines = events.filter_map(move |event| {
        let line = selection.includes(&event).then(|| Ok::<_, Infallible>(answer::json_bytes(&event)));
        async move { line }
    });
    Ok(until_the_end(&state, "application/json", lines))
}

impl Selection {
    fn includes(&self, event: &EventMessage) -> bool {
        let filters = &self.filters;
        let name = event.actor.attributes.get("name").map_or("", String::as_str);
        (self.image_creation || !(event.kind == "image" && event.action == "create"))
            && self.action_passes(&event.action)
            && filters.matches_exact("type", &event.kind)
            && filters.matches_exact("scope", &event.scope)
            && ACTORS
                .iter()
                .all(|kind| filters.matches_prefix(kind, &event.actor.id) || filters.matches_prefix(kind, name))
            && self.image_passes(event)
            && filters.matches_labels("label", &event.actor.attributes)
    }

    fn action_passes(&self, action: &str) -> bool {
        if self.filters.get("event").any(|wanted| DETAILED.contains(&wanted)) {
            return self.filters.matches_prefix("event", action);
        }
        self.filters.matches_exact("event", action)
    }

    /// Images by identifier or name, containers by the image they are made of; a tag may be left out.
    fn image_passes(&self, event: &EventMessage) -> bool {
        if !self.filters.contains("image") {
            return true;
        }
        let attribute = if event.kind == "image" { "name" } else { "image" };
        let name = event.actor.attributes.get(attribute).map_or("", String::as_str);
        [event.actor.id.as_str(), name].into_iter().any(|text| {
            let untagged = Reference::parse(text).map(|reference| reference.familiar_name()).unwrap_or_default();
            self.filters.matches_exact("image", text) || self.filters.matches_exact("image", &untagged)
        })
    }
}

/// Puts the swarm's changes onto the engine's bus until the server ends.
pub(crate) async fn forward_swarm(state: Shared, ending: CancellationToken) {
    let mut changes = state.swarm.events();
    loop {
        // Cancel-safe: a queue's `recv` loses nothing, a token stays cancelled.
        let change = tokio::select! {
            change = changes.recv() => change,
            () = ending.cancelled() => return,
        };
        let Some(change) = change else { return };
        let described = describe(&change);
        state.engine.publish(EventMessage {
            kind: described.kind.to_owned(),
            action: described.action.to_owned(),
            actor: Actor { id: described.id, attributes: described.attributes },
            scope: "swarm".to_owned(),
            time: change.at.seconds,
            time_nano: nanoseconds(change.at),
            ..EventMessage::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> EventMessage {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        EventMessage {
            kind: kind.into(),
            action: action.into(),
            actor: Actor { id: id.into(), attributes },
            scope: "local".into(),
            ..EventMessage::default()
        }
    }

    #[test]
    fn filters_are_dockerds() {
        let started =
            event("container", "start", "abcdef", &[("name", "web"), ("image", "alpine:3"), ("tier", "front")]);
        let checked = event("container", "health_status: healthy", "abcdef", &[("name", "web")]);
        let pulled = event("image", "pull", "alpine:3", &[("name", "alpine")]);
        let passes = |filters: &str, event: &EventMessage| {
            Selection { filters: Filters::parse(filters).unwrap(), image_creation: true }.includes(event)
        };
        for (filters, expected) in [
            (r#"{}"#, [true, true, true]),
            (r#"{"event":["start"]}"#, [true, false, false]),
            (r#"{"event":["health_status"]}"#, [false, true, false]),
            (r#"{"type":["image"]}"#, [false, false, true]),
            (r#"{"container":["abc"]}"#, [true, true, false]),
            (r#"{"container":["we"]}"#, [true, true, false]),
            (r#"{"image":["alpine"]}"#, [true, false, true]),
            (r#"{"image":["alpine:3"]}"#, [true, false, true]),
            (r#"{"label":["tier=front"]}"#, [true, false, false]),
            (r#"{"scope":["swarm"]}"#, [false, false, false]),
        ] {
            let found = [&started, &checked, &pulled].map(|event| passes(filters, event));
            assert_eq!(found, expected, "{filters}");
        }
    }
}
