//! Fair share: when tasks move, where to, and what it looks like.

use super::sim::*;
use crate::moves::{REASON_LABEL, REPLACES_LABEL};
use crate::rebalance::*;
use model::*;
use std::sync::Arc;

fn label(sim: &mut Sim, name: &str, value: &str) {
    let mut service = (*sim.service("s")).clone();
    service.spec.annotations.labels.insert(name.into(), value.into());
    sim.put(service);
}

fn with_label(mut service: Service, name: &str, value: &str) -> Service {
    service.spec.annotations.labels.insert(name.into(), value.into());
    service
}

/// A service that runs on the first nodes; further ones can join.
fn uneven(replicas: u64, nodes: usize, image: &str) -> Sim {
    let mut sim = Sim::new(nodes);
    sim.starts_first = true;
    sim.put(with_label(replicated(replicas, image), SWITCH_LABEL, "auto"));
    sim.run(20);
    sim
}

fn join(sim: &mut Sim, id: &str) {
    sim.put(node(id));
}

/// Running tasks per node, n1 first.
fn spread(sim: &Sim) -> Vec<usize> {
    let running = sim.running();
    let on = |id: &NodeId| running.iter().filter(|task| task.node_id.as_ref() == Some(id)).count();
    sim.view.nodes().map(|node| on(&node.id)).collect()
}

fn hold(sim: &Sim) -> Option<Hold> {
    sim.leader.rebalance_holds().get("s").cloned()
}

fn replacements(sim: &Sim) -> Vec<Arc<Task>> {
    sim.tasks(|task| task.annotations.labels.contains_key(REPLACES_LABEL))
}

#[test]
fn a_node_that_joins_gets_its_share() {
    let mut sim = uneven(4, 1, "ok");
    join(&mut sim, "n2");
    sim.run(60);
    assert_eq!(spread(&sim), [2, 2], "{}", sim.show());
    assert_eq!(replacements(&sim).len(), 2, "no more moves than needed");
}

#[test]
fn without_the_label_nothing_moves() {
    for value in [None, Some("off"), Some("on")] {
        let mut sim = Sim::new(1);
        sim.put(replicated(4, "ok"));
        value.into_iter().for_each(|value| label(&mut sim, SWITCH_LABEL, value));
        sim.run(20);
        join(&mut sim, "n2");
        sim.run(60);
        assert_eq!(spread(&sim), [4, 0], "{value:?}");
        assert_eq!(
            hold(&sim),
            value.filter(|it| *it == "on").map(|it| Hold::Malformed(PolicyError::Switch(it.into())))
        );
    }
}

#[test]
fn a_malformed_label_is_said_once() {
    let mut sim = Sim::new(1);
    sim.put(with_label(replicated(1, "ok"), SWITCH_LABEL, "yes"));
    let events = std::mem::take(&mut sim.events);
    let plan = sim.leader.step(&sim.view, &events, sim.now);
    let texts: Vec<_> = plan.reasons.iter().map(|reason| reason.text.as_str()).collect();
    assert_eq!(texts, ["label skep.rebalance=\"yes\" is neither auto nor off: nothing is moved"]);
}

#[test]
fn the_clusters_label_stands_for_services_without_one() {
    let mut sim = Sim::new(1);
    sim.starts_first = true;
    sim.put(replicated(4, "ok"));
    sim.run(20);
    join(&mut sim, "n2");
    sim.run(20);
    assert_eq!(spread(&sim), [4, 0]);
    let mut cluster = (**sim.view.the_cluster().unwrap()).clone();
    cluster.spec.annotations.labels.insert(SWITCH_LABEL.into(), "auto".into());
    sim.put(cluster);
    sim.run(60);
    assert_eq!(spread(&sim), [2, 2]);
}

#[test]
fn the_replacement_runs_before_the_old_task_is_shut_down() {
    let mut sim = uneven(2, 1, "ok");
    join(&mut sim, "n2");
    for _ in 0..20 {
        sim.settle();
        let under_way = replacements(&sim);
        if let Some(new) = under_way.first() {
            assert_eq!(new.node_id, Some("n2".into()));
            assert_eq!(new.desired_state, TaskState::Running);
            let old = sim.view.task(&new.annotations.labels[REPLACES_LABEL].as_str().into()).unwrap();
            assert_eq!((old.slot, &old.service_id), (new.slot, &new.service_id));
            assert_eq!(old.desired_state == TaskState::Running, !is_up(new), "{}", sim.show());
        }
        sim.agents();
        sim.now = sim.now.plus(TICK);
    }
    assert_eq!(spread(&sim), [1, 1]);
}

#[test]
fn the_reason_is_the_old_tasks_message_and_then_its_error() {
    let mut sim = uneven(2, 1, "ok");
    join(&mut sim, "n2");
    let moved = |sim: &Sim| sim.tasks(|task| task.annotations.labels.contains_key(REASON_LABEL));
    sim.settle();
    while moved(&sim).is_empty() {
        sim.agents();
        sim.settle();
    }
    let old = moved(&sim)[0].clone();
    assert_eq!((old.status.state, old.status.message.as_str()), (TaskState::Running, "rebalanced: moved to node n2"));
    sim.run(5);
    let old = moved(&sim)[0].clone();
    assert_eq!((old.status.state, old.status.err.as_str()), (TaskState::Shutdown, "rebalanced: moved to node n2"));
    assert_eq!(old.desired_state, TaskState::Shutdown);
}

#[test]
fn a_move_says_its_reason_in_numbers() {
    let mut sim = uneven(3, 1, "ok");
    join(&mut sim, "n2");
    let events = std::mem::take(&mut sim.events);
    let plan = sim.leader.step(&sim.view, &events, sim.now);
    let texts: Vec<_> = plan.reasons.iter().map(|reason| reason.text.as_str()).collect();
    assert!(texts.contains(&"rebalance: moves from node n1 to node n2, 3 tasks against 0"), "{texts:?}");
}

#[test]
fn a_difference_of_one_task_is_even() {
    let mut sim = uneven(3, 2, "ok");
    let before: Vec<_> = sim.running().iter().map(|task| task.id.clone()).collect();
    sim.run(60);
    join(&mut sim, "n3");
    sim.run(60);
    // 2, 1, 0: n1 gives one.
    assert_eq!(spread(&sim), [1, 1, 1]);
    join(&mut sim, "n4");
    sim.run(60);
    assert_eq!(spread(&sim), [1, 1, 1, 0]);
    assert_eq!(sim.running().iter().filter(|task| before.contains(&task.id)).count(), 2);
}

#[test]
fn a_node_that_comes_back_or_gets_free_gets_its_share() {
    let mut sim = uneven(4, 2, "ok");
    for (gone, back) in [(NodeAvailability::Drain, NodeAvailability::Active); 2] {
        sim.edit_node("n2", |node| node.spec.availability = gone);
        sim.run(30);
        assert_eq!(spread(&sim), [4, 0]);
        sim.edit_node("n2", |node| node.spec.availability = back);
        sim.run(60);
        assert_eq!(spread(&sim), [2, 2]);
    }
    sim.silent.insert("n1".into());
    sim.set_state("n1", NodeState::Down);
    sim.run(30);
    sim.silent.clear();
    sim.set_state("n1", NodeState::Ready);
    sim.run(60);
    assert_eq!(spread(&sim), [2, 2]);
}

#[test]
fn a_node_without_room_gets_its_share_when_room_is_made() {
    let mut sim = Sim::new(1);
    sim.starts_first = true;
    let mut service = with_label(replicated(2, "ok"), SWITCH_LABEL, "auto");
    let reserve = |spec: &mut ServiceSpec, nano_cpus: i64| {
        edit_task_spec(spec, |task| {
            let reservations = Some(Resources { nano_cpus, ..Default::default() });
            task.resources = Some(ResourceRequirements { reservations, ..Default::default() });
        });
    };
    reserve(&mut service.spec, 10_000_000_000);
    sim.put(service);
    sim.run(20);
    sim.edit_node("n1", |node| node.spec.availability = NodeAvailability::Pause);
    let mut other = replicated(1, "ok");
    other.id = "t".into();
    other.spec.annotations.name = "t".into();
    reserve(&mut other.spec, 60_000_000_000);
    sim.put(other.clone());
    join(&mut sim, "n2");
    sim.run(20);
    sim.edit_node("n1", |node| node.spec.availability = NodeAvailability::Active);
    sim.run(60);
    assert_eq!((spread(&sim), hold(&sim)), (vec![2, 0], Some(Hold::NoRoom)));
    let other = sim.view.service(&"t".into()).unwrap().clone();
    sim.remove((*other).clone());
    sim.run(60);
    assert_eq!((spread(&sim), hold(&sim)), (vec![1, 1], None));
}

#[test]
fn constraints_limits_platforms_and_host_ports_are_heeded() {
    let check = |edit: &dyn Fn(&mut Service), prepare: &dyn Fn(&mut Node), expected: &[usize]| {
        let mut sim = Sim::new(1);
        sim.starts_first = true;
        let mut service = with_label(replicated(4, "ok"), SWITCH_LABEL, "auto");
        edit(&mut service);
        sim.put(service);
        sim.run(20);
        let mut joined = node("n2");
        prepare(&mut joined);
        sim.put(joined);
        sim.run(120);
        assert_eq!(spread(&sim), expected, "{}", sim.show());
    };
    let place = |service: &mut Service, edit: &dyn Fn(&mut Placement)| {
        edit_task_spec(&mut service.spec, |task| edit(task.placement.get_or_insert_default()));
    };
    let nothing = |_: &mut Node| {};
    check(&|it| place(it, &|it| it.constraints = vec!["node.id==n1".into()]), &nothing, &[4, 0]);
    check(&|it| place(it, &|it| it.constraints = vec!["node.id!=n3".into()]), &nothing, &[2, 2]);
    let amd64 = |placement: &mut Placement| {
        placement.platforms = vec![Platform { os: "linux".into(), architecture: String::new() }];
    };
    let windows = |node: &mut Node| {
        let platform = Platform { os: "windows".into(), architecture: "amd64".into() };
        node.description.as_mut().unwrap().platform = Some(platform);
    };
    check(&|_| {}, &windows, &[2, 2]);
    check(&|it| place(it, &amd64), &windows, &[0, 0]);
    let paused = |node: &mut Node| node.spec.availability = NodeAvailability::Pause;
    check(&|_| {}, &paused, &[4, 0]);
}

#[test]
fn the_maximum_for_a_node_is_never_exceeded() {
    let mut sim = Sim::new(2);
    sim.starts_first = true;
    let mut service = with_label(replicated(4, "ok"), SWITCH_LABEL, "auto");
    edit_task_spec(&mut service.spec, |task| {
        task.placement = Some(Placement { max_replicas: 2, ..Default::default() });
    });
    sim.put(service);
    sim.run(20);
    join(&mut sim, "n3");
    for _ in 0..300 {
        sim.settle();
        sim.agents();
        sim.now = sim.now.plus(TICK);
        for node in sim.view.nodes() {
            let on = sim.view.tasks_of_node(&node.id).filter(|task| task.desired_state <= TaskState::Running).count();
            assert!(on <= 2, "{}", sim.show());
        }
    }
    let mut found = spread(&sim);
    found.sort_unstable();
    assert_eq!(found, [1, 1, 2]);
}

#[test]
fn a_host_port_that_is_taken_forbids_a_move() {
    let mut sim = Sim::new(0);
    sim.starts_first = true;
    let in_zone = |id: &str, zone: &str| {
        let mut node = node(id);
        node.spec.annotations.labels.insert("zone".into(), zone.into());
        node
    };
    let publish = |mut service: Service| {
        let port =
            PortConfig { publish_mode: PublishMode::Host, published_port: 80, target_port: 80, ..Default::default() };
        service.spec.endpoint = Some(EndpointSpec { ports: vec![port], ..Default::default() });
        service
    };
    ["n1", "n2"].into_iter().for_each(|id| sim.put(in_zone(id, "east")));
    let mut service = publish(with_label(replicated(2, "ok"), SWITCH_LABEL, "auto"));
    edit_task_spec(&mut service.spec, |task| {
        let spread = Some(SpreadOver { spread_descriptor: "node.labels.zone".into() });
        task.placement = Some(Placement { preferences: vec![PlacementPreference { spread }], ..Default::default() });
    });
    sim.put(service);
    sim.run(20);
    let mut other = publish(replicated(1, "ok"));
    (other.id, other.spec.annotations.name) = ("t".into(), "t".into());
    sim.put(other);
    sim.put(in_zone("n3", "west"));
    sim.run(60);
    assert_eq!((spread(&sim), hold(&sim)), (vec![1, 1, 0], Some(Hold::NoRoom)));
    let other = sim.view.service(&"t".into()).unwrap().clone();
    sim.remove((*other).clone());
    sim.run(60);
    let found = spread(&sim);
    assert_eq!((found[0] + found[1], found[2], hold(&sim)), (1, 1, None));
}

#[test]
fn preferences_come_before_nodes() {
    let mut sim = Sim::new(1);
    sim.starts_first = true;
    let zone = |node: &mut Node, zone: &str| drop(node.spec.annotations.labels.insert("zone".into(), zone.into()));
    sim.edit_node("n1", |node| zone(node, "east"));
    let mut service = with_label(replicated(6, "ok"), SWITCH_LABEL, "auto");
    edit_task_spec(&mut service.spec, |task| {
        let spread = Some(SpreadOver { spread_descriptor: "node.labels.zone".into() });
        task.placement = Some(Placement { preferences: vec![PlacementPreference { spread }], ..Default::default() });
    });
    sim.put(service);
    sim.run(20);
    for id in ["n2", "n3", "n4"] {
        let mut joined = node(id);
        zone(&mut joined, "west");
        sim.put(joined);
    }
    sim.run(120);
    assert_eq!(spread(&sim), [3, 1, 1, 1], "even over the zones, then inside one");
    sim.edit_node("n4", |node| zone(node, "east"));
    sim.run(120);
    let found = spread(&sim);
    assert_eq!((found[0] + found[3], found[1] + found[2]), (3, 3), "{found:?}");
    assert!(found[0] <= 2 && found[1].abs_diff(found[2]) <= 1, "{found:?}");
}

#[test]
fn one_task_at_a_time_or_as_many_as_the_label_says() {
    for parallelism in [1_usize, 3] {
        let mut sim = uneven(12, 1, "ok");
        label(&mut sim, PARALLELISM_LABEL, &parallelism.to_string());
        label(&mut sim, DELAY_LABEL, "0s");
        sim.run(5);
        join(&mut sim, "n2");
        let mut most = 0;
        for _ in 0..200 {
            sim.settle();
            sim.agents();
            sim.now = sim.now.plus(TICK);
            let alive = sim.tasks(|task| (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)).len();
            most = most.max(alive - 12);
        }
        assert_eq!((spread(&sim), most), (vec![6, 6], parallelism));
    }
}

#[test]
fn between_two_moves_there_is_the_delay() {
    let mut sim = uneven(4, 1, "ok");
    label(&mut sim, DELAY_LABEL, "1m");
    sim.run(5);
    join(&mut sim, "n2");
    sim.run(30);
    assert_eq!(spread(&sim), [3, 1]);
    assert!(matches!(hold(&sim), Some(Hold::Resting(_))));
    sim.new_leader(5);
    sim.run(20);
    assert_eq!(spread(&sim), [3, 1], "a new leader keeps to it");
    sim.run(20);
    assert_eq!(spread(&sim), [2, 2]);
}

#[test]
fn nothing_moves_during_an_update_or_while_tasks_do_not_run() {
    let mut sim = uneven(4, 1, "ok");
    sim.update_service("s", |spec| {
        set_image(spec, "fine");
        set_update(spec, |config| config.delay = Duration::from_secs(20));
    });
    sim.settle();
    join(&mut sim, "n2");
    sim.run(10);
    assert_eq!((hold(&sim), replacements(&sim).len()), (Some(Hold::Updating), 0));
    sim.run(120);
    assert_eq!(sim.update_status().0, UpdateState::Completed);
    sim.run(60);
    assert_eq!(spread(&sim), [2, 2], "the update itself spreads some, the rest moves");

    let mut sim = uneven(4, 1, "ok");
    sim.silent.insert("n2".into());
    join(&mut sim, "n2");
    let id = sim.running()[0].id.clone();
    sim.edit_task(&id, |task| task.status.state = TaskState::Failed);
    sim.run(20);
    assert_eq!((hold(&sim), replacements(&sim).len()), (Some(Hold::NotRunning), 0), "{}", sim.show());
}

#[test]
fn an_update_that_failed_stops_rebalancing_until_the_next() {
    let mut sim = uneven(4, 1, "ok");
    sim.update_service("s", |spec| set_image(spec, "crash"));
    sim.run(30);
    assert_eq!(sim.update_status().0, UpdateState::Paused);
    join(&mut sim, "n2");
    sim.run(60);
    assert_eq!((hold(&sim), replacements(&sim).len()), (Some(Hold::Updating), 0));
}

/// Steps until a replacement is there that does not run yet.
fn until_under_way(sim: &mut Sim) -> Arc<Task> {
    sim.settle();
    let new = replacements(sim).into_iter().find(|task| task.desired_state == TaskState::Running && !is_up(task));
    new.expect("a move begins at once")
}

#[test]
fn a_new_spec_a_switched_off_label_or_scaling_down_gives_a_move_up() {
    let check = |act: &dyn Fn(&mut Sim), text: &str, replicas: usize| {
        let mut sim = uneven(4, 1, "ok");
        join(&mut sim, "n2");
        let new = until_under_way(&mut sim);
        act(&mut sim);
        sim.settle();
        let new = sim.view.task(&new.id).unwrap().clone();
        assert!(new.desired_state >= TaskState::Shutdown);
        assert_eq!(new.annotations.labels[REASON_LABEL], text);
        assert_eq!(sim.update_status().0, UpdateState::Unknown, "it is no update");
        for _ in 0..30 {
            assert!(sim.running().len() >= replicas, "{}", sim.show());
            sim.settle();
            sim.agents();
            sim.now = sim.now.plus(TICK);
        }
        sim.run(120);
        assert_eq!(sim.running().len(), replicas);
        if let Some(new) = sim.view.task(&new.id) {
            assert_eq!((new.status.state, new.status.err.as_str()), (TaskState::Shutdown, text));
        }
    };
    let relabel =
        |sim: &mut Sim| sim.update_service("s", |spec| drop(spec.annotations.labels.insert("a".into(), "b".into())));
    check(&relabel, "rebalance given up: the service was changed", 4);
    check(&|sim| label(sim, SWITCH_LABEL, "off"), "rebalance given up: it was switched off", 4);
    check(&|sim| label(sim, SWITCH_LABEL, "of"), "rebalance given up: it was switched off", 4);
    let scale = |sim: &mut Sim| sim.update_service("s", |spec| set_replicas(spec, 2));
    check(&scale, "rebalance given up: the service was changed", 2);
}

#[test]
fn a_removed_service_takes_its_moves_along() {
    let mut sim = uneven(4, 1, "ok");
    join(&mut sim, "n2");
    until_under_way(&mut sim);
    let service = sim.service("s");
    sim.remove((*service).clone());
    sim.run(20);
    assert_eq!(sim.tasks(|_| true).len(), 0);
    assert_eq!(hold(&sim), None);
}

#[test]
fn an_update_during_a_move_ends_as_any_other() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut sim = uneven(4, 1, "ok");
        join(&mut sim, "n2");
        until_under_way(&mut sim);
        sim.update_service("s", |spec| {
            set_image(spec, "fine");
            set_update(spec, |config| config.order = order);
        });
        sim.run(120);
        assert_eq!(sim.update_status().0, UpdateState::Completed);
        assert_eq!(sim.running().iter().filter(|task| image(task) == "fine").count(), 4);
        assert_eq!(spread(&sim), [2, 2]);
    }
}

#[test]
fn failed_moves_back_off_doubling_and_leave_the_old_task_alone() {
    let mut sim = uneven(2, 1, "ok");
    join(&mut sim, "n2");
    let mut begun = Vec::new();
    let start = sim.now;
    // On n2 nothing comes to run.
    while sim.now.since(start) < Duration::from_secs(300) {
        sim.settle();
        let failing: Vec<_> =
            sim.tasks(|task| task.node_id == Some("n2".into()) && task.status.state < TaskState::Running);
        for task in failing {
            begun.push(sim.now.since(start).seconds);
            sim.edit_task(&task.id, |task| task.status.state = TaskState::Failed);
            sim.settle();
        }
        assert_eq!(sim.running().len(), 2);
        sim.agents();
        sim.now = sim.now.plus(TICK);
    }
    assert_eq!(begun, [0, 30, 90, 210]);
    assert!(matches!(hold(&sim), Some(Hold::BackingOff(_))));
    assert_eq!(sim.tasks(|task| task.slot == 1 || task.slot == 2).len(), 2 + 4, "no restarts of failed moves");
    let failed = sim.tasks(|task| task.status.state == TaskState::Failed);
    assert!(failed.iter().all(|task| task.status.err == "rebalance given up: the new task failed"));
    sim.new_leader(3);
    sim.run(60);
    assert_eq!(spread(&sim), [2, 0], "a new leader sees the failures");
    sim.run(300);
    assert_eq!(spread(&sim), [1, 1], "and when it works again it works");
}

#[test]
fn a_task_that_fails_soon_after_it_took_over_is_a_failed_move() {
    let mut sim = uneven(2, 1, "ok");
    join(&mut sim, "n2");
    sim.run(3);
    assert_eq!(spread(&sim), [1, 1]);
    let moved = sim.running().iter().find(|task| task.node_id == Some("n2".into())).unwrap().clone();
    sim.edit_node("n2", |node| node.spec.availability = NodeAvailability::Pause);
    sim.edit_task(&moved.id, |task| task.status.state = TaskState::Failed);
    sim.run(10);
    assert_eq!(spread(&sim), [2, 0], "restarted elsewhere");
    sim.edit_node("n2", |node| node.spec.availability = NodeAvailability::Active);
    sim.run(10);
    assert!(matches!(hold(&sim), Some(Hold::BackingOff(_))), "{:?}", hold(&sim));
    sim.run(60);
    assert_eq!(spread(&sim), [1, 1]);
}

#[test]
fn a_move_is_no_attempt_of_the_restart_policy() {
    let mut sim = Sim::new(1);
    sim.starts_first = true;
    let mut service = with_label(replicated(2, "ok"), SWITCH_LABEL, "auto");
    set_restart(&mut service.spec, |policy| {
        policy.max_attempts = 1;
        policy.delay = Some(Duration::from_secs(1));
    });
    sim.put(service);
    sim.run(10);
    join(&mut sim, "n2");
    sim.run(30);
    assert_eq!(spread(&sim), [1, 1]);
    for seed in 0..2 {
        sim.new_leader(seed);
        let moved = sim.running().iter().find(|task| task.node_id == Some("n2".into())).unwrap().clone();
        sim.edit_task(&moved.id, |task| task.status.state = TaskState::Failed);
        sim.run(20);
        let up = sim.running().len();
        assert_eq!(up, if seed == 0 { 2 } else { 1 }, "one attempt, after a move too\n{}", sim.show());
        if seed == 0 {
            sim.run(60);
            assert_eq!(spread(&sim), [1, 1]);
        }
    }
}

#[test]
fn a_lost_target_gives_the_move_up_and_a_lost_source_makes_it_the_restart() {
    let lose = |sim: &mut Sim, node: &str| {
        sim.silent.insert(node.into());
        sim.set_state(node, NodeState::Down);
    };
    let mut sim = uneven(2, 1, "ok");
    join(&mut sim, "n2");
    let new = until_under_way(&mut sim);
    lose(&mut sim, "n2");
    sim.settle();
    assert_eq!(
        sim.view.task(&new.id).unwrap().annotations.labels[REASON_LABEL],
        "rebalance given up: its node is lost"
    );
    sim.run(60);
    assert_eq!(spread(&sim), [2, 0]);

    let mut sim = uneven(2, 1, "ok");
    join(&mut sim, "n2");
    let new = until_under_way(&mut sim);
    lose(&mut sim, "n1");
    sim.run(3);
    assert_eq!(spread(&sim), [0, 1], "without the delay of a restart");
    assert!(is_up(sim.view.task(&new.id).unwrap()));
    sim.run(20);
    assert_eq!(spread(&sim), [0, 2]);
    assert_eq!(sim.tasks(|task| task.slot == new.slot).len(), 2, "nothing else was made in its slot");
}

#[test]
fn a_slot_that_is_over_is_not_moved_on() {
    let mut sim = Sim::new(1);
    sim.starts_first = true;
    let mut service = with_label(replicated(2, "ok"), SWITCH_LABEL, "auto");
    set_restart(&mut service.spec, |policy| policy.condition = RestartCondition::OnFailure);
    sim.put(service);
    sim.run(10);
    join(&mut sim, "n2");
    let new = until_under_way(&mut sim);
    let old: TaskId = new.annotations.labels[REPLACES_LABEL].as_str().into();
    sim.edit_task(&old, |task| task.status.state = TaskState::Complete);
    sim.run(120);
    assert_eq!(sim.running().len(), 1, "{}", sim.show());
    assert_eq!(sim.tasks(|task| task.slot == new.slot).len(), 2);
    sim.new_leader(4);
    assert!(!sim.step(), "a new leader sees it alike");
    label(&mut sim, "a", "b");
    sim.run(20);
    assert_eq!(sim.running().len(), 1, "{}", sim.show());
}

#[test]
fn a_replacement_that_its_node_refuses_is_given_up() {
    let mut sim = uneven(2, 1, "ok");
    join(&mut sim, "n2");
    let new = until_under_way(&mut sim);
    // As if its addresses had taken time, and the node had been paused meanwhile.
    sim.edit_node("n2", |node| node.spec.availability = NodeAvailability::Pause);
    sim.edit_task(&new.id, |task| task.status = TaskStatus { state: TaskState::Pending, ..Default::default() });
    sim.run(1);
    let new = sim.view.task(&new.id).unwrap();
    let text = "rebalance given up: its node has no room any more";
    assert_eq!((new.status.state, new.status.err.as_str()), (TaskState::Shutdown, text));
    assert_eq!(spread(&sim), [2, 0]);
}

#[test]
fn a_replacement_that_is_too_slow_is_given_up() {
    let mut sim = uneven(2, 1, "ok");
    sim.silent.insert("n2".into());
    join(&mut sim, "n2");
    until_under_way(&mut sim);
    sim.run(9 * 60);
    assert_eq!(hold(&sim), Some(Hold::Moving));
    sim.run(2 * 60);
    let given_up = replacements(&sim);
    assert_eq!(given_up.len(), 2 - 1, "{}", sim.show());
    assert_eq!(
        given_up[0].annotations.labels[REASON_LABEL],
        "rebalance given up: the new task did not come to run in time"
    );
    assert_eq!(spread(&sim), [2, 0]);
}

#[test]
fn a_new_leader_goes_on_with_a_move_at_any_point() {
    for at in 0..12 {
        let mut sim = uneven(4, 1, "ok");
        join(&mut sim, "n2");
        for step in 0..200 {
            sim.settle();
            if step == at || step % 7 == 3 {
                sim.new_leader(step);
                sim.settle();
            }
            assert!(sim.running().len() >= 4, "{at}\n{}", sim.show());
            sim.agents();
            sim.now = sim.now.plus(TICK);
        }
        assert_eq!(spread(&sim), [2, 2], "{at}");
        assert_eq!(replacements(&sim).len(), 2, "{at}");
        assert_eq!(sim.update_status().0, UpdateState::Unknown, "{at}: nobody takes it for an update");
    }
}

#[test]
fn global_services_and_jobs_stay_where_they_are() {
    let job = || ServiceMode::ReplicatedJob(ReplicatedJob { max_concurrent: 4, total_completions: 4 });
    for mode in [ServiceMode::Global(GlobalService), job()] {
        let mut sim = Sim::new(1);
        sim.put(with_label(service(mode, "ok"), SWITCH_LABEL, "auto"));
        sim.run(20);
        join(&mut sim, "n2");
        sim.run(60);
        assert!(replacements(&sim).is_empty());
        assert_eq!(hold(&sim), None);
    }
}

#[test]
fn more_services_than_are_looked_at_in_one_plan_are_all_looked_at() {
    let mut sim = Sim::new(1);
    sim.starts_first = true;
    let count = SERVICES_LIMIT + 3;
    for n in 0..count {
        let mut service = with_label(replicated(2, "ok"), SWITCH_LABEL, "auto");
        service.id = format!("s{n:02}").as_str().into();
        service.spec.annotations.name = format!("s{n:02}");
        sim.put(service);
    }
    sim.run(20);
    join(&mut sim, "n2");
    sim.run(60);
    let on = |id: &str| sim.view.tasks_of_node(&id.into()).filter(|task| is_up(task)).count();
    assert_eq!((on("n1"), on("n2")), (count, count));
}
