//! Who has a session, until when, and what follows when nodes fall silent.
//!
//! ```text
//!           begin                        register
//!  (store) ───────► awaited ──────────────────────────► registered ──beat──► registered
//!                     │ 6 periods                           │ 3 periods of the last given
//!                     ▼                                     ▼
//!                   Silent ──► DOWN (the planner gives its tasks up a day later)
//! ```
//!
//! Invariants: a node has one session at the most; `due` holds exactly one key for each entry of `nodes`, not later than
//! its expiry (a beat moves the expiry and leaves the key: it is put right when it comes up, so a beat costs a look-up).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Cluster, NodeId, NodeState};
use stdx::Rng;
use store::{Event, Object, View};

use super::Moment;

/// Heartbeat period when the cluster does not say.
const DEFAULT_PERIOD: Duration = Duration::from_secs(5);
/// A period given out differs from the cluster's by this much at the most.
const JITTER: Duration = Duration::from_millis(500);
/// A session expires after this many periods without a beat.
const EXPIRY_PERIODS: u32 = 3;
/// After a change of leadership nodes have this many periods to come back.
const GRACE_PERIODS: u32 = 6;
/// Registrations of one node within [`RATE_WINDOW`].
const MAX_REGISTRATIONS: usize = 3;
/// The window of the registration limit.
const RATE_WINDOW: Duration = Duration::from_secs(8);

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This manager does not lead.
    #[error("dispatcher is stopped")]
    Stopped,
    /// The node has no session with this leader.
    #[error("node not registered")]
    NotRegistered,
    /// The node has another session.
    #[error("session invalid")]
    SessionInvalid,
    /// The node registers too often.
    #[error("node {0} exceeded rate limit count of registrations")]
    RateLimited(NodeId),
}

/// A node whose time is over; its session, if it had one, has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// The node.
    pub node: NodeId,
    /// What its status is to say.
    pub message: &'static str,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Leadership is lost, the node fell silent or left, or it registered anew.
    Disconnect,
    /// The node was removed from the swarm.
    Removed,
}

/// The nodes that a leader's dispatcher knows.
pub struct Sessions {
    rng: Rng,
    running: bool,
    period: Duration,
    nodes: BTreeMap<NodeId, Entry>,
    due: BTreeSet<(Moment, NodeId)>,
}

struct Entry {
    /// `None`: not registered since this manager leads.
    session_id: Option<String>,
    expires: Moment,
    /// Its key in `due`.
    queued: Moment,
    registrations: Vec<Moment>,
}

impl Sessions {
    /// A dispatcher that does not run.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            running: false,
            period: DEFAULT_PERIOD,
            nodes: BTreeMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// A new leadership: every node that is not down gets a grace period to register.
    pub fn begin(&mut self, now: Moment, view: &View) {
        self.end();
        self.running = true;
        self.period = period_of(view.the_cluster().map(AsRef::as_ref));
        let expires = now + self.period * GRACE_PERIODS;
        for node in view.nodes() {
            if node.status.state != NodeState::Down {
                self.put(node.id.clone(), None, expires);
            }
        }
    }

    /// Ends every session.
    pub fn end(&mut self) {
        self.running = false;
        self.nodes.clear();
        self.due.clear();
    }

    /// Opens a session with the identifier `fresh`, or keeps the one that is named if it lives. Returns its identifier.
    pub fn register(&mut self, now: Moment, node: &NodeId, wanted: &str, fresh: String) -> Result<String, Refusal> {
        if !self.running {
            return Err(Refusal::Stopped);
        }
        let period = self.choose_period();
        let expires = now + period * EXPIRY_PERIODS;
        if self.check(node, wanted).is_ok() {
            self.prolong(node, expires);
            return Ok(wanted.to_owned());
        }
        if !self.nodes.contains_key(node) {
            self.put(node.clone(), None, expires);
        }
        let Some(entry) = self.nodes.get_mut(node) else { return Err(Refusal::NotRegistered) };
        entry.registrations.retain(|at| now.saturating_sub(*at) < RATE_WINDOW);
        if entry.registrations.len() >= MAX_REGISTRATIONS {
            return Err(Refusal::RateLimited(node.clone()));
        }
        entry.registrations.push(now);
        entry.session_id = Some(fresh.clone());
        entry.expires = expires;
        self.requeue(node);
        Ok(fresh)
    }

    /// Takes a beat; says when the next is due.
    pub fn beat(&mut self, now: Moment, node: &NodeId, session_id: &str) -> Result<Duration, Refusal> {
        self.check(node, session_id)?;
        let period = self.choose_period();
        self.prolong(node, now + period * EXPIRY_PERIODS);
        Ok(period)
    }

    /// Whether this is the node's session.
    pub fn check(&self, node: &NodeId, session_id: &str) -> Result<(), Refusal> {
        if !self.running {
            return Err(Refusal::Stopped);
        }
        let held = self.nodes.get(node).and_then(|entry| entry.session_id.as_deref());
        match held {
            None => Err(Refusal::NotRegistered),
            Some(held) if held != session_id => Err(Refusal::SessionInvalid),
            Some(_) => Ok(()),
        }
    }

    /// Whether the node has a session.
    pub fn is_registered(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|entry| entry.session_id.is_some())
    }

    /// How many nodes have a session.
    pub fn registered(&self) -> usize {
        self.nodes.values().filter(|entry| entry.session_id.is_some()).count()
    }

    /// Ends a session whose node left or could not be written. How often the node registered is still known.
    pub fn close(&mut self, node: &NodeId, session_id: &str) {
        if let Some(entry) = self.nodes.get_mut(node)
            && entry.session_id.as_deref() == Some(session_id)
        {
            entry.session_id = None;
        }
    }

    /// Takes note of what was committed: the heartbeat period, and nodes that were removed, which it returns; their
    /// sessions have ended.
    pub fn observe(&mut self, events: &[Event]) -> Vec<NodeId> {
        let mut removed = Vec::new();
        if !self.running {
            return removed;
        }
        for event in events {
            match event {
                Event::Create(Object::Cluster(cluster)) | Event::Update { new: Object::Cluster(cluster), .. } => {
                    self.period = period_of(Some(cluster));
                }
                Event::Remove(Object::Node(node)) => {
                    self.take(&node.id);
                    removed.push(node.id.clone());
                }
                _ => {}
            }
        }
        removed
    }

    /// Takes out the nodes whose time is over.
    pub fn take_silent(&mut self, now: Moment) -> Vec<Silent> {
        let mut silent = Vec::new();
        while let Some((_, node)) = self.due.first().filter(|(at, _)| *at <= now).cloned() {
            if self.nodes.get(&node).is_some_and(|entry| entry.expires > now) {
                self.requeue(&node);
                continue;
            }
            let registered = self.take(&node).is_some_and(|entry| entry.session_id.is_some());
            let message =
                if registered { "heartbeat failure" } else { "heartbeat failure for node in \"unknown\" state" };
            silent.push(Silent { node, message });
        }
        silent
    }

    /// When a node's time may be over at the earliest.
    pub fn deadline(&self) -> Option<Moment> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The cluster's period, varied so that nodes do not beat in step.
    fn choose_period(&mut self) -> Duration {
        let spread = JITTER.min(self.period / 4);
        let nanos = u64::try_from(spread.as_nanos() * 2).unwrap_or(0);
        self.period - spread + Duration::from_nanos(self.rng.below(nanos + 1))
    }

    fn put(&mut self, node: NodeId, session_id: Option<String>, expires: Moment) {
        self.take(&node);
        self.due.insert((expires, node.clone()));
        self.nodes.insert(node, Entry { session_id, expires, queued: expires, registrations: Vec::new() });
    }

    fn take(&mut self, node: &NodeId) -> Option<Entry> {
        let entry = self.nodes.remove(node)?;
        self.due.remove(&(entry.queued, node.clone()));
        Some(entry)
    }

    fn prolong(&mut self, node: &NodeId, expires: Moment) {
        let Some(entry) = self.nodes.get_mut(node) else { return };
        entry.expires = expires;
        // Only when the cluster's period became shorter.
        if expires < entry.queued {
            self.requeue(node);
        }
    }

    /// Puts the node's key where its expiry is.
    fn requeue(&mut self, node: &NodeId) {
        let Some(entry) = self.nodes.get_mut(node) else { return };
        self.due.remove(&(entry.queued, node.clone()));
        entry.queued = entry.expires;
        self.due.insert((entry.expires, node.clone()));
    }
}

fn period_of(cluster: Option<&Cluster>) -> Duration {
    let asked = cluster.and_then(|cluster| cluster.spec.dispatcher.heartbeat_period);
    asked.map(Duration::from).filter(|period| !period.is_zero()).unwrap_or(DEFAULT_PERIOD)
}
