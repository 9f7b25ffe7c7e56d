//! `skep service ps`, and the task table that `node ps` shares.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use crate::context::Context;
use crate::json::{encode, list, number, text};
use crate::table::Table;
use crate::text::{age, capital, short_id, shortened};

/// Options of `service ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Filter output based on conditions provided.
    #[arg(short, long)]
    filter: Vec<String>,
    /// Do not truncate output.
    #[arg(long)]
    no_trunc: bool,
    /// Only display task IDs.
    #[arg(short, long)]
    quiet: bool,
    /// Services, by name or identifier.
    #[arg(required = true)]
    services: Vec<String>,
}

impl Ps {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut filter: serde_json::Map<String, Value> = Default::default();
        let mut ids: serde_json::Map<String, Value> = Default::default();
        let mut missing = Vec::new();
        for name in &self.services {
            match context.client.get::<Value>(&format!("/services/{name}")).await {
                Ok(service) => drop(ids.insert(text(&service, "ID").to_owned(), Value::Bool(true))),
                Err(error) if error.status() == Some(404) => missing.push(format!("no such service: {name}")),
                Err(error) => return Err(error.into()),
            }
        }
        if ids.is_empty() {
            bail!("{}", missing.join("\n"));
        }
        filter.insert("service".to_owned(), Value::Object(ids));
        for option in &self.filter {
            if let Some((key, value)) = option.split_once('=') {
                let mut one: serde_json::Map<String, Value> = Default::default();
                one.insert(value.to_owned(), Value::Bool(true));
                filter.insert(key.to_owned(), Value::Object(one));
            }
        }
        let path = format!("/tasks?filters={}", encode(&Value::Object(filter).to_string()));
        let tasks: Value = context.client.get(&path).await?;
        print(context, tasks.as_array().map_or(&[], Vec::as_slice), self.no_trunc, self.quiet).await?;
        if !missing.is_empty() {
            bail!("{}", missing.join("\n"));
        }
        Ok(())
    }
}

/// Prints tasks by name, the newest of each name first, older ones with ` \_ ` before theirs.
pub(crate) async fn print(context: &Context, tasks: &[Value], no_trunc: bool, quiet: bool) -> Result<()> {
    let services: Value = context.client.get("/services").await?;
    let nodes: Value = context.client.get("/nodes").await?;
    let names = by_id(&services, "Spec.Name");
    let hosts = by_id(&nodes, "Description.Hostname");
    let name = |task: &Value| {
        let service = names.get(text(task, "ServiceID")).cloned();
        let service = service.unwrap_or_else(|| text(task, "ServiceID").to_owned());
        match number(task, "Slot") {
            0 => format!("{service}.{}", text(task, "NodeID")),
            slot => format!("{service}.{slot}"),
        }
    };
    let mut sorted: Vec<(String, &Value)> = tasks.iter().map(|task| (name(task), task)).collect();
    sorted.sort_by(|(a, x), (b, y)| {
        let newest_first = || text(y, "CreatedAt").cmp(text(x, "CreatedAt"));
        (natural(a), a).cmp(&(natural(b), b)).then_with(newest_first)
    });
    let mut table = Table::new(&["ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS"]);
    let mut last = String::new();
    for (name, task) in sorted {
        let id = text(task, "ID");
        if quiet {
            println!("{}", if no_trunc { id.to_owned() } else { short_id(id) });
            continue;
        }
        let shown = if name == last { format!(" \\_ {name}") } else { name.clone() };
        last = name;
        let state = text(task, "Status.State");
        let error = text(task, "Status.Err");
        let quoted = if error.is_empty() { String::new() } else { format!("\"{error}\"") };
        let image = text(task, "Spec.ContainerSpec.Image");
        table.row([
            if no_trunc { id.to_owned() } else { short_id(id) },
            shown,
            if no_trunc { image.to_owned() } else { image.split('@').next().unwrap_or_default().to_owned() },
            hosts.get(text(task, "NodeID")).cloned().unwrap_or_default(),
            capital(text(task, "DesiredState")),
            format!("{} {} ago", capital(state), age(text(task, "Status.Timestamp")).to_lowercase()),
            if no_trunc { quoted } else { shortened(&quoted, 30) },
            ports(task),
        ]);
    }
    if !quiet {
        table.print();
    }
    Ok(())
}

fn by_id(objects: &Value, path: &str) -> BTreeMap<String, String> {
    let objects = objects.as_array().map_or(&[][..], Vec::as_slice);
    objects.iter().map(|object| (text(object, "ID").to_owned(), text(object, path).to_owned())).collect()
}

/// The service's name and the slot as a number, so that slot 10 comes after slot 9.
fn natural(name: &str) -> (String, u64) {
    let (service, slot) = name.rsplit_once('.').unwrap_or((name, ""));
    (service.to_owned(), slot.parse().unwrap_or(0))
}

fn ports(task: &Value) -> String {
    let ports = list(task, "Status.PortStatus.Ports").iter().map(|port| {
        format!("*:{}->{}/{}", number(port, "PublishedPort"), number(port, "TargetPort"), text(port, "Protocol"))
    });
    ports.collect::<Vec<_>>().join(",")
}
