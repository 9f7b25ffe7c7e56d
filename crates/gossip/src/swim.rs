//! Who is there: memberlist's rules. Members tell of themselves with an incarnation that only they raise; others suspect
//! and declare dead; the accused contradicts with a higher one. `probe` finds the dead, `gossip` spreads what is news.
//!
//! ```text
//!            alive, higher incarnation
//!        ┌──────────────────────────────┐
//!   ┌────▼──┐  no answer   ┌─────────┐  │ time over  ┌──────┐  30 s
//!   │ alive ├─────────────►│ suspect ├──┴───────────►│ dead ├───────► forgotten
//!   └────┬──┘              └─────────┘               └──────┘
//!        │ says so itself  ┌──────┐  30 s
//!        └────────────────►│ left ├───────► forgotten
//!                          └──────┘
//! ```

mod members;
mod probe;
mod suspicion;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{Event, Kind, Peer, Refuted};
use crate::context::{Context, Timer};
use crate::limits::{MAX_MEMBERS, MAX_QUEUE};
use crate::message::{self, Accusation, Alive, Liveness, Message, Name, PushedMember, Source, VERSIONS, kind};
use crate::packet::{self, COMPOUND_PART};
use crate::queue::{Queue, retransmit_limit};
use crate::stream::PushPull;
pub(crate) use members::{Member, Members};
use probe::{Contest, Probe, Relay};
use suspicion::Suspicion;

pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(1);
pub(crate) const GOSSIP_INTERVAL: Duration = Duration::from_millis(200);
/// Members that each gossip goes to.
pub(crate) const GOSSIP_FANOUT: usize = 3;
/// How often a whole state is exchanged with some member: memberlist's interval, longer in larger clusters.
const PUSH_PULL_INTERVAL: Duration = Duration::from_secs(30);
/// How soon after joining the first one is.
const JOINED_PUSH_PULL: Duration = Duration::from_secs(2);
/// The cluster from which on the interval grows.
const PUSH_PULL_SCALE_FROM: usize = 32;
/// What push/pulls may cost on average: the state grows with the cluster, so beyond this they become rarer still.
const PUSH_PULL_BYTES_PER_SECOND: usize = 1024;
/// About what a member takes in a push/pull.
const PUSHED_MEMBER_BYTES: usize = 120;
/// What marks a member as ours in its meta data.
const META: &[u8] = b"skep/1";

/// What happened to a member, for the tables.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum MemberChange {
    /// It is there, or there again.
    Up(Name),
    /// It does not answer.
    Failed(Name),
    /// It said that it goes, or another process has its address now.
    Left(Name),
    /// Others had this node for gone, and have forgotten what it told them.
    Accused,
}

/// What another asks about events of the user's, to be spread with packets.
pub(crate) struct UserQueues {
    /// By network and member.
    pub(crate) networks: Queue<(Name, Name)>,
    /// By member.
    pub(crate) nodes: Queue<Name>,
}

/// See the module's description.
pub(crate) struct Swim {
    pub(crate) name: Name,
    pub(crate) members: Members,
    pub(crate) user: UserQueues,
    /// What the tables have not been told yet.
    pub(crate) changes: Vec<MemberChange>,
    incarnation: u32,
    queue: Queue<Name>,
    suspicions: BTreeMap<Name, Suspicion>,
    /// How badly this node itself does, 0 to 7: it gives others more time the worse.
    troubles: u32,
    sequence: u32,
    probe: Option<Probe>,
    next_probed: usize,
    relays: BTreeMap<u32, Relay>,
    contests: BTreeMap<Name, Contest>,
    leaving: bool,
}

pub(crate) fn kind_of(meta: &[u8]) -> Kind {
    if meta == META { Kind::Skep } else { Kind::Other }
}

pub(crate) fn peer_of(member: &Member) -> Peer {
    Peer { name: member.alive.node.clone(), address: member.alive.address, kind: kind_of(&member.alive.meta) }
}

impl Swim {
    /// A node that knows itself only.
    pub(crate) fn new(cx: &mut Context) -> Self {
        let mut swim = Self {
            name: cx.config.name.clone(),
            members: Members::default(),
            user: UserQueues { networks: Queue::new(MAX_QUEUE), nodes: Queue::new(MAX_QUEUE) },
            changes: Vec::new(),
            incarnation: 1,
            queue: Queue::new(MAX_QUEUE),
            suspicions: BTreeMap::new(),
            troubles: 0,
            sequence: 0,
            probe: None,
            next_probed: 0,
            relays: BTreeMap::new(),
            contests: BTreeMap::new(),
            leaving: false,
        };
        let alive = Alive {
            incarnation: 1,
            node: swim.name.clone(),
            address: cx.config.advertise,
            meta: META.into(),
            versions: VERSIONS,
        };
        swim.queue.push(swim.name.clone(), alive.encode());
        let me = Member { alive, liveness: Liveness::Alive, changed: cx.now };
        swim.members.insert(me, &mut cx.rng);
        for (timer, span) in
            [(Timer::Probe, PROBE_INTERVAL), (Timer::Gossip, GOSSIP_INTERVAL), (Timer::PushPull, PUSH_PULL_INTERVAL)]
        {
            let wait = span + cx.stagger(span);
            cx.after(timer, wait);
        }
        swim
    }

    pub(crate) fn source(&self, cx: &Context) -> Option<Source> {
        Some(Source { address: cx.config.advertise, name: self.name.clone() })
    }

    /// How badly this node does, 0 is well.
    pub(crate) fn troubles(&self) -> u32 {
        self.troubles
    }

    /// Takes one message of a packet; the user's bytes come back.
    pub(crate) fn message<'a>(&mut self, cx: &mut Context, from: SocketAddr, message: Message<'a>) -> Option<&'a [u8]> {
        match message {
            Message::Ping(ping) => self.ping(cx, from, &ping),
            Message::IndirectPing(ping) => self.indirect_ping(cx, from, ping),
            Message::Ack(sequence) => self.ack(cx, sequence),
            Message::Nack(sequence) => self.nack(sequence),
            Message::Suspect(accusation) => self.suspect(cx, &accusation),
            Message::Alive(alive) => self.alive(cx, alive),
            Message::Dead(accusation) => self.dead(cx, &accusation),
            Message::User(payload) => return Some(payload),
        }
        None
    }

    /// A member's word about itself.
    pub(crate) fn alive(&mut self, cx: &mut Context, alive: Alive) {
        let me = alive.node == self.name;
        let [least, most, ..] = alive.versions.0;
        if (me && self.leaving) || least == 0 || least > most {
            return;
        }
        let Some(known) = self.members.get(&alive.node) else {
            if self.members.len() >= MAX_MEMBERS {
                cx.counters.over_limit += 1;
                return;
            }
            let member = Member { alive: alive.clone(), liveness: Liveness::Alive, changed: cx.now };
            self.members.insert(member, &mut cx.rng);
            return self.came(cx, &alive);
        };
        let moved = known.alive.address != alive.address;
        if moved && known.liveness != Liveness::Left {
            return cx.event(Event::Conflict { name: alive.node, address: alive.address });
        }
        if me {
            let same = alive.meta == known.alive.meta && alive.versions == known.alive.versions;
            if alive.incarnation > known.alive.incarnation || (alive.incarnation == known.alive.incarnation && !same) {
                self.refute(cx, alive.incarnation);
            }
            return;
        }
        if alive.incarnation <= known.alive.incarnation && !moved {
            return;
        }
        let was_gone = known.is_gone();
        self.clear_suspicion(cx, &alive.node);
        let member = self.members.get_mut(&alive.node).expect("it was just seen");
        member.alive = alive.clone();
        if member.liveness != Liveness::Alive {
            member.liveness = Liveness::Alive;
            member.changed = cx.now;
        }
        if was_gone {
            self.came(cx, &alive);
        } else {
            self.queue.push(alive.node.clone(), alive.encode());
        }
    }

    fn came(&mut self, cx: &mut Context, alive: &Alive) {
        self.queue.push(alive.node.clone(), alive.encode());
        self.changes.push(MemberChange::Up(alive.node.clone()));
        let rival = self.members.moved_in(alive.address, &alive.node).filter(|rival| !rival.is_gone());
        let rival = rival.map(|rival| rival.alive.node.clone());
        if let Some(rival) = rival {
            self.contest(cx, alive, &rival);
        }
    }

    fn suspect(&mut self, cx: &mut Context, accusation: &Accusation) {
        let Some(known) = self.members.get(&accusation.node) else { return };
        if accusation.incarnation < known.alive.incarnation {
            return;
        }
        if let Some(suspicion) = self.suspicions.get_mut(&accusation.node) {
            if suspicion.confirm(&accusation.from) {
                cx.timers.set(Timer::Suspicion(accusation.node.clone()), suspicion.deadline());
                self.queue.push(accusation.node.clone(), accusation.encode(kind::SUSPECT));
            }
            return;
        }
        if known.liveness != Liveness::Alive {
            return;
        }
        if accusation.node == self.name {
            return self.refute(cx, accusation.incarnation);
        }
        self.queue.push(accusation.node.clone(), accusation.encode(kind::SUSPECT));
        let suspicion = Suspicion::new(cx.now, accusation.from.clone(), self.members.len(), PROBE_INTERVAL);
        cx.timers.set(Timer::Suspicion(accusation.node.clone()), suspicion.deadline());
        self.suspicions.insert(accusation.node.clone(), suspicion);
        let member = self.members.get_mut(&accusation.node).expect("it was just seen");
        member.alive.incarnation = accusation.incarnation;
        member.liveness = Liveness::Suspect;
        member.changed = cx.now;
    }

    /// The time to contradict is over.
    pub(crate) fn suspicion_ended(&mut self, cx: &mut Context, name: &Name) {
        if self.suspicions.contains_key(name)
            && let Some(member) = self.members.get(name)
        {
            let incarnation = member.alive.incarnation;
            self.dead(cx, &Accusation { incarnation, node: name.clone(), from: self.name.clone() });
        }
    }

    fn dead(&mut self, cx: &mut Context, accusation: &Accusation) {
        let Some(known) = self.members.get(&accusation.node) else { return };
        if accusation.incarnation < known.alive.incarnation || known.is_gone() {
            return;
        }
        let me = accusation.node == self.name;
        if me && !self.leaving {
            self.refute(cx, accusation.incarnation);
            self.changes.push(MemberChange::Accused);
            cx.counters.refutations += 1;
            return cx.event(Event::Refuted(Refuted::Gone));
        }
        self.clear_suspicion(cx, &accusation.node);
        self.queue.push(accusation.node.clone(), accusation.encode(kind::DEAD));
        let left = accusation.node == accusation.from;
        let member = self.members.get_mut(&accusation.node).expect("it was just seen");
        member.alive.incarnation = accusation.incarnation;
        member.liveness = if left { Liveness::Left } else { Liveness::Dead };
        member.changed = cx.now;
        if !me {
            let name = accusation.node.clone();
            self.changes.push(if left { MemberChange::Left(name) } else { MemberChange::Failed(name) });
        }
    }

    fn clear_suspicion(&mut self, cx: &mut Context, name: &Name) {
        if self.suspicions.remove(name).is_some() {
            cx.timers.cancel(&Timer::Suspicion(name.clone()));
        }
    }

    /// Contradicts what was said of this node with incarnation `accused`.
    fn refute(&mut self, cx: &mut Context, accused: u32) {
        // At its end the number cannot be raised any more; 4 billion honest contradictions do not happen.
        self.incarnation = self.incarnation.max(accused).saturating_add(1);
        cx.counters.accusations += 1;
        self.feel(1);
        let me = self.members.get_mut(&self.name).expect("a node always knows itself");
        me.alive.incarnation = self.incarnation;
        self.queue.push(self.name.clone(), me.alive.encode());
    }

    fn feel(&mut self, worse: i32) {
        self.troubles = self.troubles.saturating_add_signed(worse).min(7);
    }

    /// Another member's whole knowledge. False if it speaks a version that not all here understand.
    pub(crate) fn merge(&mut self, cx: &mut Context, pushed: Vec<PushedMember>) -> bool {
        if !self.speak_alike(&pushed) {
            return false;
        }
        for PushedMember { alive, liveness } in pushed {
            let (incarnation, node) = (alive.incarnation, alive.node.clone());
            match liveness {
                Liveness::Alive => self.alive(cx, alive),
                Liveness::Left => self.dead(cx, &Accusation { incarnation, from: node.clone(), node }),
                // What the other believes dead is only suspected here: it gets the time to contradict.
                Liveness::Dead | Liveness::Suspect => {
                    self.suspect(cx, &Accusation { incarnation, node, from: self.name.clone() });
                }
            }
        }
        true
    }

    fn speak_alike(&self, pushed: &[PushedMember]) -> bool {
        let here = self.members.iter().map(|member| (&member.alive, member.liveness));
        let all = || here.clone().chain(pushed.iter().map(|member| (&member.alive, member.liveness)));
        let (mut floor, mut ceiling) = (0, u8::MAX);
        for (alive, liveness) in all() {
            let [least, most, ..] = alive.versions.0;
            if liveness == Liveness::Alive && most > 0 {
                floor = floor.max(least);
                ceiling = ceiling.min(most);
            }
        }
        all().all(|(alive, _)| (floor..=ceiling).contains(&alive.versions.0[2]))
    }

    /// This node's whole knowledge, around the user's.
    pub(crate) fn push_pull(&self, join: bool, user: &[u8]) -> Vec<u8> {
        PushPull { join, members: self.members.iter().map(Member::pushed).collect(), user }.encode()
    }

    /// When the next push/pull is due: as memberlist has it, but never more than the budget on average.
    pub(crate) fn push_pull_interval(&self, user_bytes: usize) -> Duration {
        let mut scale = 1;
        while PUSH_PULL_SCALE_FROM << (scale - 1) < self.members.len() {
            scale += 1;
        }
        let bytes = self.members.len() * PUSHED_MEMBER_BYTES + user_bytes;
        let budget = Duration::from_secs((bytes / PUSH_PULL_BYTES_PER_SECOND) as u64);
        (PUSH_PULL_INTERVAL * scale).max(budget)
    }

    /// A seed has answered. Where many join at once, each of them has heard of those before it and told those after it;
    /// what was told of it until now may have reached the seed only. So it says again that it is there, and exchanges all
    /// with some member soon, not in half a minute.
    pub(crate) fn joined(&mut self, cx: &mut Context) {
        if let Some(me) = self.members.get(&self.name) {
            self.queue.push(self.name.clone(), me.alive.encode());
        }
        let soon = JOINED_PUSH_PULL + cx.stagger(JOINED_PUSH_PULL);
        cx.after(Timer::PushPull, soon);
    }

    /// A living member other than this node.
    pub(crate) fn pick_alive(&self, cx: &mut Context) -> Option<Peer> {
        let picked = self
            .members
            .pick(1, &mut cx.rng, |member| member.liveness == Liveness::Alive && member.alive.node != self.name);
        picked.first().map(|member| peer_of(member))
    }

    /// Whether any other member is there to hear this node.
    pub(crate) fn has_company(&self) -> bool {
        self.members.iter().any(|member| !member.is_gone() && member.alive.node != self.name)
    }

    /// Takes what waits to be spread, for a packet with `room` bytes.
    fn waiting(&mut self, mut room: usize) -> Vec<Arc<[u8]>> {
        let limit = retransmit_limit(self.members.len());
        let mut taken = self.queue.take(COMPOUND_PART, room, limit);
        room -= taken.iter().map(|message| message.len() + COMPOUND_PART).sum::<usize>();
        let mut user = self.user.networks.take(COMPOUND_PART + 1, room, limit);
        room -= user.iter().map(|message| message.len() + COMPOUND_PART + 1).sum::<usize>();
        user.extend(self.user.nodes.take(COMPOUND_PART + 1, room, limit));
        taken.extend(user.iter().map(|message| message::encode_user(message).into()));
        taken
    }

    /// Sends `message`, and with it what waits to be spread and fits.
    pub(crate) fn send(&mut self, cx: &mut Context, to: SocketAddr, message: &[u8], takes_crc: bool) {
        let room = packet::room(cx.config.packet_bytes, cx.keyring.is_active()).saturating_sub(message.len());
        let mut parts = self.waiting(room);
        parts.insert(0, message.into());
        cx.send(to, &packet::compound(&parts), takes_crc);
    }

    /// Spreads what waits, to some members and to some that died just now: they may be able to contradict.
    pub(crate) fn gossip(&mut self, cx: &mut Context) {
        if self.queue.is_empty() && self.user.networks.is_empty() && self.user.nodes.is_empty() {
            return;
        }
        let now = cx.now;
        let picked = self.members.pick(GOSSIP_FANOUT, &mut cx.rng, |member| {
            member.alive.node != self.name
                && match member.liveness {
                    Liveness::Alive | Liveness::Suspect => true,
                    Liveness::Dead => now <= member.changed + members::GOSSIP_TO_THE_DEAD,
                    Liveness::Left => false,
                }
        });
        let targets: Vec<_> =
            picked.iter().map(|member| (member.alive.address, member.alive.versions.takes_crc())).collect();
        let room = packet::room(cx.config.packet_bytes, cx.keyring.is_active());
        for (address, takes_crc) in targets {
            let parts = self.waiting(room);
            if parts.is_empty() {
                return;
            }
            cx.send(address, &packet::compound(&parts), takes_crc);
        }
    }

    /// Drops what waits to be spread.
    pub(crate) fn quieten(&mut self) {
        self.queue.clear();
        self.user.networks.clear();
        self.user.nodes.clear();
    }

    /// Begins to leave: tells that this node is gone, by its own word.
    pub(crate) fn leave(&mut self, cx: &mut Context) {
        self.leaving = true;
        let me = self.name.clone();
        self.dead(cx, &Accusation { incarnation: self.incarnation, node: me.clone(), from: me });
    }

    /// Whether the last word has been handed out as often as any message is.
    pub(crate) fn has_told_leave(&self) -> bool {
        !self.queue.holds(&self.name)
    }
}
