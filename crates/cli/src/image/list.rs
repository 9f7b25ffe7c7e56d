//! `skep images`.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::split_tag;
use crate::context::Context;
use crate::json::{filters, list, number, text};
use crate::template::{Column, column, render_rows};
use crate::text::{age_unix, go_time, short_id, size, size_in_four};

const NONE: &str = "<none>";

/// What can be shown of an image.
const COLUMNS: [Column; 7] = [
    column("Repository", "REPOSITORY"),
    column("Tag", "TAG"),
    column("ID", "IMAGE ID"),
    column("CreatedSince", "CREATED"),
    column("Size", "SIZE"),
    column("CreatedAt", "CREATED AT"),
    column("Digest", "DIGEST"),
];

/// Options of `image ls`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Show all images (default hides intermediate images).
    #[arg(short, long)]
    all: bool,
    /// Show digests.
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided.
    #[arg(short, long)]
    filter: Vec<String>,
    /// Format output using a template: table, table TEMPLATE, json or TEMPLATE.
    #[arg(long, default_value = "table", hide_default_value = true)]
    format: String,
    /// Don't truncate output.
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs.
    #[arg(short, long)]
    quiet: bool,
    /// Only images of this repository, or this tag of it.
    repository: Option<String>,
}

impl List {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let mut wanted = self.filter.clone();
        wanted.extend(self.repository.iter().map(|repository| format!("reference={repository}")));
        let path = format!("/images/json?all={}&filters={}", u8::from(self.all), filters(&wanted)?);
        let images: Value = context.client.get(&path).await?;
        print!("{}", self.render(images.as_array().map_or(&[], Vec::as_slice))?);
        Ok(())
    }

    fn render(&self, images: &[Value]) -> Result<String> {
        let rows: Vec<Value> = images.iter().flat_map(|image| self.rows(image)).collect();
        let [repository, tag, id, since, size, _, digest] = COLUMNS;
        match (self.format.as_str(), self.quiet) {
            ("table", true) => render_rows("{{.ID}}", &COLUMNS, &rows),
            ("table", false) if self.digests => {
                render_rows("table", &[repository, tag, digest, id, since, size], &rows)
            }
            ("table", false) => render_rows("table", &[repository, tag, id, since, size], &rows),
            (format, _) => render_rows(format, &COLUMNS, &rows),
        }
    }

    /// A row for each tag, with `--digests` for each digest of it, and for digests without a tag.
    fn rows(&self, image: &Value) -> Vec<Value> {
        let wants_digests = self.digests || self.format.contains(".Digest");
        let names = |key: &str| list(image, key).iter().filter_map(Value::as_str).collect::<Vec<_>>();
        let mut digests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (repository, digest) in names("RepoDigests").iter().filter_map(|name| name.split_once('@')) {
            digests.entry(repository).or_default().push(digest);
        }
        let mut rows = Vec::new();
        for (repository, tag) in names("RepoTags").into_iter().map(split_tag).filter(|(name, _)| *name != NONE) {
            let of_tag = digests.get(repository).filter(|_| wants_digests);
            match of_tag {
                Some(found) => rows.extend(found.iter().map(|digest| self.row(image, repository, tag, digest))),
                None => rows.push(self.row(image, repository, tag, NONE)),
            }
        }
        let tagged: Vec<&str> = names("RepoTags").into_iter().map(|name| split_tag(name).0).collect();
        for (repository, found) in digests.iter().filter(|(name, _)| !tagged.contains(name) && **name != NONE) {
            let shown = if wants_digests { found.as_slice() } else { &found[..1] };
            rows.extend(shown.iter().map(|digest| self.row(image, repository, NONE, digest)));
        }
        if rows.is_empty() {
            rows.push(self.row(image, NONE, NONE, NONE));
        }
        rows
    }

    fn row(&self, image: &Value, repository: &str, tag: &str, digest: &str) -> Value {
        let (id, created) = (text(image, "Id"), number(image, "Created"));
        json!({
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "ID": if self.no_trunc { id.to_owned() } else { short_id(id) },
            "CreatedSince": format!("{} ago", age_unix(created)),
            "CreatedAt": chrono::DateTime::from_timestamp(created, 0).map(go_time).unwrap_or_default(),
            "Size": size(number(image, "Size")),
            "VirtualSize": size_in_four(number(image, "Size")),
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
            "Containers": "N/A",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(format: &str, digests: bool, quiet: bool) -> List {
        let (all, no_trunc) = (false, false);
        List { all, digests, filter: Vec::new(), format: format.to_owned(), no_trunc, quiet, repository: None }
    }

    #[test]
    fn an_image_has_a_row_for_each_of_its_names() {
        let image = |tags: &[&str], digests: &[&str]| json!({"Id": "sha256:0123456789abcdef", "RepoTags": tags, "RepoDigests": digests, "Created": 0, "Size": 5});
        let check = |image: Value, digests: bool, expected: &str| {
            let format = if digests { "{{.Repository}} {{.Tag}} {{.Digest}}" } else { "{{.Repository}} {{.Tag}}" };
            assert_eq!(list(format, digests, false).render(&[image]).unwrap(), expected);
        };
        check(image(&["a:1", "b.example:5000/a:2"], &[]), false, "a 1\nb.example:5000/a 2\n");
        check(image(&["a:1"], &["a@sha256:d"]), false, "a 1\n");
        check(image(&["a:1"], &["a@sha256:d", "a@sha256:e"]), true, "a 1 sha256:d\na 1 sha256:e\n");
        check(image(&["a:1"], &["b@sha256:d"]), true, "a 1 <none>\nb <none> sha256:d\n");
        check(image(&[], &["b@sha256:d", "b@sha256:e"]), false, "b <none>\n");
        check(image(&[], &[]), false, "<none> <none>\n");
        let both = image(&["a:1", "a:2"], &[]);
        assert_eq!(list("table", false, true).render(&[both]).unwrap(), "0123456789ab\n0123456789ab\n");
        let head = "REPOSITORY   TAG       DIGEST    IMAGE ID   CREATED   SIZE\n";
        assert_eq!(list("table", true, false).render(&[]).unwrap(), head);
    }
}
