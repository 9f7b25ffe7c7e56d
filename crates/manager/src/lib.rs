//! A manager: the committed state, the only way to write it, the leader's planning loop, the control API, the dispatcher
//! and the log broker.
//!
//! ```text
//!  control ─┐                                     ┌─► Shared (committed view, watches) ─► dispatcher, log broker
//!  statuses ┼─► Writer (speculative view) ─► raft ─┘
//!  planner ─┘        ▲ wakes
//!                    └── every write
//! ```
//!
//! Invariants: nothing reaches the store but through [`Writer`] and the log; a call is answered when its entry is
//! committed and applied here; texts that cross gRPC are chosen in this crate. Called by `node`.

#![forbid(unsafe_code)]

mod allowance;
mod authorize;
mod blacklist;
mod ca;
mod caller;
mod codec;
mod control;
mod control_service;
mod dispatcher;
mod duties;
mod error;
mod forward;
mod founding;
mod gate;
mod health;
mod joining;
mod key_manager;
mod leader;
mod leadership;
mod log_broker;
mod machine;
mod manager;
mod membership;
mod methods;
mod raft_service;
mod resource_allocator;
mod role_manager;
mod routes;
mod shared;
mod sharing;
#[cfg(test)]
mod test_support;
mod timing;
mod tuning;
mod writer;

/// What decides in this crate, without its loops: the simulation runs it on virtual time.
pub mod core {
    pub use crate::codec::{decode_actions, decode_snapshot, encode_actions, encode_snapshot};
    pub use crate::dispatcher::core as dispatcher;
    pub use crate::leader::{heard_of, write_unknown};
    pub use crate::role_manager::{RolePlan, Step as RoleStep, plan as plan_roles, set_role};
    pub use crate::writer::{MAX_ACTIONS, Planning, Proposal, Speculation, Stamp};
}

pub use caller::Caller;
pub use codec::DecodeError;
pub use control::{
    Control, KeyRotation, RemoveKind, ServiceCounts, UpdateKind, check_cluster_spec, service_counts, unlock_key,
    with_defaults,
};
pub use dispatcher::{Dispatcher, DispatcherService, ManagerIdentity};
pub use error::ControlError;
pub use founding::{Founding, default_cluster_spec};
pub use joining::joining_routes;
pub use log_broker::{LogBroker, LogBrokerService, LogReceiver};
pub use manager::{Beginning, Manager, ManagerConfig, ManagerError};
pub use raft_service::{RaftPort, RaftService};
pub use shared::{Commit, Next, Shared, Watch};
pub use timing::Timing;
pub use writer::{Log, LostLeadership, Writer};
