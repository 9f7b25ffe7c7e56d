//! The state machine: everything comes in through its functions, with the time, and what is to be done comes out of
//! `poll`. It owns the parts and passes inputs on; the rules are in `swim` and `db`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::api::{
    Acquaintance, Answer, Config, Counters, DialEnd, DialId, Entry, Event, Output, Peer, PushId, StreamAnswer, Sum,
};
use crate::context::{Context, Purpose, Timer};
use crate::db::{Db, EntryError, NetworkError};
use crate::limits::{MAX_NAME_BYTES, MAX_PACKET_BYTES, PACKET_BYTES};
use crate::message::{Message, Name, encode_ack};
use crate::packet::{self, Refused};
use crate::seal::{Entropy, KeyError, Keyring};
use crate::stream::{self, PushPull, Secrecy, StreamMessage};
use crate::swim::{GOSSIP_INTERVAL, Swim};

mod aside;

use aside::Asides;

/// How long the leave is spread before the next step: dockerd's times for the event and for memberlist's message.
const LEAVE_EVENT_TIMEOUT: Duration = Duration::from_secs(5);
const LEAVE_MESSAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is looked whether it has been.
const LEAVE_LOOK: Duration = Duration::from_millis(50);

/// Why no state machine can be made.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The keys.
    #[error("gossip keys")]
    Keys(#[from] KeyError),
    /// Members are told apart by their names.
    #[error("a member's name has 1 to {MAX_NAME_BYTES} bytes")]
    Name,
    /// Smaller than the protocol's own messages need, or larger than any packet.
    #[error("packets of {0} bytes, not {least} to {MAX_PACKET_BYTES}", least = PACKET_BYTES / 2)]
    PacketBytes(usize),
}

/// How far leaving is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Member,
    /// The event for tables is being spread, until then.
    TellingTables(Duration),
    /// memberlist's message is being spread, until then.
    TellingMembers(Duration),
    Gone,
}

/// What a stream brought: a question, or something with an answer of the state machine's own.
enum Taken {
    Question(StreamAnswer),
    Message(Option<Vec<u8>>),
}

/// One node's gossip. See the crate's description for its use.
pub struct Gossip {
    cx: Context,
    swim: Swim,
    db: Db,
    asides: Asides,
    phase: Phase,
}

impl Gossip {
    /// A node that knows nobody. `keys` with the index of the one that seals; without keys messages go in the clear.
    pub fn new(
        config: Config,
        keys: &[Vec<u8>],
        primary: usize,
        entropy: Box<dyn Entropy>,
        now: Duration,
    ) -> Result<Self, ConfigError> {
        if config.name.is_empty() || config.name.len() > MAX_NAME_BYTES {
            return Err(ConfigError::Name);
        }
        if !(PACKET_BYTES / 2..=MAX_PACKET_BYTES).contains(&config.packet_bytes) {
            return Err(ConfigError::PacketBytes(config.packet_bytes));
        }
        let mut cx = Context::new(config, Keyring::new(keys, primary)?, entropy, now);
        let swim = Swim::new(&mut cx);
        let db = Db::new(&mut cx);
        Ok(Self { cx, swim, db, asides: Asides::default(), phase: Phase::Member })
    }

    /// What is to be done, until there is nothing.
    pub fn poll(&mut self) -> Option<Output> {
        self.cx.take_output()
    }

    /// When `tick` is to be called at the latest; never again after the node has left.
    pub fn deadline(&self) -> Option<Duration> {
        self.cx.timers.next()
    }

    /// Whether messages must be sealed, for the framer of a stream.
    pub fn secrecy(&self) -> Secrecy {
        if self.cx.keyring.is_active() { Secrecy::Sealed } else { Secrecy::Clear }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        self.cx.now = now;
        while let Some(timer) = self.cx.timers.take(now) {
            self.due(timer);
            self.settle();
        }
    }

    fn due(&mut self, timer: Timer) {
        let Self { cx, swim, db, .. } = self;
        match timer {
            Timer::Probe => swim.probe_next(cx),
            Timer::ProbeIndirect(sequence) => swim.probe_indirectly(cx, sequence),
            Timer::ProbeVerdict(sequence) => swim.probe_verdict(cx, sequence),
            Timer::Suspicion(name) => swim.suspicion_ended(cx, &name),
            Timer::Relay(sequence) => swim.relay_ended(cx, sequence),
            Timer::Contest(name) => swim.contest_ended(cx, &name),
            Timer::Gossip => {
                cx.after(Timer::Gossip, GOSSIP_INTERVAL);
                swim.gossip(cx);
                db.gossip(cx, swim);
            }
            Timer::Hurry => db.hurry(cx, swim),
            Timer::PushPull => {
                let interval = swim.push_pull_interval(db.push_pull_bytes());
                cx.after(Timer::PushPull, interval);
                if let Some(peer) = swim.pick_alive(cx) {
                    let message = swim.push_pull(false, &db.push_pull(false));
                    cx.dial(peer.address, &message, Answer::One, Purpose::PushPull);
                }
            }
            Timer::BulkSync => db.bulk_sync_all(cx),
            Timer::FirstSync => db.retry_first_syncs(cx),
            Timer::BulkAnswer(from) => db.bulk_answer_missing(cx, &from),
            Timer::Reap => {
                db.reap(cx);
                db.first_syncs(cx);
            }
            Timer::Reconnect => db.reconnect(cx, swim),
            Timer::Rejoin => db.rejoin(cx, swim),
            Timer::Digest => db.digest_round(cx, swim),
            Timer::Recheck(network, peer) => db.recheck(cx, swim, &network, &peer),
            Timer::Probed(sequence) => self.asides.ended(cx, sequence),
            Timer::Leave => self.leave_on(),
        }
    }

    /// Tells the tables what memberlist found out.
    fn settle(&mut self) {
        while !self.swim.changes.is_empty() {
            for change in std::mem::take(&mut self.swim.changes) {
                self.db.member_changed(&mut self.cx, &mut self.swim, change);
            }
        }
    }

    /// A packet came in.
    pub fn packet(&mut self, now: Duration, from: SocketAddr, bytes: &[u8]) {
        self.cx.now = now;
        self.cx.counters.packets_in += 1;
        self.cx.counters.packet_bytes_in += bytes.len() as u64;
        if self.phase == Phase::Gone {
            return;
        }
        let (messages, refused) = packet::open(&self.cx.keyring, bytes);
        if let Some(reason) = refused {
            self.cx.refuse(reason);
        }
        for message in &messages {
            match Message::decode(message) {
                Ok(Message::Ack(sequence)) if self.asides.acked(&mut self.cx, sequence) => {}
                Ok(message) => {
                    if let Some(payload) = self.swim.message(&mut self.cx, from, message)
                        && !self.take_note(payload, bytes.len())
                    {
                        self.db.message(&mut self.cx, &mut self.swim, payload);
                    }
                    self.settle();
                }
                Err(_) => self.cx.refuse(Refused::Malformed),
            }
        }
    }

    /// A peer opened a stream and sent one whole frame; the answer, if there is one, is to be sent before the stream is
    /// closed.
    pub fn stream(&mut self, now: Duration, frame: &[u8]) -> StreamAnswer {
        self.cx.now = now;
        self.cx.counters.stream_bytes_in += frame.len() as u64;
        if self.phase == Phase::Gone {
            return StreamAnswer::None;
        }
        self.db.confirm = false;
        let answer = match self.take_stream(frame) {
            Taken::Question(question) => return question,
            Taken::Message(answer) => answer,
        };
        self.settle();
        let Some(bytes) = answer.and_then(|answer| stream::seal(self.cx.sealing(), &answer).ok()) else {
            return StreamAnswer::None;
        };
        self.cx.counters.stream_bytes_out += bytes.len() as u64;
        if self.db.confirm { StreamAnswer::Applied(bytes) } else { StreamAnswer::Now(bytes) }
    }

    fn take_stream(&mut self, frame: &[u8]) -> Taken {
        let Some(message) = self.open_stream(frame) else { return Taken::Message(None) };
        let Some(message) = self.decode_stream(&message) else { return Taken::Message(None) };
        match self.take_question(&message) {
            Some(question) => Taken::Question(question),
            None => Taken::Message(self.answer_stream(message)),
        }
    }

    fn answer_stream(&mut self, message: StreamMessage<'_>) -> Option<Vec<u8>> {
        match message {
            StreamMessage::Ping(ping) => self.swim.is_for_me(&ping).then(|| encode_ack(ping.sequence)),
            StreamMessage::PushPull(theirs) => {
                let ours = self.swim.push_pull(theirs.join, &self.db.push_pull(theirs.join));
                self.merge(theirs).then_some(ours)
            }
            StreamMessage::User(payload) => {
                self.db.message(&mut self.cx, &mut self.swim, payload);
                // memberlist's own sign for "done".
                self.db.confirm.then(|| encode_ack(0))
            }
            StreamMessage::Ack(_) | StreamMessage::Error(_) => None,
        }
    }

    fn open_stream(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        stream::open(&self.cx.keyring, frame).inspect_err(|reason| self.cx.refuse(*reason)).ok()
    }

    fn decode_stream<'a>(&mut self, message: &'a [u8]) -> Option<StreamMessage<'a>> {
        StreamMessage::decode(message).inspect_err(|_| self.cx.refuse(Refused::Malformed)).ok()
    }

    fn merge(&mut self, theirs: PushPull<'_>) -> bool {
        let merged = self.swim.merge(&mut self.cx, theirs.members);
        self.settle();
        if merged && !theirs.user.is_empty() {
            let taken = self.db.merge(&mut self.cx, &mut self.swim, theirs.user);
            if taken.is_none() {
                self.cx.refuse(Refused::Malformed);
            }
        }
        merged
    }

    /// A stream that `poll` asked for has ended.
    pub fn dial_ended(&mut self, now: Duration, id: DialId, end: DialEnd) {
        self.cx.now = now;
        let Some(purpose) = self.cx.dial_ended(id) else { return };
        if self.phase == Phase::Gone {
            return;
        }
        let message = match &end {
            DialEnd::Answered(frame) => {
                self.cx.counters.stream_bytes_in += frame.len() as u64;
                self.open_stream(frame)
            }
            DialEnd::Failed | DialEnd::Sent => None,
        };
        let answer = message.as_deref().and_then(|message| self.decode_stream(message));
        self.dial_meant(purpose, answer, matches!(end, DialEnd::Failed));
        self.settle();
    }

    fn dial_meant(&mut self, purpose: Purpose, answer: Option<StreamMessage<'_>>, failed: bool) {
        let purpose = match purpose {
            Purpose::Ping(sequence) => return self.swim.stream_pinged(sequence, answer.as_ref()),
            Purpose::Probe(id, sequence) => {
                let answered = answer == Some(StreamMessage::Ack(sequence));
                return self.cx.event(Event::Probed { id, answered });
            }
            Purpose::Question(id) => return self.question_ended(id, answer),
            Purpose::BulkSync { to, second } if failed => return self.db.bulk_sync_failed(&mut self.cx, &to, second),
            Purpose::BulkSync { .. } | Purpose::BulkAnswer => return,
            Purpose::Push { to, ours } => {
                let confirmed = matches!(answer, Some(StreamMessage::Ack(_)));
                return self.db.push_ended(&mut self.cx, &self.swim, &to, ours, confirmed);
            }
            other => other,
        };
        let Some(StreamMessage::PushPull(theirs)) = answer else { return };
        if !self.merge(theirs) {
            return;
        }
        match purpose {
            Purpose::Join(seed) => {
                self.swim.joined(&mut self.cx);
                self.db.tell_presence(&mut self.swim);
                self.cx.event(Event::Joined(seed));
            }
            Purpose::Reconnect(name) => {
                self.db.tell_presence(&mut self.swim);
                self.db.sync_with(&mut self.cx, &name, None);
            }
            Purpose::Repair(network, peer) => self.db.sync_with(&mut self.cx, &peer, Some(&network)),
            _ => {}
        }
    }

    /// Joins the cluster by any of `seeds`, at most `MAX_SEEDS`, in place of earlier ones. They are tried again for as
    /// long as none of them is a member. `Event::Joined` tells each that answered.
    pub fn join(&mut self, now: Duration, seeds: &[SocketAddr]) {
        self.cx.now = now;
        self.db.join(&mut self.cx, &self.swim, seeds);
    }

    /// Comes into a network: from now on its entries are told, those that others have first.
    pub fn join_network(&mut self, now: Duration, network: &str) -> Result<(), NetworkError> {
        self.cx.now = now;
        self.db.join_network(&mut self.cx, &mut self.swim, network)
    }

    /// Leaves a network; this node's entries in it are gone for everybody.
    pub fn leave_network(&mut self, now: Duration, network: &str) -> Result<(), NetworkError> {
        self.cx.now = now;
        self.db.leave_network(&mut self.cx, &mut self.swim, network)
    }

    /// Makes an entry that this node owns.
    pub fn create(&mut self, now: Duration, network: &str, key: (&str, &str), value: &[u8]) -> Result<(), EntryError> {
        self.cx.now = now;
        self.db.create(&mut self.cx, network, key, value)
    }

    /// Changes an entry of this node.
    pub fn update(&mut self, now: Duration, network: &str, key: (&str, &str), value: &[u8]) -> Result<(), EntryError> {
        self.cx.now = now;
        self.db.update(&mut self.cx, network, key, value)
    }

    /// Deletes an entry of this node.
    pub fn delete(&mut self, now: Duration, network: &str, key: (&str, &str)) -> Result<(), EntryError> {
        self.cx.now = now;
        self.db.delete(&mut self.cx, network, key)
    }

    /// Sends entries of this node, each as network, table and key, to all other members of their networks at once, beside
    /// gossip. `Event::Pushed` tells the end, at once if there is nobody to tell.
    pub fn push(&mut self, now: Duration, entries: &[(Name, Name, Name)]) -> PushId {
        self.cx.now = now;
        let entries: Vec<_> = entries.iter().map(|it| (it.0.clone(), (it.1.clone(), it.2.clone()))).collect();
        self.db.push(&mut self.cx, &self.swim, &entries)
    }

    /// Takes other keys. All of them open; the one at `primary` seals. While keys are rotated every member must have the
    /// new key before the first one seals with it.
    pub fn set_keys(&mut self, keys: &[Vec<u8>], primary: usize) -> Result<(), KeyError> {
        self.cx.keyring = Keyring::new(keys, primary)?;
        Ok(())
    }

    /// Leaves the cluster in order: tells it, and stops with `Event::Left`, after some seconds at the latest.
    pub fn leave(&mut self, now: Duration) {
        self.cx.now = now;
        if self.phase == Phase::Member {
            self.db.tell_leave(&mut self.swim);
            self.phase = Phase::TellingTables(now + LEAVE_EVENT_TIMEOUT);
            self.leave_on();
        }
    }

    fn leave_on(&mut self) {
        let now = self.cx.now;
        let alone = !self.swim.has_company();
        if let Phase::TellingTables(until) = self.phase
            && (alone || now >= until || !self.swim.user.nodes.holds(&self.swim.name))
        {
            self.swim.leave(&mut self.cx);
            self.phase = Phase::TellingMembers(now + LEAVE_MESSAGE_TIMEOUT);
        }
        if let Phase::TellingMembers(until) = self.phase
            && (alone || now >= until || self.swim.has_told_leave())
        {
            self.phase = Phase::Gone;
            self.cx.timers.clear();
            return self.cx.event(Event::Left);
        }
        self.cx.after(Timer::Leave, LEAVE_LOOK);
    }

    /// The other members that are there.
    pub fn peers(&self) -> Vec<Peer> {
        self.db.peers(&self.swim)
    }

    /// The other members of a network that are there; none if this node is not in it.
    pub fn network_peers(&self, network: &str) -> Vec<Peer> {
        self.db.network_peers(&self.swim, network)
    }

    /// Whether this node knows what there was in a network when it came: another member has told, or there is none to ask.
    pub fn has_heard(&self, network: &str) -> bool {
        self.db.has_heard(network)
    }

    /// The other members that are there, and those that do not answer and are tried again.
    pub fn members(&self) -> Vec<Acquaintance> {
        self.db.acquaintances(&self.swim)
    }

    /// What a network's entries add up to: those up to the time `until`, or up to one that is some seconds ago. Nothing
    /// while this node is not in the network, or has not learned what the others have.
    pub fn sum(&self, network: &str, until: Option<u64>) -> Option<Sum> {
        self.db.sum(network, until)
    }

    /// The networks that this node is in.
    pub fn networks(&self) -> impl Iterator<Item = &Name> {
        self.db.joined()
    }

    /// The entries of a table of a network that are to be seen, by key: those of members that are there.
    pub fn entries<'a>(&'a self, network: &str, table: &'a str) -> impl Iterator<Item = (&'a Name, Entry)> + 'a {
        self.db.entries(network, table)
    }

    /// For comparing nodes: the sum and the number of a network's entries, those of failed members included, and the
    /// number of tombstones.
    pub fn contents(&self, network: &str) -> (u64, u64, u64) {
        self.db.contents(network)
    }

    /// Table events that wait to be spread.
    pub fn backlog(&self) -> usize {
        self.db.backlog()
    }

    /// Drops what waits to be spread. For simulations that begin with a settled cluster; a real
    /// node that did so would leave others uninformed.
    #[doc(hidden)]
    pub fn quieten(&mut self) {
        self.swim.quieten();
        self.db.quieten();
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.cx.counters
    }

    /// How badly this node itself does, 0 is well, 7 the worst: by missing answers it judges itself.
    pub fn troubles(&self) -> u32 {
        self.swim.troubles()
    }

    /// This node's name.
    pub fn name(&self) -> &Name {
        &self.swim.name
    }
}
