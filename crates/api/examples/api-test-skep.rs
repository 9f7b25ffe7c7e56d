//! The roles of `skep` that tests with real containers need: the shim and the runtime.

#![forbid(unsafe_code)]

use std::process::exit;

fn main() {
    let mut args = std::env::args_os().skip(1);
    let role = args.next().unwrap_or_default();
    exit(match role.to_str() {
        Some("shim") => shim::main(args),
        Some("runtime") => runtime::main(args),
        _ => {
            eprintln!("usage: api-test-skep shim|runtime …");
            2
        }
    });
}
