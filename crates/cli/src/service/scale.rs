//! `skep service scale`.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::options::set;
use super::update::send;
use super::{Wait, find};
use crate::context::Context;
use crate::json::{at, text};

/// Options of `service scale`.
#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// SERVICE=REPLICAS.
    #[arg(required = true)]
    services: Vec<String>,
    #[command(flatten)]
    wait: Wait,
}

impl Scale {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut scaled = Vec::new();
        for option in &self.services {
            let Some((name, count)) = option.split_once('=') else {
                bail!("invalid scale specifier {option:?}: give SERVICE=REPLICAS");
            };
            let count: u64 = count.parse().map_err(|_| anyhow::anyhow!("invalid replicas value {count}"))?;
            let service = find(context, name).await?;
            let mut spec: Value = service.get("Spec").cloned().unwrap_or_default();
            if !at(&spec, "Mode.Replicated").is_null() {
                set(&mut spec, "Mode.Replicated.Replicas", count);
            } else if !at(&spec, "Mode.ReplicatedJob").is_null() {
                set(&mut spec, "Mode.ReplicatedJob.TotalCompletions", count);
            } else {
                bail!("{name}: scale can only be used with replicated or replicated-job mode");
            }
            let at_once = Wait { detach: Some(true), quiet: true };
            let id = text(&service, "ID").to_owned();
            send(context, &service, &spec, "", &format!("{name} scaled to {count}"), at_once).await?;
            scaled.push(id);
        }
        for id in scaled {
            self.wait.service(context, &id).await?;
        }
        Ok(())
    }
}
