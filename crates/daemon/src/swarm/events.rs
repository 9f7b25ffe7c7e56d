//! Changes of the swarm's objects as a stream that outlives managers: while this node is none, it waits. Every manager
//! tells what its own committed view goes through, so leader and followers tell the same, in the log's order.

use std::sync::Arc;

use api::swarm_backend::{STREAM_QUEUE_LIMIT, SwarmEvent, SwarmEventAction, SwarmObject, TaskMove};
use manager::{Manager, Next, Watch};
use model::{Config, Meta, Network, Node, Secret, Service, Task};
use orchestration::moves;
use store::{Event, Object, StoreObject, View};
use tokio::sync::{mpsc, watch};

/// Starts a stream; it ends when its receiver is dropped or the daemon stops.
pub(super) fn stream(managers: watch::Receiver<Option<Arc<Manager>>>) -> mpsc::Receiver<SwarmEvent> {
    let (sender, receiver) = mpsc::channel(STREAM_QUEUE_LIMIT);
    tokio::spawn(async move {
        // Dropping either future loses nothing that anybody could still read.
        tokio::select! {
            () = sender.closed() => {}
            () = pump(managers, &sender) => {}
        }
    });
    receiver
}

async fn pump(mut managers: watch::Receiver<Option<Arc<Manager>>>, sender: &mpsc::Sender<SwarmEvent>) {
    loop {
        let of = |manager: &Arc<Manager>| (manager.news(), manager.log_found());
        let found = managers.borrow_and_update().as_ref().map(of);
        let Some((watch, log_found)) = found else {
            if managers.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            // Only the current manager's commits are dropped with it.
            () = follow(watch, log_found, sender) => return,
            // Level-triggered.
            changed = managers.changed() => if changed.is_err() { return },
        }
    }
}

async fn follow(mut watch: Watch, log_found: u64, sender: &mpsc::Sender<SwarmEvent>) {
    let mut teller = Teller { seen: watch.view.clone(), log_found };
    while let Some(next) = watch.next().await {
        for event in teller.tell(&next, &watch.view) {
            // A client that does not keep up loses events rather than holding up the others.
            if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(event) {
                return;
            }
        }
    }
}

/// What of a manager's commits is news.
struct Teller {
    /// The view that was told last.
    seen: View,
    /// What a restarted manager reads again from its log up to here was told in its former life.
    log_found: u64,
}

impl Teller {
    /// What leads from the view that was told last to `view`.
    fn tell(&mut self, next: &Next, view: &View) -> Vec<SwarmEvent> {
        let before = std::mem::replace(&mut self.seen, view.clone());
        match next {
            Next::Commit(commit) if commit.index <= self.log_found => Vec::new(),
            Next::Commit(commit) => commit.events.iter().filter_map(|event| convert(view, event)).collect(),
            // The first that a manager hears of the cluster is how it stands, not what has happened.
            Next::Anew if before.the_cluster().is_none() => Vec::new(),
            Next::Anew => differences(&before, view).iter().filter_map(|event| convert(view, event)).collect(),
        }
    }
}

/// What lies between two views, kind by kind. Tasks are left out: there may be a million of them, and what moved them is
/// found in their labels.
fn differences(before: &View, now: &View) -> Vec<Event> {
    let mut events = Vec::new();
    compare::<Node>(before, now, &mut events);
    compare::<Network>(before, now, &mut events);
    compare::<Secret>(before, now, &mut events);
    compare::<Config>(before, now, &mut events);
    compare::<Service>(before, now, &mut events);
    events
}

fn compare<T: StoreObject>(before: &View, now: &View, events: &mut Vec<Event>) {
    for new in now.all::<T>() {
        let object = T::into_object(new.clone());
        match before.get::<T>(new.id()) {
            None => events.push(Event::Create(object)),
            Some(old) if old.meta().version == new.meta().version => {}
            Some(old) => events.push(Event::Update { old: T::into_object(old.clone()), new: object }),
        }
    }
    let gone = before.all::<T>().filter(|old| now.get::<T>(old.id()).is_none());
    events.extend(gone.map(|old| Event::Remove(T::into_object(old.clone()))));
}

fn convert(view: &View, event: &Event) -> Option<SwarmEvent> {
    let at = |time: fn(&Meta) -> Option<model::Timestamp>, object: &Object| {
        time(object.meta()).unwrap_or_else(crate::clock::now)
    };
    let (at, action, object, old) = match event {
        Event::Create(Object::Task(task)) => return convert_move(view, None, task),
        Event::Update { old: Object::Task(old), new: Object::Task(new) } => return convert_move(view, Some(old), new),
        Event::Create(object) => {
            (at(|meta| meta.created_at, object), SwarmEventAction::Create, convert_object(object)?, None)
        }
        Event::Update { old, new } => {
            (at(|meta| meta.updated_at, new), SwarmEventAction::Update, convert_object(new)?, convert_object(old))
        }
        Event::Remove(object) => (crate::clock::now(), SwarmEventAction::Remove, convert_object(object)?, None),
    };
    Some(SwarmEvent { at, action, object, old, moved: None })
}

/// Docker tells nothing of tasks; a task that is moved is told of as a change of its service.
fn convert_move(view: &View, old: Option<&Arc<Task>>, task: &Arc<Task>) -> Option<SwarmEvent> {
    let text = moves::told(view, old.map(|old| &**old), task)?;
    let service = view.service(task.service_id.as_ref()?)?;
    Some(SwarmEvent {
        at: task.meta.updated_at.unwrap_or_else(crate::clock::now),
        action: SwarmEventAction::Update,
        object: SwarmObject::Service(Box::new(Service::clone(service))),
        old: None,
        moved: Some(TaskMove { task_id: task.id.clone(), text }),
    })
}

fn convert_object(object: &Object) -> Option<SwarmObject> {
    Some(match object {
        Object::Node(it) => SwarmObject::Node(Box::new(Node::clone(it))),
        Object::Service(it) => SwarmObject::Service(Box::new(Service::clone(it))),
        Object::Network(it) => SwarmObject::Network(Box::new(Network::clone(it))),
        Object::Secret(it) => {
            let mut secret = Secret::clone(it);
            secret.spec.data = Vec::new();
            SwarmObject::Secret(Box::new(secret))
        }
        Object::Config(it) => SwarmObject::Config(Box::new(Config::clone(it))),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use manager::Commit;
    use model::{Cluster, NodeState, ObjectVersion, TaskState, Timestamp};
    use store::Action;

    use super::*;

    /// A store whose commits are told.
    struct Store {
        view: View,
        index: u64,
        teller: Teller,
    }

    impl Store {
        fn new(log_found: u64) -> Self {
            Self { view: View::new(), index: 0, teller: Teller { seen: View::new(), log_found } }
        }

        /// The events without telling them.
        fn apply(&mut self, action: fn(Object) -> Action, mut object: Object) -> Vec<Event> {
            self.index += 1;
            let meta = object.meta_mut();
            meta.version = ObjectVersion(self.index);
            let at = Some(Timestamp { seconds: i64::try_from(self.index).unwrap(), nanos: 0 });
            (meta.created_at, meta.updated_at) = (meta.created_at.or(at), at);
            self.view.apply(&[action(object)]).unwrap()
        }

        fn commit(&mut self, action: fn(Object) -> Action, object: impl Into<Object>) -> Vec<SwarmEvent> {
            let events = self.apply(action, object.into());
            let commit = Commit { index: self.index, view: self.view.clone(), events };
            self.teller.tell(&Next::Commit(Arc::new(commit)), &self.view)
        }

        fn anew(&mut self) -> Vec<String> {
            words(&self.teller.tell(&Next::Anew, &self.view))
        }
    }

    fn words(events: &[SwarmEvent]) -> Vec<String> {
        let word = |event: &SwarmEvent| {
            let (kind, id) = match &event.object {
                SwarmObject::Node(node) => ("node", node.id.to_string()),
                SwarmObject::Service(service) => ("service", service.id.to_string()),
                SwarmObject::Network(network) => ("network", network.id.to_string()),
                SwarmObject::Secret(secret) => ("secret", secret.id.to_string()),
                SwarmObject::Config(config) => ("config", config.id.to_string()),
            };
            let moved = event.moved.as_ref().map_or_else(String::new, |it| format!(" {}: {}", it.task_id, it.text));
            format!("{kind} {:?} {id}{moved}", event.action)
        };
        events.iter().map(word).collect()
    }

    fn service(id: &str) -> Service {
        let mut service = Service { id: id.into(), ..Service::default() };
        service.spec.annotations.name = id.into();
        service
    }

    fn cluster() -> Cluster {
        Cluster { id: "c".into(), ..Cluster::default() }
    }

    fn secret() -> Secret {
        let mut secret = Secret { id: "x".into(), ..Secret::default() };
        secret.spec.data = b"hidden".to_vec();
        secret
    }

    #[test]
    fn every_kind_is_told_in_the_logs_order_with_the_objects_times() {
        let mut store = Store::new(0);
        let created = store.commit(Action::Create, service("s"));
        assert_eq!(words(&created), ["service Create s"]);
        assert_eq!(created[0].at.seconds, 1);
        let updated = store.commit(Action::Update, Service { meta: created_meta(&store, "s"), ..service("s") });
        assert_eq!((words(&updated), updated[0].at.seconds), (vec!["service Update s".to_owned()], 2));
        assert!(updated[0].old.is_some());
        for (kind, object) in [("secret", secret().into()), ("node", Node { id: "n".into(), ..Node::default() }.into())]
        {
            let object: Object = object;
            assert!(words(&store.commit(Action::Create, object.clone()))[0].starts_with(kind));
            assert!(words(&store.commit(Action::Remove, object))[0].contains("Remove"));
        }
        assert!(store.commit(Action::Create, cluster()).is_empty(), "Docker has no events of it");
    }

    fn created_meta(store: &Store, id: &str) -> Meta {
        store.view.get_str::<Service>(id).unwrap().meta.clone()
    }

    #[test]
    fn a_secrets_data_stays_here() {
        let events = Store::new(0).commit(Action::Create, secret());
        let [SwarmEvent { object: SwarmObject::Secret(told), .. }] = events.as_slice() else { panic!("{events:?}") };
        assert!(told.spec.data.is_empty());
    }

    #[test]
    fn what_a_restarted_manager_reads_again_is_no_news() {
        let mut store = Store::new(2);
        assert!(store.commit(Action::Create, service("a")).is_empty());
        assert!(store.commit(Action::Create, service("b")).is_empty());
        assert_eq!(words(&store.commit(Action::Create, service("c"))), ["service Create c"]);
    }

    #[test]
    fn a_follower_that_got_a_snapshot_tells_what_it_missed_and_goes_on() {
        let mut store = Store::new(0);
        for object in [cluster().into(), service("kept").into(), service("changed").into(), service("gone").into()] {
            let object: Object = object;
            store.commit(Action::Create, object);
        }
        store.apply(Action::Remove, service("gone").into());
        store.apply(Action::Update, Service { meta: created_meta(&store, "changed"), ..service("changed") }.into());
        store.apply(Action::Create, secret().into());
        assert_eq!(store.anew(), ["secret Create x", "service Update changed", "service Remove gone"]);
        assert!(store.anew().is_empty());
        assert_eq!(words(&store.commit(Action::Create, service("new"))), ["service Create new"]);
    }

    #[test]
    fn a_manager_that_joins_tells_nothing_of_what_was_there() {
        let mut store = Store::new(0);
        store.apply(Action::Create, cluster().into());
        store.apply(Action::Create, service("s").into());
        assert!(store.anew().is_empty());
        assert_eq!(words(&store.commit(Action::Create, service("t"))), ["service Create t"]);
    }

    #[test]
    fn moves_are_told_as_changes_of_the_service() {
        let mut store = Store::new(0);
        for id in ["a", "b"] {
            let mut node = Node { id: id.into(), ..Node::default() };
            node.status.state = NodeState::Ready;
            store.commit(Action::Create, node);
        }
        store.commit(Action::Create, service("s"));
        let task = |id: &str, node: &str| Task {
            id: id.into(),
            service_id: Some("s".into()),
            slot: 3,
            node_id: Some(node.into()),
            desired_state: TaskState::Running,
            ..Task::default()
        };
        assert!(store.commit(Action::Create, task("t1", "a")).is_empty(), "Docker has no events of tasks");
        let mut new = task("t2", "b");
        new.annotations.labels.insert(moves::REPLACES_LABEL.to_owned(), "t1".to_owned());
        assert_eq!(
            words(&store.commit(Action::Create, new)),
            ["service Update s t2: moves slot 3 from node a to node b"]
        );
        let stored = |store: &Store| Task::clone(store.view.get_str::<Task>("t1").unwrap());
        let mut old = stored(&store);
        old.annotations.labels.insert(moves::REASON_LABEL.to_owned(), "rebalanced: moved to node b".to_owned());
        assert_eq!(words(&store.commit(Action::Update, old)), ["service Update s t1: rebalanced: moved to node b"]);
        let mut old = stored(&store);
        old.status.state = TaskState::Shutdown;
        assert!(store.commit(Action::Update, old).is_empty(), "told once");
    }
}
