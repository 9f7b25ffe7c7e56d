//! A manager of this node while it runs: its listener, its raft group, the pipe of the own agent, and the keys on disk that
//! follow the cluster's. The only file that knows how a manager is made.

use std::sync::Arc;

use identity::UnlockKey;
use manager::{Beginning, Manager, ManagerConfig, Watch};
use tokio::task::JoinSet;

use crate::error::{StartError, chain};
use crate::group;
use crate::keeper::Relocked;
use crate::life::{Life, ManagerStanding};
use crate::listener::RemoteListener;
use crate::local;

/// Why a manager's run is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The group removed it.
    Removed,
    /// It broke.
    Failed(String),
}

/// A running manager.
pub(crate) struct ManagerRun {
    manager: Arc<Manager>,
    tasks: JoinSet<()>,
    _listener: RemoteListener,
}

impl ManagerRun {
    /// Opens the port, joins the group unless there is a log or a beginning, and starts.
    pub(crate) async fn start(life: &Arc<Life>, beginning: Option<Beginning>) -> Result<Self, StartError> {
        let listen_addr = life.saved().listen_addr;
        let listener = RemoteListener::open(&listen_addr, life.keeper.credentials()).await;
        let listener = listener.map_err(|source| StartError::Listen { addr: listen_addr, source })?;
        let beginning = begin(life, &listener, beginning).await?;
        let saved = life.saved();
        let keys = life.keeper.raft_keys()?;
        let (dek, old_dek) = match keys.pending {
            Some(pending) => (pending, Some(keys.current)),
            None => (keys.current, None),
        };
        let manager = Manager::start(ManagerConfig {
            node_id: life.keeper.node_id(),
            raft_id: saved.raft_id,
            advertise_addr: saved.advertise_addr,
            raft_folder: life.folder.raft(),
            dek,
            old_dek,
            credentials: life.keeper.credentials().clone(),
            seed: u64::from_le_bytes(identity::random_bytes()),
            beginning,
        });
        let manager = Arc::new(manager.await?);
        let (pipe, mut tasks) = local::serve(manager.local_routes());
        listener.set_routes(manager.remote_routes());
        life.broker.set_local(Some(pipe));
        tasks.spawn(keep_locked(manager.shared().watch(), life.clone()));
        tasks.spawn(keep_raft_key(manager.clone(), life.clone()));
        tasks.spawn(until_ready(manager.clone(), life.clone()));
        life.stand(ManagerStanding { manager: Some(manager.clone()), ..ManagerStanding::default() });
        Ok(Self { manager, tasks, _listener: listener })
    }

    /// Waits until the manager is one no longer. Cancel-safe.
    pub(crate) async fn over(&mut self) -> Over {
        let mut status = self.manager.status();
        let failed = async {
            match status.wait_for(|status| status.failed.is_some()).await {
                Ok(status) => status.failed.clone().unwrap_or_default(),
                Err(_) => "raft ended".to_owned(),
            }
        };
        tokio::select! {
            // Both read a state that stays.
            biased;
            () = self.manager.removed() => Over::Removed,
            text = failed => Over::Failed(text),
        }
    }

    /// Stops it; the port closes and every connection with it.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.manager.stop().await;
    }
}

/// How the manager begins: as it is told, from its log, or as a member that the group takes now.
async fn begin(life: &Life, listener: &RemoteListener, beginning: Option<Beginning>) -> Result<Beginning, StartError> {
    match beginning {
        Some(beginning) => return Ok(beginning),
        None if life.folder.has_raft_log() => return Ok(Beginning::Restart),
        None => {}
    }
    // The leader dials back before it takes a member.
    listener.set_routes(manager::joining_routes(life.keeper.cluster_id()));
    let saved = life.saved();
    let addr = if saved.advertise_addr.is_empty() { saved.listen_addr } else { saved.advertise_addr };
    let joined = group::join(&life.broker, &addr).await?;
    let own = joined.members.iter().find(|member| member.raft_id == joined.raft_id);
    let addr = own.map_or(addr, |member| member.addr.clone());
    life.save(|saved| {
        saved.raft_id = joined.raft_id;
        saved.advertise_addr = addr;
    })?;
    Ok(Beginning::Join { members: joined.members })
}

/// Rewrites the key file whenever the cluster's unlock key is another one. Runs until the manager ends.
async fn keep_locked(mut watch: Watch, life: Arc<Life>) {
    loop {
        let wanted = watch
            .view
            .the_cluster()
            .map(|cluster| UnlockKey { key: manager::unlock_key(cluster), version: cluster.meta.version.0 });
        match wanted.map(|wanted| life.keeper.relock(&wanted)) {
            None | Some(Ok(Relocked::Unchanged | Relocked::Changed)) => {}
            // The old certificate's key lay open on disk.
            Some(Ok(Relocked::NewlyLocked)) => life.renewals.force(),
            Some(Err(error)) => tracing::error!(error = chain(&error), "the node's key file could not be locked anew"),
        }
        if watch.next().await.is_none() {
            return;
        }
    }
}

/// Gives the raft log another key when the key file asks for it, and goes on with a change that was interrupted. The new key
/// is on disk before anything is sealed with it, the old one until nothing needs it.
async fn keep_raft_key(manager: Arc<Manager>, life: Arc<Life>) {
    let mut wanted = life.keeper.rotations();
    loop {
        let keys = match life.keeper.raft_keys() {
            Ok(keys) => keys,
            Err(error) => return tracing::error!(error = chain(&error), "the key of the raft log is not changed"),
        };
        if keys.pending.is_some() {
            // Begun by an earlier run, which raft was told of at its start.
            let mut status = manager.status();
            if status.wait_for(|status| !status.rotating_dek).await.is_err() {
                return;
            }
        } else if keys.needs_rotation {
            let rotated = match life.keeper.begin_rotation() {
                Ok(next) => manager.rotate_dek(&next).await.map_err(|error| chain(&error)),
                Err(error) => Err(chain(&error)),
            };
            if let Err(error) = rotated {
                return tracing::error!(error, "the key of the raft log is not changed before the next start");
            }
        } else if wanted.changed().await.is_err() {
            return;
        } else {
            continue;
        }
        if let Err(error) = life.keeper.end_rotation() {
            return tracing::error!(error = chain(&error), "the old key of the raft log could not be dropped");
        }
    }
}

/// Says so when the manager has the cluster's state and has had a leader.
async fn until_ready(manager: Arc<Manager>, life: Arc<Life>) {
    let mut watch = manager.shared().watch();
    if watch.until(|view| view.the_cluster().map(drop)).await.is_none() {
        return;
    }
    if manager.status().wait_for(|status| status.leader != 0).await.is_ok() {
        life.standing.send_modify(|standing| standing.ready = true);
    }
}
