//! What the fleet and its managers' process say to each other: one line of JSON for each order, one for each answer. The
//! managers end when their input does.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long the managers may take to end.
const END: Duration = Duration::from_secs(20);

/// What the fleet wants.
#[derive(Serialize, Deserialize)]
pub(crate) enum Order {
    /// Services with this many tasks altogether; answered at once.
    Create { tasks: u32, replicas: u32 },
    /// How things are.
    Measure,
}

/// Where the managers are and how to join them.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) addrs: Vec<String>,
    pub(crate) worker_token: String,
}

/// How things are with the managers.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Open sessions, the managers' own agents among them.
    pub(crate) sessions: u64,
    /// Nodes that are DOWN.
    pub(crate) down: u64,
    /// Tasks in the committed store.
    pub(crate) tasks: u64,
    /// Of them, observed Running.
    pub(crate) running: u64,
    /// Anonymous memory of the process.
    pub(crate) memory_bytes: u64,
    /// Processor time of the process so far.
    pub(crate) cpu: Duration,
    /// Why no more services are created.
    pub(crate) failed: Option<String>,
}

/// The managers' process.
pub(crate) struct Link {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Link {
    /// Starts the managers and waits until they answer.
    pub(crate) async fn start(managers: u8, folder: &std::path::Path) -> Result<(Self, Ready)> {
        let mut command = Command::new(std::env::current_exe().context("the program itself")?);
        command.arg("managers").arg(managers.to_string()).arg(folder);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the managers' process")?;
        let orders = child.stdin.take().context("its input")?;
        let answers = BufReader::new(child.stdout.take().context("its output")?).lines();
        let mut link = Self { child, orders, answers };
        let ready = link.answer().await?;
        Ok((link, ready))
    }

    async fn answer<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T> {
        let Some(line) = self.answers.next_line().await? else { bail!("the managers' process ended") };
        serde_json::from_str(&line).with_context(|| format!("an answer of the managers: {line}"))
    }

    /// Gives an order; every one is answered by a sample.
    pub(crate) async fn order(&mut self, order: &Order) -> Result<Sample> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).await.context("the managers' process")?;
        self.answer().await
    }

    /// Ends the managers; they remove their files.
    pub(crate) async fn end(mut self) -> Result<()> {
        drop(self.orders);
        let status = match tokio::time::timeout(END, self.child.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                self.child.kill().await?;
                bail!("the managers did not end in time");
            }
        };
        if !status.success() {
            bail!("the managers' process ended with {status}");
        }
        Ok(())
    }
}
