//! The `skep` command line: Docker's words, flags and columns over the Engine API, so it works against dockerd too.

#![forbid(unsafe_code)]

mod args;
mod container;
mod context;
mod doctor;
#[cfg(test)]
mod fake_daemon;
mod image;
mod inspect;
mod json;
mod node;
mod secret;
mod service;
mod stdio;
mod swarm;
mod system;
mod table;
mod template;
mod terminal;
mod text;
mod volume;

use clap::Parser;

use args::{Cli, Command};
use context::Context;

/// What ends a command with another exit code than 0 or 1.
#[derive(Debug)]
pub(crate) struct Exit(pub i32);

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Exit {}

/// What shells call the end by SIGPIPE.
const CLOSED_PIPE: i32 = 141;

/// A reader that has enough, as `head` and `grep -q`, ends the command as it ends others: `print!` would panic.
fn end_with_the_reader() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let printing = panic.payload_as_str().is_some_and(|text| {
            text.starts_with("failed printing to")
                && text.contains(&std::io::Error::from(nix::Error::EPIPE).to_string())
        });
        if printing {
            std::process::exit(CLOSED_PIPE);
        }
        before(panic);
    }));
}

/// Runs a command line (without the program's name) and returns the exit code.
pub fn main(args: Vec<String>) -> i32 {
    end_with_the_reader();
    let cli = match Cli::try_parse_from(std::iter::once("skep".to_owned()).chain(args)) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 125 } else { 0 };
            // Nothing can be done if the terminal is gone.
            error.print().ok();
            return code;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("skep: {error}");
            return 1;
        }
    };
    let result = runtime.block_on(run(cli));
    // A read of the terminal that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => 0,
        Err(error) => match error.downcast_ref::<Exit>() {
            Some(Exit(code)) => *code,
            None => {
                eprintln!("{error:#}");
                1
            }
        },
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    if let Command::Doctor(command) = cli.command {
        return doctor::run(cli.host.as_deref(), command).await;
    }
    let context = Context::open(cli.host.as_deref()).await?;
    match cli.command {
        Command::Swarm(command) => swarm::run(&context, command).await,
        Command::Service(command) => service::run(&context, command).await,
        Command::Node(command) => node::run(&context, command).await,
        Command::Secret(command) => secret::run(&context, secret::Kind::Secret, command).await,
        Command::Config(command) => secret::run(&context, secret::Kind::Config, command).await,
        Command::Volume(command) => volume::run(&context, command).await,
        Command::Image(command) => image::run(&context, command).await,
        Command::Images(list) => list.run(&context).await,
        Command::Pull(pull) => image::pull(&context, &pull.reference).await,
        Command::Load(load) => image::load(&context, &load).await,
        Command::Container(command) => container::run(&context, command).await,
        Command::History(history) => image::run(&context, image::Command::History(history)).await,
        Command::Rmi(remove) => image::run(&context, image::Command::Rm(remove)).await,
        Command::Tag(tag) => image::run(&context, image::Command::Tag(tag)).await,
        Command::Inspect(inspect) => inspect.run(&context).await,
        Command::Info(shown) => system::info(&context, &shown).await,
        Command::Version(shown) => system::version(&context, &shown).await,
        Command::Events(events) => system::events(&context, &events).await,
        Command::Doctor(_) => unreachable!("it has been run without a connection"),
        Command::Plain(command) => container::run_plain(&context, command).await,
    }
}
