//! Rebalancing in random swarms. A failure names its seed.

use super::sim::*;
use crate::moves::{REASON_LABEL, REPLACES_LABEL};
use crate::rebalance::{DELAY_LABEL, PARALLELISM_LABEL, SWITCH_LABEL};
use crate::scheduler::constraint;
use model::*;
use std::collections::BTreeMap;
use stdx::Rng;

const SEEDS: u64 = 60;

/// What a run may not exceed.
struct Bounds {
    replicas: usize,
    parallelism: usize,
    max_replicas: u64,
}

fn random_node(rng: &mut Rng, id: &str) -> Node {
    let mut node = node(id);
    let labels = [("zone", ["a", "b", "c"][rng.below(3) as usize]), ("disk", ["ssd", "hdd"][rng.below(2) as usize])];
    node.spec.annotations.labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    node.description.as_mut().unwrap().resources.as_mut().unwrap().nano_cpus =
        2_000_000_000 + rng.below(9) as i64 * 1_000_000_000;
    node
}

fn random_service(rng: &mut Rng) -> (Service, Bounds) {
    let bounds = Bounds {
        replicas: 1 + rng.below(12) as usize,
        parallelism: 1 + rng.below(3) as usize,
        max_replicas: if rng.below(3) == 0 { 4 + rng.below(3) } else { 0 },
    };
    let mut service = replicated(bounds.replicas as u64, "ok");
    let labels = [
        (SWITCH_LABEL, "auto".to_owned()),
        (PARALLELISM_LABEL, bounds.parallelism.to_string()),
        (DELAY_LABEL, format!("{}s", rng.below(3))),
    ];
    service.spec.annotations.labels = labels.map(|(name, value)| (name.to_owned(), value)).into();
    edit_task_spec(&mut service.spec, |task| {
        let mut placement = Placement { max_replicas: bounds.max_replicas, ..Default::default() };
        if rng.below(2) == 0 {
            placement.constraints.push("node.labels.disk==ssd".into());
        }
        if rng.below(2) == 0 {
            let spread = Some(SpreadOver { spread_descriptor: "node.labels.zone".into() });
            placement.preferences.push(PlacementPreference { spread });
        }
        task.placement = Some(placement);
        let nano_cpus = rng.below(3) as i64 * 500_000_000;
        let reservations = Some(Resources { nano_cpus, ..Default::default() });
        task.resources = Some(ResourceRequirements { reservations, ..Default::default() });
    });
    (service, bounds)
}

/// Tasks of the service that shall run and of its scheduler's view of a node: constraints, resources, maximum.
fn assert_lawful(sim: &Sim, bounds: &Bounds, seed: u64) {
    let service = sim.service("s");
    let placement = service.spec.task.placement.clone().unwrap();
    let constraints = constraint::parse(&placement.constraints).unwrap();
    for node in sim.view.nodes() {
        let tasks: Vec<_> = sim.view.tasks_of_node(&node.id).collect();
        let wanted = tasks.iter().filter(|task| task.desired_state <= TaskState::Running).count() as u64;
        assert!(wanted == 0 || constraint::node_matches(&constraints, node), "seed {seed}\n{}", sim.show());
        assert!(bounds.max_replicas == 0 || wanted <= bounds.max_replicas, "seed {seed}\n{}", sim.show());
        let reserved = |task: &Task| task.spec.resources.clone().unwrap().reservations.unwrap().nano_cpus;
        let on_node =
            tasks.iter().filter(|task| (TaskState::Assigned..=TaskState::Running).contains(&task.status.state));
        let has = node.description.as_ref().unwrap().resources.as_ref().unwrap().nano_cpus;
        assert!(on_node.map(|task| reserved(task)).sum::<i64>() <= has, "seed {seed}\n{}", sim.show());
    }
    let alive = sim.tasks(|task| (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)).len();
    assert!(alive <= bounds.replicas + bounds.parallelism, "seed {seed}: {alive}\n{}", sim.show());
}

fn made_by_moves(sim: &Sim) -> usize {
    let creates = sim.written.iter().flatten().filter_map(|action| match action {
        store::Action::Create(store::Object::Task(task)) => Some(task),
        _ => None,
    });
    creates.filter(|task| task.annotations.labels.contains_key(REPLACES_LABEL)).count()
}

/// Time passes with everything watched at each step.
fn watch(sim: &mut Sim, bounds: &Bounds, seed: u64, steps: u64, fewest: usize) {
    for _ in 0..steps {
        sim.settle();
        assert_lawful(sim, bounds, seed);
        assert!(sim.running().len() >= fewest, "seed {seed}: fewer than before\n{}", sim.show());
        sim.agents();
        sim.now = sim.now.plus(TICK);
    }
    sim.run(600);
}

/// Running tasks by place at one level: label values or nodes of one value; only places where tasks may be.
fn places(sim: &Sim, key: impl Fn(&Node) -> Option<String>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for node in sim.view.nodes() {
        let Some(key) = key(node) else { continue };
        let on = sim.view.tasks_of_node(&node.id).filter(|task| task.desired_state <= TaskState::Running).count();
        *found.entry(key).or_default() += on;
    }
    found
}

fn zone(node: &Node) -> String {
    node.spec.annotations.labels["zone"].clone()
}

/// No two places differ by more than one, unless one of the low ones has no room.
fn assert_even(sim: &Sim, found: &BTreeMap<String, usize>, has_room: impl Fn(&str) -> bool, seed: u64) {
    let most = found.values().max().copied().unwrap_or(0);
    for (place, count) in found {
        assert!(count + 1 >= most || !has_room(place), "seed {seed}: {place} of {found:?}\n{}", sim.show());
    }
}

fn assert_spread(sim: &Sim, bounds: &Bounds, seed: u64) {
    let service = sim.service("s");
    let placement = service.spec.task.placement.clone().unwrap();
    let constraints = constraint::parse(&placement.constraints).unwrap();
    let may = |node: &Node| constraint::node_matches(&constraints, node);
    let reserved = service.spec.task.resources.clone().unwrap().reservations.unwrap().nano_cpus;
    let takes_more = |node: &Node| {
        let on = sim.view.tasks_of_node(&node.id).filter(|task| task.desired_state <= TaskState::Running).count();
        let has = node.description.as_ref().unwrap().resources.as_ref().unwrap().nano_cpus;
        let fits = reserved == 0 || (on as i64 + 1) * reserved <= has;
        may(node) && fits && (bounds.max_replicas == 0 || (on as u64) < bounds.max_replicas)
    };
    let with_room = |key: &dyn Fn(&Node) -> String, place: &str| {
        sim.view.nodes().any(|node| key(node) == place && takes_more(node))
    };
    let id = |node: &Node| node.id.to_string();
    if placement.preferences.is_empty() {
        let found = places(sim, |node| may(node).then(|| id(node)));
        assert_even(sim, &found, |place| with_room(&id, place), seed);
        return;
    }
    let found = places(sim, |node| may(node).then(|| zone(node)));
    assert_even(sim, &found, |place| with_room(&zone, place), seed);
    for name in found.keys() {
        let found = places(sim, |node| (may(node) && zone(node) == *name).then(|| id(node)));
        assert_even(sim, &found, |place| with_room(&id, place), seed);
    }
}

#[test]
fn joins_end_in_an_even_spread_within_as_many_moves_as_it_takes() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let mut sim = Sim::new(0);
        sim.starts_first = true;
        for n in 0..2 + rng.below(3) {
            sim.put(random_node(&mut rng, &format!("n{n}")));
        }
        let (service, bounds) = random_service(&mut rng);
        let has_preferences = !service.spec.task.placement.as_ref().unwrap().preferences.is_empty();
        sim.put(service);
        sim.run(120);
        let before = sim.running().len();
        assert_eq!(made_by_moves(&sim), 0, "seed {seed}: the scheduler's own spread is even");
        if before < bounds.replicas {
            // Some wait for room: that is another story.
            continue;
        }
        for n in 0..1 + rng.below(3) {
            sim.put(random_node(&mut rng, &format!("m{n}")));
            let moved = made_by_moves(&sim);
            let counts = places(&sim, |node| Some(node.id.to_string()));
            watch(&mut sim, &bounds, seed, 30, before);
            let most = if has_preferences { bounds.replicas * 2 } else { counts.values().map(|n| n / 2).sum() };
            assert!(made_by_moves(&sim) - moved <= most, "seed {seed}\n{}", sim.show());
        }
        assert_spread(&sim, &bounds, seed);
        let total = made_by_moves(&sim);
        sim.run(3_600);
        assert_eq!(made_by_moves(&sim), total, "seed {seed}: it does not swing");
        sim.new_leader(seed);
        assert!(!sim.step(), "seed {seed}: a new leader is content too");
    }
}

#[test]
fn with_failing_agents_new_leaders_and_nodes_that_come_and_go_no_task_is_lost() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let mut sim = Sim::new(0);
        sim.starts_first = true;
        (0..4).for_each(|n| sim.put(random_node(&mut rng, &format!("n{n}"))));
        let (mut service, bounds) = random_service(&mut rng);
        edit_task_spec(&mut service.spec, |task| {
            task.resources.as_mut().unwrap().reservations = Some(Resources::default())
        });
        sim.put(service);
        sim.run(60);
        let runs_all = sim.running().len() == bounds.replicas;
        for _ in 0..40 {
            let id = format!("n{}", rng.below(4));
            match rng.below(6) {
                0 => sim.set_state(&id, NodeState::Down),
                1 => sim.set_state(&id, NodeState::Ready),
                2 => sim.new_leader(rng.next_u64()),
                3 => {
                    let new = sim.tasks(|task| task.annotations.labels.contains_key(REPLACES_LABEL) && !is_up(task));
                    if let Some(new) = new.iter().find(|task| task.status.state < TaskState::Running) {
                        sim.edit_task(&new.id, |task| task.status.state = TaskState::Failed);
                    }
                }
                4 => sim.edit_node(&id, |node| node.spec.availability = NodeAvailability::Pause),
                _ => sim.edit_node(&id, |node| node.spec.availability = NodeAvailability::Active),
            }
            for _ in 0..rng.below(30) {
                sim.settle();
                sim.agents();
                sim.now = sim.now.plus(TICK);
            }
        }
        for n in 0..4 {
            sim.edit_node(&format!("n{n}"), |node| {
                node.status.state = NodeState::Ready;
                node.spec.availability = NodeAvailability::Active;
            });
        }
        sim.run(3 * 3_600);
        if runs_all {
            assert_eq!(sim.running().len(), bounds.replicas, "seed {seed}\n{}", sim.show());
            assert_lawful(&sim, &bounds, seed);
            assert_spread(&sim, &bounds, seed);
        }
        let shut_down = sim.tasks(|task| task.annotations.labels.contains_key(REASON_LABEL));
        assert!(shut_down.iter().all(|task| !task.status.err.is_empty()), "seed {seed}: each says why");
        assert_eq!(sim.update_status().0, UpdateState::Unknown, "seed {seed}");
    }
}
