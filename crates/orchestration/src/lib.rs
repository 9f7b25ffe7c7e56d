//! orchestration

#![forbid(unsafe_code)]

pub mod plan;
