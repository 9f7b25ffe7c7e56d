//! Named properties on random actions: indexes agree with a naive scan, apply is atomic, a failed transaction changes
//! nothing, a snapshot restores everything.

use model::{
    Annotations, ContainerSpec, Node, NodeDescription, ObjectVersion, Secret, SecretId, SecretReference, Service,
    ServiceId, Task, TaskId, TaskRuntime, TaskSpec, TaskState,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Action, Event, Object, RefTarget, RefUser, StoreSnapshot, Transaction, View};

fn spec(secret: u8) -> Arc<TaskSpec> {
    let secrets = (secret > 0)
        .then(|| SecretReference { secret_id: format!("secret{secret}").into(), ..Default::default() })
        .into_iter()
        .collect();
    let container = ContainerSpec { secrets, ..Default::default() };
    Arc::new(TaskSpec { runtime: Some(TaskRuntime::Container(container)), ..Default::default() })
}

fn service(id: u8, name: u8, secret: u8) -> Object {
    let mut service = Service { id: format!("s{id}").into(), ..Default::default() };
    service.spec.annotations.name = if name == 0 { String::new() } else { format!("Name{name}") };
    service.spec.task = spec(secret);
    service.into()
}

fn task(id: u8, service: u8, slot: u8, node: u8, desired: bool, secret: u8) -> Object {
    Task {
        id: format!("t{id}").into(),
        service_id: (service > 0).then(|| format!("s{service}").into()),
        slot: slot.into(),
        node_id: (node > 0).then(|| format!("n{node}").into()),
        desired_state: if desired { TaskState::Running } else { TaskState::Shutdown },
        spec: spec(secret),
        ..Default::default()
    }
    .into()
}

fn node(id: u8, hostname: u8) -> Object {
    let description = NodeDescription { hostname: format!("Host{hostname}"), ..Default::default() };
    Node { id: format!("n{id}").into(), description: Some(description), ..Default::default() }.into()
}

fn objects() -> impl Strategy<Value = Object> {
    prop_oneof![
        (0..6u8, 0..5u8, 0..3u8).prop_map(|(id, name, secret)| service(id, name, secret)),
        (0..12u8, 0..3u8, 0..3u8, 0..3u8, any::<bool>(), 0..3u8)
            .prop_map(|(id, service, slot, node, desired, secret)| task(id, service, slot, node, desired, secret)),
        (0..4u8, 0..3u8).prop_map(|(id, hostname)| node(id, hostname)),
    ]
}

fn actions() -> impl Strategy<Value = Action> {
    (0..3u8, objects()).prop_map(|(kind, object)| match kind {
        0 => Action::Create(object),
        1 => Action::Update(object),
        _ => Action::Remove(object),
    })
}

fn ids<'a>(tasks: impl Iterator<Item = &'a Arc<Task>>) -> Vec<TaskId> {
    tasks.map(|task| task.id.clone()).collect()
}

fn sorted(mut ids: Vec<TaskId>) -> Vec<TaskId> {
    ids.sort();
    ids
}

/// Every index of `view` says what a scan over all objects says.
fn check_indexes(view: &View) {
    let scan = |keep: &dyn Fn(&Task) -> bool| ids(view.tasks().filter(|task| keep(task)));
    for n in 0..4 {
        let service: ServiceId = format!("s{n}").into();
        let of_service = sorted(ids(view.tasks_of_service(&service)));
        assert_eq!(of_service, scan(&|task| task.service_id.as_ref() == Some(&service)));
        for slot in 0..3 {
            let expected = scan(&|task| task.service_id.as_ref() == Some(&service) && task.slot == slot);
            assert_eq!(ids(view.tasks_of_slot(&service, slot)), expected);
        }
        let node = format!("n{n}").as_str().into();
        assert_eq!(ids(view.tasks_of_node(&node)), scan(&|task| task.node_id.as_ref() == Some(&node)));
        let hosts: Vec<_> = view.nodes_by_hostname(&format!("hOST{n}")).map(|node| node.id.clone()).collect();
        let named = |node: &Node| node.description.as_ref().is_some_and(|it| it.hostname == format!("Host{n}"));
        let expected: Vec<_> = view.nodes().filter(|node| named(node)).map(|node| node.id.clone()).collect();
        assert_eq!(hosts, expected);
    }
    for desired in [TaskState::Running, TaskState::Shutdown] {
        assert_eq!(ids(view.tasks_by_desired_state(desired)), scan(&|task| task.desired_state == desired));
    }
    for n in 0..5 {
        let found = view.by_name::<Service>(&format!("nAME{n}")).map(|it| it.id.clone());
        let expected = view.services().find(|it| it.spec.annotations.name == format!("Name{n}"));
        assert_eq!(found, expected.map(|it| it.id.clone()));
    }
    for n in 1..3 {
        let secret: SecretId = format!("secret{n}").into();
        let uses = |spec: &TaskSpec| match &spec.runtime {
            Some(TaskRuntime::Container(container)) => container.secrets.iter().any(|it| it.secret_id == secret),
            _ => false,
        };
        let services = view.services().filter(|it| uses(&it.spec.task)).map(|it| RefUser::Service(it.id.clone()));
        let tasks = view.tasks().filter(|it| uses(&it.spec)).map(|it| RefUser::Task(it.id.clone()));
        let expected: BTreeSet<_> = services.chain(tasks).collect();
        let found: BTreeSet<_> = view.users_of(&RefTarget::Secret(secret.clone())).cloned().collect();
        assert_eq!(found, expected);
    }
}

fn apply_all(actions: &[Action]) -> View {
    let mut view = View::new();
    for action in actions {
        let _ = view.apply(std::slice::from_ref(action));
    }
    view
}

proptest! {
    #[test]
    fn indexes_agree_with_a_scan(list in prop::collection::vec(actions(), 0..80)) {
        let mut view = View::new();
        for action in &list {
            let _ = view.apply(std::slice::from_ref(action));
            check_indexes(&view);
        }
    }

    #[test]
    fn apply_is_all_or_nothing(
        before in prop::collection::vec(actions(), 0..60),
        batch in prop::collection::vec(actions(), 0..6),
    ) {
        let mut view = apply_all(&before);
        let (kept, snapshot) = (view.clone(), view.snapshot());
        let mut one_by_one = view.clone();
        let expected: Result<Vec<Event>, _> =
            batch.iter().map(|action| one_by_one.apply(std::slice::from_ref(action)).map(|mut events| events.remove(0)))
                .collect();
        let found = view.apply(&batch);
        if found.is_err() {
            prop_assert_eq!(view.snapshot(), snapshot.clone());
        } else {
            prop_assert_eq!(view.snapshot(), one_by_one.snapshot());
        }
        prop_assert_eq!(found, expected);
        check_indexes(&view);
        prop_assert_eq!(kept.snapshot(), snapshot, "a clone never changes");
    }

    #[test]
    fn a_transaction_proposes_what_it_shows(
        before in prop::collection::vec(actions(), 0..60),
        writes in prop::collection::vec(actions(), 0..20),
    ) {
        let view = apply_all(&before);
        let mut transaction = Transaction::new(&view);
        for write in &writes {
            let snapshot = transaction.view().snapshot();
            let done = match write {
                Action::Create(object) => transaction.create(object.clone()),
                Action::Update(object) => transaction.update(object.clone()),
                Action::Remove(object) => transaction.remove_object(object.clone()),
            };
            if done.is_err() {
                prop_assert_eq!(transaction.view().snapshot(), snapshot);
            }
        }
        let shown = transaction.view().snapshot();
        check_indexes(transaction.view());
        let mut follower = view.clone();
        follower.apply(&transaction.finish()).unwrap();
        prop_assert_eq!(follower.snapshot(), shown);
        check_indexes(&follower);
    }

    #[test]
    fn a_snapshot_restores_everything(list in prop::collection::vec(actions(), 0..80)) {
        let view = apply_all(&list);
        let restored = View::restore(&view.snapshot()).unwrap();
        prop_assert_eq!(restored.snapshot(), view.snapshot());
        check_indexes(&restored);
    }
}

#[test]
fn an_empty_snapshot_restores_an_empty_view() {
    assert_eq!(View::restore(&StoreSnapshot::default()).unwrap().snapshot(), StoreSnapshot::default());
}

#[test]
fn an_update_needs_the_stored_version() {
    let mut secret = Secret { id: "a".into(), ..Default::default() };
    secret.spec.annotations = Annotations { name: "A".into(), ..Default::default() };
    let mut view = View::new();
    let mut actions = vec![Action::Create(secret.clone().into())];
    store::stamp(&mut actions, ObjectVersion(7), model::Timestamp { seconds: 5, nanos: 0 });
    view.apply(&actions).unwrap();
    let stored = view.secret(&"a".into()).unwrap().clone();
    assert_eq!(stored.meta.version, ObjectVersion(7));
    assert_eq!(stored.meta.created_at, stored.meta.updated_at);

    let error = Transaction::new(&view).update(secret).unwrap_err();
    assert_eq!(error.to_string(), "update out of sequence");
    let mut transaction = Transaction::new(&view);
    transaction.update(stored).unwrap();
    let mut again = Secret { id: "b".into(), ..Default::default() };
    again.spec.annotations.name = "a".into();
    assert_eq!(transaction.create(again).unwrap_err().to_string(), "name conflicts with an existing object");
    assert_eq!(transaction.remove::<Secret>(&"b".into()).unwrap_err().to_string(), "object does not exist");
    let mut actions = transaction.finish();
    store::stamp(&mut actions, ObjectVersion(9), model::Timestamp { seconds: 6, nanos: 0 });
    let meta = actions[0].object().meta();
    assert_eq!(
        (meta.version, meta.created_at.unwrap().seconds, meta.updated_at.unwrap().seconds),
        (ObjectVersion(9), 5, 6)
    );
}

#[test]
fn writes_to_one_object_are_folded() {
    let view = apply_all(&[Action::Create(node(0, 0))]);
    let mut transaction = Transaction::new(&view);
    transaction.create(node(1, 1)).unwrap();
    transaction.update(node(1, 2)).unwrap();
    transaction.update(node(0, 1)).unwrap();
    transaction.update(node(0, 2)).unwrap();
    transaction.create(node(2, 0)).unwrap();
    transaction.remove_object(node(2, 0)).unwrap();
    assert_eq!(transaction.finish(), [Action::Create(node(1, 2)), Action::Update(node(0, 2))]);
}

#[test]
fn a_name_that_another_object_gave_up_may_be_taken_in_the_same_transaction() {
    let view = apply_all(&[Action::Create(service(3, 1, 0))]);
    let mut transaction = Transaction::new(&view);
    transaction.create(service(1, 2, 0)).unwrap();
    transaction.update(service(3, 3, 0)).unwrap();
    transaction.update(service(1, 1, 0)).unwrap();
    let shown = transaction.view().snapshot();
    let mut follower = view.clone();
    follower.apply(&transaction.finish()).unwrap();
    assert_eq!(follower.snapshot(), shown);
}

#[test]
fn identifiers_and_names_are_found_by_prefix() {
    let view =
        apply_all(&[Action::Create(service(1, 1, 0)), Action::Create(service(2, 2, 0)), Action::Create(node(1, 1))]);
    let ids = |prefix: &str| view.by_id_prefix::<Service>(prefix).map(|it| it.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids("s"), ["s1", "s2"]);
    assert_eq!(ids("s2"), ["s2"]);
    assert!(ids("t").is_empty());
    assert_eq!(view.by_name_prefix::<Service>("NAM").count(), 2);
}
