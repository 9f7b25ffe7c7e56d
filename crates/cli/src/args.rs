//! The top of the grammar.

use clap::{Args, Parser, Subcommand};

use crate::{container, doctor, image, inspect, node, secret, service, swarm, system, volume};

/// A container engine and swarm in one binary.
#[derive(Debug, Parser)]
#[command(name = "skep", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Daemon to talk to: unix:///path or tcp://host:port.
    #[arg(short = 'H', long)]
    pub host: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Manage the swarm.
    #[command(subcommand)]
    Swarm(swarm::Command),
    /// Manage services.
    #[command(subcommand)]
    Service(service::Command),
    /// Manage the swarm's nodes.
    #[command(subcommand)]
    Node(node::Command),
    /// Manage secrets.
    #[command(subcommand)]
    Secret(secret::Command),
    /// Manage configs.
    #[command(subcommand)]
    Config(secret::Command),
    /// Manage volumes.
    #[command(subcommand)]
    Volume(volume::Command),
    /// Manage images.
    #[command(subcommand)]
    Image(image::Command),
    /// List images.
    Images(image::List),
    /// Download an image from a registry.
    Pull(Pull),
    /// Load an image from a tar archive.
    Load(image::Load),
    /// Manage containers.
    #[command(subcommand)]
    Container(container::Command),
    /// Show the history of an image.
    History(image::History),
    /// Remove one or more images.
    Rmi(image::Remove),
    /// Create a tag that refers to an image.
    Tag(image::Tag),
    /// Display detailed information on anything that has a name.
    Inspect(inspect::Anything),
    /// What the daemon is and holds.
    Info(system::Shown),
    /// Versions of client and daemon.
    Version(system::Shown),
    /// What happens, as it happens.
    Events(system::Events),
    /// Find what keeps the swarm's networks from working.
    ///
    /// Looks at this machine and at what passes between it and its peers, and says what to do about what is wrong. Exit
    /// code 0: nothing is wrong, 1: there are warnings, 2: something is broken.
    Doctor(doctor::Doctor),
    /// Container commands without the word `container`.
    #[command(flatten)]
    Plain(container::Plain),
}

/// `skep pull`.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Name of the image, with tag or digest.
    pub reference: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_address_is_no_host_of_a_service() {
        let words = ["skep", "-H", "unix:///run/it", "service", "create", "--host", "db:10.0.0.1", "web"];
        let cli = Cli::try_parse_from(words).unwrap();
        assert_eq!(cli.host.as_deref(), Some("unix:///run/it"));
        let text = format!("{:?}", cli.command);
        assert!(text.contains(r#"host: ["db:10.0.0.1"]"#), "{text}");
        let cli = Cli::try_parse_from(["skep", "-H", "unix:///run/it", "service", "create", "web"]).unwrap();
        assert!(format!("{:?}", cli.command).contains("host: []"));
    }
}
