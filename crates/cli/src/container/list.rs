//! `skep ps`.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::ports;
use crate::context::Context;
use crate::json::{at, filters, list, number, text};
use crate::template::{Column, LABELS, column, render_rows};
use crate::text::{age_unix, go_time, quoted, short_id, shortened, size};

/// What can be shown of a container.
const COLUMNS: [Column; 14] = [
    column("ID", "CONTAINER ID"),
    column("Image", "IMAGE"),
    column("Command", "COMMAND"),
    column("RunningFor", "CREATED"),
    column("Status", "STATUS"),
    column("Ports", "PORTS"),
    column("Names", "NAMES"),
    column("Size", "SIZE"),
    column("CreatedAt", "CREATED AT"),
    column("State", "STATE"),
    column("Labels", "LABELS"),
    column("Mounts", "MOUNTS"),
    column("LocalVolumes", "LOCAL VOLUMES"),
    column("Networks", "NETWORKS"),
];
/// Those that docker's own table has; the size only if it is asked for.
const SHOWN: usize = 7;
const COMMAND_WIDTH: usize = 20;
const MOUNT_WIDTH: usize = 15;

/// Options of `ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Show all containers (default shows just running).
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided.
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output using a template: table, table TEMPLATE, json or TEMPLATE.
    #[arg(long, default_value = "table", hide_default_value = true)]
    format: String,
    /// Show n last created containers (includes all states).
    #[arg(short = 'n', long, default_value_t = -1, hide_default_value = true, allow_hyphen_values = true)]
    last: i64,
    /// Show the latest created container (includes all states).
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output.
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs.
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes.
    #[arg(short, long)]
    size: bool,
}

impl Ps {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let limit = if self.latest && self.last == -1 { 1 } else { self.last };
        let wants_size = self.size || self.format.contains(".Size");
        let mut path = format!("/containers/json?filters={}", filters(&self.filter)?);
        for (parameter, is_set) in
            [("all=1", self.all), (&*format!("limit={limit}"), limit > 0), ("size=1", wants_size)]
        {
            if is_set {
                path.push_str(&format!("&{parameter}"));
            }
        }
        let containers: Value = context.client.get(&path).await?;
        print!("{}", self.render(containers.as_array().map_or(&[], Vec::as_slice))?);
        Ok(())
    }

    fn render(&self, containers: &[Value]) -> Result<String> {
        let rows: Vec<Value> = containers.iter().map(|container| self.row(container)).collect();
        let shown = if self.size { &COLUMNS[..=SHOWN] } else { &COLUMNS[..SHOWN] };
        match self.format.as_str() {
            "table" if self.quiet => render_rows("{{.ID}}", &COLUMNS, &rows),
            "table" => render_rows("table", shown, &rows),
            format => render_rows(format, &COLUMNS, &rows),
        }
    }

    fn row(&self, container: &Value) -> Value {
        let cut = |text: &str, width| if self.no_trunc { text.to_owned() } else { shortened(text, width) };
        let id = text(container, "Id");
        let names = list(container, "Names").iter().filter_map(Value::as_str).map(|name| name.trim_start_matches('/'));
        // Names with a stroke are links of others.
        let names: Vec<&str> = names.filter(|name| self.no_trunc || !name.contains('/')).collect();
        let labels = at(container, "Labels").as_object().cloned().unwrap_or_default();
        let label = |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
        let mut shown_labels: Vec<String> = labels.iter().map(label).collect();
        shown_labels.sort_unstable();
        let mounts = list(container, "Mounts");
        let mount = |mount: &Value| {
            let name = [text(mount, "Name"), text(mount, "Source")].into_iter().find(|name| !name.is_empty());
            cut(name.unwrap_or_default(), MOUNT_WIDTH)
        };
        let is_local = |mount: &&Value| text(mount, "Driver") == "local";
        let networks = at(container, "NetworkSettings.Networks").as_object();
        let networks: Vec<&str> = networks.into_iter().flat_map(|it| it.keys()).map(String::as_str).collect();
        let created = number(container, "Created");
        let virtual_size = number(container, "SizeRootFs");
        let virtual_size = if virtual_size > 0 { format!(" (virtual {})", size(virtual_size)) } else { String::new() };
        json!({
            "ID": if self.no_trunc { id.to_owned() } else { short_id(id) },
            "Image": self.image(container),
            "Command": quoted(&cut(text(container, "Command"), COMMAND_WIDTH)),
            "RunningFor": format!("{} ago", age_unix(created)),
            "CreatedAt": chrono::DateTime::from_timestamp(created, 0).map(go_time).unwrap_or_default(),
            "Status": text(container, "Status"),
            "State": text(container, "State"),
            "Ports": ports::column(list(container, "Ports")),
            "Names": names.join(","),
            "Size": format!("{}{virtual_size}", size(number(container, "SizeRw"))),
            "Labels": shown_labels.join(","),
            "Mounts": mounts.iter().map(mount).collect::<Vec<_>>().join(","),
            "LocalVolumes": mounts.iter().filter(is_local).count().to_string(),
            "Networks": networks.join(","),
            "Platform": Value::Null,
            LABELS: labels,
        })
    }

    /// The image as it was asked for; without its digest, unless nothing is cut.
    fn image(&self, container: &Value) -> String {
        let (name, id) = (text(container, "Image"), text(container, "ImageID"));
        match name {
            "" => "<no image>".to_owned(),
            name if self.no_trunc => name.to_owned(),
            name if short_id(name) == short_id(id) => short_id(id),
            name => name.split('@').next().unwrap_or_default().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ps(format: &str) -> Ps {
        let (all, no_trunc, quiet, size, latest) = (false, false, false, false, false);
        Ps { all, filter: Vec::new(), format: format.to_owned(), last: -1, latest, no_trunc, quiet, size }
    }

    #[test]
    fn containers_are_listed_as_docker_lists_them() {
        let container = json!({
            "Id": "f".repeat(64), "Names": ["/one", "/two/alias"], "Image": "nginx:1@sha256:aa", "ImageID": "sha256:bb",
            "Command": "sh -c 'while :; do sleep 1; done'", "Created": 0, "State": "running", "Status": "Up 2 seconds",
            "Ports": [], "Labels": {"b": "2", "a": "1"}, "SizeRw": 0, "SizeRootFs": 1_417_767,
            "Mounts": [{"Type": "volume", "Name": "a-very-long-volume-name", "Driver": "local"}],
            "NetworkSettings": {"Networks": {"bridge": {}, "other": {}}},
        });
        let rows = std::slice::from_ref(&container);
        let check = |format: &str, expected: &str| assert_eq!(ps(format).render(rows).unwrap(), expected, "{format}");
        check("{{.ID}} {{.Names}} {{.Image}} {{.Command}}", "ffffffffffff one nginx:1 \"sh -c 'while :; do …\"\n");
        check("{{.Mounts}} {{.LocalVolumes}} {{.Networks}}", "a-very-long-vo… 1 bridge,other\n");
        check("{{.Labels}} {{.Label \"a\"}}|{{.Label \"x\"}}|", "a=1,b=2 1||\n");
        check("{{.CreatedAt}} {{.State}} {{.Size}}", "1970-01-01 00:00:00 +0000 UTC running 0B (virtual 1.42MB)\n");
        let whole = Ps { no_trunc: true, ..ps("{{.Names}} {{.Image}} {{.Command}}") };
        let expected = "one,two/alias nginx:1@sha256:aa \"sh -c 'while :; do sleep 1; done'\"\n";
        assert_eq!(whole.render(rows).unwrap(), expected);
        assert_eq!(Ps { quiet: true, ..ps("table") }.render(rows).unwrap(), "ffffffffffff\n");
        let with_size = Ps { size: true, ..ps("table") }.render(&[]).unwrap();
        assert_eq!(with_size, "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES     SIZE\n");
    }
}
