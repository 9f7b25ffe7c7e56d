//! The sentences of the allocator's rules, one test each.

use super::*;
use model::*;
use std::sync::Arc;

/// An allocator and the view it writes to.
struct Bench {
    allocator: Allocator,
    view: View,
    now: Timestamp,
    /// What happened since the last plan.
    events: Vec<Event>,
    last: Plan,
}

impl Bench {
    fn new() -> Self {
        let now = Timestamp { seconds: 1_000, nanos: 0 };
        let allocator = Allocator::new();
        Self { allocator, view: View::new(), now, events: Vec::new(), last: Plan::default() }
    }

    /// With the ingress network and one node.
    fn swarm() -> Self {
        let mut bench = Self::new();
        bench.put(new_ingress_network("ingress".into()));
        bench.put(Node { id: "n1".into(), ..Default::default() });
        bench.run();
        bench
    }

    /// Creates or updates an object.
    fn put(&mut self, object: impl Into<Object>) {
        let object = object.into();
        let mut transaction = Transaction::new(&self.view);
        if transaction.update(object.clone()).is_err() {
            transaction.create(object).unwrap();
        }
        self.events.extend(self.view.apply(&transaction.finish()).unwrap());
    }

    fn remove(&mut self, object: impl Into<Object>) {
        let events = self.view.apply(&[store::Action::Remove(object.into())]).unwrap();
        self.events.extend(events);
    }

    /// Plans until nothing is written any more.
    fn run(&mut self) {
        for _ in 0..10 {
            let events = std::mem::take(&mut self.events);
            self.last = self.allocator.plan(&self.view, &events, self.now);
            if self.last.actions.is_empty() && self.last.deadline.is_none_or(|at| at > self.now) {
                return;
            }
            self.events = self.view.apply(&self.last.actions).unwrap();
        }
        panic!("the allocator does not come to rest: {:?}", self.last);
    }

    /// As a new leader does.
    fn fail_over(&mut self) {
        self.allocator = Allocator::new();
        self.allocator.rebuild(&self.view);
        self.events.clear();
    }

    fn service(&self, id: &str) -> &Service {
        self.view.service(&id.into()).unwrap()
    }

    fn task(&self, id: &str) -> &Task {
        self.view.task(&id.into()).unwrap()
    }

    fn edit_task(&mut self, id: &str, edit: impl FnOnce(&mut Task)) {
        let mut task = self.task(id).clone();
        edit(&mut task);
        self.put(task);
    }

    fn node_addresses(&self, id: &str) -> Vec<String> {
        let node = self.view.node(&id.into()).unwrap();
        node.attachments.iter().flat_map(|it| it.addresses.clone()).collect()
    }

    fn ports(&self, id: &str) -> Vec<u32> {
        self.service(id).endpoint.iter().flat_map(|it| &it.ports).map(|port| port.published_port).collect()
    }

    fn vips(&self, id: &str) -> Vec<String> {
        self.service(id).endpoint.iter().flat_map(|it| &it.virtual_ips).map(|vip| vip.addr.clone()).collect()
    }

    fn addresses(&self, id: &str) -> Vec<String> {
        self.task(id).networks.iter().flat_map(|it| it.addresses.clone()).collect()
    }
}

fn port(published: u32, target: u32) -> PortConfig {
    PortConfig { published_port: published, target_port: target, ..Default::default() }
}

fn service(id: &str, ports: &[PortConfig], networks: &[&str]) -> Service {
    let targets = networks.iter().map(|it| NetworkAttachmentConfig { target: (*it).into(), ..Default::default() });
    let task = TaskSpec { networks: targets.collect(), ..Default::default() };
    let mut service = Service { id: id.into(), ..Default::default() };
    service.spec.annotations.name = id.into();
    service.spec.task = Arc::new(task);
    service.spec.endpoint = Some(EndpointSpec { ports: ports.to_vec(), ..Default::default() });
    service
}

fn task(id: &str, service: &str) -> Task {
    let service_id = Some(service.into());
    Task { id: id.into(), service_id, desired_state: TaskState::Running, ..Default::default() }
}

fn overlay(name: &str, subnet: &str) -> Network {
    let mut network = Network { id: name.into(), ..Default::default() };
    network.spec.annotations.name = name.into();
    if !subnet.is_empty() {
        let configs = vec![IpamConfig { subnet: subnet.into(), ..Default::default() }];
        network.spec.ipam = Some(IpamOptions { driver: None, configs });
    }
    network
}

#[test]
fn a_new_swarm_gets_its_ingress_network_and_the_nodes_address_on_it() {
    let bench = Bench::swarm();
    let network = bench.view.network(&"ingress".into()).unwrap();
    let ipam = network.ipam.as_ref().unwrap();
    assert_eq!(ipam.driver.as_ref().unwrap().name, "default");
    assert_eq!((ipam.configs[0].subnet.as_str(), ipam.configs[0].gateway.as_str()), ("10.0.0.0/24", "10.0.0.1"));
    let driver = network.driver_state.as_ref().unwrap();
    assert_eq!((driver.name.as_str(), driver.options[VXLAN_ID_LIST_OPTION].as_str()), ("overlay", "4096"));
    assert_eq!(bench.node_addresses("n1"), ["10.0.0.2/24"]);
    let node = bench.view.node(&"n1".into()).unwrap();
    assert!(node.attachments[0].network.as_ref().unwrap().driver_state.is_some(), "a full network");
}

#[test]
fn nothing_is_written_twice_nor_after_a_fail_over() {
    let mut bench = Bench::swarm();
    bench.put(overlay("web", ""));
    bench.put(service("s", &[port(0, 80)], &["web"]));
    bench.put(task("t", "s"));
    bench.run();
    let before = bench.view.snapshot();
    bench.run();
    bench.fail_over();
    bench.run();
    assert_eq!(bench.view.snapshot(), before);
}

#[test]
fn node_local_networks_get_a_driver_and_an_empty_ipam() {
    let mut bench = Bench::swarm();
    for (name, driver) in PREDEFINED_NETWORKS {
        bench.put(new_predefined_network(name.into(), name, driver));
    }
    bench.put(service("s", &[], &["host"]));
    bench.put(task("t", "s"));
    bench.run();
    let network = bench.view.network(&"host".into()).unwrap();
    assert_eq!(network.driver_state.as_ref().unwrap(), &Driver { name: "host".into(), ..Default::default() });
    assert_eq!(network.ipam.as_ref().unwrap().driver, Some(Driver::default()));
    assert_eq!(bench.vips("s"), [""], "an entry without an address");
    assert_eq!(bench.task("t").status.state, TaskState::Pending);
    assert_eq!((bench.task("t").networks.len(), bench.addresses("t").len()), (1, 0));
    assert_eq!(bench.node_addresses("n1").len(), 1);
}

#[test]
fn dynamic_ports_are_next_fit_and_explicit_ones_are_as_asked() {
    let mut bench = Bench::swarm();
    bench.put(service("a", &[port(0, 80), port(8080, 81)], &[]));
    bench.run();
    assert_eq!(bench.ports("a"), [8080, 30_000], "explicit ones come first");
    let a = bench.service("a").clone();
    bench.remove(a);
    bench.put(service("b", &[port(0, 80)], &[]));
    bench.run();
    assert_eq!(bench.ports("b"), [30_001], "the freed one is used last");
    assert_eq!(bench.service("b").spec.endpoint.as_ref().unwrap().ports[0].published_port, 0);
}

#[test]
fn protocols_have_ports_of_their_own_and_host_mode_is_not_central() {
    let mut bench = Bench::swarm();
    let udp = PortConfig { protocol: PortProtocol::Udp, ..port(53, 53) };
    let host = PortConfig { publish_mode: PublishMode::Host, ..port(53, 53) };
    bench.put(service("a", &[port(53, 53), udp], &[]));
    bench.put(service("b", std::slice::from_ref(&host), &[]));
    bench.run();
    assert_eq!((bench.ports("a"), bench.ports("b")), (vec![53, 53], vec![53]));
    assert!(bench.vips("b").is_empty(), "host mode needs no ingress");
    bench.put(service("c", &[PortConfig { published_port: 0, ..host }], &[]));
    bench.run();
    assert_eq!(bench.ports("c"), [0], "the node chooses");
}

#[test]
fn a_conflicting_port_waits_until_it_is_free() {
    let mut bench = Bench::swarm();
    bench.put(service("a", &[port(80, 80)], &[]));
    bench.run();
    bench.put(service("b", &[port(80, 80)], &[]));
    bench.put(task("t", "b"));
    bench.run();
    assert!(bench.service("b").endpoint.is_none());
    let why = "port '80' is already in use by service a as an ingress port";
    assert_eq!(bench.allocator.waiting_for(&ServiceId::from("b").into()), Some(why));
    assert_eq!(bench.task("t").status.state, TaskState::New);
    assert_eq!(bench.task("t").status.err, why);
    assert_eq!(bench.last.deadline, Some(bench.now.plus(RETRY_INTERVAL)));

    let a = bench.service("a").clone();
    bench.remove(a);
    bench.run();
    assert_eq!(bench.ports("b"), [80]);
    assert_eq!((bench.task("t").status.state, bench.task("t").status.err.as_str()), (TaskState::Pending, ""));
    assert_eq!(bench.last.deadline, None);
}

#[test]
fn dynamic_ports_survive_an_update_and_dropped_ones_are_freed() {
    let mut bench = Bench::swarm();
    bench.put(service("a", &[port(0, 80), port(0, 81)], &[]));
    bench.run();
    let mut changed = bench.service("a").clone();
    changed.spec.endpoint.as_mut().unwrap().ports = vec![port(0, 82), port(0, 81), port(9000, 90)];
    bench.put(changed);
    bench.run();
    assert_eq!(bench.ports("a"), [9000, 30_002, 30_001]);
    bench.put(service("b", &[port(30_000, 80)], &[]));
    bench.run();
    assert_eq!(bench.ports("b"), [30_000], "port 80's dynamic port is free");
}

#[test]
fn a_dynamic_search_passes_over_explicit_ports() {
    let mut bench = Bench::swarm();
    bench.put(service("a", &[port(30_000, 80)], &[]));
    bench.run();
    bench.put(service("b", &[port(0, 80)], &[]));
    bench.run();
    assert_eq!(bench.ports("b"), [30_001]);
}

#[test]
fn virtual_addresses_come_ingress_first_then_in_the_specs_order() {
    let mut bench = Bench::swarm();
    bench.put(overlay("web", ""));
    bench.put(overlay("data", ""));
    bench.run();
    bench.put(service("s", &[port(80, 80)], &["web", "data"]));
    bench.put(task("t", "s"));
    bench.run();
    let ids: Vec<_> =
        bench.service("s").endpoint.as_ref().unwrap().virtual_ips.iter().map(|it| it.network_id.as_str()).collect();
    assert_eq!(ids, ["ingress", "web", "data"]);
    assert_eq!(bench.vips("s")[0], "10.0.0.3/24");
    let task = bench.task("t");
    let ids: Vec<_> = task.networks.iter().map(|it| it.network.as_ref().unwrap().id.as_str()).collect();
    assert_eq!(ids, ["ingress", "web", "data"]);
    assert_eq!(bench.addresses("t")[0], "10.0.0.4/24");
    assert_eq!(task.endpoint, bench.service("s").endpoint, "a copy of the service's");
    assert_eq!(task.status.message, "pending task scheduling");
    assert_eq!(task.status.timestamp, Some(bench.now));
}

#[test]
fn dnsrr_has_no_virtual_address_and_switching_to_it_frees_them() {
    let mut bench = Bench::swarm();
    bench.put(overlay("web", "10.9.0.0/29"));
    bench.put(service("s", &[], &["web"]));
    bench.run();
    assert_eq!(bench.vips("s"), ["10.9.0.2/29"]);
    let mut changed = bench.service("s").clone();
    changed.spec.endpoint.as_mut().unwrap().mode = ResolutionMode::Dnsrr;
    bench.put(changed);
    bench.put(task("t", "s"));
    bench.run();
    assert!(bench.vips("s").is_empty());
    assert_eq!(bench.addresses("t"), ["10.9.0.3/29"]);
}

#[test]
fn the_deprecated_network_list_counts_only_without_task_networks() {
    let mut bench = Bench::swarm();
    bench.put(overlay("old", "10.8.0.0/24"));
    bench.put(overlay("new", "10.9.0.0/24"));
    let deprecated = vec![NetworkAttachmentConfig { target: "old".into(), ..Default::default() }];
    let mut a = service("a", &[], &[]);
    a.spec.networks = deprecated.clone();
    let mut b = service("b", &[], &["new"]);
    b.spec.networks = deprecated;
    bench.put(a);
    bench.put(b);
    bench.run();
    assert_eq!((bench.vips("a"), bench.vips("b")), (vec!["10.8.0.2/24".into()], vec!["10.9.0.2/24".to_owned()]));
}

/// The tasks that wait.
fn waiting(bench: &Bench) -> Vec<String> {
    let waiting = bench.view.tasks().filter(|it| it.status.state == TaskState::New);
    waiting.map(|it| it.id.to_string()).collect()
}

/// A network of six addresses with this many tasks of one service; the network's gateway and the service have one each.
fn small_network(tasks: usize) -> Bench {
    let mut bench = Bench::swarm();
    bench.put(overlay("tiny", "10.9.0.0/29"));
    bench.put(service("s", &[], &["tiny"]));
    for n in 0..tasks {
        let mut task = task(&format!("t{n}"), "s");
        task.spec = bench_spec("tiny");
        bench.put(task);
    }
    bench.run();
    bench
}

fn place(bench: &mut Bench, task: &str, node: &str) {
    bench.edit_task(task, |task| {
        task.node_id = Some(node.into());
        task.status.state = TaskState::Assigned;
    });
    bench.run();
}

#[test]
fn a_full_network_tells_why_and_a_stopped_task_makes_room_once() {
    let mut bench = small_network(6);
    let three = waiting(&bench);
    assert_eq!(three.len(), 3, "six addresses: gateway, service, three tasks, one for the node");
    assert_eq!(bench.task(&three[0]).status.err, "no address left in network tiny");
    bench.put(service("late", &[], &["tiny"]));
    bench.put(task("of-late", "late"));
    bench.run();
    assert_eq!(bench.task("of-late").status.err, "no address left in network tiny", "its service waits");
    let gone = bench.service("late").clone();
    bench.remove(bench.task("of-late").clone());
    bench.remove(gone);
    bench.edit_task("t0", |task| task.status.state = TaskState::Failed);
    bench.run();
    assert_eq!(waiting(&bench).len(), 2);
    // Removing the task later must not free the address, which another has now.
    let stopped = bench.task("t0").clone();
    bench.remove(stopped);
    bench.run();
    assert_eq!(waiting(&bench).len(), 2);
}

#[test]
fn an_address_is_kept_for_each_node_that_tasks_may_come_to() {
    let mut bench = small_network(0);
    for node in ["n2", "n3"] {
        bench.put(Node { id: node.into(), ..Default::default() });
    }
    for n in 0..4 {
        bench.put(Task { spec: bench_spec("tiny"), ..task(&format!("t{n}"), "s") });
    }
    bench.run();
    let waiting_now = waiting(&bench);
    assert_eq!(waiting_now.len(), 2, "two tasks and the two nodes where they may run");
    let running: Vec<String> = (0..4).map(|n| format!("t{n}")).filter(|it| !waiting_now.contains(it)).collect();
    // Both come to one node: one more may run there, or on another.
    place(&mut bench, &running[0], "n1");
    assert_eq!((waiting(&bench).len(), bench.node_addresses("n1").len()), (2, 2));
    place(&mut bench, &running[1], "n1");
    let last = waiting(&bench);
    assert_eq!(last.len(), 2, "the last address may be needed by the node that the third would come to");
    for node in ["n2", "n3"] {
        let node = bench.view.node(&node.into()).unwrap().clone();
        bench.remove(node);
    }
    bench.run();
    assert_eq!(waiting(&bench).len(), 1, "there is but one node, and it has its address");
    bench.fail_over();
    bench.run();
    assert_eq!(waiting(&bench).len(), 1);
}

#[test]
fn an_attachment_keeps_an_address_for_its_node_until_that_has_it() {
    let mut bench = small_network(0);
    let attachment = |id: &str, asked: &[&str]| {
        let mut spec = (*bench_spec("tiny")).clone();
        spec.networks[0].addresses = asked.iter().map(|it| (*it).to_owned()).collect();
        let node_id = Some("n1".into());
        let desired_state = TaskState::Running;
        Task { id: id.into(), node_id, spec: Arc::new(spec), desired_state, ..Default::default() }
    };
    for (id, asked) in [("a", None), ("b", Some("10.9.0.6")), ("c", None), ("d", Some("10.9.0.5")), ("e", None)] {
        bench.put(attachment(id, asked.as_slice()));
        bench.run();
    }
    assert_eq!(waiting(&bench), ["d", "e"]);
    assert_eq!(bench.task("d").status.err, "address 10.9.0.5 is already in use in network tiny");
    assert_eq!(bench.task("e").status.err, "no address left in network tiny");
    assert_eq!(bench.node_addresses("n1").len(), 2);
    assert_eq!(bench.addresses("b"), ["10.9.0.6/29"]);
}

#[test]
fn tasks_have_an_address_of_ipv4_whatever_else_there_is() {
    let mut bench = Bench::swarm();
    let mut network = overlay("v6", "fd00::/64");
    network.spec.ipam.as_mut().unwrap().configs[0].gateway = "fd00::1".into();
    bench.put(network);
    let mut both = overlay("both", "fd00:1::/64");
    let v4 = IpamConfig { subnet: "10.9.0.0/24".into(), ..Default::default() };
    both.spec.ipam.as_mut().unwrap().configs.push(v4);
    bench.put(both);
    for (id, network, asked) in [("a", "v6", None), ("b", "both", None), ("c", "both", Some("fd00:1::9"))] {
        let mut spec = (*bench_spec(network)).clone();
        spec.networks[0].addresses = asked.into_iter().map(str::to_owned).collect();
        bench.put(Task {
            id: id.into(),
            spec: Arc::new(spec),
            desired_state: TaskState::Running,
            ..Default::default()
        });
        bench.run();
    }
    let subnets = |bench: &Bench, id: &str| -> Vec<String> {
        let network = bench.view.network(&id.into()).unwrap();
        network.ipam.as_ref().unwrap().configs.iter().map(|it| it.subnet.clone()).collect()
    };
    assert_eq!(subnets(&bench, "v6"), ["fd00::/64", "10.0.1.0/24"]);
    assert_eq!(bench.addresses("a"), ["10.0.1.2/24"]);
    assert_eq!(bench.addresses("b"), ["10.9.0.2/24"]);
    assert_eq!(bench.addresses("c"), ["10.9.0.3/24", "fd00:1::9/64"]);
    let state = bench.view.network(&"both".into()).unwrap().driver_state.clone().unwrap();
    assert!(!state.options[VXLAN_ID_LIST_OPTION].contains(','), "one tunnel");
}

fn bench_spec(network: &str) -> Arc<TaskSpec> {
    let target = NetworkAttachmentConfig { target: network.into(), ..Default::default() };
    Arc::new(TaskSpec { networks: vec![target], ..Default::default() })
}

#[test]
fn a_new_leader_knows_every_address_in_use() {
    let mut bench = Bench::swarm();
    bench.put(overlay("web", ""));
    bench.put(service("s", &[port(0, 80)], &["web"]));
    for n in 0..5 {
        bench.put(task(&format!("t{n}"), "s"));
    }
    bench.run();
    bench.fail_over();
    bench.put(overlay("more", ""));
    bench.put(service("u", &[port(0, 80)], &["web"]));
    bench.put(task("u1", "u"));
    bench.put(Node { id: "n2".into(), ..Default::default() });
    bench.run();
    let mut all: Vec<String> = bench.view.tasks().flat_map(|it| bench.addresses(it.id.as_str())).collect();
    all.extend(bench.view.services().flat_map(|it| bench.vips(it.id.as_str())));
    all.extend(bench.view.nodes().flat_map(|it| bench.node_addresses(it.id.as_str())));
    let unique: BTreeSet<_> = all.iter().collect();
    assert_eq!(unique.len(), all.len(), "{all:?}");
    assert_eq!(bench.ports("u"), [30_001]);
    let subnets: BTreeSet<_> =
        bench.view.networks().map(|it| it.ipam.clone().unwrap().configs[0].subnet.clone()).collect();
    assert_eq!(subnets.into_iter().collect::<Vec<_>>(), ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]);
}

#[test]
fn a_node_has_an_address_on_the_overlays_of_its_live_tasks() {
    let mut bench = Bench::swarm();
    bench.put(overlay("web", "10.9.0.0/24"));
    bench.put(service("s", &[], &["web"]));
    bench.put(task("t", "s"));
    bench.run();
    bench.edit_task("t", |task| {
        task.node_id = Some("n1".into());
        task.status.state = TaskState::Assigned;
    });
    bench.run();
    assert_eq!(bench.node_addresses("n1"), ["10.0.0.2/24", "10.9.0.4/24"]);
    bench.edit_task("t", |task| task.status.state = TaskState::Shutdown);
    bench.run();
    assert_eq!(bench.node_addresses("n1"), ["10.0.0.2/24"]);
}

#[test]
fn a_removed_network_gives_its_subnet_back() {
    let mut bench = Bench::swarm();
    bench.put(overlay("a", ""));
    bench.run();
    let a = bench.view.network(&"a".into()).unwrap().clone();
    bench.remove(a);
    bench.put(overlay("b", ""));
    bench.run();
    let b = bench.view.network(&"b".into()).unwrap();
    assert_eq!(b.ipam.as_ref().unwrap().configs[0].subnet, "10.0.1.0/24");
    assert_eq!(b.driver_state.as_ref().unwrap().options[VXLAN_ID_LIST_OPTION], "4098", "ids are serial");
}

#[test]
fn a_subnet_in_use_and_bad_values_are_refused_with_a_reason() {
    let check = |network: Network, expected: &str| {
        let mut bench = Bench::swarm();
        let id = network.id.clone();
        bench.put(network);
        bench.run();
        assert_eq!(bench.allocator.waiting_for(&id.into()), Some(expected));
    };
    check(
        overlay("a", "10.0.0.128/25"),
        "subnet 10.0.0.128/25 overlaps with 10.0.0.0/24, which is in use by another network",
    );
    check(overlay("a", "nonsense"), "invalid subnet nonsense");
    let mut gateway = overlay("a", "10.9.0.0/24");
    gateway.spec.ipam.as_mut().unwrap().configs[0].gateway = "10.8.0.1".into();
    check(gateway, "gateway 10.8.0.1 is not in subnet 10.9.0.0/24");
    let option = |list: &str| {
        let options = [(VXLAN_ID_LIST_OPTION.to_owned(), list.to_owned())].into();
        let mut network = overlay("a", "");
        network.spec.driver_config = Some(Driver { name: "overlay".into(), options });
        network
    };
    check(option("256"), "VXLAN id 256 is below 4096");
    check(option("4096"), "VXLAN id 4096 is not available");
}

#[test]
fn options_of_the_driver_are_kept_and_ids_may_be_asked_for() {
    let mut bench = Bench::swarm();
    let mut network = overlay("a", "10.9.0.0/24");
    let options = [("encrypted".to_owned(), String::new()), (VXLAN_ID_LIST_OPTION.to_owned(), "5000".to_owned())];
    network.spec.driver_config = Some(Driver { name: "overlay".into(), options: options.clone().into() });
    bench.put(network);
    bench.run();
    let network = bench.view.network(&"a".into()).unwrap();
    assert_eq!(network.driver_state.as_ref().unwrap().options, options.into());
}

#[test]
fn the_clusters_pools_are_used() {
    let mut bench = Bench::new();
    let pools = vec!["172.20.0.0/16".to_owned()];
    bench.put(Cluster { id: "c".into(), default_address_pool: pools, subnet_size: 26, ..Default::default() });
    bench.put(new_ingress_network("ingress".into()));
    bench.run();
    let network = bench.view.network(&"ingress".into()).unwrap();
    assert_eq!(network.ipam.as_ref().unwrap().configs[0].subnet, "172.20.0.0/26");
}

#[test]
fn an_attachment_may_ask_for_its_address() {
    let mut bench = Bench::swarm();
    bench.put(overlay("web", "10.9.0.0/24"));
    let config = |address: &str| {
        let addresses = vec![address.to_owned()];
        let config = NetworkAttachmentConfig { target: "web".into(), addresses, ..Default::default() };
        Arc::new(TaskSpec { networks: vec![config], ..Default::default() })
    };
    let task = |id: &str, address: &str| Task {
        id: id.into(),
        spec: config(address),
        desired_state: TaskState::Running,
        ..Default::default()
    };
    bench.put(task("a", "10.9.0.77"));
    bench.put(task("b", "10.9.0.77"));
    bench.run();
    assert_eq!(bench.addresses("a"), ["10.9.0.77/24"]);
    assert_eq!(bench.task("b").status.err, "address 10.9.0.77 is already in use in network web");
}

#[test]
fn a_service_waits_for_its_network_and_a_missing_ingress() {
    let mut bench = Bench::new();
    bench.put(service("s", &[port(80, 80)], &["web"]));
    bench.run();
    assert_eq!(bench.allocator.waiting_for(&ServiceId::from("s").into()), Some("ingress network is missing"));
    bench.put(new_ingress_network("ingress".into()));
    bench.run();
    assert_eq!(bench.allocator.waiting_for(&ServiceId::from("s").into()), Some("network web not found"));
    bench.put(overlay("web", ""));
    bench.run();
    assert_eq!(bench.vips("s").len(), 2);
}

#[test]
fn what_waits_is_tried_again_after_five_minutes() {
    let mut bench = Bench::swarm();
    bench.put(service("s", &[port(70_000, 80)], &[]));
    bench.run();
    assert_eq!(bench.allocator.waiting_for(&ServiceId::from("s").into()), Some("published port 70000 is out of range"));
    let first = bench.last.deadline.unwrap();
    bench.now = first;
    bench.run();
    assert_eq!(bench.last.deadline, Some(first.plus(RETRY_INTERVAL)));
}

#[test]
fn tasks_that_shall_not_run_are_left_alone() {
    let mut bench = Bench::swarm();
    bench.put(service("s", &[], &[]));
    bench.put(Task { desired_state: TaskState::Remove, ..task("t", "s") });
    bench.put(Task { desired_state: TaskState::Complete, ..task("job", "s") });
    bench.run();
    assert_eq!(bench.task("t").status.state, TaskState::New);
    assert_eq!(bench.task("job").status.state, TaskState::Pending);
}
