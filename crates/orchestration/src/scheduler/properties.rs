//! The scheduler against a scan of all nodes, on random swarms. A failure names its seed.

use super::filters::is_ready;
use super::tests::{Bench, node, task};
use super::*;
use model::*;
use stdx::Rng;

const SEEDS: u64 = 40;
const ZONES: [&str; 3] = ["a", "b", "c"];

/// What a service asks for; the same at each seed.
fn specs(rng: &mut Rng) -> Vec<TaskSpec> {
    let spread = |label: &str| {
        let spread = Some(SpreadOver { spread_descriptor: format!("node.labels.{label}") });
        PlacementPreference { spread }
    };
    (0..4)
        .map(|n| {
            let mut placement = Placement::default();
            if rng.below(3) == 0 {
                placement.constraints.push("node.labels.zone!=a".into());
            }
            if n % 2 == 1 {
                placement.preferences = vec![spread("zone"), spread("rack")];
                placement.preferences.truncate(1 + rng.below(2) as usize);
            }
            if rng.below(3) == 0 {
                placement.max_replicas = 1 + rng.below(3);
            }
            let nano_cpus = rng.below(3) as i64 * 700_000_000;
            let reservations = Some(Resources { nano_cpus, ..Default::default() });
            let resources = Some(ResourceRequirements { reservations, ..Default::default() });
            TaskSpec { placement: Some(placement), resources, ..Default::default() }
        })
        .collect()
}

fn random_node(rng: &mut Rng, n: u64) -> Node {
    let mut node = node(&format!("n{n}"));
    let rack = format!("r{}", rng.below(2));
    let zone = ZONES[rng.below(3) as usize].to_owned();
    node.spec.annotations.labels = [("zone".to_owned(), zone), ("rack".to_owned(), rack)].into();
    node.description.as_mut().unwrap().resources.as_mut().unwrap().nano_cpus =
        1_000_000_000 * (1 + rng.below(4) as i64);
    node.spec.availability = if rng.below(5) == 0 { NodeAvailability::Pause } else { NodeAvailability::Active };
    node
}

fn on_node<'a>(view: &'a View, node: &Node) -> impl Iterator<Item = &'a Arc<Task>> + use<'a> {
    view.tasks_of_node(&node.id).filter(|task| nodes::is_on_node(task))
}

fn count(view: &View, service: &ServiceId, node: &Node) -> usize {
    on_node(view, node)
        .filter(|task| task.service_id.as_ref() == Some(service) && task.desired_state <= TaskState::Complete)
        .count()
}

fn fits(view: &View, service: &ServiceId, spec: &TaskSpec, node: &Node) -> bool {
    let placement = spec.placement.clone().unwrap();
    let reserved =
        |spec: &TaskSpec| spec.resources.as_ref().map_or(0, |it| it.reservations.as_ref().unwrap().nano_cpus);
    let taken: i64 = on_node(view, node).map(|task| reserved(&task.spec)).sum();
    let has = node.description.as_ref().unwrap().resources.as_ref().unwrap().nano_cpus;
    let constraints = constraint::parse(&placement.constraints).unwrap();
    is_ready(node)
        && constraint::node_matches(&constraints, node)
        && (reserved(spec) == 0 || taken + reserved(spec) <= has)
        && (placement.max_replicas == 0 || (count(view, service, node) as u64) < placement.max_replicas)
}

/// The values of the first `depth` preferences' labels.
fn path(spec: &TaskSpec, node: &Node, depth: usize) -> Vec<String> {
    let preferences = spec.placement.as_ref().unwrap().preferences.iter().take(depth);
    let labels = preferences.map(|it| it.spread.as_ref().unwrap().spread_descriptor.replace("node.labels.", ""));
    labels.map(|label| constraint::node_label(node, &label).to_owned()).collect()
}

/// The nodes that the rules allow for one more task, by a scan of all. Of equal branches and nodes each is right.
fn best(view: &View, service: &ServiceId, spec: &TaskSpec) -> Vec<NodeId> {
    let mut nodes: Vec<&Arc<Node>> = view.nodes().collect();
    let depth = spec.placement.as_ref().unwrap().preferences.len();
    for level in 1..=depth {
        let mut branches: BTreeMap<Vec<String>, (usize, bool)> = BTreeMap::new();
        for node in &nodes {
            let branch = branches.entry(path(spec, node, level)).or_default();
            branch.0 += count(view, service, node);
            branch.1 |= fits(view, service, spec, node);
        }
        nodes.retain(|node| {
            let (parent, own) = (path(spec, node, level - 1), &branches[&path(spec, node, level)]);
            let siblings = branches.iter().filter(|(path, branch)| path[..level - 1] == parent && branch.1);
            own.1 && siblings.map(|(_, branch)| branch.0).min() == Some(own.0)
        });
    }
    let key = |node: &Arc<Node>| {
        let active = on_node(view, node).filter(|task| task.desired_state <= TaskState::Complete).count();
        (count(view, service, node), active)
    };
    let mut leaves: BTreeMap<Vec<String>, Vec<&Arc<Node>>> = BTreeMap::new();
    for node in nodes.into_iter().filter(|node| fits(view, service, spec, node)) {
        leaves.entry(path(spec, node, depth)).or_default().push(node);
    }
    let least = |nodes: Vec<&Arc<Node>>| {
        let least = nodes.iter().map(|node| key(node)).min();
        nodes.into_iter().filter(move |node| Some(key(node)) == least).map(|node| node.id.clone()).collect::<Vec<_>>()
    };
    leaves.into_values().flat_map(least).collect()
}

#[test]
fn each_task_goes_where_a_scan_of_all_nodes_would_put_it() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let mut bench = Bench::new();
        let specs = specs(&mut rng);
        for n in 0..4 {
            bench.put(Service { id: format!("s{n}").as_str().into(), ..Default::default() });
        }
        (0..6).for_each(|n| bench.put(random_node(&mut rng, n)));
        bench.run();
        for step in 0..150 {
            match rng.below(8) {
                0 => bench.put(random_node(&mut rng, step % 9)),
                1 if bench.view.nodes().count() > 3 => {
                    let n = rng.below(bench.view.nodes().count() as u64) as usize;
                    let gone = bench.view.nodes().nth(n).unwrap().clone();
                    bench.remove((*gone).clone());
                }
                2 | 3 => {
                    let placed: Vec<_> = bench.view.tasks().filter(|task| nodes::is_on_node(task)).cloned().collect();
                    if let Some(task) = placed.get(rng.below(placed.len() as u64 + 1) as usize) {
                        bench.edit_task(task.id.as_str(), |task| {
                            task.desired_state = TaskState::Shutdown;
                            task.status.state = TaskState::Complete;
                        });
                    }
                }
                _ => {}
            }
            bench.run();
            let n = rng.below(4) as usize;
            let service: ServiceId = format!("s{n}").as_str().into();
            let expected = best(&bench.view, &service, &specs[n]);
            let id = format!("t{step:03}");
            bench.put(Task { spec: Arc::new(specs[n].clone()), ..task(&id, service.as_str()) });
            bench.run();
            match bench.task(&id).node_id.clone() {
                Some(node) => assert!(expected.contains(&node), "seed {seed} step {step}: {node} of {expected:?}"),
                None => {
                    assert!(expected.is_empty(), "seed {seed} step {step}: none of {expected:?}");
                    let waiting = bench.task(&id).clone();
                    bench.remove(waiting);
                }
            }
        }
    }
}
