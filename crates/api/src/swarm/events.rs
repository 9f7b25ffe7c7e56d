//! Changes of the swarm's objects as Docker events.

use std::collections::BTreeMap;

use docker_types::words::Word;
use model::{Node, Service, ServiceMode, TaskRuntime};

use crate::swarm_backend::{SwarmEvent, SwarmEventAction, SwarmObject};

/// What a Docker event says of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// `Type`.
    pub(crate) kind: &'static str,
    /// `Action`.
    pub(crate) action: &'static str,
    /// `Actor.ID`.
    pub(crate) id: String,
    /// `Actor.Attributes`.
    pub(crate) attributes: BTreeMap<String, String>,
}

pub(crate) fn describe(event: &SwarmEvent) -> Described {
    let action = match event.action {
        SwarmEventAction::Create => "create",
        SwarmEventAction::Update => "update",
        SwarmEventAction::Remove => "remove",
    };
    let (kind, id, name) = match &event.object {
        SwarmObject::Node(node) => ("node", node.id.to_string(), node_name(node)),
        SwarmObject::Service(service) => ("service", service.id.to_string(), service.spec.annotations.name.clone()),
        SwarmObject::Network(network) => ("network", network.id.to_string(), network.spec.annotations.name.clone()),
        SwarmObject::Secret(secret) => ("secret", secret.id.to_string(), secret.spec.annotations.name.clone()),
        SwarmObject::Config(config) => ("config", config.id.to_string(), config.spec.annotations.name.clone()),
    };
    let mut attributes = BTreeMap::from([("name".to_owned(), name)]);
    if event.action == SwarmEventAction::Update {
        match (&event.object, &event.old) {
            (SwarmObject::Node(new), Some(SwarmObject::Node(old))) => node_changes(old, new, &mut attributes),
            (SwarmObject::Service(new), Some(SwarmObject::Service(old))) => service_changes(old, new, &mut attributes),
            _ => {}
        }
    }
    if let Some(moved) = &event.moved {
        attributes.insert("skep.rebalance".to_owned(), moved.text.clone());
        attributes.insert("skep.rebalance.task".to_owned(), moved.task_id.to_string());
    }
    Described { kind, action, id, attributes }
}

fn node_name(node: &Node) -> String {
    let hostname = node.description.as_ref().map(|description| description.hostname.clone()).unwrap_or_default();
    if node.spec.annotations.name.is_empty() { hostname } else { node.spec.annotations.name.clone() }
}

/// Notes a value that was `old` and is `new`.
fn note(attributes: &mut BTreeMap<String, String>, key: &str, old: &str, new: &str) {
    if old != new {
        attributes.insert(format!("{key}.old"), old.to_owned());
        attributes.insert(format!("{key}.new"), new.to_owned());
    }
}

fn node_changes(old: &Node, new: &Node, attributes: &mut BTreeMap<String, String>) {
    note(attributes, "availability", old.spec.availability.word(), new.spec.availability.word());
    note(attributes, "role", old.role.word(), new.role.word());
    note(attributes, "state", old.status.state.word(), new.status.state.word());
    if let (Some(old), Some(new)) = (&old.manager_status, &new.manager_status) {
        note(attributes, "leader", &old.leader.to_string(), &new.leader.to_string());
        note(attributes, "reachability", old.reachability.word(), new.reachability.word());
    }
}

fn service_changes(old: &Service, new: &Service, attributes: &mut BTreeMap<String, String>) {
    let image = |service: &Service| match &service.spec.task.runtime {
        Some(TaskRuntime::Container(container)) => container.image.clone(),
        _ => String::new(),
    };
    let replicas = |service: &Service| match &service.spec.mode {
        Some(ServiceMode::Replicated(replicated)) => replicated.replicas.to_string(),
        _ => String::new(),
    };
    note(attributes, "image", &image(old), &image(new));
    note(attributes, "replicas", &replicas(old), &replicas(new));
    let state = |service: &Service| service.update_status.as_ref().map(|status| status.state.word());
    match (state(old), state(new)) {
        (Some(old), Some(new)) => note(attributes, "updatestate", old, new),
        // the first one has none before it
        (None, Some(new)) => drop(attributes.insert("updatestate.new".to_owned(), new.to_owned())),
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm_backend::TaskMove;
    use model::{NodeState, ReplicatedService, Timestamp, UpdateState, UpdateStatus};

    fn event(object: SwarmObject, old: Option<SwarmObject>) -> SwarmEvent {
        SwarmEvent { at: Timestamp::default(), action: SwarmEventAction::Update, object, old, moved: None }
    }

    #[test]
    fn updates_tell_what_changed() {
        let with = |replicas| {
            let mut service = Service { id: "s".into(), ..Service::default() };
            service.spec.annotations.name = "web".into();
            service.spec.mode = Some(ServiceMode::Replicated(ReplicatedService { replicas }));
            SwarmObject::Service(Box::new(service))
        };
        let described = describe(&event(with(5), Some(with(1))));
        assert_eq!((described.kind, described.action, described.id.as_str()), ("service", "update", "s"));
        let pairs: Vec<_> = described.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(pairs, ["name=web", "replicas.new=5", "replicas.old=1"]);
    }

    #[test]
    fn a_moved_task_is_an_update_of_its_service() {
        let mut service = Service { id: "s".into(), ..Service::default() };
        service.spec.annotations.name = "web".into();
        let moved = TaskMove { task_id: "t1".into(), text: "moves slot 3 from node a to node b".into() };
        let event = SwarmEvent { moved: Some(moved), ..event(SwarmObject::Service(Box::new(service)), None) };
        let described = describe(&event);
        assert_eq!((described.kind, described.action, described.id.as_str()), ("service", "update", "s"));
        let pairs: Vec<_> = described.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let expected = ["name=web", "skep.rebalance=moves slot 3 from node a to node b", "skep.rebalance.task=t1"];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn a_nodes_state_is_told() {
        let with = |state| {
            let mut node = Node { id: "n".into(), ..Node::default() };
            node.status.state = state;
            SwarmObject::Node(Box::new(node))
        };
        let loud = event(with(NodeState::Down), Some(with(NodeState::Ready)));
        let described = describe(&loud);
        assert_eq!(described.attributes["state.old"], "ready");
    }

    #[test]
    fn the_first_update_has_no_state_before_it() {
        let with = |state: Option<UpdateState>| {
            let mut service = Service { id: "s".into(), ..Service::default() };
            service.update_status = state.map(|state| UpdateStatus { state, ..UpdateStatus::default() });
            SwarmObject::Service(Box::new(service))
        };
        let keys = |old, new| {
            let described = describe(&event(with(new), Some(with(old))));
            described.attributes.into_keys().filter(|key| key != "name").collect::<Vec<_>>()
        };
        assert_eq!(keys(None, Some(UpdateState::Updating)), ["updatestate.new"]);
        let both = ["updatestate.new", "updatestate.old"];
        assert_eq!(keys(Some(UpdateState::Updating), Some(UpdateState::Completed)), both);
        assert!(keys(Some(UpdateState::Completed), None).is_empty());
    }
}
