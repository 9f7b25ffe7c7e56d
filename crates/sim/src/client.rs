//! Users: each asks for one thing after the other, takes note of what it was told, and never of more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use model::{
    ContainerSpec, Duration, FailureAction, ObjectVersion, ReplicatedService, RestartCondition, RestartPolicy,
    ServiceId, ServiceMode, ServiceSpec, TaskRuntime, TaskSpec, UpdateConfig, UpdateOrder,
};
use store::ObjectId;

use crate::calls::{Answer, Call, Packet, Wish};
use crate::ctx::{CLIENTS, Ctx, Host, MILLI, SECOND, Time, Timer};
use crate::manager::Manager;

/// How long a user waits for an answer.
const PATIENCE: Time = 10 * SECOND;
/// How often a call is tried that nobody took.
const MAX_TRIES: u32 = 20;
/// Services there may be.
const MAX_SERVICES: usize = 4;
/// Replicas there may be of one.
const MAX_REPLICAS: u64 = 4;

/// What a user waits for.
struct Pending {
    id: u64,
    call: Call,
    called: Time,
    tries: u32,
}

/// One user.
pub(crate) struct Client {
    pub(crate) host: Host,
    pending: Option<Pending>,
    /// What an operator was told to do.
    pub(crate) wishes: VecDeque<Wish>,
    /// It makes services of its own.
    works: bool,
    services: BTreeMap<ServiceId, ()>,
    made: u64,
    is_over: bool,
}

impl Client {
    /// User number `at`; number 0 is the operator, who does what the faults ask for.
    pub(crate) fn new(ctx: &mut Ctx, at: usize) -> Self {
        let host = CLIENTS + at;
        let delay = ctx.between(SECOND, 3 * SECOND);
        ctx.after(host, delay, Timer::Client);
        Self {
            host,
            pending: None,
            wishes: VecDeque::new(),
            works: at > 0,
            services: BTreeMap::new(),
            made: 0,
            is_over: false,
        }
    }

    /// Asks for nothing new from now on.
    pub(crate) fn finish(&mut self) {
        self.is_over = true;
    }

    /// Whether all it asked for is answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_none() && self.wishes.is_empty()
    }

    pub(crate) fn timer(&mut self, ctx: &mut Ctx, timer: Timer, managers: &[Host]) {
        match timer {
            Timer::Client => match &self.pending {
                Some(_) => self.send(ctx, managers, None),
                None => self.next(ctx, managers),
            },
            Timer::ClientTimeout(id) if self.pending.as_ref().is_some_and(|pending| pending.id == id) => {
                self.pending = None;
                self.rest(ctx);
            }
            _ => {}
        }
    }

    fn rest(&mut self, ctx: &mut Ctx) {
        let delay = if self.works { ctx.between(100 * MILLI, 3 * SECOND) } else { 100 * MILLI };
        ctx.after(self.host, delay, Timer::Client);
    }

    fn next(&mut self, ctx: &mut Ctx, managers: &[Host]) {
        let call = match self.wishes.pop_front() {
            Some(wish) => Some(Call::Control { op: ctx.fresh(), wish }),
            None if self.works && !self.is_over => Some(self.choose(ctx)),
            None => None,
        };
        match call {
            Some(call) => {
                self.pending = Some(Pending { id: 0, call, called: ctx.now, tries: 0 });
                self.send(ctx, managers, None);
            }
            None => self.rest(ctx),
        }
    }

    fn choose(&mut self, ctx: &mut Ctx) -> Call {
        let some = self.services.keys().nth(ctx.rng.below(self.services.len().max(1) as u64) as usize).cloned();
        let is_full = self.services.len() >= MAX_SERVICES;
        match (some, ctx.rng.below(10)) {
            (None, _) => self.create(ctx),
            (Some(_), 0 | 1) if !is_full => self.create(ctx),
            (Some(service), 2) => {
                self.services.remove(&service);
                Call::Control { op: ctx.fresh(), wish: Wish::RemoveService { service } }
            }
            (Some(service), _) => Call::Read { service },
        }
    }

    fn create(&mut self, ctx: &mut Ctx) -> Call {
        self.made += 1;
        let service = ServiceId::from(format!("service-{}-{}", self.host - CLIENTS, self.made));
        self.services.insert(service.clone(), ());
        let spec = Box::new(new_spec(ctx, service.as_str()));
        Call::Control { op: ctx.fresh(), wish: Wish::CreateService { service, spec } }
    }

    fn send(&mut self, ctx: &mut Ctx, managers: &[Host], hint: Option<Host>) {
        let Some(pending) = &mut self.pending else { return };
        if managers.is_empty() || pending.tries >= MAX_TRIES {
            self.pending = None;
            self.rest(ctx);
            return;
        }
        pending.tries += 1;
        pending.id = ctx.fresh();
        let to = hint.unwrap_or(managers[ctx.rng.below(managers.len() as u64) as usize]);
        let packet = Packet::Call { id: pending.id, call: Box::new(pending.call.clone()) };
        let id = pending.id;
        ctx.call(self.host, to, packet);
        ctx.after(self.host, PATIENCE, Timer::ClientTimeout(id));
    }

    pub(crate) fn packet(&mut self, ctx: &mut Ctx, packet: Packet, managers: &[Host]) {
        let Packet::Answer { id, answer } = packet else { return };
        let Some(pending) = self.pending.take_if(|pending| pending.id == id) else { return };
        match answer {
            Answer::NotLeader(hint) => {
                self.pending = Some(pending);
                if hint.is_some() {
                    self.send(ctx, managers, hint);
                } else {
                    ctx.after(self.host, 300 * MILLI, Timer::Client);
                }
                return;
            }
            Answer::Done { index } => self.acknowledged(ctx, &pending, index),
            Answer::Read { service, applied } => {
                ctx.history.read(pending.called, applied);
                if let Some(service) = service.filter(|_| !self.is_over && ctx.rng.below(3) != 0) {
                    let spec = Box::new(changed(ctx, &service.spec));
                    let (service, version): (_, ObjectVersion) = (service.id.clone(), service.meta.version);
                    self.wishes.push_back(Wish::UpdateService { service, version, spec });
                }
            }
            _ => {}
        }
        self.rest(ctx);
    }

    fn acknowledged(&mut self, ctx: &mut Ctx, pending: &Pending, index: u64) {
        let Call::Control { op, .. } = &pending.call else { return };
        let removes: Option<ObjectId> = Manager::removed_object(&pending.call);
        ctx.note(format_args!("write {op} is acknowledged at {index}"));
        ctx.history.acknowledge(*op, removes, index, pending.called);
    }
}

/// A service as users make them.
fn new_spec(ctx: &mut Ctx, name: &str) -> ServiceSpec {
    let container = ContainerSpec { image: "image:1".to_owned(), ..Default::default() };
    let delay = Some(Duration::from_millis(500 + ctx.rng.below(2_000) as i64));
    let restart = RestartPolicy { condition: RestartCondition::Any, delay, ..Default::default() };
    let task =
        TaskSpec { runtime: Some(TaskRuntime::Container(container)), restart: Some(restart), ..Default::default() };
    let order = if ctx.one_in(3) { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst };
    let failure_action = match ctx.rng.below(4) {
        0 => FailureAction::Pause,
        1 => FailureAction::Rollback,
        _ => FailureAction::Continue,
    };
    let update = UpdateConfig {
        parallelism: 1 + ctx.rng.below(2),
        monitor: Some(Duration::from_secs(1)),
        failure_action,
        order,
        ..Default::default()
    };
    let mode = if ctx.one_in(4) {
        ServiceMode::Global(model::GlobalService)
    } else {
        ServiceMode::Replicated(ReplicatedService { replicas: 1 + ctx.rng.below(MAX_REPLICAS) })
    };
    let mut spec = ServiceSpec {
        task: Arc::new(task),
        mode: Some(mode),
        update: Some(update.clone()),
        rollback: Some(update),
        ..Default::default()
    };
    spec.annotations.name = name.to_owned();
    if ctx.one_in(4) {
        spec.annotations.labels.insert("skep.rebalance".to_owned(), "auto".to_owned());
    }
    spec
}

/// What a user makes of a service.
fn changed(ctx: &mut Ctx, spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    match &mut spec.mode {
        Some(ServiceMode::Replicated(replicated)) if ctx.rng.below(2) == 0 => {
            replicated.replicas = ctx.rng.below(MAX_REPLICAS + 1);
        }
        _ => {
            let task = Arc::make_mut(&mut spec.task);
            task.force_update += 1;
        }
    }
    spec
}
