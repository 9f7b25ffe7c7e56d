//! `skep swarm …`.

mod ca;
mod init;
mod join;
mod token;
mod update;

use anyhow::Result;
use clap::Subcommand;

use crate::context::Context;

/// The swarm's commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Display and rotate the root CA.
    Ca(ca::Ca),
    /// Initialize a swarm.
    Init(Box<init::Init>),
    /// Join a swarm as a node and/or manager.
    Join(join::Join),
    /// Leave the swarm.
    Leave(join::Leave),
    /// Manage join tokens.
    JoinToken(token::JoinToken),
    /// Update the swarm.
    #[command(arg_required_else_help = true)]
    Update(update::Update),
    /// Unlock the swarm.
    Unlock(token::Unlock),
    /// Manage the unlock key.
    UnlockKey(token::UnlockKey),
}

pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Ca(ca) => ca.run(context).await,
        Command::Init(init) => init.run(context).await,
        Command::Join(join) => join.run(context).await,
        Command::Leave(leave) => leave.run(context).await,
        Command::JoinToken(token) => token.run(context).await,
        Command::Update(update) => update.run(context).await,
        Command::Unlock(unlock) => unlock.run(context).await,
        Command::UnlockKey(key) => key.run(context).await,
    }
}
