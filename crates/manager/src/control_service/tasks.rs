//! Tasks over gRPC.

use model::{Node, Task, TaskRuntime, TaskSpec};
use store::View;
use swarm_proto::convert::ToProto;
use swarm_proto::swarmkit as p;

use super::filter::{any_or_none, common};
use super::handlers::{Handlers, given};
use crate::error::ControlError;

impl Handlers {
    pub(super) fn get_task(&self, request: p::GetTaskRequest) -> Result<p::GetTaskResponse, ControlError> {
        Ok(p::GetTaskResponse { task: Some(self.read::<Task>("task", &given(request.task_id)?)?) })
    }

    pub(super) fn list_tasks(&self, request: p::ListTasksRequest) -> Result<p::ListTasksResponse, ControlError> {
        let filters = request.filters.unwrap_or_default();
        let view = self.view();
        let tasks = view.tasks().filter(|task| takes(&view, &filters, task)).map(|task| task.to_proto()).collect();
        Ok(p::ListTasksResponse { tasks })
    }

    pub(super) async fn remove_task(
        &self,
        request: p::RemoveTaskRequest,
    ) -> Result<p::RemoveTaskResponse, ControlError> {
        self.control.remove_task(&given(request.task_id)?).await?;
        Ok(p::RemoveTaskResponse {})
    }
}

fn takes(view: &View, filters: &p::ListTasksRequestFilters, task: &Task) -> bool {
    let service = task.service_id.as_ref().map(|id| id.as_str());
    let node = task.node_id.as_ref().map(|id| id.as_str());
    any_or_none(&filters.service_ids, |id| Some(id.as_str()) == service)
        && any_or_none(&filters.node_ids, |id| Some(id.as_str()) == node)
        && any_or_none(&filters.desired_states, |state| *state == task.desired_state as i32)
        && any_or_none(&filters.runtimes, |wanted| wanted == runtime(&task.spec))
        && common!(filters).takes_named(task.id.as_str(), &name(task), &task.service_annotations.labels)
        && (!filters.up_to_date || is_up_to_date(view, task))
}

/// The name that SwarmKit gives a task: `<service>.<slot or node>.<task>`.
fn name(task: &Task) -> String {
    if !task.annotations.name.is_empty() {
        return task.annotations.name.clone();
    }
    let slot = match (&task.node_id, task.slot) {
        (Some(node), 0) => node.to_string(),
        (_, slot) => slot.to_string(),
    };
    format!("{}.{slot}.{}", task.service_annotations.name, task.id)
}

/// What a task runs in, as filters name it.
pub(super) fn runtime(spec: &TaskSpec) -> &str {
    match &spec.runtime {
        Some(TaskRuntime::Container(_)) => "container",
        Some(TaskRuntime::Attachment(_)) => "attachment",
        Some(TaskRuntime::Generic(generic)) => &generic.kind,
        None => "",
    }
}

fn is_up_to_date(view: &View, task: &Task) -> bool {
    let Some(service) = task.service_id.as_ref().and_then(|id| view.service(id)) else { return false };
    let node: Option<&Node> = task.node_id.as_ref().and_then(|id| view.node(id)).map(AsRef::as_ref);
    !orchestration::is_task_dirty(service, task, node)
}
