//! The leader's signing loop: takes what waits, signs it on a thread for such work or has external CAs sign it, writes
//! the results in batches. Ends when it is dropped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use identity::{Credentials, Signer};
use model::NodeId;
use store::{Event, Object, View};

use super::signing::{self, Authority, Job, KeyHolder, Signed};
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
    let authority = Arc::new(Authority::of(cluster));
    let jobs: Vec<_> = waiting.iter().filter_map(|id| view.node(id)).map(|node| Job::of(node)).collect();
    for batch in jobs.chunks(MAX_ACTIONS) {
        let signed = sign(authority.clone(), credentials, batch.to_vec()).await;
        let written = writer.write(|transaction| {
            signed
                .iter()
                .try_for_each(|(job, signed)| signing::apply(transaction, job, signed).map_err(ControlError::from))
        });
        if let Err(error) = written.await {
            return tracing::warn!(%error, "signed certificates could not be written");
        }
        for (job, signed) in signed {
            match signed {
                Signed::Later(reason) => {
                    tracing::warn!(node = %job.node_id, reason, "a certificate was not signed yet")
                }
                Signed::Refused(reason) => {
                    tracing::warn!(node = %job.node_id, reason, "a certificate was refused");
                    waiting.remove(&job.node_id);
                }
                Signed::Chain(_) => drop(waiting.remove(&job.node_id)),
            }
        }
    }
}

async fn sign(authority: Arc<Authority>, credentials: &Credentials, jobs: Vec<Job>) -> Vec<(Job, Signed)> {
    match &authority.holder {
        KeyHolder::Store(key) => {
            let key = key.clone();
            let given = jobs.clone();
            let work = move || sign_here(&authority, &key, given);
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
                let died = |job| (job, Signed::Later("the signing thread died".to_owned()));
                jobs.into_iter().map(died).collect()
            })
        }
        KeyHolder::External(urls) => {
            let ask = |job: Job| async {
                let _ = (urls, credentials);
                let signed = Signed::Later("external".to_owned());
                (job, signed)
            };
            futures::stream::iter(jobs).map(ask).buffer_unordered(EXTERNAL_AT_ONCE).collect().await
        }
    }
}

fn sign_here(authority: &Authority, key: &[u8], jobs: Vec<Job>) -> Vec<(Job, Signed)> {
    let signer = Signer::new(&authority.cert, key, &authority.intermediates);
    let sign = |job: Job| {
        let signed = match &signer {
            // A root that cannot sign can be mended by an update of the cluster.
            Err(error) => Signed::Later(error.to_string()),
            Ok(signer) => sign_one(signer, authority, &job),
        };
        (job, signed)
    };
    jobs.into_iter().map(sign).collect()
}

fn sign_one(signer: &Signer, authority: &Authority, job: &Job) -> Signed {
    let signed = signer.sign_csr(&job.csr, &job.node_id, job.role, &authority.cluster_id, authority.life, now());
    match signed {
        Ok(chain) => Signed::Chain(chain),
        Err(error @ identity::SignError::Request(_)) => Signed::Refused(error.to_string()),
        Err(error) => Signed::Later(error.to_string()),
    }
}
