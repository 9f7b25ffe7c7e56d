//! orchestration

#![forbid(unsafe_code)]
