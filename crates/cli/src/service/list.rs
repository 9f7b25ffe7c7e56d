//! `skep service ls`.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::ports;
use crate::context::Context;
use crate::json::{at, filters, list, number, text};
use crate::template::{Column, LABELS, column, render_rows};
use crate::text::{natural_order, short_id};

/// What can be shown of a service.
const COLUMNS: [Column; 6] = [
    column("ID", "ID"),
    column("Name", "NAME"),
    column("Mode", "MODE"),
    column("Replicas", "REPLICAS"),
    column("Image", "IMAGE"),
    column("Ports", "PORTS"),
];

/// Options of `service ls`.
#[derive(Debug, Args)]
pub(crate) struct List {
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

impl List {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let filters = filters(&self.filter)?;
        let services: Value = context.client.get(&format!("/services?status=true&filters={filters}")).await?;
        print!("{}", self.render(services.as_array().map_or(&[], Vec::as_slice))?);
        Ok(())
    }

    fn render(&self, services: &[Value]) -> Result<String> {
        let mut services: Vec<&Value> = services.iter().collect();
        services.sort_by(|a, b| natural_order(text(a, "Spec.Name"), text(b, "Spec.Name")));
        let rows: Vec<Value> = services.into_iter().map(row).collect();
        let format = if self.format == "table" && self.quiet { "{{.ID}}" } else { &self.format };
        render_rows(format, &COLUMNS, &rows)
    }
}

fn row(service: &Value) -> Value {
    let image = text(service, "Spec.TaskTemplate.ContainerSpec.Image");
    let labels = at(service, "Spec.Labels").as_object().cloned().unwrap_or_default();
    json!({
        "ID": short_id(text(service, "ID")),
        "Name": text(service, "Spec.Name"),
        "Mode": mode(service),
        "Replicas": replicas(service),
        "Image": image.split('@').next().unwrap_or_default(),
        "Ports": ports::column(list(service, "Endpoint.Ports")),
        LABELS: labels,
    })
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
        "replicated" => {
            let max = number(service, "Spec.TaskTemplate.Placement.MaxReplicas");
            if max > 0 {
                out.push_str(&format!(" (max {max} per node)"));
            }
        }
        _ => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_listed_by_name_in_any_format() {
        let service = |name: &str, id: &str| {
            json!({"ID": id, "Spec": {"Name": name, "Labels": {"a": "b"}, "Mode": {"Global": {}},
                "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1@sha256:aa"}}},
                "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 2}})
        };
        let services = [service("web10", "www"), service("web2", "xxx")];
        let check = |format: &str, quiet, expected: &str| {
            let list = List { filter: Vec::new(), format: format.to_owned(), quiet };
            assert_eq!(list.render(&services).unwrap(), expected, "{format}");
        };
        check("{{.Name}} {{.Replicas}} {{.Label \"a\"}}", false, "web2 1/2 b\nweb10 1/2 b\n");
        check("table", true, "xxx\nwww\n");
        let table = "ID        NAME      MODE      REPLICAS   IMAGE     PORTS\nxxx       web2      global    1/2        nginx:1   \n\
                     www       web10     global    1/2        nginx:1   \n";
        check("table", false, table);
    }
}
