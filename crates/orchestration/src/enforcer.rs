//! The constraint enforcer: rejects tasks whose node no longer meets their service's constraints or no longer has what they
//! reserve; their services replace them. The [`crate::leader::Leader`] calls it.
//!
//! SwarmKit does not look at the observed state: it rejects, and runs again, what a job has completed when the label that it
//! needed is taken from its node. Here a task that ended is left alone and holds nothing.

use crate::plan::Plan;
use crate::scheduler::{constraint, generic};
use crate::tasks::{has_ended, write};
use model::{
    GenericResource, GenericResourceKind, Node, NodeAvailability, NodeId, Task, TaskSpec, TaskState, TaskStatus,
    Timestamp,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Event, Object, Transaction, View};

/// What a task says that must leave its node.
pub const REJECTED_MESSAGE: &str = "task rejected by constraint enforcer";
/// Why it must.
pub const REJECTED_ERROR: &str = "assigned node no longer meets constraints";

/// Which nodes are looked at in the next plan.
#[derive(Clone, Debug, Default)]
pub struct Enforcer {
    nodes: BTreeSet<NodeId>,
}

impl Enforcer {
    /// Forgets everything and looks at every node.
    pub fn rebuild(&mut self, view: &View) {
        self.nodes = view.nodes().map(|node| node.id.clone()).collect();
    }

    /// Decides what to write for the changes that led to `view`.
    pub fn plan(&mut self, view: &View, events: &[Event], now: Timestamp) -> Plan {
        for event in events {
            match event {
                Event::Create(Object::Node(node)) => drop(self.nodes.insert(node.id.clone())),
                Event::Update { old: Object::Node(old), new: Object::Node(node) } => {
                    // An address or heartbeat changes nothing that constraints can see but the status's address.
                    let same = old.spec == node.spec
                        && old.description == node.description
                        && old.role == node.role
                        && old.status.addr == node.status.addr;
                    if !same {
                        self.nodes.insert(node.id.clone());
                    }
                }
                _ => {}
            }
        }
        let mut transaction = Transaction::new(view);
        for id in std::mem::take(&mut self.nodes) {
            if let Some(node) = view.node(&id)
                && node.spec.availability == NodeAvailability::Active
            {
                reject_on(&mut transaction, node, now);
            }
        }
        Plan { actions: transaction.finish(), ..Default::default() }
    }
}

/// What of the node is not yet taken by the tasks that were looked at.
struct Left {
    nano_cpus: i64,
    memory_bytes: i64,
    held: generic::Held,
}

fn reject_on(transaction: &mut Transaction, node: &Node, now: Timestamp) {
    let resources = node.description.as_ref().and_then(|it| it.resources.as_ref());
    let mut left = Left { nano_cpus: i64::MAX, memory_bytes: i64::MAX, held: generic::Held::default() };
    if let Some(resources) = resources {
        left.nano_cpus = resources.nano_cpus;
        left.memory_bytes = resources.memory_bytes;
    }
    let advertised = resources.map_or(&[][..], |it| &it.generic);
    let wanted = TaskState::Assigned..=TaskState::Complete;
    let tasks: Vec<Arc<Task>> =
        transaction.tasks_of_node(&node.id).filter(|task| wanted.contains(&task.desired_state)).cloned().collect();
    for task in tasks.iter().filter(|task| !has_ended(task)) {
        if !meets_constraints(transaction, task, node) || !left.take(&task.spec) {
            reject(transaction, task, now);
        } else if !task.assigned_generic_resources.iter().all(|it| left.has(advertised, it)) {
            reject(transaction, task, now);
            return;
        }
        left.held.add(&task.assigned_generic_resources);
    }
}

impl Left {
    /// Takes what the task reserves, if there is as much.
    fn take(&mut self, spec: &TaskSpec) -> bool {
        let Some(reserved) = spec.resources.as_ref().and_then(|it| it.reservations.as_ref()) else { return true };
        if reserved.nano_cpus > self.nano_cpus || reserved.memory_bytes > self.memory_bytes {
            return false;
        }
        self.nano_cpus -= reserved.nano_cpus;
        self.memory_bytes -= reserved.memory_bytes;
        true
    }

    /// Whether the node still says that it has this piece, or as many beside those of the tasks before.
    fn has(&self, advertised: &[GenericResource], assigned: &GenericResource) -> bool {
        match &assigned.resource {
            Some(GenericResourceKind::DiscreteResourceSpec(it)) => self.held.has_left(advertised, &it.kind, it.value),
            _ => advertised.contains(assigned),
        }
    }
}

/// The service's present constraints count; the task's own only if it has no service. What cannot be parsed is met.
fn meets_constraints(view: &View, task: &Task, node: &Node) -> bool {
    let service = task.service_id.as_ref().and_then(|id| view.service(id));
    let placement = match service {
        Some(service) => service.spec.task.placement.as_ref(),
        None => task.spec.placement.as_ref(),
    };
    let texts = placement.map_or(&[][..], |it| &it.constraints);
    constraint::parse(texts).map_or(true, |parsed| constraint::node_matches(&parsed, node))
}

fn reject(transaction: &mut Transaction, task: &Task, now: Timestamp) {
    let status = TaskStatus {
        timestamp: Some(now),
        state: TaskState::Rejected,
        message: REJECTED_MESSAGE.to_owned(),
        err: REJECTED_ERROR.to_owned(),
        ..task.status.clone()
    };
    write(transaction, Task { status, ..task.clone() });
}
