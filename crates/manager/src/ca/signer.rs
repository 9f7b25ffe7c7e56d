//! The leader's signing loop: takes what waits, signs it on a thread for such work or has external CAs sign it, writes
//! the results in batches. Ends when it is dropped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use identity::{ActiveSigner, Credentials, ExternalSigner, LeafRequest, SignError};
use model::{Cluster, NodeId};
use store::{Event, Object, View};

use super::signing::{self, Job, Signed};
use crate::error::ControlError;
use crate::shared::{Next, Watch};
use crate::writer::{MAX_ACTIONS, Writer, now};

/// When requests that could not be signed are tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Requests that are with external CAs at once.
const EXTERNAL_AT_ONCE: usize = 16;

/// Runs while this manager leads.
pub(crate) async fn run_signer(writer: Arc<Writer>, credentials: Credentials) {
    let mut watch = writer.shared().watch();
    let mut waiting = all_waiting(&watch.view);
    loop {
        drain(&mut watch, &mut waiting);
        sign_waiting(&writer, &credentials, &watch.view, &mut waiting).await;
        let retry =
            async { if waiting.is_empty() { std::future::pending().await } else { tokio::time::sleep(RETRY).await } };
        tokio::select! {
            // A broadcast receiver keeps its place.
            next = watch.next() => match next {
                Some(next) => note(next, &watch.view, &mut waiting),
                None => return,
            },
            // Made anew each turn: news restarts the wait, which only hastens the next try.
            () = retry => {}
        }
    }
}

fn all_waiting(view: &View) -> BTreeSet<NodeId> {
    view.nodes().filter(|node| signing::is_waiting(node)).map(|node| node.id.clone()).collect()
}

fn note(next: Next, view: &View, waiting: &mut BTreeSet<NodeId>) {
    let Next::Commit(commit) = next else { return *waiting = all_waiting(view) };
    for event in &commit.events {
        if let Event::Create(Object::Node(node)) | Event::Update { new: Object::Node(node), .. } = event
            && signing::is_waiting(node)
        {
            waiting.insert(node.id.clone());
        }
    }
}

/// Takes what has come already, so that one write serves many joiners.
fn drain(watch: &mut Watch, waiting: &mut BTreeSet<NodeId>) {
    while let Some(Some(next)) = watch.next().now_or_never() {
        note(next, &watch.view, waiting);
    }
}

/// Signs what waits; what could not be signed yet stays.
async fn sign_waiting(writer: &Arc<Writer>, credentials: &Credentials, view: &View, waiting: &mut BTreeSet<NodeId>) {
    waiting.retain(|id| view.node(id).is_some_and(|node| signing::is_waiting(node)));
    let Some(cluster) = view.the_cluster().filter(|_| !waiting.is_empty()) else { return };
    let signer = match ActiveSigner::of(&cluster.root_ca, &cluster.spec.ca_config) {
        Ok(signer) => Arc::new(signer),
        // A root that cannot sign can be mended by an update of the cluster.
        Err(error) => return tracing::error!(%error, "the cluster's CA cannot sign"),
    };
    let jobs: Vec<_> = waiting.iter().filter_map(|id| view.node(id)).map(|node| Job::of(node)).collect();
    for batch in jobs.chunks(MAX_ACTIONS) {
        let signed = sign(&signer, cluster, credentials, batch.to_vec()).await;
        let written = writer.write(|transaction| {
            let mut results = signed.iter();
            results.try_for_each(|(job, signed)| signing::apply(transaction, job, signed).map_err(ControlError::from))
        });
        if let Err(error) = written.await {
            return tracing::warn!(%error, "signed certificates could not be written");
        }
        for (job, signed) in signed {
            match signed {
                Signed::Later(reason) => tracing::warn!(node = %job.node_id, reason, "a certificate waits"),
                Signed::Refused(reason) => {
                    tracing::warn!(node = %job.node_id, reason, "a certificate was refused");
                    waiting.remove(&job.node_id);
                }
                Signed::Chain(_) => drop(waiting.remove(&job.node_id)),
            }
        }
    }
}

async fn sign(
    signer: &Arc<ActiveSigner>,
    cluster: &Arc<Cluster>,
    credentials: &Credentials,
    jobs: Vec<Job>,
) -> Vec<(Job, Signed)> {
    match signer.as_ref() {
        ActiveSigner::Local(_) => {
            let (signer, cluster, given) = (signer.clone(), cluster.clone(), jobs.clone());
            let work = move || given.into_iter().map(|job| (job.clone(), sign_here(&signer, &cluster, &job))).collect();
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
                let died = |job| (job, Signed::Later("the signing thread died".to_owned()));
                jobs.into_iter().map(died).collect()
            })
        }
        ActiveSigner::External { urls, intermediates_pem, tls_roots } => {
            let node = credentials.current().node.clone();
            let external = ExternalSigner {
                urls,
                tls_roots,
                node: node.as_deref(),
                intermediates_pem: intermediates_pem.as_slice(),
            };
            let ask = |job: Job| async {
                let signed = external.sign(leaf(&job, cluster), tls_roots, now()).await;
                (job, told(signed, |error| error.is_temporary()))
            };
            futures::stream::iter(jobs).map(ask).buffer_unordered(EXTERNAL_AT_ONCE).collect().await
        }
    }
}

fn sign_here(signer: &ActiveSigner, cluster: &Cluster, job: &Job) -> Signed {
    let ActiveSigner::Local(signer) = signer else { return Signed::Later("the CA is elsewhere".to_owned()) };
    let signed = signer.sign_csr(leaf(job, cluster), cluster.spec.ca_config.node_cert_expiry, now());
    told(signed, |error| !matches!(error, SignError::Request(_)))
}

fn leaf<'a>(job: &'a Job, cluster: &'a Cluster) -> LeafRequest<'a> {
    LeafRequest { csr_pem: &job.csr, node: &job.node_id, role: job.role, cluster: &cluster.id }
}

fn told<E: std::fmt::Display>(signed: Result<Vec<u8>, E>, is_temporary: impl Fn(&E) -> bool) -> Signed {
    match signed {
        Ok(chain) => Signed::Chain(chain),
        Err(error) if is_temporary(&error) => Signed::Later(error.to_string()),
        Err(error) => Signed::Refused(error.to_string()),
    }
}
