//! Which tasks, secrets and configs one node is to have: the whole set at first, then what changed. One instance for each
//! Assignments stream.
//!
//! Invariants: `results_in` of a message is `applies_to` of the next; what is sent is read from the view at the time of
//! sending, so that changes that wait for a slow node do not pile up; a secret or config is sent before the first live
//! task that uses it or with it, and taken back with the last.

use std::collections::{BTreeMap, BTreeSet};

use model::{ConfigId, NodeId, ResourceType, SecretId, Task, TaskId, TaskRuntime};
use store::View;
use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::assignment::Item;

use super::dirt::{Dirt, TaskChange, is_live, is_sent};

/// What a node was sent, and what it is sent next.
pub struct AssignmentFeed {
    node: NodeId,
    sequence: u64,
    /// The tasks that it has.
    tasks: BTreeSet<TaskId>,
    /// The secrets that it has, and the live tasks that use them.
    secrets: BTreeMap<SecretId, BTreeSet<TaskId>>,
    /// The configs that it has, and the live tasks that use them.
    configs: BTreeMap<ConfigId, BTreeSet<TaskId>>,
}

/// The tasks of a node as the deprecated Tasks stream sends them, all in each message.
pub fn assigned_tasks(node: &NodeId, view: &View) -> p::TasksMessage {
    p::TasksMessage {
        tasks: view.tasks_of_node(node).filter(|task| is_sent(task)).map(|task| task.to_proto()).collect(),
    }
}

impl AssignmentFeed {
    /// A stream on which nothing was sent yet.
    pub fn new(node: NodeId) -> Self {
        Self { node, sequence: 0, tasks: BTreeSet::new(), secrets: BTreeMap::new(), configs: BTreeMap::new() }
    }

    /// The complete set; the first message of a stream.
    pub fn first(&mut self, view: &View) -> p::AssignmentsMessage {
        let mut changes = Vec::new();
        for task in view.tasks_of_node(&self.node) {
            if is_sent(task) {
                self.put(view, task, TaskChange::Changed, &mut changes);
            }
        }
        self.sequence = 1;
        p::AssignmentsMessage {
            kind: p::AssignmentsType::Complete as i32,
            applies_to: String::new(),
            results_in: self.sequence.to_string(),
            changes,
        }
    }

    /// What `dirt` comes to; `None` if nothing of it is news to the node.
    pub fn next(&mut self, view: &View, dirt: &Dirt) -> Option<p::AssignmentsMessage> {
        let mut changes = Vec::new();
        if dirt.everything {
            self.compare_all(view, &mut changes);
        }
        for (id, change) in &dirt.tasks {
            match view.task(id).filter(|task| task.node_id.as_ref() == Some(&self.node) && is_sent(task)) {
                Some(task) => self.put(view, task, *change, &mut changes),
                None => self.remove(id, &mut changes),
            }
        }
        for id in dirt.secrets.iter().filter(|id| self.secrets.contains_key(*id)) {
            changes.extend(secret_item(view, id).map(update));
        }
        for id in dirt.configs.iter().filter(|id| self.configs.contains_key(*id)) {
            changes.extend(view.config(id).map(|config| update(Item::Config(config.to_proto()))));
        }
        if changes.is_empty() {
            return None;
        }
        self.sequence += 1;
        Some(p::AssignmentsMessage {
            kind: p::AssignmentsType::Incremental as i32,
            applies_to: (self.sequence - 1).to_string(),
            results_in: self.sequence.to_string(),
            changes,
        })
    }

    /// Events were lost: everything is sent again, what the node has and should not is removed.
    fn compare_all(&mut self, view: &View, changes: &mut Vec<p::AssignmentChange>) {
        let mut gone = self.tasks.clone();
        for task in view.tasks_of_node(&self.node).filter(|task| is_sent(task)) {
            gone.remove(&task.id);
            self.put(view, task, TaskChange::Changed, changes);
        }
        for id in gone {
            self.remove(&id, changes);
        }
    }

    fn put(&mut self, view: &View, task: &Task, change: TaskChange, changes: &mut Vec<p::AssignmentChange>) {
        if is_live(task) {
            self.take_references(view, task, changes);
        }
        let is_new = self.tasks.insert(task.id.clone());
        if is_new || change == TaskChange::Changed {
            changes.push(update(Item::Task(task.to_proto())));
        }
        if !is_live(task) {
            self.release_references(&task.id, changes);
        }
    }

    fn remove(&mut self, id: &TaskId, changes: &mut Vec<p::AssignmentChange>) {
        if self.tasks.remove(id) {
            let task = p::Task { id: id.to_string(), ..Default::default() };
            changes.push(remove(Item::Task(task)));
            self.release_references(id, changes);
        }
    }

    fn take_references(&mut self, view: &View, task: &Task, changes: &mut Vec<p::AssignmentChange>) {
        let (secrets, configs) = references(task);
        for id in secrets {
            let item = if self.secrets.contains_key(&id) { None } else { secret_item(view, &id) };
            changes.extend(item.map(update));
            self.secrets.entry(id).or_default().insert(task.id.clone());
        }
        for id in configs {
            let item = if self.configs.contains_key(&id) { None } else { view.config(&id) };
            changes.extend(item.map(|config| update(Item::Config(config.to_proto()))));
            self.configs.entry(id).or_default().insert(task.id.clone());
        }
    }

    fn release_references(&mut self, task: &TaskId, changes: &mut Vec<p::AssignmentChange>) {
        self.secrets.retain(|id, users| {
            let released = users.remove(task) && users.is_empty();
            if released {
                changes.push(remove(Item::Secret(p::Secret { id: id.to_string(), ..Default::default() })));
            }
            !released
        });
        self.configs.retain(|id, users| {
            let released = users.remove(task) && users.is_empty();
            if released {
                changes.push(remove(Item::Config(p::Config { id: id.to_string(), ..Default::default() })));
            }
            !released
        });
    }
}

/// What a task may read.
fn references(task: &Task) -> (BTreeSet<SecretId>, BTreeSet<ConfigId>) {
    let (mut secrets, mut configs) = (BTreeSet::new(), BTreeSet::new());
    if let Some(TaskRuntime::Container(container)) = &task.spec.runtime {
        secrets.extend(container.secrets.iter().map(|reference| reference.secret_id.clone()));
        configs.extend(container.configs.iter().map(|reference| reference.config_id.clone()));
    }
    for reference in &task.spec.resource_references {
        match reference.resource_type {
            ResourceType::Secret => drop(secrets.insert(reference.resource_id.as_str().into())),
            ResourceType::Config => drop(configs.insert(reference.resource_id.as_str().into())),
            ResourceType::Task | ResourceType::Volume => {}
        }
    }
    (secrets, configs)
}

/// A secret with its data. One whose data a driver holds is not sent: there are no drivers here, and an empty secret
/// would be taken for the true one. Its task fails for want of it.
fn secret_item(view: &View, id: &SecretId) -> Option<Item> {
    let secret = view.secret(id)?;
    if secret.spec.driver.is_some() {
        tracing::warn!(secret = %id, "a secret is kept by a driver, of which there are none; it is not handed out");
        return None;
    }
    Some(Item::Secret(secret.to_proto()))
}

fn update(item: Item) -> p::AssignmentChange {
    change(item, p::AssignmentAction::Update)
}

fn remove(item: Item) -> p::AssignmentChange {
    change(item, p::AssignmentAction::Remove)
}

fn change(item: Item, action: p::AssignmentAction) -> p::AssignmentChange {
    p::AssignmentChange { assignment: Some(p::Assignment { item: Some(item) }), action: action as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::core::route;
    use model::{
        ContainerSpec, Driver, FileTarget, Secret, SecretReference, SecretReferenceTarget, TaskSpec, TaskState,
    };
    use std::sync::Arc;
    use store::Action;

    fn task(state: TaskState) -> Task {
        let target = SecretReferenceTarget::File(FileTarget::default());
        let reference = SecretReference { secret_id: "s".into(), target: Some(target), ..Default::default() };
        let container = ContainerSpec { secrets: vec![reference], ..Default::default() };
        let spec = TaskSpec { runtime: Some(TaskRuntime::Container(container)), ..Default::default() };
        let mut task = Task { id: "t".into(), node_id: Some("n".into()), spec: Arc::new(spec), ..Default::default() };
        task.status.state = state;
        task
    }

    fn kinds(message: Option<&p::AssignmentsMessage>) -> Vec<String> {
        let name = |change: &p::AssignmentChange| {
            let item = change.assignment.as_ref().and_then(|a| a.item.as_ref());
            let kind = match item {
                Some(Item::Task(_)) => "task",
                Some(Item::Secret(_)) => "secret",
                _ => "other",
            };
            format!("{}{kind}", if change.action == 0 { "+" } else { "-" })
        };
        message.map_or_else(Vec::new, |message| message.changes.iter().map(name).collect())
    }

    struct Fixture {
        view: View,
        feed: AssignmentFeed,
        last: String,
    }

    impl Fixture {
        fn new(secret: Secret) -> Self {
            let mut view = View::new();
            view.apply(&[Action::Create(secret.into()), Action::Create(task(TaskState::Pending).into())]).unwrap();
            let mut feed = AssignmentFeed::new("n".into());
            let first = feed.first(&view);
            assert!(first.changes.is_empty(), "a task that is not assigned yet is not sent");
            assert_eq!((first.applies_to.as_str(), first.results_in.as_str()), ("", "1"));
            Self { view, feed, last: first.results_in }
        }

        fn apply(&mut self, action: Action) -> Vec<String> {
            let events = self.view.apply(&[action]).unwrap();
            let dirt = route(&self.view, &events).nodes.remove("n").unwrap_or_default();
            self.next(&dirt)
        }

        fn next(&mut self, dirt: &Dirt) -> Vec<String> {
            let message = self.feed.next(&self.view, dirt);
            if let Some(message) = &message {
                assert_eq!(message.applies_to, self.last, "the numbering has no gap");
                self.last = message.results_in.clone();
            }
            kinds(message.as_ref())
        }
    }

    #[test]
    fn secrets_travel_with_the_tasks_that_use_them() {
        let mut it = Fixture::new(Secret { id: "s".into(), ..Default::default() });
        assert_eq!(it.apply(Action::Update(task(TaskState::Assigned).into())), ["+secret", "+task"]);
        assert!(it.apply(Action::Update(task(TaskState::Running).into())).is_empty(), "a status is no news");
        let relabelled = Secret { id: "s".into(), internal: true, ..Default::default() };
        assert_eq!(it.apply(Action::Update(relabelled.into())), ["+secret"]);
        assert_eq!(it.apply(Action::Update(task(TaskState::Failed).into())), ["-secret"]);
        assert_eq!(it.apply(Action::Remove(task(TaskState::Failed).into())), ["-task"]);
    }

    #[test]
    fn secrets_of_drivers_are_not_handed_out() {
        let mut secret = Secret { id: "s".into(), ..Default::default() };
        secret.spec.driver = Some(Driver { name: "vault".into(), ..Default::default() });
        let mut it = Fixture::new(secret);
        assert_eq!(it.apply(Action::Update(task(TaskState::Assigned).into())), ["+task"]);
    }

    #[test]
    fn a_stream_that_lost_events_sends_all_there_is() {
        let mut it = Fixture::new(Secret { id: "s".into(), ..Default::default() });
        it.apply(Action::Update(task(TaskState::Assigned).into()));
        let lost = Dirt { everything: true, ..Default::default() };
        assert_eq!(it.next(&lost), ["+task"]);
        it.view.apply(&[Action::Remove(task(TaskState::Assigned).into())]).unwrap();
        assert_eq!(it.next(&lost), ["-task", "-secret"]);
    }
}
