//! The dispatcher's protocol without its IO: who has a session and until when, what each node is told, what is written
//! about nodes. Time is a parameter, randomness comes from a seed, store events come in, messages, deadlines and writes
//! come out. The shell around it pumps gRPC and timers; a simulation can do the same on virtual time.
//!
//! ```text
//!  calls ──► Sessions ──► refusals, periods, deadline        SessionFeed    ──► SessionMessage
//!  time  ──►    │    ──► silent nodes ──► writes            AssignmentFeed ──► AssignmentsMessage
//!  events ─► route ──► Dirt of each node it concerns ──────────▲
//! ```

mod assignments;
mod dirt;
mod pace;
mod session_feed;
mod sessions;
mod twins;
mod writes;

use std::time::Duration;

pub use assignments::{AssignmentFeed, assigned_tasks};
pub use dirt::{Dirt, MESSAGE_CHANGES, Routed, TaskChange, route};
pub use pace::Pace;
pub use session_feed::{ManagerIdentity, Peers, SessionFeed, peers_of};
pub use sessions::{EndReason, Refusal, Sessions, Silent};
pub use twins::Twins;
pub use writes::{is_news, write_down, write_message, write_ready, write_statuses};

/// A point in time: how long after the shell began to count.
pub type Moment = Duration;
