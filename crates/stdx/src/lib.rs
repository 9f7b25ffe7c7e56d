//! Small std-like helpers that know nothing of containers.

#![forbid(unsafe_code)]

mod rng;

pub use rng::Rng;
