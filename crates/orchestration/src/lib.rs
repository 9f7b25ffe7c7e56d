//! orchestration

#![forbid(unsafe_code)]

pub mod allocator;
pub mod plan;
pub mod scheduler;
