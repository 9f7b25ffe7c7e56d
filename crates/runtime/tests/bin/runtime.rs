//! The runtime's command line as a program with one thread, for tests and benches.

fn main() {
    std::process::exit(runtime::main(std::env::args_os().skip(1)));
}
