//! The way into a swarm: root by the token's digest, certificate, then life. The caller waits for some time; the join goes
//! on without it, until it succeeds, fails, or the node leaves.
//!
//! ```text
//!   state file (join in progress) ─► root ─► certificate, on disk ─► life: agent registered, manager in the group ─► done
//!        failed while the caller waits: all of it is forgotten, by the managers, too; later: the state says why
//! ```

use std::sync::Arc;

use identity::{CertificateRequest, JoinToken, RemoteList, fetch_root, request_certificate};
use model::NodeAvailability;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::address::{Wanted, listen_only};
use crate::error::{NodeError, chain};
use crate::keeper::Keeper;
use crate::life::Ending;
use crate::node::{CONNECT_TIMEOUT, Inner, JoinRequest, Shown, Stage, local_address_towards};
use crate::state::Saved;

/// A join that goes on.
pub(crate) struct Joining {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Joining {
    /// Gives up.
    pub(crate) async fn end(self) {
        self.cancel.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a join broke");
        }
    }
}

/// Starts a join and waits for it.
pub(crate) async fn join(inner: &Arc<Inner>, request: JoinRequest) -> Result<(), NodeError> {
    let mut stage = inner.stage.lock().await;
    if !matches!(*stage, Stage::Out) {
        return Err(NodeError::InSwarm);
    }
    let token = JoinToken::parse(&request.join_token)?;
    let saved = plan(inner, &request)?;
    inner.folder.create()?;
    inner.folder.save(&saved)?;
    inner.show(Shown::Joining(saved.clone()));
    let (done, outcome) = oneshot::channel();
    let cancel = CancellationToken::new();
    let attempt = Attempt { inner: inner.clone(), saved, token, request };
    let task = tokio::spawn(attempt.run(cancel.clone(), done));
    *stage = Stage::Joining(Joining { cancel, task });
    drop(stage);
    match tokio::time::timeout(CONNECT_TIMEOUT, outcome).await {
        Ok(Ok(outcome)) => outcome,
        // The node left meanwhile, or the time is over.
        Ok(Err(_)) | Err(_) => Err(NodeError::JoinTimeout),
    }
}

/// What is remembered of the join. An address to advertise that cannot be found is left to the managers, who see it.
fn plan(inner: &Inner, request: &JoinRequest) -> Result<Saved, NodeError> {
    let wanted = Wanted {
        listen: &request.listen_addr,
        advertise: &request.advertise_addr,
        default_advertise: &inner.config.default_advertise_addr,
        data_path: &request.data_path_addr,
    };
    let asked = !request.advertise_addr.is_empty() || !inner.config.default_advertise_addr.is_empty();
    let addresses = if asked { inner.addresses(&wanted)? } else { inner.listen_address(&wanted)? };
    let remote_addr = request.remote_addrs.first().cloned().unwrap_or_default();
    Ok(Saved {
        listen_addr: addresses.listen,
        advertise_addr: addresses.advertise,
        data_path_addr: addresses.data_path,
        local_addr: local_address_towards(&remote_addr),
        remote_addr,
        join_in_progress: true,
        ..Saved::default()
    })
}

impl Inner {
    fn listen_address(&self, wanted: &Wanted<'_>) -> Result<crate::address::Addresses, NodeError> {
        let local = crate::address::local_addresses().map_err(NodeError::Address)?;
        listen_only(wanted, &local).map_err(NodeError::Address)
    }
}

struct Attempt {
    inner: Arc<Inner>,
    saved: Saved,
    token: JoinToken,
    request: JoinRequest,
}

impl Attempt {
    async fn run(self, cancel: CancellationToken, done: oneshot::Sender<Result<(), NodeError>>) {
        let keeper = tokio::select! {
            // Nothing has been started yet; who cancels forgets the files.
            () = cancel.cancelled() => return,
            keeper = self.certify() => keeper,
        };
        let started = match keeper {
            Ok(keeper) => self.inner.live(keeper, self.saved.clone(), None).await.map_err(NodeError::from),
            Err(error) => Err(error),
        };
        let mut stage = tokio::select! {
            // Who cancels holds the lock, and waits for this task.
            () = cancel.cancelled() => {
                if let Ok(running) = started {
                    running.end(Ending::Leave).await;
                }
                return;
            }
            stage = self.inner.stage.lock() => stage,
        };
        let mut readiness = match started {
            Ok(running) => {
                let readiness = running.readiness();
                *stage = Stage::In(Box::new(running));
                readiness
            }
            Err(error) => {
                *stage = self.give_up(error, done);
                return;
            }
        };
        drop(stage);
        match readiness.ready().await {
            Ok(()) => drop(done.send(Ok(()))),
            // Nobody waits any more: the manager is tried again and again, and the state says why it does not run.
            Err(_) if done.is_closed() => {}
            Err(error) => {
                let mut stage = self.inner.stage.lock().await;
                match std::mem::replace(&mut *stage, Stage::Out) {
                    Stage::In(running) if readiness.is_of(&running) => {
                        running.end(Ending::Withdraw).await;
                        *stage = self.give_up(NodeError::Manager(error), done);
                    }
                    // The node left meanwhile, and may be somewhere else.
                    other => *stage = other,
                }
            }
        }
    }

    /// Gets the first certificate and has it on disk.
    async fn certify(&self) -> Result<Keeper, NodeError> {
        let remotes = RemoteList::new(self.request.remote_addrs.clone());
        let roots = fetch_root(&remotes, &self.token).await?;
        let availability: NodeAvailability = self.request.availability;
        let request = CertificateRequest::Join { token: &self.token, availability, roots: &roots };
        let granted = request_certificate(&remotes, request).await?;
        Ok(Keeper::create(self.inner.files(), roots, granted)?)
    }

    /// A join that failed while its caller waits leaves nothing; after that, it leaves its error.
    fn give_up(&self, error: NodeError, done: oneshot::Sender<Result<(), NodeError>>) -> Stage {
        if done.is_closed() {
            return self.inner.failed(self.saved.clone(), &error);
        }
        if let Err(left) = self.inner.forget() {
            tracing::error!(error = chain(&left), "a join that failed left files behind");
        }
        done.send(Err(error)).ok();
        Stage::Out
    }
}
