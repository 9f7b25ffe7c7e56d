//! Raft among managers, on SwarmKit's wire: persist, send, apply. The log and the snapshots lie encrypted on disk, many
//! proposals share one `fdatasync`, and a proposal is acknowledged when it is committed and applied here.
//!
//! ```text
//!  propose ─► inbox ─► core ─┬─► disk: append + fdatasync ─┐
//!             ▲              └─► transport ─► peers ───────┴─► committed ─► StateMachine::apply ─► acknowledged
//!  peers ─────┘
//! ```
//!
//! [`core`] is pure and is what the simulation runs; `driver` is the thread around it. SwarmKit's encoding is kept to the
//! letter (founder entry, InternalRaftRequest, MaybeEncryptedRecord, raftpb); no peer's bytes go through the raft
//! library's own codec. Called by `manager`.

#![forbid(unsafe_code)]

mod cipher;
pub mod core;
mod disk;
mod driver;
mod handle;
mod inbox;
mod log;
mod snapshot;
mod status;
mod transport;

pub use cipher::{CipherError, Dek};
pub use core::{Beginning, ChangeError, LoadError, MemberChange, SnapshotPolicy, StepError};
pub use driver::{Config, ProposeError, RotateError, StartError, StateMachine, Timing, TransferError, start};
pub use handle::{Handle, MAX_REQUEST_BYTES, Proposed, ReceiveError};
pub use log::LogError;
pub use status::Status;
pub use transport::{ChunkError, Dial, DialError, SnapshotAssembler};
