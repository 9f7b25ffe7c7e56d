//! Gives out what tasks need before they can be scheduled: published ports, subnets, VXLAN ids, virtual and task
//! addresses, and the nodes' load-balancer addresses. All of it is written into the objects; a new leader's allocator
//! takes it from there.
//!
//! Order within a plan: networks, nodes, services, tasks, so that what one step gives the next can use. What cannot be had
//! waits: it is tried again when something was given back, when a network or service it waits for is allocated, or five
//! minutes after the last try.

mod networks;
mod next_fit;
mod ports;
mod services;
mod subnets;
mod tasks;
#[cfg(test)]
mod tests;

pub use networks::{
    DEFAULT_NETWORK_DRIVER, PREDEFINED_LABEL, PREDEFINED_NETWORKS, VXLAN_ID_FIRST, VXLAN_ID_LAST, VXLAN_ID_LIST_OPTION,
    driver_name, is_allocated, is_node_local, new_ingress_network, new_predefined_network,
};
pub use ports::{DYNAMIC_PORT_FIRST, DYNAMIC_PORT_LAST};
pub use services::needs_ingress;
pub use subnets::{DEFAULT_POOL, DEFAULT_SUBNET_SIZE};
pub use tasks::PENDING_MESSAGE;

use crate::plan::{Plan, Reason};
use model::{Cluster, Duration, Network, NetworkId, Node, NodeId, ServiceId, Task, TaskId, Timestamp};
use networks::{Held, NetworkState};
use next_fit::NextFit;
use ports::Ports;
use services::ServiceState;
use std::collections::{BTreeMap, BTreeSet};
use store::{Event, Object, ObjectId, Transaction, View};
use subnets::AddressSpace;

/// How long after the last try what waits is tried again.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// What must be looked at in the next plan.
#[derive(Clone, Debug, Default)]
struct Dirty {
    networks: BTreeSet<NetworkId>,
    nodes: BTreeSet<NodeId>,
    services: BTreeSet<ServiceId>,
    tasks: BTreeSet<TaskId>,
}

/// The allocator: what is in use, and who waits.
#[derive(Clone, Debug)]
pub struct Allocator {
    space: AddressSpace,
    vxlan_ids: NextFit,
    ports: Ports,
    networks: BTreeMap<NetworkId, NetworkState>,
    services: BTreeMap<ServiceId, ServiceState>,
    nodes: BTreeMap<NodeId, Vec<Held>>,
    tasks: BTreeMap<TaskId, Box<[Held]>>,
    dirty: Dirty,
    /// Who could not be served, and why.
    waiting: BTreeMap<ObjectId, String>,
    retry_at: Option<Timestamp>,
    /// Something was given back since the last try.
    freed: bool,
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes an object that was read from this very transaction.
fn write(transaction: &mut Transaction, object: impl Into<Object>) {
    transaction.update(object).expect("it was read from this transaction, and its name is the same");
}

impl Allocator {
    /// One for an empty swarm.
    pub fn new() -> Self {
        Self {
            space: AddressSpace::new(&[], 0),
            vxlan_ids: NextFit::new((0, VXLAN_ID_LAST), (VXLAN_ID_FIRST, VXLAN_ID_LAST)),
            ports: Ports::new(),
            networks: BTreeMap::new(),
            services: BTreeMap::new(),
            nodes: BTreeMap::new(),
            tasks: BTreeMap::new(),
            dirty: Dirty::default(),
            waiting: BTreeMap::new(),
            retry_at: None,
            freed: false,
        }
    }

    /// Forgets everything and takes over what the objects of `view` have.
    pub fn rebuild(&mut self, view: &View) {
        *self = Self::new();
        if let Some(cluster) = view.the_cluster() {
            self.set_pools(cluster);
        }
        for network in view.networks() {
            if is_allocated(network) {
                // One that fails here (it overlaps with an earlier one) is tried again, and its reason told, in the plan.
                let _ = self.adopt_network(network);
            }
        }
        view.nodes().for_each(|node| self.adopt_node(node));
        view.services().for_each(|service| self.adopt_service(service));
        view.tasks().for_each(|task| self.adopt_task(task));
        self.dirty = Dirty {
            networks: view.networks().map(|network| network.id.clone()).collect(),
            nodes: view.nodes().map(|node| node.id.clone()).collect(),
            services: view.services().map(|service| service.id.clone()).collect(),
            tasks: view.tasks().filter(|task| tasks::is_unallocated(task)).map(|task| task.id.clone()).collect(),
        };
        self.freed = false;
    }

    /// Decides what to write for the changes that led to `view`.
    pub fn plan(&mut self, view: &View, events: &[Event], now: Timestamp) -> Plan {
        events.iter().for_each(|event| self.observe(event));
        let retry_is_due = self.retry_at.is_some_and(|at| at <= now);
        if self.freed || retry_is_due {
            self.freed = false;
            self.retry_at = None;
            self.retry_waiting();
        }
        let mut plan = Plan::default();
        let mut transaction = Transaction::new(view);
        self.plan_dirty(&mut transaction, &mut plan, now);
        plan.actions = transaction.finish();
        if self.waiting.is_empty() {
            self.retry_at = None;
        } else {
            plan.wake_at(*self.retry_at.get_or_insert(now.plus(RETRY_INTERVAL)));
            if self.freed {
                plan.wake_at(now);
            }
        }
        plan
    }

    /// Why an object waits for the allocator; `None` if it does not.
    pub fn waiting_for(&self, id: &ObjectId) -> Option<&str> {
        self.waiting.get(id).map(String::as_str)
    }

    fn plan_dirty(&mut self, transaction: &mut Transaction, plan: &mut Plan, now: Timestamp) {
        let mut networks: Vec<_> = std::mem::take(&mut self.dirty.networks).into_iter().collect();
        networks.sort_by_key(|id| network_order(transaction.network(id).map(|it| &**it)));
        for id in networks {
            let done = self.plan_network(transaction, &id);
            self.note(plan, id.into(), done);
        }
        for id in std::mem::take(&mut self.dirty.nodes) {
            let done = self.plan_node(transaction, &id);
            self.note(plan, id.into(), done);
        }
        for id in std::mem::take(&mut self.dirty.services) {
            let done = self.plan_service(transaction, &id);
            self.note(plan, id.into(), done);
        }
        for id in std::mem::take(&mut self.dirty.tasks) {
            let done = self.plan_task(transaction, &id, now);
            if let Err(error) = &done {
                explain(transaction, &id, error);
            }
            self.note(plan, id.into(), done);
        }
    }

    /// Remembers whether `id` waits; a new reason is told.
    fn note(&mut self, plan: &mut Plan, id: ObjectId, done: Result<(), String>) {
        match done {
            Ok(()) => drop(self.waiting.remove(&id)),
            Err(text) => {
                if self.waiting.get(&id) != Some(&text) {
                    plan.reasons.push(Reason { object: id.clone(), text: text.clone() });
                    self.waiting.insert(id, text);
                }
            }
        }
    }

    fn retry_waiting(&mut self) {
        for id in self.waiting.keys() {
            match id {
                ObjectId::Network(id) => drop(self.dirty.networks.insert(id.clone())),
                ObjectId::Node(id) => drop(self.dirty.nodes.insert(id.clone())),
                ObjectId::Service(id) => drop(self.dirty.services.insert(id.clone())),
                ObjectId::Task(id) => drop(self.dirty.tasks.insert(id.clone())),
                _ => {}
            }
        }
    }

    /// Gives back what an attempt that failed had taken; nobody can make use of that, so nothing is tried again for it.
    fn give_back(&mut self, taken: &[Held]) {
        let freed = self.freed;
        self.release(taken);
        self.freed = freed;
    }

    fn set_pools(&mut self, cluster: &Cluster) {
        if self.networks.values().all(|state| state.local) {
            self.space = AddressSpace::new(&cluster.default_address_pool, cluster.subnet_size);
        }
    }

    fn adopt_node(&mut self, node: &Node) {
        let mut addresses = Vec::new();
        for attachment in node.attachments.iter().chain(&node.attachment) {
            let Some(network) = &attachment.network else { continue };
            if addresses.iter().any(|held: &Held| held.network == network.id) {
                continue;
            }
            let state = self.networks.get_mut(&network.id).filter(|state| !state.local);
            if let (Some(state), Some(text)) = (state, attachment.addresses.first())
                && let Ok((address, _)) = state.reserve(text)
            {
                self.note_node(&network.id);
                addresses.push(Held { network: network.id.clone(), address });
            }
        }
        self.nodes.insert(node.id.clone(), addresses);
    }

    fn observe(&mut self, event: &Event) {
        if let Event::Remove(object) = event {
            self.waiting.remove(&object.id());
        }
        match event {
            Event::Remove(Object::Network(network)) => self.forget_network(&network.id),
            Event::Remove(Object::Service(service)) => self.forget_service(&service.id),
            Event::Remove(Object::Node(node)) => {
                if let Some(held) = self.nodes.remove(&node.id) {
                    self.release_of_node(&held);
                    // One node less that an address may have to be kept for.
                    self.freed = true;
                }
            }
            Event::Remove(Object::Task(task)) => {
                self.forget_task(&task.id);
                self.observe_task_node(Some(task), None);
            }
            Event::Create(object) | Event::Update { new: object, .. } => match object {
                Object::Network(network) => drop(self.dirty.networks.insert(network.id.clone())),
                Object::Node(node) => drop(self.dirty.nodes.insert(node.id.clone())),
                Object::Service(service) => drop(self.dirty.services.insert(service.id.clone())),
                Object::Cluster(cluster) => self.set_pools(cluster),
                Object::Task(task) => self.observe_task(event.before(), task),
                _ => {}
            },
            Event::Remove(_) => {}
        }
    }

    fn observe_task(&mut self, before: Option<&Object>, task: &Task) {
        if tasks::is_unallocated(task) {
            self.dirty.tasks.insert(task.id.clone());
        } else {
            self.waiting.remove(&ObjectId::Task(task.id.clone()));
        }
        if !tasks::is_live(task) {
            self.forget_task(&task.id);
        } else if task.node_id.is_some() {
            self.place_task(&task.id);
        }
        let before = before.and_then(|object| match object {
            Object::Task(task) => Some(&**task),
            _ => None,
        });
        self.observe_task_node(before, Some(task));
    }

    /// A node's attachments are looked at when a task with networks comes to it or has stopped on it.
    fn observe_task_node(&mut self, before: Option<&Task>, after: Option<&Task>) {
        let node =
            |task: Option<&Task>| task.filter(|it| tasks::needs_node_address(it)).and_then(|it| it.node_id.clone());
        let (before, after) = (node(before), node(after));
        if before != after {
            self.dirty.nodes.extend(before.into_iter().chain(after));
        }
    }
}

/// Ingress first, then in the order of creation.
fn network_order(network: Option<&Network>) -> (bool, Option<Timestamp>, NetworkId) {
    match network {
        Some(network) => (!network.spec.ingress, network.meta.created_at, network.id.clone()),
        None => (true, None, NetworkId::default()),
    }
}

/// Says in the task's status why it waits.
fn explain(transaction: &mut Transaction, id: &TaskId, error: &str) {
    let Some(task) = transaction.task(id).cloned() else { return };
    if task.status.err != error {
        let mut explained = (*task).clone();
        explained.status.err = error.to_owned();
        write(transaction, explained);
    }
}
