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
mod control_service;
mod dispatcher;
mod error;
mod founding;
mod key_manager;
mod leader;
mod log_broker;
mod machine;
mod manager;
mod resource_allocator;
mod shared;
#[cfg(test)]
mod test_support;
mod writer;

pub use caller::Caller;
pub use codec::DecodeError;
pub use control::{
    Control, FindLeader, KeyRotation, LeaderPath, LeadsAlone, LocalControl, Place, RemoveKind, ServiceCounts,
    UpdateKind, check_cluster_spec, service_counts, unlock_key, with_defaults,
};
pub use control_service::{ControlService, LogsService};
pub use dispatcher::{Dispatcher, DispatcherService, ManagerIdentity, core as dispatcher_core};
pub use error::ControlError;
pub use founding::{Founding, default_cluster_spec};
pub use log_broker::{LogBroker, LogBrokerService, LogReceiver};
pub use manager::{Manager, ManagerConfig, ManagerError};
pub use resource_allocator::ResourceAllocatorService;
pub use shared::{Commit, Next, Shared, Watch};
pub use writer::{Log, LostLeadership, Writer};
