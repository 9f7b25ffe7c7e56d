//! The worker's half of the dispatcher: one session with a manager, one manager for each assigned task, statuses sent
//! until they are taken, logs published to whoever subscribed.
//!
//! ```text
//!   dispatcher ──SessionMessage──► session ──node, keys──► Executor
//!              ──Assignments─────► session ──changes────► worker ──► task_manager (one a task) ──► Controller
//!              ◄─UpdateTaskStatus─ reporter ◄──status────────────────┘
//!   log broker ──Subscription────► logs ───────────────► Controller::logs ──PublishLogs──►
//! ```
//!
//! Invariants: a task's observed state never goes back; a status is kept until a manager took it; a session that
//! breaks leaves the tasks alone; assignments are on disk and go on after a restart without any manager. Called by
//! `node`, which gives the connections and the executor.

#![forbid(unsafe_code)]

mod connect;
mod dependencies;
mod executor;
mod logs;
mod reporter;
mod sending;
mod session;
mod task_files;
mod task_manager;
mod worker;

pub use connect::{Connect, Connection, ManagerAddress, Outcome};
pub use dependencies::Dependencies;
pub use executor::{
    Controller, ControllerError, Executor, ExecutorError, LogLine, LogRequest, NetworkPart, NodeAddresses,
};
pub use session::{AgentConfig, AgentHandle, SessionInfo, start};
