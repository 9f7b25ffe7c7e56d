//! Properties of the whole under random faults. A failure names its seed.

use super::sim::*;
use model::*;
use std::collections::{BTreeMap, BTreeSet};
use stdx::Rng;

const SEEDS: u64 = 60;
const IMAGES: [&str; 6] = ["ok", "ok", "crash", "flaky", "done", "reject"];

fn pick<'a>(rng: &mut Rng, items: &[&'a str]) -> &'a str {
    items[rng.below(items.len() as u64) as usize]
}

fn random_spec(rng: &mut Rng, spec: &mut ServiceSpec, starts_first: bool) {
    set_image(spec, pick(rng, &IMAGES));
    let update = UpdateConfig {
        parallelism: rng.below(3),
        delay: Duration::from_secs(rng.below(3) as i64),
        failure_action: [FailureAction::Pause, FailureAction::Continue, FailureAction::Rollback][rng.below(3) as usize],
        monitor: Some(Duration::from_secs(rng.below(6) as i64)),
        max_failure_ratio: rng.below(3) as f32 / 2.0,
        order: [UpdateOrder::StopFirst, UpdateOrder::StartFirst][rng.below(1 + u64::from(starts_first)) as usize],
    };
    spec.update = Some(update.clone());
    spec.rollback = Some(update);
    if let Some(ServiceMode::Replicated(_)) = spec.mode {
        set_replicas(spec, rng.below(6));
    }
    let conditions = [RestartCondition::Any, RestartCondition::OnFailure, RestartCondition::None];
    let condition = conditions[rng.below(3) as usize];
    let max_attempts = rng.below(3);
    set_restart(spec, |policy| {
        policy.condition = condition;
        policy.max_attempts = max_attempts;
        policy.delay = Some(Duration::from_secs(1));
    });
}

/// One random thing that happens to the swarm.
fn disturb(sim: &mut Sim, rng: &mut Rng) {
    let node = pick(rng, &["n1", "n2", "n3", "n4"]);
    match rng.below(10) {
        0 => {
            sim.silent.insert(node.into());
            sim.set_state(node, NodeState::Down);
        }
        1 => {
            sim.silent.remove(node);
            sim.set_state(node, NodeState::Ready);
        }
        2 => {
            let all = [NodeAvailability::Active, NodeAvailability::Pause, NodeAvailability::Drain];
            let availability = all[rng.below(3) as usize];
            sim.edit_node(node, |node| node.spec.availability = availability);
        }
        3 => {
            sim.new_leader(rng.next_u64());
            // It may be told of changes that its view has already.
            let told = rng.below(sim.history.len() as u64 + 1) as usize;
            sim.events = sim.history[told..].to_vec();
        }
        4 | 5 => {
            let mut next = rng.clone();
            let starts_first = sim.starts_first;
            sim.update_service("s", |spec| random_spec(&mut next, spec, starts_first));
            *rng = next;
        }
        6 => {
            if let Some(task) = sim.tasks(|_| true).first().cloned() {
                sim.remove((*task).clone());
            }
        }
        7 => {
            if let Some(task) = sim.running().last().cloned() {
                sim.edit_task(&task.id, |task| task.status.state = TaskState::Failed);
            }
        }
        _ => sim.run(rng.below(10) as i64),
    }
}

/// Everything works again, and the service is asked for something that works.
fn heal(sim: &mut Sim, mode: ServiceMode) {
    for n in 1..=4 {
        let id = format!("n{n}");
        sim.silent.remove(&id);
        sim.edit_node(&id, |node| {
            node.status.state = NodeState::Ready;
            node.spec.availability = NodeAvailability::Active;
        });
    }
    sim.update_service("s", |spec| {
        let task = TaskSpec { force_update: spec.task.force_update + 1, ..Default::default() };
        *spec = ServiceSpec { annotations: spec.annotations.clone(), mode: Some(mode), ..Default::default() };
        spec.task = std::sync::Arc::new(task);
        set_image(spec, "ok");
    });
    sim.run(900);
}

fn disturbed(seed: u64, mode: ServiceMode) -> (Sim, Rng) {
    let mut rng = Rng::new(seed);
    let mut sim = Sim::new(4);
    let mut service = service(mode, "ok");
    sim.starts_first = seed % 2 == 1;
    random_spec(&mut rng, &mut service.spec, sim.starts_first);
    sim.put(service);
    for _ in 0..30 {
        disturb(&mut sim, &mut rng);
        if rng.below(2) == 0 {
            sim.settle();
        }
        for _ in 0..rng.below(4) {
            sim.agents();
        }
    }
    (sim, rng)
}

fn assert_at_rest(sim: &mut Sim, seed: u64) {
    let version = sim.service("s").spec_version;
    for task in sim.tasks(|task| task.status.state <= TaskState::Running) {
        assert_eq!(task.desired_state, TaskState::Running, "seed {seed}\n{}", sim.show());
        assert_eq!(task.spec_version, version, "seed {seed}\n{}", sim.show());
    }
    let mut slots: BTreeMap<(u64, Option<NodeId>), usize> = BTreeMap::new();
    for task in sim.tasks(|_| true) {
        *slots.entry((task.slot, task.node_id.clone().filter(|_| task.slot == 0))).or_default() += 1;
    }
    assert!(slots.values().all(|count| *count <= 5), "seed {seed}: history\n{}", sim.show());
    let state = sim.update_status().0;
    assert!(matches!(state, UpdateState::Completed | UpdateState::Unknown), "seed {seed}: {state:?}");
    sim.run(3_600);
    assert!(!sim.step(), "seed {seed}: nothing changes any more");
    sim.new_leader(seed);
    assert!(!sim.step(), "seed {seed}: a new leader sees it alike");
}

#[test]
fn after_faults_a_replicated_service_comes_to_its_replicas() {
    for seed in 0..SEEDS {
        let (mut sim, mut rng) = disturbed(seed, ServiceMode::Replicated(ReplicatedService { replicas: 3 }));
        let replicas = rng.below(8);
        heal(&mut sim, ServiceMode::Replicated(ReplicatedService { replicas }));
        let slots: BTreeSet<u64> = sim.running().iter().map(|task| task.slot).collect();
        assert_eq!(slots.len() as u64, replicas, "seed {seed}\n{}", sim.show());
        assert_eq!(sim.running().len() as u64, replicas, "seed {seed}\n{}", sim.show());
        assert_at_rest(&mut sim, seed);
    }
}

#[test]
fn after_faults_a_global_service_runs_once_on_every_node() {
    for seed in 0..SEEDS {
        let (mut sim, _) = disturbed(seed, ServiceMode::Global(GlobalService));
        heal(&mut sim, ServiceMode::Global(GlobalService));
        let running = sim.running();
        let nodes: BTreeSet<_> = running.iter().map(|task| task.node_id.clone()).collect();
        assert_eq!((running.len(), nodes.len()), (4, 4), "seed {seed}\n{}", sim.show());
        assert_at_rest(&mut sim, seed);
    }
}

#[test]
fn after_faults_a_deleted_service_leaves_nothing() {
    for seed in 0..SEEDS / 3 {
        let (mut sim, _) = disturbed(seed, ServiceMode::Replicated(ReplicatedService { replicas: 3 }));
        let service = sim.service("s");
        sim.remove((*service).clone());
        for n in 1..=4 {
            sim.silent.remove(&format!("n{n}"));
            sim.set_state(&format!("n{n}"), NodeState::Ready);
        }
        sim.run(300);
        assert_eq!(sim.tasks(|_| true).len(), 0, "seed {seed}\n{}", sim.show());
    }
}

#[test]
fn after_faults_a_job_is_done() {
    for seed in 0..SEEDS {
        let job = || ServiceMode::ReplicatedJob(ReplicatedJob { max_concurrent: 2, total_completions: 5 });
        let (mut sim, _) = disturbed(seed, job());
        heal(&mut sim, job());
        sim.update_service("s", |spec| set_image(spec, "done"));
        sim.run(600);
        let iteration = sim.service("s").job_status.as_ref().unwrap().job_iteration;
        let done = sim.tasks(|task| task.status.state == TaskState::Complete && task.job_iteration == Some(iteration));
        let slots: Vec<u64> = done.iter().map(|task| task.slot).collect();
        assert_eq!(slots, [0, 1, 2, 3, 4], "seed {seed}\n{}", sim.show());
    }
}

#[test]
fn after_faults_a_global_job_is_done_on_every_node() {
    for seed in 0..SEEDS {
        let (mut sim, _) = disturbed(seed, ServiceMode::GlobalJob(GlobalJob));
        heal(&mut sim, ServiceMode::GlobalJob(GlobalJob));
        sim.update_service("s", |spec| set_image(spec, "done"));
        sim.run(600);
        let done = sim.tasks(|task| task.status.state == TaskState::Complete);
        let nodes: BTreeSet<_> = done.iter().map(|task| task.node_id.clone()).collect();
        assert_eq!((done.len(), nodes.len()), (4, 4), "seed {seed}\n{}", sim.show());
    }
}

#[test]
fn a_stop_first_update_without_faults_stops_no_more_than_its_parallelism() {
    for seed in 0..SEEDS / 3 {
        let mut rng = Rng::new(seed);
        let (replicas, parallelism) = (1 + rng.below(8), 1 + rng.below(3));
        let mut sim = Sim::new(3);
        let mut service = replicated(replicas, "ok");
        set_update(&mut service.spec, |config| config.parallelism = parallelism);
        sim.put(service);
        sim.run(10);
        sim.update_service("s", |spec| set_image(spec, "fine"));
        for _ in 0..200 {
            sim.settle();
            sim.agents();
            sim.now = sim.now.plus(TICK);
            if rng.below(10) == 0 {
                sim.new_leader(rng.next_u64());
            }
            let up = sim.tasks(|task| is_up(task) && task.desired_state == TaskState::Running).len() as u64;
            assert!(up + parallelism >= replicas, "seed {seed}: {up} of {replicas}\n{}", sim.show());
        }
        sim.run(30);
        assert_eq!(sim.running().iter().filter(|task| image(task) == "fine").count() as u64, replicas, "seed {seed}");
    }
}

#[test]
fn a_start_first_update_without_faults_always_has_its_replicas() {
    for seed in 0..SEEDS / 3 {
        let mut rng = Rng::new(seed);
        let replicas = 1 + rng.below(5);
        let mut sim = Sim::new(3);
        let mut service = replicated(replicas, "ok");
        set_update(&mut service.spec, |config| {
            config.order = UpdateOrder::StartFirst;
            config.parallelism = rng.below(3);
        });
        sim.starts_first = true;
        sim.put(service);
        sim.run(10);
        sim.update_service("s", |spec| set_image(spec, "fine"));
        for _ in 0..200 {
            sim.settle();
            sim.agents();
            sim.now = sim.now.plus(TICK);
            if rng.below(10) == 0 {
                sim.new_leader(rng.next_u64());
            }
            let up = sim.tasks(|task| is_up(task) && task.desired_state == TaskState::Running).len() as u64;
            assert!(up >= replicas, "seed {seed}: {up} of {replicas}\n{}", sim.show());
        }
        sim.run(30);
        assert_eq!(sim.running().iter().filter(|task| image(task) == "fine").count() as u64, replicas, "seed {seed}");
        assert_eq!(sim.running().len() as u64, replicas, "seed {seed}");
    }
}
