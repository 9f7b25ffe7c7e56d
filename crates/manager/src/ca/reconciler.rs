//! The leader's shell around a root rotation: every few seconds the next step, sooner when nodes report. Ends when it is
//! dropped.

use std::sync::Arc;
use std::time::Duration;

use model::{Cluster, IssuanceState, Node, NodeId, RootCa};
use store::{Event, Object};

use super::rotation::{Step, is_renewing, next_step};
use crate::error::ControlError;
use crate::shared::Next;
use crate::writer::Writer;

/// Time between two steps of a rotation; SwarmKit's.
const STEP: Duration = Duration::from_secs(3);
/// Time between a node's report and the next step: many report together.
const AFTER_NEWS: Duration = Duration::from_millis(200);

/// Runs while this manager leads.
pub(crate) async fn run_reconciler(writer: Arc<Writer>) {
    let mut watch = writer.shared().watch();
    let mut wait = Duration::ZERO;
    loop {
        let deadline = tokio::time::Instant::now() + wait;
        let mut news = false;
        loop {
            let until = if news { deadline.min(tokio::time::Instant::now() + AFTER_NEWS) } else { deadline };
            tokio::select! {
                // A deadline, not a duration.
                () = tokio::time::sleep_until(until) => break,
                // A broadcast receiver keeps its place.
                next = watch.next() => match next {
                    Some(next) => news |= concerns_rotation(&next),
                    None => return,
                },
            }
        }
        let step = next_step(&watch.view);
        if let Err(error) = take(&writer, &watch.view, step.clone()).await {
            tracing::warn!(%error, "a step of the root rotation could not be written");
        }
        wait = if step == Step::Idle { Duration::from_secs(3600) } else { STEP };
    }
}

/// Whether a commit may call for another step: the root or a node's issuer changed.
fn concerns_rotation(next: &Next) -> bool {
    let Next::Commit(commit) = next else { return true };
    let rotating = commit.view.the_cluster().is_some_and(|cluster| cluster.root_ca.root_rotation.is_some());
    rotating
        && commit.events.iter().any(|event| match event {
            Event::Update { old: Object::Node(old), new: Object::Node(new) } => issuer(old) != issuer(new),
            Event::Update { old: Object::Cluster(old), new: Object::Cluster(new) } => old.root_ca != new.root_ca,
            Event::Remove(Object::Node(_)) => true,
            _ => false,
        })
}

fn issuer(node: &Node) -> Option<&model::NodeTlsInfo> {
    node.description.as_ref().and_then(|description| description.tls_info.as_ref())
}

async fn take(writer: &Writer, view: &store::View, step: Step) -> Result<(), ControlError> {
    match step {
        Step::Idle => Ok(()),
        Step::Renew(nodes) if nodes.is_empty() => Ok(()),
        Step::Renew(nodes) => mark(writer, &nodes).await,
        Step::Finish => match view.the_cluster() {
            Some(cluster) => finish(writer, cluster.root_ca.clone()).await,
            None => Ok(()),
        },
    }
}

async fn mark(writer: &Writer, nodes: &[NodeId]) -> Result<(), ControlError> {
    let written = writer.write(|transaction| {
        for id in nodes {
            let Some(stored) = transaction.node(id) else { continue };
            if is_renewing(stored) {
                continue;
            }
            let mut node = Node::clone(stored);
            node.certificate.status.state = IssuanceState::Rotate;
            node.certificate.status.err = String::new();
            transaction.update(node)?;
        }
        Ok::<_, ControlError>(())
    });
    written.await
}

/// Ends the rotation, if it is still the one whose nodes were counted, and if none joined meanwhile.
async fn finish(writer: &Writer, expected: RootCa) -> Result<(), ControlError> {
    let written = writer.write(|transaction| {
        let Some(stored) = transaction.the_cluster() else { return Ok(()) };
        if stored.root_ca != expected || next_step(transaction.view()) != Step::Finish {
            return Ok(());
        }
        let Some(root_ca) = identity::finish_rotation(&stored.root_ca) else { return Ok(()) };
        let cluster = Cluster { root_ca, ..Cluster::clone(stored) };
        transaction.update(cluster).map_err(ControlError::from)
    });
    written.await?;
    tracing::info!("the root rotation is complete");
    Ok(())
}
