//! `skep service logs`.

use anyhow::{Result, bail};
use clap::Args;
use http::Method;
use serde_json::Value;

use crate::container::LogOptions;
use crate::context::Context;
use crate::json::{at, text};
use crate::stdio::Demux;

/// Options of `service logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    options: LogOptions,
    /// A service or a task.
    target: String,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let service = context.client.get::<Value>(&format!("/services/{}", self.target)).await;
        let (kind, tty) = match service {
            Ok(service) => ("services", at(&service, "Spec.TaskTemplate.ContainerSpec.TTY").as_bool()),
            Err(error) if error.status() == Some(404) => {
                let task = context.client.get::<Value>(&format!("/tasks/{}", self.target)).await;
                match task {
                    Ok(task) => ("tasks", at(&task, "Spec.ContainerSpec.TTY").as_bool()),
                    Err(error) if error.status() == Some(404) => bail!("no such task or service: {}", self.target),
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        let path = format!("/{kind}/{}/logs?details=1&{}", self.target, self.options.query());
        let mut stream = context.client.stream(Method::GET, &path, Default::default(), None::<&Value>).await?;
        let names = Names::load(context).await?;
        let mut demux = Demux::new(tty != Some(true));
        while let Some(bytes) = stream.next_bytes().await? {
            demux.feed(&bytes, |stream, line| {
                let line = names.prefixed(line);
                stream.print(&line);
            });
        }
        Ok(())
    }
}

/// Names of tasks and nodes for the lines' prefixes.
struct Names {
    tasks: Value,
    nodes: Value,
    services: Value,
}

impl Names {
    async fn load(context: &Context) -> Result<Self> {
        Ok(Self {
            tasks: context.client.get("/tasks").await?,
            nodes: context.client.get("/nodes").await?,
            services: context.client.get("/services").await?,
        })
    }

    /// `web.1.abc@host    | text` for a line that begins with its details.
    fn prefixed(&self, line: &[u8]) -> Vec<u8> {
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(0);
        let details = String::from_utf8_lossy(&line[..space]).into_owned();
        let detail = |key: &str| {
            let found = details.split(',').find_map(|pair| pair.strip_prefix(&format!("{key}=")));
            found.unwrap_or_default().to_owned()
        };
        let task_id = detail("com.docker.swarm.task.id");
        if task_id.is_empty() {
            return line.to_vec();
        }
        let find = |list: &Value, id: &str| {
            list.as_array().and_then(|list| list.iter().find(|it| text(it, "ID") == id)).cloned().unwrap_or_default()
        };
        let task = find(&self.tasks, &task_id);
        let service = find(&self.services, &detail("com.docker.swarm.service.id"));
        let node = find(&self.nodes, &detail("com.docker.swarm.node.id"));
        let slot = match crate::json::number(&task, "Slot") {
            0 => text(&task, "NodeID").to_owned(),
            slot => slot.to_string(),
        };
        let short = crate::text::short_id(&task_id);
        let prefix =
            format!("{}.{slot}.{short}@{}    | ", text(&service, "Spec.Name"), text(&node, "Description.Hostname"));
        let mut out = prefix.into_bytes();
        out.extend_from_slice(&line[space + 1..]);
        out
    }
}
