//! `skep image prune`.

use std::io::{BufRead, Write};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use crate::context::Context;
use crate::json::{filters, list, number, text};
use crate::text::size_in_four;

/// Options of `image prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove all unused images, not just dangling ones.
    #[arg(short, long)]
    all: bool,
    /// Provide filter values, as `until=` and a moment.
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation.
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        if !self.force && !self.is_confirmed()? {
            bail!("image prune has been cancelled");
        }
        let mut wanted = self.filter.clone();
        wanted.push(format!("dangling={}", !self.all));
        let answer =
            context.client.post(&format!("/images/prune?filters={}", filters(&wanted)?), None::<&Value>).await?;
        print!("{}", shown(&serde_json::from_slice(&answer)?));
        Ok(())
    }

    fn is_confirmed(&self) -> Result<bool> {
        let what = if self.all {
            "all images without at least one container associated to them"
        } else {
            "all dangling images"
        };
        print!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] ");
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(answer.trim().eq_ignore_ascii_case("y"))
    }
}

fn shown(answer: &Value) -> String {
    let mut out = String::new();
    let deleted = list(answer, "ImagesDeleted");
    if !deleted.is_empty() {
        out.push_str("Deleted Images:\n");
        for image in deleted {
            for (key, word) in [("Untagged", "untagged"), ("Deleted", "deleted")] {
                if !text(image, key).is_empty() {
                    out.push_str(&format!("{word}: {}\n", text(image, key)));
                }
            }
        }
        out.push('\n');
    }
    out + &format!("Total reclaimed space: {}\n", size_in_four(number(answer, "SpaceReclaimed")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn what_went_is_told() {
        let answer =
            json!({"ImagesDeleted": [{"Untagged": "a:1"}, {"Deleted": "sha256:x"}], "SpaceReclaimed": 1_417_767});
        let expected = "Deleted Images:\nuntagged: a:1\ndeleted: sha256:x\n\nTotal reclaimed space: 1.418MB\n";
        assert_eq!(shown(&answer), expected);
        assert_eq!(shown(&json!({"ImagesDeleted": null, "SpaceReclaimed": 0})), "Total reclaimed space: 0B\n");
        let daemon = FakeDaemon::start().await;
        daemon.answer("POST /images/prune", 200, answer);
        daemon.run(&["image", "prune", "-af"]).await.unwrap();
        let asked = daemon.requests(|request| request.starts_with("POST"));
        assert_eq!(asked, ["POST /images/prune?filters=%7B%22dangling%22%3A%7B%22false%22%3Atrue%7D%7D"]);
    }
}
