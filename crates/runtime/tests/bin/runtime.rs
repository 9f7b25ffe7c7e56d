//! The runtime's command line as a program with one thread, for tests and benches; as `docker-init`, the other role.

use std::path::Path;

fn main() {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    std::process::exit(match Path::new(&program).file_name() {
        Some(name) if name == "docker-init" => runtime::init::main(args),
        _ => runtime::main(args),
    });
}
