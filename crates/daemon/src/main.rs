//! The `skep` binary: `main` only picks a role.
#![forbid(unsafe_code)]

fn main() {}
