//! Who has a session, until when, and what to do about those that stopped beating.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{Node, NodeId, NodeState};
use store::View;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::Status;

use crate::error::ControlError;
use crate::writer::Writer;

/// Heartbeat period when the cluster does not say.
const DEFAULT_PERIOD: Duration = Duration::from_secs(5);
/// A session expires after this many periods without a beat.
const EXPIRY_PERIODS: u32 = 3;
/// After a change of leadership nodes have this many periods to come back.
const GRACE_PERIODS: u32 = 6;
/// Registrations of one node within [`RATE_WINDOW`].
const MAX_REGISTRATIONS: usize = 3;
/// The window of the registration limit.
const RATE_WINDOW: Duration = Duration::from_secs(8);

/// The nodes that this dispatcher knows.
pub(crate) struct Nodes {
    table: Mutex<BTreeMap<NodeId, Entry>>,
    changed: Notify,
}

struct Entry {
    /// `None`: not registered since this manager leads.
    session: Option<Session>,
    expires: Instant,
    registrations: Vec<Instant>,
}

struct Session {
    id: String,
    /// Dropped when the session ends, which ends its streams.
    _alive: watch::Sender<()>,
    watch: watch::Receiver<()>,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        Self { table: Mutex::new(BTreeMap::new()), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every node that is not down gets the grace period to register.
    pub(crate) fn reset(&self, view: &View) {
        let expires = Instant::now() + period(view) * GRACE_PERIODS;
        let mut table = self.lock();
        table.clear();
        for node in view.nodes().filter(|node| node.status.state != NodeState::Down) {
            table.insert(node.id.clone(), Entry { session: None, expires, registrations: Vec::new() });
        }
        drop(table);
        self.changed.notify_one();
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Opens a session, or keeps the one that is named if it lives. Returns its identifier, whether it is new, and what
    /// ends when it ends.
    pub(crate) fn register(
        &self,
        node: &NodeId,
        wanted: &str,
        new_id: String,
        view: &View,
    ) -> Result<(String, watch::Receiver<()>), Status> {
        let now = Instant::now();
        let mut table = self.lock();
        let entry =
            table.entry(node.clone()).or_insert(Entry { session: None, expires: now, registrations: Vec::new() });
        entry.expires = now + period(view) * EXPIRY_PERIODS;
        if let Some(session) = &entry.session
            && session.id == wanted
        {
            return Ok((session.id.clone(), session.watch.clone()));
        }
        entry.registrations.retain(|at| now.duration_since(*at) < RATE_WINDOW);
        if entry.registrations.len() >= MAX_REGISTRATIONS {
            return Err(Status::unavailable(format!("node {node} exceeded rate limit count of registrations")));
        }
        entry.registrations.push(now);
        let (alive, watch) = watch::channel(());
        entry.session = Some(Session { id: new_id.clone(), _alive: alive, watch: watch.clone() });
        drop(table);
        self.changed.notify_one();
        Ok((new_id, watch))
    }

    /// Takes a beat: the session lives on.
    pub(crate) fn beat(&self, node: &NodeId, session: &str, view: &View) -> Result<Duration, Status> {
        let period = period(view);
        let mut table = self.lock();
        let entry = checked(&mut table, node, session)?;
        entry.expires = Instant::now() + period * EXPIRY_PERIODS;
        Ok(period)
    }

    /// What ends when this session ends; an error if it is not the node's session.
    pub(crate) fn session(&self, node: &NodeId, session: &str) -> Result<watch::Receiver<()>, Status> {
        let mut table = self.lock();
        let entry = checked(&mut table, node, session)?;
        entry.session.as_ref().map(|session| session.watch.clone()).ok_or_else(not_registered)
    }

    /// Takes out every node whose time is over.
    fn expired(&self) -> Vec<(NodeId, bool)> {
        let now = Instant::now();
        let mut table = self.lock();
        let over: Vec<NodeId> = table.iter().filter(|(_, e)| e.expires <= now).map(|(id, _)| id.clone()).collect();
        over.into_iter()
            .map(|id| {
                let registered = table.remove(&id).is_some_and(|entry| entry.session.is_some());
                (id, registered)
            })
            .collect()
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.lock().values().map(|entry| entry.expires).min()
    }
}

fn not_registered() -> Status {
    Status::not_found("node not registered")
}

fn checked<'a>(table: &'a mut BTreeMap<NodeId, Entry>, node: &NodeId, session: &str) -> Result<&'a mut Entry, Status> {
    let entry = table.get_mut(node).ok_or_else(not_registered)?;
    match &entry.session {
        None => Err(not_registered()),
        Some(held) if held.id != session => Err(Status::invalid_argument("session invalid")),
        Some(_) => Ok(entry),
    }
}

/// The heartbeat period that the cluster asks for.
pub(crate) fn period(view: &View) -> Duration {
    let asked = view.the_cluster().and_then(|cluster| cluster.spec.dispatcher.heartbeat_period);
    asked.map(Duration::from).filter(|period| !period.is_zero()).unwrap_or(DEFAULT_PERIOD)
}

/// Marks nodes DOWN whose time is over. Runs until dropped.
pub(crate) async fn run_expiry(writer: Arc<Writer>, nodes: Arc<Nodes>) {
    loop {
        let wait = async {
            match nodes.next_expiry() {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A timer made anew each turn.
            () = wait => {}
            // A permit of `notify_one` is kept until it is taken.
            () = nodes.changed.notified() => continue,
        }
        for (id, registered) in nodes.expired() {
            let message =
                if registered { "heartbeat failure" } else { "heartbeat failure for node in \"unknown\" state" };
            let written = writer.write(|transaction| {
                let Some(node) = transaction.node(&id).filter(|node| node.status.state != NodeState::Down) else {
                    return Ok(());
                };
                let mut node = Node::clone(node);
                node.status.state = NodeState::Down;
                node.status.message = message.to_owned();
                transaction.update(node).map_err(ControlError::from)
            });
            if let Err(error) = written.await {
                tracing::warn!(node = %id, %error, "a node that is down could not be marked so");
            }
        }
    }
}
