//! `skep service …`.

mod converge;
mod create;
mod inspect;
mod list;
mod logs;
mod options;
mod ports;
mod pretty;
mod scale;
mod tasks;
mod update;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::Exit;
use crate::context::Context;
pub(crate) use tasks::{Ids, Shown as ShownTasks};

/// The services' commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a new service.
    Create(Box<create::Create>),
    /// List services.
    #[command(visible_alias = "list")]
    Ls(list::List),
    /// List the tasks of one or more services.
    Ps(tasks::Ps),
    /// Display detailed information on one or more services.
    Inspect(inspect::Inspect),
    /// Scale one or multiple replicated services.
    Scale(scale::Scale),
    /// Update a service.
    Update(Box<update::Update>),
    /// Revert changes to a service's configuration.
    Rollback(update::Rollback),
    /// Remove one or more services.
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Fetch the logs of a service or task.
    Logs(logs::Logs),
}

/// Options of `service rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Services, by name or identifier.
    #[arg(required = true)]
    services: Vec<String>,
}

/// Whether a command waits for the service to converge.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Wait {
    /// Exit immediately instead of waiting for the service to converge.
    #[arg(short, long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    detach: Option<bool>,
    /// Suppress progress output.
    #[arg(short, long)]
    quiet: bool,
}

impl Wait {
    /// Waits if it is asked to.
    pub(crate) async fn service(self, context: &Context, id: &str) -> Result<()> {
        if self.detach == Some(true) {
            return Ok(());
        }
        converge::wait(context, id, self.quiet).await
    }
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Create(create) => create.run(context).await,
        Command::Ls(list) => list.run(context).await,
        Command::Ps(ps) => ps.run(context).await,
        Command::Inspect(inspect) => inspect.run(context).await,
        Command::Scale(scale) => scale.run(context).await,
        Command::Update(update) => update.run(context).await,
        Command::Rollback(rollback) => rollback.run(context).await,
        Command::Rm(rm) => remove(context, rm).await,
        Command::Logs(logs) => logs.run(context).await,
    }
}

async fn remove(context: &Context, rm: Rm) -> Result<()> {
    let mut failed = false;
    for service in &rm.services {
        match context.client.delete(&format!("/services/{service}")).await {
            Ok(_) => println!("{service}"),
            Err(error) => {
                eprintln!("{error}");
                failed = true;
            }
        }
    }
    if failed { Err(Exit(1).into()) } else { Ok(()) }
}

/// One service by name or identifier.
pub(crate) async fn find(context: &Context, service: &str) -> Result<Value> {
    Ok(context.client.get(&format!("/services/{service}")).await?)
}

/// Prints the warnings of an answer to standard error.
pub(crate) fn print_warnings(answer: &Value) {
    for warning in crate::json::list(answer, "Warnings") {
        eprintln!("{}", warning.as_str().unwrap_or_default());
    }
}
