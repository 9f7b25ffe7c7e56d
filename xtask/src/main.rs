//! Tasks of the project that are not the product: `cargo xtask tidy`, `cargo xtask sim`, `cargo xtask fleet`,
//! `cargo xtask vm`.

#![forbid(unsafe_code)]

mod fleet;
mod layers;
mod sim;
mod tidy;
mod vm;
mod vm_disk;
mod vm_dockerd;
mod vm_machine;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("tidy") => tidy::run(),
        Some("sim") => sim::run(&args[1..]),
        Some("vm") => vm::run(&args[1..]),
        Some("fleet") => fleet::run(&args[1..]),
        _ => bail!("usage: cargo xtask tidy\n       {}\n       {}\n       {}", sim::USAGE, fleet::USAGE, vm::USAGE),
    }
}
