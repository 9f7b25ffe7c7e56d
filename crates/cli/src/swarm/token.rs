//! `skep swarm join-token`, `unlock`, `unlock-key`.

use std::io::IsTerminal;

use anyhow::{Result, bail};
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use crate::context::Context;
use crate::json::{at, encode, number, text};

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
        let query = match self.role.as_str() {
            "worker" => "rotateWorkerToken=true",
            "manager" => "rotateManagerToken=true",
            other => bail!("unknown role {other}"),
        };
        if self.rotate {
            let swarm: Value = context.client.get("/swarm").await?;
            rotate(context, &swarm, query).await?;
            if !self.quiet {
                println!("Successfully rotated {} join token.\n", self.role);
            }
        }
        if self.quiet {
            let swarm: Value = context.client.get("/swarm").await?;
            println!("{}", token(&swarm, &self.role));
            return Ok(());
        }
        print!("{}", join_text(context, &self.role).await?);
        Ok(())
    }
}

async fn rotate(context: &Context, swarm: &Value, query: &str) -> Result<()> {
    let path = format!("/swarm/update?version={}&{query}", number(swarm, "Version.Index"));
    context.client.post(&path, swarm.get("Spec")).await?;
    Ok(())
}

fn token<'a>(swarm: &'a Value, role: &str) -> &'a str {
    text(swarm, if role == "manager" { "JoinTokens.Manager" } else { "JoinTokens.Worker" })
}

/// The command that another machine has to run, and what it is for.
pub(crate) async fn join_text(context: &Context, role: &str) -> Result<String> {
    let swarm: Value = context.client.get("/swarm").await?;
    let info: Value = context.client.get("/info").await?;
    let node: Value = context.client.get(&format!("/nodes/{}", encode(text(&info, "Swarm.NodeID")))).await?;
    Ok(format!(
        "To add a {role} to this swarm, run the following command:\n\n    skep swarm join --token {} {}\n\n",
        token(&swarm, role),
        text(&node, "ManagerStatus.Addr")
    ))
}

/// Options of `swarm unlock`.
#[derive(Debug, Args)]
pub(crate) struct Unlock {}

impl Unlock {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let info: Value = context.client.get("/info").await?;
        match text(&info, "Swarm.LocalNodeState") {
            "inactive" => bail!("Error: This node is not part of a swarm"),
            "locked" => {}
            _ => bail!("Error: swarm is not locked"),
        }
        let key = read_key()?;
        context.client.post("/swarm/unlock", Some(&json!({"UnlockKey": key.trim()}))).await?;
        Ok(())
    }
}

/// A line of standard input; a terminal is asked for it and does not show it.
fn read_key() -> std::io::Result<String> {
    let stdin = std::io::stdin();
    let mut key = String::new();
    if !stdin.is_terminal() {
        stdin.read_line(&mut key)?;
        return Ok(key);
    }
    eprint!("Enter unlock key: ");
    let shown = tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdin, SetArg::TCSANOW, &hidden)?;
    let read = stdin.read_line(&mut key);
    tcsetattr(&stdin, SetArg::TCSANOW, &shown)?;
    eprintln!();
    read.map(|_| key)
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
            let swarm: Value = context.client.get("/swarm").await?;
            if at(&swarm, "Spec.EncryptionConfig.AutoLockManagers") != true {
                bail!("cannot rotate because autolock is not turned on");
            }
            rotate(context, &swarm, "rotateManagerUnlockKey=true").await?;
            if !self.quiet {
                println!("Successfully rotated manager unlock key.");
            }
        }
        let key: Value = context.client.get("/swarm/unlockkey").await?;
        if text(&key, "UnlockKey").is_empty() {
            bail!("no unlock key is set");
        }
        if self.quiet {
            println!("{}", text(&key, "UnlockKey"));
        } else {
            print!("{}", unlock_key_text(&key));
        }
        Ok(())
    }
}

/// The key and what it is for; nothing if there is none.
pub(crate) fn unlock_key_text(key: &Value) -> String {
    if text(key, "UnlockKey").is_empty() {
        return String::new();
    }
    format!(
        "To unlock a swarm manager after it restarts, run the `skep swarm unlock`\ncommand and provide the following key:\n\n    \
         {}\n\nRemember to store this key in a password manager, since without it you\nwill not be able to restart the manager.\n",
        text(key, "UnlockKey")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    async fn fake(locking: bool) -> FakeDaemon {
        let daemon = FakeDaemon::start().await;
        let swarm = json!({"Version": {"Index": 11}, "Spec": {"EncryptionConfig": {"AutoLockManagers": locking}},
            "JoinTokens": {"Worker": "SWMTKN-1-w", "Manager": "SWMTKN-1-m"}});
        daemon.answer("GET /swarm", 200, swarm);
        daemon.answer("GET /info", 200, json!({"Swarm": {"NodeID": "mmm", "LocalNodeState": "active"}}));
        daemon.answer("GET /nodes/mmm", 200, json!({"ManagerStatus": {"Addr": "10.0.0.4:2377"}}));
        daemon.answer("GET /swarm/unlockkey", 200, json!({"UnlockKey": if locking { "SWMKEY-1-x" } else { "" }}));
        daemon.answer("POST /swarm/update", 200, Value::Null);
        daemon
    }

    #[tokio::test]
    async fn a_join_command_names_token_and_manager() {
        let daemon = fake(false).await;
        let expected = "To add a manager to this swarm, run the following command:\n\n    \
                        skep swarm join --token SWMTKN-1-m 10.0.0.4:2377\n\n";
        assert_eq!(join_text(&daemon.context().await, "manager").await.unwrap(), expected);
    }

    #[tokio::test]
    async fn tokens_and_keys_are_rotated_by_an_update_that_changes_nothing_else() {
        async fn check(words: &[&str], locking: bool, expected: Result<&[&str], &str>) {
            let daemon = fake(locking).await;
            let result = daemon.run(&[&["swarm"], words].concat()).await.map_err(|error| error.to_string());
            assert_eq!(result, expected.map(drop).map_err(str::to_owned), "{words:?}");
            assert_eq!(
                daemon.requests(|request| request.starts_with("POST")),
                expected.unwrap_or_default(),
                "{words:?}"
            );
        }
        let post = |query: &str, locking: bool| {
            format!(
                r#"POST /swarm/update?version=11&{query}=true {{"EncryptionConfig":{{"AutoLockManagers":{locking}}}}}"#
            )
        };
        check(&["join-token", "worker"], false, Ok(&[])).await;
        check(&["join-token", "-q", "--rotate", "worker"], false, Ok(&[&post("rotateWorkerToken", false)])).await;
        check(&["join-token", "--rotate", "manager"], false, Ok(&[&post("rotateManagerToken", false)])).await;
        check(&["join-token", "cook"], false, Err("unknown role cook")).await;
        check(&["unlock-key"], false, Err("no unlock key is set")).await;
        check(&["unlock-key", "-q"], true, Ok(&[])).await;
        check(&["unlock-key", "--rotate"], true, Ok(&[&post("rotateManagerUnlockKey", true)])).await;
        check(&["unlock-key", "--rotate"], false, Err("cannot rotate because autolock is not turned on")).await;
        check(&["unlock"], false, Err("Error: swarm is not locked")).await;
    }
}
