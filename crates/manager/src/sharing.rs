//! What comes out of the log and out of snapshots has a copy of the service's spec in each task. Tasks that have the same
//! spec share one here, so that a task costs what is its own. Nothing that can be read changes by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Service, ServiceId, Task, TaskSpec};
use store::{Action, Object, StoreSnapshot, View};

/// Gives the tasks and services of a transaction specs that the store has already, or that they have in common.
pub(crate) fn share_in_actions(view: &View, mut actions: Vec<Action>) -> Vec<Action> {
    // The last one of each service: an update's tasks have a spec that the view does not know before its service has it.
    let mut fresh: BTreeMap<ServiceId, Arc<TaskSpec>> = BTreeMap::new();
    for action in &mut actions {
        match action {
            Action::Create(Object::Service(service)) | Action::Update(Object::Service(service)) => {
                share_in_service(view, service);
                fresh.insert(service.id.clone(), service.spec.task.clone());
            }
            Action::Create(Object::Task(task)) | Action::Update(Object::Task(task)) => {
                let Some(id) = task.service_id.clone() else { continue };
                let service = view.service(&id);
                let stored = view.task(&task.id).map(|task| &task.spec);
                let current = service.map(|service| &service.spec.task);
                let previous = service.and_then(|service| service.previous_spec.as_ref()).map(|spec| &spec.task);
                let known = [stored, current, previous, fresh.get(&id)];
                let found = known.into_iter().flatten().find(|known| **known == task.spec).cloned();
                match found {
                    Some(known) => set_spec(task, known),
                    None => drop(fresh.insert(id, task.spec.clone())),
                }
            }
            _ => {}
        }
    }
    actions
}

/// Specs of a service that are looked through for one that a task of a snapshot may share. A service seldom has tasks of
/// more than two versions; those of many more, such as kept old ones, have a spec of their own.
const MAX_KNOWN_SPECS: usize = 8;

/// The same for a whole store.
pub(crate) fn share_in_snapshot(mut snapshot: StoreSnapshot) -> StoreSnapshot {
    let mut specs: BTreeMap<ServiceId, Vec<Arc<TaskSpec>>> = BTreeMap::new();
    for service in &snapshot.services {
        let previous = service.previous_spec.as_ref().map(|spec| spec.task.clone());
        specs.insert(service.id.clone(), [Some(service.spec.task.clone()), previous].into_iter().flatten().collect());
    }
    for task in &mut snapshot.tasks {
        let Some(id) = task.service_id.clone() else { continue };
        let specs = specs.entry(id).or_default();
        match specs.iter().find(|known| **known == task.spec).cloned() {
            Some(known) => set_spec(task, known),
            None if specs.len() < MAX_KNOWN_SPECS => specs.push(task.spec.clone()),
            None => {}
        }
    }
    snapshot
}

fn share_in_service(view: &View, service: &mut Arc<Service>) {
    let Some(stored) = view.service(&service.id) else { return };
    let known = &stored.spec.task;
    if *known == service.spec.task {
        Arc::make_mut(service).spec.task = known.clone();
    }
    // What was current until this update is its previous one, and tasks have it.
    if service.previous_spec.as_ref().is_some_and(|previous| *known == previous.task)
        && let Some(previous) = &mut Arc::make_mut(service).previous_spec
    {
        previous.task = known.clone();
    }
}

fn set_spec(task: &mut Arc<Task>, spec: Arc<TaskSpec>) {
    if !Arc::ptr_eq(&task.spec, &spec) {
        // Fresh from the decoder: nobody else has it.
        Arc::make_mut(task).spec = spec;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ServiceSpec;

    fn spec(force_update: u64) -> Arc<TaskSpec> {
        Arc::new(TaskSpec { force_update, ..TaskSpec::default() })
    }

    fn task(id: &str, force_update: u64) -> Task {
        Task { id: id.into(), service_id: Some("s".into()), spec: spec(force_update), ..Task::default() }
    }

    fn service(force_update: u64, previous: Option<u64>) -> Service {
        let of = |number| ServiceSpec { task: spec(number), ..ServiceSpec::default() };
        Service { id: "s".into(), spec: of(force_update), previous_spec: previous.map(of), ..Service::default() }
    }

    fn apply(view: &mut View, actions: Vec<Action>) {
        let actions = share_in_actions(view, actions);
        view.apply(&actions).unwrap();
    }

    fn spec_of<'a>(view: &'a View, id: &str) -> &'a Arc<TaskSpec> {
        &view.task(&id.into()).unwrap().spec
    }

    #[test]
    fn tasks_of_a_service_share_its_spec_through_an_update() {
        let mut view = View::new();
        apply(&mut view, vec![Action::Create(service(1, None).into())]);
        apply(&mut view, vec![Action::Create(task("a", 1).into()), Action::Create(task("b", 1).into())]);
        apply(&mut view, vec![Action::Update(task("a", 1).into()), Action::Update(service(1, None).into())]);
        let current = view.service(&"s".into()).unwrap().spec.task.clone();
        assert!(Arc::ptr_eq(spec_of(&view, "a"), &current) && Arc::ptr_eq(spec_of(&view, "b"), &current));
        apply(&mut view, vec![Action::Update(service(2, Some(1)).into()), Action::Create(task("c", 2).into())]);
        let current = view.service(&"s".into()).unwrap().spec.task.clone();
        assert!(Arc::ptr_eq(spec_of(&view, "c"), &current));
        assert_eq!(spec_of(&view, "a").force_update, 1, "equal specs only");
        let previous = &view.service(&"s".into()).unwrap().previous_spec.as_ref().unwrap().task;
        assert!(Arc::ptr_eq(spec_of(&view, "a"), previous), "what was current is the previous one");
        apply(&mut view, vec![Action::Update(task("a", 1).into())]);
        assert!(Arc::ptr_eq(spec_of(&view, "a"), spec_of(&view, "b")), "of the old version, too");
    }

    #[test]
    fn a_restored_store_shares_specs() {
        let mut view = View::new();
        view.apply(&[Action::Create(service(2, Some(1)).into())]).unwrap();
        let tasks = [("a", 1), ("b", 1), ("c", 2), ("d", 3), ("e", 3)]
            .map(|(id, number)| Action::Create(task(id, number).into()));
        view.apply(&tasks).unwrap();
        let view = View::restore(&share_in_snapshot(view.snapshot())).unwrap();
        let service = view.service(&"s".into()).unwrap();
        assert!(Arc::ptr_eq(spec_of(&view, "a"), spec_of(&view, "b")));
        assert!(Arc::ptr_eq(spec_of(&view, "c"), &service.spec.task));
        assert_eq!(spec_of(&view, "d").force_update, 3);
        assert!(Arc::ptr_eq(spec_of(&view, "d"), spec_of(&view, "e")), "of a version that the service no longer knows");
    }
}
