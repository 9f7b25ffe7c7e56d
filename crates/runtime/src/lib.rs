//! The OCI runtime `skep runtime …`: one short run per command, with runc's command line.
//!
//! Owns: containers' state under `--root`, their cgroups, the processes it creates until they are started.
//! Invariants: the process has one thread (it forks; `libcontainer` hangs otherwise) and no async runtime; every file
//! descriptor it opens is close-on-exec; nothing of a container is left after `delete`.
//! Callers: the `skep` binary (role `runtime`), and the shim through that command line, where runc or crun can stand
//! in. Creating a container is done by `libcontainer`; joining one (`exec`), signals, cgroup removal, device rules on
//! cgroup v2 and the sealed copy of the binary are ours.

#![deny(unsafe_op_in_unsafe_fn)]

use std::ffi::OsString;

mod adapt;
mod cgroup;
mod cli;
pub mod code;
mod create;
mod devices;
mod error;
mod exec;
mod filter;
pub mod init;
mod join;
mod lifecycle;
mod limits;
mod log;
mod passwd;
mod program;
pub mod seal;
mod signal;
mod state;

use cli::{Command, ExecWait};
use error::RuntimeError;

/// Runs one command of the runtime and returns the exit code of the process.
///
/// `args` are the words after `skep runtime`. Must be called in a process with one thread, before anything starts
/// another. Exit codes: 0 done, 1 failed (the reason is in the log file and on standard error), for `exec` without
/// `--detach` the code of the process, or 255 if it could not be started.
pub fn main(args: impl Iterator<Item = OsString>) -> i32 {
    let (global, command) = match cli::parse(args) {
        Ok(parsed) => parsed,
        Err(error) => {
            log::fatal(&error.to_string());
            return 1;
        }
    };
    if let Err(error) = log::init(global.log.as_deref(), global.log_format, global.verbosity) {
        log::fatal(&format!("cannot open the log file: {error}"));
        return 1;
    }
    let failed = match &command {
        Command::Exec(exec) if exec.wait == ExecWait::Attached => 255,
        _ => 1,
    };
    match run(&global, command) {
        Ok(code) => code,
        Err(error) => {
            log::fatal(&error.to_string());
            failed
        }
    }
}

fn run(global: &cli::Global, command: Command) -> Result<i32, RuntimeError> {
    let root = global.root.as_path();
    match command {
        Command::Create(create) => create::create(root, &create)?,
        Command::Start { id } => lifecycle::start(root, &id)?,
        Command::State { id } => lifecycle::print_state(root, &id)?,
        Command::Kill { id, signal, target } => lifecycle::kill(root, &id, signal, target)?,
        Command::Delete { id, mode } => lifecycle::delete(root, &id, mode)?,
        Command::Exec(exec) => return exec::exec(root, &exec),
        Command::Pause { id } => lifecycle::pause(root, &id)?,
        Command::Resume { id } => lifecycle::resume(root, &id)?,
        Command::Ps { id, format } => lifecycle::ps(root, &id, format)?,
        Command::Update { id, resources } => lifecycle::update(root, &id, &resources)?,
        Command::Version => {
            println!(
                "skep runtime version {}\nspec: {}",
                env!("CARGO_PKG_VERSION"),
                libcontainer::oci_spec::runtime::VERSION
            );
        }
    }
    Ok(0)
}
