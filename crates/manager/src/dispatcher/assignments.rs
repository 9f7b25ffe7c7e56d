//! Which tasks, secrets and configs one node is to have: the whole set at first, then what each commit changes. Pure:
//! views and events in, changes out. One instance for each Assignments stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{ConfigId, NodeId, SecretId, Task, TaskId, TaskRuntime, TaskState};
use store::{Event, Object, View};
use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::assignment::Item;

/// What a node was sent.
pub(crate) struct AssignmentSet {
    node: NodeId,
    tasks: BTreeMap<TaskId, Arc<Task>>,
    secrets: BTreeMap<SecretId, BTreeSet<TaskId>>,
    configs: BTreeMap<ConfigId, BTreeSet<TaskId>>,
}

impl AssignmentSet {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, tasks: BTreeMap::new(), secrets: BTreeMap::new(), configs: BTreeMap::new() }
    }

    /// The complete set as of `view`; replaces what was sent before.
    pub(crate) fn complete(&mut self, view: &View) -> Vec<p::AssignmentChange> {
        self.tasks.clear();
        self.secrets.clear();
        self.configs.clear();
        let mut changes = Vec::new();
        for task in view.tasks_of_node(&self.node) {
            self.put(view, task, &mut changes);
        }
        changes
    }

    /// What a commit changes.
    pub(crate) fn incremental(&mut self, view: &View, events: &[Event]) -> Vec<p::AssignmentChange> {
        let mut changes = Vec::new();
        for event in events {
            match event {
                Event::Create(Object::Task(task)) | Event::Update { new: Object::Task(task), .. } => {
                    if task.node_id.as_ref() == Some(&self.node) {
                        self.put(view, task, &mut changes);
                    } else {
                        self.remove(&task.id, &mut changes);
                    }
                }
                Event::Remove(Object::Task(task)) => self.remove(&task.id, &mut changes),
                Event::Update { new: Object::Secret(secret), .. } if self.secrets.contains_key(&secret.id) => {
                    changes.push(update(Item::Secret(secret.to_proto())));
                }
                Event::Update { new: Object::Config(config), .. } if self.configs.contains_key(&config.id) => {
                    changes.push(update(Item::Config(config.to_proto())));
                }
                _ => {}
            }
        }
        changes
    }

    fn put(&mut self, view: &View, task: &Arc<Task>, changes: &mut Vec<p::AssignmentChange>) {
        if task.status.state < TaskState::Assigned {
            return;
        }
        let live = task.status.state <= TaskState::Running;
        if live {
            self.take_references(view, task, changes);
        }
        let known = self.tasks.insert(task.id.clone(), task.clone());
        if known.is_none_or(|known| differs(&known, task)) {
            changes.push(update(Item::Task(task.to_proto())));
        }
        if !live {
            self.release_references(&task.id, changes);
        }
    }

    fn remove(&mut self, id: &TaskId, changes: &mut Vec<p::AssignmentChange>) {
        if self.tasks.remove(id).is_some() {
            let task = p::Task { id: id.to_string(), ..Default::default() };
            changes.push(remove(Item::Task(task)));
            self.release_references(id, changes);
        }
    }

    fn take_references(&mut self, view: &View, task: &Task, changes: &mut Vec<p::AssignmentChange>) {
        let Some(TaskRuntime::Container(container)) = &task.spec.runtime else { return };
        for reference in &container.secrets {
            let users = self.secrets.entry(reference.secret_id.clone()).or_default();
            if users.is_empty()
                && let Some(secret) = view.secret(&reference.secret_id)
            {
                changes.push(update(Item::Secret(secret.to_proto())));
            }
            users.insert(task.id.clone());
        }
        for reference in &container.configs {
            let users = self.configs.entry(reference.config_id.clone()).or_default();
            if users.is_empty()
                && let Some(config) = view.config(&reference.config_id)
            {
                changes.push(update(Item::Config(config.to_proto())));
            }
            users.insert(task.id.clone());
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

/// A change of only status and meta is no news for the node, which made the status itself.
fn differs(old: &Task, new: &Task) -> bool {
    let mut same = new.clone();
    same.status = old.status.clone();
    same.meta = old.meta.clone();
    same != *old
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
    use model::{ContainerSpec, FileTarget, Secret, SecretReference, SecretReferenceTarget, TaskSpec};
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

    fn kinds(changes: &[p::AssignmentChange]) -> Vec<String> {
        let name = |change: &p::AssignmentChange| {
            let item = change.assignment.as_ref().and_then(|a| a.item.as_ref());
            let kind = match item {
                Some(Item::Task(_)) => "task",
                Some(Item::Secret(_)) => "secret",
                _ => "other",
            };
            format!("{}{kind}", if change.action == 0 { "+" } else { "-" })
        };
        changes.iter().map(name).collect()
    }

    #[test]
    fn secrets_travel_with_the_tasks_that_use_them() {
        let mut view = View::new();
        let secret = Secret { id: "s".into(), ..Default::default() };
        view.apply(&[Action::Create(secret.into()), Action::Create(task(TaskState::Pending).into())]).unwrap();
        let mut set = AssignmentSet::new("n".into());
        assert!(set.complete(&view).is_empty(), "a task that is not assigned yet is not sent");
        let events = view.apply(&[Action::Update(task(TaskState::Assigned).into())]).unwrap();
        assert_eq!(kinds(&set.incremental(&view, &events)), ["+secret", "+task"]);
        let events = view.apply(&[Action::Update(task(TaskState::Running).into())]).unwrap();
        assert!(set.incremental(&view, &events).is_empty(), "a status is no news");
        let events = view.apply(&[Action::Update(task(TaskState::Failed).into())]).unwrap();
        assert_eq!(kinds(&set.incremental(&view, &events)), ["-secret"]);
        let events = view.apply(&[Action::Remove(task(TaskState::Failed).into())]).unwrap();
        assert_eq!(kinds(&set.incremental(&view, &events)), ["-task"]);
    }
}
