//! Every limit of a shim, in one place. Not configurable unless a field of `Launch` says so.

/// Connections at once, control and streams together; more are closed at once.
pub const CONNECTIONS: usize = 128;
/// Bytes waiting for one attacher or exec client before its process is made to wait.
pub const STREAM_BUFFER_BYTES: usize = 256 * 1024;
/// Bytes waiting for one control connection (replies, events) before it is closed.
pub const CONTROL_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of input waiting for one process before its senders are made to wait.
pub const STDIN_BUFFER_BYTES: usize = 256 * 1024;
/// How long an attacher may take nothing while the container waits for it, in milliseconds.
pub const ATTACH_STALL_MS: u64 = 10_000;
/// Execs that run at once; with the other limits this stays below the usual 1024 open files.
pub const EXECS: usize = 128;
/// Ended execs that are remembered for `ExecState`.
pub const EXECS_ENDED: usize = 64;
/// Runtime commands at work at once.
pub const JOBS: usize = 64;
/// Exits of unknown children remembered while a runtime command is at work.
pub const ORPHANS: usize = 1024;
/// How long the output of an ended process is awaited when someone else still holds it open, in milliseconds.
pub const DRAIN_MS: u64 = 2_000;
/// How long a runtime command may take before it is killed, in milliseconds.
pub const RUNTIME_MS: u64 = 120_000;
/// Bytes of a runtime's error text that are passed on.
pub const ERROR_TEXT_BYTES: usize = 16 * 1024;
/// Bytes of one line in the log; longer ones are split, as dockerd does.
pub const LOG_LINE_BYTES: usize = 16 * 1024;
/// Bytes read at once from a process or a connection.
pub const READ_BYTES: usize = 64 * 1024;
/// After so long without anything to do, memory is given back, in milliseconds.
pub const IDLE_MS: u64 = 500;
