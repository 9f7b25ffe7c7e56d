//! Which nodes a commit concerns, and what of it. One walk over a commit's events for all nodes together, so that a
//! node's streams hear of nothing but their own.

use std::collections::{BTreeMap, BTreeSet};

use model::{ConfigId, NodeId, SecretId, Task, TaskId, TaskState};
use store::{Event, Object, RefTarget, View};

/// Changes in one message; SwarmKit's limit.
pub const MESSAGE_CHANGES: usize = 100;

/// What of a task a node must hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskChange {
    /// It only ended: what it alone used is taken back.
    Ended,
    /// Something other than its status changed, or it is new or gone.
    Changed,
}

/// What changed for one node since its stream looked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirt {
    /// The node object, the managers, the network keys or the root CA.
    pub session: bool,
    /// Tasks that are, were or will be on it.
    pub tasks: BTreeMap<TaskId, TaskChange>,
    /// Secrets that its tasks use.
    pub secrets: BTreeSet<SecretId>,
    /// Configs that its tasks use.
    pub configs: BTreeSet<ConfigId>,
    /// Events were lost: anything may have changed.
    pub everything: bool,
}

/// What a commit changes for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// For single nodes.
    pub nodes: BTreeMap<NodeId, Dirt>,
    /// What every session is told has changed: network keys or root CA.
    pub every_session: bool,
}

impl Dirt {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what changed later.
    pub fn merge(&mut self, later: Self) {
        self.session |= later.session;
        self.everything |= later.everything;
        self.secrets.extend(later.secrets);
        self.configs.extend(later.configs);
        for (task, change) in later.tasks {
            self.add_task(task, change);
        }
    }

    fn add_task(&mut self, task: TaskId, change: TaskChange) {
        let held = self.tasks.entry(task).or_insert(change);
        *held = change.max(*held);
    }

    /// Takes out as much as fits into one message; the rest stays.
    pub fn take(&mut self, limit: usize) -> Self {
        let mut taken = std::mem::take(self);
        if taken.tasks.len() > limit
            && let Some(first_left) = taken.tasks.keys().nth(limit).cloned()
        {
            self.tasks = taken.tasks.split_off(&first_left);
        }
        taken
    }
}

/// Maps a commit's events to the nodes that they concern.
pub fn route(view: &View, events: &[Event]) -> Routed {
    let mut routed = Routed::default();
    for event in events {
        match (event.before(), event.after()) {
            (before, after) if matches!(event.object(), Object::Task(_)) => {
                route_task(task_of(before), task_of(after), &mut routed);
            }
            (_, Some(Object::Node(node))) => routed.node(&node.id).session = true,
            (Some(Object::Cluster(old)), Some(Object::Cluster(new))) => {
                routed.every_session |= old.network_bootstrap_keys != new.network_bootstrap_keys
                    || old.root_ca.ca_cert != new.root_ca.ca_cert;
            }
            (Some(Object::Secret(_)), Some(Object::Secret(secret))) => {
                for node in users(view, &RefTarget::Secret(secret.id.clone())) {
                    routed.node(&node).secrets.insert(secret.id.clone());
                }
            }
            (Some(Object::Config(_)), Some(Object::Config(config))) => {
                for node in users(view, &RefTarget::Config(config.id.clone())) {
                    routed.node(&node).configs.insert(config.id.clone());
                }
            }
            _ => {}
        }
    }
    routed
}

impl Routed {
    fn node(&mut self, id: &NodeId) -> &mut Dirt {
        self.nodes.entry(id.clone()).or_default()
    }
}

fn task_of(object: Option<&Object>) -> Option<&Task> {
    match object {
        Some(Object::Task(task)) => Some(task),
        _ => None,
    }
}

fn users(view: &View, target: &RefTarget) -> BTreeSet<NodeId> {
    view.tasks_using(target).filter_map(|task| task.node_id.clone()).collect()
}

fn route_task(before: Option<&Task>, after: Option<&Task>, routed: &mut Routed) {
    let sent = |task: Option<&Task>| task.filter(|task| is_sent(task)).and_then(|task| task.node_id.clone());
    let (old_node, new_node) = (sent(before), sent(after));
    if let (Some(before), Some(after)) = (before, after)
        && old_node == new_node
    {
        let Some(node) = new_node else { return };
        if !is_same_assignment(before, after) {
            routed.node(&node).add_task(after.id.clone(), TaskChange::Changed);
        } else if is_live(before) && !is_live(after) {
            routed.node(&node).add_task(after.id.clone(), TaskChange::Ended);
        }
        return;
    }
    let Some(id) = before.or(after).map(|task| task.id.clone()) else { return };
    for node in [old_node, new_node].into_iter().flatten() {
        routed.node(&node).add_task(id.clone(), TaskChange::Changed);
    }
}

/// Whether its node is told of it.
pub(super) fn is_sent(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned
}

/// Whether it needs what it refers to.
pub(super) fn is_live(task: &Task) -> bool {
    task.status.state <= TaskState::Running
}

/// Whether two states of a task are the same to its node: all but status and meta, which the node made itself or does not
/// look at. Each field is named, so that a new one cannot be forgotten.
fn is_same_assignment(a: &Task, b: &Task) -> bool {
    let Task {
        id,
        meta: _,
        spec,
        service_id,
        slot,
        node_id,
        annotations,
        service_annotations,
        status: _,
        desired_state,
        networks,
        endpoint,
        log_driver,
        spec_version,
        assigned_generic_resources,
        job_iteration,
        volumes,
    } = a;
    *desired_state == b.desired_state
        && (std::sync::Arc::ptr_eq(spec, &b.spec) || *spec == b.spec)
        && *id == b.id
        && *service_id == b.service_id
        && *slot == b.slot
        && *node_id == b.node_id
        && *annotations == b.annotations
        && *service_annotations == b.service_annotations
        && *networks == b.networks
        && *endpoint == b.endpoint
        && *log_driver == b.log_driver
        && *spec_version == b.spec_version
        && *assigned_generic_resources == b.assigned_generic_resources
        && *job_iteration == b.job_iteration
        && *volumes == b.volumes
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Cluster, Node};
    use store::Action;

    fn task(node: &str, state: TaskState, desired: TaskState) -> Task {
        let mut task =
            Task { id: "t".into(), node_id: Some(node.into()), desired_state: desired, ..Default::default() };
        task.status.state = state;
        task
    }

    fn dirty(routed: &Routed) -> Vec<(&str, Vec<TaskChange>)> {
        routed.nodes.iter().map(|(id, dirt)| (id.as_str(), dirt.tasks.values().copied().collect())).collect()
    }

    #[test]
    fn a_task_concerns_its_node_and_only_when_something_is_new_to_it() {
        use TaskState::{Assigned, Failed, Pending, Running, Shutdown};
        let mut view = View::new();
        view.apply(&[Action::Create(task("a", Pending, Running).into())]).unwrap();
        let mut check = |new: Task, expected: &[(&str, Vec<TaskChange>)]| {
            let events = view.apply(&[Action::Update(new.into())]).unwrap();
            assert_eq!(dirty(&route(&view, &events)), expected);
        };
        check(task("a", Assigned, Running), &[("a", vec![TaskChange::Changed])]);
        check(task("a", Running, Running), &[]);
        check(task("a", Running, Shutdown), &[("a", vec![TaskChange::Changed])]);
        check(task("a", Failed, Shutdown), &[("a", vec![TaskChange::Ended])]);
        check(task("b", Running, Running), &[("a", vec![TaskChange::Changed]), ("b", vec![TaskChange::Changed])]);
        let events = view.apply(&[Action::Remove(task("b", Running, Running).into())]).unwrap();
        assert_eq!(dirty(&route(&view, &events)), [("b", vec![TaskChange::Changed])]);
    }

    #[test]
    fn sessions_hear_of_their_node_and_of_keys() {
        let mut view = View::new();
        let mut cluster = Cluster { id: "c".into(), ..Default::default() };
        let node = Node { id: "n".into(), ..Default::default() };
        view.apply(&[Action::Create(cluster.clone().into()), Action::Create(node.clone().into())]).unwrap();
        let events = view.apply(&[Action::Update(node.into())]).unwrap();
        let routed = route(&view, &events);
        assert!(routed.nodes["n"].session && !routed.every_session);
        cluster.spec.annotations.labels.insert("a".into(), "b".into());
        let events = view.apply(&[Action::Update(cluster.clone().into())]).unwrap();
        assert_eq!(route(&view, &events), Routed::default(), "labels are no matter of the nodes");
        cluster.network_bootstrap_keys.push(Default::default());
        let events = view.apply(&[Action::Update(cluster.into())]).unwrap();
        assert!(route(&view, &events).every_session);
    }

    #[test]
    fn what_does_not_fit_into_a_message_stays() {
        let mut dirt = Dirt::default();
        for number in 0..MESSAGE_CHANGES + 1 {
            dirt.add_task(format!("{number:04}").into(), TaskChange::Changed);
        }
        assert_eq!(dirt.take(MESSAGE_CHANGES).tasks.len(), MESSAGE_CHANGES);
        assert_eq!(dirt.take(MESSAGE_CHANGES).tasks.len(), 1);
        assert!(dirt.is_empty());
    }
}
