//! A manager's store without raft: what is proposed is committed at once.

use std::sync::{Arc, Mutex, PoisonError};

use consensus::StateMachine;
use futures::future::BoxFuture;
use identity::{Credentials, RootAuthority, RootBundle};
use model::{Cluster, Node, NodeId, NodeRole, Task, TaskId, TaskState};
use store::Object;
use swarm_proto::swarmkit as p;

use crate::caller::Caller;
use crate::error::ControlError;
use crate::machine::StoreMachine;
use crate::shared::{Next, Shared};
use crate::writer::{Log, LostLeadership, Writer};

struct InstantLog(Mutex<(u64, StoreMachine)>);

impl Log for InstantLog {
    fn propose(&self, _: u64, request: p::InternalRaftRequest) -> BoxFuture<'static, Result<(), LostLeadership>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.0 += 1;
        let index = held.0;
        held.1.apply(index, request);
        Box::pin(async { Ok(()) })
    }

    fn last_index(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A leading writer on an empty store.
pub(crate) async fn leading_writer() -> Arc<Writer> {
    let writer = follower_writer();
    writer.begin(1).await.unwrap();
    writer
}

/// A writer of a manager that follows, on an empty store.
pub(crate) fn follower_writer() -> Arc<Writer> {
    let shared = Arc::new(Shared::default());
    let log = InstantLog(Mutex::new((10, StoreMachine::new(shared.clone()))));
    Arc::new(Writer::new(shared, Arc::new(log), 0))
}

/// Brings every commit of `from` to `to`. Runs until it is dropped.
pub(crate) async fn replicate(from: Arc<Shared>, to: Arc<Shared>) {
    let mut watch = from.watch();
    to.replace(watch.view.clone());
    while let Some(next) = watch.next().await {
        match next {
            Next::Commit(commit) => to.publish(commit.index, commit.view.clone(), commit.events.clone()),
            Next::Anew => to.replace(watch.view.clone()),
        }
    }
}

/// A node that calls.
pub(crate) fn caller(node: &str) -> Caller {
    Caller {
        node_id: node.into(),
        role: Some(NodeRole::Worker),
        cluster_id: "cluster".into(),
        address: Some("10.0.1.7".into()),
        forwarded_by: None,
        local: false,
    }
}

/// Credentials of nobody.
pub(crate) fn credentials() -> Credentials {
    let root = RootAuthority::generate(identity::system_now()).unwrap();
    Credentials::new(RootBundle::parse(&root.cert_pem).unwrap(), None)
}

/// Writes new objects.
pub(crate) async fn create(writer: &Writer, objects: Vec<Object>) {
    let written = writer.write(|transaction| {
        for object in objects {
            transaction.create(object)?;
        }
        Ok::<_, ControlError>(())
    });
    written.await.unwrap();
}

/// Changes a task.
pub(crate) async fn change_task(writer: &Writer, id: &str, change: impl FnOnce(&mut Task)) {
    let written = writer.write(|transaction| {
        let mut task = Task::clone(transaction.task(&TaskId::from(id)).unwrap());
        change(&mut task);
        transaction.update(task).map_err(ControlError::from)
    });
    written.await.unwrap();
}

/// A cluster object with SwarmKit's defaults.
pub(crate) fn cluster() -> Cluster {
    Cluster { id: "cluster".into(), spec: crate::default_cluster_spec(), ..Default::default() }
}

/// A node with this identifier and role.
pub(crate) fn node(id: &str, role: NodeRole) -> Node {
    let mut node = Node { id: id.into(), role, ..Default::default() };
    node.spec.desired_role = role;
    node
}

/// A task that is assigned to a node.
pub(crate) fn assigned_task(id: &str, node: &NodeId) -> Task {
    let mut task =
        Task { id: id.into(), node_id: Some(node.clone()), desired_state: TaskState::Running, ..Default::default() };
    task.status.state = TaskState::Assigned;
    task
}
