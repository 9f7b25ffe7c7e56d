//! Whether a task still is what its service asks for: the updater replaces those that are not, and the API's
//! `_up-to-date` filter shows it.

use crate::scheduler::constraint;
use model::{Node, Service, Task, TaskRuntime, TaskSpec, TaskState};
use std::sync::Arc;

/// Whether `task` differs from what `service` would make now. `node` is the task's node, if it has one.
///
/// In SwarmKit's order: the same spec version is clean; a difference in placement only is clean as long as the node meets
/// the new constraints; then task specs and endpoint specs are compared.
pub fn is_task_dirty(service: &Service, task: &Task, node: Option<&Node>) -> bool {
    if task.spec_version.is_some() && task.spec_version == service.spec_version {
        return false;
    }
    let wanted = &service.spec.task;
    let same = Arc::ptr_eq(wanted, &task.spec) || **wanted == *task.spec;
    if !same && differ_in_placement_only(wanted, &task.spec) && meets_constraints(wanted, node) {
        return false;
    }
    let same = same || (ignores_pull_options(task) && differ_in_pull_options_only(wanted, &task.spec));
    if !same {
        return true;
    }
    task.endpoint.as_ref().is_some_and(|endpoint| endpoint.spec != service.spec.endpoint)
}

fn differ_in_placement_only(wanted: &TaskSpec, present: &TaskSpec) -> bool {
    wanted.placement != present.placement
        && *present == TaskSpec { placement: present.placement.clone(), ..wanted.clone() }
}

/// Whether `node` is there and meets the spec's placement constraints. What cannot be parsed is met, as in SwarmKit; the
/// API refuses it.
pub(crate) fn meets_constraints(spec: &TaskSpec, node: Option<&Node>) -> bool {
    let texts = spec.placement.as_ref().map_or(&[][..], |placement| &placement.constraints);
    node.is_some_and(|node| constraint::parse(texts).map_or(true, |parsed| constraint::node_matches(&parsed, node)))
}

/// A task that has its image already does not care how it would be pulled.
fn ignores_pull_options(task: &Task) -> bool {
    task.desired_state <= TaskState::Running && (TaskState::Ready..=TaskState::Running).contains(&task.status.state)
}

fn differ_in_pull_options_only(wanted: &TaskSpec, present: &TaskSpec) -> bool {
    let without = |spec: &TaskSpec| {
        let mut spec = spec.clone();
        if let Some(TaskRuntime::Container(container)) = &mut spec.runtime {
            container.pull_options = None;
        }
        spec
    };
    without(wanted) == without(present)
}

#[cfg(test)]
mod tests {
    use super::is_task_dirty;
    use model::*;
    use std::sync::Arc;

    fn service(edit: impl FnOnce(&mut TaskSpec)) -> Service {
        let container = ContainerSpec { image: "a".into(), ..Default::default() };
        let mut spec = TaskSpec { runtime: Some(TaskRuntime::Container(container)), ..Default::default() };
        edit(&mut spec);
        let spec = ServiceSpec { task: Arc::new(spec), ..Default::default() };
        Service { id: "s".into(), spec, spec_version: Some(SpecVersion(2)), ..Default::default() }
    }

    fn task() -> Task {
        let service = service(|_| {});
        let endpoint = Some(Endpoint::default());
        Task { spec: service.spec.task, spec_version: Some(SpecVersion(1)), endpoint, ..Default::default() }
    }

    fn placed(constraint: &str) -> impl FnOnce(&mut TaskSpec) {
        let placement = Placement { constraints: vec![constraint.into()], ..Default::default() };
        |spec| spec.placement = Some(placement)
    }

    fn container(spec: &mut TaskSpec) -> &mut ContainerSpec {
        match &mut spec.runtime {
            Some(TaskRuntime::Container(container)) => container,
            _ => panic!("a container"),
        }
    }

    #[test]
    fn the_same_spec_version_is_clean_whatever_differs() {
        let task = Task { spec_version: Some(SpecVersion(2)), ..task() };
        assert!(!is_task_dirty(&service(|spec| spec.force_update = 1), &task, None));
    }

    #[test]
    fn another_version_of_the_same_spec_is_clean() {
        assert!(!is_task_dirty(&service(|_| {}), &task(), None));
    }

    #[test]
    fn a_forced_update_makes_dirty() {
        assert!(is_task_dirty(&service(|spec| spec.force_update = 1), &task(), None));
    }

    #[test]
    fn a_placement_that_the_node_meets_is_clean_and_hides_the_endpoint() {
        let node = Node { id: "n".into(), ..Default::default() };
        let mut wanted = service(placed("node.id==n"));
        wanted.spec.endpoint = Some(EndpointSpec::default());
        assert!(!is_task_dirty(&wanted, &task(), Some(&node)));
        assert!(is_task_dirty(&wanted, &task(), None), "no node meets nothing");
        assert!(is_task_dirty(&service(placed("node.id==m")), &task(), Some(&node)));
    }

    #[test]
    fn pull_options_do_not_matter_between_ready_and_running() {
        let wanted = service(|spec| container(spec).pull_options = Some(PullOptions::default()));
        let at = |state, desired_state| {
            let mut task = Task { desired_state, ..task() };
            task.status.state = state;
            is_task_dirty(&wanted, &task, None)
        };
        assert!(!at(TaskState::Running, TaskState::Running));
        assert!(!at(TaskState::Ready, TaskState::Running));
        assert!(at(TaskState::Preparing, TaskState::Running));
        assert!(at(TaskState::Running, TaskState::Shutdown));
    }

    #[test]
    fn an_endpoint_spec_counts_only_if_the_task_has_an_endpoint() {
        let mut wanted = service(|_| {});
        wanted.spec.endpoint = Some(EndpointSpec::default());
        assert!(is_task_dirty(&wanted, &task(), None), "absent versus present");
        assert!(!is_task_dirty(&wanted, &Task { endpoint: None, ..task() }, None));
    }
}
