//! Small std-like helpers that know nothing of containers.

#![forbid(unsafe_code)]

mod go_duration;
mod rng;

pub use go_duration::parse_go_duration;
pub use rng::Rng;
