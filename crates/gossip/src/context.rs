//! What every part of the state machine works with: the time of the input, randomness, timers, keys, and what is to be done
//! in the world. It decides nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use stdx::Rng;

use crate::api::{Answer, AsideId, Config, Counters, Dial, DialId, Event, Output};
use crate::limits::{ASIDE_TIMEOUT, MAX_DIALS, PUSH_TIMEOUT, STREAM_TIMEOUT};
use crate::message::Name;
use crate::packet::{self, Refused, Sealing};
use crate::seal::{Entropy, Keyring};
use crate::stream;

/// Something that happens at a time.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Timer {
    /// The next member is to be probed.
    Probe,
    /// No direct answer to the probe with this number: ask others.
    ProbeIndirect(u32),
    /// The verdict on the probe with this number.
    ProbeVerdict(u32),
    /// The suspicion against this member becomes its death.
    Suspicion(Name),
    /// The ping with this number that is relayed for another had no answer.
    Relay(u32),
    /// Two names claim one address: the one that did not answer is gone.
    Contest(Name),
    /// Spread waiting messages: those of members, then those of each network.
    Gossip,
    /// Send news of tables on before the next round of gossip.
    Hurry,
    PushPull,
    BulkSync,
    /// Networks that were just joined have no answer yet: ask again.
    FirstSync,
    /// The bulk sync that this member was to answer.
    BulkAnswer(Name),
    /// Forget what has been dead for long enough.
    Reap,
    /// Try a failed member again.
    Reconnect,
    /// Try the seeds again if none of them is a member.
    Rejoin,
    Digest,
    /// Ask this member again about this network.
    Recheck(Name, Name),
    /// The user's ping with this number had no answer.
    Probed(u32),
    /// The next step of leaving.
    Leave,
}

/// Timers by time; each of them is set once at most.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeSet<(Duration, Timer)>,
    times: BTreeMap<Timer, Duration>,
}

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Duration) {
        self.cancel(&timer);
        self.by_time.insert((at, timer.clone()));
        self.times.insert(timer, at);
    }

    pub(crate) fn is_set(&self, timer: &Timer) -> bool {
        self.times.contains_key(timer)
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.times.remove(timer) {
            self.by_time.remove(&(at, timer.clone()));
        }
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the first timer that is due at `now`.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.times.remove(&timer);
        Some(timer)
    }

    pub(crate) fn clear(&mut self) {
        self.by_time.clear();
        self.times.clear();
    }
}

/// Why a stream was opened: what its end means.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// A push/pull with a seed.
    Join(SocketAddr),
    /// The regular push/pull.
    PushPull,
    /// A push/pull with a failed member.
    Reconnect(Name),
    /// A push/pull with a member whose tables differ from ours in this network; its bulk sync follows.
    Repair(Name, Name),
    /// A ping that packets did not get an answer to.
    Ping(u32),
    /// A bulk sync; if it cannot be sent, the second one is tried.
    BulkSync { to: Name, second: Option<Name> },
    /// The answer to a bulk sync.
    BulkAnswer,
    /// A ping of the user's, and its number.
    Probe(AsideId, u32),
    /// A question of the user's.
    Question(AsideId),
    /// Entries that a member is to have at once; one of ours confirms them.
    Push { to: Name, ours: bool },
}

/// See the module's description.
pub(crate) struct Context {
    pub(crate) now: Duration,
    pub(crate) rng: Rng,
    pub(crate) entropy: Box<dyn Entropy>,
    pub(crate) timers: Timers,
    pub(crate) keyring: Keyring,
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    /// What one input wants done: at most an event per entry that there is, packets and streams as the rules have it. The
    /// caller takes all of it after every input.
    outputs: VecDeque<Output>,
    dials: BTreeMap<DialId, Purpose>,
    next_dial: u64,
}

impl Context {
    pub(crate) fn new(config: Config, keyring: Keyring, mut entropy: Box<dyn Entropy>, now: Duration) -> Self {
        let mut seed = [0; 8];
        entropy.fill(&mut seed);
        Self {
            now,
            rng: Rng::new(u64::from_le_bytes(seed)),
            entropy,
            timers: Timers::default(),
            keyring,
            config,
            counters: Counters::default(),
            outputs: VecDeque::new(),
            dials: BTreeMap::new(),
            next_dial: 0,
        }
    }

    pub(crate) fn after(&mut self, timer: Timer, wait: Duration) {
        self.timers.set(timer, self.now + wait);
    }

    /// A moment within `span`, so that members do not act in step.
    pub(crate) fn stagger(&mut self, span: Duration) -> Duration {
        Duration::from_micros(self.rng.below(span.as_micros() as u64))
    }

    pub(crate) fn sealing(&mut self) -> Sealing<'_> {
        Sealing { keyring: &self.keyring, entropy: &mut *self.entropy, compression: self.config.compression }
    }

    /// Sends `message` in a packet.
    pub(crate) fn send(&mut self, to: SocketAddr, message: &[u8], takes_crc: bool) {
        let bytes = packet::pack(self.sealing(), message, takes_crc);
        self.sent(to, bytes);
    }

    pub(crate) fn sent(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        self.counters.packets_out += 1;
        self.counters.packet_bytes_out += bytes.len() as u64;
        self.output(Output::Packet { to, bytes });
    }

    /// Opens a stream to `to` and sends `message`; false if too many are open or the message is too large.
    pub(crate) fn dial(&mut self, to: SocketAddr, message: &[u8], answer: Answer, purpose: Purpose) -> bool {
        if self.dials.len() >= MAX_DIALS {
            self.counters.dials_denied += 1;
            return false;
        }
        let Ok(bytes) = stream::seal(self.sealing(), message) else {
            self.counters.dials_denied += 1;
            return false;
        };
        self.next_dial += 1;
        let id = DialId(self.next_dial);
        self.counters.dials += 1;
        self.counters.stream_bytes_out += bytes.len() as u64;
        let within = match purpose {
            Purpose::Push { .. } => PUSH_TIMEOUT,
            Purpose::Probe(..) | Purpose::Question(_) => ASIDE_TIMEOUT,
            _ => STREAM_TIMEOUT,
        };
        self.dials.insert(id, purpose);
        self.output(Output::Dial(Dial { id, to, bytes, answer, within }));
        true
    }

    /// Why the stream was opened, once.
    pub(crate) fn dial_ended(&mut self, id: DialId) -> Option<Purpose> {
        self.dials.remove(&id)
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.output(Output::Event(event));
    }

    pub(crate) fn refuse(&mut self, reason: Refused) {
        *self.counters.refused.entry(reason).or_default() += 1;
    }

    fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn take_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
