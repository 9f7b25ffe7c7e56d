//! `skep service ps`, and the task table that `node ps` shares.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::json::{filters_with, list, number, text};
use crate::node::with_self;
use crate::template::{Column, column, render_rows};
use crate::text::{age, capital, natural_order, short_id, shortened};

/// What can be shown of a task.
const COLUMNS: [Column; 8] = [
    column("ID", "ID"),
    column("Name", "NAME"),
    column("Image", "IMAGE"),
    column("Node", "NODE"),
    column("DesiredState", "DESIRED STATE"),
    column("CurrentState", "CURRENT STATE"),
    column("Error", "ERROR"),
    column("Ports", "PORTS"),
];

/// Options of `service ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Filter output based on conditions provided.
    #[arg(short, long)]
    filter: Vec<String>,
    #[command(flatten)]
    shown: Shown,
    /// Services, by name or identifier.
    #[arg(required = true)]
    services: Vec<String>,
}

impl Ps {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut ids = Vec::new();
        let mut missing = Vec::new();
        for name in &self.services {
            match context.client.get::<Value>(&format!("/services/{name}")).await {
                Ok(service) => ids.push(text(&service, "ID").to_owned()),
                Err(error) if error.status() == Some(404) => missing.push(format!("no such service: {name}")),
                Err(error) => return Err(error.into()),
            }
        }
        if ids.is_empty() {
            bail!("{}", missing.join("\n"));
        }
        let path =
            format!("/tasks?filters={}", filters_with(&with_self(context, &self.filter).await?, "service", &ids)?);
        let tasks: Value = context.client.get(&path).await?;
        self.shown.print(context, tasks.as_array().map_or(&[], Vec::as_slice), Ids::Whole).await?;
        if !missing.is_empty() {
            bail!("{}", missing.join("\n"));
        }
        Ok(())
    }
}

/// How `--quiet` shows identifiers: docker's `service ps` has them whole, its `node ps` cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    Whole,
    Cut,
}

/// How tasks are shown; `service ps` and `node ps` share it.
#[derive(Debug, Args)]
pub(crate) struct Shown {
    /// Format output using a template: table, table TEMPLATE, json or TEMPLATE.
    #[arg(long)]
    format: Option<String>,
    /// Do not map IDs to names.
    #[arg(long)]
    no_resolve: bool,
    /// Do not truncate output.
    #[arg(long)]
    no_trunc: bool,
    /// Only display task IDs.
    #[arg(short, long)]
    quiet: bool,
}

impl Shown {
    /// Prints tasks by name, the newest of each name first, in tables older ones with ` \_ ` before theirs.
    pub(crate) async fn print(&self, context: &Context, tasks: &[Value], quiet: Ids) -> Result<()> {
        let mut names = Names::default();
        if !self.no_resolve {
            let services: Value = context.client.get("/services").await?;
            let nodes: Value = context.client.get("/nodes").await?;
            names = Names::of(&services, &nodes);
        }
        print!("{}", self.render(tasks, &names, quiet)?);
        Ok(())
    }

    fn render(&self, tasks: &[Value], names: &Names, quiet: Ids) -> Result<String> {
        let mut sorted: Vec<(String, &Value)> = tasks.iter().map(|task| (names.task(task), task)).collect();
        sorted
            .sort_by(|(a, x), (b, y)| natural_order(a, b).then_with(|| text(y, "CreatedAt").cmp(text(x, "CreatedAt"))));
        let format = match &self.format {
            None if self.quiet => "{{.ID}}",
            None => "table",
            Some(format) if format == "table" && self.quiet => "{{.ID}}",
            Some(format) => format,
        };
        let is_table = format.starts_with("table");
        let mut last = String::new();
        let mut rows = Vec::new();
        for (name, task) in sorted {
            let shown = if is_table && name == last { format!(" \\_ {name}") } else { name.clone() };
            last = name;
            rows.push(self.row(task, &shown, names, quiet));
        }
        render_rows(format, &COLUMNS, &rows)
    }

    fn row(&self, task: &Value, name: &str, names: &Names, quiet: Ids) -> Value {
        let (id, image) = (text(task, "ID"), text(task, "Spec.ContainerSpec.Image"));
        let error = text(task, "Status.Err");
        let error = if self.no_trunc { error.to_owned() } else { shortened(error, 30) };
        json!({
            "ID": if self.no_trunc || (self.quiet && quiet == Ids::Whole) { id.to_owned() } else { short_id(id) },
            "Name": name,
            "Image": if self.no_trunc { image } else { image.split('@').next().unwrap_or_default() },
            "Node": names.node(text(task, "NodeID")),
            "DesiredState": capital(text(task, "DesiredState")),
            "CurrentState": format!(
                "{} {} ago",
                capital(text(task, "Status.State")),
                age(text(task, "Status.Timestamp")).to_lowercase()
            ),
            "Error": if error.is_empty() { error } else { format!("\"{error}\"") },
            "Ports": ports(task),
        })
    }
}

/// What identifiers stand for; without an entry they stand for themselves.
#[derive(Debug, Default)]
struct Names {
    services: BTreeMap<String, String>,
    nodes: BTreeMap<String, String>,
}

impl Names {
    fn of(services: &Value, nodes: &Value) -> Self {
        let named = |objects: &Value, paths: &[&str]| {
            let name = |object: &Value| {
                let found = paths.iter().map(|path| text(object, path)).find(|name| !name.is_empty());
                Some((text(object, "ID").to_owned(), found?.to_owned()))
            };
            objects.as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(name).collect()
        };
        Self { services: named(services, &["Spec.Name"]), nodes: named(nodes, &["Spec.Name", "Description.Hostname"]) }
    }

    fn node(&self, id: &str) -> String {
        self.nodes.get(id).map_or(id, String::as_str).to_owned()
    }

    fn task(&self, task: &Value) -> String {
        let id = text(task, "ServiceID");
        let service = self.services.get(id).map_or(id, String::as_str);
        match number(task, "Slot") {
            0 => format!("{service}.{}", text(task, "NodeID")),
            slot => format!("{service}.{slot}"),
        }
    }
}

fn ports(task: &Value) -> String {
    let ports = list(task, "Status.PortStatus.Ports").iter().map(|port| {
        format!("*:{}->{}/{}", number(port, "PublishedPort"), number(port, "TargetPort"), text(port, "Protocol"))
    });
    ports.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, slot: i64, node: &str, created: &str, state: &str, error: &str) -> Value {
        json!({"ID": id.repeat(25), "CreatedAt": created, "ServiceID": "s1", "Slot": slot, "NodeID": node,
            "DesiredState": if error.is_empty() { "running" } else { "shutdown" },
            "Spec": {"ContainerSpec": {"Image": "nginx:1@sha256:aa"}},
            "Status": {"Timestamp": "2020-01-02T03:04:05Z", "State": state, "Err": error, "PortStatus": {"Ports":
                if slot == 2 { json!([{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080}]) } else { json!([]) }}}})
    }

    fn shown(format: Option<&str>) -> Shown {
        Shown { format: format.map(str::to_owned), no_resolve: false, no_trunc: false, quiet: false }
    }

    #[test]
    fn tasks_are_listed_as_docker_lists_them() {
        let tasks = [
            task("b", 10, "w", "2026-01-02T00:00:01Z", "failed", "task: non-zero exit (137): and a very long text"),
            task("d", 0, "n", "2026-01-02T00:00:02Z", "running", ""),
            task("a", 2, "m", "2026-01-02T00:00:00Z", "running", ""),
            task("c", 10, "m", "2026-01-02T00:00:02Z", "running", ""),
        ];
        let names = Names::of(
            &json!([{"ID": "s1", "Spec": {"Name": "web"}}]),
            &json!([{"ID": "m", "Description": {"Hostname": "web2"}},
                {"ID": "n", "Spec": {"Name": "named"}, "Description": {"Hostname": "web1"}}]),
        );
        let render = |shown: &Shown, names: &Names| shown.render(&tasks, names, Ids::Cut).unwrap();
        // Widths follow the ages.
        let cells =
            |line: &str| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("|");
        let table: Vec<String> = render(&shown(None), &names).lines().map(cells).collect();
        let age = age("2020-01-02T03:04:05Z");
        let expected = [
            "ID|NAME|IMAGE|NODE|DESIRED STATE|CURRENT STATE|ERROR|PORTS".to_owned(),
            format!("aaaaaaaaaaaa|web.2|nginx:1|web2|Running|Running {age} ago|*:8080->80/tcp"),
            format!("cccccccccccc|web.10|nginx:1|web2|Running|Running {age} ago"),
            format!("bbbbbbbbbbbb|\\_ web.10|nginx:1|w|Shutdown|Failed {age} ago|\"task: non-zero exit (137): an…\""),
            format!("dddddddddddd|web.n|nginx:1|named|Running|Running {age} ago"),
        ];
        assert_eq!(table, expected);
        assert!(render(&shown(None), &names).contains("\nbbbbbbbbbbbb    \\_ web.10   nginx:1 "));
        let lines = "web.2 web2\nweb.10 web2\nweb.10 w\nweb.n named\n";
        assert_eq!(render(&shown(Some("{{.Name}} {{.Node}}")), &names), lines);
        let bare = "s1.2 m\ns1.10 m\ns1.10 w\ns1.n n\n";
        assert_eq!(render(&shown(Some("{{.Name}} {{.Node}}")), &Names::default()), bare);
        let quiet = Shown { quiet: true, no_trunc: true, ..shown(None) };
        assert!(render(&quiet, &names).starts_with(&format!("{}\n{}\n", "a".repeat(25), "c".repeat(25))));
    }
}
