//! The restart supervisor.

use super::sim::*;
use crate::leader::Leader;
use model::*;

fn with_policy(image: &str, edit: impl FnOnce(&mut RestartPolicy)) -> Sim {
    let mut sim = Sim::new(1);
    let mut service = replicated(1, image);
    set_restart(&mut service.spec, edit);
    sim.put(service);
    sim
}

/// How many tasks the service has had.
fn made(sim: &Sim) -> usize {
    let is_create = |action: &&store::Action| matches!(action, store::Action::Create(store::Object::Task(task)) if task.service_id == Some("s".into()));
    sim.written.iter().flatten().filter(is_create).count()
}

#[test]
fn a_failed_task_is_shut_down_and_its_replacement_is_ready_until_the_delay_is_over() {
    let mut sim = Sim::new(1);
    sim.put(replicated(1, "flaky"));
    sim.run(2);
    let old = sim.tasks(|_| true)[0].clone();
    assert_eq!((old.status.state, old.desired_state), (TaskState::Failed, TaskState::Shutdown));
    let new = sim.tasks(|_| true)[1].clone();
    assert_eq!((new.slot, new.desired_state), (old.slot, TaskState::Ready));
    assert_eq!(new.status.state, TaskState::Ready, "it is already prepared");
    sim.run(3);
    assert_eq!(sim.view.task(&new.id).unwrap().desired_state, TaskState::Ready, "5 s are not over");
    sim.run(2);
    assert_eq!(sim.view.task(&new.id).unwrap().desired_state, TaskState::Running);
}

#[test]
fn the_delay_of_the_policy_counts() {
    let mut sim = with_policy("crash", |policy| policy.delay = Some(Duration::from_secs(60)));
    sim.run(50);
    assert_eq!(made(&sim), 2);
    sim.run(20);
    assert_eq!(made(&sim), 3);
}

#[test]
fn conditions_decide_whether_a_task_is_replaced() {
    let check = |condition, image: &str, expected: bool| {
        let mut sim = with_policy(image, |policy| {
            policy.condition = condition;
            policy.delay = Some(Duration::default());
        });
        sim.run(60);
        assert_eq!(made(&sim) > 1, expected, "{condition:?} {image}");
        let shut_down = sim.tasks(|task| task.desired_state == TaskState::Shutdown);
        assert!(!shut_down.is_empty(), "the old one is shut down always");
    };
    check(RestartCondition::Any, "flaky", true);
    check(RestartCondition::Any, "done", true);
    check(RestartCondition::OnFailure, "flaky", true);
    check(RestartCondition::OnFailure, "done", false);
    check(RestartCondition::OnFailure, "reject", true);
    check(RestartCondition::None, "flaky", false);
    check(RestartCondition::None, "done", false);
}

#[test]
fn attempts_are_counted_for_a_slot_and_spec_version() {
    let mut sim = with_policy("crash", |policy| {
        policy.max_attempts = 3;
        policy.delay = Some(Duration::from_secs(1));
    });
    sim.run(100);
    assert_eq!(made(&sim), 4, "the first and three restarts");
    sim.update_service("s", |spec| edit_task_spec(spec, |task| task.force_update = 1));
    sim.run(100);
    assert_eq!(made(&sim), 8, "a new version has its own attempts");
}

#[test]
fn with_a_window_only_restarts_within_it_count() {
    // A task lives for about 1.5 s and its replacement starts 1 s later: about 4 restarts in 10 s.
    let mut sim = with_policy("flaky", |policy| {
        policy.max_attempts = 3;
        policy.delay = Some(Duration::from_secs(1));
        policy.window = Some(Duration::from_secs(10));
    });
    sim.run(100);
    assert_eq!(made(&sim), 4);
    let mut sim = with_policy("flaky", |policy| {
        policy.max_attempts = 3;
        policy.delay = Some(Duration::from_secs(1));
        policy.window = Some(Duration::from_secs(4));
    });
    sim.run(100);
    assert!(made(&sim) > 20, "{}", made(&sim));
}

#[test]
fn a_new_leader_counts_past_attempts_from_the_store() {
    let mut sim = with_policy("crash", |policy| {
        policy.max_attempts = 3;
        policy.delay = Some(Duration::from_secs(5));
    });
    sim.run(8);
    assert_eq!(made(&sim), 3);
    sim.new_leader(9);
    sim.run(100);
    assert_eq!(made(&sim), 4);
}

#[test]
fn the_task_that_an_update_made_is_no_attempt_for_a_new_leader_either() {
    let mut sim = with_policy("ok", |policy| {
        policy.max_attempts = 2;
        policy.delay = Some(Duration::from_secs(1));
    });
    sim.run(5);
    sim.update_service("s", |spec| set_image(spec, "crash"));
    sim.settle();
    sim.new_leader(9);
    sim.run(100);
    assert_eq!(made(&sim), 4, "the first, the update's, and two attempts");
}

#[test]
fn a_new_leader_starts_what_waits_after_the_rest_of_the_delay() {
    let mut sim = with_policy("flaky", |policy| policy.delay = Some(Duration::from_secs(20)));
    sim.run(12);
    let new = sim.tasks(|task| task.desired_state == TaskState::Ready)[0].clone();
    sim.new_leader(9);
    sim.run(5);
    assert_eq!(sim.view.task(&new.id).unwrap().desired_state, TaskState::Ready);
    sim.run(10);
    assert_ne!(sim.view.task(&new.id).unwrap().desired_state, TaskState::Ready);
}

#[test]
fn a_replacement_that_cannot_be_prepared_is_replaced_only_after_its_delay() {
    let mut sim = Sim::new(1);
    sim.put(replicated(1, "reject"));
    sim.run(52);
    assert_eq!(made(&sim), 2 + 52 / 5);
    assert_eq!(sim.tasks(|task| task.desired_state <= TaskState::Running).len(), 1);
}

#[test]
fn a_replacement_waits_for_the_old_task_to_stop_but_a_minute_at_most() {
    let mut sim = Sim::new(2);
    sim.put(replicated(1, "stubborn"));
    sim.run(5);
    let old = sim.running()[0].clone();
    sim.drain(old.node_id.clone().unwrap().as_str());
    sim.run(50);
    assert_eq!(sim.running().len(), 0, "the old one still runs");
    assert_eq!(sim.tasks(|task| task.desired_state == TaskState::Ready).len(), 1);
    sim.run(15);
    assert_eq!(sim.running().len(), 1);
}

#[test]
fn on_a_drained_node_there_is_no_delay_but_the_old_task_stops_first() {
    let mut sim = Sim::new(2);
    sim.put(replicated(1, "ok"));
    sim.run(5);
    let old = sim.running()[0].clone();
    sim.drain(old.node_id.clone().unwrap().as_str());
    sim.settle();
    let new = sim.tasks(|task| task.desired_state == TaskState::Ready)[0].clone();
    sim.run(1);
    assert_eq!(sim.view.task(&old.id).unwrap().status.state, TaskState::Shutdown);
    assert_eq!(sim.view.task(&new.id).unwrap().status.state, TaskState::Running);
}

#[test]
fn on_a_node_that_is_down_the_replacement_waits_for_the_delay_only() {
    let mut sim = Sim::new(2);
    sim.put(replicated(1, "ok"));
    sim.run(5);
    let old = sim.running()[0].clone();
    let node = old.node_id.clone().unwrap();
    sim.silent.insert(node.to_string());
    sim.set_state(node.as_str(), NodeState::Down);
    sim.run(4);
    let new = sim.tasks(|task| task.desired_state == TaskState::Ready)[0].clone();
    assert_eq!(new.status.state, TaskState::Ready, "it is prepared elsewhere at once");
    sim.run(2);
    assert_eq!(sim.view.task(&new.id).unwrap().desired_state, TaskState::Running);
    let old = sim.view.task(&old.id).unwrap();
    assert_eq!((old.status.state, old.desired_state), (TaskState::Running, TaskState::Shutdown), "last known state");
}

#[test]
fn a_task_whose_slot_is_given_up_is_not_replaced() {
    let mut sim = Sim::new(1);
    sim.put(replicated(2, "flaky"));
    sim.run(2);
    sim.update_service("s", |spec| set_replicas(spec, 0));
    sim.run(30);
    assert_eq!(made(&sim), 4);
    assert_eq!(sim.tasks(|_| true).len(), 0);
}

#[test]
fn a_task_that_should_not_be_restarted_is_replaced_by_an_update() {
    let mut sim = with_policy("flaky", |policy| policy.condition = RestartCondition::None);
    sim.run(20);
    assert_eq!(sim.running().len(), 0);
    sim.update_service("s", |spec| set_image(spec, "ok"));
    sim.run(20);
    assert_eq!(sim.running().len(), 1);
}

#[test]
fn the_same_seed_and_events_give_the_same_actions() {
    let run = |seed| {
        let mut sim = Sim::new(3);
        sim.leader = Leader::new(seed);
        sim.put(replicated(5, "flaky"));
        sim.run(20);
        sim.written
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
