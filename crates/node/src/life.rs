//! A node's life in one swarm, from its certificate to its leaving: agent, renewals, and, while its certificate says so,
//! the manager with its listener. What they hear of each other passes through here.
//!
//! ```text
//!   agent ──session: managers, roots──► broker, keeper
//!         ──session: desired role, ROTATE──► renewals ──certificate──► keeper ──role──► supervisor ──► manager, listener
//!   manager ──unlock key──► keeper
//! ```
//!
//! Owned by `node`; [`Running`] ends all of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use agent::{AgentConfig, AgentHandle, SessionInfo};
use identity::system_now;
use manager::{Beginning, Manager};
use model::{IssuanceState, Node, NodeRole};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::error::{StartError, chain};
use crate::keeper::Keeper;
use crate::manager_run::{ManagerRun, Over};
use crate::node::NodeConfig;
use crate::remotes::{RemoteManager, RemotesFile};
use crate::renewal::{self, RenewalHandle};
use crate::roles::{RoleAction, RoleEvent, RoleMachine};
use crate::state::{Saved, StateError, StateFolder};

/// How the manager of this node stands.
#[derive(Clone, Default)]
pub(crate) struct ManagerStanding {
    /// The manager while it runs.
    pub(crate) manager: Option<Arc<Manager>>,
    /// It has had a leader and the cluster's state.
    pub(crate) ready: bool,
    /// Why it does not run though it should; it is tried again.
    pub(crate) error: Option<Arc<StartError>>,
}

/// What the parts share.
pub(crate) struct Life {
    pub(crate) folder: StateFolder,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) renewals: RenewalHandle,
    pub(crate) standing: watch::Sender<ManagerStanding>,
    /// The node's own, which outlives lives.
    managers: watch::Sender<Option<Arc<Manager>>>,
    saved: Mutex<Saved>,
}

/// What a life starts from.
pub(crate) struct Start {
    pub(crate) config: NodeConfig,
    pub(crate) folder: StateFolder,
    pub(crate) keeper: Keeper,
    pub(crate) saved: Saved,
    /// How the manager begins the first time; from its log, or by joining, if this does not say.
    pub(crate) beginning: Option<Beginning>,
    /// Where the manager is shown while it runs.
    pub(crate) managers: watch::Sender<Option<Arc<Manager>>>,
}

/// A running life.
pub(crate) struct Running {
    pub(crate) life: Arc<Life>,
    pub(crate) session: watch::Receiver<SessionInfo>,
    agent: AgentHandle,
    supervisor: JoinHandle<()>,
    stop: CancellationToken,
    loops: JoinSet<()>,
}

/// What becomes of the tasks when a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// They run on.
    Detach,
    /// They are stopped and removed, and the swarm is told.
    Leave,
    /// The same of a join that came to nothing: the swarm forgets the node.
    Withdraw,
}

impl Life {
    /// The manager stands otherwise.
    pub(crate) fn stand(&self, standing: ManagerStanding) {
        self.managers.send_replace(standing.manager.clone());
        self.standing.send_replace(standing);
    }

    /// What is saved of it.
    pub(crate) fn saved(&self) -> Saved {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is saved, on disk first.
    pub(crate) fn save(&self, change: impl FnOnce(&mut Saved)) -> Result<(), StateError> {
        let mut held = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = held.clone();
        change(&mut new);
        if new != *held {
            self.folder.save(&new)?;
            *held = new;
        }
        Ok(())
    }
}

impl Running {
    /// Starts agent, renewals and supervisor. The manager, if there is to be one, comes up on its own time.
    pub(crate) async fn start(start: Start) -> Result<Self, StartError> {
        let Start { config, folder, keeper, saved, beginning, managers } = start;
        let keeper = Arc::new(keeper);
        let given = RemoteManager { node_id: String::new(), addr: saved.remote_addr.clone() };
        let broker = Arc::new(Broker::new(
            keeper.node_id().to_string(),
            keeper.credentials().clone(),
            RemotesFile::new(folder.path()),
            vec![given],
            seed(),
        ));
        let agent = agent::start(AgentConfig {
            node_id: keeper.node_id(),
            connect: broker.clone(),
            executor: config.executor,
            addresses: saved.addresses(),
            tls_info: keeper.tls_info(),
            folder: folder.worker(),
            seed: seed(),
        });
        let agent = agent.await.map_err(|source| StateError::Io { path: folder.worker(), source })?;
        let (renewals, inbox) = renewal::channel();
        let life = Arc::new(Life {
            folder,
            keeper: keeper.clone(),
            broker: broker.clone(),
            renewals,
            standing: watch::channel(ManagerStanding::default()).0,
            managers,
            saved: Mutex::new(saved),
        });
        let mut loops = JoinSet::new();
        loops.spawn(renewal::run(keeper, broker, inbox, seed()));
        loops.spawn(observe(life.clone(), agent.info()));
        let stop = CancellationToken::new();
        let supervisor = Supervisor { life: life.clone(), beginning, stop: stop.clone() };
        let supervisor = tokio::spawn(supervisor.run());
        Ok(Self { life, session: agent.info(), agent, supervisor, stop, loops })
    }

    /// What tells when the swarm has this node.
    pub(crate) fn readiness(&self) -> Readiness {
        Readiness { life: self.life.clone(), session: self.session.clone() }
    }

    /// Ends all of it. The agent goes first: it tells the manager, which may be the own one.
    pub(crate) async fn end(mut self, ending: Ending) {
        match ending {
            Ending::Detach => self.agent.detach().await,
            Ending::Leave => self.agent.leave().await,
            Ending::Withdraw => self.agent.withdraw().await,
        }
        self.stop.cancel();
        if let Err(error) = self.supervisor.await {
            tracing::error!(%error, "the supervisor of the manager broke");
        }
        // Waits for them: who ends a life may remove the files that they write.
        self.loops.shutdown().await;
    }
}

/// Tells when the swarm has a node.
#[derive(Clone)]
pub(crate) struct Readiness {
    life: Arc<Life>,
    session: watch::Receiver<SessionInfo>,
}

impl Readiness {
    /// Waits until the agent is registered and the manager, if there is to be one, answers. An error of the manager ends
    /// the wait.
    pub(crate) async fn ready(&mut self) -> Result<(), Arc<StartError>> {
        let mut standing = self.life.standing.subscribe();
        loop {
            let is_ready = {
                let standing = standing.borrow_and_update();
                if let Some(error) = &standing.error {
                    return Err(error.clone());
                }
                standing.ready || self.life.keeper.role() == NodeRole::Worker
            };
            if is_ready && self.session.borrow_and_update().registered {
                return Ok(());
            }
            let alive = tokio::select! {
                // Both are level-triggered.
                changed = self.session.changed() => changed.is_ok(),
                changed = standing.changed() => changed.is_ok(),
            };
            if !alive {
                return Err(Arc::new(StartError::Ended));
            }
        }
    }

    /// Whether it tells of this life.
    pub(crate) fn is_of(&self, running: &Running) -> bool {
        Arc::ptr_eq(&self.life, &running.life)
    }

    /// Waits until the manager runs or could not start.
    pub(crate) async fn started(&self) {
        let mut standing = self.life.standing.subscribe();
        let started = standing.wait_for(|standing| standing.manager.is_some() || standing.error.is_some());
        if started.await.is_err() {
            tracing::debug!("the node ended before its manager had started");
        }
    }
}

fn seed() -> u64 {
    u64::from_le_bytes(identity::random_bytes())
}

/// Takes from each session what concerns the node itself.
async fn observe(life: Arc<Life>, mut session: watch::Receiver<SessionInfo>) {
    let mut orders = Orders::new(life.keeper.role());
    loop {
        let info = session.borrow_and_update().clone();
        let managers = info.managers.into_iter().map(|(node_id, addr)| RemoteManager { node_id, addr });
        life.broker.set_managers(managers.collect());
        if let Some(root_ca) = &info.root_ca
            && let Err(error) = life.keeper.set_roots(root_ca)
        {
            tracing::error!(error = chain(&error), "the swarm's new root CA is not taken");
        }
        if info.registered
            && let Err(error) = life.save(|saved| saved.join_in_progress = false)
        {
            tracing::error!(error = chain(&error), "the end of the join could not be kept");
        }
        if let Some(node) = &info.node {
            match orders.take(node, life.keeper.role()) {
                Some(Order::Become(role)) => life.renewals.expect(role),
                Some(Order::Renew) => life.renewals.force(),
                None => {}
            }
        }
        if session.changed().await.is_err() {
            return;
        }
    }
}

/// What the cluster wants of this node's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// One with this role.
    Become(NodeRole),
    /// Another one.
    Renew,
}

/// Reads orders out of this node's object. Each is given once: the same object comes with every session.
struct Orders {
    desired: NodeRole,
    last: Option<Arc<Node>>,
}

impl Orders {
    fn new(role: NodeRole) -> Self {
        Self { desired: role, last: None }
    }

    fn take(&mut self, node: &Arc<Node>, own_role: NodeRole) -> Option<Order> {
        if self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, node)) {
            return None;
        }
        let role_before = self.last.replace(node.clone()).map(|last| last.role);
        let desired = node.spec.desired_role;
        // The observed role decides what the CA signs: when it has followed the desired one, the renewal that came too
        // early need not wait for its back-off.
        let followed = node.role == desired && role_before.is_some_and(|before| before != node.role);
        if self.desired != desired || (followed && own_role != desired) {
            self.desired = desired;
            return Some(Order::Become(desired));
        }
        (node.certificate.status.state == IssuanceState::Rotate).then_some(Order::Renew)
    }
}

/// Starts and stops the manager as the certificate says.
struct Supervisor {
    life: Arc<Life>,
    beginning: Option<Beginning>,
    stop: CancellationToken,
}

impl Supervisor {
    async fn run(mut self) {
        let mut certificates = self.life.keeper.credentials().subscribe();
        let mut machine = RoleMachine::new();
        let mut running: Option<ManagerRun> = None;
        let mut event = Some(RoleEvent::Certificate(self.life.keeper.role()));
        if self.life.keeper.role() == NodeRole::Worker {
            self.wipe();
        }
        loop {
            let action = event.take().and_then(|event| machine.on(event, Instant::now()));
            if let Some(action) = action {
                let (now_running, next) = self.act(action, running.take()).await;
                running = now_running;
                if self.stop.is_cancelled() {
                    break;
                }
                event = next;
                continue;
            }
            let deadline = machine.deadline();
            event = tokio::select! {
                () = self.stop.cancelled() => break,
                // Level-triggered.
                changed = certificates.changed() => match changed {
                    Ok(()) => Some(RoleEvent::Certificate(self.life.keeper.role())),
                    Err(_) => break,
                },
                () = until(deadline) => Some(RoleEvent::Deadline),
                // Reads a state that stays.
                over = over(running.as_mut()) => Some(self.note(over)),
            };
        }
        if let Some(running) = running.take() {
            self.end(running).await;
        }
    }

    /// Does what the machine asks; gives back the manager that runs then, and what came of it.
    async fn act(
        &mut self,
        action: RoleAction,
        running: Option<ManagerRun>,
    ) -> (Option<ManagerRun>, Option<RoleEvent>) {
        match action {
            RoleAction::Renew => {
                self.life.renewals.force();
                (running, None)
            }
            RoleAction::Start => {
                let started = tokio::select! {
                    // A manager that is half started is dropped, and with it what it opened.
                    () = self.stop.cancelled() => return (None, None),
                    started = ManagerRun::start(&self.life, self.beginning.clone()) => started,
                };
                match started {
                    Ok(started) => {
                        self.beginning = None;
                        (Some(started), Some(RoleEvent::Started))
                    }
                    Err(error) => (None, Some(self.failed(error))),
                }
            }
            RoleAction::Stop | RoleAction::StopAndWipe => {
                if let Some(running) = running {
                    self.end(running).await;
                }
                if action == RoleAction::StopAndWipe {
                    self.wipe();
                    self.life.standing.send_modify(|standing| standing.error = None);
                }
                (None, None)
            }
        }
    }

    fn failed(&self, error: StartError) -> RoleEvent {
        tracing::error!(error = chain(&error), "the manager does not run");
        self.life.standing.send_modify(|standing| standing.error = Some(Arc::new(error)));
        RoleEvent::Failed
    }

    fn note(&self, over: Over) -> RoleEvent {
        match over {
            Over::Removed => RoleEvent::Removed,
            Over::Failed(text) => self.failed(StartError::Broken(text)),
        }
    }

    async fn end(&self, running: ManagerRun) {
        self.life.broker.set_local(None);
        let error = self.life.standing.borrow().error.clone();
        self.life.stand(ManagerStanding { error, ..ManagerStanding::default() });
        running.stop().await;
    }

    fn wipe(&self) {
        let wiped = self.life.folder.remove_raft().and_then(|()| self.life.save(|saved| saved.raft_id = 0));
        if let Err(error) = wiped {
            tracing::error!(error = chain(&error), "the state of a former manager could not be removed");
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

async fn over(running: Option<&mut ManagerRun>) -> Over {
    match running {
        Some(running) => running.over().await,
        None => std::future::pending().await,
    }
}

/// Whether the node's certificate has expired, in dockerd's words.
pub(crate) fn expiry(keeper: &Keeper) -> Option<identity::ChainError> {
    let checked = keeper.credentials().check_validity(system_now());
    checked.err().filter(|error| matches!(error, identity::ChainError::Expired { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Certificate, IssuanceStatus, NodeSpec};

    fn node(desired: NodeRole, role: NodeRole, issuance: IssuanceState) -> Arc<Node> {
        let status = IssuanceStatus { state: issuance, err: String::new() };
        Arc::new(Node {
            spec: NodeSpec { desired_role: desired, ..NodeSpec::default() },
            role,
            certificate: Certificate { status, ..Certificate::default() },
            ..Node::default()
        })
    }

    #[test]
    fn each_order_is_given_once() {
        use IssuanceState::{Issued, Rotate};
        use NodeRole::{Manager, Worker};
        let mut orders = Orders::new(Worker);
        let first = node(Worker, Worker, Issued);
        assert_eq!(orders.take(&first, Worker), None);
        // Promoted; the observed role follows a moment later.
        assert_eq!(orders.take(&node(Manager, Worker, Issued), Worker), Some(Order::Become(Manager)));
        let followed = node(Manager, Manager, Issued);
        assert_eq!(orders.take(&followed, Worker), Some(Order::Become(Manager)));
        assert_eq!(orders.take(&followed, Worker), None, "the same object again");
        assert_eq!(orders.take(&node(Manager, Manager, Issued), Worker), None, "nothing new of the role");
        // Rotation of the root.
        let rotate = node(Manager, Manager, Rotate);
        assert_eq!(orders.take(&rotate, Manager), Some(Order::Renew));
        assert_eq!(orders.take(&rotate, Manager), None);
        assert_eq!(orders.take(&node(Manager, Manager, Rotate), Manager), Some(Order::Renew), "asked for once more");
        // Demoted while this node was away.
        assert_eq!(orders.take(&node(Worker, Worker, Issued), Manager), Some(Order::Become(Worker)));
    }
}
