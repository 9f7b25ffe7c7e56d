//! The gossip of a swarm as dockerd speaks it on port 7946: memberlist, that finds out which members are there, and
//! NetworkDB on top of it, that carries tables of entries per network. This crate is the pure part: a state machine in
//! virtual time; `gossip-io` pumps packets and streams in and out.
//!
//! ```text
//!    packets, streams ──► core ──► packet/stream: sealed, compressed, compound ──► swim: who is there
//!    commands, ticks  ──►  │                                                        │ members come and go
//!                          │                                                        ▼
//!    poll() ◄── packets, streams to open, events ◄────────────────────────── db: networks, entries, syncs, digests
//! ```
//!
//! All input is hostile until a key has opened it, and bounded even then: see `limits`.

#![forbid(unsafe_code)]

mod api;
mod clock;
mod context;
mod core;
mod db;
pub mod limits;
mod lzw;
mod message;
mod msgpack;
mod packet;
mod queue;
mod seal;
mod stream;
mod swim;

pub use api::{
    Acquaintance, Answer, AsideId, Change, Config, Counters, Dial, DialEnd, DialId, Entry, Event, Kind, Output, Peer,
    Presence, PushId, Refuted, StreamAnswer, Sum, Via,
};
pub use core::{ConfigError, Gossip};
pub use db::{EntryError, NetworkError};
pub use message::Name;
pub use packet::Refused;
pub use seal::{Entropy, KeyError};
pub use stream::{Framer, Secrecy};
