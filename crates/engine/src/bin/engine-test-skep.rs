//! The roles of `skep` that the engine's tests need: the shim and the runtime. The product has them in its own binary.

#![forbid(unsafe_code)]

use std::process::exit;

fn main() {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    if std::path::Path::new(&program).file_name().is_some_and(|name| name == "docker-init") {
        exit(runtime::init::main(args));
    }
    let role = args.next().unwrap_or_default();
    exit(match role.to_str() {
        Some("shim") => shim::main(args),
        Some("runtime") => runtime::main(args),
        _ => {
            eprintln!("usage: engine-test-skep shim|runtime …");
            2
        }
    });
}
