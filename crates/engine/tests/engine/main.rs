//! The engine with real shims, the real runtime and a busybox image.

mod life;
mod support;
