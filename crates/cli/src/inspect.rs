//! What all `inspect` commands share: objects as the daemon tells them, in its order, by `--format` or indented; and
//! `skep inspect`, which takes anything that has a name.

use anyhow::{Result, bail};
use clap::Args;
use client::ClientError;
use serde_json::value::RawValue;

use crate::context::Context;
use crate::json::{encode, indented};
use crate::template::render_objects;

/// `-f, --format` of `inspect` commands.
#[derive(Debug, Args)]
pub(crate) struct Format {
    /// Format output using a template: json or TEMPLATE.
    #[arg(short, long)]
    format: Option<String>,
}

/// Objects that were found, and what was said of those that were not.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) objects: Vec<Box<RawValue>>,
    pub(crate) missing: Vec<String>,
}

impl Found {
    /// Asks for each name at its path.
    pub(crate) async fn each(context: &Context, names: &[String], path: impl Fn(&str) -> String) -> Self {
        let mut found = Self::default();
        for name in names {
            found.add(context.client.get(&path(&encode(name))).await.map_err(|error| error.to_string()));
        }
        found
    }

    /// Takes one more.
    pub(crate) fn add(&mut self, object: Result<Box<RawValue>, String>) {
        match object {
            Ok(object) => self.objects.push(object),
            Err(missing) => self.missing.push(missing),
        }
    }

    /// Prints what was found; what was not is the error.
    pub(crate) fn print(self, format: &Format) -> Result<()> {
        print!("{}", self.render(format.format.as_deref())?);
        self.end()
    }

    /// What was not found is the error.
    pub(crate) fn end(self) -> Result<()> {
        if self.missing.is_empty() { Ok(()) } else { bail!(self.missing.join("\n")) }
    }

    fn render(&self, format: Option<&str>) -> Result<String> {
        if let Some(format) = format.filter(|format| !format.is_empty()) {
            let shown = render_objects(format, &self.objects)?;
            return Ok(if shown.is_empty() { "\n".to_owned() } else { shown });
        }
        let list: Vec<&str> = self.objects.iter().map(|object| object.get()).collect();
        Ok(indented(&format!("[{}]", list.join(","))) + "\n")
    }
}

/// Kinds of objects that `skep inspect` looks for, in docker's order: the word of `--type`, and where they are.
const KINDS: [(&str, &str, &str); 9] = [
    ("container", "/containers/", "/json"),
    ("image", "/images/", "/json"),
    ("network", "/networks/", ""),
    ("volume", "/volumes/", ""),
    ("service", "/services/", "?insertDefaults=true"),
    ("task", "/tasks/", ""),
    ("node", "/nodes/", ""),
    ("secret", "/secrets/", ""),
    ("config", "/configs/", ""),
];

/// `skep inspect`.
#[derive(Debug, Args)]
pub(crate) struct Anything {
    #[command(flatten)]
    format: Format,
    /// Display total file sizes if the type is container.
    #[arg(short, long)]
    size: bool,
    /// Only inspect objects of the given type.
    #[arg(long = "type")]
    kind: Option<String>,
    /// Names or identifiers.
    #[arg(required = true)]
    names: Vec<String>,
}

impl Anything {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        if let Some(kind) = &self.kind
            && !KINDS.iter().any(|(word, ..)| word == kind)
        {
            bail!("unknown type: {kind:?}: must be one of {}", KINDS.map(|(word, ..)| word).join(", "));
        }
        let mut found = Found::default();
        for name in &self.names {
            found.add(self.find(context, name).await?);
        }
        found.print(&self.format)
    }

    async fn find(&self, context: &Context, name: &str) -> Result<Result<Box<RawValue>, String>> {
        let wanted = KINDS.iter().filter(|(kind, ..)| self.kind.as_deref().is_none_or(|wanted| wanted == *kind));
        for (kind, before, after) in wanted {
            let size = if self.size && *kind == "container" { "?size=1" } else { "" };
            match context.client.get(&format!("{before}{}{after}{size}", encode(name))).await {
                Ok(object) => return Ok(Ok(object)),
                Err(error @ ClientError::Api { .. }) if self.kind.is_some() => return Ok(Err(error.to_string())),
                // Nothing of this kind; outside a swarm or on a worker nothing of the swarm's.
                Err(ClientError::Api { status: 404 | 406 | 503, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Err(format!("Error: No such object: {name}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[test]
    fn objects_are_shown_in_the_daemons_order() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let found = Found { objects: vec![raw(r#"{"b":1,"a":{"d":[],"c":"<"}}"#)], missing: Vec::new() };
        let check = |format: Option<&str>, expected: &str| assert_eq!(found.render(format).unwrap(), expected);
        check(
            None,
            "[\n    {\n        \"b\": 1,\n        \"a\": {\n            \"d\": [],\n            \"c\": \"<\"\n        }\n    \
             }\n]\n",
        );
        check(Some("json"), "[{\"b\":1,\"a\":{\"d\":[],\"c\":\"<\"}}]\n");
        check(Some("{{json .a}} {{.b}}"), "{\"d\":[],\"c\":\"<\"} 1\n");
        check(Some(""), &found.render(None).unwrap());
        assert_eq!(Found::default().render(None).unwrap(), "[]\n");
        assert_eq!(Found::default().render(Some("{{.ID}}")).unwrap(), "\n");
    }

    #[tokio::test]
    async fn anything_is_found_by_its_name() {
        let daemon = FakeDaemon::start().await;
        daemon.answer("GET /services/web", 200, json!({"ID": "s"}));
        daemon.run(&["inspect", "web"]).await.unwrap();
        let error = daemon.run(&["inspect", "nope"]).await.unwrap_err();
        assert_eq!(error.to_string(), "Error: No such object: nope");
        let error = daemon.run(&["inspect", "--type", "image", "web"]).await.unwrap_err();
        assert_eq!(error.to_string(), "Error response from daemon: page not found");
        assert!(daemon.run(&["inspect", "--type", "pod", "web"]).await.is_err());
        daemon.answer("GET /nodes/broken", 500, json!({"message": "no"}));
        assert!(daemon.run(&["inspect", "broken"]).await.unwrap_err().to_string().ends_with("daemon: no"));
    }
}
