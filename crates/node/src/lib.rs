//! What this machine is in the swarm: founding one, joining one, living in it as a worker or a manager, leaving it, and
//! coming back after a restart. Starts the agent and, while the node's certificate makes it a manager, the manager with
//! the swarm's port, and joins them with the same gRPC services that remote nodes use.
//!
//! ```text
//!            init, join                  daemon starts
//!  Inactive ───────────► Pending ◄──────────────────────── state file on disk
//!      ▲                    │ registered; as a manager: has a leader
//!      │                    ▼
//!      │                  Active as a worker ◄──promotion, demotion──► Active as a manager
//!      │                    │ leave: tasks stopped, the swarm told, state forgotten
//!      └────────────────────┘
//!  cannot start, certificate expired ──► Failed (state kept; `leave --force` forgets it)
//!  daemon starts, key file locked ──► Locked ──unlock──► Pending
//! ```
//!
//! Invariants: the state file is written when the rest is whole and removed first, so a crash in between leaves no swarm
//! rather than half of one; the port is open exactly while this node is a manager; stopping the daemon leaves tasks alone.
//! Called by `daemon`.

#![forbid(unsafe_code)]

pub mod address;
mod attachments;
mod broker;
mod error;
mod group;
mod joining;
mod keeper;
mod leaving;
mod life;
mod listener;
mod local;
mod manager_run;
mod node;
mod remotes;
mod renewal;
mod roles;
mod state;

pub use attachments::AttachmentError;
pub use error::{LeaveError, NodeError, StartError, UnlockError};
pub use group::GroupError;
pub use keeper::KeeperError;
pub use leaving::{LeaveMode, LeaveRefusal};
pub use node::{InitRequest, JoinRequest, NodeConfig, NodeInfo, NodeState, SwarmNode};
pub use remotes::RemoteManager;
pub use state::StateError;
