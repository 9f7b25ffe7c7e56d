//! How long 100 000 task commits, status updates and list walks take.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

use model::{Service, Task, TaskSpec, TaskState};
use std::sync::Arc;
use std::time::Instant;
use store::{Action, Store, StoreSnapshot};

const TASKS: usize = 100_000;
const SERVICES: usize = 100;
const NODES: usize = 1_000;

fn task(n: usize, spec: &Arc<TaskSpec>) -> Task {
    Task {
        id: format!("{n:025}").into(),
        service_id: Some(format!("service{:018}", n % SERVICES).into()),
        slot: n as u64,
        node_id: Some(format!("node{:021}", n % NODES).into()),
        desired_state: TaskState::Running,
        spec: spec.clone(),
        ..Default::default()
    }
}

fn report(what: &str, count: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {count} in {:.1} ms, {:.0}/s", seconds * 1e3, count as f64 / seconds);
}

fn main() {
    let spec = Arc::new(TaskSpec::default());
    let mut store = Store::new();
    for n in 0..SERVICES {
        let service = Service { id: format!("service{n:018}").into(), ..Default::default() };
        store.commit(&[Action::Create(service.into())]).expect("the service is new");
    }
    let tasks: Vec<_> = (0..TASKS).map(|n| Action::Create(task(n, &spec).into())).collect();
    let start = Instant::now();
    for action in &tasks {
        store.commit(std::slice::from_ref(action)).expect("the task is new");
    }
    report("create commits, one task each", TASKS, start);

    let updates: Vec<_> = (0..TASKS)
        .map(|n| {
            let mut task = task(n, &spec);
            task.status.state = TaskState::Running;
            Action::Update(task.into())
        })
        .collect();
    let mut held = None;
    let start = Instant::now();
    for action in &updates {
        held = Some(store.view().clone());
        store.commit(std::slice::from_ref(action)).expect("the task is there");
    }
    report("status commits with a reader's view held", TASKS, start);
    drop(held);

    let view = store.view().clone();
    let start = Instant::now();
    let running = view.tasks().filter(|task| task.status.state == TaskState::Running).count();
    report("list", running, start);
    let start = Instant::now();
    let of_services: usize = view.services().map(|service| view.tasks_of_service(&service.id).count()).sum();
    report("list by service", of_services, start);
    let start = Instant::now();
    let snapshot: StoreSnapshot = store.snapshot();
    report("snapshot", snapshot.tasks.len(), start);
}
