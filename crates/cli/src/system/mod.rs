//! `skep info`, `skep version`, `skep events`.

mod info;
mod swarm;
mod version;

pub(crate) use info::info;
pub(crate) use version::version;

use anyhow::Result;
use clap::Args;
use http::Method;
use serde_json::Value;

use crate::context::Context;
use crate::json::{at, encode, filters, number, text};
use crate::text::timestamp;

/// Options of `skep info` and `skep version`.
#[derive(Debug, Args)]
pub(crate) struct Shown {
    /// Format output using a template: json or TEMPLATE.
    #[arg(short, long)]
    format: Option<String>,
}

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

pub(crate) async fn events(context: &Context, events: &Events) -> Result<()> {
    let mut path = format!("/events?filters={}", filters(&events.filter)?);
    for (key, value) in [("since", &events.since), ("until", &events.until)] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", encode(&timestamp(value))));
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
