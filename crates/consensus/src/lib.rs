//! consensus

#![forbid(unsafe_code)]
