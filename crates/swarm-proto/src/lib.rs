//! swarm-proto

#![forbid(unsafe_code)]
