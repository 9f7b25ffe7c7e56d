//! `skep node …`.

mod inspect;
mod list;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::Context;
use crate::json::{change_labels, encode, filters_with, number, text};
use crate::service::{Ids, ShownTasks};

/// The nodes' commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List nodes in the swarm.
    #[command(visible_alias = "list")]
    Ls(list::Ls),
    /// List tasks running on one or more nodes, defaults to current node.
    Ps(Ps),
    /// Display detailed information on one or more nodes.
    Inspect(inspect::Inspect),
    /// Update a node.
    Update(Update),
    /// Promote one or more nodes to manager in the swarm.
    Promote(Names),
    /// Demote one or more nodes from manager in the swarm.
    Demote(Names),
    /// Remove one or more nodes from the swarm.
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// Options of `node ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Filter output based on conditions provided.
    #[arg(short, long)]
    filter: Vec<String>,
    #[command(flatten)]
    shown: ShownTasks,
    /// Nodes by name or identifier; `self` for the one that answers.
    #[arg(default_value = "self", hide_default_value = true)]
    nodes: Vec<String>,
}

/// Nodes by name or identifier.
#[derive(Debug, Args)]
pub(crate) struct Names {
    #[arg(required = true)]
    nodes: Vec<String>,
}

/// Options of `node rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Force remove a node from the swarm.
    #[arg(short, long)]
    force: bool,
    #[arg(required = true)]
    nodes: Vec<String>,
}

/// Options of `node update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Availability of the node (active, pause, drain).
    #[arg(long)]
    availability: Option<String>,
    /// Role of the node (worker, manager).
    #[arg(long)]
    role: Option<String>,
    /// Add or update a node label (key=value).
    #[arg(long)]
    label_add: Vec<String>,
    /// Remove a node label if exists.
    #[arg(long)]
    label_rm: Vec<String>,
    node: String,
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Ls(ls) => ls.run(context).await,
        Command::Ps(options) => ps(context, options).await,
        Command::Inspect(inspect) => inspect.run(context).await,
        Command::Update(update) => change(context, update).await,
        Command::Promote(names) => set_role(context, names, "manager").await,
        Command::Demote(names) => set_role(context, names, "worker").await,
        Command::Rm(rm) => remove(context, rm).await,
    }
}

/// What stands for this node in `self`.
async fn self_id(context: &Context) -> Result<String> {
    let info: Value = context.client.get("/info").await?;
    let id = text(&info, "Swarm.NodeID");
    if id.is_empty() {
        // Outside a swarm the refusal of anything that only managers answer says more.
        let _: Value = context.client.get("/nodes").await?;
        bail!("node ID not found in /info");
    }
    Ok(id.to_owned())
}

/// Filters with this node's identifier where they say `node=self`.
pub(crate) async fn with_self(context: &Context, filters: &[String]) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for filter in filters {
        let is_self = filter.split_once('=').is_some_and(|(key, value)| (key.trim(), value.trim()) == ("node", "self"));
        out.push(if is_self { format!("node={}", self_id(context).await?) } else { filter.clone() });
    }
    Ok(out)
}

/// Where a node is found; `self` is the one that answers.
async fn path_of(context: &Context, name: &str) -> Result<String> {
    let name = if name == "self" { self_id(context).await? } else { name.to_owned() };
    Ok(format!("/nodes/{}", encode(&name)))
}

async fn find(context: &Context, name: &str) -> Result<Value> {
    Ok(context.client.get(&path_of(context, name).await?).await?)
}

/// What went wrong with some of the nodes ends the command, after the others.
fn all_or(failed: &[String]) -> Result<()> {
    if failed.is_empty() { Ok(()) } else { bail!(failed.join("\n")) }
}

async fn ps(context: &Context, options: Ps) -> Result<()> {
    let (mut tasks, mut failed) = (Vec::new(), Vec::new());
    for name in &options.nodes {
        let node = match find(context, name).await {
            Ok(node) => node,
            Err(error) => {
                failed.push(error.to_string());
                continue;
            }
        };
        let filters = filters_with(&options.filter, "node", &[text(&node, "ID").to_owned()])?;
        let found: Value = context.client.get(&format!("/tasks?filters={filters}")).await?;
        tasks.extend(found.as_array().cloned().unwrap_or_default());
    }
    if failed.is_empty() || !tasks.is_empty() {
        options.shown.print(context, &tasks, Ids::Cut).await?;
    }
    all_or(&failed)
}

async fn change(context: &Context, update: Update) -> Result<()> {
    let node = find(context, &update.node).await?;
    let mut spec = node.get("Spec").cloned().unwrap_or_default();
    if let Some(availability) = &update.availability {
        spec["Availability"] = json!(availability);
    }
    if let Some(role) = &update.role {
        spec["Role"] = json!(role);
    }
    change_labels(&mut spec, &update.label_add, &update.label_rm, "node")?;
    send(context, &node, &spec).await?;
    println!("{}", update.node);
    Ok(())
}

async fn send(context: &Context, node: &Value, spec: &Value) -> Result<()> {
    let path = format!("/nodes/{}/update?version={}", encode(text(node, "ID")), number(node, "Version.Index"));
    context.client.post(&path, Some(spec)).await?;
    Ok(())
}

async fn set_role(context: &Context, names: Names, role: &str) -> Result<()> {
    for name in &names.nodes {
        let node = find(context, name).await?;
        let mut spec = node.get("Spec").cloned().unwrap_or_default();
        if text(&spec, "Role") == role {
            println!("Node {} is already a {role}.", text(&node, "ID"));
            continue;
        }
        spec["Role"] = json!(role);
        send(context, &node, &spec).await?;
        if role == "manager" {
            println!("Node {name} promoted to a manager in the swarm.");
        } else {
            println!("Manager {name} demoted in the swarm.");
        }
    }
    Ok(())
}

async fn remove(context: &Context, rm: Rm) -> Result<()> {
    let mut failed = Vec::new();
    for name in &rm.nodes {
        let force = if rm.force { "?force=1" } else { "" };
        match context.client.delete(&format!("/nodes/{}{force}", encode(name))).await {
            Ok(_) => println!("{name}"),
            Err(error) => failed.push(error.to_string()),
        }
    }
    all_or(&failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    fn node(id: &str, role: &str) -> Value {
        json!({"ID": id, "Version": {"Index": 7}, "Spec": {"Labels": {"rack": "r1"}, "Role": role, "Availability": "active"}})
    }

    async fn fake() -> FakeDaemon {
        let daemon = FakeDaemon::start().await;
        daemon.answer("GET /info", 200, json!({"Swarm": {"NodeID": "mmm"}}));
        daemon.answer("GET /nodes/mmm", 200, node("mmm", "manager"));
        daemon.answer("GET /nodes/www", 200, node("www", "worker"));
        daemon.answer("POST /nodes/", 200, Value::Null);
        daemon.answer("DELETE /nodes/mmm", 400, json!({"message": "node mmm is a cluster manager"}));
        daemon.answer("DELETE /nodes/www", 200, Value::Null);
        daemon.answer("GET /tasks", 200, json!([]));
        daemon.answer("GET /services", 200, json!([]));
        daemon.answer("GET /nodes", 200, json!([]));
        daemon.answer("GET /nodes/nobody", 404, json!({"message": "node nobody not found"}));
        daemon
    }

    async fn check(words: &[&str], expected: Result<(), &str>, requests: &[&str]) {
        let daemon = fake().await;
        let result = daemon.run(words).await.map_err(|error| error.to_string());
        assert_eq!(result, expected.map_err(str::to_owned), "{words:?}");
        assert_eq!(daemon.requests(|request| !request.starts_with("GET /nodes/")), requests, "{words:?}");
    }

    #[tokio::test]
    async fn nodes_are_changed_by_their_spec() {
        let missing = "Error response from daemon: node nobody not found";
        check(
            &["node", "promote", "www", "mmm"],
            Ok(()),
            &[r#"POST /nodes/www/update?version=7 {"Availability":"active","Labels":{"rack":"r1"},"Role":"manager"}"#],
        )
        .await;
        check(
            &["node", "demote", "mmm", "www"],
            Ok(()),
            &[r#"POST /nodes/mmm/update?version=7 {"Availability":"active","Labels":{"rack":"r1"},"Role":"worker"}"#],
        )
        .await;
        check(
            &["node", "update", "--label-add", "a=b", "--label-rm", "rack", "--availability", "drain", "www"],
            Ok(()),
            &[r#"POST /nodes/www/update?version=7 {"Availability":"drain","Labels":{"a":"b"},"Role":"worker"}"#],
        )
        .await;
        let unknown = "key none doesn't exist in node's labels";
        check(&["node", "update", "--label-rm", "none", "www"], Err(unknown), &[]).await;
        check(&["node", "promote", "nobody"], Err(missing), &[]).await;
    }

    #[tokio::test]
    async fn what_fails_for_one_node_does_not_keep_the_others() {
        check(
            &["node", "rm", "mmm", "www"],
            Err("Error response from daemon: node mmm is a cluster manager"),
            &["DELETE /nodes/mmm", "DELETE /nodes/www"],
        )
        .await;
        check(&["node", "rm", "--force", "www"], Ok(()), &["DELETE /nodes/www?force=1"]).await;
        let tasks = "GET /tasks?filters=%7B%22desired-state%22%3A%7B%22running%22%3Atrue%7D%2C%22node%22%3A%7B%22mmm%22%3Atrue%7D%7D";
        check(
            &["node", "ps", "-f", "desired-state=running"],
            Ok(()),
            &["GET /info", tasks, "GET /services", "GET /nodes"],
        )
        .await;
        let missing = "Error response from daemon: node nobody not found";
        check(&["node", "ps", "nobody"], Err(missing), &[]).await;
    }

    #[tokio::test]
    async fn outside_a_swarm_self_says_why() {
        let daemon = FakeDaemon::start().await;
        daemon.answer("GET /info", 200, json!({"Swarm": {"NodeID": ""}}));
        daemon.answer("GET /nodes", 503, json!({"message": "This node is not a swarm manager."}));
        let error = daemon.run(&["node", "inspect", "self"]).await.unwrap_err();
        assert_eq!(error.to_string(), "Error response from daemon: This node is not a swarm manager.");
    }
}
