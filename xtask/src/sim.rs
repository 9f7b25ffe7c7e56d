//! `cargo xtask sim`: runs the simulation of a whole swarm, optimised, for as many seeds or seconds as told.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// How it is called.
pub(crate) const USAGE: &str = "cargo xtask sim [--seeds N | --seconds S] [--from SEED] [--keep-going] [--bug NAME]
       cargo xtask sim --seed X [--trace] [--bug NAME]";

/// Builds and runs it.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--release", "--package", "sim", "--"]).args(arguments);
    let status = command.status().context("cargo run --package sim")?;
    if !status.success() {
        bail!("the simulation found something");
    }
    Ok(())
}
