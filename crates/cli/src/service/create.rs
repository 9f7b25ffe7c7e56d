//! `skep service create`.

use anyhow::{Result, bail};
use clap::Args;
use http::HeaderMap;
use serde_json::{Value, json};

use super::options::{Common, set};
use super::{Wait, ports, print_warnings};
use crate::context::Context;
use crate::json::{pairs, text};

/// Options of `service create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Service name.
    #[arg(long, default_value = "")]
    name: String,
    /// Service mode (replicated, global, replicated-job, global-job).
    #[arg(long, default_value = "replicated")]
    mode: String,
    /// Number of job tasks to run concurrently (default equal to --replicas).
    #[arg(long)]
    max_concurrent: Option<u64>,
    /// Publish a port as a node port.
    #[arg(short, long)]
    publish: Vec<String>,
    /// Set environment variables.
    #[arg(short, long)]
    env: Vec<String>,
    /// Service labels.
    #[arg(short, long)]
    label: Vec<String>,
    /// Container labels.
    #[arg(long)]
    container_label: Vec<String>,
    /// Placement constraints.
    #[arg(long)]
    constraint: Vec<String>,
    /// Add a placement preference (spread=node.labels.x).
    #[arg(long)]
    placement_pref: Vec<String>,
    /// Attach a filesystem mount to the service.
    #[arg(long)]
    mount: Vec<String>,
    /// Network attachments.
    #[arg(long)]
    network: Vec<String>,
    /// Specify secrets to expose to the service.
    #[arg(long)]
    secret: Vec<String>,
    /// Specify configurations to expose to the service.
    #[arg(long)]
    config: Vec<String>,
    /// Overwrite the default ENTRYPOINT of the image.
    #[arg(long)]
    entrypoint: Option<String>,
    /// Set one or more supplementary user groups for the container.
    #[arg(long)]
    group: Vec<String>,
    /// Set one or more custom host-to-IP mappings (host:ip).
    #[arg(long)]
    host: Vec<String>,
    /// Add Linux capabilities.
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop Linux capabilities.
    #[arg(long)]
    cap_drop: Vec<String>,
    /// Do not query the registry to resolve image digest and supported platforms.
    #[arg(long)]
    no_resolve_image: bool,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    common: Common,
    /// The image.
    image: String,
    /// Command and arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Create {
    pub(crate) async fn run(self: Box<Self>, context: &Context) -> Result<()> {
        let mut spec = self.spec()?;
        for (option, kind) in
            self.secret.iter().map(|it| (it, "Secret")).chain(self.config.iter().map(|it| (it, "Config")))
        {
            let reference = reference(context, option, kind).await?;
            push(&mut spec, &format!("TaskTemplate.ContainerSpec.{kind}s"), reference);
        }
        if !self.no_resolve_image {
            resolve_image(context, &mut spec).await;
        }
        let answer: Value = context.client.post_with("/services/create", HeaderMap::new(), &spec).await?;
        print_warnings(&answer);
        let id = text(&answer, "ID");
        println!("{id}");
        self.wait.service(context, id).await
    }

    fn spec(&self) -> Result<Value> {
        const C: &str = "TaskTemplate.ContainerSpec";
        let mut spec = json!({"Name": self.name, "Labels": pairs(&self.label), "TaskTemplate": {"ContainerSpec":
            {"Image": self.image}, "Placement": {}, "ForceUpdate": 0}, "EndpointSpec": {"Mode": "vip"}});
        spec["Mode"] = self.mode()?;
        self.common.apply(&mut spec)?;
        if !self.args.is_empty() {
            set(&mut spec, &format!("{C}.Args"), self.args.clone());
        }
        if let Some(entrypoint) = &self.entrypoint {
            let words: Vec<&str> = entrypoint.split_whitespace().collect();
            set(&mut spec, &format!("{C}.Command"), words);
        }
        if !self.container_label.is_empty() {
            set(&mut spec, &format!("{C}.Labels"), pairs(&self.container_label));
        }
        let lists = [
            ("Env", &self.env),
            ("Groups", &self.group),
            ("CapabilityAdd", &self.cap_add),
            ("CapabilityDrop", &self.cap_drop),
        ];
        for (key, list) in lists {
            if !list.is_empty() {
                set(&mut spec, &format!("{C}.{key}"), list.clone());
            }
        }
        for host in &self.host {
            let Some((name, address)) = host.split_once(':') else { bail!("bad format for add-host: {host:?}") };
            push(&mut spec, &format!("{C}.Hosts"), json!(format!("{address} {name}")));
        }
        for mount in &self.mount {
            push(&mut spec, &format!("{C}.Mounts"), super::super::container::mount(mount)?);
        }
        for port in &self.publish {
            for port in ports::parse(port)? {
                push(&mut spec, "EndpointSpec.Ports", port);
            }
        }
        for network in &self.network {
            push(&mut spec, "TaskTemplate.Networks", json!({"Target": network}));
        }
        if !self.constraint.is_empty() {
            set(&mut spec, "TaskTemplate.Placement.Constraints", self.constraint.clone());
        }
        for preference in &self.placement_pref {
            let Some(descriptor) = preference.strip_prefix("spread=") else {
                bail!("only the placement preference spread=<key> is known, not {preference:?}");
            };
            let preference = json!({"Spread": {"SpreadDescriptor": descriptor}});
            push(&mut spec, "TaskTemplate.Placement.Preferences", preference);
        }
        Ok(spec)
    }

    fn mode(&self) -> Result<Value> {
        let replicas = self.common.replicas;
        Ok(match self.mode.as_str() {
            "replicated" => json!({"Replicated": {"Replicas": replicas.unwrap_or(1)}}),
            "global" if replicas.is_some() => bail!("replicas can only be used with replicated or replicated-job mode"),
            "global" => json!({"Global": {}}),
            "replicated-job" => {
                let total = replicas.unwrap_or(1);
                json!({"ReplicatedJob": {"MaxConcurrent": self.max_concurrent.unwrap_or(total), "TotalCompletions": total}})
            }
            "global-job" => json!({"GlobalJob": {}}),
            other => bail!("Unknown mode: {other}, only replicated and global supported"),
        })
    }
}

/// Adds to the list at a dotted path.
fn push(spec: &mut Value, path: &str, item: Value) {
    let mut list = crate::json::at(spec, path).as_array().cloned().unwrap_or_default();
    list.push(item);
    set(spec, path, list);
}

/// `name` or `source=…,target=…,uid=…,gid=…,mode=0440` as a reference to a secret or config.
async fn reference(context: &Context, option: &str, kind: &str) -> Result<Value> {
    let (mut source, mut target, mut uid, mut gid, mut mode) = (option, None, "0", "0", 0o444);
    if option.contains('=') {
        for field in option.split(',') {
            match field.split_once('=') {
                Some(("source" | "src", value)) => source = value,
                Some(("target", value)) => target = Some(value),
                Some(("uid", value)) => uid = value,
                Some(("gid", value)) => gid = value,
                Some(("mode", value)) => mode = u32::from_str_radix(value, 8)?,
                _ => bail!("invalid field {field:?} in request"),
            }
        }
    }
    let plural = format!("{}s", kind.to_lowercase());
    let filters = crate::json::filters(&[format!("name={source}")])?;
    let found: Value = context.client.get(&format!("/{plural}?filters={filters}")).await?;
    let found = found.as_array().and_then(|list| list.iter().find(|it| text(it, "Spec.Name") == source));
    let Some(found) = found else { bail!("{} not found: {source}", kind.to_lowercase()) };
    let default_target = if kind == "Config" { format!("/{source}") } else { source.to_owned() };
    let file = json!({"Name": target.map_or(default_target, str::to_owned), "UID": uid, "GID": gid, "Mode": mode});
    let mut reference = json!({"File": file});
    reference[format!("{kind}ID")] = json!(text(found, "ID"));
    reference[format!("{kind}Name")] = json!(source);
    Ok(reference)
}

/// Pins the image to the digest that the registry gives now; warns and goes on if it does not answer.
pub(crate) async fn resolve_image(context: &Context, spec: &mut Value) {
    let image = crate::json::text(spec, "TaskTemplate.ContainerSpec.Image").to_owned();
    if image.contains('@') {
        return;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    let image = if last.contains(':') { image } else { format!("{image}:latest") };
    match context.client.get::<Value>(&format!("/distribution/{image}/json")).await {
        Ok(found) => {
            let digest = crate::json::text(&found, "Descriptor.digest");
            set(spec, "TaskTemplate.ContainerSpec.Image", format!("{image}@{digest}"));
            let platforms = crate::json::list(&found, "Platforms").iter().map(|platform| {
                json!({"Architecture": crate::json::text(platform, "architecture"), "OS": crate::json::text(platform, "os")})
            });
            set(spec, "TaskTemplate.Placement.Platforms", platforms.collect::<Vec<_>>());
        }
        Err(_) => {
            eprintln!(
                "image {image} could not be accessed on a registry to record\nits digest. Each node will access {image} \
                 independently,\npossibly leading to different nodes running different\nversions of the image.\n"
            );
            set(spec, "TaskTemplate.ContainerSpec.Image", image);
        }
    }
}
