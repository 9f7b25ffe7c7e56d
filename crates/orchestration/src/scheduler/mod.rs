//! Decides on which node a task runs.
//!
//! Nodes and what runs on them are counted from events, so that placing a task does not depend on how many nodes there
//! are. Tasks that no node can take stay in the queue with the reason in their status, and are tried again when a node or
//! what runs on it has changed.

mod classes;
pub mod constraint;
mod filters;
pub mod generic;
mod group;
mod nodes;
#[cfg(test)]
mod properties;
mod spread;
#[cfg(test)]
mod tests;
mod volumes;

use crate::dirty::is_task_dirty;
use crate::plan::{Plan, Reason};
use filters::Demands;
use group::{Context, PREFERENCE_LIMIT, Picker, Spread};
use model::{
    Node, NodeId, Service, ServiceId, SpecVersion, Task, TaskId, TaskState, TaskStatus, Timestamp, VolumeAttachment,
};
use nodes::{Index, NodeSet, TaskKey, VersionedService};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use stdx::Rng;
use store::{Action, Event, Object, View};
use volumes::VolumeUses;

pub(crate) use spread::{Better, Move};

/// What a task says that got a node.
pub const ASSIGNED_MESSAGE: &str = "scheduler assigned task to node";
/// What a task says that had a node from the start, and fits.
pub const CONFIRMED_MESSAGE: &str = "scheduler confirmed task can run on preassigned node";
/// What a task's error says when no node fits, before the reasons in brackets.
pub const NO_SUITABLE_NODE: &str = "no suitable node";

/// Tasks that are placed together: those of a service and spec version; a task without them is alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GroupKey {
    Service(ServiceId, SpecVersion),
    Alone(TaskKey),
}

/// The scheduler: what runs where, and who waits for a node.
#[derive(Clone, Debug)]
pub struct Scheduler {
    rng: Rng,
    nodes: NodeSet,
    uses: VolumeUses,
    queue: BTreeMap<GroupKey, BTreeMap<TaskKey, Arc<Task>>>,
    /// Tasks that have their node already and wait for it to have room.
    preassigned: BTreeMap<TaskId, Arc<Task>>,
    /// Tasks that shall stop before they got anywhere: no agent will do it.
    stopping: BTreeMap<TaskId, Arc<Task>>,
    /// What came into the queues since the last plan.
    fresh: BTreeSet<GroupKey>,
    fresh_preassigned: BTreeSet<TaskId>,
    /// A node came or changed, or something on it ended.
    room_changed: bool,
    volumes_changed: bool,
}

impl Scheduler {
    /// One that knows nothing yet; `seed` decides between nodes that are equal.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            nodes: NodeSet::default(),
            uses: VolumeUses::default(),
            queue: BTreeMap::new(),
            preassigned: BTreeMap::new(),
            stopping: BTreeMap::new(),
            fresh: BTreeSet::new(),
            fresh_preassigned: BTreeSet::new(),
            room_changed: true,
            volumes_changed: true,
        }
    }

    /// Forgets everything and counts what is in `view`.
    pub fn rebuild(&mut self, view: &View) {
        *self = Self::new(self.rng.next_u64());
        view.nodes().for_each(|node| self.nodes.put(node, view.tasks_of_node(&node.id), &mut self.rng));
        for task in view.tasks() {
            self.uses.count(task);
            self.queue_task(task);
            // A node that is avoided is avoided by a new leader, too.
            if has_failed(task)
                && let (Some(node), Some(service)) = (&task.node_id, versioned_service(task))
                && let Some(at) = task.status.applied_at.or(task.status.timestamp)
            {
                self.nodes.failed(node, service, at);
            }
        }
    }

    /// Decides what to write for the changes that led to `view`.
    pub fn plan(&mut self, view: &View, events: &[Event], now: Timestamp) -> Plan {
        events.iter().for_each(|event| self.observe(view, event, now));
        let mut plan = Plan::default();
        let stopping = std::mem::take(&mut self.stopping);
        plan.actions.extend(stopping.into_values().map(|task| stop(&task, now)));
        let try_all = std::mem::take(&mut self.room_changed);
        let (fresh, fresh_preassigned) = (std::mem::take(&mut self.fresh), std::mem::take(&mut self.fresh_preassigned));
        let preassigned: Vec<TaskId> =
            if try_all { self.preassigned.keys().cloned().collect() } else { fresh_preassigned.into_iter().collect() };
        for id in preassigned {
            self.plan_preassigned(view, &id, now, &mut plan);
        }
        let groups: Vec<GroupKey> =
            if try_all { self.queue.keys().cloned().collect() } else { fresh.into_iter().collect() };
        // Placing tasks only takes room away: what failed once in this plan fails again.
        let mut failed = BTreeMap::new();
        for key in groups {
            self.plan_group(view, &key, now, &mut failed, &mut plan);
        }
        if std::mem::take(&mut self.volumes_changed) {
            plan.actions.extend(self.uses.plan(view));
        }
        plan
    }

    /// How many tasks wait for a node.
    pub fn waiting_count(&self) -> usize {
        self.preassigned.len() + self.queue.values().map(BTreeMap::len).sum::<usize>()
    }

    fn observe(&mut self, view: &View, event: &Event, now: Timestamp) {
        match event {
            Event::Create(Object::Node(node)) => self.put_node(view, None, node),
            Event::Update { old: Object::Node(old), new: Object::Node(node) } => self.put_node(view, Some(old), node),
            Event::Remove(Object::Node(node)) => self.nodes.remove(&node.id),
            Event::Create(Object::Task(task)) => self.put_task(None, task, now),
            Event::Update { old: Object::Task(old), new: Object::Task(task) } => self.put_task(Some(old), task, now),
            Event::Remove(Object::Task(task)) => self.remove_task(task),
            Event::Update { new: Object::Service(service), .. } => self.look_again_at(&service.id),
            Event::Remove(Object::Service(service)) => self.nodes.forget_service(&service.id),
            Event::Create(Object::Volume(_)) | Event::Update { new: Object::Volume(_), .. } => {
                self.room_changed = true;
                self.volumes_changed = true;
            }
            _ => {}
        }
    }

    fn put_node(&mut self, view: &View, old: Option<&Node>, node: &Arc<Node>) {
        let same = |old: &Node| {
            old.status == node.status
                && old.spec == node.spec
                && old.role == node.role
                && old.description == node.description
        };
        if self.nodes.index(&node.id).is_some() && old.is_some_and(same) {
            return;
        }
        self.nodes.put(node, view.tasks_of_node(&node.id), &mut self.rng);
        self.room_changed = true;
    }

    fn put_task(&mut self, old: Option<&Task>, task: &Arc<Task>, now: Timestamp) {
        if has_failed(task)
            && !old.is_some_and(has_failed)
            && let (Some(node), Some(service)) = (&task.node_id, versioned_service(task))
        {
            self.nodes.failed(node, service, now);
        }
        self.room_changed |= self.nodes.count(task);
        self.count_volumes(task);
        self.queue_task(task);
    }

    fn count_volumes(&mut self, task: &Task) {
        self.uses.count(task);
        self.volumes_changed |= !task.volumes.is_empty();
    }

    fn remove_task(&mut self, task: &Task) {
        self.room_changed |= self.nodes.forget(&task.id);
        self.uses.forget(&task.id);
        self.volumes_changed |= !task.volumes.is_empty();
        self.dequeue(task);
    }

    /// Puts a task where it belongs now.
    fn queue_task(&mut self, task: &Arc<Task>) {
        let is_wanted = task.desired_state <= TaskState::Complete;
        if task.status.state < TaskState::Assigned && task.desired_state == TaskState::Shutdown {
            self.dequeue(task);
            self.stopping.insert(task.id.clone(), task.clone());
        } else if task.status.state != TaskState::Pending || !is_wanted {
            self.dequeue(task);
        } else if task.node_id.is_some() {
            if self.preassigned.insert(task.id.clone(), task.clone()).is_none() {
                self.fresh_preassigned.insert(task.id.clone());
            }
        } else {
            let key = group_key(task);
            if self.queue.entry(key.clone()).or_default().insert(TaskKey::new(&task.id), task.clone()).is_none() {
                self.fresh.insert(key);
            }
        }
    }

    fn dequeue(&mut self, task: &Task) {
        self.stopping.remove(&task.id);
        self.preassigned.remove(&task.id);
        let key = group_key(task);
        if let Some(group) = self.queue.get_mut(&key) {
            group.remove(&TaskKey::new(&task.id));
            if group.is_empty() {
                self.queue.remove(&key);
            }
        }
    }

    /// The service has changed: tasks of an older spec that wait may be given up.
    fn look_again_at(&mut self, service: &ServiceId) {
        let first = GroupKey::Service(service.clone(), SpecVersion::default());
        let last = GroupKey::Service(service.clone(), SpecVersion(u64::MAX));
        self.fresh.extend(self.queue.range(first..=last).map(|(key, _)| key.clone()));
    }

    fn plan_preassigned(&mut self, view: &View, id: &TaskId, now: Timestamp, plan: &mut Plan) {
        let Some(task) = self.preassigned.get(id).cloned() else { return };
        let Some(index) = task.node_id.as_ref().and_then(|node| self.nodes.index(node)) else { return };
        let demands = Demands::of(&task);
        let service = versioned_service(&task);
        let class = self.nodes.class(&demands, &[]);
        let slot = service.as_ref().map(|(id, _)| self.nodes.service_slot(id));
        let context = Context { view, demands: &demands, service: service.as_ref(), slot, class, now };
        let rejection = context.rejection(&self.nodes, &self.uses, self.nodes.info(index));
        match rejection {
            None => {
                let assigned = self.assign(&context, &task, index, CONFIRMED_MESSAGE);
                self.preassigned.remove(id);
                plan.actions.push(Action::Update(assigned.into()));
            }
            Some(filter) => {
                let mut rejections = filters::Rejections::default();
                rejections.add(filter);
                refuse(&task, rejections.explain(), now, plan);
            }
        }
    }

    fn plan_group(
        &mut self,
        view: &View,
        key: &GroupKey,
        now: Timestamp,
        failed: &mut BTreeMap<Demands, String>,
        plan: &mut Plan,
    ) {
        let Some(tasks) = self.queue.remove(key) else { return };
        let Some(first) = tasks.values().next().cloned() else { return };
        let demands = Demands::of(&first);
        // Only these depend on nothing but the demands.
        let is_general = demands.max_replicas == 0 && demands.volumes.is_empty();
        if let Some(explanation) = failed.get(&demands).filter(|_| is_general).cloned() {
            self.keep_waiting(view, tasks.into_values(), &explanation, now, plan);
            return;
        }
        let service = versioned_service(&first);
        let class = self.nodes.class(&demands, &preferences(&first));
        let slot = service.as_ref().map(|(id, _)| self.nodes.service_slot(id));
        let context = Context { view, demands: &demands, service: service.as_ref(), slot, class, now };
        let mut picker = Picker::new(&context, &self.nodes, &mut self.rng);
        let mut tasks = tasks.into_values();
        let mut unplaced = None;
        for task in tasks.by_ref() {
            match picker.next(&context, &mut self.nodes, &self.uses) {
                Some(index) => {
                    let assigned = self.assign(&context, &task, index, ASSIGNED_MESSAGE);
                    plan.actions.push(Action::Update(assigned.into()));
                    picker.assigned(&context, &self.nodes, &self.uses, index);
                }
                None => {
                    unplaced = Some(task);
                    break;
                }
            }
        }
        if let Some(task) = unplaced {
            let explanation = context.explain(&self.nodes, &self.uses);
            self.keep_waiting(view, std::iter::once(task).chain(tasks), &explanation, now, plan);
            if is_general {
                failed.insert(demands, explanation);
            }
        }
    }

    /// Gives the task its node and counts it there.
    fn assign(&mut self, context: &Context<'_>, task: &Task, index: Index, message: &str) -> Arc<Task> {
        let (view, demands) = (context.view, context.demands);
        let info = self.nodes.info(index);
        let mut assigned = task.clone();
        assigned.node_id = Some(info.node.id.clone());
        assigned.status = TaskStatus {
            timestamp: Some(context.now),
            state: TaskState::Assigned,
            message: message.to_owned(),
            ..Default::default()
        };
        for (kind, count) in &demands.generic {
            let picked = info.held.pick(info.advertised(), kind, *count);
            assigned.assigned_generic_resources.extend(picked.unwrap_or_default());
        }
        if !demands.volumes.is_empty() {
            let chosen: Option<Vec<VolumeAttachment>> = self.uses.choose(view, info, &demands.volumes);
            assigned.volumes = chosen.unwrap_or_default();
        }
        let assigned = Arc::new(assigned);
        self.nodes.count(&assigned);
        self.count_volumes(&assigned);
        assigned
    }

    /// No node fits these tasks of one group: they are told why and stay, unless nobody wants them any more.
    fn keep_waiting(
        &mut self,
        view: &View,
        tasks: impl Iterator<Item = Arc<Task>>,
        explanation: &str,
        now: Timestamp,
        plan: &mut Plan,
    ) {
        let text = match explanation {
            "" => NO_SUITABLE_NODE.to_owned(),
            _ => format!("{NO_SUITABLE_NODE} ({explanation})"),
        };
        for task in tasks {
            if let Some(id) = &task.service_id {
                let Some(service) = view.service(id) else { continue };
                // One that the new spec does not change, such as after a mere scaling, is replaced by nobody.
                if is_outdated(&task, service) && is_task_dirty(service, &task, None) {
                    continue;
                }
            }
            refuse(&task, text.clone(), now, plan);
            self.queue.entry(group_key(&task)).or_default().insert(TaskKey::new(&task.id), task);
        }
    }

    /// How many tasks that shall run each node has, for tests and for people who want to see the balance.
    pub fn active_tasks(&self) -> BTreeMap<NodeId, u32> {
        self.nodes.iter().map(|info| (info.node.id.clone(), info.active_tasks)).collect()
    }
}

/// Says in the task's status why it waits, if that is not said yet.
fn refuse(task: &Task, text: String, now: Timestamp, plan: &mut Plan) {
    if task.status.err == text {
        return;
    }
    plan.reasons.push(Reason { object: task.id.clone().into(), text: text.clone() });
    let mut refused = task.clone();
    refused.status.err = text;
    refused.status.timestamp = Some(now);
    plan.actions.push(Action::Update(refused.into()));
}

fn stop(task: &Task, now: Timestamp) -> Action {
    let mut stopped = task.clone();
    stopped.status.state = TaskState::Shutdown;
    stopped.status.err = String::new();
    stopped.status.timestamp = Some(now);
    Action::Update(stopped.into())
}

/// Whether the service has a newer spec than the task.
fn is_outdated(task: &Task, service: &Service) -> bool {
    matches!((service.spec_version, task.spec_version), (Some(of_service), Some(of_task)) if of_service > of_task)
}

fn has_failed(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
}

fn versioned_service(task: &Task) -> Option<VersionedService> {
    task.service_id.clone().map(|id| (id, task.spec_version))
}

fn group_key(task: &Task) -> GroupKey {
    match (&task.service_id, task.spec_version) {
        (Some(service), Some(version)) => GroupKey::Service(service.clone(), version),
        _ => GroupKey::Alone(TaskKey::new(&task.id)),
    }
}

fn preferences(task: &Task) -> Vec<Spread> {
    let preferences = task.spec.placement.as_ref().map_or(&[][..], |it| &it.preferences);
    let spreads = preferences.iter().filter_map(|it| it.spread.as_ref());
    spreads.filter_map(|spread| Spread::parse(&spread.spread_descriptor)).take(PREFERENCE_LIMIT).collect()
}
