//! The history of tasks.

use super::sim::*;
use model::*;

fn restart_often(replicas: u64, limit: i64, edit: impl FnOnce(&mut RestartPolicy)) -> Sim {
    let mut sim = Sim::new(2);
    let mut cluster = (**sim.view.the_cluster().unwrap()).clone();
    cluster.spec.orchestration.task_history_retention_limit = limit;
    sim.put(cluster);
    let mut service = replicated(replicas, "crash");
    set_restart(&mut service.spec, |policy| {
        policy.delay = Some(Duration::from_secs(1));
        edit(policy);
    });
    sim.put(service);
    sim.run(60);
    sim
}

fn slot(sim: &Sim, slot: u64) -> usize {
    sim.tasks(|task| task.slot == slot).len()
}

#[test]
fn a_slot_keeps_as_many_tasks_as_the_limit_the_live_one_included() {
    for limit in [1, 3, 5] {
        let sim = restart_often(2, limit, |_| {});
        assert_eq!((slot(&sim, 1), slot(&sim, 2)), (limit as usize, limit as usize));
    }
}

#[test]
fn the_oldest_go_first() {
    let sim = restart_often(1, 3, |_| {});
    let kept: Vec<_> = sim.tasks(|_| true).iter().map(|task| store::ObjectId::Task(task.id.clone())).collect();
    let creates = sim.written.iter().flatten().filter(|action| action.kind() == store::ActionKind::Create);
    let made: Vec<_> = creates.map(store::Action::id).collect();
    assert_eq!(kept, made[made.len() - 3..]);
}

#[test]
fn a_negative_limit_keeps_all() {
    assert!(slot(&restart_often(1, -1, |_| {}), 1) > 20);
}

#[test]
fn max_attempts_replace_the_limit() {
    let sim = restart_often(1, 1, |policy| policy.max_attempts = 7);
    assert_eq!(slot(&sim, 1), 8, "all of them, to count the attempts from");
}

#[test]
fn a_lower_limit_takes_effect_at_the_next_task() {
    let mut sim = restart_often(1, 5, |policy| policy.delay = Some(Duration::from_secs(10)));
    let mut cluster = (**sim.view.the_cluster().unwrap()).clone();
    cluster.spec.orchestration.task_history_retention_limit = 2;
    sim.put(cluster);
    sim.settle();
    assert_eq!(slot(&sim, 1), 5);
    sim.run(15);
    assert_eq!(slot(&sim, 1), 2);
}

#[test]
fn with_a_limit_of_zero_only_what_lives_is_kept() {
    let sim = restart_often(1, 0, |_| {});
    assert_eq!(slot(&sim, 1), 1);
}

#[test]
fn orphans_without_a_service_are_deleted() {
    let mut sim = Sim::new(2);
    sim.put(replicated(2, "ok"));
    sim.run(5);
    sim.silent.insert("n1".into());
    let service = sim.service("s");
    sim.remove((*service).clone());
    sim.run(5);
    assert_eq!(sim.tasks(|_| true).len(), 1, "n1 does not answer");
    let gone = sim.view.node(&"n1".into()).unwrap().clone();
    sim.remove((*gone).clone());
    sim.settle();
    assert_eq!(sim.tasks(|_| true).len(), 0);
}

#[test]
fn an_attachment_that_is_orphaned_is_deleted() {
    let mut sim = Sim::new(1);
    let mut task = Task { id: "t".into(), node_id: Some("n1".into()), ..Default::default() };
    task.status.state = TaskState::Orphaned;
    sim.put(task);
    sim.settle();
    assert!(sim.view.task(&"t".into()).is_none());
}
