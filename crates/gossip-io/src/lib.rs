//! The shell around `gossip`: UDP and TCP on port 7946, the clock, randomness. One task owns the state machine; handles
//! send it commands over a bounded channel; streams run beside it and bring it whole messages.
//!
//! ```text
//!   Handle ──commands──►┌──────────────┐◄── packets ── UDP
//!   Watch  ◄──changes───┤ task: Gossip ├──► packets
//!                       └──▲────────┬──┘
//!              whole frames│        │dials, answers
//!                       ┌──┴────────▼──┐
//!                       │ streams: TCP │ bounded in number, bytes and time
//!                       └──────────────┘
//! ```
//!
//! Stopping has two ways: [`Running::leave`] tells the others that this node goes, so its entries are gone at once;
//! dropping [`Running`] says nothing, as for a restart of the daemon: the others notice after some seconds.

#![forbid(unsafe_code)]

mod aside;
mod handle;
mod streams;
mod task;
mod watch;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gossip::{Config, ConfigError, Entropy, Gossip};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use aside::{Question, Visit, Visits};
pub use handle::{Handle, Pushed, Report, Stopped, WriteError};
pub use watch::{Confirm, Watch, WatchEvent};

/// Commands that wait for the task.
const COMMANDS: usize = 256;
/// Notices that a slow receiver may be behind.
const NOTICES: usize = 256;
/// How often a free port is looked for, if none is asked for: another process may hold the same number for TCP.
const BIND_TRIES: usize = 16;

/// How a node gossips.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The member's name, new at every start: see [`random_name`].
    pub name: String,
    /// The address and port for packets and streams; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The address that others reach this node by; the port is the bound one.
    pub advertise: IpAddr,
    /// The size of packets: dockerd's `network-control-plane-mtu` less 100, by default 1400.
    pub packet_bytes: usize,
    /// The keys of the swarm's gossip, as the dispatcher's session brings them. None: in the clear.
    pub keys: Vec<Vec<u8>>,
    /// The index of the key that seals: dockerd takes the second of the keys in order of their Lamport times.
    pub primary: usize,
}

/// Why gossip does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be bound.
    #[error("gossip cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The settings make no member.
    #[error("settings of the gossip")]
    Config(#[from] ConfigError),
}

/// A name as dockerd's members have: 12 hexadecimal digits at random.
pub fn random_name() -> String {
    let mut bytes = [0; 6];
    SystemEntropy(SystemRandom::new()).fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The kernel's randomness.
struct SystemEntropy(SystemRandom);

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        // Without randomness there is no nonce, and to go on would give the key away.
        self.0.fill(bytes).expect("the kernel has randomness");
    }
}

/// Gossip that runs. Dropping it ends it without a word to the others.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Running {
    /// For commands and questions; any number of clones.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Leaves the cluster in order and ends; some seconds at most.
    pub async fn leave(mut self) {
        if self.handle.leave().await.is_ok() {
            // The task ends by itself once the leave has been told; a panic in it has been printed.
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to gossip. The node knows nobody until it joins by some address.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    let (udp, tcp) = bind(settings.bind).await?;
    let port = udp.local_addr().map_err(|source| StartError::Bind { address: settings.bind, source })?.port();
    let mut config = Config::new(settings.name.as_str(), SocketAddr::new(settings.advertise, port));
    config.packet_bytes = settings.packet_bytes;
    let entropy = Box::new(SystemEntropy(SystemRandom::new()));
    let gossip = Gossip::new(config, &settings.keys, settings.primary, entropy, Duration::ZERO)?;
    let (commands, incoming) = mpsc::channel(COMMANDS);
    let (notices, _) = broadcast::channel(NOTICES);
    let handle = Handle::new(commands, notices.clone(), SocketAddr::new(settings.advertise, port));
    let task = task::Task::new(gossip, udp, tcp, notices, Instant::now());
    Ok(Running { handle, task: tokio::spawn(task.run(incoming)) })
}

/// Both sockets with one port.
async fn bind(address: SocketAddr) -> Result<(UdpSocket, TcpListener), StartError> {
    let mut tries = if address.port() == 0 { BIND_TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_both(address).await {
            Err(source) if tries == 0 => return Err(StartError::Bind { address, source }),
            Err(_) => {}
            Ok(both) => return Ok(both),
        }
    }
}

async fn bind_both(mut address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind(address).await?;
    address.set_port(udp.local_addr()?.port());
    Ok((udp, TcpListener::bind(address).await?))
}
