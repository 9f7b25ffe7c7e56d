//! What must be so when nothing goes wrong any more: one leader, equal managers, every task where the spec says, every
//! node with the assignments of the store, and what runs is what the store says.

use std::collections::{BTreeMap, BTreeSet};

use manager::core::dispatcher::AssignmentFeed;
use model::{NodeRole, NodeState, Service, ServiceMode, Task, TaskId, TaskState, UpdateState};
use orchestration::is_task_dirty;
use store::View;
use swarm_proto::swarmkit as p;

use crate::calls::Wish;
use crate::history::StoreDigest;
use crate::manager::Manager;
use crate::world::{Life, World};

impl World {
    /// What is missing before the faults may begin.
    pub(crate) fn set_up_problems(&self) -> Vec<String> {
        let mut problems = self.group_problems();
        problems.extend(self.node_problems());
        problems
    }

    /// What is not as it should be.
    pub(crate) fn problems(&mut self) -> Vec<String> {
        self.ask_again();
        let mut problems = self.group_problems();
        if !problems.is_empty() {
            return problems;
        }
        problems.extend(self.node_problems());
        problems.extend(self.assignment_problems());
        problems.extend(self.service_problems());
        if self.clients.iter().any(|client| !client.is_idle()) {
            problems.push("users wait for answers".to_owned());
        }
        problems
    }

    /// An operator asks again for what was lost: nodes that have left go, all others are active.
    fn ask_again(&mut self) {
        if !self.clients[0].is_idle() {
            return;
        }
        let view = &self.ctx.history.newest;
        let members = self.members();
        let mut wishes = Vec::new();
        for node in view.nodes() {
            if !members.contains_key(&node.id) {
                let is_known =
                    self.machines.iter().any(|machine| machine.node == node.id && machine.life == Life::Gone);
                if is_known && node.spec.desired_role == NodeRole::Manager {
                    wishes.push(Wish::SetRole { node: node.id.clone(), role: NodeRole::Worker });
                } else if is_known {
                    wishes.push(Wish::RemoveNode { node: node.id.clone() });
                }
            } else if node.spec.availability != model::NodeAvailability::Active {
                let availability = model::NodeAvailability::Active;
                wishes.push(Wish::SetAvailability { node: node.id.clone(), availability });
            }
        }
        wishes.into_iter().for_each(|wish| self.wish(wish));
    }

    fn running_managers(&self) -> impl Iterator<Item = &Manager> {
        self.machines.iter().filter_map(|machine| machine.manager.as_ref())
    }

    fn group_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let leaders: Vec<_> = self.running_managers().filter(|manager| manager.is_leading()).collect();
        let [leader] = leaders[..] else {
            let shown: Vec<_> = self.running_managers().map(Manager::raft_text).collect();
            return vec![format!("{} managers lead: {}", leaders.len(), shown.join(", "))];
        };
        let members: BTreeSet<_> =
            leader.core.membership().members.values().map(|member| member.node_id.clone()).collect();
        let voters = leader.core.voters();
        if voters != leader.core.membership().members.keys().copied().collect::<Vec<_>>() {
            problems.push(format!("the members are not those who vote: {voters:?}"));
        }
        for manager in self.running_managers() {
            let node = &manager.node;
            if manager.applied != leader.applied || manager.digest() != leader.digest() {
                problems.push(format!("{node} has applied {}, the leader {}", manager.applied, leader.applied));
            }
            if manager.core.membership() != leader.core.membership() || manager.core.voters() != voters {
                problems.push(format!("{node} knows other members than the leader"));
            }
            if manager.digest() != StoreDigest::of(&manager.view) {
                problems.push(format!("{node}: the store is not what its events say"));
            }
        }
        let running: BTreeSet<_> = self.running_managers().map(|manager| manager.node.to_string()).collect();
        let wanted: BTreeSet<_> = leader
            .view
            .nodes()
            .filter(|node| node.spec.desired_role == NodeRole::Manager)
            .map(|node| node.id.to_string())
            .collect();
        if members != wanted || running != wanted {
            problems.push(format!("managers: members {members:?}, running {running:?}, wanted {wanted:?}"));
        }
        problems
    }

    fn node_problems(&self) -> Vec<String> {
        let view = &self.ctx.history.newest;
        let keys = view.the_cluster().map(|cluster| cluster.network_bootstrap_keys.clone()).unwrap_or_default();
        let mut problems = Vec::new();
        for machine in self.machines.iter().filter(|machine| machine.life != Life::Gone) {
            let name = &machine.node;
            let Some(node) = view.node(name) else {
                problems.push(format!("{name} is not there"));
                continue;
            };
            if node.status.state != NodeState::Ready || node.role != node.spec.desired_role {
                let (state, role) = (node.status.state, node.role);
                problems.push(format!("{name} is {state:?} and {role:?}, to be {:?}", node.spec.desired_role));
            }
            match &machine.agent {
                Some(agent) if agent.is_connected() => {
                    if agent.keys != keys {
                        problems.push(format!("{name} has other network keys than the store"));
                    }
                    if agent.has_news() {
                        problems.push(format!("{name} has statuses to tell"));
                    }
                }
                _ => problems.push(format!("{name} has no session")),
            }
        }
        for node in view.nodes() {
            if !self.members().contains_key(&node.id) {
                problems.push(format!("{} is still there", node.id));
            }
        }
        problems
    }

    fn assignment_problems(&self) -> Vec<String> {
        let view = &self.ctx.history.newest;
        let mut problems = Vec::new();
        for machine in self.machines.iter().filter(|machine| machine.life == Life::Member) {
            let Some(agent) = &machine.agent else { continue };
            let message = AssignmentFeed::new(machine.node.clone()).first(view);
            let tasks = message.changes.into_iter().filter_map(|change| change.assignment?.item).filter_map(task);
            let wanted: BTreeMap<TaskId, Option<TaskState>> =
                tasks.map(|task| (task.id.into(), TaskState::from_number(task.desired_state))).collect();
            let has: BTreeMap<_, _> = agent.assigned().into_iter().map(|(id, state)| (id, Some(state))).collect();
            if has != wanted {
                problems.push(format!("{}: it has {has:?}, the store {wanted:?}", machine.node));
            }
        }
        let runs: BTreeSet<_> = self.ctx.history.running().map(|(id, _)| id.clone()).collect();
        let said: BTreeSet<_> =
            view.tasks().filter(|task| task.status.state == TaskState::Running).map(|task| task.id.clone()).collect();
        if runs != said {
            let differ: Vec<_> = runs.symmetric_difference(&said).collect();
            problems.push(format!("what runs is not what the store says: {differ:?}"));
        }
        problems
    }

    fn service_problems(&self) -> Vec<String> {
        let view = &self.ctx.history.newest;
        let mut problems = Vec::new();
        for service in view.services() {
            let updating = service.update_status.as_ref().map(|status| status.state);
            if matches!(updating, Some(UpdateState::Updating | UpdateState::RollbackStarted)) {
                problems.push(format!("{} is {updating:?}", service.id));
            }
            problems.extend(service_problem(view, service));
        }
        for task in view.tasks() {
            let is_orphan = task.service_id.as_ref().is_none_or(|id| view.service(id).is_none());
            if is_orphan {
                problems.push(format!("task {} is left of a service that is gone: {:?}", task.id, task.status.state));
            }
        }
        problems
    }
}

fn task(item: p::assignment::Item) -> Option<p::Task> {
    match item {
        p::assignment::Item::Task(task) => Some(task),
        _ => None,
    }
}

/// Each slot, or each node, has one task that runs as the spec says.
fn service_problem(view: &View, service: &Service) -> Option<String> {
    let wanted = match &service.spec.mode {
        Some(ServiceMode::Replicated(replicated)) => replicated.replicas,
        Some(ServiceMode::Global(_)) => view.nodes().count() as u64,
        _ => return None,
    };
    let is_live = |task: &&std::sync::Arc<Task>| {
        task.desired_state <= TaskState::Running || task.status.state <= TaskState::Running
    };
    let live: Vec<_> = view.tasks_of_service(&service.id).filter(is_live).collect();
    let slots: BTreeSet<_> =
        live.iter().map(|task| (task.slot, if task.slot == 0 { task.node_id.clone() } else { None })).collect();
    let is_paused = service
        .update_status
        .as_ref()
        .is_some_and(|status| matches!(status.state, UpdateState::Paused | UpdateState::RollbackPaused));
    let is_well = |task: &&std::sync::Arc<Task>| {
        let node = task.node_id.as_ref().and_then(|id| view.node(id));
        let runs = task.status.state == TaskState::Running && task.desired_state == TaskState::Running;
        runs && (is_paused || !is_task_dirty(service, task, node.map(AsRef::as_ref)))
    };
    let well = live.iter().filter(|task| is_well(task)).count();
    // One that starts first and is paused in the middle of a slot leaves both tasks there.
    let extra = if is_paused { slots.len() as u64 } else { 0 };
    let is_right =
        slots.len() as u64 == wanted && well == live.len() && (wanted..=wanted + extra).contains(&(well as u64));
    if is_right {
        return None;
    }
    let shown: Vec<_> = live
        .iter()
        .map(|task| {
            let (status, node) = (&task.status, &task.node_id);
            let (message, error) = (&status.message, &status.err);
            format!(
                "{}.{} {:?}→{:?} on {node:?}: {message} {error}",
                task.id, task.slot, status.state, task.desired_state
            )
        })
        .collect();
    Some(format!("{}: {wanted} wanted, {well} well of {shown:?}, update {:?}", service.id, service.update_status))
}
