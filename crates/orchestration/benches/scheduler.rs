//! Placements per second, in SwarmKit's two benchmarks (every task on its own; with the constraint, a third of the nodes
//! has the network plugin that the tasks need) and with services; and what one task costs that fails in a full swarm and is
//! replaced, by the number of nodes.
//!
//! Rates are of processor time, so that others on the machine disturb them less; one by one, of wall time.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

use model::{
    Driver, EngineDescription, Network, NetworkAttachment, Node, NodeDescription, NodeState, Placement,
    PlacementPreference, PluginDescription, ResourceRequirements, Resources, Service, SpecVersion, SpreadOver, Task,
    TaskSpec, TaskState, Timestamp,
};
use orchestration::scheduler::Scheduler;
use std::sync::Arc;
use std::time::Instant;
use store::{Action, Event, View};

/// What the tasks of a run look like.
struct Case {
    name: &'static str,
    nodes: usize,
    tasks: usize,
    /// 0: tasks without a service.
    services: usize,
    wants_network: bool,
    spec: TaskSpec,
}

/// Identifiers as they are in a swarm: `kind` and `n` only seed them.
fn id(kind: u64, n: usize) -> String {
    let mut bytes = [0; model::ID_BYTES];
    stdx::Rng::new(kind << 40 | n as u64).fill(&mut bytes);
    model::id_text(bytes)
}

fn node(n: usize) -> Node {
    let plugin = PluginDescription { kind: "Network".into(), name: "network".into() };
    let plugins = if n.is_multiple_of(3) { vec![plugin] } else { Vec::new() };
    let engine = Some(EngineDescription { plugins, ..Default::default() });
    // For tasks that reserve a processor each: half of the nodes have room for five, the others for twenty.
    let nano_cpus = if n.is_multiple_of(2) { 5_000_000_000 } else { 20_000_000_000 };
    let resources = Some(Resources { nano_cpus, ..Default::default() });
    let description = NodeDescription { engine, resources, ..Default::default() };
    let mut node = Node { id: id(1, n).into(), description: Some(description), ..Default::default() };
    node.status.state = NodeState::Ready;
    node.spec.annotations.labels = [("rack".into(), format!("r{}", n % 20))].into();
    node
}

fn task(n: usize, case: &Case, spec: &Arc<TaskSpec>, network: &Arc<Network>) -> Task {
    let mut task = Task { id: id(2, n).into(), spec: spec.clone(), ..Default::default() };
    task.desired_state = TaskState::Running;
    task.status.state = TaskState::Pending;
    if case.services > 0 {
        task.service_id = Some(id(3, n % case.services).into());
        task.spec_version = Some(SpecVersion(1));
    }
    if case.wants_network {
        task.networks = vec![NetworkAttachment { network: Some(network.clone()), ..Default::default() }];
    }
    task
}

/// Seconds for which this thread has had a processor.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts a thread's time");
    let nanos: u64 = text.split(' ').next().and_then(|it| it.parse().ok()).expect("a number of nanoseconds");
    nanos as f64 / 1e9
}

/// How many tasks fail, one after the other.
const FAILURES: usize = 1_000;

/// A swarm in which every task of the case has a node.
struct Swarm {
    view: View,
    scheduler: Scheduler,
}

const NOW: Timestamp = Timestamp { seconds: 1_000, nanos: 0 };

impl Swarm {
    /// Hands events to the scheduler until it rests; seconds that it took.
    fn plan(&mut self, mut events: Vec<Event>) -> f64 {
        let mut seconds = 0.0;
        loop {
            let start = Instant::now();
            let plan = self.scheduler.plan(&self.view, &events, NOW);
            seconds += start.elapsed().as_secs_f64();
            if plan.actions.is_empty() {
                return seconds;
            }
            events = self.view.apply(&plan.actions).expect("the plan fits its view");
        }
    }
}

/// Tasks fail one by one; what the replacement of each costs.
fn fail_one_by_one(case: &Case) {
    let mut swarm = run(case);
    let ids: Vec<_> = swarm.view.tasks().step_by(case.tasks / FAILURES).map(|task| task.id.clone()).collect();
    let mut times: Vec<f64> = Vec::with_capacity(ids.len());
    for (n, id) in ids.iter().enumerate() {
        let old = swarm.view.task(id).expect("it was just listed").clone();
        let mut failed = Task::clone(&old);
        failed.status.state = TaskState::Failed;
        failed.desired_state = TaskState::Shutdown;
        let mut new = Task { id: self::id(4, n).into(), node_id: None, ..Task::clone(&old) };
        new.status.state = TaskState::Pending;
        let actions = [Action::Update(failed.into()), Action::Create(new.into())];
        let events = swarm.view.apply(&actions).expect("the actions fit the view");
        times.push(swarm.plan(events));
    }
    assert_eq!(swarm.scheduler.waiting_count(), 0, "every task has a node again");
    times.sort_by(f64::total_cmp);
    let (tenth, median) = (times[times.len() / 10], times[times.len() / 2]);
    println!("    one by one: p10 {:.1} µs, median {:.1} µs", tenth * 1e6, median * 1e6);
}

fn run(case: &Case) -> Swarm {
    let spec = Arc::new(case.spec.clone());
    let driver_state = Some(Driver { name: "network".into(), ..Default::default() });
    let network = Arc::new(Network { id: "network".into(), driver_state, ..Default::default() });
    let mut view = View::new();
    let mut actions: Vec<Action> = (0..case.nodes).map(|n| Action::Create(node(n).into())).collect();
    actions.extend((0..case.services).map(|n| {
        Action::Create(Service { id: id(3, n).into(), spec_version: Some(SpecVersion(1)), ..Default::default() }.into())
    }));
    view.apply(&actions).expect("all objects are new");
    let mut scheduler = Scheduler::new(1);
    scheduler.rebuild(&view);
    let creates: Vec<Action> = (0..case.tasks).map(|n| Action::Create(task(n, case, &spec, &network).into())).collect();
    let mut events: Vec<Event> = view.apply(&creates).expect("all tasks are new");

    let now = NOW;
    let (start, wall) = (processor_seconds(), Instant::now());
    let plan = scheduler.plan(&view, &events, now);
    let (planned, wall) = (processor_seconds() - start, wall.elapsed().as_secs_f64());
    events = view.apply(&plan.actions).expect("the plan fits its view");
    let again = processor_seconds();
    let rest = scheduler.plan(&view, &events, now);
    let echoed = processor_seconds() - again;
    assert!(rest.actions.is_empty(), "one pass is enough");
    assert_eq!(scheduler.waiting_count(), 0, "every task has a node");
    let active = scheduler.active_tasks();
    let (least, most) = (active.values().min().copied(), active.values().max().copied());
    println!(
        "{}: {} nodes, {} tasks: {:.0}/s ({:.0} ms, {:.0} ms on the wall, + {:.0} ms for its own events), tasks on a node {:?}..{:?}",
        case.name,
        case.nodes,
        case.tasks,
        case.tasks as f64 / (planned + echoed),
        planned * 1e3,
        wall * 1e3,
        echoed * 1e3,
        least.unwrap_or(0),
        most.unwrap_or(0),
    );
    Swarm { view, scheduler }
}

fn main() {
    let plain = TaskSpec::default;
    let placed = |placement: Placement| TaskSpec { placement: Some(placement), ..Default::default() };
    let constrained = placed(Placement { constraints: vec!["node.labels.rack!=r0".into()], ..Default::default() });
    let descriptor = SpreadOver { spread_descriptor: "node.labels.rack".into() };
    let preferences = vec![PlacementPreference { spread: Some(descriptor) }];
    let spread = placed(Placement { preferences, ..Default::default() });
    let reservations = Some(Resources { nano_cpus: 1_000_000_000, ..Default::default() });
    let resources = Some(ResourceRequirements { reservations, ..Default::default() });
    let full = TaskSpec { resources, ..Default::default() };
    let case =
        |name, nodes, tasks, services, wants_network, spec| Case { name, nodes, tasks, services, wants_network, spec };
    let cases = [
        case("single tasks", 1_000, 100_000, 0, false, plain()),
        case("single tasks, a third of the nodes fits", 5_000, 100_000, 0, true, plain()),
        case("one service", 1_000, 100_000, 1, false, plain()),
        case("100 services", 5_000, 100_000, 100, false, plain()),
        case("100 services, constraint", 5_000, 100_000, 100, false, constrained.clone()),
        case("10000 services, constraint", 5_000, 100_000, 10_000, false, constrained),
        case("100 services, spread over 20 racks", 5_000, 100_000, 100, false, spread.clone()),
        case("1000 services", 100_000, 1_000_000, 1_000, false, plain()),
    ];
    // `cargo bench --bench scheduler -- <part of a name>` runs some of them.
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    cases.iter().filter(|case| case.name.contains(&wanted)).for_each(|case| drop(run(case)));
    let grow = |name, services: usize, spec: &TaskSpec| {
        [1_000, 5_000, 50_000].map(|nodes| case(name, nodes, nodes * 10, nodes / services, false, spec.clone()))
    };
    let cases = [
        grow("failures, 1000 tasks a service", 100, &plain()),
        grow("failures, 1000 tasks a service, spread over 20 racks", 100, &spread),
        grow("failures, one service", 1_000_000, &plain()).map(|case| Case { services: 1, ..case }),
        grow("failures, half of the nodes are full", 100, &full),
    ];
    cases.iter().flatten().filter(|case| case.name.contains(&wanted)).for_each(fail_one_by_one);
}
