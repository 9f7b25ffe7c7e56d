//! What this machine is in the swarm: founding one, living in it, leaving it, and coming back after a restart. Starts the
//! manager and the agent and joins them with the same gRPC services that remote nodes use.
//!
//! ```text
//!             init                        daemon starts
//!  Inactive ────────► Active ◄──────────────────────────── state file on disk
//!      ▲                │ leave: tasks stopped, state forgotten
//!      └────────────────┘
//!  Active ──cannot start──► Failed (state kept; `leave --force` forgets it)
//!  daemon starts, key file locked ──► Locked ──unlock──► Active
//! ```
//!
//! Invariants: the state file is written last and removed first, so a crash in between leaves no swarm rather than half
//! of one; stopping the daemon leaves tasks alone. Called by `daemon`.

#![forbid(unsafe_code)]

pub mod address;
mod key_file;
mod local;
mod node;
mod remotes;
mod state;

pub use node::{
    InitRequest, LeaveError, LeaveMode, NodeConfig, NodeError, NodeInfo, NodeState, SwarmNode, UnlockError,
};
pub use state::StateError;
