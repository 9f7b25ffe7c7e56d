//! The indexes that cross tables: tasks by service and slot, by node, by desired state; nodes by host name; who uses a
//! secret, config or network. They hold identifiers only, so that a new status costs one map write.

use imbl::OrdSet;
use model::{
    ConfigId, NetworkId, Node, NodeId, SecretId, Service, ServiceId, Task, TaskId, TaskRuntime, TaskSpec, TaskState,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What services and tasks refer to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefTarget {
    /// A network: in a task spec, a service's deprecated list, or a task's attachments.
    Network(NetworkId),
    /// A secret of a container.
    Secret(SecretId),
    /// A config of a container.
    Config(ConfigId),
}

/// Who refers to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefUser {
    /// A service (its present spec).
    Service(ServiceId),
    /// A task.
    Task(TaskId),
}

#[derive(Clone, Default)]
pub(crate) struct Indexes {
    pub(crate) tasks_by_service: OrdSet<(ServiceId, u64, TaskId)>,
    pub(crate) tasks_by_node: OrdSet<(NodeId, TaskId)>,
    pub(crate) tasks_by_desired: OrdSet<(TaskState, TaskId)>,
    pub(crate) nodes_by_hostname: OrdSet<(Arc<str>, NodeId)>,
    pub(crate) references: OrdSet<(RefTarget, RefUser)>,
}

impl Indexes {
    pub(crate) fn change_task(&mut self, old: Option<&Task>, new: Option<&Task>) {
        let by_service = |task: &Task| Some((task.service_id.clone()?, task.slot, task.id.clone()));
        replace(&mut self.tasks_by_service, old.and_then(by_service), new.and_then(by_service));
        let by_node = |task: &Task| Some((task.node_id.clone()?, task.id.clone()));
        replace(&mut self.tasks_by_node, old.and_then(by_node), new.and_then(by_node));
        let by_desired = |task: &Task| (task.desired_state, task.id.clone());
        replace(&mut self.tasks_by_desired, old.map(by_desired), new.map(by_desired));
        if let (Some(old), Some(new)) = (old, new)
            && Arc::ptr_eq(&old.spec, &new.spec)
            && same_networks(old, new)
        {
            return;
        }
        self.change_references(old.map(task_references), new.map(task_references), RefUser::Task, || {
            old.or(new).map(|task| task.id.clone()).unwrap_or_default()
        });
    }

    pub(crate) fn change_service(&mut self, old: Option<&Service>, new: Option<&Service>) {
        self.change_references(old.map(service_references), new.map(service_references), RefUser::Service, || {
            old.or(new).map(|service| service.id.clone()).unwrap_or_default()
        });
    }

    pub(crate) fn change_node(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let key = |node: &Node| {
            let name = node.description.as_ref()?.hostname.to_lowercase();
            (!name.is_empty()).then(|| (name.into(), node.id.clone()))
        };
        replace(&mut self.nodes_by_hostname, old.and_then(key), new.and_then(key));
    }

    fn change_references<Id: Clone>(
        &mut self,
        old: Option<BTreeSet<RefTarget>>,
        new: Option<BTreeSet<RefTarget>>,
        user: fn(Id) -> RefUser,
        id: impl Fn() -> Id,
    ) {
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        if old == new {
            return;
        }
        for gone in old.difference(&new) {
            self.references.remove(&(gone.clone(), user(id())));
        }
        for added in new.difference(&old) {
            self.references.insert((added.clone(), user(id())));
        }
    }
}

fn replace<K: Ord + Clone>(set: &mut OrdSet<K>, old: Option<K>, new: Option<K>) {
    if old == new {
        return;
    }
    if let Some(old) = old {
        set.remove(&old);
    }
    if let Some(new) = new {
        set.insert(new);
    }
}

fn same_networks(old: &Task, new: &Task) -> bool {
    let ids = |task: &Task| -> Vec<NetworkId> {
        task.networks.iter().filter_map(|it| it.network.as_ref()).map(|network| network.id.clone()).collect()
    };
    ids(old) == ids(new)
}

pub(crate) fn task_references(task: &Task) -> BTreeSet<RefTarget> {
    let mut targets = spec_references(&task.spec);
    for attachment in &task.networks {
        if let Some(network) = &attachment.network {
            targets.insert(RefTarget::Network(network.id.clone()));
        }
    }
    targets
}

pub(crate) fn service_references(service: &Service) -> BTreeSet<RefTarget> {
    let mut targets = spec_references(&service.spec.task);
    for network in &service.spec.networks {
        targets.insert(RefTarget::Network(network.target.as_str().into()));
    }
    targets
}

fn spec_references(spec: &TaskSpec) -> BTreeSet<RefTarget> {
    let mut targets = BTreeSet::new();
    for network in &spec.networks {
        targets.insert(RefTarget::Network(network.target.as_str().into()));
    }
    if let Some(TaskRuntime::Container(container)) = &spec.runtime {
        targets.extend(container.secrets.iter().map(|it| RefTarget::Secret(it.secret_id.clone())));
        targets.extend(container.configs.iter().map(|it| RefTarget::Config(it.config_id.clone())));
    }
    targets
}
