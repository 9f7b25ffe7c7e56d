//! Jobs: tasks that shall end. Called by [`crate::services::Services`] when a job or one of its tasks has changed.
//!
//! Every change of a job's service starts a new iteration; tasks of older ones are given up. A failed task is replaced as
//! its restart policy says (ANY means ON_FAILURE). When it is not, its slot is spent: SwarmKit would fill another one at
//! once, again and again.

use crate::global;
use crate::restart::{Restarts, Work};
use crate::tasks::{SlotKey, create, has_ended, raise_desired};
use model::{JobIteration, Node, NodeAvailability, NodeState, Service, ServiceMode, Task, TaskState};
use std::collections::BTreeSet;
use std::sync::Arc;

fn iteration(service: &Service) -> JobIteration {
    service.job_status.as_ref().map_or(JobIteration::default(), |status| status.job_iteration)
}

/// The tasks of the present iteration and of older ones.
fn tasks_of(work: &Work<'_>, service: &Service) -> (Vec<Arc<Task>>, Vec<Arc<Task>>) {
    let present = iteration(service);
    let tasks = work.transaction.tasks_of_service(&service.id).filter(|task| task.job_iteration.is_some());
    tasks.cloned().partition(|task| task.job_iteration == Some(present))
}

fn shall_work(task: &Task) -> bool {
    task.desired_state <= TaskState::Complete
}

/// Replaces those that failed.
fn restart_failed(work: &mut Work<'_>, restarts: &mut Restarts, service: &Service, tasks: &[Arc<Task>]) {
    for task in tasks {
        if has_ended(task) && task.status.state != TaskState::Complete && shall_work(task) {
            restarts.restart(work, service, task);
        }
    }
}

/// A number of completions, some at a time.
pub(crate) fn reconcile_replicated(work: &mut Work<'_>, restarts: &mut Restarts, service: &Service) {
    let Some(ServiceMode::ReplicatedJob(job)) = &service.spec.mode else { return };
    let (tasks, outdated) = tasks_of(work, service);
    for task in outdated.iter().filter(|task| !has_ended(task)) {
        raise_desired(work.transaction, &task.id, TaskState::Remove);
    }
    let mut taken: BTreeSet<u64> = BTreeSet::new();
    let mut at_work = 0;
    for task in &tasks {
        let is_complete = task.status.state == TaskState::Complete;
        at_work += u64::from(!is_complete && shall_work(task));
        taken.insert(task.slot);
    }
    restart_failed(work, restarts, service, &tasks);
    let room = job.max_concurrent.saturating_sub(at_work);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let free: Vec<u64> = (0..job.total_completions).filter(|slot| !taken.contains(slot)).take(room).collect();
    for slot in free {
        let task = work.new_task(service, &SlotKey::Number(slot));
        create(work.transaction, task);
    }
}

/// Whether a job starts on `node`: only where it can start now.
fn may_start_on(service: &Service, node: &Node) -> bool {
    global::is_eligible(service, Some(node))
        && node.spec.availability == NodeAvailability::Active
        && node.status.state == NodeState::Ready
}

/// One completion on each eligible node, also on those that come later.
pub(crate) fn reconcile_global(work: &mut Work<'_>, restarts: &mut Restarts, service: &Service) {
    let (tasks, outdated) = tasks_of(work, service);
    for task in &outdated {
        raise_desired(work.transaction, &task.id, TaskState::Remove);
    }
    let (on_valid, elsewhere): (Vec<_>, Vec<_>) = tasks.iter().cloned().partition(|task| {
        let node = task.node_id.as_ref().and_then(|id| work.transaction.node(id));
        global::is_eligible(service, node.map(|node| &**node))
    });
    for task in elsewhere.iter().filter(|task| task.status.state != TaskState::Complete) {
        raise_desired(work.transaction, &task.id, TaskState::Shutdown);
    }
    restart_failed(work, restarts, service, &on_valid);
    // A node that came back runs the job again if it was interrupted; one where it failed for good does not.
    let is_over = |state| matches!(state, TaskState::Complete | TaskState::Failed | TaskState::Rejected);
    let has_had = |task: &&Arc<Task>| shall_work(task) || is_over(task.status.state);
    let taken: BTreeSet<_> = tasks.iter().filter(has_had).filter_map(|task| task.node_id.clone()).collect();
    let nodes = work.transaction.nodes().filter(|node| may_start_on(service, node) && !taken.contains(&node.id));
    let nodes: Vec<_> = nodes.map(|node| node.id.clone()).collect();
    for node in nodes {
        let task = work.new_task(service, &SlotKey::Node(node));
        create(work.transaction, task);
    }
}
