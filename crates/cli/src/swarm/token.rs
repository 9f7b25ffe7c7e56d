//! `skep swarm join-token`, `unlock`, `unlock-key`.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::json::{number, text};

/// Options of `swarm join-token`.
#[derive(Debug, Args)]
pub(crate) struct JoinToken {
    /// Only display the token.
    #[arg(short, long)]
    quiet: bool,
    /// Rotate the join token.
    #[arg(long)]
    rotate: bool,
    /// worker or manager.
    role: String,
}

impl JoinToken {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let (key, query) = match self.role.as_str() {
            "worker" => ("Worker", "rotateWorkerToken=true"),
            "manager" => ("Manager", "rotateManagerToken=true"),
            other => bail!("unknown role {other}: give worker or manager"),
        };
        if self.rotate {
            rotate(context, query).await?;
            if !self.quiet {
                println!("Successfully rotated {} join token.\n", self.role);
            }
        }
        if self.quiet {
            let swarm: Value = context.client.get("/swarm").await?;
            println!("{}", text(&swarm, &format!("JoinTokens.{key}")));
            return Ok(());
        }
        println!("To add a {} to this swarm, run the following command:\n", self.role);
        print_join_command(context, key).await?;
        println!();
        Ok(())
    }
}

async fn rotate(context: &Context, query: &str) -> Result<()> {
    let swarm: Value = context.client.get("/swarm").await?;
    let path = format!("/swarm/update?version={}&{query}", number(&swarm, "Version.Index"));
    context.client.post(&path, swarm.get("Spec")).await?;
    Ok(())
}

/// Prints the command that another machine has to run.
pub(crate) async fn print_join_command(context: &Context, role: &str) -> Result<()> {
    let swarm: Value = context.client.get("/swarm").await?;
    let info: Value = context.client.get("/info").await?;
    let node: Value = context.client.get(&format!("/nodes/{}", text(&info, "Swarm.NodeID"))).await?;
    let token = text(&swarm, &format!("JoinTokens.{role}")).to_owned();
    println!("    skep swarm join --token {token} {}", text(&node, "ManagerStatus.Addr"));
    Ok(())
}

/// Options of `swarm unlock`.
#[derive(Debug, Args)]
pub(crate) struct Unlock {}

impl Unlock {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        eprint!("Enter unlock key: ");
        let mut key = String::new();
        std::io::stdin().read_line(&mut key)?;
        context.client.post("/swarm/unlock", Some(&json!({"UnlockKey": key.trim()}))).await?;
        Ok(())
    }
}

/// Options of `swarm unlock-key`.
#[derive(Debug, Args)]
pub(crate) struct UnlockKey {
    /// Only display the key.
    #[arg(short, long)]
    quiet: bool,
    /// Rotate the unlock key.
    #[arg(long)]
    rotate: bool,
}

impl UnlockKey {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        if self.rotate {
            rotate(context, "rotateManagerUnlockKey=true").await?;
            if !self.quiet {
                println!("Successfully rotated manager unlock key.\n");
            }
        }
        let key: Value = context.client.get("/swarm/unlockkey").await?;
        if text(&key, "UnlockKey").is_empty() {
            bail!("no unlock key is set");
        }
        if self.quiet {
            println!("{}", text(&key, "UnlockKey"));
        } else {
            print_unlock_key(&key);
        }
        Ok(())
    }
}

/// Prints the key and what it is for.
pub(crate) fn print_unlock_key(key: &Value) {
    println!(
        "To unlock a swarm manager after it restarts, run the `skep swarm unlock`\ncommand and provide the following key:\n\n    \
         {}\n\nRemember to store this key in a password manager, since without it you\nwill not be able to restart the manager.",
        text(key, "UnlockKey")
    );
}
