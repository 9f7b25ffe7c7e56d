//! Builds and runs the fleet of `crates/fleet`, which is no dependency of this crate: `cargo xtask tidy` must not wait for
//! it.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// How it is called.
pub(crate) const USAGE: &str =
    "cargo xtask fleet [--agents N] [--tasks N] [--managers N] [--seconds N]; --help tells all";

/// Runs it with these arguments.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--release", "--locked", "--package", "fleet", "--"]).args(arguments);
    let status = command.status().context("cargo")?;
    if !status.success() {
        bail!("the fleet did not reach what was asked for");
    }
    Ok(())
}
