//! The `skep` binary: `main` only picks a role.
//!
//! ```text
//!  skep shim …      the process beside a container      no threads, no runtime
//!  skep runtime …   the OCI runtime                     no threads, no runtime
//!  skep daemon …    the engine and the swarm
//!  dockerd …        the same, with dockerd's places
//!  docker-init …    the first process of a container with --init
//!  skep …           the command line
//! ```

#![forbid(unsafe_code)]

mod checkup;
mod clock;
mod conntrack;
mod data_root;
mod errors;
mod executor;
mod metrics;
mod network;
mod notify;
mod options;
mod overlay;
mod pidfile;
mod run;
mod settings;
mod swarm;

use std::ffi::OsString;
use std::path::Path;

use settings::Persona;

fn main() {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    std::process::exit(pick(&program, rest));
}

fn pick(program: &OsString, mut args: Vec<OsString>) -> i32 {
    match Path::new(program).file_name().and_then(|name| name.to_str()) {
        Some("dockerd") => return run::main(text(args), Persona::Dockerd),
        Some("docker-init") => return runtime::init::main(args.into_iter()),
        _ => {}
    }
    match args.first().and_then(|first| first.to_str()) {
        Some("shim") => shim::main(args.drain(1..)),
        Some("runtime") => runtime::main(args.drain(1..)),
        Some("daemon") => run::main(text(args.split_off(1)), Persona::Skep),
        _ => cli::main(text(args)),
    }
}

/// Arguments as text; what is no UTF-8 cannot be an option of ours and is shown with its bytes replaced.
fn text(args: Vec<OsString>) -> Vec<String> {
    args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect()
}
