//! manager

#![forbid(unsafe_code)]
