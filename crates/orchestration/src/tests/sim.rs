//! A swarm in one thread: the leader, agents that do one step of a task at a time, and a clock that jumps.

use crate::leader::{BATCH_LIMIT, Leader};
use model::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Action, Event, Object, Transaction, View, stamp};

/// How long an agent needs for a step.
pub(super) const TICK: Duration = Duration { seconds: 0, nanos: 100_000_000 };

pub(super) struct Sim {
    pub(super) view: View,
    pub(super) leader: Leader,
    pub(super) events: Vec<Event>,
    /// Every event there was.
    pub(super) history: Vec<Event>,
    pub(super) now: Timestamp,
    version: u64,
    /// Nodes whose agents do nothing.
    pub(super) silent: BTreeSet<String>,
    /// Every batch that the leader wrote.
    pub(super) written: Vec<Vec<Action>>,
    /// Whether an update may start first: then a slot may have two tasks that shall run for a while.
    pub(super) starts_first: bool,
    deadline: Option<Timestamp>,
    started: BTreeMap<TaskId, Timestamp>,
}

impl Sim {
    /// With nodes n1, n2…
    pub(super) fn new(nodes: usize) -> Self {
        let mut sim = Self {
            view: View::new(),
            leader: Leader::new(7),
            events: Vec::new(),
            history: Vec::new(),
            now: Timestamp { seconds: 100_000, nanos: 0 },
            version: 0,
            silent: BTreeSet::new(),
            written: Vec::new(),
            starts_first: false,
            deadline: None,
            started: BTreeMap::new(),
        };
        let mut cluster = Cluster { id: "c".into(), ..Default::default() };
        cluster.spec.annotations.name = "default".into();
        cluster.spec.orchestration.task_history_retention_limit = 5;
        sim.put(cluster);
        (1..=nodes).for_each(|n| sim.put(node(&format!("n{n}"))));
        sim
    }

    pub(super) fn write(&mut self, mut actions: Vec<Action>) {
        self.version += 1;
        stamp(&mut actions, ObjectVersion(self.version), self.now);
        let events = self.view.apply(&actions).unwrap();
        self.history.extend_from_slice(&events);
        self.events.extend(events);
    }

    pub(super) fn put(&mut self, object: impl Into<Object>) {
        let object = object.into();
        let mut transaction = Transaction::new(&self.view);
        if transaction.update(object.clone()).is_err() {
            transaction.create(object).unwrap();
        }
        self.write(transaction.finish());
    }

    pub(super) fn remove(&mut self, object: impl Into<Object>) {
        self.write(vec![Action::Remove(object.into())]);
    }

    /// One call of the leader; whether it wrote something.
    pub(super) fn step(&mut self) -> bool {
        let events = std::mem::take(&mut self.events);
        let plan = self.leader.step(&self.view, &events, self.now);
        assert!(!plan.rounds_exceeded, "the planners do not come to rest");
        self.deadline = plan.deadline;
        let wrote = !plan.batches.is_empty();
        for batch in plan.batches {
            assert!(batch.len() <= BATCH_LIMIT);
            let ids: BTreeSet<_> = batch.iter().map(Action::id).collect();
            assert_eq!(ids.len(), batch.len(), "an object occurs twice in a batch");
            self.written.push(batch.clone());
            self.write(batch);
        }
        wrote
    }

    /// Runs the leader until it rests.
    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            if !self.step() && self.events.is_empty() {
                return;
            }
        }
        panic!("the leader does not come to rest");
    }

    /// A new leader takes over from the store alone.
    pub(super) fn new_leader(&mut self, seed: u64) {
        self.leader = Leader::new(seed);
        self.leader.rebuild(&self.view);
        self.events.clear();
    }

    /// Lets time pass, with agents at work.
    pub(super) fn run(&mut self, seconds: i64) {
        let end = self.now.plus(Duration::from_secs(seconds));
        loop {
            self.settle();
            let worked = self.agents();
            let tick = self.now.plus(TICK);
            let next = if worked { Some(tick) } else { self.deadline.into_iter().chain(self.next_exit()).min() };
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = next.max(self.now);
        }
        self.now = end;
        self.settle();
        if !self.starts_first {
            assert_one_per_slot(&self.view);
        }
    }

    fn next_exit(&self) -> Option<Timestamp> {
        let ends = |task: &Arc<Task>| matches!(image(task), "flaky" | "done") && is_up(task);
        let tasks = self.view.tasks().filter(|task| ends(task) && !self.is_silent(task));
        tasks.filter_map(|task| self.started.get(&task.id)).map(|at| at.plus(Duration::from_secs(1))).min()
    }

    fn is_silent(&self, task: &Task) -> bool {
        task.node_id.as_ref().is_none_or(|id| self.silent.contains(id.as_str()))
    }

    /// Every agent takes each of its tasks one step further; whether there was one.
    pub(super) fn agents(&mut self) -> bool {
        let mut actions = Vec::new();
        for task in self.view.tasks() {
            let knows = !self.is_silent(task) && task.status.state >= TaskState::Assigned;
            if knows && let Some((state, message)) = self.agent_step(task) {
                let mut moved = (**task).clone();
                moved.status.state = state;
                moved.status.message = message.into();
                moved.status.timestamp = Some(self.now);
                moved.status.applied_at = Some(self.now);
                actions.push(Action::Update(moved.into()));
            }
        }
        for action in &actions {
            if let Object::Task(task) = action.object()
                && task.status.state == TaskState::Running
            {
                self.started.insert(task.id.clone(), self.now);
            }
        }
        let worked = !actions.is_empty();
        self.write(actions);
        worked
    }

    fn agent_step(&self, task: &Task) -> Option<(TaskState, &'static str)> {
        use TaskState::*;
        let (state, desired, image) = (task.status.state, task.desired_state, image(task));
        if state >= Complete {
            return None;
        }
        if desired >= Shutdown {
            return (image != "stubborn").then_some((Shutdown, "shutdown"));
        }
        let ran = self.started.get(&task.id).map(|at| self.now.since(*at));
        let has_run = ran.is_some_and(|span| span >= Duration::from_secs(1));
        match state {
            Assigned => Some((Accepted, "accepted")),
            Accepted => Some((Preparing, "preparing")),
            Preparing if image == "reject" => Some((Rejected, "no such image")),
            Preparing => Some((Ready, "prepared")),
            Ready if desired > Ready => Some((Starting, "starting")),
            Starting if image == "crash" => Some((Failed, "started")),
            Starting => Some((Running, "started")),
            Running if image == "flaky" && has_run => Some((Failed, "started")),
            Running if image == "done" && has_run => Some((Complete, "finished")),
            _ => None,
        }
    }

    pub(super) fn service(&self, id: &str) -> Arc<Service> {
        self.view.service(&id.into()).unwrap().clone()
    }

    /// What the control API does at an update.
    pub(super) fn update_service(&mut self, id: &str, edit: impl FnOnce(&mut ServiceSpec)) {
        let mut service = (*self.service(id)).clone();
        service.previous_spec = Some(service.spec.clone());
        service.previous_spec_version = service.spec_version;
        service.spec_version = Some(SpecVersion(service.meta.version.0));
        service.update_status = None;
        if let Some(job) = &mut service.job_status {
            job.job_iteration.0 += 1;
        }
        edit(&mut service.spec);
        self.put(service);
    }

    pub(super) fn edit_node(&mut self, id: &str, edit: impl FnOnce(&mut Node)) {
        let mut node = (**self.view.node(&id.into()).unwrap()).clone();
        edit(&mut node);
        self.put(node);
    }

    pub(super) fn set_state(&mut self, node: &str, state: NodeState) {
        self.edit_node(node, |node| node.status.state = state);
    }

    pub(super) fn drain(&mut self, node: &str) {
        self.edit_node(node, |node| node.spec.availability = NodeAvailability::Drain);
    }

    pub(super) fn edit_task(&mut self, id: &TaskId, edit: impl FnOnce(&mut Task)) {
        let mut task = (**self.view.task(id).unwrap()).clone();
        edit(&mut task);
        self.put(task);
    }

    /// The tasks of service `s` that meet `filter`, in order of slot and age.
    pub(super) fn tasks(&self, filter: impl Fn(&Task) -> bool) -> Vec<Arc<Task>> {
        let mut tasks: Vec<_> = self.view.tasks_of_service(&"s".into()).filter(|task| filter(task)).cloned().collect();
        tasks.sort_by_key(|task| (task.slot, crate::tasks::age(task)));
        tasks
    }

    pub(super) fn running(&self) -> Vec<Arc<Task>> {
        self.tasks(|task| is_up(task) && task.desired_state == TaskState::Running)
    }

    /// `service s` in words: slot, image, observed and desired state of each task.
    pub(super) fn show(&self) -> String {
        let mut lines = String::new();
        for task in self.tasks(|_| true) {
            let (state, desired) = (task.status.state, task.desired_state);
            let node = task.node_id.as_ref().map_or("-", |id| id.as_str());
            lines += &format!("{} {} {node} {state:?}/{desired:?}\n", task.slot, image(&task));
        }
        lines
    }

    pub(super) fn update_status(&self) -> (UpdateState, String) {
        let status = self.service("s").update_status.clone().unwrap_or_default();
        (status.state, status.message)
    }
}

pub(super) fn is_up(task: &Task) -> bool {
    task.status.state == TaskState::Running
}

pub(super) fn image(task: &Task) -> &str {
    match &task.spec.runtime {
        Some(TaskRuntime::Container(container)) => &container.image,
        _ => "",
    }
}

pub(super) fn node(id: &str) -> Node {
    let resources = Resources { nano_cpus: 64_000_000_000, memory_bytes: 64 << 30, generic: Vec::new() };
    let description = NodeDescription { hostname: id.into(), resources: Some(resources), ..Default::default() };
    let mut node = Node { id: id.into(), description: Some(description), ..Default::default() };
    node.status.state = NodeState::Ready;
    node
}

pub(super) fn set_image(spec: &mut ServiceSpec, image: &str) {
    edit_task_spec(spec, |task| {
        let container = ContainerSpec { image: image.into(), ..Default::default() };
        task.runtime = Some(TaskRuntime::Container(container));
    });
}

pub(super) fn edit_task_spec(spec: &mut ServiceSpec, edit: impl FnOnce(&mut TaskSpec)) {
    edit(Arc::make_mut(&mut spec.task));
}

pub(super) fn set_restart(spec: &mut ServiceSpec, edit: impl FnOnce(&mut RestartPolicy)) {
    edit_task_spec(spec, |task| {
        let default = RestartPolicy { condition: RestartCondition::Any, ..Default::default() };
        edit(task.restart.get_or_insert(default));
    });
}

pub(super) fn set_update(spec: &mut ServiceSpec, edit: impl FnOnce(&mut UpdateConfig)) {
    edit(spec.update.get_or_insert(UpdateConfig { parallelism: 1, ..Default::default() }));
}

/// Service `s`.
pub(super) fn service(mode: ServiceMode, image: &str) -> Service {
    let job = matches!(mode, ServiceMode::ReplicatedJob(_) | ServiceMode::GlobalJob(_));
    let mut spec = ServiceSpec { mode: Some(mode), ..Default::default() };
    spec.annotations.name = "s".into();
    set_image(&mut spec, image);
    let job_status = job.then(JobStatus::default);
    Service { id: "s".into(), spec, spec_version: Some(SpecVersion(0)), job_status, ..Default::default() }
}

pub(super) fn replicated(replicas: u64, image: &str) -> Service {
    service(ServiceMode::Replicated(ReplicatedService { replicas }), image)
}

pub(super) fn set_replicas(spec: &mut ServiceSpec, replicas: u64) {
    spec.mode = Some(ServiceMode::Replicated(ReplicatedService { replicas }));
}

/// No slot has two tasks that shall run.
fn assert_one_per_slot(view: &View) {
    let mut slots = BTreeSet::new();
    for task in view.tasks_by_desired_state(TaskState::Running) {
        let service = task.service_id.as_ref().and_then(|id| view.service(id));
        let is_global = service.is_some_and(|it| crate::tasks::Mode::of(it).is_global());
        let slot = (task.service_id.clone(), task.slot, task.node_id.clone().filter(|_| is_global));
        assert!(slots.insert(slot.clone()), "slot {slot:?} has two tasks that shall run");
    }
}
