//! A manager of this node while it runs: its listener, its raft group, the pipe of the own agent, and the keys on disk that
//! follow the cluster's. The only file that knows how a manager is made.

use std::sync::Arc;

use identity::UnlockKey;
use manager::{Founding, Manager, ManagerConfig, Watch};
use tokio::task::JoinSet;

use crate::error::{StartError, chain};
use crate::group;
use crate::keeper::Relocked;
use crate::life::{Life, ManagerStanding};
use crate::listener::RemoteListener;
use crate::local;

/// How a manager begins when that is not decided by what is on disk.
#[derive(Clone)]
pub(crate) enum Beginning {
    /// With a new cluster.
    Found(Box<Founding>),
    /// From its log, alone.
    ForceNewCluster,
}

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
        let saved = life.saved();
        let listener = RemoteListener::open(&saved.listen_addr, life.keeper.credentials()).await;
        let listener = listener.map_err(|source| StartError::Listen { addr: saved.listen_addr.clone(), source })?;
        let begins = begin(life, &listener, beginning).await?;
        let saved = life.saved();
        let keys = life.keeper.raft_keys()?;
        let manager = Manager::start(ManagerConfig {
            node_id: life.keeper.node_id(),
            raft_id: saved.raft_id,
            advertise_addr: saved.advertise_addr,
            raft_folder: life.folder.raft(),
            dek: keys.current,
            root_ca: life.keeper.credentials().current().roots.pem().to_vec(),
            seed: u64::from_le_bytes(identity::random_bytes()),
            founding: begins,
        });
        let manager = Arc::new(manager.await?);
        let (pipe, mut tasks) = local::serve(local_routes(&manager, life));
        listener.set_routes(tonic::service::Routes::default());
        life.broker.set_local(Some(pipe));
        tasks.spawn(keep_locked(manager.shared().watch(), life.clone()));
        tasks.spawn(until_ready(manager.clone(), life.clone()));
        life.stand(ManagerStanding { manager: Some(manager.clone()), ..ManagerStanding::default() });
        Ok(Self { manager, tasks, _listener: listener })
    }

    /// Waits until the manager is one no longer. Cancel-safe.
    pub(crate) async fn over(&mut self) -> Over {
        let mut status = self.manager.status();
        match status.wait_for(|status| status.failed.is_some()).await {
            Ok(status) => Over::Failed(status.failed.clone().unwrap_or_default()),
            Err(_) => Over::Failed("raft ended".to_owned()),
        }
    }

    /// Stops it; the port closes and every connection with it.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.manager.stop().await;
    }
}

async fn begin(
    life: &Life,
    listener: &RemoteListener,
    beginning: Option<Beginning>,
) -> Result<Option<Founding>, StartError> {
    match beginning {
        Some(Beginning::Found(founding)) => return Ok(Some(*founding)),
        Some(Beginning::ForceNewCluster) => return Ok(None),
        None if life.folder.has_raft_log() => return Ok(None),
        None => {}
    }
    listener.set_routes(group::health_routes(life.keeper.cluster_id()));
    let saved = life.saved();
    let addr = if saved.advertise_addr.is_empty() { &saved.listen_addr } else { &saved.advertise_addr };
    let joined = group::join(&life.broker, addr).await?;
    let own = joined.members.iter().find(|member| member.raft_id == joined.raft_id);
    let addr = own.map_or_else(|| addr.clone(), |member| member.addr.clone());
    life.save(|saved| {
        saved.raft_id = joined.raft_id;
        saved.advertise_addr = addr;
    })?;
    Ok(None)
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

/// Says so when the manager has had a leader and the cluster's state.
async fn until_ready(manager: Arc<Manager>, life: Arc<Life>) {
    let (mut status, mut ready) = (manager.status(), manager.ready());
    loop {
        let led = *ready.borrow_and_update() || status.borrow_and_update().leader != 0;
        if led && manager.shared().view().the_cluster().is_some() {
            life.standing.send_modify(|standing| standing.ready = true);
            return;
        }
        tokio::select! {
            // Level-triggered; raft's status changes with each entry that it applies.
            changed = ready.changed() => if changed.is_err() { return },
            changed = status.changed() => if changed.is_err() { return },
        }
    }
}

// TEMPORARY
fn local_routes(manager: &Manager, life: &Life) -> tonic::service::Routes {
    use manager::{Caller, DispatcherService, LogBrokerService};
    use swarm_proto::swarmkit::dispatcher_server::DispatcherServer;
    use swarm_proto::swarmkit::log_broker_server::LogBrokerServer;
    use tonic::service::interceptor::InterceptedService;
    let caller = Caller { node_id: life.keeper.node_id(), address: None };
    let identify = move |mut request: tonic::Request<()>| -> Result<tonic::Request<()>, tonic::Status> {
        request.extensions_mut().insert(caller.clone());
        Ok(request)
    };
    let dispatcher = DispatcherServer::new(DispatcherService(manager.dispatcher().clone()));
    let logs = LogBrokerServer::new(LogBrokerService(manager.log_broker().clone()));
    tonic::service::Routes::new(InterceptedService::new(dispatcher, identify.clone()))
        .add_service(InterceptedService::new(logs, identify))
}
