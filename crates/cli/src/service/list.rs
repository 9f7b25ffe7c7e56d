//! `skep service ls`.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::ports;
use crate::context::Context;
use crate::json::{at, filters, list, number, text};
use crate::table::Table;
use crate::text::short_id;

/// Options of `service ls`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Filter output based on conditions provided.
    #[arg(short, long)]
    filter: Vec<String>,
    /// Only display IDs.
    #[arg(short, long)]
    quiet: bool,
}

impl List {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let filters = filters(&self.filter)?;
        let services: Value = context.client.get(&format!("/services?status=true&filters={filters}")).await?;
        let mut services = services.as_array().cloned().unwrap_or_default();
        services.sort_by(|a, b| text(a, "Spec.Name").cmp(text(b, "Spec.Name")));
        if self.quiet {
            services.iter().for_each(|service| println!("{}", short_id(text(service, "ID"))));
            return Ok(());
        }
        let mut table = Table::new(&["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]);
        for service in &services {
            let image = text(service, "Spec.TaskTemplate.ContainerSpec.Image");
            table.row([
                short_id(text(service, "ID")),
                text(service, "Spec.Name").to_owned(),
                mode(service).to_owned(),
                replicas(service),
                image.split('@').next().unwrap_or_default().to_owned(),
                ports::column(list(service, "Endpoint.Ports")),
            ]);
        }
        table.print();
        Ok(())
    }
}

/// The mode's word.
pub(crate) fn mode(service: &Value) -> &'static str {
    let modes = [
        ("Replicated", "replicated"),
        ("Global", "global"),
        ("ReplicatedJob", "replicated job"),
        ("GlobalJob", "global job"),
    ];
    let is = |(key, _): &&(&str, &str)| at(service, "Spec.Mode").get(key).is_some();
    modes.iter().find(is).map_or("", |(_, word)| word)
}

fn replicas(service: &Value) -> String {
    let status = at(service, "ServiceStatus");
    let mut out = format!("{}/{}", number(status, "RunningTasks"), number(status, "DesiredTasks"));
    let completed = number(status, "CompletedTasks");
    match mode(service) {
        "replicated job" => {
            let total = number(service, "Spec.Mode.ReplicatedJob.TotalCompletions");
            out.push_str(&format!(" ({completed}/{total} completed)"));
        }
        "global job" => {
            out.push_str(&format!(" ({completed}/{} completed)", number(status, "DesiredTasks") + completed));
        }
        _ => {}
    }
    let max = number(service, "Spec.TaskTemplate.Placement.MaxReplicas");
    if max > 0 {
        out.push_str(&format!(" (max {max} per node)"));
    }
    out
}
