//! Global services, lost nodes, the constraint enforcer.

use super::sim::*;
use crate::enforcer::{REJECTED_ERROR, REJECTED_MESSAGE};
use crate::node_down::NODE_DELETED_MESSAGE;
use model::*;
use std::collections::BTreeSet;
use std::sync::Arc;

fn global(image: &str) -> Service {
    service(ServiceMode::Global(GlobalService), image)
}

fn nodes_of(tasks: &[Arc<Task>]) -> BTreeSet<&str> {
    tasks.iter().map(|task| task.node_id.as_ref().unwrap().as_str()).collect()
}

fn constrain(spec: &mut ServiceSpec, constraint: &str) {
    edit_task_spec(spec, |task| {
        task.placement = Some(Placement { constraints: vec![constraint.into()], ..Default::default() });
    });
}

#[test]
fn a_global_service_has_one_task_on_each_eligible_node() {
    let mut sim = Sim::new(5);
    sim.drain("n1");
    sim.set_state("n2", NodeState::Down);
    sim.edit_node("n3", |node| node.spec.availability = NodeAvailability::Pause);
    let mut service = global("ok");
    constrain(&mut service.spec, "node.id!=n4");
    sim.put(service);
    sim.run(10);
    let tasks = sim.tasks(|_| true);
    assert_eq!(nodes_of(&tasks), ["n5"].into());
    assert_eq!(tasks[0].slot, 0);
    assert_eq!(tasks[0].status.state, TaskState::Running);
    sim.put(node("n6"));
    sim.edit_node("n1", |node| node.spec.availability = NodeAvailability::Active);
    sim.run(10);
    assert_eq!(nodes_of(&sim.running()), ["n1", "n5", "n6"].into());
}

#[test]
fn draining_shuts_global_tasks_down_and_pausing_keeps_them() {
    let mut sim = Sim::new(3);
    sim.put(global("ok"));
    sim.run(10);
    sim.drain("n1");
    sim.edit_node("n2", |node| node.spec.availability = NodeAvailability::Pause);
    sim.run(10);
    assert_eq!(nodes_of(&sim.running()), ["n2", "n3"].into());
    assert_eq!(sim.tasks(|task| task.desired_state <= TaskState::Running).len(), 2, "nothing waits for n1");
    sim.edit_node("n1", |node| node.spec.availability = NodeAvailability::Active);
    sim.run(10);
    assert_eq!(sim.running().len(), 3);
}

#[test]
fn a_global_task_that_ends_on_a_paused_node_is_not_restarted() {
    let mut sim = Sim::new(1);
    sim.put(global("flaky"));
    sim.run(1);
    sim.edit_node("n1", |node| node.spec.availability = NodeAvailability::Pause);
    sim.run(30);
    let tasks = sim.tasks(|_| true);
    assert_eq!(tasks.len(), 1);
    assert_eq!((tasks[0].status.state, tasks[0].desired_state), (TaskState::Failed, TaskState::Shutdown));
}

#[test]
fn a_global_task_is_restarted_on_its_node() {
    let mut sim = Sim::new(2);
    sim.put(global("flaky"));
    sim.run(8);
    assert_eq!(nodes_of(&sim.tasks(|task| task.desired_state <= TaskState::Running)), ["n1", "n2"].into());
    assert!(sim.tasks(|_| true).len() >= 4);
}

#[test]
fn the_global_tasks_of_a_deleted_node_are_deleted() {
    let mut sim = Sim::new(2);
    sim.put(global("ok"));
    sim.run(10);
    let gone = sim.view.node(&"n1".into()).unwrap().clone();
    sim.remove((*gone).clone());
    sim.settle();
    assert_eq!(nodes_of(&sim.tasks(|_| true)), ["n2"].into());
}

#[test]
fn a_global_update_goes_node_by_node_and_leaves_paused_nodes_alone() {
    let mut sim = Sim::new(3);
    sim.put(global("ok"));
    sim.run(10);
    sim.edit_node("n2", |node| node.spec.availability = NodeAvailability::Pause);
    sim.update_service("s", |spec| set_image(spec, "fine"));
    sim.settle();
    assert_eq!(sim.tasks(|task| image(task) == "fine").len(), 1);
    sim.run(30);
    assert_eq!(nodes_of(&sim.tasks(|task| image(task) == "fine")), ["n1", "n3"].into());
    assert_eq!(sim.update_status().0, UpdateState::Completed);
    sim.edit_node("n2", |node| node.spec.availability = NodeAvailability::Active);
    sim.run(30);
    assert_eq!(nodes_of(&sim.tasks(|task| image(task) == "fine" && is_up(task))), ["n1", "n2", "n3"].into());
}

#[test]
fn a_global_service_follows_its_constraints() {
    let mut sim = Sim::new(3);
    sim.put(global("ok"));
    sim.run(10);
    sim.update_service("s", |spec| constrain(spec, "node.id!=n2"));
    sim.run(20);
    assert_eq!(nodes_of(&sim.running()), ["n1", "n3"].into());
    sim.update_service("s", |spec| constrain(spec, "node.id==n2"));
    sim.run(20);
    assert_eq!(nodes_of(&sim.running()), ["n2"].into());
}

#[test]
fn after_a_day_down_the_tasks_of_a_node_are_orphaned() {
    let mut sim = Sim::new(1);
    sim.put(replicated(1, "ok"));
    sim.run(10);
    let id = sim.running()[0].id.clone();
    sim.silent.insert("n1".into());
    sim.set_state("n1", NodeState::Down);
    sim.run(23 * 3600);
    assert_eq!(sim.view.task(&id).unwrap().status.state, TaskState::Running, "last known state");
    sim.run(2 * 3600);
    assert_eq!(sim.view.task(&id).unwrap().status.state, TaskState::Orphaned);
}

#[test]
fn a_node_that_comes_back_within_the_day_is_left_alone() {
    let mut sim = Sim::new(1);
    sim.put(replicated(1, "ok"));
    sim.run(10);
    sim.silent.insert("n1".into());
    sim.set_state("n1", NodeState::Down);
    sim.run(20 * 3600);
    sim.silent.clear();
    sim.set_state("n1", NodeState::Ready);
    sim.run(8 * 3600);
    assert_eq!(sim.running().len(), 1);
    assert_eq!(sim.tasks(|task| task.status.state == TaskState::Orphaned).len(), 0);
    assert_eq!(sim.tasks(|task| task.status.state == TaskState::Shutdown).len(), 1, "the old one was shut down");
}

#[test]
fn deleting_a_node_orphans_its_tasks_at_once() {
    let mut sim = Sim::new(2);
    sim.put(replicated(2, "ok"));
    sim.run(10);
    let gone = sim.view.node(&"n1".into()).unwrap().clone();
    sim.remove((*gone).clone());
    sim.settle();
    let orphans = sim.tasks(|task| task.status.state == TaskState::Orphaned);
    assert_eq!(orphans.len(), 1);
    assert_eq!(orphans[0].status.message, NODE_DELETED_MESSAGE);
    sim.run(20);
    assert_eq!(nodes_of(&sim.running()), ["n2"].into());
    assert_eq!(sim.running().len(), 2);
}

#[test]
fn a_task_whose_node_no_longer_meets_the_constraints_is_rejected_and_replaced() {
    let mut sim = Sim::new(2);
    for id in ["n1", "n2"] {
        sim.edit_node(id, |node| drop(node.spec.annotations.labels.insert("zone".into(), "a".into())));
    }
    let mut service = replicated(1, "ok");
    constrain(&mut service.spec, "node.labels.zone==a");
    sim.put(service);
    sim.run(10);
    let old = sim.running()[0].clone();
    let node = old.node_id.clone().unwrap();
    sim.edit_node(node.as_str(), |node| node.spec.annotations.labels.clear());
    sim.settle();
    let old = sim.view.task(&old.id).unwrap();
    assert_eq!(old.status.state, TaskState::Rejected);
    assert_eq!((old.status.message.as_str(), old.status.err.as_str()), (REJECTED_MESSAGE, REJECTED_ERROR));
    sim.run(20);
    assert_eq!(sim.running().len(), 1);
    assert_ne!(sim.running()[0].node_id, Some(node));
}

#[test]
fn on_paused_nodes_nothing_is_rejected() {
    let mut sim = Sim::new(1);
    sim.edit_node("n1", |node| drop(node.spec.annotations.labels.insert("zone".into(), "a".into())));
    let mut service = replicated(1, "ok");
    constrain(&mut service.spec, "node.labels.zone==a");
    sim.put(service);
    sim.run(10);
    sim.edit_node("n1", |node| {
        node.spec.annotations.labels.clear();
        node.spec.availability = NodeAvailability::Pause;
    });
    sim.run(10);
    assert_eq!(sim.running().len(), 1);
}

#[test]
fn tasks_beyond_what_the_node_has_left_are_rejected() {
    let mut sim = Sim::new(1);
    let mut service = replicated(3, "ok");
    edit_task_spec(&mut service.spec, |task| {
        let reservations = Some(Resources { nano_cpus: 1_000_000_000, ..Default::default() });
        task.resources = Some(ResourceRequirements { reservations, ..Default::default() });
    });
    sim.put(service);
    sim.run(10);
    assert_eq!(sim.running().len(), 3);
    let resources = |sim: &mut Sim, nano_cpus: i64| {
        sim.edit_node("n1", |node| {
            let description = node.description.as_mut().unwrap();
            description.resources.as_mut().unwrap().nano_cpus = nano_cpus;
        });
    };
    resources(&mut sim, 2_000_000_000);
    sim.settle();
    assert_eq!(sim.tasks(|task| task.status.state == TaskState::Rejected).len(), 1);
    sim.run(10);
    assert_eq!(sim.running().len(), 2);
    assert_eq!(sim.leader.waiting_count(), 1);
}

#[test]
fn one_missing_generic_resource_ends_the_pass() {
    let mut sim = Sim::new(1);
    let gpus = |names: &[&str]| names.iter().map(|it| crate::scheduler::generic::named("gpu", it)).collect::<Vec<_>>();
    let set = |sim: &mut Sim, names: &[&str]| {
        let generic = gpus(names);
        sim.edit_node("n1", |node| node.description.as_mut().unwrap().resources.as_mut().unwrap().generic = generic);
    };
    set(&mut sim, &["a", "b"]);
    let mut service = replicated(2, "ok");
    edit_task_spec(&mut service.spec, |task| {
        let generic = vec![crate::scheduler::generic::discrete("gpu", 1)];
        let reservations = Some(Resources { generic, ..Default::default() });
        task.resources = Some(ResourceRequirements { reservations, ..Default::default() });
    });
    sim.put(service);
    sim.run(10);
    assert_eq!(sim.running().len(), 2);
    set(&mut sim, &[]);
    sim.settle();
    assert_eq!(sim.tasks(|task| task.status.state == TaskState::Rejected).len(), 1);
}

#[test]
fn the_tasks_of_a_node_that_goes_down_have_other_nodes_in_the_same_step() {
    let mut sim = Sim::new(3);
    sim.put(replicated(9, "ok"));
    sim.run(10);
    sim.written.clear();
    sim.silent.insert("n2".into());
    sim.set_state("n2", NodeState::Down);
    assert!(sim.step());
    assert_eq!(sim.written.len(), 1, "in one batch");
    let new = sim.tasks(|task| task.desired_state == TaskState::Ready);
    assert_eq!(new.len(), 3);
    assert!(new.iter().all(|task| task.status.state == TaskState::Assigned));
    assert_eq!(nodes_of(&new), ["n1", "n3"].into());
    assert!(!sim.step(), "and that is all");
}

#[test]
fn a_drained_nodes_tasks_have_other_nodes_in_the_same_step() {
    let mut sim = Sim::new(3);
    sim.put(replicated(6, "ok"));
    sim.run(10);
    sim.written.clear();
    sim.drain("n1");
    assert!(sim.step());
    let new = sim.tasks(|task| task.desired_state == TaskState::Ready);
    assert_eq!((new.len(), sim.written.len()), (2, 1));
    assert!(new.iter().all(|task| task.status.state == TaskState::Assigned));
}

#[test]
fn tasks_that_no_node_can_take_wait_for_the_first_that_can() {
    let mut sim = Sim::new(1);
    sim.put(replicated(2, "ok"));
    sim.run(10);
    sim.silent.insert("n1".into());
    sim.set_state("n1", NodeState::Down);
    sim.run(30);
    assert_eq!(sim.leader.waiting_count(), 2);
    sim.put(node("n2"));
    sim.step();
    assert_eq!(sim.leader.waiting_count(), 0, "in the step in which it joins");
    sim.run(2);
    assert_eq!(nodes_of(&sim.running()), ["n2"].into());
}

#[test]
fn a_global_service_leaves_a_node_that_is_down_and_is_back_with_it() {
    let mut sim = Sim::new(2);
    sim.put(global("ok"));
    sim.run(10);
    let lost = sim.running().iter().find(|task| task.node_id == Some("n1".into())).unwrap().id.clone();
    sim.silent.insert("n1".into());
    sim.set_state("n1", NodeState::Down);
    sim.run(20);
    assert_eq!(sim.view.task(&lost).unwrap().desired_state, TaskState::Shutdown);
    assert_eq!(sim.tasks(|task| task.desired_state <= TaskState::Running).len(), 1, "nothing waits for n1");
    sim.silent.clear();
    sim.set_state("n1", NodeState::Ready);
    sim.run(20);
    assert_eq!(nodes_of(&sim.running()), ["n1", "n2"].into());
    assert!(!is_up(sim.view.task(&lost).unwrap()));
}

#[test]
fn a_global_service_follows_the_labels_of_nodes() {
    let mut sim = Sim::new(2);
    let mark = |sim: &mut Sim, id: &str, value: &str| {
        sim.edit_node(id, |node| drop(node.spec.annotations.labels.insert("edge".into(), value.into())));
    };
    mark(&mut sim, "n1", "yes");
    let mut service = global("ok");
    constrain(&mut service.spec, "node.labels.edge==yes");
    sim.put(service);
    sim.run(10);
    assert_eq!(nodes_of(&sim.running()), ["n1"].into());
    mark(&mut sim, "n2", "yes");
    mark(&mut sim, "n1", "no");
    sim.run(20);
    assert_eq!(nodes_of(&sim.running()), ["n2"].into());
    assert_eq!(sim.tasks(|task| task.desired_state <= TaskState::Running).len(), 1);
}

#[test]
fn on_drained_nodes_nothing_is_rejected() {
    let mut sim = Sim::new(2);
    let mut service = replicated(1, "ok");
    constrain(&mut service.spec, "node.labels.zone!=b");
    sim.put(service);
    sim.run(10);
    let old = sim.running()[0].clone();
    sim.edit_node(old.node_id.clone().unwrap().as_str(), |node| {
        node.spec.annotations.labels.insert("zone".into(), "b".into());
        node.spec.availability = NodeAvailability::Drain;
    });
    sim.run(10);
    assert_eq!(sim.view.task(&old.id).unwrap().status.state, TaskState::Shutdown, "it was stopped, not rejected");
    assert_eq!(sim.running().len(), 1);
}

#[test]
fn the_services_present_constraints_count_and_a_lone_tasks_own() {
    let mut sim = Sim::new(1);
    sim.put(replicated(1, "ok"));
    let mut lone = Task { id: "lone".into(), node_id: Some("n1".into()), ..Default::default() };
    let constraints = vec!["node.labels.zone!=b".to_owned()];
    let placement = Some(Placement { constraints, ..Default::default() });
    lone.spec = Arc::new(TaskSpec { placement: placement.clone(), ..Default::default() });
    lone.desired_state = TaskState::Running;
    lone.status.state = TaskState::Running;
    sim.put(lone);
    sim.run(10);
    let of_service = sim.running()[0].id.clone();
    // The placement alone has changed: the task is as old as before.
    sim.update_service("s", |spec| edit_task_spec(spec, |task| task.placement = placement));
    sim.run(10);
    assert_eq!(sim.running()[0].id, of_service);
    sim.edit_node("n1", |node| drop(node.spec.annotations.labels.insert("zone".into(), "b".into())));
    sim.settle();
    for id in [of_service, "lone".into()] {
        assert_eq!(sim.view.task(&id).unwrap().status.state, TaskState::Rejected, "{id}");
    }
}

#[test]
fn memory_and_counted_pieces_that_are_gone_reject_the_tasks_beyond_them() {
    let discrete = crate::scheduler::generic::discrete;
    let check = |reserved: Resources, full: Resources, less: Resources, rejected: usize| {
        let mut sim = Sim::new(1);
        let set = |sim: &mut Sim, resources: &Resources| {
            sim.edit_node("n1", |node| node.description.as_mut().unwrap().resources = Some(resources.clone()));
        };
        set(&mut sim, &full);
        let mut service = replicated(3, "ok");
        edit_task_spec(&mut service.spec, |task| {
            task.resources = Some(ResourceRequirements { reservations: Some(reserved), ..Default::default() });
        });
        sim.put(service);
        sim.run(10);
        assert_eq!(sim.running().len(), 3);
        set(&mut sim, &less);
        sim.settle();
        assert_eq!(sim.tasks(|task| task.status.state == TaskState::Rejected).len(), rejected);
    };
    let memory = |memory_bytes| Resources { memory_bytes, ..Default::default() };
    check(memory(1 << 30), memory(4 << 30), memory(1 << 30), 2);
    let pieces = |value| Resources { generic: vec![discrete("ssd", value)], ..Default::default() };
    check(pieces(2), pieces(6), pieces(5), 1);
    check(pieces(2), pieces(6), pieces(6), 0);
}

#[test]
fn what_a_job_has_completed_is_not_rejected() {
    let mut sim = Sim::new(1);
    let mode = ServiceMode::ReplicatedJob(ReplicatedJob { max_concurrent: 1, total_completions: 1 });
    let mut service = service(mode, "done");
    constrain(&mut service.spec, "node.labels.zone!=b");
    sim.put(service);
    sim.run(20);
    sim.edit_node("n1", |node| drop(node.spec.annotations.labels.insert("zone".into(), "b".into())));
    sim.run(20);
    assert_eq!(sim.tasks(|_| true).len(), 1);
    assert_eq!(sim.tasks(|_| true)[0].status.state, TaskState::Complete);
}

#[test]
fn the_tasks_of_a_jobs_node_that_is_down_are_orphaned_too_and_the_job_is_done() {
    let mut sim = Sim::new(2);
    sim.put(service(ServiceMode::GlobalJob(GlobalJob), "ok"));
    sim.run(10);
    sim.silent.insert("n1".into());
    sim.set_state("n1", NodeState::Down);
    sim.run(25 * 3600);
    let orphan = sim.tasks(|task| task.node_id == Some("n1".into()));
    assert_eq!(orphan.iter().map(|task| task.status.state).collect::<Vec<_>>(), [TaskState::Orphaned]);
    assert_eq!(sim.running().len(), 0, "a job's tasks shall complete, not run");
    assert_eq!(sim.tasks(is_up).len(), 1);
}
