//! The words that the state machine and its user exchange.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::PACKET_BYTES;
use crate::message::Name;
use crate::packet::Refused;

/// What a member is and how it talks.
#[derive(Clone, Debug)]
pub struct Config {
    /// The member's name: new at every start, or others take the new process for the old one with the old one's entries.
    /// dockerd's are 12 hexadecimal digits.
    pub name: Name,
    /// Where others reach this member, by packets and by streams.
    pub advertise: SocketAddr,
    /// The size of packets before they are sealed: 1400, or dockerd's `network-control-plane-mtu` less 100.
    pub packet_bytes: usize,
    /// Whether messages are compressed: as dockerd does, yes.
    pub compression: bool,
}

impl Config {
    /// The configuration that dockerd's members have.
    pub fn new(name: impl Into<Name>, advertise: SocketAddr) -> Self {
        Self { name: name.into(), advertise, packet_bytes: PACKET_BYTES, compression: true }
    }
}

/// A stream that the state machine asked for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct DialId(pub(crate) u64);

/// Whether a stream brings something back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Send and close.
    None,
    /// Send and read one message.
    One,
}

/// A stream to open: connect, send, read the answer if there is to be one, close.
#[derive(Debug)]
pub struct Dial {
    /// By which its end is told.
    pub id: DialId,
    /// Whom to connect to.
    pub to: SocketAddr,
    /// All bytes to send.
    pub bytes: Vec<u8>,
    /// What to wait for.
    pub answer: Answer,
    /// How long all of it may take.
    pub within: Duration,
}

/// What goes back over a stream that a peer opened.
#[derive(Debug)]
pub enum StreamAnswer {
    /// Nothing: it is closed.
    None,
    /// This, now.
    Now(Vec<u8>),
    /// The user is asked; what it answers goes back as `Gossip::seal_answer` makes it, or nothing does.
    Asked {
        /// The member that asks.
        from: Name,
        /// What.
        bytes: Vec<u8>,
    },
    /// This, when the events that `poll` gives from here on until it is empty have been worked by; nothing if they cannot be.
    Applied(Vec<u8>),
}

impl StreamAnswer {
    /// What goes back, whenever.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::None | Self::Asked { .. } => None,
            Self::Now(bytes) | Self::Applied(bytes) => Some(bytes),
        }
    }
}

/// A push of entries.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PushId(pub(crate) u64);

/// A ping or a question of the user's.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AsideId(pub(crate) u64);

/// How a ping goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// In a packet, filled up to so many bytes.
    Packet {
        /// Bytes of the packet without headers of UDP and IP.
        bytes: usize,
    },
    /// Over a stream.
    Stream,
}

/// Whether a member is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    /// It answers.
    There,
    /// It does not, and is tried again.
    Failed,
}

/// A member, whether it is there or not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Acquaintance {
    /// The member; whose program it runs is not known any more of one that has failed.
    pub peer: Peer,
    /// Whether it is there.
    pub presence: Presence,
}

/// What a network's entries add up to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sum {
    /// Entries up to this time are in it.
    pub until: u64,
    /// The sum.
    pub sum: u64,
    /// How many they are.
    pub entries: u64,
}

/// How a stream ended.
#[derive(Debug)]
pub enum DialEnd {
    /// No connection, a broken one, or none in time.
    Failed,
    /// All was sent, and no answer is expected.
    Sent,
    /// The answer, one whole frame.
    Answered(Vec<u8>),
}

/// Something to do in the world.
#[derive(Debug)]
pub enum Output {
    /// Send a packet.
    Packet {
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Open a stream.
    Dial(Dial),
    /// Tell the user.
    Event(Event),
}

/// Whose program a member runs: it is told by the member's meta data, which dockerd leaves empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Ours: it takes part in the exchange of digests.
    Skep,
    /// Anything else.
    Other,
}

/// A member of the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Its name.
    pub name: Name,
    /// Where it gossips.
    pub address: SocketAddr,
    /// Whose program it runs.
    pub kind: Kind,
}

/// An entry's value and who owns it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The member that made it.
    pub owner: Name,
    /// What it says.
    pub value: Arc<[u8]>,
}

/// A change in a table: nothing before is a creation, nothing after a deletion.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The network's identifier.
    pub network: Name,
    /// The table's name.
    pub table: Name,
    /// The entry's key.
    pub key: Name,
    /// What was visible before.
    pub before: Option<Entry>,
    /// What is visible now.
    pub after: Option<Entry>,
}

/// What the user is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// An entry changed, ours or another's.
    Changed(Change),
    /// A member came or came back.
    PeerUp(Peer),
    /// A member left, or failed and is tried again.
    PeerDown(Name),
    /// A stream to a seed brought its knowledge: this member is part of its cluster.
    Joined(SocketAddr),
    /// Our tables of a network and a member's differ, though both had time to learn; they are being brought together.
    Diverged {
        /// The network's identifier.
        network: Name,
        /// The member.
        peer: Name,
    },
    /// Somebody told of us what is not so any more, and we said so.
    Refuted(Refuted),
    /// Two members claim the same name from different addresses.
    Conflict {
        /// The name.
        name: Name,
        /// The address that is not believed.
        address: SocketAddr,
    },
    /// All members of the networks are done with a push.
    Pushed {
        /// Which.
        id: PushId,
        /// Members of ours that have not confirmed it: gone, too slow, unable.
        silent: usize,
        /// Members that are not ours: they were told, as far as they can be reached, but give no word.
        foreign: usize,
    },
    /// How a ping of the user's ended.
    Probed {
        /// Which.
        id: AsideId,
        /// Whether an answer came.
        answered: bool,
    },
    /// How a question of the user's ended.
    Answered {
        /// Which.
        id: AsideId,
        /// The answer; none if the member gives none, or not in time.
        bytes: Option<Vec<u8>>,
    },
    /// A member sent a note.
    Noted {
        /// The member.
        from: Name,
        /// What it says.
        bytes: Vec<u8>,
        /// How large its packet was.
        packet_bytes: usize,
    },
    /// The leave has been told; the state machine has stopped.
    Left,
}

/// What was told of this member wrongly.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refuted {
    /// That it is dead or left.
    Gone,
    /// That it is in a network in which it is not, or the other way round.
    Network,
    /// That an entry of it exists which it does not have.
    Entry,
}

/// Counters since the start.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Packets sent, and their bytes without headers of UDP and IP.
    pub packets_out: u64,
    /// See above.
    pub packet_bytes_out: u64,
    /// Packets received.
    pub packets_in: u64,
    /// See above.
    pub packet_bytes_in: u64,
    /// Streams opened by this member.
    pub dials: u64,
    /// Streams not opened as too many were open, or as their message was too large.
    pub dials_denied: u64,
    /// Bytes sent over streams, answers included.
    pub stream_bytes_out: u64,
    /// Bytes received over streams, answers included.
    pub stream_bytes_in: u64,
    /// Packets and streams thrown away, by reason.
    pub refused: BTreeMap<Refused, u64>,
    /// What was not taken since a limit was reached: members, attachments, entries.
    pub over_limit: u64,
    /// Times that this member was suspected or declared gone wrongly.
    pub accusations: u64,
    /// Statements about us that we contradicted.
    pub refutations: u64,
    /// Digests sent.
    pub digests_out: u64,
    /// Digests that were not like ours.
    pub digests_differing: u64,
    /// Differences that lasted and were repaired.
    pub divergences: u64,
    /// Bulk syncs that had no answer in time.
    pub bulk_syncs_unanswered: u64,
}
