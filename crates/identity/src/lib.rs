//! identity

#![forbid(unsafe_code)]
