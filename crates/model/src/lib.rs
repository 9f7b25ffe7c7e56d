//! SwarmKit's objects, strongly typed: what `swarm-proto` and `docker-types` convert to and from, and all that the
//! decisions are made of. Nothing is lost on the way from the wire into the model and back.

#![forbid(unsafe_code)]

mod cluster;
mod container;
mod id;
mod network;
mod node;
mod object;
mod prelude;
mod resources;
mod secret;
mod service;
mod task;
mod time;
mod version;
mod volume;

pub use cluster::*;
pub use container::*;
pub use id::*;
pub use network::*;
pub use node::*;
pub use object::*;
pub use resources::*;
pub use secret::*;
pub use service::*;
pub use task::*;
pub use time::{Duration, Timestamp};
pub use version::*;
pub use volume::*;
