//! The daemon that a command talks to.

use anyhow::Result;
use client::{Address, Client};

/// Where `skep daemon` listens.
const DEFAULT_ADDRESS: &str = "unix:///run/skep/skep.sock";

/// A connection for one command.
pub(crate) struct Context {
    pub client: Client,
}

impl Context {
    /// Connects to `-H`, else `SKEP_HOST`, else `DOCKER_HOST`, else Skep's own socket.
    pub(crate) async fn open(host: Option<&str>) -> Result<Self> {
        let from_env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = host.map(str::to_owned).or_else(|| from_env("SKEP_HOST")).or_else(|| from_env("DOCKER_HOST"));
        let address: Address = host.as_deref().unwrap_or(DEFAULT_ADDRESS).parse()?;
        let client = Client::connect(address).await?;
        Ok(Self { client })
    }
}
