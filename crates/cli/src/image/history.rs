//! `skep image history`.

use anyhow::Result;
use chrono::{DateTime, SecondsFormat};
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::json::{encode, number, text};
use crate::template::{Column, column, render_rows};
use crate::text::{age_unix, short_id, shortened, size};

const COMMAND_WIDTH: usize = 45;

/// Options of `image history`.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Format output using a template: table, table TEMPLATE, json or TEMPLATE.
    #[arg(long, default_value = "table", hide_default_value = true)]
    format: String,
    /// Print sizes and dates in human readable format.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", require_equals = true)]
    human: bool,
    /// Don't truncate output.
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs.
    #[arg(short, long)]
    quiet: bool,
    image: String,
}

impl History {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let layers: Value = context.client.get(&format!("/images/{}/history", encode(&self.image))).await?;
        print!("{}", self.render(layers.as_array().map_or(&[], Vec::as_slice))?);
        Ok(())
    }

    fn render(&self, layers: &[Value]) -> Result<String> {
        let rows: Vec<Value> = layers.iter().map(|layer| self.row(layer)).collect();
        let created = if self.human { ("CreatedSince", "CREATED") } else { ("CreatedAt", "CREATED AT") };
        let columns: [Column; 5] = [
            column("ID", "IMAGE"),
            column(created.0, created.1),
            column("CreatedBy", "CREATED BY"),
            column("Size", "SIZE"),
            column("Comment", "COMMENT"),
        ];
        let format = if self.format == "table" && self.quiet { "{{.ID}}" } else { &self.format };
        render_rows(format, &columns, &rows)
    }

    fn row(&self, layer: &Value) -> Value {
        let (id, created, bytes) = (text(layer, "Id"), number(layer, "Created"), number(layer, "Size"));
        let by = text(layer, "CreatedBy").replace('\t', " ");
        let at = DateTime::from_timestamp(created, 0);
        json!({
            "ID": if self.no_trunc { id.to_owned() } else { short_id(id) },
            "CreatedSince": format!("{} ago", age_unix(created)),
            "CreatedAt": at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true)).unwrap_or_default(),
            "CreatedBy": if self.no_trunc { by } else { shortened(&by, COMMAND_WIDTH) },
            "Size": if self.human { size(bytes) } else { bytes.to_string() },
            "Comment": text(layer, "Comment"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_listed_as_docker_lists_them() {
        let layers = [
            json!({"Id": "sha256:0123456789abcdef", "Created": 0, "CreatedBy": "a\tb", "Size": 1500, "Comment": "c"}),
            json!({"Id": "<missing>", "Created": 0, "CreatedBy": "x".repeat(50), "Size": 0, "Comment": ""}),
        ];
        let history = |format: &str, human, quiet| {
            let (format, image) = (format.to_owned(), "i".to_owned());
            History { format, human, no_trunc: false, quiet, image }.render(&layers).unwrap()
        };
        let plain = history("table", false, false);
        let lines: Vec<&str> = plain.lines().collect();
        assert!(lines[0].starts_with("IMAGE          CREATED AT             CREATED BY"), "{plain}");
        assert!(lines[1].starts_with("0123456789ab   1970-01-01T00:00:00Z   a b  "), "{plain}");
        assert!(lines[2].contains(&format!("{}…   0", "x".repeat(44))), "{plain}");
        assert_eq!(history("{{.Size}} {{.Comment}}", true, false), "1.5kB c\n0B \n");
        assert_eq!(history("table", true, true), "0123456789ab\n<missing>\n");
    }
}
