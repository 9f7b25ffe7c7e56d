//! A whole swarm in one thread, on virtual time, from one seed: managers, agents, clients, and everything that can go
//! wrong between them.
//!
//! ```text
//!  seed ──► World ── queue of events by virtual time ──► machines: Manager (raft core, store, planner, dispatcher)
//!             │                                                    Agent   (assignments, tasks, statuses)
//!             │ faults: net, disk, clock, crashes, changes of the group
//!             ▼
//!          clients ──► what they were told ──► checkers ◄── what every manager applied, what every agent runs
//! ```
//!
//! What decides is the product's own code: `consensus::core`, `store`, `orchestration`, `lifecycle` and `manager::core`.
//! The shells around it are this crate's: they do what the product's loops do, without threads, files and sockets.
//!
//! Invariants: nothing here asks a clock, the system's randomness or an unordered map; equal options give an equal
//! trace. Run by `tests/` with a fixed number of seeds, and by `cargo xtask sim` for as long as one likes.

#![forbid(unsafe_code)]

mod agent;
mod bug;
mod calls;
mod client;
mod converge;
mod ctx;
mod disk;
mod faults;
mod history;
mod manager;
mod net;
mod world;

pub use bug::Bug;
pub use history::{Checker, Failure};
pub use world::{Options, Report, run};
