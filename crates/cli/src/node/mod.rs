//! `skep node …`.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::Context;
use crate::json::{at, encode, filters, number, text};
use crate::service::print_tasks;
use crate::table::Table;
use crate::text::capital;

/// The nodes' commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List nodes in the swarm.
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// List tasks running on one or more nodes, defaults to current node.
    Ps(Names),
    /// Display detailed information on one or more nodes.
    Inspect(Names),
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

/// Options of `node ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Filter output based on conditions provided.
    #[arg(short, long)]
    filter: Vec<String>,
    /// Only display IDs.
    #[arg(short, long)]
    quiet: bool,
}

/// Nodes by name or identifier.
#[derive(Debug, Args)]
pub(crate) struct Names {
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
        Command::Ls(ls) => list(context, ls).await,
        Command::Ps(names) => ps(context, names).await,
        Command::Inspect(names) => inspect(context, names).await,
        Command::Update(update) => change(context, update).await,
        Command::Promote(names) => set_role(context, names, "manager").await,
        Command::Demote(names) => set_role(context, names, "worker").await,
        Command::Rm(rm) => remove(context, rm).await,
    }
}

async fn self_id(context: &Context) -> Result<String> {
    let info: Value = context.client.get("/info").await?;
    Ok(text(&info, "Swarm.NodeID").to_owned())
}

async fn find(context: &Context, name: &str) -> Result<Value> {
    let name = if name == "self" { self_id(context).await? } else { name.to_owned() };
    Ok(context.client.get(&format!("/nodes/{name}")).await?)
}

async fn list(context: &Context, ls: Ls) -> Result<()> {
    let nodes: Value = context.client.get(&format!("/nodes?filters={}", filters(&ls.filter)?)).await?;
    let own = self_id(context).await?;
    let mut nodes = nodes.as_array().cloned().unwrap_or_default();
    nodes.sort_by(|a, b| text(a, "Description.Hostname").cmp(text(b, "Description.Hostname")));
    if ls.quiet {
        nodes.iter().for_each(|node| println!("{}", text(node, "ID")));
        return Ok(());
    }
    let mut table = Table::new(&["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION"]);
    for node in &nodes {
        let leader = at(node, "ManagerStatus.Leader").as_bool() == Some(true);
        let mark = if text(node, "ID") == own { " *" } else { "" };
        table.row([
            format!("{}{mark}", text(node, "ID")),
            text(node, "Description.Hostname").to_owned(),
            capital(text(node, "Status.State")),
            capital(text(node, "Spec.Availability")),
            if leader { "Leader".to_owned() } else { capital(text(node, "ManagerStatus.Reachability")) },
            text(node, "Description.Engine.EngineVersion").to_owned(),
        ]);
    }
    table.print();
    Ok(())
}

async fn ps(context: &Context, names: Names) -> Result<()> {
    let names = if names.nodes.is_empty() { vec!["self".to_owned()] } else { names.nodes };
    let mut tasks = Vec::new();
    for name in names {
        let node = find(context, &name).await?;
        let filter = json!({"node": {text(&node, "ID"): true}}).to_string();
        let found: Value = context.client.get(&format!("/tasks?filters={}", encode(&filter))).await?;
        tasks.extend(found.as_array().cloned().unwrap_or_default());
    }
    print_tasks(context, &tasks, false, false).await
}

async fn inspect(context: &Context, names: Names) -> Result<()> {
    let mut nodes = Vec::new();
    for name in &names.nodes {
        nodes.push(find(context, name).await?);
    }
    println!("{}", serde_json::to_string_pretty(&nodes)?);
    Ok(())
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
    if !spec["Labels"].is_object() {
        spec["Labels"] = json!({});
    }
    for label in &update.label_add {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        spec["Labels"][key] = json!(value);
    }
    if let Some(labels) = spec["Labels"].as_object_mut() {
        labels.retain(|key, _| !update.label_rm.contains(key));
    }
    send(context, &node, &spec).await?;
    println!("{}", update.node);
    Ok(())
}

async fn send(context: &Context, node: &Value, spec: &Value) -> Result<()> {
    let path = format!("/nodes/{}/update?version={}", text(node, "ID"), number(node, "Version.Index"));
    context.client.post(&path, Some(spec)).await?;
    Ok(())
}

async fn set_role(context: &Context, names: Names, role: &str) -> Result<()> {
    if names.nodes.is_empty() {
        bail!("give at least one node");
    }
    for name in &names.nodes {
        let node = find(context, name).await?;
        let mut spec = node.get("Spec").cloned().unwrap_or_default();
        if text(&spec, "Role") == role {
            println!("Node {name} is already a {role}.");
            continue;
        }
        spec["Role"] = json!(role);
        send(context, &node, &spec).await?;
        let how = if role == "manager" { "promoted to a manager" } else { "demoted" };
        println!("Node {name} {how} in the swarm.");
    }
    Ok(())
}

async fn remove(context: &Context, rm: Rm) -> Result<()> {
    for name in &rm.nodes {
        let force = if rm.force { "?force=1" } else { "" };
        context.client.delete(&format!("/nodes/{name}{force}")).await?;
        println!("{name}");
    }
    Ok(())
}
