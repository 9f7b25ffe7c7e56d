//! `skep image …`, `pull`, `load`, `images`.

mod history;
mod list;
mod prune;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use http::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::context::Context;
use crate::inspect::{Format, Found};
use crate::json::{at, encode, number, text};
use crate::text::size;
pub(crate) use history::History;
pub(crate) use list::List;

/// The images' commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List images.
    #[command(visible_alias = "list")]
    Ls(List),
    /// Download an image from a registry.
    Pull(crate::args::Pull),
    /// Load an image from a tar archive.
    Load(Load),
    /// Show the history of an image.
    History(History),
    /// Display detailed information on one or more images.
    Inspect(Inspect),
    /// Remove unused images.
    Prune(prune::Prune),
    /// Remove one or more images.
    Rm(Remove),
    /// Create a tag that refers to an image.
    Tag(Tag),
}

/// Options of `image load`.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Read from tar archive file, instead of standard input.
    #[arg(short, long)]
    input: Option<String>,
}

/// Options of `image inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    format: Format,
    #[arg(required = true)]
    images: Vec<String>,
}

/// Options of `image rm`.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Force removal of the image.
    #[arg(short, long)]
    force: bool,
    #[arg(required = true)]
    images: Vec<String>,
}

/// Options of `image tag`.
#[derive(Debug, Args)]
pub(crate) struct Tag {
    source: String,
    target: String,
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Ls(options) => options.run(context).await,
        Command::History(history) => history.run(context).await,
        Command::Prune(prune) => prune.run(context).await,
        Command::Pull(options) => pull(context, &options.reference).await,
        Command::Load(options) => load(context, &options).await,
        Command::Inspect(inspect) => {
            let found = Found::each(context, &inspect.images, |name| format!("/images/{name}/json")).await;
            found.print(&inspect.format)
        }
        Command::Rm(remove) => {
            for name in &remove.images {
                let force = if remove.force { "?force=1" } else { "" };
                let answer = context.client.delete(&format!("/images/{name}{force}")).await?;
                let removed: Value = serde_json::from_slice(&answer)?;
                for item in removed.as_array().map_or(&[][..], Vec::as_slice) {
                    for key in ["Untagged", "Deleted"] {
                        if !text(item, key).is_empty() {
                            println!("{key}: {}", text(item, key));
                        }
                    }
                }
            }
            Ok(())
        }
        Command::Tag(tag) => {
            let (repo, name) = split_tag(&tag.target);
            let path = format!("/images/{}/tag?repo={}&tag={}", tag.source, encode(repo), encode(name));
            context.client.post(&path, None::<&Value>).await?;
            Ok(())
        }
    }
}

/// Repository and tag; the tag is `latest` if there is none.
fn split_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

/// Pulls what a command needs: what it says of that goes to standard error.
pub(crate) async fn pull_for_command(context: &Context, reference: &str) -> Result<()> {
    fetch(context, reference, |line| eprintln!("{line}")).await
}

async fn fetch(context: &Context, reference: &str, say: fn(&str)) -> Result<()> {
    let path = if reference.contains('@') {
        format!("/images/create?fromImage={}", encode(reference))
    } else {
        let (repository, tag) = split_tag(reference);
        format!("/images/create?fromImage={}&tag={}", encode(repository), encode(tag))
    };
    let stream = context.client.stream(Method::POST, &path, Default::default(), None::<&Value>).await?;
    show_progress(stream, say).await
}

/// `image pull`.
pub(crate) async fn pull(context: &Context, reference: &str) -> Result<()> {
    let (_, tag) = split_tag(reference);
    if !reference.contains('@') && !reference.ends_with(&format!(":{tag}")) {
        println!("Using default tag: {tag}");
    }
    fetch(context, reference, |line| println!("{line}")).await
}

pub(crate) async fn load(context: &Context, options: &Load) -> Result<()> {
    let bytes = match &options.input {
        Some(file) => tokio::fs::read(file).await.with_context(|| file.clone())?,
        None => {
            use std::io::{IsTerminal, Read};
            if std::io::stdin().is_terminal() {
                bail!("requested load from stdin, but stdin is empty");
            }
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes)?;
            bytes
        }
    };
    let stream = context.client.post_bytes("/images/load?quiet=0", "application/x-tar", bytes.into()).await?;
    show_progress(stream, |line| println!("{line}")).await
}

/// Draws the daemon's progress: a line for each layer; other lines are said as they come.
async fn show_progress(mut stream: client::JsonLines, say: fn(&str)) -> Result<()> {
    let all = MultiProgress::new();
    let mut layers: BTreeMap<String, ProgressBar> = BTreeMap::new();
    while let Some(message) = stream.next::<Value>().await? {
        let error = text(&message, "errorDetail.message");
        if !error.is_empty() {
            bail!("{error}");
        }
        let (id, status) = (text(&message, "id"), text(&message, "status"));
        if id.is_empty() || status.starts_with("Pulling from") {
            let line = if id.is_empty() { status.to_owned() } else { format!("{id}: {status}") };
            let line = if line.is_empty() { text(&message, "stream").trim_end().to_owned() } else { line };
            all.suspend(|| say(&line));
            continue;
        }
        let bar = layers.entry(id.to_owned()).or_insert_with(|| {
            let style =
                ProgressStyle::with_template("{prefix}: {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = all.add(ProgressBar::new(0).with_style(style));
            bar.set_prefix(id.to_owned());
            bar
        });
        let detail = at(&message, "progressDetail");
        let (current, total) = (number(detail, "current"), number(detail, "total"));
        let progress = if total > 0 { format!("  {}/{}", size(current), size(total)) } else { String::new() };
        bar.set_message(format!("{status}{progress}"));
    }
    layers.values().for_each(ProgressBar::abandon);
    Ok(())
}
