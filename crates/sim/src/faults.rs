//! What goes wrong, and when. Each seed draws which kinds of faults there are and how often, so that every kind is met
//! alone and with others.

use model::{NodeAvailability, NodeRole};

use crate::calls::Wish;
use crate::ctx::{Ctx, Event, Host, MILLI, SECOND, Time};
use crate::net::{FAIR, Weather};
use crate::world::{Life, Phase, World};

/// Largest jump of a clock.
pub(crate) const CLOCK_JUMP: Time = 20 * SECOND;
/// Machines there may have been.
const MAX_MACHINES: usize = 12;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    CrashLeader,
    CrashAny,
    CrashAll,
    Isolate,
    OneWay,
    Split,
    Heal,
    Weather,
    SlowDisk,
    Clock,
    Transfer,
    Roles,
    Availability,
    Keys,
    Dek,
    Leave,
    Join,
}

const KINDS: [Kind; 17] = [
    Kind::CrashLeader,
    Kind::CrashAny,
    Kind::CrashAll,
    Kind::Isolate,
    Kind::OneWay,
    Kind::Split,
    Kind::Heal,
    Kind::Weather,
    Kind::SlowDisk,
    Kind::Clock,
    Kind::Transfer,
    Kind::Roles,
    Kind::Availability,
    Kind::Keys,
    Kind::Dek,
    Kind::Leave,
    Kind::Join,
];

/// Which faults a seed has.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    kinds: Vec<Kind>,
    longest_pause: Time,
    duration: Time,
}

impl Profile {
    pub(crate) fn draw(ctx: &mut Ctx) -> Self {
        let mut kinds: Vec<_> = KINDS.into_iter().filter(|_| ctx.one_in(2)).collect();
        if kinds.contains(&Kind::Isolate) || kinds.contains(&Kind::OneWay) || kinds.contains(&Kind::Split) {
            kinds.push(Kind::Heal);
        }
        let longest_pause = ctx.between(SECOND, 6 * SECOND);
        let duration = ctx.between(20 * SECOND, 60 * SECOND);
        Self { kinds, longest_pause, duration }
    }
}

/// The faults of a run.
pub(crate) struct Faults {
    profile: Profile,
}

impl Faults {
    pub(crate) fn new(profile: Profile) -> Self {
        Self { profile }
    }
}

impl World {
    pub(crate) fn begin_faults(&mut self) {
        self.ctx.note(format_args!("faults begin: {:?}", self.faults.profile.kinds));
        self.ctx.calm = false;
        self.phase = Phase::Faults { until: self.ctx.now + self.faults.profile.duration };
        self.ctx.at(self.ctx.now + SECOND, Event::Fault);
    }

    /// The next fault.
    pub(crate) fn fault(&mut self) {
        let Phase::Faults { until } = self.phase else { return };
        let pause = self.ctx.between(200 * MILLI, self.faults.profile.longest_pause);
        if self.ctx.now + pause < until {
            self.ctx.at(self.ctx.now + pause, Event::Fault);
        }
        let kinds = &self.faults.profile.kinds;
        let Some(kind) = kinds.get(self.ctx.rng.below(kinds.len() as u64) as usize).copied() else { return };
        match kind {
            Kind::CrashLeader | Kind::CrashAny | Kind::CrashAll => self.crash_some(kind),
            Kind::Isolate | Kind::OneWay | Kind::Split | Kind::Heal | Kind::Weather => self.spoil_net(kind),
            Kind::SlowDisk => self.slow_disk(),
            Kind::Clock => self.turn_clock(),
            Kind::Transfer => self.wish(Wish::Transfer),
            Kind::Keys => self.wish(Wish::RotateKeys),
            Kind::Roles => self.change_role(),
            Kind::Availability => self.change_availability(),
            Kind::Dek => self.rotate_dek(),
            Kind::Leave => self.leave_some(),
            Kind::Join => {
                if self.machines.len() < MAX_MACHINES {
                    let role = if self.ctx.one_in(3) { NodeRole::Manager } else { NodeRole::Worker };
                    self.add_machine(role);
                }
            }
        }
    }

    fn some_host(&mut self) -> Host {
        self.ctx.rng.below(self.machines.len() as u64) as usize
    }

    fn leader(&self) -> Option<Host> {
        let leads = |host: &Host| self.machines[*host].manager.as_ref().is_some_and(|manager| manager.is_leading());
        self.managers().into_iter().find(leads)
    }

    fn crash_some(&mut self, kind: Kind) {
        let hosts = match kind {
            Kind::CrashLeader => self.leader().into_iter().collect(),
            Kind::CrashAll => self.managers(),
            _ => vec![self.some_host()],
        };
        for host in hosts {
            let keeps_power = self.ctx.one_in(2);
            self.crash(host, keeps_power);
            let longest = if self.ctx.one_in(3) { 25 * SECOND } else { 2 * SECOND };
            let down = self.ctx.between(50 * MILLI, longest);
            self.ctx.at(self.ctx.now + down, Event::PowerOn(host));
        }
    }

    fn spoil_net(&mut self, kind: Kind) {
        let count = self.machines.len();
        let leader = self.leader();
        let someone = self.some_host();
        let host = leader.filter(|_| self.ctx.one_in(2)).unwrap_or(someone);
        match kind {
            Kind::Isolate => (0..count).filter(|other| *other != host).for_each(|other| {
                self.ctx.net.cut(host, other);
                self.ctx.net.cut(other, host);
            }),
            Kind::OneWay => {
                let inward = self.ctx.one_in(2);
                for other in (0..count).filter(|other| *other != host) {
                    if inward { self.ctx.net.cut(other, host) } else { self.ctx.net.cut(host, other) }
                }
            }
            Kind::Split => {
                let side: Vec<bool> = (0..count).map(|_| self.ctx.one_in(2)).collect();
                for from in 0..count {
                    for to in (0..count).filter(|to| side[*to] != side[from]) {
                        self.ctx.net.cut(from, to);
                    }
                }
            }
            Kind::Heal => self.ctx.net.heal(),
            _ => {
                let longest = self.ctx.between(2 * MILLI, 300 * MILLI);
                self.ctx.net.weather = Weather {
                    loss_permille: self.ctx.rng.below(150),
                    twice_permille: self.ctx.rng.below(150),
                    shortest: MILLI,
                    longest,
                    straggler_in: [0, 20, 200][self.ctx.rng.below(3) as usize],
                };
            }
        }
        self.ctx.note(format_args!("net: {kind:?} of host {host}"));
    }

    fn slow_disk(&mut self) {
        let host = self.some_host();
        let slowness = 1 + self.ctx.rng.below(100);
        if let Some(manager) = &mut self.machines[host].manager {
            manager.disk.slowness = slowness;
            self.ctx.note(format_args!("the disk of host {host} is {slowness} times as slow"));
        }
    }

    fn turn_clock(&mut self) {
        let host = self.some_host();
        let off = self.ctx.rng.below(2 * CLOCK_JUMP).cast_signed() - CLOCK_JUMP.cast_signed();
        self.ctx.note(format_args!("the clock of host {host} is off by {off} microseconds"));
        self.ctx.clocks.insert(host, off);
    }

    fn change_role(&mut self) {
        // One after the other: nodes that are cut off must still know a manager when they come back.
        if !self.clients[0].is_idle() {
            return;
        }
        let nodes: Vec<_> =
            self.ctx.history.newest.nodes().map(|node| (node.id.clone(), node.spec.desired_role)).collect();
        let managers = nodes.iter().filter(|(_, role)| *role == NodeRole::Manager).count();
        let at = self.ctx.rng.below(nodes.len() as u64) as usize;
        let Some((node, role)) = nodes.into_iter().nth(at) else { return };
        let role = match role {
            NodeRole::Worker if managers < 7 => NodeRole::Manager,
            // With two left, the loss of an answer to a later Join could cost the quorum for good.
            NodeRole::Manager if managers > 3 => NodeRole::Worker,
            _ => return,
        };
        self.wish(Wish::SetRole { node, role });
    }

    fn change_availability(&mut self) {
        let host = self.some_host();
        let node = self.machines[host].node.clone();
        let choices =
            [NodeAvailability::Active, NodeAvailability::Active, NodeAvailability::Drain, NodeAvailability::Pause];
        let availability = choices[self.ctx.rng.below(4) as usize];
        self.wish(Wish::SetAvailability { node, availability });
    }

    fn rotate_dek(&mut self) {
        let host = self.some_host();
        if let Some(manager) = &mut self.machines[host].manager {
            manager.rotate_key(&mut self.ctx);
        }
    }

    fn leave_some(&mut self) {
        let host = self.some_host();
        let machine = &self.machines[host];
        let view = &self.ctx.history.newest;
        let is_worker = view
            .node(&machine.node)
            .is_some_and(|node| node.role == NodeRole::Worker && node.spec.desired_role == NodeRole::Worker);
        let others = self.machines.iter().filter(|machine| machine.life == Life::Member).count();
        let wanted = self.clients[0].wishes.iter().any(|wish| matches!(wish, Wish::SetRole { .. }));
        if is_worker
            && machine.manager.is_none()
            && machine.is_on
            && machine.life == Life::Member
            && others > 4
            && !wanted
        {
            self.leave(host);
        }
    }

    /// The faults are over: all is made good, and the swarm has to find its rest.
    pub(crate) fn calm_down(&mut self) {
        self.ctx.note(format_args!("calm"));
        self.phase = Phase::Calm { since: self.ctx.now };
        self.ctx.calm = true;
        self.ctx.net.heal();
        self.ctx.net.weather = FAIR;
        self.ctx.clocks.clear();
        for host in 0..self.machines.len() {
            if let Some(manager) = &mut self.machines[host].manager {
                manager.disk.slowness = 1;
            }
            if let Some(disk) = &mut self.machines[host].disk {
                disk.slowness = 1;
            }
            self.power_on(host);
        }
        self.clients.iter_mut().for_each(crate::client::Client::finish);
        let nodes: Vec<_> = self.members().into_keys().cloned().collect();
        for node in nodes {
            self.wish(Wish::SetAvailability { node, availability: NodeAvailability::Active });
        }
    }
}
