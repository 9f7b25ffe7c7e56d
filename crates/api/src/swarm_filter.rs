//! Filters of the swarm's lists: several values of one field are alternatives, several fields must all match; an empty
//! field matches all. Backends may use indexes and must then agree with `matches`.

use std::collections::BTreeMap;

use model::{
    Annotations, Config, Network, Node, NodeId, NodeMembership, NodeRole, Secret, Service, ServiceId, Task,
    TaskRuntime, TaskSpec, TaskState,
};

/// What all lists can be filtered by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectFilter {
    /// Whole names.
    pub names: Vec<String>,
    /// Beginnings of names.
    pub name_prefixes: Vec<String>,
    /// Beginnings of identifiers.
    pub id_prefixes: Vec<String>,
    /// Labels that must all exist, with that value if it is not empty.
    pub labels: BTreeMap<String, String>,
}

impl ObjectFilter {
    /// Objects of exactly this name.
    pub fn by_name(name: &str) -> Self {
        Self { names: vec![name.to_owned()], ..Self::default() }
    }

    /// Objects whose identifier starts so.
    pub fn by_id_prefix(prefix: &str) -> Self {
        Self { id_prefixes: vec![prefix.to_owned()], ..Self::default() }
    }

    /// Whether an object of that name, identifier and labels passes.
    pub fn matches(&self, id: &str, name: &str, labels: &BTreeMap<String, String>) -> bool {
        any_or_empty(&self.names, |wanted| wanted == name)
            && any_or_empty(&self.name_prefixes, |prefix| name.starts_with(prefix.as_str()))
            && any_or_empty(&self.id_prefixes, |prefix| id.starts_with(prefix.as_str()))
            && labels_match(&self.labels, labels)
    }

    /// Whether a secret passes.
    pub fn matches_secret(&self, secret: &Secret) -> bool {
        self.matches(secret.id.as_str(), &secret.spec.annotations.name, &secret.spec.annotations.labels)
    }

    /// Whether a config passes.
    pub fn matches_config(&self, config: &Config) -> bool {
        self.matches(config.id.as_str(), &config.spec.annotations.name, &config.spec.annotations.labels)
    }

    /// Whether a network passes.
    pub fn matches_network(&self, network: &Network) -> bool {
        self.matches(network.id.as_str(), &network.spec.annotations.name, &network.spec.annotations.labels)
    }
}

/// Which nodes. A node's name is its host name, its labels in `object` are the engine's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFilter {
    /// Name, identifier, engine labels.
    pub object: ObjectFilter,
    /// Labels of the node's spec.
    pub node_labels: BTreeMap<String, String>,
    /// Observed roles.
    pub roles: Vec<NodeRole>,
    /// Memberships.
    pub memberships: Vec<NodeMembership>,
}

impl NodeFilter {
    /// Whether a node passes.
    pub fn matches(&self, node: &Node) -> bool {
        let none = BTreeMap::new();
        let description = node.description.as_ref();
        let hostname = description.map_or("", |description| description.hostname.as_str());
        let engine = description.and_then(|description| description.engine.as_ref());
        self.object.matches(node.id.as_str(), hostname, engine.map_or(&none, |engine| &engine.labels))
            && labels_match(&self.node_labels, &node.spec.annotations.labels)
            && any_or_empty(&self.roles, |role| *role == node.role)
            && any_or_empty(&self.memberships, |membership| *membership == node.spec.membership)
    }
}

/// Which services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFilter {
    /// Name, identifier, labels.
    pub object: ObjectFilter,
    /// Names of runtimes: "container", "attachment" or a generic one's kind.
    pub runtimes: Vec<String>,
}

impl ServiceFilter {
    /// Whether a service passes.
    pub fn matches(&self, service: &Service) -> bool {
        let annotations = &service.spec.annotations;
        self.object.matches(service.id.as_str(), &annotations.name, &annotations.labels)
            && any_or_empty(&self.runtimes, |runtime| runtime == runtime_name(&service.spec.task))
    }
}

/// Which tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Name ([`task_name`]), identifier, labels (of the task, then of its service).
    pub object: ObjectFilter,
    /// Tasks of these services.
    pub service_ids: Vec<ServiceId>,
    /// Tasks on these nodes.
    pub node_ids: Vec<NodeId>,
    /// Tasks that should be in one of these.
    pub desired_states: Vec<TaskState>,
    /// Only tasks that the service's spec would make just so again. [`Self::matches`] leaves that to the backend.
    pub up_to_date: bool,
    /// Names of runtimes.
    pub runtimes: Vec<String>,
}

impl TaskFilter {
    /// Whether a task passes, but for `up_to_date`.
    pub fn matches(&self, task: &Task) -> bool {
        let labels = if task.annotations.labels.is_empty() {
            &task.service_annotations.labels
        } else {
            &task.annotations.labels
        };
        self.object.matches(task.id.as_str(), &task_name(task), labels)
            && any_or_empty(&self.service_ids, |id| Some(id) == task.service_id.as_ref())
            && any_or_empty(&self.node_ids, |id| Some(id) == task.node_id.as_ref())
            && any_or_empty(&self.desired_states, |state| *state == task.desired_state)
            && any_or_empty(&self.runtimes, |runtime| runtime == runtime_name(&task.spec))
    }
}

/// A task's name: its own, or `service.slot.id`, for tasks without a slot `service.node.id`.
pub fn task_name(task: &Task) -> String {
    let Annotations { name, .. } = &task.annotations;
    if !name.is_empty() {
        return name.clone();
    }
    let slot = match (task.slot, &task.node_id) {
        (0, Some(node)) => node.to_string(),
        (slot, _) => slot.to_string(),
    };
    format!("{}.{slot}.{}", task.service_annotations.name, task.id)
}

fn runtime_name(spec: &TaskSpec) -> &str {
    match &spec.runtime {
        Some(TaskRuntime::Container(_)) => "container",
        Some(TaskRuntime::Attachment(_)) => "attachment",
        Some(TaskRuntime::Generic(generic)) => &generic.kind,
        None => "",
    }
}

fn labels_match(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key).is_some_and(|found| value.is_empty() || value == found))
}

fn any_or_empty<T>(wanted: &[T], matches: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_anded_and_values_ored() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let mut filter = ObjectFilter { names: vec!["x".into(), "web".into()], ..ObjectFilter::default() };
        assert!(filter.matches("id1", "web", &labels));
        filter.labels.insert("a".into(), String::new());
        assert!(filter.matches("id1", "web", &labels));
        filter.labels.insert("a".into(), "2".into());
        assert!(!filter.matches("id1", "web", &labels));
        filter.labels.clear();
        filter.id_prefixes.push("ID".into());
        assert!(!filter.matches("id1", "web", &labels), "prefixes are case-sensitive");
    }

    #[test]
    fn a_tasks_name_has_its_slot_or_node() {
        let mut task = Task { id: "t1".into(), slot: 3, ..Task::default() };
        task.service_annotations.name = "web".into();
        task.node_id = Some("n1".into());
        assert_eq!(task_name(&task), "web.3.t1");
        task.slot = 0;
        assert_eq!(task_name(&task), "web.n1.t1");
    }
}
