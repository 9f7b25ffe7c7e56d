//! A service's spec with SwarmKit's defaults in the place of what is absent, for `insertDefaults`.

use std::sync::Arc;

use model::{
    ContainerSpec, Duration, FailureAction, Placement, PullOptions, ResourceRequirements, RestartCondition,
    RestartPolicy, ServiceSpec, TaskRuntime, TaskSpec, UpdateConfig, UpdateOrder,
};

const STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);
const RESTART_DELAY: Duration = Duration::from_secs(5);
const MONITOR: Duration = Duration::from_secs(5);

/// Fills in defaults. What the user set is kept; inside a message that is there only the delays are filled in.
pub fn with_defaults(mut spec: ServiceSpec) -> ServiceSpec {
    let mut task = TaskSpec::clone(&spec.task);
    if let Some(TaskRuntime::Container(container)) = &mut task.runtime {
        fill_container(container);
    }
    task.resources.get_or_insert_with(ResourceRequirements::default);
    let restart =
        task.restart.get_or_insert_with(|| RestartPolicy { condition: RestartCondition::Any, ..Default::default() });
    restart.delay.get_or_insert(RESTART_DELAY);
    task.placement.get_or_insert_with(Placement::default);
    spec.task = Arc::new(task);
    // jobs too, although they are never updated
    fill_update(&mut spec.update);
    fill_update(&mut spec.rollback);
    spec
}

fn fill_container(container: &mut ContainerSpec) {
    container.stop_grace_period.get_or_insert(STOP_GRACE_PERIOD);
    container.pull_options.get_or_insert_with(PullOptions::default);
    container.dns_config.get_or_insert_with(Default::default);
}

fn fill_update(update: &mut Option<UpdateConfig>) {
    let update = update.get_or_insert_with(|| UpdateConfig {
        parallelism: 1,
        failure_action: FailureAction::Pause,
        order: UpdateOrder::StopFirst,
        ..Default::default()
    });
    update.monitor.get_or_insert(MONITOR);
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{GlobalJob, ReplicatedService, ServiceMode};

    #[test]
    fn absent_messages_are_filled_in_and_present_ones_kept() {
        let mode = Some(ServiceMode::Replicated(ReplicatedService { replicas: 1 }));
        let restart = Some(RestartPolicy { max_attempts: 3, ..Default::default() });
        let task = Arc::new(TaskSpec { restart, ..Default::default() });
        let spec = with_defaults(ServiceSpec { mode, task, ..Default::default() });
        let restart = spec.task.restart.as_ref().unwrap();
        assert_eq!(restart.condition, RestartCondition::None, "a present policy is taken literally");
        assert_eq!((restart.delay, restart.window), (Some(RESTART_DELAY), None));
        assert_eq!(spec.update.unwrap().parallelism, 1);
        assert_eq!(spec.endpoint, None);
        let job = with_defaults(ServiceSpec { mode: Some(ServiceMode::GlobalJob(GlobalJob)), ..Default::default() });
        assert!(job.update.is_some() && job.rollback.is_some());
    }
}
