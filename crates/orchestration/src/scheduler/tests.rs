//! The sentences of the scheduler's rules, one test each.

use super::*;
use model::*;
use store::Transaction;

/// A scheduler and the view it writes to.
pub(super) struct Bench {
    scheduler: Scheduler,
    pub(super) view: View,
    now: Timestamp,
    events: Vec<Event>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let now = Timestamp { seconds: 10_000, nanos: 0 };
        Self { scheduler: Scheduler::new(1), view: View::new(), now, events: Vec::new() }
    }

    /// With nodes n1, n2…
    fn with_nodes(count: usize) -> Self {
        let mut bench = Self::new();
        (1..=count).for_each(|n| bench.put(node(&format!("n{n}"))));
        bench
    }

    pub(super) fn put(&mut self, object: impl Into<Object>) {
        let object = object.into();
        let mut transaction = Transaction::new(&self.view);
        if transaction.update(object.clone()).is_err() {
            transaction.create(object).unwrap();
        }
        self.events.extend(self.view.apply(&transaction.finish()).unwrap());
    }

    pub(super) fn remove(&mut self, object: impl Into<Object>) {
        let events = self.view.apply(&[Action::Remove(object.into())]).unwrap();
        self.events.extend(events);
    }

    /// Plans until nothing is written any more.
    pub(super) fn run(&mut self) {
        for _ in 0..10 {
            let events = std::mem::take(&mut self.events);
            let plan = self.scheduler.plan(&self.view, &events, self.now);
            if plan.actions.is_empty() {
                return;
            }
            self.events = self.view.apply(&plan.actions).unwrap();
        }
        panic!("the scheduler does not come to rest");
    }

    pub(super) fn task(&self, id: &str) -> &Task {
        self.view.task(&id.into()).unwrap()
    }

    pub(super) fn edit_task(&mut self, id: &str, edit: impl FnOnce(&mut Task)) {
        let mut task = self.task(id).clone();
        edit(&mut task);
        self.put(task);
    }

    fn edit_node(&mut self, id: &str, edit: impl FnOnce(&mut Node)) {
        let mut node = (**self.view.node(&id.into()).unwrap()).clone();
        edit(&mut node);
        self.put(node);
    }

    fn node_of(&self, id: &str) -> Option<String> {
        self.task(id).node_id.as_ref().map(ToString::to_string)
    }

    /// Tasks of a service (or all) per node, n1 first.
    fn spread(&self, service: Option<&str>) -> Vec<usize> {
        let is_of = |task: &Task| service.is_none_or(|id| task.service_id.as_ref().is_some_and(|it| it.as_str() == id));
        self.view.nodes().map(|node| self.view.tasks_of_node(&node.id).filter(|task| is_of(task)).count()).collect()
    }

    fn tasks(&mut self, service: &str, count: usize, spec: &TaskSpec) {
        let first = self.view.tasks_of_service(&service.into()).count();
        if self.view.service(&service.into()).is_none() {
            self.put(Service { id: service.into(), spec_version: Some(SpecVersion(1)), ..Default::default() });
        }
        let spec = Arc::new(spec.clone());
        for n in first..first + count {
            self.put(Task { spec: spec.clone(), ..task(&format!("{service}-{n:03}"), service) });
        }
    }
}

pub(super) fn node(id: &str) -> Node {
    let resources = Resources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30, generic: Vec::new() };
    let description = NodeDescription {
        resources: Some(resources),
        platform: Some(Platform { os: "linux".into(), architecture: "x86_64".into() }),
        ..Default::default()
    };
    let mut node = Node { id: id.into(), description: Some(description), ..Default::default() };
    node.status.state = NodeState::Ready;
    node
}

pub(super) fn task(id: &str, service: &str) -> Task {
    let mut task = Task { id: id.into(), service_id: Some(service.into()), ..Default::default() };
    task.spec_version = Some(SpecVersion(1));
    task.desired_state = TaskState::Running;
    task.status.state = TaskState::Pending;
    task
}

fn placement(edit: impl FnOnce(&mut Placement)) -> TaskSpec {
    let mut placement = Placement::default();
    edit(&mut placement);
    TaskSpec { placement: Some(placement), ..Default::default() }
}

fn reserve(nano_cpus: i64, memory_bytes: i64, generic: Vec<GenericResource>) -> TaskSpec {
    let reservations = Some(Resources { nano_cpus, memory_bytes, generic });
    let resources = Some(ResourceRequirements { reservations, ..Default::default() });
    TaskSpec { resources, ..Default::default() }
}

#[test]
fn a_pending_task_gets_a_node() {
    let mut bench = Bench::with_nodes(1);
    bench.tasks("s", 1, &TaskSpec::default());
    bench.run();
    let task = bench.task("s-000");
    assert_eq!(task.node_id, Some("n1".into()));
    assert_eq!(task.status.state, TaskState::Assigned);
    assert_eq!(task.status.message, "scheduler assigned task to node");
    assert_eq!(task.status.timestamp, Some(bench.now));
}

#[test]
fn only_pending_tasks_that_shall_run_are_placed() {
    let check = |state: TaskState, desired_state: TaskState, expected: TaskState| {
        let mut bench = Bench::with_nodes(1);
        let mut task = task("t", "s");
        task.status.state = state;
        task.desired_state = desired_state;
        bench.put(Service { id: "s".into(), ..Default::default() });
        bench.put(task);
        bench.run();
        assert_eq!(bench.task("t").status.state, expected, "{state:?} {desired_state:?}");
    };
    use TaskState::*;
    check(New, Running, New);
    check(Pending, Ready, Assigned);
    check(Pending, Running, Assigned);
    check(Pending, Complete, Assigned);
    check(Pending, Remove, Pending);
    check(New, Shutdown, Shutdown);
    check(Pending, Shutdown, Shutdown);
}

#[test]
fn tasks_are_spread_evenly_and_services_do_not_disturb_each_other() {
    let mut bench = Bench::with_nodes(4);
    bench.tasks("a", 10, &TaskSpec::default());
    bench.run();
    let mut spread = bench.spread(Some("a"));
    spread.sort_unstable();
    assert_eq!(spread, [2, 2, 3, 3]);
    bench.tasks("b", 4, &TaskSpec::default());
    bench.run();
    assert_eq!(bench.spread(Some("b")), [1, 1, 1, 1], "fewer tasks of the service count more than fewer in total");
    bench.tasks("c", 2, &TaskSpec::default());
    bench.run();
    assert_eq!(bench.spread(None), [4, 4, 4, 4], "then fewer tasks in total");
}

#[test]
fn tasks_that_shall_not_run_do_not_count_for_ranking_but_hold_their_resources() {
    let mut bench = Bench::with_nodes(2);
    bench.tasks("a", 2, &reserve(3_000_000_000, 0, Vec::new()));
    bench.run();
    let gone = bench.view.tasks_of_node(&"n1".into()).next().unwrap().id.clone();
    bench.edit_task(gone.as_str(), |task| {
        task.desired_state = TaskState::Shutdown;
        task.status.state = TaskState::Running;
    });
    bench.tasks("b", 1, &TaskSpec::default());
    bench.run();
    assert_eq!(bench.node_of("b-000").as_deref(), Some("n1"));
    bench.tasks("c", 1, &reserve(3_000_000_000, 0, Vec::new()));
    bench.run();
    assert_eq!(bench.task("c-000").status.err, "no suitable node (insufficient resources on 2 nodes)");
    bench.edit_task(gone.as_str(), |task| task.status.state = TaskState::Shutdown);
    bench.run();
    assert_eq!(bench.node_of("c-000").as_deref(), Some("n1"), "tried again when something ended");
    assert_eq!(bench.task("c-000").status.err, "");
}

#[test]
fn each_filter_has_its_explanation() {
    let check = |nodes: usize, prepare: &dyn Fn(&mut Bench), spec: TaskSpec, expected: &str| {
        let mut bench = Bench::with_nodes(nodes);
        prepare(&mut bench);
        bench.tasks("s", 1, &spec);
        bench.run();
        let task = bench.task("s-000");
        assert_eq!((task.status.err.as_str(), task.status.state), (expected, TaskState::Pending));
    };
    let nothing = |_: &mut Bench| {};
    check(0, &nothing, TaskSpec::default(), "no suitable node");
    let down = |bench: &mut Bench| bench.edit_node("n1", |node| node.status.state = NodeState::Down);
    check(1, &down, TaskSpec::default(), "no suitable node (1 node not available for new tasks)");
    let drain = |bench: &mut Bench| {
        bench.edit_node("n1", |node| node.spec.availability = NodeAvailability::Drain);
        bench.edit_node("n2", |node| node.spec.availability = NodeAvailability::Pause);
    };
    check(2, &drain, TaskSpec::default(), "no suitable node (2 nodes not available for new tasks)");
    let much = reserve(0, 9 << 30, Vec::new());
    check(2, &nothing, much.clone(), "no suitable node (insufficient resources on 2 nodes)");
    let gpus = reserve(0, 0, vec![generic::discrete("gpu", 1)]);
    check(1, &nothing, gpus, "no suitable node (insufficient resources on 1 node)");
    let east = placement(|it| it.constraints = vec!["node.labels.zone==east".into()]);
    check(3, &nothing, east, "no suitable node (scheduling constraints not satisfied on 3 nodes)");
    let arm = placement(|it| it.platforms = vec![Platform { os: "linux".into(), architecture: "arm64".into() }]);
    check(1, &nothing, arm, "no suitable node (unsupported platform on 1 node)");
    check(3, &down, much, "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)");
    let plugin = |bench: &mut Bench| {
        bench.edit_node("n1", |node| {
            node.description.as_mut().unwrap().engine = Some(EngineDescription::default());
        });
    };
    let options = VolumeOptions {
        driver_config: Some(Driver { name: "nfs".into(), ..Default::default() }),
        ..Default::default()
    };
    let mount = Mount { kind: MountType::Volume, volume_options: Some(options), ..Default::default() };
    let container = ContainerSpec { mounts: vec![mount], ..Default::default() };
    let nfs = TaskSpec { runtime: Some(TaskRuntime::Container(container)), ..Default::default() };
    check(1, &plugin, nfs, "no suitable node (missing plugin on 1 node)");
}

#[test]
fn platforms_are_normalised_and_empty_fields_match_any() {
    let check = |architecture: &str, os: &str, fits: bool| {
        let mut bench = Bench::with_nodes(1);
        let platform = Platform { os: os.into(), architecture: architecture.into() };
        bench.tasks("s", 1, &placement(|it| it.platforms = vec![platform]));
        bench.run();
        assert_eq!(bench.node_of("s-000").is_some(), fits, "{architecture} {os}");
    };
    check("amd64", "linux", true);
    check("x86_64", "", true);
    check("", "linux", true);
    check("aarch64", "linux", false);
    check("amd64", "windows", false);
}

#[test]
fn plugins_are_asked_for_only_if_the_engine_lists_them() {
    let check = |plugins: &[(&str, &str)], fits: bool| {
        let mut bench = Bench::with_nodes(1);
        let plugin = |(kind, name): &(&str, &str)| PluginDescription { kind: (*kind).into(), name: (*name).into() };
        let plugins = plugins.iter().map(plugin).collect();
        bench.edit_node("n1", |node| {
            let engine = EngineDescription { plugins, ..Default::default() };
            node.description.as_mut().unwrap().engine = Some(engine);
        });
        let driver_state = Some(Driver { name: "overlay".into(), ..Default::default() });
        let network = Network { id: "web".into(), driver_state, ..Default::default() };
        let networks = vec![NetworkAttachment { network: Some(Arc::new(network)), ..Default::default() }];
        let log_driver = Some(Driver { name: "json-file".into(), ..Default::default() });
        bench.put(Service { id: "s".into(), ..Default::default() });
        let spec = Arc::new(TaskSpec { log_driver, ..Default::default() });
        bench.put(Task { networks, spec, ..task("t", "s") });
        bench.run();
        assert_eq!(bench.node_of("t").is_some(), fits, "{:?}", bench.task("t").status.err);
    };
    check(&[("Network", "overlay")], true);
    check(&[("Network", "overlay:latest"), ("Log", "json-file")], true);
    check(&[("Network", "bridge")], false);
    check(&[("Network", "overlay"), ("Log", "syslog")], false);
}

#[test]
fn host_ports_are_held_while_the_task_is_on_the_node() {
    let mut bench = Bench::with_nodes(2);
    let port =
        PortConfig { publish_mode: PublishMode::Host, published_port: 80, target_port: 80, ..Default::default() };
    let endpoint = Some(Endpoint { ports: vec![port], ..Default::default() });
    bench.put(Service { id: "s".into(), ..Default::default() });
    for id in ["a", "b", "c"] {
        bench.put(Task { endpoint: endpoint.clone(), ..task(id, "s") });
    }
    bench.run();
    assert_eq!(bench.spread(None), [1, 1]);
    let waiting = bench.view.tasks().find(|task| task.node_id.is_none()).unwrap().id.to_string();
    assert_eq!(bench.task(&waiting).status.err, "no suitable node (host-mode port already in use on 2 nodes)");
    let stopped = bench.view.tasks_of_node(&"n2".into()).next().unwrap().id.to_string();
    bench.edit_task(&stopped, |task| task.status.state = TaskState::Complete);
    bench.run();
    assert_eq!(bench.node_of(&waiting).as_deref(), Some("n2"));
}

#[test]
fn max_replicas_limits_tasks_of_the_service_on_a_node() {
    let mut bench = Bench::with_nodes(2);
    bench.tasks("s", 5, &placement(|it| it.max_replicas = 2));
    bench.run();
    assert_eq!(bench.spread(None), [2, 2]);
    let waiting = bench.view.tasks().find(|task| task.node_id.is_none()).unwrap();
    assert_eq!(waiting.status.err, "no suitable node (max replicas per node limit exceed)");
}

#[test]
fn named_generic_resources_are_recorded_in_the_task() {
    let mut bench = Bench::with_nodes(1);
    bench.edit_node("n1", |node| {
        let resources = node.description.as_mut().unwrap().resources.as_mut().unwrap();
        resources.generic = vec![generic::named("gpu", "a"), generic::named("gpu", "b"), generic::named("gpu", "c")];
    });
    let spec = reserve(0, 0, vec![generic::discrete("gpu", 2)]);
    bench.tasks("s", 2, &spec);
    bench.run();
    let placed = bench.view.tasks().find(|task| task.node_id.is_some()).unwrap();
    assert_eq!(placed.assigned_generic_resources, [generic::named("gpu", "a"), generic::named("gpu", "b")]);
    let id = placed.id.to_string();
    let waiting = bench.view.tasks().find(|task| task.node_id.is_none()).unwrap().id.to_string();
    bench.edit_task(&id, |task| task.status.state = TaskState::Failed);
    bench.run();
    assert_eq!(bench.task(&waiting).assigned_generic_resources.len(), 2);
}

#[test]
fn a_node_with_five_recent_failures_is_avoided() {
    let mut bench = Bench::with_nodes(2);
    let fail = |bench: &mut Bench, count: usize, at: &str| {
        for n in 0..count {
            let id = format!("dead-{at}-{n}");
            bench.put(Task { node_id: Some("n1".into()), ..task(&id, "s") });
            bench.edit_task(&id, |task| task.status.state = TaskState::Failed);
        }
    };
    fail(&mut bench, 4, "first");
    bench.run();
    bench.tasks("s", 2, &TaskSpec::default());
    bench.run();
    let alive = |bench: &Bench, node: &str| {
        bench.view.tasks_of_node(&node.into()).filter(|task| task.status.state == TaskState::Assigned).count()
    };
    assert_eq!((alive(&bench, "n1"), alive(&bench, "n2")), (1, 1), "four are not enough");
    fail(&mut bench, 1, "second");
    bench.tasks("s", 4, &TaskSpec::default());
    bench.run();
    assert_eq!((alive(&bench, "n1"), alive(&bench, "n2")), (1, 5));
    bench.tasks("other", 2, &TaskSpec::default());
    bench.run();
    assert_eq!((alive(&bench, "n1"), alive(&bench, "n2")), (2, 6), "another service is not concerned");
    bench.now = bench.now.plus(Duration::from_secs(301));
    bench.tasks("s", 4, &TaskSpec::default());
    bench.run();
    assert_eq!((alive(&bench, "n1"), alive(&bench, "n2")), (6, 6), "after five minutes it is forgotten");
}

#[test]
fn preferences_spread_over_label_values_level_by_level() {
    let mut bench = Bench::with_nodes(6);
    let labels = [("n1", "east", "r1"), ("n2", "east", "r1"), ("n3", "east", "r2"), ("n4", "west", "r1")];
    for (id, zone, rack) in labels {
        bench.edit_node(id, |node| {
            node.spec.annotations.labels = [("zone".into(), zone.into()), ("rack".into(), rack.into())].into();
        });
    }
    let spread = |label: &str| {
        let spread_descriptor = format!("node.labels.{label}");
        PlacementPreference { spread: Some(SpreadOver { spread_descriptor }) }
    };
    bench.tasks("s", 12, &placement(|it| it.preferences = vec![spread("zone"), spread("rack")]));
    bench.run();
    // A missing label is a value of its own: n5 and n6 share theirs.
    assert_eq!(bench.spread(None), [1, 1, 2, 4, 2, 2]);
    bench.tasks("s", 3, &placement(|it| it.preferences = vec![spread("zone"), spread("rack")]));
    bench.run();
    let found = bench.spread(None);
    assert_eq!((found[0] + found[1] + found[2], found[3], found[4] + found[5]), (5, 5, 5), "what is there counts");
}

#[test]
fn a_full_branch_of_the_preferences_gives_its_share_to_the_others() {
    let mut bench = Bench::with_nodes(3);
    bench.edit_node("n1", |node| {
        node.spec.annotations.labels = [("zone".into(), "east".into())].into();
        node.description.as_mut().unwrap().resources.as_mut().unwrap().nano_cpus = 1_000_000_000;
    });
    let descriptor = SpreadOver { spread_descriptor: "node.labels.zone".into() };
    let mut spec = reserve(1_000_000_000, 0, Vec::new());
    let preferences = vec![PlacementPreference { spread: Some(descriptor) }];
    spec.placement = Some(Placement { preferences, ..Default::default() });
    bench.tasks("s", 7, &spec);
    bench.run();
    let found = bench.spread(None);
    assert_eq!((found[0], found[1] + found[2]), (1, 6));
}

#[test]
fn preassigned_tasks_are_only_confirmed() {
    let mut bench = Bench::with_nodes(2);
    bench.put(Service { id: "s".into(), ..Default::default() });
    bench.put(Task { node_id: Some("n2".into()), ..task("fits", "s") });
    let spec = Arc::new(reserve(0, 9 << 30, Vec::new()));
    bench.put(Task { node_id: Some("n2".into()), spec, ..task("big", "s") });
    bench.run();
    let task = bench.task("fits");
    assert_eq!(task.status.message, "scheduler confirmed task can run on preassigned node");
    assert_eq!((task.status.state, bench.node_of("fits").as_deref()), (TaskState::Assigned, Some("n2")));
    let task = bench.task("big");
    assert_eq!(task.status.err, "insufficient resources on 1 node", "no prefix");
    assert_eq!(task.status.state, TaskState::Pending);
    bench
        .edit_node("n2", |node| node.description.as_mut().unwrap().resources.as_mut().unwrap().memory_bytes = 10 << 30);
    bench.run();
    assert_eq!(bench.task("big").status.state, TaskState::Assigned);
}

#[test]
fn waiting_tasks_are_tried_again_when_a_node_comes_or_changes() {
    let mut bench = Bench::new();
    bench.tasks("s", 2, &TaskSpec::default());
    bench.run();
    assert_eq!(bench.scheduler.waiting_count(), 2);
    bench.put(node("n1"));
    bench.run();
    assert_eq!(bench.spread(None), [2]);
    let n1 = bench.view.node(&"n1".into()).unwrap().clone();
    bench.remove(n1);
    bench.tasks("s", 1, &TaskSpec::default());
    bench.run();
    assert_eq!(bench.task("s-002").status.err, "no suitable node");
}

#[test]
fn tasks_of_an_outdated_spec_or_a_removed_service_are_not_queued_again() {
    let mut bench = Bench::new();
    bench.tasks("s", 1, &TaskSpec::default());
    bench.run();
    assert_eq!(bench.scheduler.waiting_count(), 1);
    let mut service = (**bench.view.service(&"s".into()).unwrap()).clone();
    service.spec_version = Some(SpecVersion(2));
    bench.put(service.clone());
    bench.run();
    assert_eq!(bench.scheduler.waiting_count(), 1, "a new version of the same spec replaces nothing");
    service.spec_version = Some(SpecVersion(3));
    Arc::make_mut(&mut service.spec.task).force_update += 1;
    bench.put(service);
    bench.run();
    assert_eq!(bench.scheduler.waiting_count(), 0);
    bench.put(task("orphan", "no such service"));
    bench.run();
    assert_eq!((bench.scheduler.waiting_count(), bench.task("orphan").status.err.as_str()), (0, ""));
}

#[test]
fn decisions_repeat_from_the_view_and_the_seed() {
    let run = || {
        let mut bench = Bench::with_nodes(7);
        bench.tasks("a", 20, &TaskSpec::default());
        bench.tasks("b", 5, &placement(|it| it.constraints = vec!["node.id!=n3".into()]));
        bench.run();
        bench.view.snapshot()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_rebuilt_scheduler_counts_as_the_old_one() {
    let mut bench = Bench::with_nodes(3);
    bench.tasks("a", 5, &reserve(1_000_000_000, 1 << 30, Vec::new()));
    bench.run();
    let before = bench.scheduler.active_tasks();
    bench.scheduler = Scheduler::new(2);
    bench.scheduler.rebuild(&bench.view);
    bench.events.clear();
    bench.run();
    assert_eq!(bench.scheduler.active_tasks(), before);
    bench.tasks("a", 20, &reserve(1_000_000_000, 1 << 30, Vec::new()));
    bench.run();
    assert_eq!(bench.spread(None), [4, 4, 4], "four processors each");
}

#[test]
fn nodes_of_a_class_are_found_by_load_also_after_tasks_ended() {
    let mut bench = Bench::with_nodes(3);
    let spec = placement(|it| it.constraints = vec!["node.role==worker".into()]);
    bench.tasks("a", 9, &spec);
    bench.tasks("b", 3, &TaskSpec::default());
    bench.run();
    for id in bench.view.tasks_of_node(&"n2".into()).map(|task| task.id.to_string()).collect::<Vec<_>>() {
        bench.edit_task(&id, |task| task.status.state = TaskState::Complete);
    }
    bench.run();
    bench.tasks("c", 1, &spec);
    bench.tasks("d", 1, &TaskSpec::default());
    bench.run();
    assert_eq!((bench.node_of("c-000").as_deref(), bench.node_of("d-000").as_deref()), (Some("n2"), Some("n2")));
}

#[test]
fn cluster_volumes_are_chosen_published_and_given_back() {
    let mut bench = Bench::with_nodes(2);
    let mut volume = Volume { id: "v1".into(), volume_info: Some(VolumeInfo::default()), ..Default::default() };
    volume.spec.annotations.name = "data".into();
    bench.put(volume);
    let mount = Mount { kind: MountType::Cluster, source: "data".into(), target: "/data".into(), ..Default::default() };
    let container = ContainerSpec { mounts: vec![mount], ..Default::default() };
    let spec = TaskSpec { runtime: Some(TaskRuntime::Container(container)), ..Default::default() };
    bench.tasks("s", 2, &spec);
    bench.run();
    let placed = bench.view.tasks().find(|task| task.node_id.is_some()).unwrap().clone();
    assert_eq!(placed.volumes, [VolumeAttachment { id: "v1".into(), source: "data".into(), target: "/data".into() }]);
    let waiting = bench.view.tasks().find(|task| task.node_id.is_none()).unwrap();
    assert_eq!(waiting.status.err, "no suitable node (cannot fulfill requested CSI volume mounts on 2 nodes)");
    let mut volume = (**bench.view.volume(&"v1".into()).unwrap()).clone();
    assert_eq!(volume.publish_status[0].node_id, placed.node_id.clone().unwrap());
    volume.publish_status[0].state = VolumePublishState::Published;
    bench.put(volume);
    bench.edit_task("s-001", |task| task.desired_state = TaskState::Remove);
    bench.edit_task(placed.id.as_str(), |task| task.status.state = TaskState::Complete);
    bench.run();
    let volume = bench.view.volume(&"v1".into()).unwrap();
    assert_eq!(volume.publish_status[0].state, VolumePublishState::PendingNodeUnpublish);
}

#[test]
fn only_nodes_that_are_ready_get_tasks() {
    for state in [NodeState::Unknown, NodeState::Down, NodeState::Disconnected] {
        let mut bench = Bench::with_nodes(2);
        bench.edit_node("n1", |node| node.status.state = state);
        bench.tasks("s", 2, &TaskSpec::default());
        bench.run();
        assert_eq!(bench.spread(None), [0, 2], "{state:?}");
    }
}

#[test]
fn of_two_nodes_that_are_avoided_the_one_with_fewer_failures_comes_first() {
    let mut bench = Bench::with_nodes(2);
    for (node, count) in [("n1", 7), ("n2", 6)] {
        for n in 0..count {
            let id = format!("dead-{node}-{n}");
            bench.put(Task { node_id: Some(node.into()), ..task(&id, "s") });
            bench.edit_task(&id, |task| task.status.state = TaskState::Rejected);
        }
    }
    bench.run();
    bench.tasks("s", 3, &TaskSpec::default());
    bench.run();
    let alive = |node: &str| {
        bench.view.tasks_of_node(&node.into()).filter(|task| task.status.state == TaskState::Assigned).count()
    };
    assert_eq!((alive("n1"), alive("n2")), (0, 3));
}

#[test]
fn failures_count_for_a_spec_version_and_are_known_to_a_new_leader() {
    let mut bench = Bench::with_nodes(2);
    bench.put(Service { id: "s".into(), spec_version: Some(SpecVersion(1)), ..Default::default() });
    for n in 0..5 {
        let mut dead = Task { node_id: Some("n1".into()), ..task(&format!("dead-{n}"), "s") };
        dead.status.state = TaskState::Failed;
        dead.status.applied_at = Some(bench.now);
        bench.put(dead);
    }
    bench.events.clear();
    bench.scheduler.rebuild(&bench.view);
    bench.tasks("s", 2, &TaskSpec::default());
    for n in 0..2 {
        bench.put(Task { spec_version: Some(SpecVersion(2)), ..task(&format!("new-{n}"), "s") });
    }
    bench.run();
    let on = |prefix: &str| {
        let mut nodes: Vec<_> = bench.view.tasks().filter(|task| task.id.as_str().starts_with(prefix)).collect();
        nodes.retain(|task| task.node_id == Some("n1".into()) && task.status.state == TaskState::Assigned);
        nodes.len()
    };
    assert_eq!((on("s-"), on("new-")), (0, 2), "n1 is avoided by the version that failed there");
}

#[test]
fn a_host_port_of_another_protocol_is_another_port() {
    let mut bench = Bench::with_nodes(1);
    let mut publish = |id: &str, publish_mode, protocol, published_port| {
        let port = PortConfig { publish_mode, published_port, protocol, ..Default::default() };
        bench.put(Service { id: id.into(), ..Default::default() });
        bench.put(Task { endpoint: Some(Endpoint { ports: vec![port], ..Default::default() }), ..task(id, id) });
        bench.run();
        bench.node_of(id).is_some()
    };
    assert!(publish("tcp", PublishMode::Host, PortProtocol::Tcp, 80));
    assert!(publish("udp", PublishMode::Host, PortProtocol::Udp, 80));
    assert!(!publish("again", PublishMode::Host, PortProtocol::Tcp, 80));
    assert!(publish("any", PublishMode::Host, PortProtocol::Tcp, 0), "the node chooses");
    assert!(publish("other", PublishMode::Host, PortProtocol::Tcp, 0));
    assert!(publish("ingress", PublishMode::Ingress, PortProtocol::Tcp, 80), "an ingress port is on no node");
}

#[test]
fn preferences_may_be_labels_of_engines() {
    let mut bench = Bench::with_nodes(4);
    for (id, disk) in [("n1", "ssd"), ("n2", "hdd"), ("n3", "hdd"), ("n4", "hdd")] {
        bench.edit_node(id, |node| {
            let labels = [("disk".into(), disk.into())].into();
            node.description.as_mut().unwrap().engine = Some(EngineDescription { labels, ..Default::default() });
        });
    }
    let spread = |descriptor: &str| {
        let spread = Some(SpreadOver { spread_descriptor: descriptor.to_owned() });
        placement(|it| it.preferences = vec![PlacementPreference { spread }])
    };
    bench.tasks("s", 6, &spread("engine.labels.disk"));
    bench.run();
    assert_eq!(bench.spread(Some("s")), [3, 1, 1, 1]);
    bench.tasks("t", 4, &spread("node.hostname"));
    bench.run();
    assert_eq!(bench.spread(Some("t")), [1, 1, 1, 1], "what is no label is no preference");
}

#[test]
fn preferences_hold_within_the_constraints() {
    let mut bench = Bench::with_nodes(4);
    for (id, zone) in [("n1", "a"), ("n2", "a"), ("n3", "b"), ("n4", "b")] {
        bench.edit_node(id, |node| drop(node.spec.annotations.labels.insert("zone".into(), zone.into())));
    }
    let spread = Some(SpreadOver { spread_descriptor: "node.labels.zone".into() });
    let spec = placement(|it| {
        it.preferences = vec![PlacementPreference { spread }];
        it.constraints = vec!["node.id!=n4".into()];
        it.max_replicas = 4;
    });
    bench.tasks("s", 9, &spec);
    bench.run();
    let found = bench.spread(None);
    assert_eq!((found[0] + found[1], found[2], found[3]), (5, 4, 0), "b is full at n3's maximum");
}

#[test]
fn discrete_resources_are_counted_and_a_new_number_counts_at_once() {
    let mut bench = Bench::with_nodes(1);
    let advertise = |bench: &mut Bench, value: i64| {
        bench.edit_node("n1", |node| {
            let resources = node.description.as_mut().unwrap().resources.as_mut().unwrap();
            resources.generic = vec![generic::discrete("ssd", value)];
        });
    };
    advertise(&mut bench, 5);
    bench.tasks("s", 3, &reserve(0, 0, vec![generic::discrete("ssd", 2)]));
    bench.run();
    assert_eq!(bench.spread(None), [2]);
    assert_eq!(bench.task("s-000").assigned_generic_resources, [generic::discrete("ssd", 2)]);
    let text = "no suitable node (insufficient resources on 1 node)";
    let waiting = bench.view.tasks().find(|task| task.node_id.is_none()).unwrap();
    assert_eq!(waiting.status.err, text);
    let waiting = waiting.id.to_string();
    advertise(&mut bench, 6);
    bench.run();
    assert_eq!(bench.node_of(&waiting).as_deref(), Some("n1"));
    advertise(&mut bench, 3);
    bench.tasks("t", 1, &reserve(0, 0, vec![generic::discrete("ssd", 1)]));
    bench.run();
    assert_eq!(bench.task("t-000").status.err, text, "six are taken of three");
}

#[test]
fn a_request_for_named_pieces_is_no_request() {
    let mut bench = Bench::with_nodes(1);
    bench.tasks("s", 1, &reserve(0, 0, vec![generic::named("gpu", "a")]));
    bench.run();
    assert_eq!(bench.node_of("s-000").as_deref(), Some("n1"), "only numbers can be asked for");
}

#[test]
fn tasks_wait_for_a_node_that_is_given_back() {
    let mut bench = Bench::with_nodes(1);
    bench.edit_node("n1", |node| node.spec.availability = NodeAvailability::Pause);
    bench.tasks("s", 1, &TaskSpec::default());
    bench.run();
    assert_eq!(bench.task("s-000").status.err, "no suitable node (1 node not available for new tasks)");
    bench.edit_node("n1", |node| node.spec.availability = NodeAvailability::Active);
    bench.run();
    assert_eq!(bench.node_of("s-000").as_deref(), Some("n1"));
}
