//! The world: machines, users, and the loop that takes one event after the other.
//!
//! ```text
//!  setting up ──all have joined──► faults ──their time is over──► calm ──all is as it should be──► done
//!                                                                   └──not in time──► Convergence
//! ```

use std::collections::BTreeMap;
use std::time::Instant;

use model::{NodeId, NodeRole};

use crate::agent::{Agent, Machinery};
use crate::bug::Bug;
use crate::calls::{Answer, Call, Packet, Wish};
use crate::client::Client;
use crate::ctx::{CLIENTS, Ctx, Event, Host, MILLI, SECOND, Time, Timer};
use crate::disk::Disk;
use crate::faults::{Faults, Profile};
use crate::history::{Checker, Failure};
use crate::manager::{Begin, Manager, address, node_id};

/// How often a machine looks after its own life.
const LIFE: Time = 300 * MILLI;
/// How long the setting up may take.
const SET_UP_LIMIT: Time = 60 * SECOND;
/// How long the swarm may take to come to rest.
const REST_LIMIT: Time = 150 * SECOND;
/// How long a machine's own call may take.
const CALL_TIMEOUT: Time = 5 * SECOND;

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// A bug to put in.
    pub bug: Option<Bug>,
    /// Print what happens.
    pub print: bool,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was wrong, in order; empty for a good run.
    pub failures: Vec<Failure>,
    /// Equal for equal runs.
    pub trace: u64,
    /// Virtual time, in microseconds.
    pub took: u64,
    /// Entries of the log.
    pub entries: u64,
    /// Writes that users were told of.
    pub acknowledged: usize,
}

/// What a machine is doing in the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It asks for its node object.
    Joining(NodeRole),
    /// It is a node.
    Member,
    /// It has left.
    Gone,
}

/// A machine.
pub(crate) struct Machine {
    pub(crate) host: Host,
    pub(crate) node: NodeId,
    pub(crate) life: Life,
    pub(crate) is_on: bool,
    pub(crate) manager: Option<Manager>,
    /// The disk while no manager runs.
    pub(crate) disk: Option<Box<Disk>>,
    pub(crate) raft_id: Option<u64>,
    pub(crate) agent: Option<Agent>,
    machinery: Machinery,
    pending: Option<u64>,
    /// Managers that it heard of.
    managers: Vec<Host>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    SettingUp,
    Faults { until: Time },
    Calm { since: Time },
}

/// Everything.
pub(crate) struct World {
    pub(crate) ctx: Ctx,
    pub(crate) machines: Vec<Machine>,
    pub(crate) clients: Vec<Client>,
    pub(crate) phase: Phase,
    pub(crate) faults: Faults,
    /// An origin for the product's own points in time; it is never compared with a clock.
    base: Instant,
    good_checks: u32,
    is_done: bool,
}

/// Runs a swarm to its end.
pub fn run(options: Options) -> Report {
    let mut world = World::new(options);
    while !world.is_done && world.ctx.history.failures.is_empty() {
        let Some(event) = world.ctx.next() else { break };
        world.ctx.history.now = world.ctx.now;
        world.take(event);
    }
    world.ctx.history.check_acknowledged();
    Report {
        trace: world.ctx.trace_digest(),
        took: world.ctx.now,
        entries: world.ctx.history.last_index(),
        acknowledged: world.ctx.history.acknowledged_count(),
        failures: world.ctx.history.failures,
    }
}

impl World {
    fn new(options: Options) -> Self {
        let mut ctx = Ctx::new(options.seed, options.bug, options.print);
        let profile = Profile::draw(&mut ctx);
        let managers = if ctx.one_in(3) { 5 } else { 3 };
        let workers = 1 + ctx.rng.below(3) as usize;
        let clients = (0..3).map(|at| Client::new(&mut ctx, at)).collect();
        let mut world = Self {
            ctx,
            machines: Vec::new(),
            clients,
            phase: Phase::SettingUp,
            faults: Faults::new(profile),
            base: Instant::now(),
            good_checks: 0,
            is_done: false,
        };
        for at in 0..managers + workers {
            let role = if at < managers { NodeRole::Manager } else { NodeRole::Worker };
            world.add_machine(role);
        }
        world.found();
        world.ctx.at(SECOND, Event::Check);
        world
    }

    /// A new machine that joins.
    pub(crate) fn add_machine(&mut self, role: NodeRole) {
        let host = self.machines.len();
        self.ctx.note(format_args!("host {host} joins as {role:?}"));
        let managers = self.managers();
        self.machines.push(Machine {
            host,
            node: node_id(host),
            life: Life::Joining(role),
            is_on: true,
            manager: None,
            disk: Some(Box::default()),
            raft_id: None,
            agent: None,
            machinery: Machinery::default(),
            pending: None,
            managers: if managers.is_empty() { vec![0] } else { managers },
        });
        let delay = self.ctx.between(MILLI, SECOND);
        self.ctx.after(host, delay + SECOND * (host.min(5) as u64) / 2, Timer::Life);
    }

    fn found(&mut self) {
        let machine = &mut self.machines[0];
        machine.life = Life::Member;
        machine.raft_id = Some(1);
        let disk = machine.disk.take().unwrap_or_default();
        machine.manager = Manager::start(&mut self.ctx, 0, disk, Begin::Found, self.base).ok();
        let node = machine.node.clone();
        machine.agent = Some(Agent::start(&mut self.ctx, 0, node, vec![0], &mut machine.machinery));
    }

    /// The machines with a running manager, as clients find them.
    pub(crate) fn managers(&self) -> Vec<Host> {
        self.machines.iter().filter(|machine| machine.manager.is_some()).map(|machine| machine.host).collect()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Timer { host, incarnation, timer } => {
                if self.ctx.incarnation(host) == incarnation {
                    self.timer(host, timer);
                }
            }
            Event::Packet { to, packet, .. } if to >= CLIENTS => {
                let managers = self.managers();
                self.clients[to - CLIENTS].packet(&mut self.ctx, packet, &managers);
            }
            Event::Packet { from, to, packet } => self.packet(from, to, packet),
            Event::Broken { host, conn } => {
                if let Some(agent) = self.machines.get_mut(host).and_then(|machine| machine.agent.as_mut()) {
                    agent.broken(&mut self.ctx, conn);
                }
            }
            Event::Fault => self.fault(),
            Event::PowerOn(host) => self.power_on(host),
            Event::Check => self.check(),
        }
    }

    fn timer(&mut self, host: Host, timer: Timer) {
        if host >= CLIENTS {
            let managers = self.managers();
            self.clients[host - CLIENTS].timer(&mut self.ctx, timer, &managers);
            return;
        }
        let machine = &mut self.machines[host];
        match timer {
            Timer::RaftTick
            | Timer::DiskDone
            | Timer::SnapshotDone
            | Timer::LeaderLoop
            | Timer::Planner
            | Timer::Expiry
            | Timer::Roles => {
                if let Some(manager) = &mut machine.manager {
                    manager.timer(&mut self.ctx, timer);
                }
                self.look_after_manager(host);
            }
            Timer::Life => self.live(host),
            Timer::CallTimeout(id) if machine.pending == Some(id) => machine.pending = None,
            _ => {
                if let Some(agent) = &mut machine.agent {
                    agent.timer(&mut self.ctx, &mut machine.machinery, timer);
                }
            }
        }
    }

    fn packet(&mut self, from: Host, to: Host, packet: Packet) {
        let machine = &mut self.machines[to];
        if !machine.is_on || machine.life == Life::Gone {
            return;
        }
        match packet {
            Packet::Raft(_)
            | Packet::RaftTaken { .. }
            | Packet::RaftRemoved { .. }
            | Packet::Resolve { .. }
            | Packet::Resolved { .. }
            | Packet::Call { .. } => {
                if let Some(manager) = &mut machine.manager {
                    manager.packet(&mut self.ctx, from, packet);
                    self.look_after_manager(to);
                } else if let Packet::Call { id, .. } = packet {
                    // The port is closed.
                    self.ctx.call(to, from, Packet::Answer { id, answer: Answer::NotLeader(None) });
                }
            }
            Packet::Answer { id, answer } if machine.pending == Some(id) => {
                machine.pending = None;
                self.life_answered(to, answer);
            }
            packet => {
                if let Some(agent) = &mut machine.agent {
                    agent.packet(&mut self.ctx, &mut machine.machinery, from, packet);
                }
            }
        }
    }

    /// A manager that was removed stops, and what it had goes.
    fn look_after_manager(&mut self, host: Host) {
        let machine = &mut self.machines[host];
        if machine.manager.as_ref().is_some_and(|manager| manager.is_removed) {
            self.ctx.note(format_args!("host {host} is no manager any more"));
            self.stop_manager(host);
        }
    }

    fn stop_manager(&mut self, host: Host) {
        let machine = &mut self.machines[host];
        machine.manager = None;
        machine.raft_id = None;
        machine.disk = Some(Box::default());
        self.restart_timers(host);
    }

    /// Timers of a manager that is gone must not reach the next one; the agent's go on.
    fn restart_timers(&mut self, host: Host) {
        let machine = &mut self.machines[host];
        self.ctx.start_anew(host);
        machine.pending = None;
        self.ctx.after(host, LIFE, Timer::Life);
        if machine.agent.is_some() {
            machine.machinery.agent_stops();
            let managers = machine.agent.as_ref().map(|agent| agent.managers().to_vec()).unwrap_or_default();
            let node = machine.node.clone();
            machine.agent = Some(Agent::start(&mut self.ctx, host, node, managers, &mut machine.machinery));
        }
    }

    /// What the machine does for itself: it asks for its node object, joins the group, or stops being a manager.
    fn live(&mut self, host: Host) {
        self.ctx.after(host, LIFE, Timer::Life);
        let machine = &self.machines[host];
        if machine.pending.is_some() {
            return;
        }
        let role = machine.agent.as_ref().and_then(|agent| agent.role);
        match machine.life {
            Life::Gone => {}
            Life::Joining(role) => {
                let wish = Wish::CreateNode { node: machine.node.clone(), role };
                let op = self.ctx.fresh();
                self.life_call(host, Call::Control { op, wish });
            }
            Life::Member if machine.manager.is_none() && role == Some(NodeRole::Manager) => {
                let call = Call::Join { node: machine.node.clone(), addr: address(host) };
                self.life_call(host, call);
            }
            Life::Member if machine.manager.is_some() && role == Some(NodeRole::Worker) => {
                self.ctx.note(format_args!("host {host} is a worker now"));
                self.stop_manager(host);
            }
            Life::Member => {}
        }
    }

    fn life_call(&mut self, host: Host, call: Call) {
        let machine = &mut self.machines[host];
        if matches!(machine.life, Life::Joining(_)) {
            // Whoever has a machine join knows an address that is of use.
            let running = self.machines.iter().filter(|machine| machine.manager.is_some());
            self.machines[host].managers = running.map(|machine| machine.host).collect();
        }
        let machine = &mut self.machines[host];
        let known = machine.agent.as_ref().map_or(&machine.managers[..], Agent::managers);
        let Some(to) = known.get(self.ctx.rng.below(known.len() as u64) as usize).copied() else { return };
        let id = self.ctx.fresh();
        machine.pending = Some(id);
        self.ctx.call(host, to, Packet::Call { id, call: Box::new(call) });
        self.ctx.after(host, CALL_TIMEOUT, Timer::CallTimeout(id));
    }

    fn life_answered(&mut self, host: Host, answer: Answer) {
        let base = self.base;
        let machine = &mut self.machines[host];
        match (machine.life, answer) {
            (Life::Joining(_), Answer::Done { .. }) => self.become_member(host),
            // It is there already: an earlier answer was lost.
            (Life::Joining(_), Answer::Refused(text)) if text.contains("exists") => self.become_member(host),
            (Life::Member, Answer::Joined { raft_id, members }) if machine.manager.is_none() => {
                self.ctx.note(format_args!("host {host} is manager {raft_id:x}"));
                machine.raft_id = Some(raft_id);
                let disk = machine.disk.take().unwrap_or_default();
                let begin = Begin::Join { raft_id, members };
                match Manager::start(&mut self.ctx, host, disk, begin, base) {
                    Ok(manager) => machine.manager = Some(manager),
                    Err(disk) => machine.disk = Some(disk),
                }
            }
            _ => {}
        }
    }

    fn become_member(&mut self, host: Host) {
        let machine = &mut self.machines[host];
        machine.life = Life::Member;
        let (node, managers) = (machine.node.clone(), machine.managers.clone());
        machine.agent = Some(Agent::start(&mut self.ctx, host, node, managers, &mut machine.machinery));
    }

    /// The process dies, or the power goes.
    pub(crate) fn crash(&mut self, host: Host, keeps_power: bool) {
        let machine = &mut self.machines[host];
        if !machine.is_on || machine.life == Life::Gone {
            return;
        }
        self.ctx.note(format_args!("host {host} crashes, power stays: {keeps_power}"));
        machine.is_on = false;
        machine.pending = None;
        if let Some(manager) = machine.manager.take() {
            machine.disk = Some(manager.crash(&mut self.ctx));
        }
        machine.managers = machine.agent.take().map_or(machine.managers.clone(), |agent| agent.managers().to_vec());
        if keeps_power {
            machine.machinery.agent_stops();
        } else {
            machine.machinery.power_goes(&mut self.ctx);
        }
        self.ctx.start_anew(host);
    }

    pub(crate) fn power_on(&mut self, host: Host) {
        let base = self.base;
        let machine = &mut self.machines[host];
        if machine.is_on || machine.life == Life::Gone {
            return;
        }
        self.ctx.note(format_args!("host {host} starts"));
        machine.is_on = true;
        let stored = machine.disk.take_if(|disk| !disk.is_empty());
        if let (Some(disk), Some(raft_id)) = (stored, machine.raft_id) {
            match Manager::start(&mut self.ctx, host, disk, Begin::Restart { raft_id }, base) {
                Ok(manager) => machine.manager = Some(manager),
                Err(disk) => machine.disk = Some(disk),
            }
        }
        if machine.life == Life::Member {
            let (node, managers) = (machine.node.clone(), machine.managers.clone());
            machine.agent = Some(Agent::start(&mut self.ctx, host, node, managers, &mut machine.machinery));
        }
        self.ctx.after(host, LIFE, Timer::Life);
    }

    /// A worker leaves in order.
    pub(crate) fn leave(&mut self, host: Host) {
        let machine = &mut self.machines[host];
        self.ctx.note(format_args!("host {host} leaves"));
        if let Some(agent) = &mut machine.agent {
            agent.leave(&mut self.ctx, &mut machine.machinery);
        }
        machine.life = Life::Gone;
        machine.agent = None;
        machine.machinery.power_goes(&mut self.ctx);
        self.ctx.start_anew(host);
        let node = machine.node.clone();
        self.clients[0].wishes.push_back(Wish::RemoveNode { node });
    }

    fn check(&mut self) {
        self.ctx.at(self.ctx.now + SECOND, Event::Check);
        match self.phase {
            Phase::SettingUp => {
                let problems = self.set_up_problems();
                if problems.is_empty() {
                    self.begin_faults();
                } else if self.ctx.now > SET_UP_LIMIT {
                    self.ctx.history.fail(Checker::Convergence, format!("setting up: {}", problems.join("; ")));
                }
            }
            Phase::Faults { until } => {
                if self.ctx.now >= until {
                    self.calm_down();
                }
            }
            Phase::Calm { since } => {
                let problems = self.problems();
                self.good_checks = if problems.is_empty() { self.good_checks + 1 } else { 0 };
                self.is_done = self.good_checks >= 3;
                if self.ctx.now > since + REST_LIMIT && !problems.is_empty() {
                    let shown: Vec<_> = problems.into_iter().take(6).collect();
                    self.ctx.history.fail(Checker::Convergence, shown.join("; "));
                }
            }
        }
    }

    /// The wish is on its way to somebody.
    pub(crate) fn wish(&mut self, wish: Wish) {
        self.clients[0].wishes.push_back(wish);
    }

    /// The machines of the swarm, by node.
    pub(crate) fn members(&self) -> BTreeMap<&NodeId, &Machine> {
        let members = self.machines.iter().filter(|machine| machine.life == Life::Member);
        members.map(|machine| (&machine.node, machine)).collect()
    }
}
