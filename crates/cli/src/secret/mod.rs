//! `skep secret …` and `skep config …`.

use std::io::Read;

use anyhow::{Context as _, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::Context;
use crate::inspect::{Format, Found};
use crate::json::{at, filters, pairs, text};
use crate::template::{LABELS, column, render_rows};
use crate::text::{age, go_time, natural_order};

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
    Inspect(Inspect),
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
    /// Format output using a template: table, table TEMPLATE, json or TEMPLATE.
    #[arg(long, default_value = "table", hide_default_value = true)]
    format: String,
    /// Only display IDs.
    #[arg(short, long)]
    quiet: bool,
}

/// Options of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    format: Format,
    /// Print the information in a human friendly format.
    #[arg(long)]
    pretty: bool,
    #[arg(required = true)]
    names: Vec<String>,
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
        Command::Ls(ls) => {
            let found: Value = context.client.get(&format!("/{path}?filters={}", filters(&ls.filter)?)).await?;
            print!("{}", ls.render(kind, found.as_array().map_or(&[], Vec::as_slice))?);
        }
        Command::Inspect(inspect) => {
            let mut found = Found::each(context, &inspect.names, |name| format!("/{path}/{name}")).await;
            if !inspect.pretty {
                return found.print(&inspect.format);
            }
            for object in std::mem::take(&mut found.objects) {
                print!("{}", pretty(kind, &serde_json::from_str(object.get())?));
            }
            found.end()?;
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

impl Ls {
    fn render(&self, kind: Kind, objects: &[Value]) -> Result<String> {
        let mut objects: Vec<&Value> = objects.iter().collect();
        objects.sort_by(|a, b| natural_order(text(a, "Spec.Name"), text(b, "Spec.Name")));
        let row = |object: &&Value| {
            json!({
                "ID": text(object, "ID"),
                "Name": text(object, "Spec.Name"),
                "Driver": text(object, "Spec.Driver.Name"),
                "CreatedAt": format!("{} ago", age(text(object, "CreatedAt"))),
                "UpdatedAt": format!("{} ago", age(text(object, "UpdatedAt"))),
                "Labels": labels(object).iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","),
                LABELS: at(object, "Spec.Labels"),
            })
        };
        let rows: Vec<Value> = objects.iter().map(row).collect();
        let mut columns = vec![
            column("ID", "ID"),
            column("Name", "NAME"),
            column("Driver", "DRIVER"),
            column("CreatedAt", "CREATED"),
            column("UpdatedAt", "UPDATED"),
        ];
        if kind == Kind::Config {
            columns.remove(2);
        }
        let format = if self.format == "table" && self.quiet { "{{.ID}}" } else { &self.format };
        render_rows(format, &columns, &rows)
    }
}

fn labels(object: &Value) -> Vec<(&str, &str)> {
    let labels = at(object, "Spec.Labels").as_object();
    labels.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())).collect()
}

/// Docker's lines; it indents those of the two kinds differently.
fn pretty(kind: Kind, object: &Value) -> String {
    let time = |key: &str| match DateTime::parse_from_rfc3339(text(object, key)) {
        Ok(at) => go_time(at.to_utc()).to_lowercase(),
        Err(_) => String::new(),
    };
    let [id, name, created, updated] = match kind {
        Kind::Secret => ["ID:              ", "Name:              ", "Created at:        ", "Updated at:        "],
        Kind::Config => ["ID:\t\t\t", "Name:\t\t\t", "Created at:            \t", "Updated at:            \t"],
    };
    let mut out = format!("{id}{}\n{name}{}\n", text(object, "ID"), text(object, "Spec.Name"));
    if !labels(object).is_empty() {
        out.push_str("Labels:\n");
    }
    for (key, value) in labels(object) {
        out.push_str(&if value.is_empty() { format!(" - {key}\n") } else { format!(" - {key}={value}\n") });
    }
    if kind == Kind::Secret {
        out.push_str(&format!("Driver:            {}\n", text(object, "Spec.Driver.Name")));
    }
    out.push_str(&format!("{created}{}\n{updated}{}\n", time("CreatedAt"), time("UpdatedAt")));
    if kind == Kind::Config {
        let data = STANDARD.decode(text(object, "Spec.Data")).unwrap_or_default();
        out.push_str(&format!("Data:\n{}\n", String::from_utf8_lossy(&data)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> Value {
        json!({"ID": "iii", "CreatedAt": "2026-01-02T03:04:05.6Z", "UpdatedAt": "2026-01-02T03:04:05Z",
            "Spec": {"Name": name, "Labels": {"a": "1", "b": ""}, "Data": "aGkK"}})
    }

    #[test]
    fn both_kinds_are_listed_and_described_as_docker_does() {
        let ls = |format: &str| Ls { filter: Vec::new(), format: format.to_owned(), quiet: false };
        let objects = [object("x10"), object("x9")];
        let list = |kind, format: &str| ls(format).render(kind, &objects).unwrap();
        assert!(list(Kind::Secret, "table").starts_with("ID        NAME      DRIVER    CREATED"));
        assert!(list(Kind::Config, "table").starts_with("ID        NAME      CREATED"));
        assert_eq!(list(Kind::Secret, "{{.Name}} {{.Labels}}"), "x9 a=1,b=\nx10 a=1,b=\n");
        let expected = "ID:              iii\nName:              x\nLabels:\n - a=1\n - b\nDriver:            \n\
                        Created at:        2026-01-02 03:04:05.6 +0000 utc\nUpdated at:        2026-01-02 03:04:05 +0000 utc\n";
        assert_eq!(pretty(Kind::Secret, &object("x")), expected);
        let expected = "ID:\t\t\tiii\nName:\t\t\tx\nLabels:\n - a=1\n - b\nCreated at:            \t\
                        2026-01-02 03:04:05.6 +0000 utc\nUpdated at:            \t2026-01-02 03:04:05 +0000 utc\nData:\nhi\n\n";
        assert_eq!(pretty(Kind::Config, &object("x")), expected);
    }
}
