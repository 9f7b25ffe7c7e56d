//! Placements per second, in SwarmKit's two benchmarks (every task on its own; with the constraint, a third of the nodes
//! has the network plugin that the tasks need) and with services.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

use model::{
    Driver, EngineDescription, Network, NetworkAttachment, Node, NodeDescription, NodeState, Placement,
    PlacementPreference, PluginDescription, Service, SpecVersion, SpreadOver, Task, TaskSpec, TaskState, Timestamp,
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
    let description = NodeDescription { engine, ..Default::default() };
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

fn run(case: &Case) {
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

    let now = Timestamp { seconds: 1_000, nanos: 0 };
    let start = Instant::now();
    let plan = scheduler.plan(&view, &events, now);
    let planned = start.elapsed().as_secs_f64();
    events = view.apply(&plan.actions).expect("the plan fits its view");
    let again = Instant::now();
    let rest = scheduler.plan(&view, &events, now);
    let echoed = again.elapsed().as_secs_f64();
    assert!(rest.actions.is_empty(), "one pass is enough");
    assert_eq!(scheduler.waiting_count(), 0, "every task has a node");
    let active = scheduler.active_tasks();
    let (least, most) = (active.values().min().copied(), active.values().max().copied());
    println!(
        "{}: {} nodes, {} tasks: {:.0}/s ({:.0} ms + {:.0} ms for its own events), tasks on a node {:?}..{:?}",
        case.name,
        case.nodes,
        case.tasks,
        case.tasks as f64 / (planned + echoed),
        planned * 1e3,
        echoed * 1e3,
        least.unwrap_or(0),
        most.unwrap_or(0),
    );
}

fn main() {
    let plain = TaskSpec::default;
    let placed = |placement: Placement| TaskSpec { placement: Some(placement), ..Default::default() };
    let constrained = placed(Placement { constraints: vec!["node.labels.rack!=r0".into()], ..Default::default() });
    let descriptor = SpreadOver { spread_descriptor: "node.labels.rack".into() };
    let preferences = vec![PlacementPreference { spread: Some(descriptor) }];
    let spread = placed(Placement { preferences, ..Default::default() });
    let case =
        |name, nodes, tasks, services, wants_network, spec| Case { name, nodes, tasks, services, wants_network, spec };
    let cases = [
        case("single tasks", 1_000, 100_000, 0, false, plain()),
        case("single tasks, a third of the nodes fits", 5_000, 100_000, 0, true, plain()),
        case("one service", 1_000, 100_000, 1, false, plain()),
        case("100 services", 5_000, 100_000, 100, false, plain()),
        case("100 services, constraint", 5_000, 100_000, 100, false, constrained.clone()),
        case("10000 services, constraint", 5_000, 100_000, 10_000, false, constrained),
        case("100 services, spread over 20 racks", 5_000, 100_000, 100, false, spread),
        case("1000 services", 100_000, 1_000_000, 1_000, false, plain()),
    ];
    // `cargo bench --bench scheduler -- <part of a name>` runs some of them.
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    cases.iter().filter(|case| case.name.contains(&wanted)).for_each(run);
}
