//! Ways to managers: the pipe to this node's own one while it is a manager, else one of the managers that it knows, good
//! ones more often. Keeps the list of them, also on disk. Shared by the agent, renewals and joins.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent::{Connect, Connection, ManagerAddress, Outcome};
use async_trait::async_trait;
use identity::{Credentials, ServerRole};
use stdx::Rng;
use tokio::sync::watch;

use crate::local::LocalPipe;
use crate::remotes::{Experience, RemoteManager, Remotes, RemotesFile};

/// How long a call waits for the own manager when no other is known.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Gives connections to managers.
pub(crate) struct Broker {
    node_id: String,
    credentials: Credentials,
    file: RemotesFile,
    local: watch::Sender<Option<Arc<LocalPipe>>>,
    held: Mutex<Held>,
}

struct Held {
    remotes: Remotes,
    rng: Rng,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    /// No manager is known.
    #[error("no manager is known")]
    NoManager,
    /// The own manager does not answer.
    #[error("{0}")]
    Local(String),
    /// Another one does not answer.
    #[error(transparent)]
    Dial(#[from] identity::DialError),
}

impl Broker {
    /// A broker that knows the managers of the last run, and those that are given.
    pub(crate) fn new(
        node_id: String,
        credentials: Credentials,
        file: RemotesFile,
        given: Vec<RemoteManager>,
        seed: u64,
    ) -> Self {
        let known = file.load();
        let remotes = Remotes::of(known.into_iter().chain(given));
        let held = Held { remotes, rng: Rng::new(seed) };
        Self { node_id, credentials, file, local: watch::Sender::new(None), held: Mutex::new(held) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node shows to managers.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// This node is a manager now, or no longer.
    pub(crate) fn set_local(&self, local: Option<Arc<LocalPipe>>) {
        self.local.send_replace(local);
    }

    /// The way to this node's own manager.
    pub(crate) fn local(&self) -> Option<Arc<LocalPipe>> {
        self.local.borrow().clone()
    }

    /// The managers of the swarm, as the leader names them.
    pub(crate) fn set_managers(&self, managers: Vec<RemoteManager>) {
        let list = {
            let mut held = self.held();
            if !held.remotes.replace(managers) {
                return;
            }
            held.remotes.list()
        };
        if let Err(error) = self.file.save(&list) {
            tracing::error!(%error, "the list of managers could not be kept");
        }
    }

    /// All managers that are known.
    pub(crate) fn managers(&self) -> Vec<RemoteManager> {
        self.held().remotes.list()
    }

    /// A manager to call, never this node itself.
    pub(crate) fn pick(&self) -> Option<RemoteManager> {
        let mut held = self.held();
        let Held { remotes, rng, .. } = &mut *held;
        remotes.pick(&self.node_id, rng)
    }

    /// Learns from a call to the manager at this address.
    pub(crate) fn learn(&self, addr: &str, experience: Experience) {
        self.held().remotes.observe(addr, experience);
    }

    /// A connection: local first. A node that knows no other manager waits for its own to come up.
    pub(crate) async fn open(&self) -> Result<Connection, BrokerError> {
        let mut local = self.local();
        let other = self.pick();
        if local.is_none() && other.is_none() {
            let mut pipes = self.local.subscribe();
            let up = tokio::time::timeout(LOCAL_TIMEOUT, pipes.wait_for(Option::is_some)).await;
            local = up.ok().and_then(|pipe| pipe.ok().and_then(|pipe| pipe.clone()));
        }
        if let Some(local) = local {
            let channel = local.connect().await.map_err(BrokerError::Local)?;
            return Ok(Connection { channel, manager: ManagerAddress::Local });
        }
        let manager = other.ok_or(BrokerError::NoManager)?;
        match identity::connect(&manager.addr, ServerRole::Manager, &self.credentials).await {
            Ok(channel) => Ok(Connection { channel, manager: ManagerAddress::Remote(manager.addr) }),
            Err(error) => {
                self.learn(&manager.addr, Experience::Bad);
                Err(error.into())
            }
        }
    }
}

#[async_trait]
impl Connect for Broker {
    async fn connect(&self) -> Result<Connection, String> {
        self.open().await.map_err(|error| crate::error::chain(&error))
    }

    fn observe(&self, manager: &ManagerAddress, outcome: Outcome) {
        if let ManagerAddress::Remote(addr) = manager {
            let good = outcome == Outcome::Opened;
            self.learn(addr, if good { Experience::Good } else { Experience::Bad });
        }
    }
}

/// Other managers, for certificates; the own one is asked through its pipe.
impl identity::Remotes for Broker {
    fn select(&self) -> Option<String> {
        self.pick().map(|manager| manager.addr)
    }

    fn observe(&self, addr: &str, outcome: identity::Outcome) {
        let good = outcome == identity::Outcome::Good;
        self.learn(addr, if good { Experience::Good } else { Experience::Bad });
    }
}
