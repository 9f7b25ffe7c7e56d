//! Jobs.

use super::sim::*;
use model::*;
use std::collections::BTreeSet;

fn job(max_concurrent: u64, total_completions: u64, image: &str) -> Service {
    service(ServiceMode::ReplicatedJob(ReplicatedJob { max_concurrent, total_completions }), image)
}

fn complete(sim: &Sim) -> Vec<u64> {
    sim.tasks(|task| task.status.state == TaskState::Complete).iter().map(|task| task.slot).collect()
}

#[test]
fn a_job_runs_some_at_a_time_until_all_are_complete() {
    let mut sim = Sim::new(2);
    sim.put(job(2, 5, "done"));
    sim.settle();
    let tasks = sim.tasks(|_| true);
    assert_eq!(tasks.iter().map(|task| task.slot).collect::<Vec<_>>(), [0, 1]);
    assert!(tasks.iter().all(|task| task.desired_state == TaskState::Complete));
    assert!(tasks.iter().all(|task| task.job_iteration == Some(JobIteration(0))));
    for _ in 0..100 {
        sim.run(1);
        assert!(sim.tasks(|task| task.status.state <= TaskState::Running).len() <= 2);
    }
    assert_eq!(complete(&sim), [0, 1, 2, 3, 4]);
    assert_eq!(sim.tasks(|_| true).len(), 5, "history of jobs is kept, and nothing is made anew");
}

#[test]
fn a_failed_task_of_a_job_is_replaced_in_its_slot() {
    let mut sim = Sim::new(1);
    sim.put(job(1, 1, "flaky"));
    sim.run(20);
    let tasks = sim.tasks(|_| true);
    assert!(tasks.len() > 2);
    assert!(tasks.iter().all(|task| task.slot == 0 && task.job_iteration == Some(JobIteration(0))));
    assert_eq!(sim.tasks(|task| task.desired_state <= TaskState::Complete).len(), 1);
}

#[test]
fn a_slot_that_may_not_be_restarted_is_spent() {
    let mut sim = Sim::new(1);
    let mut service = job(1, 2, "flaky");
    set_restart(&mut service.spec, |policy| policy.condition = RestartCondition::None);
    sim.put(service);
    sim.run(60);
    let slots: Vec<u64> = sim.tasks(|_| true).iter().map(|task| task.slot).collect();
    assert_eq!(slots, [0, 1]);
}

#[test]
fn a_slot_of_a_job_has_its_attempts() {
    let mut sim = Sim::new(1);
    let mut service = job(1, 1, "crash");
    set_restart(&mut service.spec, |policy| {
        policy.max_attempts = 2;
        policy.delay = Some(Duration::from_secs(1));
    });
    sim.put(service);
    sim.run(60);
    assert_eq!(sim.tasks(|_| true).len(), 3);
    assert!(sim.tasks(|task| task.desired_state <= TaskState::Complete).is_empty());
}

#[test]
fn a_new_iteration_removes_what_still_runs_of_the_old_one() {
    let mut sim = Sim::new(2);
    sim.put(job(2, 2, "ok"));
    sim.run(5);
    sim.update_service("s", |spec| set_image(spec, "done"));
    sim.settle();
    let old = sim.tasks(|task| task.job_iteration == Some(JobIteration(0)));
    assert!(old.iter().all(|task| task.desired_state == TaskState::Remove));
    sim.run(20);
    assert_eq!(complete(&sim), [0, 1]);
    assert!(sim.tasks(|_| true).iter().all(|task| task.job_iteration == Some(JobIteration(1))));
}

#[test]
fn a_new_iteration_of_a_replicated_job_keeps_what_is_complete_and_a_global_one_removes_all() {
    for (mode, kept) in [
        (ServiceMode::ReplicatedJob(ReplicatedJob { max_concurrent: 1, total_completions: 1 }), 2),
        (ServiceMode::GlobalJob(GlobalJob), 1),
    ] {
        let mut sim = Sim::new(1);
        sim.put(service(mode, "done"));
        sim.run(10);
        sim.update_service("s", |spec| edit_task_spec(spec, |task| task.force_update += 1));
        sim.run(10);
        assert_eq!(sim.tasks(|_| true).len(), kept);
    }
}

fn nodes_of(sim: &Sim) -> BTreeSet<String> {
    sim.tasks(|_| true).iter().map(|task| task.node_id.as_ref().unwrap().to_string()).collect()
}

#[test]
fn a_global_job_runs_once_on_each_node_that_is_ready_and_active_also_later_ones() {
    let mut sim = Sim::new(4);
    sim.edit_node("n1", |node| node.spec.availability = NodeAvailability::Pause);
    sim.set_state("n2", NodeState::Unknown);
    sim.drain("n3");
    sim.put(service(ServiceMode::GlobalJob(GlobalJob), "done"));
    sim.run(10);
    assert_eq!(nodes_of(&sim), ["n4".to_owned()].into());
    sim.put(node("n5"));
    sim.set_state("n2", NodeState::Ready);
    sim.run(10);
    assert_eq!(nodes_of(&sim), ["n2", "n4", "n5"].map(String::from).into());
    assert_eq!(complete(&sim).len(), 3);
    assert_eq!(sim.tasks(|_| true).len(), 3, "once only");
}

#[test]
fn a_job_goes_on_elsewhere_when_its_node_is_lost() {
    let mut sim = Sim::new(2);
    sim.put(job(1, 1, "done"));
    sim.settle();
    let node = sim.tasks(|_| true)[0].node_id.clone().unwrap();
    sim.silent.insert(node.to_string());
    sim.set_state(node.as_str(), NodeState::Down);
    sim.run(20);
    assert_eq!(complete(&sim), [0]);
}
