//! The planners together: what one step gives, and what it costs.

use super::sim::*;
use crate::allocator::new_ingress_network;
use crate::leader::Leader;
use model::*;
use std::collections::BTreeSet;
use store::ActionKind;

fn published(replicas: u64) -> Service {
    let mut service = replicated(replicas, "ok");
    let port = PortConfig { target_port: 80, published_port: 8080, ..Default::default() };
    service.spec.endpoint = Some(EndpointSpec { ports: vec![port], ..Default::default() });
    service
}

fn with_ingress(nodes: usize) -> Sim {
    let mut sim = Sim::new(nodes);
    sim.put(new_ingress_network("ingress".into()));
    sim.settle();
    sim.written.clear();
    sim
}

#[test]
fn a_published_service_gets_ports_addresses_tasks_and_nodes_in_one_batch() {
    let mut sim = with_ingress(2);
    sim.put(published(2));
    sim.step();
    assert_eq!(sim.written.len(), 1, "{:?}", sim.written.iter().map(Vec::len).collect::<Vec<_>>());
    let endpoint = sim.service("s").endpoint.clone().unwrap();
    assert_eq!((endpoint.virtual_ips.len(), endpoint.ports[0].published_port), (1, 8080));
    let mut addresses = BTreeSet::from([endpoint.virtual_ips[0].addr.clone()]);
    for task in sim.tasks(|_| true) {
        assert_eq!(task.status.state, TaskState::Assigned);
        assert_eq!(task.endpoint, Some(endpoint.clone()));
        addresses.extend(task.networks.iter().flat_map(|it| it.addresses.clone()));
    }
    for node in sim.view.nodes() {
        addresses.extend(node.attachments.iter().flat_map(|it| it.addresses.clone()));
    }
    assert_eq!(addresses.len(), 5, "a virtual one, two tasks', two nodes': {addresses:?}");
}

#[test]
fn in_one_step_an_object_is_written_once_and_a_new_one_is_created_in_its_last_state() {
    let mut sim = with_ingress(2);
    sim.put(published(2));
    sim.step();
    let kinds: Vec<_> = sim.written[0].iter().map(|action| (action.id().kind(), action.kind())).collect();
    let creates = kinds.iter().filter(|(_, kind)| *kind == ActionKind::Create).count();
    assert_eq!((creates, kinds.len()), (2, 3), "two tasks, the service's endpoint: {kinds:?}");
}

#[test]
fn a_failed_task_costs_one_batch_and_its_start_another() {
    let mut sim = with_ingress(2);
    sim.put(published(1));
    sim.run(5);
    sim.written.clear();
    let id = sim.running()[0].id.clone();
    sim.edit_task(&id, |task| task.status.state = TaskState::Failed);
    sim.settle();
    assert_eq!(sim.written.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    sim.written.clear();
    sim.run(10);
    assert_eq!(sim.written.iter().map(Vec::len).collect::<Vec<_>>(), [1], "desired RUNNING");
}

#[test]
fn a_published_port_is_free_again_when_its_service_is_gone() {
    let mut sim = with_ingress(1);
    sim.put(published(1));
    sim.run(5);
    let mut second = published(1);
    second.id = "t".into();
    second.spec.annotations.name = "t".into();
    sim.put(second);
    sim.run(5);
    assert_eq!(sim.view.service(&"t".into()).unwrap().endpoint, None, "the port is taken");
    let first = sim.service("s");
    sim.remove((*first).clone());
    sim.run(10);
    assert!(sim.view.service(&"t".into()).unwrap().endpoint.is_some());
    let runs = sim.view.tasks_of_service(&"t".into()).filter(|task| is_up(task)).count();
    assert_eq!(runs, 1);
}

#[test]
fn events_that_are_older_than_the_view_do_no_harm() {
    let mut sim = with_ingress(2);
    sim.put(published(2));
    sim.run(5);
    sim.update_service("s", |spec| set_image(spec, "fine"));
    sim.run(30);
    sim.leader = Leader::new(5);
    sim.leader.rebuild(&sim.view);
    sim.events = sim.history.clone();
    assert!(!sim.step());
}

#[test]
fn a_new_leader_of_a_swarm_at_rest_writes_nothing() {
    let mut sim = with_ingress(3);
    sim.put(published(4));
    sim.run(10);
    sim.new_leader(4);
    assert!(!sim.step());
}

#[test]
fn reasons_say_what_waits_and_the_task_says_it_too() {
    let mut sim = Sim::new(0);
    sim.put(replicated(1, "ok"));
    let events = std::mem::take(&mut sim.events);
    let plan = sim.leader.step(&sim.view, &events, sim.now);
    assert_eq!(plan.reasons.len(), 1);
    assert_eq!(plan.reasons[0].text, "no suitable node");
    assert_eq!(plan.batches.len(), 1);
}
