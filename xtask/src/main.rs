//! Tasks of the project that are not the product: `cargo xtask tidy`.

#![forbid(unsafe_code)]

mod layers;
mod tidy;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("tidy") => tidy::run(),
        _ => bail!("usage: cargo xtask tidy"),
    }
}
