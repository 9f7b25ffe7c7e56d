//! An agent: it keeps a session with the leader's dispatcher, applies assignments in order, takes each task from step to
//! step as `lifecycle` says, and reports statuses until they are taken. Containers and files are the machine's and outlive
//! the agent; a machine that loses power loses running containers and what was not written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifecycle::task::{Outcome, Step, after_step, next_step};
use model::{EncryptionKey, Node, NodeId, NodeRole, Task, TaskId, TaskState, TaskStatus};
use swarm_proto::convert::FromProto;
use swarm_proto::swarmkit as p;

use crate::bug::Bug;
use crate::calls::{Answer, Call, Packet};
use crate::ctx::{Ctx, Host, MILLI, SECOND, Time, Timer};
use crate::history::Checker;
use crate::manager::host_at;

/// How long a call may take.
const CALL_TIMEOUT: Time = 5 * SECOND;
/// First back-off between sessions; then this and twice the former, at most [`MAX_BACKOFF`].
const BASE_BACKOFF: Time = 100 * MILLI;
/// Longest back-off between sessions.
const MAX_BACKOFF: Time = 8 * SECOND;
/// Statuses in one call.
const MAX_BATCH: usize = 100;

/// A container on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    Created,
    Running,
    Exited,
}

/// What outlives the agent: containers, and files with what was written so far and what is on its way.
#[derive(Default)]
pub(crate) struct Machinery {
    pub(crate) containers: BTreeMap<TaskId, Container>,
    files: BTreeMap<TaskId, Task>,
    unwritten: Vec<(TaskId, Option<Task>)>,
}

impl Machinery {
    /// The agent stops: what it had not written is lost.
    pub(crate) fn agent_stops(&mut self) {
        self.unwritten.clear();
    }

    /// The power goes.
    pub(crate) fn power_goes(&mut self, ctx: &mut Ctx) {
        self.agent_stops();
        for (task, container) in &mut self.containers {
            if *container == Container::Running {
                *container = Container::Exited;
                ctx.history.stopped(task);
            }
        }
    }

    fn put(&mut self, ctx: &mut Ctx, host: Host, task: &TaskId, file: Option<Task>) {
        if self.unwritten.is_empty() {
            let delay = ctx.between(MILLI, 30 * MILLI);
            ctx.after(host, delay, Timer::Files);
        }
        self.unwritten.push((task.clone(), file));
    }

    fn write(&mut self) {
        for (id, file) in self.unwritten.drain(..) {
            match file {
                Some(task) => drop(self.files.insert(id, task)),
                None => drop(self.files.remove(&id)),
            }
        }
    }
}

/// A task and its owner.
struct Owned {
    task: Arc<Task>,
    status: TaskStatus,
    /// The step under way, and the number of its timer.
    step: Option<(Step, u64)>,
}

/// The session.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Session {
    Idle { connect_at: Time },
    Opening,
    Open { manager: Host, conn: u64, last: String },
}

/// A call that waits for its answer.
enum Pending {
    Register(Host),
    Assignments,
    Beat,
    Statuses(Vec<(TaskId, u64)>),
}

/// A running agent.
pub(crate) struct Agent {
    host: Host,
    node: NodeId,
    tasks: BTreeMap<TaskId, Owned>,
    known: BTreeMap<TaskId, TaskStatus>,
    unsent: BTreeMap<TaskId, u64>,
    sequence: u64,
    session: Session,
    session_id: String,
    backoff: Time,
    pending: BTreeMap<u64, Pending>,
    managers: Vec<Host>,
    hint: Option<Host>,
    /// The network keys, as they were told.
    pub(crate) keys: Vec<EncryptionKey>,
    /// The role of this node, as it was told.
    pub(crate) role: Option<NodeRole>,
    /// Its tasks are to stop, and it says so.
    leaving: bool,
}

impl Agent {
    /// Starts on what is in the files.
    pub(crate) fn start(ctx: &mut Ctx, host: Host, node: NodeId, managers: Vec<Host>, machine: &mut Machinery) -> Self {
        let mut agent = Self {
            host,
            node,
            tasks: BTreeMap::new(),
            known: BTreeMap::new(),
            unsent: BTreeMap::new(),
            sequence: 0,
            session: Session::Idle { connect_at: ctx.now },
            session_id: String::new(),
            backoff: 0,
            pending: BTreeMap::new(),
            managers,
            hint: None,
            keys: Vec::new(),
            role: None,
            leaving: false,
        };
        let stored: Vec<Task> = machine.files.values().cloned().collect();
        for task in stored {
            agent.report(ctx, machine, &task.id.clone(), task.status.clone(), &task);
            let (id, status) = (task.id.clone(), task.status.clone());
            agent.tasks.insert(id.clone(), Owned { task: Arc::new(task), status, step: None });
            agent.go_on(ctx, machine, &id);
        }
        let delay = ctx.between(0, BASE_BACKOFF);
        agent.session = Session::Idle { connect_at: ctx.now + delay };
        ctx.after(host, delay, Timer::Connect);
        agent
    }

    /// The managers that it knows.
    pub(crate) fn managers(&self) -> &[Host] {
        &self.managers
    }

    /// The node leaves: its tasks stop, then it says so.
    pub(crate) fn leave(&mut self, ctx: &mut Ctx, machine: &mut Machinery) {
        self.leaving = true;
        for id in self.tasks.keys().cloned().collect::<Vec<_>>() {
            self.remove(ctx, machine, &id);
        }
        if let Session::Open { manager, .. } = self.session {
            let call = Call::Beat { node: self.node.clone(), session: self.session_id.clone(), leaves: true };
            self.call(ctx, manager, call, Pending::Beat);
        }
    }

    /// The tasks that it has, with what they are to be.
    pub(crate) fn assigned(&self) -> BTreeMap<TaskId, TaskState> {
        self.tasks.iter().map(|(id, owned)| (id.clone(), owned.task.desired_state)).collect()
    }

    /// Whether there is something to tell.
    pub(crate) fn has_news(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether it has a session.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.session, Session::Open { .. })
    }

    pub(crate) fn timer(&mut self, ctx: &mut Ctx, machine: &mut Machinery, timer: Timer) {
        match timer {
            Timer::Connect => {
                if matches!(self.session, Session::Idle { connect_at } if connect_at <= ctx.now) {
                    self.connect(ctx);
                }
            }
            Timer::Beat => {
                if let Session::Open { manager, .. } = self.session {
                    let call = Call::Beat { node: self.node.clone(), session: self.session_id.clone(), leaves: false };
                    self.call(ctx, manager, call, Pending::Beat);
                }
            }
            Timer::CallTimeout(id) if self.pending.remove(&id).is_some() => self.break_session(ctx),
            Timer::Files => machine.write(),
            Timer::Step(number) => self.step_done(ctx, machine, number),
            _ => {}
        }
        self.send_statuses(ctx);
    }

    pub(crate) fn packet(&mut self, ctx: &mut Ctx, machine: &mut Machinery, from: Host, packet: Packet) {
        match packet {
            Packet::Answer { id, answer } => self.answered(ctx, from, id, answer),
            Packet::Session { conn, message } if self.is_on(conn) => self.take_session(*message),
            Packet::Assignments { conn, message } if self.is_on(conn) => self.apply(ctx, machine, *message),
            Packet::Close { conn } if self.is_on(conn) => self.break_session(ctx),
            _ => {}
        }
        self.send_statuses(ctx);
    }

    /// A connection broke.
    pub(crate) fn broken(&mut self, ctx: &mut Ctx, conn: u64) {
        if self.is_on(conn) {
            self.break_session(ctx);
        }
    }

    fn is_on(&self, conn: u64) -> bool {
        matches!(self.session, Session::Open { conn: own, .. } if own == conn)
    }

    fn connect(&mut self, ctx: &mut Ctx) {
        if self.leaving {
            return;
        }
        let at = ctx.rng.below(self.managers.len() as u64) as usize;
        let Some(manager) = self.hint.take().or_else(|| self.managers.get(at).copied()) else { return };
        self.session = Session::Opening;
        let call = Call::Register { node: self.node.clone(), wanted: self.session_id.clone() };
        self.call(ctx, manager, call, Pending::Register(manager));
    }

    fn call(&mut self, ctx: &mut Ctx, to: Host, call: Call, pending: Pending) {
        let id = ctx.fresh();
        self.pending.insert(id, pending);
        ctx.call(self.host, to, Packet::Call { id, call: Box::new(call) });
        ctx.after(self.host, CALL_TIMEOUT, Timer::CallTimeout(id));
    }

    fn break_session(&mut self, ctx: &mut Ctx) {
        self.pending.clear();
        self.backoff = (BASE_BACKOFF + 2 * self.backoff).min(MAX_BACKOFF);
        let delay = ctx.between(1, self.backoff);
        self.session = Session::Idle { connect_at: ctx.now + delay };
        ctx.after(self.host, delay, Timer::Connect);
    }

    fn answered(&mut self, ctx: &mut Ctx, from: Host, id: u64, answer: Answer) {
        let Some(pending) = self.pending.remove(&id) else { return };
        match (pending, answer) {
            (Pending::Register(manager), Answer::Opened { session, conn }) => {
                self.backoff = 0;
                self.session_id = session.clone();
                self.session = Session::Open { manager, conn, last: String::new() };
                let call = Call::Assignments { node: self.node.clone(), session, conn };
                self.call(ctx, manager, call, Pending::Assignments);
                self.resend_all();
                ctx.after(self.host, MILLI, Timer::Beat);
            }
            (Pending::Register(_), Answer::NotLeader(hint)) => {
                self.hint = hint.filter(|hint| *hint != from);
                if self.hint.is_some() {
                    // A follower would have forwarded the call.
                    self.backoff = 0;
                }
                self.break_session(ctx);
            }
            (Pending::Assignments, Answer::Heard { .. }) => {}
            (Pending::Beat, Answer::Heard { period }) => ctx.after(self.host, period, Timer::Beat),
            (Pending::Statuses(batch), Answer::Heard { .. }) => self.taken(&batch),
            (_, answer) => {
                if matches!(answer, Answer::Refused(_)) {
                    self.session_id.clear();
                }
                self.break_session(ctx);
            }
        }
    }

    fn take_session(&mut self, message: p::SessionMessage) {
        let hosts = message.managers.iter().filter_map(|it| host_at(&it.peer.as_ref()?.addr));
        let managers: Vec<_> = hosts.collect();
        if !managers.is_empty() {
            self.managers = managers;
        }
        if let Some(Ok(node)) = message.node.map(Node::from_proto) {
            self.role = Some(node.role);
        }
        let keys = message.network_bootstrap_keys.into_iter().map(EncryptionKey::from_proto);
        self.keys = keys.filter_map(Result::ok).collect();
    }

    fn apply(&mut self, ctx: &mut Ctx, machine: &mut Machinery, message: p::AssignmentsMessage) {
        let complete = message.kind == p::AssignmentsType::Complete as i32;
        if let Session::Open { last, .. } = &mut self.session {
            if !complete && !last.is_empty() && *last != message.applies_to {
                let text = format!("{}: a message applies to {}, not {last}", self.node, message.applies_to);
                ctx.history.fail(Checker::Sanity, text);
            }
            last.clone_from(&message.results_in);
        }
        let (mut put, mut removed) = (Vec::new(), Vec::new());
        for change in message.changes {
            let removes = change.action == p::AssignmentAction::Remove as i32;
            if let Some(p::assignment::Item::Task(task)) = change.assignment.and_then(|it| it.item) {
                match Task::from_proto(task) {
                    Ok(task) if removes => removed.push(task.id),
                    Ok(task) => put.push(task),
                    Err(error) => ctx.history.fail(Checker::Sanity, format!("{}: {error}", self.node)),
                }
            }
        }
        if complete {
            let named: BTreeSet<_> = put.iter().map(|task| &task.id).collect();
            removed.extend(self.tasks.keys().filter(|id| !named.contains(id)).cloned());
        }
        for id in removed {
            self.remove(ctx, machine, &id);
        }
        for task in put {
            self.put(ctx, machine, task);
        }
    }

    fn put(&mut self, ctx: &mut Ctx, machine: &mut Machinery, task: Task) {
        let id = task.id.clone();
        match self.tasks.get_mut(&id) {
            Some(owned) => {
                owned.task = Arc::new(task);
                let file = Task { status: owned.status.clone(), ..Task::clone(&owned.task) };
                machine.put(ctx, self.host, &id, Some(file));
            }
            None => {
                machine.put(ctx, self.host, &id, Some(task.clone()));
                let status = task.status.clone();
                self.tasks.insert(id.clone(), Owned { task: Arc::new(task), status, step: None });
            }
        }
        self.go_on(ctx, machine, &id);
    }

    fn remove(&mut self, ctx: &mut Ctx, machine: &mut Machinery, id: &TaskId) {
        self.tasks.remove(id);
        self.known.remove(id);
        self.unsent.remove(id);
        machine.put(ctx, self.host, id, None);
        machine.containers.remove(id);
        ctx.history.stopped(id);
    }

    /// Takes the next step of a task, unless the one under way is still right.
    fn go_on(&mut self, ctx: &mut Ctx, machine: &mut Machinery, id: &TaskId) {
        let Some(owned) = self.tasks.get_mut(id) else { return };
        let step = next_step(owned.task.desired_state, owned.status.state);
        if owned.step.is_some_and(|(under_way, _)| under_way == step) {
            return;
        }
        owned.step = None;
        if step == Step::Nothing {
            return;
        }
        let number = ctx.fresh();
        owned.step = Some((step, number));
        if let Some(delay) = duration(ctx, step, machine.containers.get(id).copied()) {
            ctx.after(self.host, delay, Timer::Step(number));
        }
        if step == Step::Shutdown && ctx.has(Bug::StoppedTooEarly) {
            let status = after_step(step, &owned.status, Outcome::Done, ctx.wall(self.host));
            let task = owned.task.clone();
            self.known.insert(id.clone(), status.clone());
            self.report(ctx, machine, id, status, &task);
        }
    }

    fn step_done(&mut self, ctx: &mut Ctx, machine: &mut Machinery, number: u64) {
        let found = self.tasks.iter().find(|(_, owned)| owned.step.is_some_and(|(_, own)| own == number));
        let Some(id) = found.map(|(id, _)| id.clone()) else { return };
        let Some(owned) = self.tasks.get_mut(&id) else { return };
        let Some((step, _)) = owned.step.take() else { return };
        let outcome = work(ctx, machine, self.host, &owned.task, step);
        owned.status = after_step(step, &owned.status, outcome, ctx.wall(self.host));
        let (status, task) = (owned.status.clone(), owned.task.clone());
        ctx.note(format_args!("{}: {} of {}.{} is {:?}", self.node, id, service(&task), task.slot, status.state));
        self.report(ctx, machine, &id, status, &task);
        self.go_on(ctx, machine, &id);
    }

    fn report(&mut self, ctx: &mut Ctx, machine: &mut Machinery, id: &TaskId, status: TaskStatus, task: &Task) {
        machine.put(ctx, self.host, id, Some(Task { status: status.clone(), ..task.clone() }));
        if status.state > TaskState::Running {
            // An end must be on the disk before it is told, or the task would come back to life after a crash.
            machine.write();
        }
        self.sequence += 1;
        self.unsent.insert(id.clone(), self.sequence);
        self.known.insert(id.clone(), status);
    }

    fn resend_all(&mut self) {
        self.sequence += 1;
        self.unsent = self.known.keys().map(|id| (id.clone(), self.sequence)).collect();
    }

    fn send_statuses(&mut self, ctx: &mut Ctx) {
        let Session::Open { manager, .. } = self.session else { return };
        let is_busy = self.pending.values().any(|pending| matches!(pending, Pending::Statuses(_)));
        if is_busy || self.unsent.is_empty() {
            return;
        }
        let batch: Vec<_> = self.unsent.iter().take(MAX_BATCH).map(|(id, at)| (id.clone(), *at)).collect();
        let mut updates: Vec<_> =
            batch.iter().filter_map(|(id, _)| Some((id.clone(), self.known.get(id)?.clone()))).collect();
        if ctx.has(Bug::StatusBack) && ctx.one_in(4) {
            // What an agent of the kind might send again: what it said some time ago.
            updates.iter_mut().for_each(|(_, status)| status.state = status.state.min(TaskState::Accepted));
        }
        let call = Call::Statuses { node: self.node.clone(), session: self.session_id.clone(), updates };
        self.call(ctx, manager, call, Pending::Statuses(batch));
    }

    /// A manager has these; what changed since stays to be sent.
    fn taken(&mut self, batch: &[(TaskId, u64)]) {
        for (id, sequence) in batch {
            if self.unsent.get(id) == Some(sequence) {
                self.unsent.remove(id);
            }
        }
    }
}

fn service(task: &Task) -> &str {
    task.service_id.as_ref().map_or("", |id| id.as_str())
}

/// How long a step takes; `None` for as long as nothing happens.
fn duration(ctx: &mut Ctx, step: Step, container: Option<Container>) -> Option<Time> {
    Some(match step {
        Step::Accept | Step::BeginPrepare | Step::BeginStart | Step::Nothing => ctx.between(MILLI, 10 * MILLI),
        Step::Prepare => ctx.between(20 * MILLI, SECOND),
        Step::Start => ctx.between(20 * MILLI, SECOND),
        Step::Wait if container != Some(Container::Running) => MILLI,
        Step::Wait if !ctx.calm && ctx.one_in(5) => ctx.between(SECOND, 30 * SECOND),
        Step::Wait => return None,
        Step::Shutdown => ctx.between(MILLI, if ctx.calm { SECOND } else { 8 * SECOND }),
    })
}

/// Does a step to its end.
fn work(ctx: &mut Ctx, machine: &mut Machinery, host: Host, task: &Task, step: Step) -> Outcome {
    let container = machine.containers.get(&task.id).copied();
    let fails = !ctx.calm && ctx.one_in(40);
    match step {
        Step::Prepare if fails => return Outcome::Fatal("no such image".to_owned()),
        Step::Prepare if container.is_none() => drop(machine.containers.insert(task.id.clone(), Container::Created)),
        Step::Start if fails => return Outcome::Fatal("it does not start".to_owned()),
        // One that ran before is not started again.
        Step::Start if container != Some(Container::Exited) => {
            machine.containers.insert(task.id.clone(), Container::Running);
            ctx.history.started(task, host);
        }
        Step::Wait => {
            machine.containers.insert(task.id.clone(), Container::Exited);
            ctx.history.stopped(&task.id);
            return Outcome::Fatal("task: non-zero exit (1)".to_owned());
        }
        Step::Shutdown => {
            if container.is_some() {
                machine.containers.insert(task.id.clone(), Container::Exited);
            }
            ctx.history.stopped(&task.id);
        }
        _ => {}
    }
    Outcome::Done
}
