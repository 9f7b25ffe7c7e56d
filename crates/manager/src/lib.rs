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

mod caller;
mod codec;
mod control;
mod dispatcher;
mod error;
mod founding;
mod leader;
mod log_broker;
mod machine;
mod manager;
mod shared;
#[cfg(test)]
mod test_support;
mod writer;

pub use caller::Caller;
pub use codec::DecodeError;
pub use control::{
    Control, KeyRotation, RemoveKind, ServiceCounts, UpdateKind, check_cluster_spec, service_counts, unlock_key,
    with_defaults,
};
pub use dispatcher::{Dispatcher, DispatcherService, ManagerIdentity, core as dispatcher_core};
pub use error::ControlError;
pub use founding::{Founding, default_cluster_spec};
pub use log_broker::{LogBroker, LogBrokerService};
pub use manager::{Manager, ManagerConfig, ManagerError};
pub use shared::{Commit, Next, Shared, Watch};
pub use writer::{Log, LostLeadership, Writer};
