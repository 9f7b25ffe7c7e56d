//! Docker's Engine API over HTTP. Status codes and texts of errors are chosen here; what is done is decided by the engine
//! and, through [`SwarmBackend`], by the swarm.

#![forbid(unsafe_code)]

pub mod swarm_backend;
mod swarm_error;
mod swarm_filter;

pub use swarm_backend::SwarmBackend;
