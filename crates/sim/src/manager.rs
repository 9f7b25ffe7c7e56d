//! A manager: the raft core with its disk, the store behind it, and while it leads the writer's speculation, the planner
//! and the dispatcher. What the product's loops and threads do, done by hand.
//!
//! ```text
//!  packets, timers ──► Core ──► Disk ──► persisted ──┐
//!                       ▲└──► committed ──► View ────┴──► waiters: clients, registrations, the planner's batches
//!                       └──── Speculation ◄── leader: planner, roles, statuses, users
//! ```

mod dispatch;
mod leader;
mod raft;
mod users;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use consensus::core::{Beginning, Core, CoreConfig, Loaded, SnapshotPolicy, Ticket, begin};
use manager::core::{Speculation, decode_snapshot};
use model::NodeId;
use store::{ObjectId, View};
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;

use crate::bug::Bug;
use crate::calls::{Call, Packet};
use crate::ctx::{Ctx, Host, MILLI, SECOND, Time, Timer};
use crate::disk::Disk;
use crate::history::{Checker, StoreDigest};
use dispatch::Dispatch;
use leader::Leading;

/// Raft's clock.
pub(crate) const TICK: Time = 100 * MILLI;
/// Entries between snapshots: few, so that they happen often.
const SNAPSHOTS: SnapshotPolicy = SnapshotPolicy { interval: 60, keep_entries: 15 };

/// Who waits for a proposal.
pub(super) enum Waiting {
    /// The leader's loop, for all that was proposed before.
    Barrier,
    /// The leader's first writes.
    First,
    /// The planner.
    Planner,
    /// Statuses, nodes that are down, roles: nobody in particular.
    Duty,
    /// A node that registers.
    Registration { from: Host, call: u64, node: NodeId, session: String },
    /// A user.
    User { from: Host, call: u64 },
}

struct Waiter {
    index: u64,
    term: u64,
    epoch: u64,
    who: Waiting,
}

/// An output that is not known to be on the disk.
struct Unpersisted {
    number: u64,
    empty: bool,
    install: Option<raftpb::Snapshot>,
    after: Vec<raftpb::Message>,
}

/// A running manager.
pub(crate) struct Manager {
    pub(crate) host: Host,
    pub(crate) node: NodeId,
    pub(crate) core: Core,
    pub(crate) disk: Box<Disk>,
    /// What is applied.
    pub(crate) view: View,
    digest: StoreDigest,
    pub(crate) applied: u64,
    unpersisted: VecDeque<Unpersisted>,
    waiters: VecDeque<Waiter>,
    changes: BTreeMap<Ticket, (Host, u64)>,
    /// When each peer took a message first, since one was lost.
    active_since: BTreeMap<u64, Instant>,
    base: Instant,
    /// A rotation of the key ends with a snapshot of this generation at this index or later.
    rotation: Option<u64>,
    key_generation: u64,
    speculation: Speculation,
    leading: Leading,
    /// What the leader's loop has seen of raft: leading in this term.
    seen: Option<u64>,
    dispatch: Dispatch,
    /// A peer says that this manager was removed.
    pub(crate) is_removed: bool,
    /// Batches that the planner wants asked for, and where it stands.
    planner_at: Option<Time>,
}

/// How a manager begins.
pub(crate) enum Begin {
    Found,
    Join { raft_id: u64, members: Vec<p::RaftMember> },
    Restart { raft_id: u64 },
}

/// What nodes and peers dial to reach a host.
pub(crate) fn address(host: Host) -> String {
    format!("h{host}")
}

/// Whom an address reaches.
pub(crate) fn host_at(addr: &str) -> Option<Host> {
    addr.strip_prefix('h')?.parse().ok()
}

/// The node on a host.
pub(crate) fn node_id(host: Host) -> NodeId {
    NodeId::from(format!("node-{host:02}"))
}

impl Manager {
    /// Starts on what is on the disk; `None` if that cannot be, which is noted.
    pub(crate) fn start(
        ctx: &mut Ctx,
        host: Host,
        mut disk: Box<Disk>,
        how: Begin,
        base: Instant,
    ) -> Result<Self, Box<Disk>> {
        let (raft_id, known, beginning) = match how {
            Begin::Found => (1, Vec::new(), Beginning::Found),
            Begin::Join { raft_id, members } => (raft_id, members.clone(), Beginning::Join { members }),
            Begin::Restart { raft_id } => (raft_id, Vec::new(), Beginning::Restart),
        };
        let node = node_id(host);
        let member = p::RaftMember { raft_id, node_id: node.to_string(), addr: address(host), status: None };
        let config = CoreConfig {
            raft_id,
            seed: ctx.rng.next_u64(),
            election_ticks: 10,
            heartbeat_ticks: 1,
            pre_vote: ctx.rng.below(4) != 0,
            snapshots: SNAPSHOTS,
            known,
        };
        let rotating = disk.is_rotating();
        let loaded = match load(ctx, &mut disk, config, &beginning, &member) {
            Ok(loaded) => loaded,
            Err(error) => {
                ctx.history.fail(Checker::Disks, format!("host {host} cannot start from its disk: {error}"));
                return Err(disk);
            }
        };
        let mut manager = Self {
            host,
            node,
            core: loaded.core,
            disk,
            view: View::new(),
            digest: StoreDigest::default(),
            applied: 0,
            unpersisted: VecDeque::new(),
            waiters: VecDeque::new(),
            changes: BTreeMap::new(),
            active_since: BTreeMap::new(),
            base,
            rotation: None,
            key_generation: 0,
            speculation: Speculation::new(ctx.rng.next_u64() >> 1),
            leading: Leading::No,
            seen: None,
            dispatch: Dispatch::new(ctx.rng.next_u64()),
            is_removed: false,
            planner_at: None,
        };
        if let Some(state) = loaded.state {
            manager.applied = manager.core.applied_index();
            manager.restore(ctx, state);
        }
        if rotating {
            let until = manager.core.last_index();
            manager.rotation = Some(until);
            manager.core.want_snapshot(until);
        }
        ctx.after(host, TICK, Timer::RaftTick);
        manager.pump(ctx);
        if manager.core.is_alone() {
            manager.core.campaign();
            manager.pump(ctx);
        }
        Ok(manager)
    }

    fn restore(&mut self, ctx: &mut Ctx, state: p::StoreSnapshot) {
        let restored = decode_snapshot(state).map_err(|error| error.to_string());
        match restored.and_then(|snapshot| View::restore(&snapshot).map_err(|error| error.to_string())) {
            Ok(view) => self.view = view,
            Err(error) => {
                ctx.history.fail(Checker::Sanity, format!("host {} cannot take a snapshot: {error}", self.host));
            }
        }
        self.digest = StoreDigest::of(&self.view);
        ctx.history.restored(self.host, self.applied, self.digest);
        self.dispatch.everything_changed();
    }

    /// A timer of this manager's.
    pub(crate) fn timer(&mut self, ctx: &mut Ctx, timer: Timer) {
        match timer {
            Timer::RaftTick => {
                ctx.after(self.host, TICK, Timer::RaftTick);
                self.core.tick();
            }
            Timer::DiskDone => {
                if let Some(number) = self.disk.finish(ctx, self.host) {
                    self.release(ctx, number);
                }
            }
            Timer::SnapshotDone => self.snapshot_done(ctx),
            Timer::LeaderLoop => self.leader_loop(ctx),
            Timer::Planner if self.planner_at.is_some_and(|at| at <= ctx.now) => {
                self.planner_at = None;
                self.leading.wake();
            }
            Timer::Expiry => self.expire(ctx),
            Timer::Roles => self.roles(ctx),
            _ => {}
        }
        self.pump(ctx);
    }

    /// A packet for this manager.
    pub(crate) fn packet(&mut self, ctx: &mut Ctx, from: Host, packet: Packet) {
        match packet {
            Packet::Raft(message) => self.step(ctx, from, *message),
            Packet::RaftTaken { by } => {
                let now = self.base + std::time::Duration::from_micros(ctx.now);
                self.active_since.entry(by).or_insert(now);
            }
            Packet::RaftRemoved { raft_id } if raft_id == self.core.raft_id() => self.is_removed = true,
            Packet::Resolve { message } => {
                let member = self.core.membership().members.get(&message.to);
                if let Some(host) = member.and_then(|member| host_at(&member.addr)) {
                    ctx.send(self.host, from, Packet::Resolved { host, message });
                }
            }
            Packet::Resolved { host, message } => drop(ctx.send(self.host, host, Packet::Raft(message))),
            Packet::Call { id, call } => self.serve(ctx, from, id, *call),
            _ => {}
        }
        self.pump(ctx);
    }

    fn serve(&mut self, ctx: &mut Ctx, from: Host, id: u64, call: Call) {
        match call {
            Call::Join { node, addr } => self.serve_join(ctx, from, id, &node, addr),
            Call::Control { op, wish } => self.serve_wish(ctx, from, id, op, wish),
            Call::Read { service } => self.serve_read(ctx, from, id, &service),
            call => self.serve_node(ctx, from, id, call),
        }
    }

    /// Whether this manager answers for the group.
    pub(crate) fn is_leading(&self) -> bool {
        self.leading.is_ready()
    }

    /// Where the leader is, if it is known.
    fn leader_host(&self) -> Option<Host> {
        let member = self.core.membership().members.get(&self.core.leader())?;
        host_at(&member.addr)
    }

    pub(crate) fn digest(&self) -> StoreDigest {
        self.digest
    }

    /// Where raft stands, in words.
    pub(crate) fn raft_text(&self) -> String {
        let core = &self.core;
        let (role, term, applied, last) = (core.role(), core.term(), self.applied, core.last_index());
        let voters: Vec<_> = core.voters().iter().map(|id| format!("{id:x}")).collect();
        format!(
            "host {} {:x} is {role:?} in term {term}, applied {applied} of {last}, voters {voters:?}",
            self.host,
            core.raft_id()
        )
    }

    /// The machine stops; the disk stays.
    pub(crate) fn crash(mut self, ctx: &mut Ctx) -> Box<Disk> {
        self.disk.crash(&mut ctx.rng);
        self.disk
    }

    /// The key of log and snapshots changes.
    pub(crate) fn rotate_key(&mut self, ctx: &mut Ctx) {
        if self.rotation.is_some() || self.disk.is_rotating() {
            return;
        }
        ctx.note(format_args!("host {} rotates its key", self.host));
        self.disk.rotate_key();
        self.key_generation += 1;
        let until = self.core.last_index();
        self.rotation = Some(until);
        self.core.want_snapshot(until);
        if ctx.has(Bug::KeyForgotten) {
            self.disk.forget_old_key();
        }
        self.pump(ctx);
    }

    /// What an object is called that a wish removes.
    pub(crate) fn removed_object(call: &Call) -> Option<ObjectId> {
        use crate::calls::Wish;
        match call {
            Call::Control { wish: Wish::RemoveService { service }, .. } => Some(service.clone().into()),
            Call::Control { wish: Wish::RemoveNode { node }, .. } => Some(node.clone().into()),
            _ => None,
        }
    }

    /// A leader's loop sees changes of raft a little later; a starved one much later.
    fn wake_leader_loop(&mut self, ctx: &mut Ctx) {
        let late = if !ctx.calm && ctx.one_in(20) { 4 * SECOND } else { 50 * MILLI };
        let delay = ctx.between(0, late);
        ctx.after(self.host, delay, Timer::LeaderLoop);
    }
}

/// A core on what is on the disk and what its beginning adds.
fn load(
    ctx: &mut Ctx,
    disk: &mut Disk,
    config: CoreConfig,
    beginning: &Beginning,
    member: &p::RaftMember,
) -> Result<Loaded, String> {
    let mut stored = disk.load(ctx.bug)?;
    ctx.history.remembers(config.raft_id, stored.hard_state.term, stored.hard_state.vote);
    disk.write_now(begin(beginning, member, &mut stored));
    Core::load(config, stored).map_err(|error| error.to_string())
}
