//! `skep service inspect`, also `--pretty`.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::find;
use super::list::mode;
use crate::context::Context;
use crate::json::{at, list, number, text};
use crate::text::capital;

/// Options of `service inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Print the information in a human friendly format.
    #[arg(long)]
    pretty: bool,
    /// Services, by name or identifier.
    #[arg(required = true)]
    services: Vec<String>,
}

impl Inspect {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut found = Vec::new();
        for service in &self.services {
            found.push(find(context, service).await?);
        }
        if self.pretty {
            found.iter().for_each(|service| print!("{}", pretty(service)));
        } else {
            println!("{}", serde_json::to_string_pretty(&found)?);
        }
        Ok(())
    }
}

fn pretty(service: &Value) -> String {
    let mut out = format!("\nID:\t\t{}\nName:\t\t{}\n", text(service, "ID"), text(service, "Spec.Name"));
    if let Some(labels) = at(service, "Spec.Labels").as_object().filter(|labels| !labels.is_empty()) {
        out.push_str("Labels:\n");
        for (key, value) in labels {
            out.push_str(&format!(" {key}={}\n", value.as_str().unwrap_or_default()));
        }
    }
    out.push_str(&format!("Service Mode:\t{}\n", capital(mode(service))));
    if mode(service) == "replicated" {
        out.push_str(&format!(" Replicas:\t{}\n", number(service, "Spec.Mode.Replicated.Replicas")));
    }
    if !at(service, "UpdateStatus.State").is_null() {
        out.push_str(&format!("UpdateStatus:\n State:\t\t{}\n", text(service, "UpdateStatus.State")));
        out.push_str(&format!(" Message:\t{}\n", text(service, "UpdateStatus.Message")));
    }
    let constraints: Vec<&str> =
        list(service, "Spec.TaskTemplate.Placement.Constraints").iter().filter_map(Value::as_str).collect();
    out.push_str("Placement:\n");
    if !constraints.is_empty() {
        out.push_str(&format!(" Constraints:\t{constraints:?}\n"));
    }
    for (title, key) in [("UpdateConfig", "Spec.UpdateConfig"), ("RollbackConfig", "Spec.RollbackConfig")] {
        let config = at(service, key);
        if !config.is_null() {
            out.push_str(&format!("{title}:\n Parallelism:\t{}\n", number(config, "Parallelism")));
            out.push_str(&format!(" On failure:\t{}\n", text(config, "FailureAction")));
            out.push_str(&format!(" Monitoring Period: {}s\n", number(config, "Monitor") / 1_000_000_000));
            out.push_str(&format!(" Update order:      {}\n", text(config, "Order")));
        }
    }
    container(service, &mut out);
    out
}

fn container(service: &Value, out: &mut String) {
    let spec = at(service, "Spec.TaskTemplate.ContainerSpec");
    out.push_str(&format!("ContainerSpec:\n Image:\t\t{}\n", text(spec, "Image")));
    let words = |key: &str| list(spec, key).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    for (title, key) in [("Args", "Args"), ("Env", "Env")] {
        if !words(key).is_empty() {
            out.push_str(&format!(" {title}:\t\t{}\n", words(key)));
        }
    }
    let resources = at(service, "Spec.TaskTemplate.Resources");
    out.push_str("Resources:\n");
    for (title, key) in [("Reservations", "Reservations"), ("Limits", "Limits")] {
        let part = at(resources, key);
        if number(part, "NanoCPUs") != 0 || number(part, "MemoryBytes") != 0 {
            out.push_str(&format!(" {title}:\n"));
            if number(part, "NanoCPUs") != 0 {
                out.push_str(&format!("  CPU:\t\t{}\n", number(part, "NanoCPUs") as f64 / 1e9));
            }
            if number(part, "MemoryBytes") != 0 {
                out.push_str(&format!("  Memory:\t{}\n", crate::text::size(number(part, "MemoryBytes"))));
            }
        }
    }
    out.push_str(&format!("Endpoint Mode:\t{}\n", text(service, "Endpoint.Spec.Mode")));
    let ports = list(service, "Endpoint.Ports");
    if !ports.is_empty() {
        out.push_str("Ports:\n");
    }
    for port in ports {
        out.push_str(&format!(" PublishedPort = {}\n", number(port, "PublishedPort")));
        out.push_str(&format!(
            "  Protocol = {}\n  TargetPort = {}\n",
            text(port, "Protocol"),
            number(port, "TargetPort")
        ));
        out.push_str(&format!("  PublishMode = {}\n", text(port, "PublishMode")));
    }
}
