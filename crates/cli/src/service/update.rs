//! `skep service update` and `skep service rollback`.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::create::resolve_image;
use super::options::{Common, set};
use super::{Wait, find, ports, print_warnings};
use crate::context::Context;
use crate::json::{at, list, number, text};

/// Options of `service update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Service image tag.
    #[arg(long)]
    image: Option<String>,
    /// Force update even if no changes require it.
    #[arg(long)]
    force: bool,
    /// Rollback to previous specification.
    #[arg(long)]
    rollback: bool,
    /// Service command args.
    #[arg(long)]
    args: Option<String>,
    /// Add or update an environment variable.
    #[arg(long)]
    env_add: Vec<String>,
    /// Remove an environment variable.
    #[arg(long)]
    env_rm: Vec<String>,
    /// Add or update a service label.
    #[arg(long)]
    label_add: Vec<String>,
    /// Remove a label by its key.
    #[arg(long)]
    label_rm: Vec<String>,
    /// Add or update a published port.
    #[arg(long)]
    publish_add: Vec<String>,
    /// Remove a published port by its target port.
    #[arg(long)]
    publish_rm: Vec<String>,
    /// Add or update a placement constraint.
    #[arg(long)]
    constraint_add: Vec<String>,
    /// Remove a constraint.
    #[arg(long)]
    constraint_rm: Vec<String>,
    /// Do not query the registry to resolve image digest and supported platforms.
    #[arg(long)]
    no_resolve_image: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    common: Common,
    /// The service, by name or identifier.
    service: String,
}

/// Options of `service rollback`.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    #[command(flatten)]
    wait: Wait,
    /// The service, by name or identifier.
    service: String,
}

impl Update {
    pub(crate) async fn run(self: Box<Self>, context: &Context) -> Result<()> {
        let service = find(context, &self.service).await?;
        let mut spec = service.get("Spec").cloned().unwrap_or_default();
        if self.rollback {
            return send(context, &service, &spec, "&rollback=previous", &self.service, self.wait).await;
        }
        self.change(&mut spec)?;
        if self.image.is_some() && !self.no_resolve_image {
            resolve_image(context, &mut spec).await;
        }
        send(context, &service, &spec, "", &self.service, self.wait).await
    }

    fn change(&self, spec: &mut Value) -> Result<()> {
        const C: &str = "TaskTemplate.ContainerSpec";
        self.common.apply(spec)?;
        if let Some(image) = &self.image {
            set(spec, &format!("{C}.Image"), image.clone());
        }
        if self.force {
            let count = number(spec, "TaskTemplate.ForceUpdate") + 1;
            set(spec, "TaskTemplate.ForceUpdate", count);
        }
        if let Some(args) = &self.args {
            set(spec, &format!("{C}.Args"), args.split_whitespace().collect::<Vec<_>>());
        }
        let key = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        edit(spec, &format!("{C}.Env"), &self.env_add, &self.env_rm, key);
        edit(spec, "TaskTemplate.Placement.Constraints", &self.constraint_add, &self.constraint_rm, str::to_owned);
        for label in &self.label_add {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            if !spec["Labels"].is_object() {
                spec["Labels"] = json!({});
            }
            spec["Labels"][key] = json!(value);
        }
        if let Some(labels) = spec["Labels"].as_object_mut() {
            labels.retain(|key, _| !self.label_rm.contains(key));
        }
        self.change_ports(spec)
    }

    fn change_ports(&self, spec: &mut Value) -> Result<()> {
        if self.publish_add.is_empty() && self.publish_rm.is_empty() {
            return Ok(());
        }
        let same = |a: &Value, b: &Value| {
            number(a, "TargetPort") == number(b, "TargetPort") && text(a, "Protocol") == text(b, "Protocol")
        };
        let mut held = list(spec, "EndpointSpec.Ports").to_vec();
        for removed in &self.publish_rm {
            let removed = ports::parse(removed)?;
            held.retain(|port| !removed.iter().any(|gone| same(port, gone)));
        }
        for added in &self.publish_add {
            for port in ports::parse(added)? {
                let taken =
                    |held: &Value| number(held, "PublishedPort") == number(&port, "PublishedPort") && same(held, &port);
                held.retain(|held| !taken(held));
                held.push(port);
            }
        }
        set(spec, "EndpointSpec.Ports", held);
        Ok(())
    }
}

fn edit(spec: &mut Value, path: &str, add: &[String], remove: &[String], key: impl Fn(&str) -> String) {
    if add.is_empty() && remove.is_empty() {
        return;
    }
    let held = list(spec, path).iter().filter_map(Value::as_str).map(str::to_owned);
    let gone: Vec<String> = add.iter().chain(remove).map(|item| key(item)).collect();
    let mut items: Vec<String> = held.filter(|item| !gone.contains(&key(item))).collect();
    items.extend(add.iter().cloned());
    set(spec, path, items);
}

impl Rollback {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let service = find(context, &self.service).await?;
        let spec = service.get("Spec").cloned().unwrap_or_default();
        send(context, &service, &spec, "&rollback=previous", &self.service, self.wait).await
    }
}

/// Sends an update and waits for it.
pub(crate) async fn send(
    context: &Context,
    service: &Value,
    spec: &Value,
    query: &str,
    shown: &str,
    wait: Wait,
) -> Result<()> {
    let id = text(service, "ID");
    let path = format!("/services/{id}/update?version={}{query}", at(service, "Version.Index"));
    let answer: Value = context.client.post_with(&path, http::HeaderMap::new(), spec).await?;
    print_warnings(&answer);
    println!("{shown}");
    wait.service(context, id).await
}
