//! Fair share without `--force`: when nodes join, come back or get free, running tasks of services that ask for it
//! (see [`policy()`]) move towards an even spread, start-first and a few at a time. The record is `docs/design/0005`.
//!
//! ```text
//!  something changed ─► service at rest? ─► uneven by two? ─► a node takes it? ─► begin a move (crate::moves)
//!                         │ no: Hold          │ no: done        │ no: Hold           │
//!                         ▼                   ▼                 ▼                    ├─ taken over: next after `delay`
//!                    looked at again when it, a node or room has changed             └─ given up: back off, doubling
//! ```
//!
//! What is under way is read from the store each time; only the back-off is remembered, and found again, as far as failed
//! tasks are still there, by a new leader. The [`crate::leader::Leader`] calls this planner when all others rest, so that
//! the scheduler's counts are those of the view.

mod policy;
mod situation;

use crate::moves::{self, GivenUp};
use crate::plan::{Plan, Reason};
use crate::restart::Work;
use crate::scheduler::{Better, Move, Scheduler};
use crate::tasks::{SlotKey, create, has_ended, write};
use model::{Duration, Node, Service, ServiceId, Task, TaskId, TaskState, Timestamp, UpdateState};
use situation::{Situation, seen_at};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use stdx::Rng;
use store::{Event, Object, Transaction, View};

pub use policy::{
    DEFAULT_DELAY, DEFAULT_PARALLELISM, DELAY_LABEL, PARALLELISM_LABEL, PARALLELISM_LIMIT, Policy, PolicyError,
    SWITCH_LABEL, policy,
};

/// How long nothing is moved after a first failure; each further one doubles it.
pub const FIRST_BACK_OFF: Duration = Duration::from_secs(30);
/// How long nothing is moved after many failures.
pub const BACK_OFF_LIMIT: Duration = Duration::from_secs(60 * 60);
/// How long a task that took over is watched: if it fails sooner, moving it was a failure.
pub const MONITOR: Duration = Duration::from_secs(5);
/// How long a new task may take to run.
pub const MOVE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How many services are looked at in one plan; the others follow after `NEXT_SERVICES`.
pub const SERVICES_LIMIT: usize = 32;
/// How long after a full plan the next one is due.
const NEXT_SERVICES: Duration = Duration { seconds: 0, nanos: 20_000_000 };
/// How long after a look at a service the next one is due: a large one that changes all the time must not be walked
/// through each time.
const NEXT_LOOK: Duration = Duration { seconds: 0, nanos: 50_000_000 };

/// Why a service that is to be rebalanced is not being moved, though it may have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A label cannot be understood.
    Malformed(PolicyError),
    /// An update or rollback is under way or paused, or tasks are not of the present spec.
    Updating,
    /// Tasks that shall run do not yet.
    NotRunning,
    /// As many tasks move as may at once.
    Moving,
    /// The delay between two moves.
    Resting(Timestamp),
    /// Moves have failed.
    BackingOff(Timestamp),
    /// No node with fewer tasks has room.
    NoRoom,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Malformed(error) => return error.fmt(f),
            Self::Updating => "rebalance waits for the end of an update",
            Self::NotRunning => "rebalance waits until all tasks run",
            Self::Moving => "rebalance waits for tasks that are being moved",
            Self::Resting(_) => "rebalance rests between two tasks",
            Self::BackingOff(_) => "rebalance waits because a moved task failed",
            Self::NoRoom => "rebalance finds no room on the nodes with fewer tasks",
        };
        f.write_str(text)
    }
}

/// Failed moves of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trouble {
    failures: u32,
    until: Timestamp,
}

impl Trouble {
    fn after(failures: u32, last: Timestamp) -> Self {
        let doublings = failures.saturating_sub(1).min(30);
        let nanos = FIRST_BACK_OFF.total_nanos().saturating_mul(1 << doublings).min(BACK_OFF_LIMIT.total_nanos());
        Self { failures, until: last.plus(Duration::from_nanos(nanos)) }
    }
}

/// The planner.
#[derive(Clone, Debug)]
pub struct Rebalance {
    rng: Rng,
    /// The services that are to be rebalanced.
    policies: BTreeMap<ServiceId, Policy>,
    /// Services whose labels are to be read again; all if the cluster's changed.
    relabelled: BTreeSet<ServiceId>,
    all_relabelled: bool,
    /// Services to look at; all if a node has changed.
    dirty: BTreeSet<ServiceId>,
    all_dirty: bool,
    /// Something ended: those without room are looked at.
    room_was_made: bool,
    /// When to look at which service.
    timers: BTreeSet<(Timestamp, ServiceId)>,
    /// Why nothing is done.
    holds: BTreeMap<ServiceId, Hold>,
    trouble: BTreeMap<ServiceId, Trouble>,
    /// Tasks that took over, and when.
    watched: BTreeMap<TaskId, (ServiceId, Timestamp)>,
    /// When a service was last looked at.
    looked_at: BTreeMap<ServiceId, Timestamp>,
    /// Tasks that a move has shut down and that may have stopped.
    stopped: BTreeSet<TaskId>,
    /// What became of tasks that were made by moves, in order.
    outcomes: Vec<(ServiceId, TaskId, Outcome)>,
    /// Tasks whose failure is counted: events come twice (see [`crate::plan`]).
    counted: BTreeSet<TaskId>,
    adopts: bool,
}

/// What became of a task that was made by a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It came to run.
    Runs,
    /// It failed.
    Failed,
    /// It was given up because moving did not work.
    GivenUp,
}

fn labels_changed(old: &Service, new: &Service) -> bool {
    old.spec.annotations.labels != new.spec.annotations.labels || old.spec.mode != new.spec.mode
}

fn node_changed(old: &Node, new: &Node) -> bool {
    old.status.state != new.status.state
        || old.spec != new.spec
        || old.role != new.role
        || old.description != new.description
}

fn is_updating(service: &Service) -> bool {
    use UpdateState::{Paused, RollbackPaused, RollbackStarted, Updating};
    let state = service.update_status.as_ref().map(|status| status.state);
    matches!(state, Some(Updating | Paused | RollbackStarted | RollbackPaused))
}

impl Rebalance {
    /// One that knows nothing yet; `seed` (random in a swarm) makes the tasks' identifiers.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            policies: BTreeMap::new(),
            relabelled: BTreeSet::new(),
            all_relabelled: false,
            dirty: BTreeSet::new(),
            all_dirty: false,
            room_was_made: false,
            timers: BTreeSet::new(),
            holds: BTreeMap::new(),
            trouble: BTreeMap::new(),
            watched: BTreeMap::new(),
            looked_at: BTreeMap::new(),
            stopped: BTreeSet::new(),
            outcomes: Vec::new(),
            counted: BTreeSet::new(),
            adopts: false,
        }
    }

    /// Forgets everything and looks at every service.
    pub fn rebuild(&mut self, view: &View) {
        *self = Self::new(self.rng.next_u64());
        self.adopts = true;
        self.all_relabelled = true;
        for task in view.tasks().filter(|task| !task.annotations.labels.is_empty()) {
            self.observe_labelled(None, task);
            if moves::is_replacement(task) && task.desired_state <= TaskState::Running {
                self.dirty.extend(task.service_id.clone());
            }
        }
    }

    /// Why services that are to be rebalanced are not moved at present.
    pub fn holds(&self) -> &BTreeMap<ServiceId, Hold> {
        &self.holds
    }

    /// Decides what to write for the changes that led to `view`, which `scheduler` has seen as well.
    pub fn plan(&mut self, view: &View, events: &[Event], now: Timestamp, scheduler: &mut Scheduler) -> Plan {
        events.iter().for_each(|event| self.observe(event));
        let mut plan = Plan::default();
        let mut transaction = Transaction::new(view);
        self.explain_stopped(&mut transaction);
        self.count_failures(view, now);
        self.read_labels(view, &mut plan);
        self.collect_dirty(now);
        for _ in 0..SERVICES_LIMIT {
            let Some(id) = self.dirty.pop_first() else { break };
            let next = self.looked_at.get(&id).map(|at| at.plus(NEXT_LOOK));
            if let Some(at) = next.filter(|at| *at > now) {
                self.wake(&id, at);
                continue;
            }
            let mut rng = self.rng.clone();
            let mut work = Work { transaction: &mut transaction, now, rng: &mut rng };
            let hold = self.look_at(&mut work, scheduler, &id, &mut plan);
            self.rng = rng;
            self.hold(id, hold, &mut plan);
        }
        if !self.dirty.is_empty() {
            plan.wake_at(now.plus(NEXT_SERVICES));
        }
        if let Some((at, _)) = self.timers.first() {
            plan.wake_at(*at);
        }
        plan.actions = transaction.finish();
        plan
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Create(Object::Service(service)) => drop(self.relabelled.insert(service.id.clone())),
            Event::Update { old: Object::Service(old), new: Object::Service(new) } => {
                if labels_changed(old, new) {
                    self.relabelled.insert(new.id.clone());
                }
                self.touch(&new.id);
            }
            Event::Remove(Object::Service(service)) => self.forget(&service.id),
            Event::Create(Object::Cluster(_)) => self.all_relabelled = true,
            Event::Update { old: Object::Cluster(old), new: Object::Cluster(new) } => {
                self.all_relabelled |= old.spec.annotations.labels != new.spec.annotations.labels;
            }
            Event::Create(Object::Node(_)) | Event::Remove(Object::Node(_)) => self.all_dirty = true,
            Event::Update { old: Object::Node(old), new: Object::Node(new) } => {
                self.all_dirty |= node_changed(old, new);
            }
            Event::Create(Object::Task(task)) => self.observe_task(None, task),
            Event::Update { old: Object::Task(old), new: Object::Task(new) } => {
                self.observe_task(Some(old), new);
                self.room_was_made |= has_ended(new) && !has_ended(old);
            }
            Event::Remove(Object::Task(task)) => {
                task.service_id.iter().for_each(|service| self.touch(service));
                self.counted.remove(&task.id);
                self.room_was_made = true;
            }
            _ => {}
        }
    }

    fn touch(&mut self, service: &ServiceId) {
        if self.policies.contains_key(service) {
            self.dirty.insert(service.clone());
        }
    }

    fn collect_dirty(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.all_dirty) {
            self.dirty.extend(self.policies.keys().cloned());
        }
        if std::mem::take(&mut self.room_was_made) {
            let waiting = self.holds.iter().filter(|(_, hold)| **hold == Hold::NoRoom);
            self.dirty.extend(waiting.map(|(id, _)| id.clone()));
        }
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            let (_, service) = self.timers.pop_first().expect("it was just seen");
            self.dirty.insert(service);
        }
    }

    fn observe_task(&mut self, old: Option<&Task>, task: &Task) {
        task.service_id.iter().for_each(|service| self.touch(service));
        if !task.annotations.labels.is_empty() {
            self.observe_labelled(old, task);
        }
    }

    /// A task that may have to do with a move, as it was seen before and as it is now.
    fn observe_labelled(&mut self, old: Option<&Task>, task: &Task) {
        if moves::reason(task).is_some() && has_ended(task) && task.status.err.is_empty() {
            self.stopped.insert(task.id.clone());
        }
        let Some(service) = task.service_id.as_ref().filter(|_| moves::is_replacement(task)) else { return };
        let mut note = |outcome| self.outcomes.push((service.clone(), task.id.clone(), outcome));
        let old_state = old.map(|old| old.status.state);
        match task.status.state {
            TaskState::Running if old_state != Some(TaskState::Running) => note(Outcome::Runs),
            TaskState::Failed | TaskState::Rejected if old_state != Some(task.status.state) => note(Outcome::Failed),
            _ => {}
        }
        if old.is_none_or(|old| moves::reason(old).is_none()) && GivenUp::of(task).is_some_and(GivenUp::is_failure) {
            note(Outcome::GivenUp);
        }
    }

    fn forget(&mut self, service: &ServiceId) {
        self.policies.remove(service);
        self.holds.remove(service);
        self.trouble.remove(service);
        self.looked_at.remove(service);
        self.watched.retain(|_, (of, _)| of != service);
    }

    /// An agent's last word leaves no reason; people see it as the task's error.
    fn explain_stopped(&mut self, transaction: &mut Transaction) {
        for id in std::mem::take(&mut self.stopped) {
            let Some(task) = transaction.task(&id).filter(|task| has_ended(task) && task.status.err.is_empty()) else {
                continue;
            };
            let mut explained = (**task).clone();
            explained.status.err = moves::reason(task).unwrap_or_default().to_owned();
            write(transaction, explained);
        }
    }

    /// Counts moves that did not work: given up as such, or failed soon after the new task had taken over.
    fn count_failures(&mut self, view: &View, now: Timestamp) {
        let trouble = &mut self.trouble;
        self.watched.retain(|_, (service, at)| {
            let has_held = now.since(*at) > MONITOR;
            if has_held {
                trouble.remove(service);
            }
            !has_held
        });
        let outcomes = std::mem::take(&mut self.outcomes);
        if std::mem::take(&mut self.adopts) {
            self.adopt_failures(view, outcomes, now);
            return;
        }
        for (service, id, outcome) in outcomes {
            if view.service(&service).is_none() || view.task(&id).is_none() || self.counted.contains(&id) {
                continue;
            }
            let is_failure = match outcome {
                Outcome::Runs => {
                    self.watched.entry(id.clone()).or_insert((service.clone(), now));
                    false
                }
                Outcome::Failed => self.watched.remove(&id).is_some(),
                Outcome::GivenUp => true,
            };
            if is_failure {
                self.counted.insert(id);
                let failures = self.trouble.get(&service).map_or(0, |trouble| trouble.failures) + 1;
                self.dirty.insert(service.clone());
                self.trouble.insert(service, Trouble::after(failures, now));
            }
        }
    }

    /// What a former leader has seen fail. When a task took over, if it did, is not known: any failure counts, for what is
    /// left of the back-off.
    fn adopt_failures(&mut self, view: &View, outcomes: Vec<(ServiceId, TaskId, Outcome)>, now: Timestamp) {
        let mut failed: BTreeMap<ServiceId, BTreeMap<TaskId, Timestamp>> = BTreeMap::new();
        for (service, id, _) in outcomes.into_iter().filter(|(_, _, outcome)| *outcome != Outcome::Runs) {
            let Some(task) = view.task(&id).filter(|_| view.service(&service).is_some()) else { continue };
            self.counted.insert(id.clone());
            failed.entry(service).or_default().insert(id, seen_at(task).map_or(now, |at| at.min(now)));
        }
        for (service, times) in failed {
            let failures = u32::try_from(times.len()).unwrap_or(u32::MAX);
            let last = times.into_values().max().unwrap_or(now);
            self.trouble.insert(service, Trouble::after(failures, last));
        }
    }

    fn read_labels(&mut self, view: &View, plan: &mut Plan) {
        if std::mem::take(&mut self.all_relabelled) {
            self.relabelled.extend(view.services().map(|service| service.id.clone()));
        }
        for id in std::mem::take(&mut self.relabelled) {
            let Some(service) = view.service(&id) else { continue };
            let (policy, hold) = match policy(view.the_cluster().map(|it| &**it), service) {
                Ok(policy) => (policy, None),
                Err(error) => (None, Some(Hold::Malformed(error))),
            };
            let before = self.policies.remove(&id);
            if policy.is_some() || before.is_some() {
                self.looked_at.remove(&id);
                self.dirty.insert(id.clone());
            }
            self.policies.extend(policy.map(|policy| (id.clone(), policy)));
            self.hold(id, hold, plan);
        }
    }

    /// Remembers why nothing is done, and says it if it is new.
    fn hold(&mut self, service: ServiceId, hold: Option<Hold>, plan: &mut Plan) {
        let Some(hold) = hold else {
            self.holds.remove(&service);
            return;
        };
        let is_new = self.holds.get(&service).is_none_or(|told| told.to_string() != hold.to_string());
        if is_new {
            plan.reasons.push(Reason { object: service.clone().into(), text: hold.to_string() });
        }
        self.holds.insert(service, hold);
    }

    fn wake(&mut self, service: &ServiceId, at: Timestamp) {
        self.timers.insert((at, service.clone()));
    }

    /// Goes on with the moves of a service, and begins one if it may; otherwise why not.
    fn look_at(
        &mut self,
        work: &mut Work<'_>,
        scheduler: &mut Scheduler,
        id: &ServiceId,
        plan: &mut Plan,
    ) -> Option<Hold> {
        let service = work.transaction.service(id).cloned()?;
        self.looked_at.insert(id.clone(), work.now);
        let mut situation = Situation::of(work.transaction, &service);
        let Some(policy) = self.policies.get(id).cloned() else {
            for (_, new) in &situation.under_way {
                moves::give_up(work.transaction, new, GivenUp::SwitchedOff);
            }
            // Of one that is off the labels alone say why.
            return self.holds.get(id).filter(|hold| matches!(hold, Hold::Malformed(_))).cloned();
        };
        situation.under_way.retain(|(_, new)| self.goes_on(work, id, new));
        if let Some(hold) = self.why_not(work, &service, &policy, &situation) {
            return Some(hold);
        }
        let leaving: BTreeSet<TaskId> = situation.under_way.iter().map(|(old, _)| old.id.clone()).collect();
        match scheduler.better_place(work.transaction, &service, &situation.movable, &leaving, work.now) {
            Better::Even => None,
            Better::NoRoom => Some(Hold::NoRoom),
            Better::Move(found) => {
                Self::begin(work, &service, &found, plan);
                Some(Hold::Moving)
            }
        }
    }

    /// Whether a move that is under way still has a chance; otherwise it is given up.
    fn goes_on(&mut self, work: &mut Work<'_>, id: &ServiceId, new: &Task) -> bool {
        let gives_up_at = new.meta.created_at.unwrap_or(work.now).plus(MOVE_TIMEOUT);
        let why = if new.status.state == TaskState::Pending && !new.status.err.is_empty() {
            GivenUp::Refused
        } else if gives_up_at <= work.now {
            GivenUp::TooSlow
        } else {
            self.wake(id, gives_up_at);
            return true;
        };
        moves::give_up(work.transaction, new, why);
        false
    }

    fn why_not(&mut self, work: &Work<'_>, service: &Service, policy: &Policy, situation: &Situation) -> Option<Hold> {
        if is_updating(service) || situation.is_outdated {
            return Some(Hold::Updating);
        }
        if situation.is_unsettled {
            return Some(Hold::NotRunning);
        }
        if let Some(trouble) = self.trouble.get(&service.id).copied().filter(|trouble| trouble.until > work.now) {
            self.wake(&service.id, trouble.until);
            return Some(Hold::BackingOff(trouble.until));
        }
        let is_placed = |(_, new): &(Arc<Task>, Arc<Task>)| new.status.state >= TaskState::Assigned;
        if situation.under_way.len() + situation.stopping >= policy.parallelism
            || !situation.under_way.iter().all(is_placed)
        {
            return Some(Hold::Moving);
        }
        let rests = situation.last_taken_over.map(|at| at.min(work.now).plus(policy.delay));
        if let Some(until) = rests.filter(|until| *until > work.now) {
            self.wake(&service.id, until);
            return Some(Hold::Resting(until));
        }
        None
    }

    fn begin(work: &mut Work<'_>, service: &Service, found: &Move, plan: &mut Plan) {
        let old = &found.task;
        let mut new = work.new_task(service, &SlotKey::Number(old.slot));
        new.node_id = Some(found.node.id.clone());
        new.annotations.labels.insert(moves::REPLACES_LABEL.to_owned(), old.id.to_string());
        let from = old.node_id.as_ref().and_then(|id| work.transaction.node(id)).map(|node| &**node);
        let text = format!(
            "rebalance: moves from node {} to node {}, {} tasks against {}",
            moves::node_name(from),
            moves::node_name(Some(&found.node)),
            found.tasks_from,
            found.tasks_to
        );
        plan.reasons.push(Reason { object: old.id.clone().into(), text });
        create(work.transaction, new);
    }
}
