//! Every bound of the crate in one place: what a peer can make this node hold, send or compute. Some are the protocol's own
//! (they say so); the others are chosen far above what a swarm of a few thousand machines needs.

use std::time::Duration;

/// The port that dockerd gossips on; not configurable there.
pub const PORT: u16 = 7946;

/// The default size of a packet before it is sealed, as dockerd has it.
pub const PACKET_BYTES: usize = 1400;
/// The largest packet that is looked at: what memberlist reads at most.
pub const MAX_PACKET_BYTES: usize = 65_536;
/// What a packet may unpack to, all its nested layers together.
pub const MAX_UNPACKED_PACKET_BYTES: usize = 65_536;
/// How deep compound and compressed layers of a packet may nest; memberlist's senders make two.
pub const MAX_PACKET_DEPTH: usize = 4;
/// Messages taken from one packet.
pub const MAX_PACKET_MESSAGES: usize = 1024;

/// The largest message of a stream on the wire: memberlist's own limit.
pub const MAX_STREAM_BYTES: usize = 20 * 1024 * 1024;
/// What a stream's message may unpack to: memberlist's own limit.
pub const MAX_UNPACKED_STREAM_BYTES: usize = 2 * MAX_STREAM_BYTES;
/// How long a stream may take from its opening to its end: memberlist's TCP time-out.
pub const STREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams that this node has open towards peers at once; a dial above it fails at once.
pub const MAX_DIALS: usize = 64;

/// Of these, for pushes.
pub const MAX_PUSH_DIALS: usize = 48;
/// How long the stream of a push may take: who waits for it does not wait longer.
pub const PUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Pushes that not all members are done with; one above it is told as unconfirmed at once.
pub const MAX_PUSHES: usize = 4096;
/// Entries in one push.
pub const MAX_PUSHED_ENTRIES: usize = 256;

/// Pings of the user's in packets that wait for their answer.
pub const MAX_PROBES: usize = 256;
/// How long such a ping waits.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a stream with a ping or a question of the user's may take.
pub const ASIDE_TIMEOUT: Duration = Duration::from_secs(5);
/// A question, or its answer.
pub const MAX_ASIDE_BYTES: usize = 64 * 1024;
/// A note.
pub const MAX_NOTE_BYTES: usize = 256;

/// Members known at once, the dead included.
pub const MAX_MEMBERS: usize = 16_384;
/// A member's name, a table's name.
pub const MAX_NAME_BYTES: usize = 128;
/// A member's meta data: memberlist's own limit.
pub const MAX_META_BYTES: usize = 512;
/// Keys in the keyring: dockerd has three, and one more while rotating.
pub const MAX_KEYS: usize = 8;
/// Addresses to join by.
pub const MAX_SEEDS: usize = 64;
/// Pings of others that this node relays at once.
pub const MAX_RELAYS: usize = 1024;
/// Names that may stand behind one suspicion.
pub const MAX_CONFIRMATIONS: usize = 16;
/// Messages waiting to be spread, per queue.
pub const MAX_QUEUE: usize = 16_384;

/// Attachments (member, network) known at once.
pub const MAX_ATTACHMENTS: usize = 524_288;
/// Networks that this node may be in.
pub const MAX_NETWORKS: usize = 4096;
/// An entry's key, a network's identifier.
pub const MAX_KEY_BYTES: usize = 256;
/// An entry's value.
pub const MAX_VALUE_BYTES: usize = 16 * 1024;
/// Entries of one network, tombstones included.
pub const MAX_NETWORK_ENTRIES: usize = 262_144;
/// Bytes that the entries of one network may hold.
pub const MAX_NETWORK_BYTES: usize = 64 * 1024 * 1024;
/// Entries' bytes in one message of a bulk sync; larger networks take several.
pub const MAX_BULK_BYTES: usize = 8 * 1024 * 1024;
/// How deep NetworkDB's compound messages may nest; its senders make two.
pub const MAX_MESSAGE_DEPTH: usize = 4;
/// A queue of relayed table events longer than this takes no more of what bulk syncs bring: dockerd's rule.
pub const MAX_QUEUE_ON_SYNC: usize = 500;
/// How far ahead of our clock a peer's time may be: a clock near its end could never be advanced again.
pub const MAX_CLOCK_JUMP: u64 = 1 << 40;
