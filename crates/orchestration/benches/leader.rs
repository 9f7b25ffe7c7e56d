//! How long a step of the leader takes: creating a service of 10 000 tasks, taking in what their agents say, replacing
//! a failed one among them, a forced update of all, scaling down, and a new leader's first step.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

use model::{
    Cluster, Node, NodeDescription, NodeState, ObjectVersion, ReplicatedService, Service, ServiceMode, SpecVersion,
    Task, TaskState, Timestamp, UpdateConfig,
};
use orchestration::leader::Leader;
use std::sync::Arc;
use std::time::Instant;
use store::{Action, Event, View, stamp};

const TASKS: u64 = 10_000;
const NODES: usize = 100;

struct Bench {
    view: View,
    leader: Leader,
    events: Vec<Event>,
    now: Timestamp,
}

impl Bench {
    fn write(&mut self, mut actions: Vec<Action>) {
        stamp(&mut actions, ObjectVersion(1), self.now);
        self.events.extend(self.view.apply(&actions).expect("the actions fit the view"));
    }

    /// Steps until the leader rests, and says how long the first step took and all together.
    fn step(&mut self, what: &str) {
        let start = Instant::now();
        let (mut first, mut actions, mut batches) = (None, 0, 0);
        loop {
            let events = std::mem::take(&mut self.events);
            let plan = self.leader.step(&self.view, &events, self.now);
            first.get_or_insert(start.elapsed());
            batches += plan.batches.len();
            for batch in plan.batches {
                actions += batch.len();
                self.write(batch);
            }
            if self.events.is_empty() {
                break;
            }
        }
        let (first, all) = (first.unwrap_or_default().as_secs_f64() * 1e3, start.elapsed().as_secs_f64() * 1e3);
        println!("{what}: {first:.1} ms, with echoes {all:.1} ms; {actions} actions in {batches} batches");
    }

    fn move_tasks(&mut self, to: TaskState, limit: usize) {
        let tasks = self.view.tasks().filter(|task| task.desired_state == TaskState::Running).take(limit);
        let moved = tasks.map(|task| {
            let mut moved: Task = (**task).clone();
            moved.status.state = to;
            Action::Update(moved.into())
        });
        let moved = moved.collect();
        self.write(moved);
    }

    fn update(&mut self, edit: impl FnOnce(&mut Service)) {
        let mut service = (**self.view.services().next().expect("there is one")).clone();
        service.update_status = None;
        service.spec_version = service.spec_version.map(|version| SpecVersion(version.0 + 1));
        edit(&mut service);
        self.write(vec![Action::Update(service.into())]);
    }
}

fn node(n: usize) -> Node {
    let mut node =
        Node { id: format!("n{n:04}").into(), description: Some(NodeDescription::default()), ..Default::default() };
    node.status.state = NodeState::Ready;
    node
}

fn main() {
    let now = Timestamp { seconds: 1_000, nanos: 0 };
    let mut bench = Bench { view: View::new(), leader: Leader::new(1), events: Vec::new(), now };
    let mut cluster = Cluster { id: "c".into(), ..Default::default() };
    cluster.spec.orchestration.task_history_retention_limit = 5;
    bench.write(vec![Action::Create(cluster.into())]);
    bench.write((0..NODES).map(|n| Action::Create(node(n).into())).collect());
    bench.step("100 nodes");

    let mut service = Service { id: "s".into(), spec_version: Some(SpecVersion(0)), ..Default::default() };
    service.spec.annotations.name = "s".into();
    service.spec.mode = Some(ServiceMode::Replicated(ReplicatedService { replicas: TASKS }));
    service.spec.update = Some(UpdateConfig { parallelism: 10, ..Default::default() });
    bench.write(vec![Action::Create(service.into())]);
    bench.step("a service of 10000 tasks");
    bench.move_tasks(TaskState::Starting, usize::MAX);
    bench.step("10000 statuses STARTING");
    bench.move_tasks(TaskState::Running, usize::MAX);
    bench.step("10000 statuses RUNNING");
    bench.move_tasks(TaskState::Failed, 1);
    bench.step("one failed task");
    bench.move_tasks(TaskState::Failed, 1_000);
    bench.step("1000 failed tasks");
    bench.update(|service| Arc::make_mut(&mut service.spec.task).force_update += 1);
    bench.step("forced update, first slots");
    bench.move_tasks(TaskState::Running, 1);
    bench.step("one status during the update");

    let start = Instant::now();
    bench.leader = Leader::new(2);
    bench.leader.rebuild(&bench.view);
    println!("rebuild: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    bench.step("a new leader's first step");
    bench.update(|service| {
        service.spec.mode = Some(ServiceMode::Replicated(ReplicatedService { replicas: TASKS / 2 }));
    });
    bench.step("half of them");
    let service = bench.view.services().next().expect("there is one").clone();
    bench.write(vec![Action::Remove((*service).clone().into())]);
    bench.step("the service is removed");
}
