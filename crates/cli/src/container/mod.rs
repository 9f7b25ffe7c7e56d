//! Container commands: `ps`, `run`, `exec`, `logs` and their neighbours.

mod list;
mod logs;
mod ports;
mod run;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::Exit;
use crate::context::Context;
use crate::inspect::{Format, Found};
use crate::json::{at, encode, number, text};
pub(crate) use logs::LogOptions;

/// The containers' commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Those that stand at the top as well.
    #[command(flatten)]
    Plain(Plain),
    /// Display detailed information on one or more containers.
    Inspect(Inspect),
}

/// The commands that need not begin with `container`.
#[derive(Debug, Subcommand)]
pub(crate) enum Plain {
    /// List containers.
    #[command(visible_alias = "ls")]
    Ps(list::Ps),
    /// Create and run a new container from an image.
    Run(Box<run::Run>),
    /// Execute a command in a running container.
    Exec(run::Exec),
    /// Fetch the logs of a container.
    Logs(logs::Logs),
    /// Start one or more stopped containers.
    Start(Names),
    /// Stop one or more running containers.
    Stop(Stop),
    /// Restart one or more containers.
    Restart(Stop),
    /// Kill one or more running containers.
    Kill(Kill),
    /// Block until one or more containers stop, then print their exit codes.
    Wait(Names),
    /// Remove one or more containers.
    Rm(Rm),
}

/// Options of `container inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    format: Format,
    /// Display total file sizes.
    #[arg(short, long)]
    size: bool,
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Containers by name or identifier.
#[derive(Debug, Args)]
pub(crate) struct Names {
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Options of `stop` and `restart`.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds to wait before killing the container.
    #[arg(short, long, visible_alias = "timeout")]
    time: Option<i64>,
    /// Signal to send to the container.
    #[arg(short, long)]
    signal: Option<String>,
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Options of `kill`.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal to send to the container.
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Options of `rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Force the removal of a running container (uses SIGKILL).
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes associated with the container.
    #[arg(short, long)]
    volumes: bool,
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Plain(command) => run_plain(context, command).await,
        Command::Inspect(inspect) => {
            let size = if inspect.size { "?size=1" } else { "" };
            let found = Found::each(context, &inspect.containers, |name| format!("/containers/{name}/json{size}"));
            found.await.print(&inspect.format)
        }
    }
}

pub(crate) async fn run_plain(context: &Context, command: Plain) -> Result<()> {
    match command {
        Plain::Ps(ps) => ps.run(context).await,
        Plain::Run(run) => run.run(context).await,
        Plain::Exec(exec) => exec.run(context).await,
        Plain::Logs(logs) => logs.run(context).await,
        Plain::Start(names) => start(context, &names.containers).await,
        Plain::Stop(stop) => stopping(context, &stop, "stop").await,
        Plain::Restart(stop) => stopping(context, &stop, "restart").await,
        Plain::Kill(kill) => {
            let signal = encode(&kill.signal);
            each(context, &kill.containers, |name| format!("/containers/{name}/kill?signal={signal}")).await
        }
        Plain::Wait(names) => {
            for name in &names.containers {
                let answer = context.client.post(&format!("/containers/{name}/wait"), None::<&Value>).await?;
                let answer: Value = serde_json::from_slice(&answer)?;
                println!("{}", number(&answer, "StatusCode"));
            }
            Ok(())
        }
        Plain::Rm(rm) => remove(context, rm).await,
    }
}

/// Docker says at the end once more which could not be started.
async fn start(context: &Context, names: &[String]) -> Result<()> {
    let mut failed = Vec::new();
    for name in names {
        match context.client.post(&format!("/containers/{name}/start"), None::<&Value>).await {
            Ok(_) => println!("{name}"),
            Err(error) => {
                eprintln!("{error}");
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("Error: failed to start containers: {}", failed.join(", ")) }
}

async fn each(context: &Context, names: &[String], path: impl Fn(&str) -> String) -> Result<()> {
    let mut failed = false;
    for name in names {
        match context.client.post(&path(name), None::<&Value>).await {
            Ok(_) => println!("{name}"),
            Err(error) => {
                eprintln!("{error}");
                failed = true;
            }
        }
    }
    if failed { Err(Exit(1).into()) } else { Ok(()) }
}

async fn stopping(context: &Context, stop: &Stop, verb: &str) -> Result<()> {
    let mut query = Vec::new();
    query.extend(stop.time.map(|seconds| format!("t={seconds}")));
    query.extend(stop.signal.as_ref().map(|signal| format!("signal={}", encode(signal))));
    let query = query.join("&");
    each(context, &stop.containers, |name| format!("/containers/{name}/{verb}?{query}")).await
}

async fn remove(context: &Context, rm: Rm) -> Result<()> {
    let mut failed = false;
    for name in &rm.containers {
        let path = format!("/containers/{name}?force={}&v={}", u8::from(rm.force), u8::from(rm.volumes));
        match context.client.delete(&path).await {
            Ok(_) => println!("{name}"),
            Err(error) => {
                eprintln!("{error}");
                // Whoever forces it wants it gone, and it is.
                failed |= !(rm.force && error.status() == Some(404));
            }
        }
    }
    if failed { Err(Exit(1).into()) } else { Ok(()) }
}

/// `type=volume,source=data,target=/data,readonly` as the API's mount.
pub(crate) fn mount(option: &str) -> Result<Value> {
    let mut mount = json!({"Type": "volume"});
    for field in option.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        match key.to_lowercase().as_str() {
            "type" => mount["Type"] = json!(value.to_lowercase()),
            "source" | "src" => mount["Source"] = json!(value),
            "target" | "dst" | "destination" => mount["Target"] = json!(value),
            "readonly" | "ro" => mount["ReadOnly"] = json!(value != "false" && value != "0"),
            "bind-propagation" => mount["BindOptions"]["Propagation"] = json!(value),
            "volume-nocopy" => mount["VolumeOptions"]["NoCopy"] = json!(value != "false"),
            "tmpfs-size" => {
                let bytes = crate::text::parse_bytes(value).map_err(anyhow::Error::msg)?;
                mount["TmpfsOptions"]["SizeBytes"] = json!(bytes);
            }
            "tmpfs-mode" => mount["TmpfsOptions"]["Mode"] = json!(u32::from_str_radix(value, 8)?),
            _ => bail!("unexpected key '{key}' in '{field}'"),
        }
    }
    if at(&mount, "Target").is_null() {
        bail!("target is required");
    }
    if text(&mount, "Type") == "bind" && at(&mount, "Source").is_null() {
        bail!("source is required when specifying a bind mount");
    }
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::mount;
    use serde_json::json;

    #[test]
    fn mounts_are_read() {
        let found = mount("type=bind,src=/a,dst=/b,readonly").unwrap();
        assert_eq!(found, json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true}));
        assert!(mount("type=bind,dst=/b").is_err());
        assert!(mount("nope=1").is_err());
    }
}
