//! shim
#![deny(unsafe_op_in_unsafe_fn)]

pub mod launch;
pub mod limits;
pub mod protocol;
