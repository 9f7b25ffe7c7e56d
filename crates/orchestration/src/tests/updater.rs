//! Rolling updates.

use super::sim::*;
use model::*;

/// A service that runs, with an update configuration.
fn sim(replicas: u64, edit: impl FnOnce(&mut UpdateConfig)) -> Sim {
    let mut sim = Sim::new(3);
    let mut service = replicated(replicas, "ok");
    set_update(&mut service.spec, edit);
    sim.starts_first = service.spec.update.as_ref().is_some_and(|it| it.order == UpdateOrder::StartFirst);
    sim.put(service);
    sim.run(10);
    assert_eq!(sim.running().len(), replicas as usize);
    sim
}

fn force(sim: &mut Sim) {
    sim.update_service("s", |spec| edit_task_spec(spec, |task| task.force_update += 1));
}

fn new_tasks(sim: &Sim) -> usize {
    let version = sim.service("s").spec_version;
    sim.tasks(|task| task.spec_version == version).len()
}

#[test]
fn an_update_replaces_slot_by_slot_and_says_so() {
    let mut sim = sim(3, |_| {});
    force(&mut sim);
    sim.settle();
    assert_eq!(sim.update_status(), (UpdateState::Updating, "update in progress".into()));
    assert_eq!(sim.service("s").update_status.as_ref().unwrap().started_at, Some(sim.now));
    assert_eq!(new_tasks(&sim), 1, "parallelism 1");
    sim.run(3);
    assert_eq!(new_tasks(&sim), 3);
    assert_eq!(sim.update_status().0, UpdateState::Updating, "it is watched for 5 s after the last slot");
    sim.run(10);
    assert_eq!(sim.update_status(), (UpdateState::Completed, "update completed".into()));
    assert!(sim.service("s").update_status.as_ref().unwrap().completed_at.is_some());
    assert_eq!(sim.running().len(), 3);
}

#[test]
fn parallelism_zero_means_all_at_once() {
    let mut sim = sim(3, |config| config.parallelism = 0);
    force(&mut sim);
    sim.settle();
    assert_eq!(new_tasks(&sim), 3);
}

#[test]
fn an_absent_configuration_means_one_at_a_time() {
    let mut sim = sim(3, |_| {});
    sim.update_service("s", |spec| {
        spec.update = None;
        edit_task_spec(spec, |task| task.force_update += 1);
    });
    sim.settle();
    assert_eq!(new_tasks(&sim), 1);
}

#[test]
fn a_worker_rests_for_the_delay_before_its_next_slot() {
    let mut sim = sim(2, |config| config.delay = Duration::from_secs(20));
    force(&mut sim);
    sim.run(15);
    assert_eq!(new_tasks(&sim), 1);
    sim.run(10);
    assert_eq!(new_tasks(&sim), 2);
    // The delay is longer than the monitor period of 5 s: it ends a second after the delay.
    sim.run(30);
    assert_eq!(sim.update_status().0, UpdateState::Updating);
    sim.run(20);
    assert_eq!(sim.update_status().0, UpdateState::Completed);
}

#[test]
fn stop_first_starts_the_new_task_when_the_old_one_has_stopped() {
    let mut sim = sim(1, |_| {});
    let old = sim.running()[0].clone();
    force(&mut sim);
    sim.settle();
    let new = sim.tasks(|task| task.id != old.id)[0].clone();
    assert_eq!(new.desired_state, TaskState::Ready);
    assert_eq!(sim.view.task(&old.id).unwrap().desired_state, TaskState::Shutdown);
    let both =
        sim.written.last().unwrap().iter().filter(|it| [old.id.as_str(), new.id.as_str()].contains(&it.id().as_str()));
    assert_eq!(both.count(), 2, "in one batch");
    while sim.view.task(&old.id).unwrap().status.state == TaskState::Running {
        assert_eq!(sim.view.task(&new.id).unwrap().desired_state, TaskState::Ready);
        sim.agents();
        sim.settle();
    }
    assert_eq!(sim.view.task(&new.id).unwrap().desired_state, TaskState::Running);
}

#[test]
fn stop_first_waits_a_minute_at_most() {
    let mut sim = Sim::new(1);
    sim.put(replicated(1, "stubborn"));
    sim.run(5);
    sim.update_service("s", |spec| set_image(spec, "ok"));
    sim.run(55);
    assert_eq!(sim.tasks(|task| image(task) == "ok" && is_up(task)).len(), 0);
    sim.run(10);
    assert_eq!(sim.tasks(|task| image(task) == "ok" && is_up(task)).len(), 1);
}

#[test]
fn start_first_stops_the_old_task_when_the_new_one_runs() {
    let mut sim = sim(1, |config| config.order = UpdateOrder::StartFirst);
    let old = sim.running()[0].clone();
    force(&mut sim);
    sim.settle();
    for _ in 0..5 {
        let new_runs = !sim.tasks(|task| task.id != old.id && is_up(task)).is_empty();
        let old_is_wanted = sim.view.task(&old.id).unwrap().desired_state == TaskState::Running;
        assert_eq!(new_runs, !old_is_wanted);
        sim.agents();
        sim.settle();
    }
    sim.run(10);
    assert_eq!(sim.running().len(), 1);
    assert_ne!(sim.running()[0].id, old.id);
}

#[test]
fn start_first_keeps_the_old_task_if_the_new_one_fails_and_lets_it_go_when_a_successor_runs() {
    for action in [FailureAction::Pause, FailureAction::Continue] {
        let mut sim = sim(1, |config| {
            config.order = UpdateOrder::StartFirst;
            config.failure_action = action;
        });
        let old = sim.running()[0].clone();
        sim.update_service("s", |spec| set_image(spec, "crash"));
        sim.run(60);
        assert!(is_up(sim.view.task(&old.id).unwrap()), "{action:?}");
        assert_eq!(sim.view.task(&old.id).unwrap().desired_state, TaskState::Running);
        sim.update_service("s", |spec| set_image(spec, "ok"));
        sim.run(60);
        assert_eq!(sim.running().len(), 1, "{action:?}\n{}", sim.show());
        assert_eq!(sim.update_status().0, UpdateState::Completed);
    }
}

#[test]
fn a_failure_pauses_the_update_and_nothing_more_is_done() {
    let mut sim = sim(3, |_| {});
    sim.update_service("s", |spec| set_image(spec, "crash"));
    sim.run(3);
    let (state, message) = sim.update_status();
    assert_eq!(state, UpdateState::Paused);
    let failed = sim.tasks(|task| task.status.state == TaskState::Failed);
    assert!(
        failed
            .iter()
            .any(|task| message == format!("update paused due to failure or early termination of task {}", task.id))
    );
    assert_eq!(sim.running().len(), 2, "the other slots keep their tasks");
    sim.update_service("s", |spec| set_image(spec, "ok"));
    sim.run(30);
    assert_eq!(sim.update_status().0, UpdateState::Completed);
    assert_eq!(sim.running().len(), 3);
}

#[test]
fn an_early_end_within_the_monitor_period_is_a_failure_a_later_one_is_not() {
    let check = |monitor, expected| {
        let mut sim = sim(1, |config| config.monitor = Some(Duration::from_millis(monitor)));
        sim.update_service("s", |spec| set_image(spec, "done"));
        sim.run(4);
        assert_eq!(sim.update_status().0, expected);
    };
    check(3_000, UpdateState::Paused);
    check(500, UpdateState::Completed);
}

#[test]
fn failures_are_tolerated_up_to_the_ratio_of_dirty_slots() {
    let check = |ratio, expected| {
        let mut sim = sim(4, |config| {
            config.max_failure_ratio = ratio;
            config.parallelism = 4;
        });
        sim.update_service("s", |spec| set_image(spec, "crash"));
        sim.run(3);
        let first: Vec<_> = sim.tasks(|task| task.status.state == TaskState::Failed);
        assert_eq!(first.len(), 4);
        assert_eq!(sim.update_status().0, expected, "{ratio}");
    };
    check(0.75, UpdateState::Paused);
    check(1.0, UpdateState::Updating);
}

#[test]
fn continue_ignores_failures() {
    let mut sim = sim(2, |config| config.failure_action = FailureAction::Continue);
    sim.update_service("s", |spec| set_image(spec, "crash"));
    sim.run(60);
    assert_eq!(sim.update_status(), (UpdateState::Completed, "update completed".into()));
}

#[test]
fn rollback_takes_the_previous_spec() {
    let mut sim = sim(3, |config| config.failure_action = FailureAction::Rollback);
    let before = sim.service("s");
    sim.update_service("s", |spec| set_image(spec, "crash"));
    sim.settle();
    for _ in 0..20 {
        sim.agents();
        sim.settle();
        if sim.update_status().0 != UpdateState::Updating {
            break;
        }
    }
    let (state, message) = sim.update_status();
    assert_eq!(state, UpdateState::RollbackStarted);
    let failed = sim.tasks(|task| task.status.state == TaskState::Failed)[0].clone();
    assert_eq!(message, format!("update rolled back due to failure or early termination of task {}", failed.id));
    let service = sim.service("s");
    assert_eq!((&service.spec, service.spec_version), (&before.spec, before.spec_version));
    assert_eq!((&service.previous_spec, service.previous_spec_version), (&None, None));
    sim.run(60);
    assert_eq!(sim.update_status(), (UpdateState::RollbackCompleted, "rollback completed".into()));
    assert_eq!(sim.running().iter().filter(|task| image(task) == "ok").count(), 3);
}

#[test]
fn a_rollback_that_fails_too_is_paused() {
    for (action, word) in [(FailureAction::Rollback, "rollback"), (FailureAction::Pause, "update")] {
        let mut sim = Sim::new(2);
        let mut service = replicated(2, "crash");
        set_update(&mut service.spec, |config| config.failure_action = FailureAction::Rollback);
        service.spec.rollback = Some(UpdateConfig { parallelism: 1, failure_action: action, ..Default::default() });
        sim.put(service);
        sim.run(3);
        sim.update_service("s", |spec| set_image(spec, "reject"));
        sim.run(60);
        let (state, message) = sim.update_status();
        assert_eq!(state, UpdateState::RollbackPaused, "{message}");
        assert!(
            message.starts_with(&format!("{word} paused due to failure or early termination of task ")),
            "{message}"
        );
    }
}

#[test]
fn without_a_previous_spec_a_rollback_writes_nothing() {
    let mut sim = sim(2, |config| config.failure_action = FailureAction::Rollback);
    sim.update_service("s", |spec| set_image(spec, "crash"));
    let mut service = (*sim.service("s")).clone();
    service.previous_spec = None;
    sim.put(service);
    sim.run(60);
    assert_eq!(sim.update_status(), (UpdateState::Updating, "update in progress".into()));
    assert_eq!(sim.running().len(), 1, "it is stuck");
}

#[test]
fn a_new_spec_cancels_the_update_under_way() {
    let mut sim = sim(4, |config| config.delay = Duration::from_secs(10));
    sim.update_service("s", |spec| set_image(spec, "fine"));
    sim.run(2);
    sim.update_service("s", |spec| set_image(spec, "ok"));
    sim.run(60);
    assert_eq!(sim.update_status().0, UpdateState::Completed);
    assert_eq!(sim.running().len(), 4);
    assert_eq!(sim.tasks(|task| image(task) == "fine").len(), 1);
}

#[test]
fn a_manual_rollback_completes_even_if_nothing_is_dirty() {
    let mut sim = sim(1, |_| {});
    let mut service = (*sim.service("s")).clone();
    let state = UpdateState::RollbackStarted;
    service.update_status = Some(UpdateStatus { state, ..Default::default() });
    sim.put(service);
    sim.settle();
    assert_eq!(sim.update_status(), (UpdateState::RollbackCompleted, "rollback completed".into()));
}

#[test]
fn an_update_that_goes_with_scaling_down_leaves_the_surplus_alone() {
    let mut sim = sim(4, |config| config.parallelism = 0);
    sim.update_service("s", |spec| {
        set_replicas(spec, 2);
        edit_task_spec(spec, |task| task.force_update += 1);
    });
    sim.settle();
    assert_eq!(new_tasks(&sim), 2);
    sim.run(20);
    assert_eq!(sim.running().len(), 2);
    assert_eq!(sim.update_status().0, UpdateState::Completed);
}

#[test]
fn a_new_leader_goes_on_with_the_update() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut sim = sim(3, |config| config.order = order);
        force(&mut sim);
        sim.settle();
        for seed in 1..10 {
            sim.agents();
            sim.settle();
            sim.new_leader(seed);
            sim.settle();
            assert!(sim.running().len() >= 2, "{order:?}\n{}", sim.show());
        }
        sim.run(60);
        assert_eq!(sim.update_status().0, UpdateState::Completed, "{order:?}");
        assert_eq!(new_tasks(&sim), 3, "{order:?}\n{}", sim.show());
        assert_eq!(sim.running().len(), 3);
    }
}

#[test]
fn changing_only_the_placement_restarts_nothing_that_may_stay() {
    let mut sim = sim(3, |_| {});
    let before = sim.running();
    sim.update_service("s", |spec| {
        edit_task_spec(spec, |task| {
            let constraints = vec!["node.hostname!=n9".to_owned()];
            task.placement = Some(Placement { constraints, ..Default::default() });
        });
    });
    sim.run(20);
    let ids = |tasks: Vec<std::sync::Arc<Task>>| tasks.iter().map(|task| task.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(sim.running()), ids(before));
    assert_eq!(sim.service("s").update_status, None);
}
