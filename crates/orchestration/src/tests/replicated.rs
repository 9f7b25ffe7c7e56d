//! Replicated services: slots, scaling, deletion, and the composition of all planners.

use super::sim::*;
use model::*;
use store::{Action, Object};

fn slots(sim: &Sim) -> Vec<u64> {
    sim.tasks(|task| task.desired_state == TaskState::Running).iter().map(|task| task.slot).collect()
}

#[test]
fn a_service_comes_out_of_one_step_with_assigned_tasks_in_one_batch() {
    let mut sim = Sim::new(3);
    sim.settle();
    sim.written.clear();
    sim.put(replicated(3, "ok"));
    assert!(sim.step());
    assert_eq!(sim.written.len(), 1);
    for task in sim.tasks(|_| true) {
        assert_eq!((task.status.state, task.desired_state), (TaskState::Assigned, TaskState::Running));
        assert_eq!(task.status.message, "scheduler assigned task to node");
        assert_eq!(task.id.as_str().len(), 25);
        assert_eq!(task.service_annotations.name, "s");
        assert_eq!(task.spec_version, Some(SpecVersion(0)));
        assert!(std::sync::Arc::ptr_eq(&task.spec, &sim.service("s").spec.task), "specs are shared");
        assert_eq!(task.meta.created_at, Some(sim.now));
    }
    let creates = sim.written[0].iter().filter(|action| matches!(action, Action::Create(Object::Task(_)))).count();
    assert_eq!(creates, 3);
    assert!(!sim.step(), "its own events bring nothing new");
}

#[test]
fn large_services_come_in_batches_of_two_hundred() {
    let mut sim = Sim::new(3);
    sim.settle();
    sim.written.clear();
    sim.put(replicated(450, "ok"));
    sim.step();
    let sizes: Vec<usize> = sim.written.iter().map(Vec::len).collect();
    assert_eq!(sizes, [200, 200, 50], "450 tasks");
    assert!(!sim.step());
}

#[test]
fn a_new_task_gets_the_clusters_log_driver_if_its_spec_has_none() {
    let mut sim = Sim::new(1);
    let mut cluster = (**sim.view.the_cluster().unwrap()).clone();
    cluster.spec.task_defaults.log_driver = Some(Driver { name: "fluentd".into(), ..Default::default() });
    sim.put(cluster);
    sim.put(replicated(1, "ok"));
    sim.settle();
    assert_eq!(sim.tasks(|_| true)[0].log_driver.as_ref().unwrap().name, "fluentd");
    sim.update_service("s", |spec| {
        edit_task_spec(spec, |task| task.log_driver = Some(Driver { name: "none".into(), ..Default::default() }));
    });
    sim.run(30);
    assert_eq!(sim.running()[0].log_driver.as_ref().unwrap().name, "none");
}

#[test]
fn scaling_up_fills_the_lowest_free_slots() {
    let mut sim = Sim::new(2);
    sim.put(replicated(3, "ok"));
    sim.run(10);
    let second = sim.tasks(|task| task.slot == 2)[0].clone();
    sim.remove((*second).clone());
    sim.update_service("s", |spec| set_replicas(spec, 4));
    sim.settle();
    assert_eq!(slots(&sim), [1, 2, 3, 4]);
    assert_eq!(sim.service("s").update_status, None, "scaling alone is no update");
}

#[test]
fn scaling_down_sets_remove_and_the_tasks_go_when_they_have_stopped() {
    let mut sim = Sim::new(2);
    sim.put(replicated(4, "ok"));
    sim.run(10);
    sim.update_service("s", |spec| set_replicas(spec, 1));
    sim.settle();
    assert_eq!(sim.tasks(|task| task.desired_state == TaskState::Remove).len(), 3);
    assert_eq!(sim.tasks(|_| true).len(), 4, "they are there until they stop");
    sim.run(10);
    assert_eq!(slots(&sim), [1]);
    assert_eq!(sim.tasks(|_| true).len(), 1);
}

#[test]
fn scaling_down_takes_tasks_that_do_not_run_before_those_that_do() {
    let mut sim = Sim::new(2);
    sim.put(replicated(2, "ok"));
    sim.run(10);
    // Slots 1 and 2 run on a node each; four more are not yet there.
    sim.silent = ["n1".into(), "n2".into()].into();
    sim.update_service("s", |spec| set_replicas(spec, 6));
    sim.settle();
    sim.update_service("s", |spec| set_replicas(spec, 2));
    sim.settle();
    assert_eq!(slots(&sim), [1, 2]);
    assert_eq!(sim.running().len(), 2);
}

#[test]
fn scaling_down_takes_slots_without_a_node_first_and_then_from_the_fullest_node() {
    let mut sim = Sim::new(2);
    sim.put(replicated(5, "ok"));
    sim.run(10);
    let ids: Vec<TaskId> = sim.tasks(|_| true).iter().map(|task| task.id.clone()).collect();
    for (n, id) in ids.iter().enumerate() {
        // n1 has slots 1, 2, 3; n2 has slot 4; slot 5 has no node.
        let node = ["n1", "n1", "n1", "n2"].get(n).map(|id| NodeId::from(*id));
        sim.edit_task(id, |task| {
            task.status.state = if node.is_some() { TaskState::Running } else { TaskState::Pending };
            task.node_id = node;
        });
    }
    sim.events.clear();
    sim.new_leader(1);
    sim.update_service("s", |spec| set_replicas(spec, 4));
    sim.edit_node("n1", |node| node.spec.availability = NodeAvailability::Pause);
    sim.edit_node("n2", |node| node.spec.availability = NodeAvailability::Pause);
    sim.settle();
    assert_eq!(slots(&sim), [1, 2, 3, 4]);
    sim.update_service("s", |spec| set_replicas(spec, 3));
    sim.settle();
    assert_eq!(slots(&sim), [1, 2, 4], "the third copy on n1 goes");
    sim.update_service("s", |spec| set_replicas(spec, 2));
    sim.settle();
    assert_eq!(slots(&sim), [1, 4], "then the second");
}

#[test]
fn deleting_a_service_sets_remove_and_deletes_its_tasks_once_they_stopped() {
    let mut sim = Sim::new(2);
    sim.put(replicated(3, "ok"));
    sim.run(10);
    let service = sim.service("s");
    sim.remove((*service).clone());
    sim.settle();
    assert_eq!(sim.tasks(|task| task.desired_state == TaskState::Remove && is_up(task)).len(), 3);
    sim.run(10);
    assert_eq!(sim.tasks(|_| true).len(), 0);
}

#[test]
fn tasks_that_got_nowhere_go_with_their_service_at_once() {
    let mut sim = Sim::new(0);
    sim.put(replicated(3, "ok"));
    sim.settle();
    assert_eq!(sim.tasks(|task| task.status.state == TaskState::Pending).len(), 3);
    assert_eq!(sim.leader.waiting_count(), 3);
    let service = sim.service("s");
    sim.remove((*service).clone());
    sim.settle();
    assert_eq!(sim.tasks(|_| true).len(), 0);
    assert_eq!(sim.leader.waiting_count(), 0);
}

#[test]
fn a_new_leader_gives_up_tasks_whose_service_is_gone() {
    let mut sim = Sim::new(1);
    sim.put(replicated(2, "ok"));
    sim.run(10);
    let service = sim.service("s");
    sim.remove((*service).clone());
    sim.new_leader(3);
    sim.run(5);
    assert_eq!(sim.tasks(|_| true).len(), 0);
}

#[test]
fn a_deleted_task_is_made_anew() {
    let mut sim = Sim::new(2);
    sim.put(replicated(2, "ok"));
    sim.run(10);
    let task = sim.running()[0].clone();
    sim.remove((*task).clone());
    sim.run(10);
    assert_eq!(sim.running().len(), 2);
}

#[test]
fn a_leader_with_the_seed_of_its_predecessor_makes_other_tasks() {
    let mut sim = Sim::new(1);
    sim.put(replicated(1, "ok"));
    sim.settle();
    sim.new_leader(7);
    sim.update_service("s", |spec| set_replicas(spec, 3));
    sim.run(5);
    assert_eq!(sim.running().len(), 3);
}
