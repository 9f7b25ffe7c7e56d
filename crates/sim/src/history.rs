//! What the group agreed on, as the first manager applied it, and the checks that need nothing else: every manager must
//! come to the same, every entry must fit what was before, and what users were told must be in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};

use model::{NodeId, NodeState, ObjectVersion, Service, ServiceId, SpecVersion, Task, TaskId, TaskState};
use store::{Event, Object, ObjectId, View};

use crate::ctx::{Host, SECOND, Time};
use crate::faults::CLOCK_JUMP;

/// The label that tells which of the users' wishes an object's last change was.
pub(crate) const OP_LABEL: &str = "sim.op";
/// How long a leader that was cut off may go on answering reads from what it knows: until its quorum check, two of raft's
/// longest time-outs later.
pub(crate) const READ_LEASE: Time = 5 * SECOND;

/// After this long a replacement does not wait for the old task any more: SwarmKit's minute, by clocks that may have
/// been turned.
const OLD_TASK_TIMEOUT: Time = 60 * SECOND - 2 * CLOCK_JUMP;

/// Who found out that something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checker {
    /// Two leaders in one term.
    OneLeader,
    /// Two votes of one manager in one term, or a vote that a restart has lost.
    OneVote,
    /// Managers whose stores differ at one index.
    SameStores,
    /// A committed request that does not fit the store.
    FitsStore,
    /// Versions that do not grow.
    Versions,
    /// A task's state that goes back.
    TaskStates,
    /// An acknowledged write that is not in the log, or changed, or out of order.
    AcknowledgedWrites,
    /// A read that is older than what was acknowledged.
    Reads,
    /// More tasks of a slot run than may.
    Slots,
    /// A manager that cannot start from its disk.
    Disks,
    /// The planner, or raft, is at odds with itself.
    Sanity,
    /// The swarm has not come to rest where it should, in time.
    Convergence,
}

/// What is wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Who found it.
    pub checker: Checker,
    /// Virtual time, in microseconds.
    pub at: u64,
    /// What.
    pub text: String,
}

struct Entry {
    term: u64,
    /// The request's number.
    request: u64,
    /// Of the store after it.
    store: u64,
    ops: BTreeSet<u64>,
    removed: BTreeSet<ObjectId>,
}

/// A write that a user was told of.
struct Acknowledged {
    op: u64,
    /// What was to be removed; such a write carries no label.
    removes: Option<ObjectId>,
    index: u64,
    called: Time,
    answered: Time,
}

/// The log as it was applied, and what was said about it.
#[derive(Default)]
pub(crate) struct History {
    /// From index 1.
    entries: Vec<Entry>,
    last_version: ObjectVersion,
    leaders: BTreeMap<u64, Host>,
    /// Whom a manager of the group has told that it votes for it, by its raft id and the term.
    votes: BTreeMap<(u64, u64), u64>,
    acknowledged: Vec<Acknowledged>,
    /// The highest index that was acknowledged by each time, growing in both.
    frontier: Vec<(Time, u64)>,
    /// Versions that updates of users were made for.
    expected: BTreeMap<u64, ObjectVersion>,
    /// The newest state that any manager applied.
    pub(crate) newest: View,
    /// Tasks whose node was called down, or removed, while they may have run: they may have been replaced.
    pub(crate) given_up: BTreeSet<TaskId>,
    /// When a task was first told to end.
    pub(crate) told_to_end: BTreeMap<TaskId, Time>,
    /// Services that may have two tasks of a slot.
    pub(crate) starts_first: BTreeSet<ServiceId>,
    /// What runs, really.
    running: BTreeMap<TaskId, Runs>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) now: Time,
}

/// A task that runs.
struct Runs {
    service: ServiceId,
    /// A number, or the machine for services that have one task on each.
    slot: (u64, Host),
    version: Option<SpecVersion>,
    host: Host,
}

/// A digest of a store that changes with each of its objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreDigest(u64);

impl StoreDigest {
    pub(crate) fn of(view: &View) -> Self {
        let snapshot = view.snapshot();
        let objects = (snapshot.nodes.into_iter().map(Object::Node))
            .chain(snapshot.services.into_iter().map(Object::Service))
            .chain(snapshot.tasks.into_iter().map(Object::Task))
            .chain(snapshot.networks.into_iter().map(Object::Network))
            .chain(snapshot.clusters.into_iter().map(Object::Cluster));
        objects.fold(Self::default(), |sum, object| Self(sum.0.wrapping_add(digest_of(&object))))
    }

    pub(crate) fn take(&mut self, events: &[Event]) {
        for event in events {
            if let Some(before) = event.before() {
                self.0 = self.0.wrapping_sub(digest_of(before));
            }
            if let Some(after) = event.after() {
                self.0 = self.0.wrapping_add(digest_of(after));
            }
        }
    }
}

/// By its debug text: encoded maps have no order.
fn digest_of(object: &Object) -> u64 {
    struct Text(DefaultHasher);
    impl std::fmt::Write for Text {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut text = Text(DefaultHasher::new());
    // Hashing does not fail.
    write!(text, "{object:?}").ok();
    text.0.finish()
}

impl History {
    pub(crate) fn fail(&mut self, checker: Checker, text: String) {
        self.failures.push(Failure { checker, at: self.now, text });
    }

    /// The last index that was applied anywhere.
    pub(crate) fn last_index(&self) -> u64 {
        self.entries.len() as u64
    }

    /// A manager leads.
    pub(crate) fn leads(&mut self, term: u64, host: Host) {
        let first = *self.leaders.entry(term).or_insert(host);
        if first != host {
            self.fail(Checker::OneLeader, format!("hosts {first} and {host} both lead in term {term}"));
        }
    }

    /// A manager says to others that it votes for one, which may be itself.
    pub(crate) fn votes(&mut self, voter: u64, term: u64, candidate: u64) {
        let first = *self.votes.entry((voter, term)).or_insert(candidate);
        if first != candidate {
            self.fail(Checker::OneVote, format!("{voter:x} votes for {first:x} and {candidate:x} in term {term}"));
        }
    }

    /// A manager starts with what its disk says of its last vote; zero is nobody.
    pub(crate) fn remembers(&mut self, voter: u64, term: u64, candidate: u64) {
        let last = self.votes.range((voter, 0)..=(voter, u64::MAX)).next_back();
        let Some((&(_, voted), &given)) = last else { return };
        if (term, candidate) != (voted, given) && term <= voted {
            let text = format!(
                "{voter:x} starts in term {term} with a vote for {candidate:x}, but gave {given:x} its in {voted}"
            );
            self.fail(Checker::OneVote, text);
        }
    }

    /// A manager applied an entry and has this store now.
    pub(crate) fn applied(
        &mut self,
        host: Host,
        (index, term): (u64, u64),
        request: u64,
        events: &[Event],
        (view, digest): (&View, StoreDigest),
    ) {
        if let Some(known) = self.entries.get(index as usize - 1) {
            if (known.term, known.request, known.store) != (term, request, digest.0) {
                let text = format!(
                    "host {host} applied another entry, or to another store, at index {index}: term {term}, not {}",
                    known.term
                );
                self.fail(Checker::SameStores, text);
            }
            return;
        }
        if index != self.last_index() + 1 {
            self.fail(Checker::SameStores, format!("host {host} applied index {index} first, after a gap"));
            return;
        }
        self.check_versions(index, events);
        let mut entry = Entry { term, request, store: digest.0, ops: BTreeSet::new(), removed: BTreeSet::new() };
        for event in events {
            self.take(index, event, &mut entry);
        }
        self.entries.push(entry);
        self.newest = view.clone();
    }

    /// A manager took a snapshot in place of the log.
    pub(crate) fn restored(&mut self, host: Host, index: u64, digest: StoreDigest) {
        match self.entries.get((index as usize).wrapping_sub(1)) {
            Some(known) if known.store == digest.0 => {}
            _ => self.fail(Checker::SameStores, format!("host {host} took a snapshot at index {index} that differs")),
        }
    }

    fn check_versions(&mut self, index: u64, events: &[Event]) {
        let versions: BTreeSet<_> =
            events.iter().filter_map(Event::after).map(|object| object.meta().version).collect();
        if versions.len() > 1 {
            self.fail(Checker::Versions, format!("entry {index} carries several versions: {versions:?}"));
        }
        if let Some(version) = versions.first().copied() {
            if version <= self.last_version {
                let text = format!("entry {index} carries version {version:?}, the one before {:?}", self.last_version);
                self.fail(Checker::Versions, text);
            }
            self.last_version = version;
        }
    }

    fn take(&mut self, index: u64, event: &Event, entry: &mut Entry) {
        if let Some(op) = event.after().and_then(op_of)
            && event.before().and_then(op_of) != Some(op)
        {
            entry.ops.insert(op);
            let base = event.before().map(|before| before.meta().version);
            if let (Some(expected), Some(base)) = (self.expected.remove(&op), base)
                && expected != base
            {
                let text = format!("write {op} at {index} was made for version {expected:?} and replaced {base:?}");
                self.fail(Checker::AcknowledgedWrites, text);
            }
        }
        match event {
            Event::Update { old: Object::Task(old), new: Object::Task(new) } => {
                if new.status.state < old.status.state {
                    let text = format!("task {} went from {:?} to {:?}", new.id, old.status.state, new.status.state);
                    self.fail(Checker::TaskStates, text);
                }
                // Its slot is given up and may be filled anew at once, as SwarmKit does.
                if new.desired_state == TaskState::Remove {
                    self.given_up.insert(new.id.clone());
                }
                if new.desired_state > TaskState::Running {
                    self.told_to_end.entry(new.id.clone()).or_insert(self.now);
                }
            }
            Event::Update { new: Object::Node(node), .. } if node.status.state == NodeState::Down => {
                self.give_up(&node.id)
            }
            Event::Remove(Object::Node(node)) => self.give_up(&node.id),
            // A node that takes tasks again gets its task of a global service at once, as in SwarmKit, whether or not
            // the former one has stopped.
            Event::Update { old: Object::Node(old), new: Object::Node(node) }
                if old.spec.availability != node.spec.availability =>
            {
                let tasks = self.newest.tasks_of_node(&node.id).filter(|task| task.slot == 0);
                let tasks: Vec<_> = tasks.map(|task| task.id.clone()).collect();
                self.given_up.extend(tasks);
            }
            _ => {}
        }
        if let Some(Object::Service(service)) = event.after() {
            self.take_service(service);
        }
        if let Event::Remove(object) = event {
            entry.removed.insert(object.id());
            if let Object::Task(task) = object {
                self.given_up.insert(task.id.clone());
            }
        }
    }

    fn take_service(&mut self, service: &Service) {
        let starts_first = [&service.spec.update, &service.spec.rollback]
            .into_iter()
            .flatten()
            .any(|config| config.order == model::UpdateOrder::StartFirst);
        if starts_first || service.spec.annotations.labels.contains_key("skep.rebalance") {
            self.starts_first.insert(service.id.clone());
        }
    }

    fn give_up(&mut self, node: &NodeId) {
        let tasks: Vec<_> = self.newest.tasks_of_node(node).map(|task| task.id.clone()).collect();
        self.given_up.extend(tasks);
    }

    /// A container of a task starts: how many of its slot run now, those left out that the managers had to give up?
    pub(crate) fn started(&mut self, task: &Task, host: Host) {
        let Some(service) = task.service_id.clone() else { return };
        let slot = (task.slot, if task.slot == 0 { host } else { 0 });
        let version = task.spec_version;
        self.running.insert(task.id.clone(), Runs { service: service.clone(), slot, version, host });
        let starts_first = self.starts_first.contains(&service);
        let counts = |id: &TaskId| {
            let told = self.told_to_end.get(id);
            let has_to_wait = told.is_none_or(|at| !starts_first && self.now < *at + OLD_TASK_TIMEOUT);
            has_to_wait && !self.given_up.contains(id)
        };
        if !counts(&task.id) {
            return;
        }
        let same = self.running.iter().filter(|(id, it)| it.service == service && it.slot == slot && counts(id));
        let (together, versions): (Vec<_>, BTreeSet<_>) = same.map(|(id, it)| (id.clone(), it.version)).unzip();
        // An update that starts first and is overtaken by another leaves its own new task to that one.
        let limit = if starts_first { versions.len().max(2) } else { 1 };
        if together.len() > limit {
            let text = format!("{} tasks of {service}.{} run: {together:?}", together.len(), task.slot);
            self.fail(Checker::Slots, text);
        }
    }

    /// A container is gone, or has stopped.
    pub(crate) fn stopped(&mut self, task: &TaskId) {
        self.running.remove(task);
    }

    /// What runs, and where.
    pub(crate) fn running(&self) -> impl Iterator<Item = (&TaskId, Host)> {
        self.running.iter().map(|(id, it)| (id, it.host))
    }

    /// A user's update is made for this version.
    pub(crate) fn expect(&mut self, op: u64, version: ObjectVersion) {
        self.expected.insert(op, version);
    }

    /// A user was told that a write is committed.
    pub(crate) fn acknowledge(&mut self, op: u64, removes: Option<ObjectId>, index: u64, called: Time) {
        let answered = self.now;
        self.acknowledged.push(Acknowledged { op, removes, index, called, answered });
        let highest = self.frontier.last().map_or(0, |(_, highest)| *highest).max(index);
        self.frontier.push((answered, highest));
    }

    /// A user read a state as of this index.
    pub(crate) fn read(&mut self, called: Time, applied: u64) {
        let limit = called.saturating_sub(READ_LEASE);
        let before = self.frontier.partition_point(|(at, _)| *at <= limit);
        let known = before.checked_sub(1).map_or(0, |at| self.frontier[at].1);
        if called > READ_LEASE && applied < known {
            let text = format!("a read at index {applied} was answered, long after {known} was acknowledged");
            self.fail(Checker::Reads, text);
        }
    }

    /// Looks at everything that was acknowledged: it is in the log, where it was said to be, in the users' order.
    pub(crate) fn check_acknowledged(&mut self) {
        let mut failures = Vec::new();
        let mut sorted: Vec<&Acknowledged> = self.acknowledged.iter().collect();
        sorted.sort_by_key(|write| write.answered);
        for write in &sorted {
            let entry = self.entries.get(write.index as usize - 1);
            let is_there = entry.is_some_and(|entry| match &write.removes {
                Some(id) => entry.removed.contains(id),
                None => entry.ops.contains(&write.op),
            });
            if !is_there {
                failures.push(format!("write {} was acknowledged at {} and is not there", write.op, write.index));
            }
        }
        // What was answered before another was asked for comes before it.
        let mut by_call = sorted.clone();
        by_call.sort_by_key(|write| write.called);
        let (mut answered, mut highest) = (sorted.iter().peekable(), 0);
        for write in by_call {
            while let Some(before) = answered.next_if(|before| before.answered < write.called) {
                highest = highest.max(before.index);
            }
            if write.index <= highest {
                failures.push(format!(
                    "write {} at {} came after one at {highest} and is before it",
                    write.op, write.index
                ));
            }
        }
        for text in failures {
            self.fail(Checker::AcknowledgedWrites, text);
        }
    }

    /// How many writes were acknowledged.
    pub(crate) fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }
}

/// Which of the users' wishes an object's last change was.
fn op_of(object: &Object) -> Option<u64> {
    let labels = match object {
        Object::Service(service) => &service.spec.annotations.labels,
        Object::Node(node) => &node.spec.annotations.labels,
        Object::Cluster(cluster) => &cluster.spec.annotations.labels,
        _ => return None,
    };
    labels.get(OP_LABEL)?.parse().ok()
}
