//! `skep secret …` and `skep config …`.

use std::io::Read;

use anyhow::{Context as _, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::Context;
use crate::json::{filters, pairs, text};
use crate::table::Table;
use crate::text::age;

/// Most bytes read for a secret or config; the daemon's limits are lower.
const MAX_DATA_BYTES: u64 = 2 << 20;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Secret,
    Config,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Config => "configs",
        }
    }
}

/// Their commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create one from a file, or from standard input with `-`.
    Create(Create),
    /// List them.
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Display detailed information on one or more.
    Inspect(Names),
    /// Remove one or more.
    #[command(visible_alias = "remove")]
    Rm(Names),
}

/// Options of `create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Labels.
    #[arg(short, long)]
    label: Vec<String>,
    /// Its name.
    name: String,
    /// File to read, `-` for standard input.
    file: String,
}

/// Options of `ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Filter output based on conditions provided.
    #[arg(short, long)]
    filter: Vec<String>,
    /// Only display IDs.
    #[arg(short, long)]
    quiet: bool,
}

/// Names or identifiers.
#[derive(Debug, Args)]
pub(crate) struct Names {
    #[arg(required = true)]
    names: Vec<String>,
}

pub(crate) async fn run(context: &Context, kind: Kind, command: Command) -> Result<()> {
    let path = kind.path();
    match command {
        Command::Create(create) => {
            let body = json!({"Name": create.name, "Labels": pairs(&create.label), "Data": STANDARD.encode(read(&create.file)?)});
            let answer: Value = context.client.post_with(&format!("/{path}/create"), Default::default(), &body).await?;
            println!("{}", text(&answer, "ID"));
        }
        Command::Ls(ls) => list(context, path, ls).await?,
        Command::Inspect(names) => {
            let mut found: Vec<Value> = Vec::new();
            for name in &names.names {
                found.push(context.client.get(&format!("/{path}/{name}")).await?);
            }
            println!("{}", serde_json::to_string_pretty(&found)?);
        }
        Command::Rm(names) => {
            for name in &names.names {
                context.client.delete(&format!("/{path}/{name}")).await?;
                println!("{name}");
            }
        }
    }
    Ok(())
}

fn read(file: &str) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    if file == "-" {
        std::io::stdin().take(MAX_DATA_BYTES).read_to_end(&mut data)?;
    } else {
        let open = std::fs::File::open(file).with_context(|| file.to_owned())?;
        open.take(MAX_DATA_BYTES).read_to_end(&mut data)?;
    }
    Ok(data)
}

async fn list(context: &Context, path: &str, ls: Ls) -> Result<()> {
    let found: Value = context.client.get(&format!("/{path}?filters={}", filters(&ls.filter)?)).await?;
    let mut found = found.as_array().cloned().unwrap_or_default();
    found.sort_by(|a, b| text(a, "Spec.Name").cmp(text(b, "Spec.Name")));
    let mut table = Table::new(&["ID", "NAME", "CREATED", "UPDATED"]);
    for object in &found {
        if ls.quiet {
            println!("{}", text(object, "ID"));
            continue;
        }
        table.row([
            text(object, "ID").to_owned(),
            text(object, "Spec.Name").to_owned(),
            format!("{} ago", age(text(object, "CreatedAt"))),
            format!("{} ago", age(text(object, "UpdatedAt"))),
        ]);
    }
    if !ls.quiet {
        table.print();
    }
    Ok(())
}
