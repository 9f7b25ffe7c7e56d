//! `skep logs`.

use anyhow::Result;
use clap::Args;
use http::Method;
use serde_json::Value;

use crate::context::Context;
use crate::json::{at, encode};
use crate::stdio::Demux;
use crate::text::timestamp;

/// Which part of a log.
#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// Follow log output.
    #[arg(short, long)]
    follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes).
    #[arg(long)]
    since: Option<String>,
    /// Number of lines to show from the end of the logs.
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Show timestamps.
    #[arg(short, long)]
    timestamps: bool,
}

impl LogOptions {
    /// The API's parameters.
    pub(crate) fn query(&self) -> String {
        let mut query = format!(
            "stdout=1&stderr=1&follow={}&timestamps={}&tail={}",
            u8::from(self.follow),
            u8::from(self.timestamps),
            encode(&self.tail)
        );
        if let Some(since) = &self.since {
            query.push_str(&format!("&since={}", encode(&timestamp(since))));
        }
        query
    }
}

/// Options of `logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    options: LogOptions,
    container: String,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let container: Value = context.client.get(&format!("/containers/{}/json", self.container)).await?;
        let tty = at(&container, "Config.Tty").as_bool().unwrap_or(false);
        let path = format!("/containers/{}/logs?{}", self.container, self.options.query());
        let mut stream = context.client.stream(Method::GET, &path, Default::default(), None::<&Value>).await?;
        let mut demux = Demux::new(!tty);
        while let Some(bytes) = stream.next_bytes().await? {
            demux.feed(&bytes, |stream, line| stream.print(line));
        }
        Ok(())
    }
}
