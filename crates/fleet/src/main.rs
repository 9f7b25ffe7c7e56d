//! A fleet: real managers in one process, thousands of agents in another, each with a certificate and an mTLS session of its
//! own. Creates services until there are as many tasks as asked for and tells how fast they come to run, and what a session
//! and a task cost the managers. `cargo xtask fleet` runs it; its test is the fleet of CI.
//!
//! ```text
//!  fleet ── orders, samples over a pipe ──► fleet managers    RSS and CPU are this process's alone
//!    └─ agents ══ mTLS on loopback ════════► └─ node, manager, raft log with fdatasync
//! ```
//!
//! The agents speak the dispatcher's protocol as `agent` does and do at once what a task asks for: no container, no file, no
//! intermediate state. So the figures are the managers'.
//!
//! Ends by itself, after `--seconds` at the latest, and leaves no files.

#![forbid(unsafe_code)]

mod agents;
mod certificates;
mod limits;
mod link;
mod managers;
mod report;
mod run;
mod session;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Most agents: each takes a port of loopback's, of which Linux gives 28 000 by default.
const MAX_AGENTS: i64 = 25_000;
/// Most tasks.
const MAX_TASKS: i64 = 2_000_000;

/// Registers agents at real managers, places tasks on them and tells what it took.
#[derive(Parser)]
struct Options {
    /// How many agents.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=MAX_AGENTS))]
    agents: u32,
    /// How many tasks.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=MAX_TASKS))]
    tasks: u32,
    /// Replicas of each service.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    replicas: u32,
    /// How many managers.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=7))]
    managers: u8,
    /// Longest time of the whole run; what was reached until then is told.
    #[arg(long, default_value_t = 900)]
    seconds: u64,
    /// For how long the idle sessions are watched before there are tasks.
    #[arg(long, default_value_t = 10)]
    idle_seconds: u64,
    /// Where the managers keep their logs; a folder of its own in it is removed at the end.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
    /// Prints one line of JSON.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// The managers' process, started by the fleet.
    #[command(hide = true)]
    Managers { count: u8, folder: PathBuf },
}

fn main() -> Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    limits::raise_open_files()?;
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(Role::Managers { count, folder }) = &options.role {
        runtime.block_on(managers::run(*count, folder))?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = runtime.block_on(run::run(&options))?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
