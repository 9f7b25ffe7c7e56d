//! Real containers from busybox, through the command line. Needs root and `busybox` (static) on the host.

mod support;

mod confinement;
mod console;
mod execs;
mod init;
mod lifecycle;
