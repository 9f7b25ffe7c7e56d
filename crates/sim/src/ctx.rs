//! What every part of the simulation is handed: virtual time, the queue of events, randomness, the net, the history and
//! the trace.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use model::Timestamp;
use stdx::Rng;

use crate::bug::Bug;
use crate::calls::Packet;
use crate::history::History;
use crate::net::Net;

/// Microseconds since the start.
pub(crate) type Time = u64;
/// A millisecond.
pub(crate) const MILLI: Time = 1_000;
/// A second.
pub(crate) const SECOND: Time = 1_000_000;
/// Wall-clock time of the start, in seconds since 1970.
const START: i64 = 1_700_000_000;
/// How long a broken connection takes to be noticed.
const BREAK_NOTICED: Time = 2 * SECOND;

/// A machine, or a client.
pub(crate) type Host = usize;
/// Clients have the hosts from here on.
pub(crate) const CLIENTS: Host = 1_000;

/// Something that a machine asked to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Timer {
    /// Raft's clock.
    RaftTick,
    /// The disk has written what it was given.
    DiskDone,
    /// A snapshot is written.
    SnapshotDone,
    /// The leader's loop looks at raft's state.
    LeaderLoop,
    /// The planner's deadline.
    Planner,
    /// Nodes may have fallen silent.
    Expiry,
    /// Roles are looked at again.
    Roles,
    /// A call was not answered.
    CallTimeout(u64),
    /// The agent tries to open a session.
    Connect,
    /// The next heartbeat.
    Beat,
    /// A step of a task is done; the number tells which.
    Step(u64),
    /// The agent's files are written.
    Files,
    /// The machine's own life: joining, leaving.
    Life,
    /// A client goes on.
    Client,
    /// A client's call was not answered.
    ClientTimeout(u64),
}

/// What happens at a point in time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A machine's timer; void if it was started anew since.
    Timer { host: Host, incarnation: u64, timer: Timer },
    /// A packet arrives.
    Packet { from: Host, to: Host, packet: Packet },
    /// A connection is known to be broken.
    Broken { host: Host, conn: u64 },
    /// The next fault.
    Fault,
    /// A machine comes back.
    PowerOn(Host),
    /// The end is looked for.
    Check,
}

struct Queued {
    at: Time,
    sequence: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// What all parts share.
pub(crate) struct Ctx {
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) net: Net,
    pub(crate) history: History,
    pub(crate) bug: Option<Bug>,
    /// Faults are over: nothing fails by chance any more.
    pub(crate) calm: bool,
    /// How far each machine's wall clock is off, in microseconds.
    pub(crate) clocks: BTreeMap<Host, i64>,
    /// The machine of each manager's life, for timers.
    pub(crate) incarnations: BTreeMap<Host, u64>,
    queue: BinaryHeap<Reverse<Queued>>,
    sequence: u64,
    ids: u64,
    trace: DefaultHasher,
    line: String,
    print: bool,
}

impl Ctx {
    pub(crate) fn new(seed: u64, bug: Option<Bug>, print: bool) -> Self {
        let mut rng = Rng::new(seed);
        let net = Net::new(rng.next_u64());
        Self {
            now: 0,
            rng,
            net,
            history: History::default(),
            bug,
            calm: true,
            clocks: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
            ids: 0,
            trace: DefaultHasher::new(),
            line: String::new(),
            print,
        }
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// True once in `of` times.
    pub(crate) fn one_in(&mut self, of: u64) -> bool {
        self.rng.below(of) == 0
    }

    /// A time between two.
    pub(crate) fn between(&mut self, from: Time, to: Time) -> Time {
        from + self.rng.below(to.saturating_sub(from) + 1)
    }

    /// A number that nobody has yet.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// The wall clock of a machine.
    pub(crate) fn wall(&self, host: Host) -> Timestamp {
        let off = self.clocks.get(&host).copied().unwrap_or(0);
        let micros = START * 1_000_000 + i64::try_from(self.now).unwrap_or(i64::MAX) + off;
        Timestamp::from_unix_nanos(micros * 1_000)
    }

    /// When a machine's wall clock will show `at`; now, if it is past.
    pub(crate) fn time_of(&self, host: Host, at: Timestamp) -> Time {
        let left = at.unix_nanos().saturating_sub(self.wall(host).unix_nanos()) / 1_000 + 1;
        self.now + u64::try_from(left).unwrap_or(0)
    }

    pub(crate) fn at(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Queued { at: at.max(self.now), sequence: self.sequence, event }));
    }

    /// Wakes a machine after a while, unless it starts anew before.
    pub(crate) fn after(&mut self, host: Host, delay: Time, timer: Timer) {
        let incarnation = self.incarnation(host);
        self.at(self.now + delay, Event::Timer { host, incarnation, timer });
    }

    pub(crate) fn incarnation(&self, host: Host) -> u64 {
        self.incarnations.get(&host).copied().unwrap_or(0)
    }

    /// What was asked of a machine before concerns it no more.
    pub(crate) fn start_anew(&mut self, host: Host) {
        *self.incarnations.entry(host).or_default() += 1;
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse(next) = self.queue.pop()?;
        self.now = next.at;
        Some(next.event)
    }

    /// Sends a datagram-like message: it may be lost, late, twice, or out of order. Whether one copy is on its way.
    pub(crate) fn send(&mut self, from: Host, to: Host, packet: Packet) -> bool {
        let copies = self.net.copies(from, to);
        let is_sent = !copies.is_empty();
        for delay in copies {
            self.at(self.now + delay, Event::Packet { from, to, packet: packet.clone() });
        }
        is_sent
    }

    /// Sends a call or its answer: it may be lost or late, never twice.
    pub(crate) fn call(&mut self, from: Host, to: Host, packet: Packet) {
        if let Some(delay) = self.net.copies(from, to).first().copied() {
            self.at(self.now + delay, Event::Packet { from, to, packet });
        }
    }

    /// Sends on a connection: in order, late where packets are lost, or not at all when it breaks. Whether it holds.
    pub(crate) fn stream(&mut self, from: Host, to: Host, conn: u64, packet: Packet) -> bool {
        match self.net.on_connection(self.now, from, to, conn) {
            Some(at) => {
                self.at(at, Event::Packet { from, to, packet });
                true
            }
            None => {
                self.at(self.now + BREAK_NOTICED, Event::Broken { host: to, conn });
                false
            }
        }
    }

    /// Takes note of something; the line is made for the trace.
    pub(crate) fn note(&mut self, line: std::fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a string does not fail.
        self.line.write_fmt(line).ok();
        self.now.hash(&mut self.trace);
        self.line.hash(&mut self.trace);
        if self.print {
            println!("{:>10.6} {}", self.now as f64 / SECOND as f64, self.line);
        }
    }

    /// What all notes come to.
    pub(crate) fn trace_digest(&self) -> u64 {
        let mut hasher = self.trace.clone();
        self.rng.clone().next_u64().hash(&mut hasher);
        hasher.finish()
    }
}
