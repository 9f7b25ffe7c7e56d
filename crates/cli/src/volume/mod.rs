//! `skep volume …`.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::Context;
use crate::inspect::{Format, Found};
use crate::json::{filters, list, pairs, text};
use crate::table::Table;

/// The volumes' commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a volume.
    Create(Create),
    /// List volumes.
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Display detailed information on one or more volumes.
    Inspect(Inspect),
    /// Remove one or more volumes.
    #[command(visible_alias = "remove")]
    Rm(Names),
}

/// Options of `volume create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Specify volume driver name.
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Set metadata for a volume.
    #[arg(long)]
    label: Vec<String>,
    /// Set driver specific options.
    #[arg(short, long)]
    opt: Vec<String>,
    /// Its name; empty for a random one.
    #[arg(default_value = "")]
    name: String,
}

/// Options of `volume ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Provide filter values.
    #[arg(short, long)]
    filter: Vec<String>,
    /// Only display volume names.
    #[arg(short, long)]
    quiet: bool,
}

/// Options of `volume inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    format: Format,
    #[arg(required = true)]
    volumes: Vec<String>,
}

/// Volumes.
#[derive(Debug, Args)]
pub(crate) struct Names {
    #[arg(required = true)]
    volumes: Vec<String>,
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Create(create) => {
            let body = json!({"Name": create.name, "Driver": create.driver, "Labels": pairs(&create.label),
                "DriverOpts": pairs(&create.opt)});
            let answer: Value = context.client.post_with("/volumes/create", Default::default(), &body).await?;
            println!("{}", text(&answer, "Name"));
        }
        Command::Ls(ls) => {
            let answer: Value = context.client.get(&format!("/volumes?filters={}", filters(&ls.filter)?)).await?;
            let mut table = Table::new(&["DRIVER", "VOLUME NAME"]);
            let mut volumes = list(&answer, "Volumes").to_vec();
            volumes.sort_by(|a, b| text(a, "Name").cmp(text(b, "Name")));
            for volume in &volumes {
                if ls.quiet {
                    println!("{}", text(volume, "Name"));
                }
                table.row([text(volume, "Driver").to_owned(), text(volume, "Name").to_owned()]);
            }
            if !ls.quiet {
                table.print();
            }
        }
        Command::Inspect(inspect) => {
            let found = Found::each(context, &inspect.volumes, |name| format!("/volumes/{name}")).await;
            found.print(&inspect.format)?;
        }
        Command::Rm(names) => {
            for name in &names.volumes {
                context.client.delete(&format!("/volumes/{name}")).await?;
                println!("{name}");
            }
        }
    }
    Ok(())
}
