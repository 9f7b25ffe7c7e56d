//! What users hold: commands to the task that owns the state machine, and their answers.

use std::net::SocketAddr;

use gossip::{Counters, Entry, EntryError, Event, KeyError, Name, NetworkError, Peer};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::aside::AsideCommand;
use crate::watch::{Subscription, Watch};

/// Gossip has stopped: it has left, or its task has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("gossip has stopped")]
pub struct Stopped;

/// Why a command was not done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WriteError<E> {
    /// The command cannot be done.
    #[error(transparent)]
    Refused(E),
    /// There is nobody to do it.
    #[error(transparent)]
    Stopped(Stopped),
}

/// What is counted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// By the state machine.
    pub counters: Counters,
    /// How badly this node itself does, 0 to 7.
    pub troubles: u32,
    /// Table events that wait to be spread.
    pub backlog: usize,
    /// Packets that the socket did not take.
    pub packets_unsent: u64,
    /// Streams of others that were closed at once, as too many were open.
    pub streams_denied: u64,
    /// Streams of others that ended without a message: cut off, too slow, no message at all.
    pub streams_broken: u64,
}

/// How a push ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pushed {
    /// Members of ours that have not confirmed it: gone, too slow, unable.
    pub silent: usize,
    /// Members that are not ours: they were told, but give no word.
    pub foreign: usize,
}

/// What to do with an entry.
#[derive(Debug)]
pub(crate) enum Write {
    Create(Vec<u8>),
    Update(Vec<u8>),
    Delete,
}

/// A command or a question to the task.
#[derive(Debug)]
pub(crate) enum Command {
    Join(Vec<SocketAddr>),
    JoinNetwork(Name, oneshot::Sender<Result<(), NetworkError>>),
    LeaveNetwork(Name, oneshot::Sender<Result<(), NetworkError>>),
    Write { network: Name, table: Name, key: Name, write: Write, done: oneshot::Sender<Result<(), EntryError>> },
    Entries(Name, Name, oneshot::Sender<Vec<(Name, Entry)>>),
    Watch(Name, Option<Name>, oneshot::Sender<Subscription>),
    Peers(oneshot::Sender<Vec<Peer>>),
    NetworkPeers(Name, oneshot::Sender<Vec<Peer>>),
    Heard(Name, oneshot::Sender<()>),
    Push(Vec<(Name, Name, Name)>, oneshot::Sender<Pushed>),
    Aside(AsideCommand),
    SetKeys(Vec<Vec<u8>>, usize, oneshot::Sender<Result<(), KeyError>>),
    Report(oneshot::Sender<Report>),
    Leave,
}

/// See the module's description.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    notices: broadcast::Sender<Event>,
    advertise: SocketAddr,
}

impl Handle {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        notices: broadcast::Sender<Event>,
        advertise: SocketAddr,
    ) -> Self {
        Self { commands, notices, advertise }
    }

    /// The address that this node tells others to reach it by.
    pub fn advertise(&self) -> SocketAddr {
        self.advertise
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    pub(crate) async fn ask_task<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (done, answer) = oneshot::channel();
        self.send(command(done)).await?;
        answer.await.map_err(|_| Stopped)
    }

    async fn change<E>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), E>>) -> Command,
    ) -> Result<(), WriteError<E>> {
        self.ask_task(command).await.map_err(WriteError::Stopped)?.map_err(WriteError::Refused)
    }

    /// Joins the cluster by any of `peers`, in place of earlier ones; returns at once. They are tried again until one of
    /// them is a member, and whenever none is any more. `Event::Joined` among the notices tells each that answered.
    pub async fn join(&self, peers: Vec<SocketAddr>) -> Result<(), Stopped> {
        self.send(Command::Join(peers)).await
    }

    /// Comes into a network, by its swarm identifier: this node tells its own entries in it and learns the others'.
    pub async fn join_network(&self, network: &str) -> Result<(), WriteError<NetworkError>> {
        self.change(|done| Command::JoinNetwork(network.into(), done)).await
    }

    /// Waits until this node knows what there was in a network when it came: another member has told, or there is none. For
    /// as long as no seed answers it does not return.
    pub async fn heard(&self, network: &str) -> Result<(), Stopped> {
        self.ask_task(|done| Command::Heard(network.into(), done)).await
    }

    /// Leaves a network. Watches tell that its entries are gone; this node's are gone everywhere.
    pub async fn leave_network(&self, network: &str) -> Result<(), WriteError<NetworkError>> {
        self.change(|done| Command::LeaveNetwork(network.into(), done)).await
    }

    /// Makes an entry that this node owns, in a network that it is in.
    pub async fn create_entry(
        &self,
        network: &str,
        table: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), WriteError<EntryError>> {
        self.write(network, table, key, Write::Create(value)).await
    }

    /// Changes an entry of this node. dockerd takes an update of its `overlay_peer_table` for a deletion, and one of its
    /// `endpoint_table` only to disable a service's endpoint: delete and create again what it is to see.
    pub async fn update_entry(
        &self,
        network: &str,
        table: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), WriteError<EntryError>> {
        self.write(network, table, key, Write::Update(value)).await
    }

    /// Deletes an entry of this node.
    pub async fn delete_entry(&self, network: &str, table: &str, key: &str) -> Result<(), WriteError<EntryError>> {
        self.write(network, table, key, Write::Delete).await
    }

    async fn write(&self, network: &str, table: &str, key: &str, write: Write) -> Result<(), WriteError<EntryError>> {
        let (network, table, key) = (network.into(), table.into(), key.into());
        self.change(|done| Command::Write { network, table, key, write, done }).await
    }

    /// Sends entries of this node, each as network, table and key, to all other members of their networks at once, beside
    /// gossip. Returns when each of ours has applied them (see [`crate::WatchEvent::Confirm`]) or has had its time.
    pub async fn push(&self, entries: Vec<(Name, Name, Name)>) -> Result<Pushed, Stopped> {
        self.ask_task(|done| Command::Push(entries, done)).await
    }

    /// The entries of a table of a network, by key: those of members that are there.
    pub async fn entries(&self, network: &str, table: &str) -> Result<Vec<(Name, Entry)>, Stopped> {
        self.ask_task(|done| Command::Entries(network.into(), table.into(), done)).await
    }

    /// Watches a table in one network or in all: first what there is, then each change, without a gap.
    pub fn watch(&self, table: &str, network: Option<&str>) -> Watch {
        Watch::new(self.clone(), table.into(), network.map(Into::into))
    }

    pub(crate) async fn subscribe(&self, table: Name, network: Option<Name>) -> Result<Subscription, Stopped> {
        self.ask_task(|done| Command::Watch(table, network, done)).await
    }

    /// What happens beside changes of entries: members come and go, differences are found and repaired. Who is slow
    /// misses some.
    pub fn notices(&self) -> broadcast::Receiver<Event> {
        self.notices.subscribe()
    }

    /// The other members of the cluster that are there.
    pub async fn peers(&self) -> Result<Vec<Peer>, Stopped> {
        self.ask_task(Command::Peers).await
    }

    /// The other members of a network that are there; none if this node is not in it.
    pub async fn network_peers(&self, network: &str) -> Result<Vec<Peer>, Stopped> {
        self.ask_task(|done| Command::NetworkPeers(network.into(), done)).await
    }

    /// Takes other keys; the one at `primary` seals, all open. A rotation adds the new key everywhere first, then makes it
    /// the primary one, then drops the oldest.
    pub async fn set_keys(&self, keys: Vec<Vec<u8>>, primary: usize) -> Result<(), WriteError<KeyError>> {
        self.change(|done| Command::SetKeys(keys, primary, done)).await
    }

    /// What was counted since the start.
    pub async fn report(&self) -> Result<Report, Stopped> {
        self.ask_task(Command::Report).await
    }

    pub(crate) async fn leave(&self) -> Result<(), Stopped> {
        self.send(Command::Leave).await
    }
}
