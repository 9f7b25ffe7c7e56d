//! `skep ps`.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::context::Context;
use crate::json::{filters, list, number, text};
use crate::table::Table;
use crate::text::{age_unix, short_id, shortened};

/// Options of `ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Show all containers (default shows just running).
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided.
    #[arg(short, long)]
    filter: Vec<String>,
    /// Don't truncate output.
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs.
    #[arg(short, long)]
    quiet: bool,
}

impl Ps {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let path = format!("/containers/json?all={}&filters={}", u8::from(self.all), filters(&self.filter)?);
        let containers: Value = context.client.get(&path).await?;
        let mut table = Table::new(&["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
        for container in containers.as_array().map_or(&[][..], Vec::as_slice) {
            let id = text(container, "Id");
            let id = if self.no_trunc { id.to_owned() } else { short_id(id) };
            if self.quiet {
                println!("{id}");
                continue;
            }
            let command = format!("\"{}\"", text(container, "Command"));
            let names = list(container, "Names").iter().filter_map(Value::as_str);
            let names: Vec<&str> = names.map(|name| name.trim_start_matches('/')).collect();
            table.row([
                id,
                text(container, "Image").split('@').next().unwrap_or_default().to_owned(),
                if self.no_trunc { command } else { shortened(&command, 22) },
                format!("{} ago", age_unix(number(container, "Created"))),
                text(container, "Status").to_owned(),
                ports(list(container, "Ports")),
                names.join(","),
            ]);
        }
        if !self.quiet {
            table.print();
        }
        Ok(())
    }
}

fn ports(ports: &[Value]) -> String {
    let one = |port: &Value| {
        let inside = format!("{}/{}", number(port, "PrivatePort"), text(port, "Type"));
        match number(port, "PublicPort") {
            0 => inside,
            public => format!("{}:{public}->{inside}", text(port, "IP")),
        }
    };
    ports.iter().map(one).collect::<Vec<_>>().join(", ")
}
