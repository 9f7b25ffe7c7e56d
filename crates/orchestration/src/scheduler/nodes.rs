//! What runs on each node, kept up to date task by task.

use super::classes::{Class, Classes, Rank};
use super::filters::{Demands, host_ports, reservations};
use super::generic;
use super::group::Spread;
use model::{GenericResource, Node, NodeId, PortProtocol, ServiceId, SpecVersion, Task, TaskId, TaskState, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use stdx::Rng;

/// From how many recent failures on a node is avoided.
pub(super) const FAILURE_LIMIT: usize = 5;
/// How long a failure counts.
pub(super) const FAILURE_WINDOW: model::Duration = model::Duration::from_secs(5 * 60);
/// How many failures of one service on one node are remembered.
const FAILURES_KEPT: usize = 100;

/// A node's place in the list.
pub(super) type Index = u32;
/// The place of a service's counts.
pub(super) type ServiceSlot = usize;
/// A service in one version of its spec.
pub(super) type VersionedService = (ServiceId, Option<SpecVersion>);

/// A task's identifier with its first bytes as a number in front, so that most comparisons in a large map touch no other
/// memory. The order is the identifier's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskKey(u64, pub(super) TaskId);

impl TaskKey {
    pub(super) fn new(id: &TaskId) -> Self {
        let mut head = [0; 8];
        let bytes = id.as_str().as_bytes();
        let length = bytes.len().min(8);
        head[..length].copy_from_slice(&bytes[..length]);
        Self(u64::from_be_bytes(head), id.clone())
    }
}

/// A node and what is on it.
#[derive(Clone, Debug)]
pub(super) struct NodeInfo {
    pub(super) node: Arc<Node>,
    pub(super) index: Index,
    /// Decides between equals.
    pub(super) tie: u64,
    /// Tasks that shall run.
    pub(super) active_tasks: u32,
    nano_cpus: i64,
    memory_bytes: i64,
    pub(super) held: generic::Held,
    pub(super) host_ports: BTreeMap<(PortProtocol, u32), u32>,
    failures: BTreeMap<VersionedService, Vec<Timestamp>>,
}

impl NodeInfo {
    /// Unreserved processor and memory; negative if too much is reserved.
    pub(super) fn available(&self) -> (i64, i64) {
        let resources = self.node.description.as_ref().and_then(|it| it.resources.as_ref());
        let (nano_cpus, memory_bytes) = resources.map_or((0, 0), |it| (it.nano_cpus, it.memory_bytes));
        (nano_cpus.saturating_sub(self.nano_cpus), memory_bytes.saturating_sub(self.memory_bytes))
    }

    /// The generic resources that the node says it has.
    pub(super) fn advertised(&self) -> &[GenericResource] {
        let resources = self.node.description.as_ref().and_then(|it| it.resources.as_ref());
        resources.map_or(&[], |it| &it.generic)
    }

    fn add(&mut self, task: &Task) {
        let (nano_cpus, memory_bytes) = reserved(task);
        self.nano_cpus += nano_cpus;
        self.memory_bytes += memory_bytes;
        self.held.add(&task.assigned_generic_resources);
        for port in host_ports(task) {
            *self.host_ports.entry(port).or_insert(0) += 1;
        }
    }

    fn remove(&mut self, task: &Task) {
        let (nano_cpus, memory_bytes) = reserved(task);
        self.nano_cpus -= nano_cpus;
        self.memory_bytes -= memory_bytes;
        self.held.remove(&task.assigned_generic_resources);
        for port in host_ports(task) {
            if let Some(count) = self.host_ports.get_mut(&port) {
                *count -= 1;
                if *count == 0 {
                    self.host_ports.remove(&port);
                }
            }
        }
    }

    /// How many recent failures count against the node: none below the limit.
    pub(super) fn failures(&self, service: Option<&VersionedService>, now: Timestamp) -> u32 {
        if self.failures.is_empty() {
            return 0;
        }
        let times = service.and_then(|service| self.failures.get(service)).map_or(&[][..], |times| times);
        let recent = times.iter().filter(|at| now.since(**at) < FAILURE_WINDOW).count();
        if recent < FAILURE_LIMIT { 0 } else { recent as u32 }
    }
}

fn reserved(task: &Task) -> (i64, i64) {
    reservations(&task.spec).map_or((0, 0), |it| (it.nano_cpus, it.memory_bytes))
}

/// Whether the task counts for ranking.
fn is_active(task: &Task) -> bool {
    task.desired_state <= TaskState::Complete
}

/// Whether the task holds resources of its node.
pub(super) fn is_on_node(task: &Task) -> bool {
    task.node_id.is_some() && (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
}

fn same_usage(a: &Task, b: &Task) -> bool {
    a.node_id == b.node_id
        && is_active(a) == is_active(b)
        && a.service_id == b.service_id
        && (Arc::ptr_eq(&a.spec, &b.spec) || reservations(&a.spec) == reservations(&b.spec))
        && a.assigned_generic_resources == b.assigned_generic_resources
        && host_ports(a).eq(host_ports(b))
}

/// All nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeSet {
    nodes: Vec<Option<NodeInfo>>,
    free: Vec<Index>,
    by_id: BTreeMap<NodeId, Index>,
    /// Where a service's counts are.
    services: BTreeMap<ServiceId, ServiceSlot>,
    /// Active tasks of a service, by node.
    by_service: Vec<BTreeMap<Index, u32>>,
    free_services: Vec<ServiceSlot>,
    /// Tasks that hold something, as they were counted.
    tasks: BTreeMap<TaskKey, Arc<Task>>,
    classes: Classes,
}

impl NodeSet {
    pub(super) fn index(&self, id: &NodeId) -> Option<Index> {
        self.by_id.get(id).copied()
    }

    pub(super) fn info(&self, index: Index) -> &NodeInfo {
        self.nodes[index as usize].as_ref().expect("indexes of removed nodes are forgotten everywhere")
    }

    fn info_mut(&mut self, index: Index) -> &mut NodeInfo {
        self.nodes[index as usize].as_mut().expect("indexes of removed nodes are forgotten everywhere")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().flatten()
    }

    /// A new or changed node; `tasks` are those it has if it is new.
    pub(super) fn put<'a>(&mut self, node: &Arc<Node>, tasks: impl Iterator<Item = &'a Arc<Task>>, rng: &mut Rng) {
        if let Some(index) = self.index(&node.id) {
            self.info_mut(index).node = node.clone();
            self.update_classes(index);
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            (self.nodes.len() - 1) as Index
        });
        self.nodes[index as usize] = Some(NodeInfo {
            node: node.clone(),
            index,
            tie: rng.next_u64(),
            active_tasks: 0,
            nano_cpus: 0,
            memory_bytes: 0,
            held: generic::Held::default(),
            host_ports: BTreeMap::new(),
            failures: BTreeMap::new(),
        });
        self.by_id.insert(node.id.clone(), index);
        for task in tasks {
            // One that came before its node was not counted anywhere.
            self.tasks.remove(&TaskKey::new(&task.id));
            self.count(task);
        }
        self.update_classes(index);
    }

    fn update_classes(&mut self, index: Index) {
        let info = self.nodes[index as usize].as_ref().expect("the caller has put it there");
        self.classes.iter_mut().for_each(|class| class.update(info));
    }

    pub(super) fn remove(&mut self, id: &NodeId) {
        let Some(index) = self.by_id.remove(id) else { return };
        let info = self.nodes[index as usize].take().expect("a known identifier has a node");
        self.classes.iter_mut().for_each(|class| class.remove(&info));
        for nodes in &mut self.by_service {
            nodes.remove(&index);
        }
        self.tasks.retain(|_, task| task.node_id.as_ref() != Some(id));
        self.free.push(index);
    }

    /// Counts a task as it is now; true if it gave something back.
    pub(super) fn count(&mut self, task: &Arc<Task>) -> bool {
        if !is_on_node(task) {
            return self.forget(&task.id);
        }
        let old = self.tasks.insert(TaskKey::new(&task.id), task.clone());
        if old.as_ref().is_some_and(|old| same_usage(old, task)) {
            return false;
        }
        if let Some(old) = &old {
            self.subtract(old);
        }
        let Some(index) = task.node_id.as_ref().and_then(|id| self.index(id)) else { return old.is_some() };
        let info = self.info_mut(index);
        info.add(task);
        if is_active(task) {
            info.active_tasks += 1;
            if let Some(service) = &task.service_id {
                let slot = self.service_slot(service);
                *self.by_service[slot].entry(index).or_insert(0) += 1;
            }
        }
        old.is_some()
    }

    /// The task holds nothing any more; true if it did.
    pub(super) fn forget(&mut self, id: &TaskId) -> bool {
        match self.tasks.remove(&TaskKey::new(id)) {
            Some(old) => {
                self.subtract(&old);
                true
            }
            None => false,
        }
    }

    fn subtract(&mut self, task: &Task) {
        let Some(index) = task.node_id.as_ref().and_then(|id| self.index(id)) else { return };
        let info = self.info_mut(index);
        info.remove(task);
        if is_active(task) {
            info.active_tasks -= 1;
            let slot = task.service_id.as_ref().and_then(|service| self.services.get(service)).copied();
            if let Some(nodes) = slot.map(|slot| &mut self.by_service[slot])
                && let Some(count) = nodes.get_mut(&index)
            {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&index);
                }
            }
        }
        let info = self.nodes[index as usize].as_ref().expect("it was there above");
        self.classes.iter_mut().for_each(|class| class.freed(info));
    }

    /// Where the service's counts are.
    pub(super) fn service_slot(&mut self, service: &ServiceId) -> ServiceSlot {
        if let Some(&slot) = self.services.get(service) {
            return slot;
        }
        let slot = self.free_services.pop().unwrap_or_else(|| {
            self.by_service.push(BTreeMap::new());
            self.by_service.len() - 1
        });
        self.services.insert(service.clone(), slot);
        slot
    }

    /// Drops the counts of a removed service. Those of its tasks that still run stay counted in total.
    pub(super) fn forget_service(&mut self, service: &ServiceId) {
        if let Some(slot) = self.services.remove(service) {
            self.by_service[slot].clear();
            self.free_services.push(slot);
        }
        for info in self.nodes.iter_mut().flatten() {
            info.failures.retain(|(failed, _), _| failed != service);
        }
    }

    /// How many active tasks of the service a node has.
    pub(super) fn tasks_of_service(&self, slot: Option<ServiceSlot>, index: Index) -> u32 {
        slot.and_then(|slot| self.by_service[slot].get(&index)).copied().unwrap_or(0)
    }

    /// A task of `service` failed on `node`.
    pub(super) fn failed(&mut self, node: &NodeId, service: VersionedService, now: Timestamp) {
        if let Some(index) = self.index(node) {
            let times = self.info_mut(index).failures.entry(service).or_default();
            times.retain(|at| now.since(*at) < FAILURE_WINDOW);
            if times.len() < FAILURES_KEPT {
                times.push(now);
            }
        }
    }

    /// The class of nodes for `demands` and preferences: its place until the next call.
    pub(super) fn class(&mut self, demands: &Demands, spreads: &[Spread]) -> usize {
        self.classes.place(demands, spreads, &self.nodes)
    }

    /// What is at a place.
    pub(super) fn class_at(&self, place: usize) -> &Class {
        self.classes.get(place)
    }

    /// The member of a class's leaf after `after`, in the order of load.
    pub(super) fn next_member(&mut self, class: usize, leaf: usize, after: Option<Rank>) -> Option<Rank> {
        self.classes.get_mut(class).next_member(&self.nodes, leaf, after)
    }

    /// The nodes with active tasks of the service, and how many.
    pub(super) fn nodes_of_service(&self, slot: Option<ServiceSlot>) -> impl Iterator<Item = (Index, u32)> + '_ {
        slot.into_iter().flat_map(|slot| self.by_service[slot].iter().map(|(&index, &count)| (index, count)))
    }
}
