//! Holds the set of assigned tasks: applies what the dispatcher sends, in the order secrets, configs, tasks, and starts
//! or removes the owners of tasks. What an earlier run left on disk goes on before any manager is heard. Called by
//! `session`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Config, Secret, Task, TaskId, TaskRuntime, TaskState, TaskStatus};
use swarm_proto::convert::{ConvertError, FromProto};
use swarm_proto::swarmkit as p;
use tokio::task::JoinSet;

use crate::reporter::Reporter;
use crate::task_files::TaskFiles;
use crate::task_manager::{TaskManager, now};
use crate::{Controller, ControllerError, Dependencies, Executor};

/// What one assignments message changes, typed.
#[derive(Debug, Default)]
struct Changes {
    tasks: Vec<Task>,
    removed_tasks: Vec<TaskId>,
    secrets: Vec<Secret>,
    removed_secrets: Vec<model::SecretId>,
    configs: Vec<Config>,
    removed_configs: Vec<model::ConfigId>,
}

/// The tasks of this node.
pub(crate) struct Worker {
    executor: Arc<dyn Executor>,
    dependencies: Dependencies,
    tasks: BTreeMap<TaskId, TaskManager>,
    /// Tasks whose controller could not be made: known so that they are not tried again.
    refused: BTreeSet<TaskId>,
    /// Tasks of an earlier run that wait for their secrets and configs, as they were last seen.
    waiting: BTreeMap<TaskId, TaskStatus>,
    removals: JoinSet<()>,
    files: TaskFiles,
    pub(crate) reporter: Reporter,
}

impl Worker {
    pub(crate) fn new(executor: Arc<dyn Executor>, files: TaskFiles) -> Self {
        Self {
            executor,
            dependencies: Dependencies::default(),
            tasks: BTreeMap::new(),
            refused: BTreeSet::new(),
            waiting: BTreeMap::new(),
            removals: JoinSet::new(),
            reporter: Reporter::kept_in(files.clone()),
            files,
        }
    }

    /// Takes up the tasks of an earlier run. One that has yet to be created and reads secrets or configs waits for the
    /// first session, which brings them.
    pub(crate) fn adopt(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            if task.status.state < TaskState::Starting && has_dependencies(&task) {
                self.waiting.insert(task.id.clone(), task.status);
                continue;
            }
            // Whether a manager has heard this is not known; it drops what it has.
            self.reporter.report(&task.id, task.status.clone());
            self.start_task(Arc::new(task));
        }
    }

    /// Applies one message: a COMPLETE one replaces everything, an INCREMENTAL one changes what it names.
    pub(crate) async fn apply(&mut self, message: p::AssignmentsMessage) -> Result<(), ConvertError> {
        let complete = message.kind == p::AssignmentsType::Complete as i32;
        let changes = decode(message.changes)?;
        if complete {
            self.dependencies.clear();
        }
        for secret in changes.secrets {
            self.dependencies.put_secret(secret);
        }
        for config in changes.configs {
            self.dependencies.put_config(config);
        }
        let mut gone: Vec<TaskId> = changes.removed_tasks;
        if complete {
            let named: BTreeSet<&TaskId> = changes.tasks.iter().map(|task| &task.id).collect();
            let known = self.tasks.keys().chain(&self.refused).chain(self.waiting.keys());
            gone.extend(known.filter(|id| !named.contains(id)).cloned());
        }
        for id in gone {
            self.remove_task(&id);
        }
        for task in changes.tasks {
            self.put_task(Arc::new(task)).await;
        }
        for id in &changes.removed_secrets {
            self.dependencies.remove_secret(id);
        }
        for id in &changes.removed_configs {
            self.dependencies.remove_config(id);
        }
        while self.removals.try_join_next().is_some() {}
        if complete {
            self.executor.retain(self.tasks.keys().cloned().collect()).await;
        }
        Ok(())
    }

    async fn put_task(&mut self, task: Arc<Task>) {
        if let Some(manager) = self.tasks.get_mut(&task.id) {
            if differs(&manager.task, &task) {
                self.files.put_task(&task);
                manager.update(task).await;
            }
            return;
        }
        if self.refused.contains(&task.id) {
            return;
        }
        let task = match self.waiting.remove(&task.id) {
            Some(status) => Arc::new(Task { status, ..Task::clone(&task) }),
            None => task,
        };
        self.files.put_task(&task);
        self.files.put_status(&task.id, &task.status);
        self.start_task(task);
    }

    fn start_task(&mut self, task: Arc<Task>) {
        match self.executor.controller(task.clone(), self.dependencies.clone()) {
            Ok(controller) => {
                let manager = TaskManager::start(task.clone(), controller, self.reporter.clone());
                self.tasks.insert(task.id.clone(), manager);
            }
            Err(error) => self.refuse(&task, &error),
        }
    }

    fn refuse(&mut self, task: &Task, error: &ControllerError) {
        self.refused.insert(task.id.clone());
        let status = TaskStatus {
            state: TaskState::Rejected,
            timestamp: Some(now()),
            message: "resolving controller failed".to_owned(),
            err: error.to_string(),
            ..task.status.clone()
        };
        self.reporter.report(&task.id, status);
    }

    fn remove_task(&mut self, id: &TaskId) {
        self.refused.remove(id);
        self.waiting.remove(id);
        self.reporter.forget(id);
        self.files.remove(id);
        if let Some(manager) = self.tasks.remove(id) {
            self.removals.spawn(manager.remove());
        }
    }

    /// Controllers of the tasks that `wanted` picks, for their logs.
    pub(crate) fn controllers(&self, wanted: impl Fn(&Task) -> bool) -> Vec<(Arc<Task>, Arc<dyn Controller>)> {
        let picked = self.tasks.values().filter(|manager| wanted(&manager.task));
        picked.map(|manager| (manager.task.clone(), manager.controller.clone())).collect()
    }

    /// Ends every owner and leaves the containers alone.
    pub(crate) async fn detach(mut self) {
        for (_, manager) in std::mem::take(&mut self.tasks) {
            manager.detach().await;
        }
        while self.removals.join_next().await.is_some() {}
    }

    /// Stops and removes every task: the node leaves its swarm.
    pub(crate) async fn remove_all(&mut self) {
        for id in self.tasks.keys().cloned().collect::<Vec<_>>() {
            self.remove_task(&id);
        }
        // Removals run side by side; the longest stop grace period bounds them.
        while self.removals.join_next().await.is_some() {}
    }
}

/// Does the container need secrets or configs?
fn has_dependencies(task: &Task) -> bool {
    let referred = match &task.spec.runtime {
        Some(TaskRuntime::Container(container)) => !container.secrets.is_empty() || !container.configs.is_empty(),
        _ => false,
    };
    referred || !task.spec.resource_references.is_empty()
}

/// SwarmKit's stable equality: a change of only status and meta does not disturb a controller.
fn differs(old: &Task, new: &Task) -> bool {
    let mut same = new.clone();
    same.status = old.status.clone();
    same.meta = old.meta.clone();
    same != *old
}

fn decode(list: Vec<p::AssignmentChange>) -> Result<Changes, ConvertError> {
    use p::assignment::Item;
    let mut changes = Changes::default();
    for change in list {
        let remove = change.action == p::AssignmentAction::Remove as i32;
        match change.assignment.and_then(|assignment| assignment.item) {
            Some(Item::Task(task)) if remove => changes.removed_tasks.push(task.id.into()),
            Some(Item::Task(task)) => changes.tasks.push(Task::from_proto(task)?),
            Some(Item::Secret(secret)) if remove => changes.removed_secrets.push(secret.id.into()),
            Some(Item::Secret(secret)) => changes.secrets.push(Secret::from_proto(secret)?),
            Some(Item::Config(config)) if remove => changes.removed_configs.push(config.id.into()),
            Some(Item::Config(config)) => changes.configs.push(Config::from_proto(config)?),
            // Cluster volumes need a CSI plugin, and this node announces none, so none is assigned to it.
            Some(Item::Volume(_)) | None => {}
        }
    }
    Ok(changes)
}
