//! Drives the raft core: persist, send, apply. The log and the snapshots lie encrypted on disk, many proposals share one
//! `fdatasync`, and a proposal is acknowledged when it is committed and applied here.
//!
//! ```text
//!  propose ─► queue ─► raft core ─► Ready ─► log.append + fdatasync ─► commit ─► StateMachine::apply ─► acknowledged
//! ```
//!
//! One thread owns the core, the log and the state machine. SwarmKit's encoding is kept to the letter (founder entry,
//! InternalRaftRequest, MaybeEncryptedRecord); no peer's bytes go through the core's own codec.

#![forbid(unsafe_code)]

mod cipher;
mod driver;
mod log;
mod mapping;
mod snapshot;

pub use cipher::{CipherError, Dek};
pub use driver::{Config, Handle, Proposed, StartError, StateMachine, Status, found, start};
pub use log::LogError;
