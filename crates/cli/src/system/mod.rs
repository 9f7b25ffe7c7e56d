//! `skep info`, `skep version`, `skep events`.

mod swarm;

use anyhow::Result;
use clap::Args;
use http::Method;
use serde_json::Value;

use crate::context::Context;
use crate::json::{at, encode, filters, list, number, text};

/// Options of `skep events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Filter output based on conditions provided.
    #[arg(short, long)]
    filter: Vec<String>,
    /// Show all events created since timestamp.
    #[arg(long)]
    since: Option<String>,
    /// Stream events until this timestamp.
    #[arg(long)]
    until: Option<String>,
}

pub(crate) async fn version(context: &Context) -> Result<()> {
    let version: Value = context.client.get("/version").await?;
    println!("Client: Skep {}\n", env!("CARGO_PKG_VERSION"));
    println!("Server: {}", text(&version, "Platform.Name"));
    println!(" Version:          {}", text(&version, "Version"));
    println!(
        " API version:      {} (minimum version {})",
        text(&version, "ApiVersion"),
        text(&version, "MinAPIVersion")
    );
    println!(" OS/Arch:          {}/{}", text(&version, "Os"), text(&version, "Arch"));
    println!(" Kernel:           {}", text(&version, "KernelVersion"));
    Ok(())
}

pub(crate) async fn info(context: &Context) -> Result<()> {
    let info: Value = context.client.get("/info").await?;
    println!("Server:");
    println!(" Containers: {}", number(&info, "Containers"));
    println!("  Running: {}", number(&info, "ContainersRunning"));
    println!("  Paused: {}", number(&info, "ContainersPaused"));
    println!("  Stopped: {}", number(&info, "ContainersStopped"));
    println!(" Images: {}", number(&info, "Images"));
    println!(" Server Version: {}", text(&info, "ServerVersion"));
    println!(" Storage Driver: {}", text(&info, "Driver"));
    println!(" Cgroup Driver: {}", text(&info, "CgroupDriver"));
    println!(" Cgroup Version: {}", text(&info, "CgroupVersion"));
    let swarm = at(&info, "Swarm");
    println!(" Swarm: {}", text(swarm, "LocalNodeState"));
    print!("{}", swarm::describe(swarm));
    println!(" Kernel Version: {}", text(&info, "KernelVersion"));
    println!(" Operating System: {}", text(&info, "OperatingSystem"));
    println!(" Architecture: {}", text(&info, "Architecture"));
    println!(" CPUs: {}", number(&info, "NCPU"));
    println!(" Total Memory: {}", crate::text::binary_size(number(&info, "MemTotal")));
    println!(" Name: {}", text(&info, "Name"));
    println!(" Root Dir: {}", text(&info, "DockerRootDir"));
    for warning in list(&info, "Warnings") {
        eprintln!("{}", warning.as_str().unwrap_or_default());
    }
    Ok(())
}

pub(crate) async fn events(context: &Context, events: &Events) -> Result<()> {
    let mut path = format!("/events?filters={}", filters(&events.filter)?);
    for (key, value) in [("since", &events.since), ("until", &events.until)] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", encode(value)));
        }
    }
    let mut stream = context.client.stream(Method::GET, &path, Default::default(), None::<&Value>).await?;
    while let Some(event) = stream.next::<Value>().await? {
        let attributes = at(&event, "Actor.Attributes").as_object().cloned().unwrap_or_default();
        let attributes = attributes.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
        let at = chrono::DateTime::from_timestamp_nanos(number(&event, "timeNano"));
        println!(
            "{} {} {} {} ({})",
            at.format("%Y-%m-%dT%H:%M:%S%.9fZ"),
            text(&event, "Type"),
            text(&event, "Action"),
            text(&event, "Actor.ID"),
            attributes.collect::<Vec<_>>().join(", ")
        );
    }
    Ok(())
}
