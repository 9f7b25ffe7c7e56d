//! The engine with real shims, the real runtime and a busybox image.

#![allow(unreachable_pub, reason = "a test binary has no users of what is public")]

mod adopt;
mod exec;
mod life;
mod logs;
mod networks;
mod refusals;
mod support;
mod tasks;
