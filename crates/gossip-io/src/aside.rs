//! Words with members beside membership and tables: pings, questions and notes, see `gossip`. One user at most takes what
//! others ask and note; without one, or when it is behind, questions have no answer and notes are lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use gossip::{Acquaintance, AsideId, Event, Gossip, Name, Sum, Via};
use tokio::sync::{mpsc, oneshot};

use crate::handle::{Command, Handle, Stopped};

/// What others asked and noted and the user has not taken yet.
const VISITS: usize = 256;

/// What goes back over another's stream.
type StreamAnswer = oneshot::Sender<Option<Vec<u8>>>;

/// A command to the task.
#[derive(Debug)]
pub(crate) enum AsideCommand {
    Members(oneshot::Sender<Vec<Acquaintance>>),
    Sum(Name, Option<u64>, oneshot::Sender<Option<Sum>>),
    Probe { to: SocketAddr, name: Name, via: Via, done: oneshot::Sender<bool> },
    Ask { to: Name, bytes: Vec<u8>, done: oneshot::Sender<Option<Vec<u8>>> },
    Note { to: Name, bytes: Vec<u8>, packet_bytes: usize },
    Answer { bytes: Vec<u8>, answer: StreamAnswer },
    Receive(mpsc::Sender<Arrived>),
}

/// What came for the user.
#[derive(Debug)]
pub(crate) enum Arrived {
    Question { from: Name, bytes: Vec<u8>, answer: StreamAnswer },
    Note { from: Name, bytes: Vec<u8>, packet_bytes: usize },
}

/// What a member wants.
#[derive(Debug)]
pub enum Visit {
    /// An answer.
    Question(Question),
    /// To have told something.
    Note {
        /// The member.
        from: Name,
        /// What it says.
        bytes: Vec<u8>,
        /// How large its packet was.
        packet_bytes: usize,
    },
}

/// A member's question; dropped, it has no answer.
#[derive(Debug)]
pub struct Question {
    /// The member.
    pub from: Name,
    /// What it asks.
    pub bytes: Vec<u8>,
    answer: StreamAnswer,
    handle: Handle,
}

impl Question {
    /// Answers it. One that takes longer than `gossip::limits::ASIDE_TIMEOUT` reaches nobody.
    pub async fn answer(self, bytes: Vec<u8>) {
        // Gossip that has stopped has closed its streams.
        let _ = self.handle.send(Command::Aside(AsideCommand::Answer { bytes, answer: self.answer })).await;
    }
}

/// What others ask and note.
#[derive(Debug)]
pub struct Visits {
    arrived: mpsc::Receiver<Arrived>,
    handle: Handle,
}

impl Visits {
    /// The next one; nothing any more once gossip has stopped, or when another takes them. It may be dropped while it
    /// waits, and nothing is lost.
    pub async fn next(&mut self) -> Option<Visit> {
        Some(match self.arrived.recv().await? {
            Arrived::Question { from, bytes, answer } => {
                Visit::Question(Question { from, bytes, answer, handle: self.handle.clone() })
            }
            Arrived::Note { from, bytes, packet_bytes } => Visit::Note { from, bytes, packet_bytes },
        })
    }
}

impl Handle {
    /// The other members that are there, and those that do not answer and are tried again.
    pub async fn members(&self) -> Result<Vec<Acquaintance>, Stopped> {
        self.ask_task(|done| Command::Aside(AsideCommand::Members(done))).await
    }

    /// What a network's entries add up to: see [`Gossip::sum`].
    pub async fn sum(&self, network: &str, until: Option<u64>) -> Result<Option<Sum>, Stopped> {
        self.ask_task(|done| Command::Aside(AsideCommand::Sum(network.into(), until, done))).await
    }

    /// Pings whoever is at `to`, or only the member `name` if that is not empty. Whether an answer came.
    pub async fn probe(&self, to: SocketAddr, name: &str, via: Via) -> Result<bool, Stopped> {
        self.ask_task(|done| Command::Aside(AsideCommand::Probe { to, name: name.into(), via, done })).await
    }

    /// Asks a member of ours. Nothing if it gives no answer in time.
    pub async fn ask(&self, to: &str, bytes: Vec<u8>) -> Result<Option<Vec<u8>>, Stopped> {
        self.ask_task(|done| Command::Aside(AsideCommand::Ask { to: to.into(), bytes, done })).await
    }

    /// Sends a note to a member of ours in a packet of `packet_bytes`; it may be lost.
    pub async fn note(&self, to: &str, bytes: Vec<u8>, packet_bytes: usize) -> Result<(), Stopped> {
        self.send(Command::Aside(AsideCommand::Note { to: to.into(), bytes, packet_bytes })).await
    }

    /// Takes what members ask and note, in place of whoever did so before.
    pub async fn visits(&self) -> Result<Visits, Stopped> {
        let (sender, arrived) = mpsc::channel(VISITS);
        self.send(Command::Aside(AsideCommand::Receive(sender))).await?;
        Ok(Visits { arrived, handle: self.clone() })
    }
}

/// The task's part.
#[derive(Debug, Default)]
pub(crate) struct Asides {
    probes: BTreeMap<AsideId, oneshot::Sender<bool>>,
    questions: BTreeMap<AsideId, oneshot::Sender<Option<Vec<u8>>>>,
    visitors: Option<mpsc::Sender<Arrived>>,
}

impl Asides {
    /// A member asks. The stream ends without an answer if nobody takes the question.
    pub(crate) fn asked(&self, from: Name, bytes: Vec<u8>, answer: StreamAnswer) {
        self.arrived(Arrived::Question { from, bytes, answer });
    }

    fn arrived(&self, arrived: Arrived) {
        if let Some(visitors) = &self.visitors {
            // A user that is behind misses it; a flood of notes must not be held.
            let _ = visitors.try_send(arrived);
        }
    }

    /// Passes on what the state machine tells.
    pub(crate) fn told(&mut self, event: Event) {
        match event {
            Event::Probed { id, answered } => {
                if let Some(done) = self.probes.remove(&id) {
                    let _ = done.send(answered);
                }
            }
            Event::Answered { id, bytes } => {
                if let Some(done) = self.questions.remove(&id) {
                    let _ = done.send(bytes);
                }
            }
            Event::Noted { from, bytes, packet_bytes } => self.arrived(Arrived::Note { from, bytes, packet_bytes }),
            _ => {}
        }
    }

    /// Does a command; whoever waits for an answer may have gone.
    pub(crate) fn command(&mut self, gossip: &mut Gossip, now: Duration, command: AsideCommand) {
        match command {
            AsideCommand::Members(done) => drop(done.send(gossip.members())),
            AsideCommand::Sum(network, until, done) => drop(done.send(gossip.sum(&network, until))),
            AsideCommand::Probe { to, name, via, done } => {
                let id = gossip.probe(now, to, &name, via);
                self.probes.insert(id, done);
            }
            AsideCommand::Ask { to, bytes, done } => {
                let id = gossip.ask(now, &to, &bytes);
                self.questions.insert(id, done);
            }
            AsideCommand::Note { to, bytes, packet_bytes } => gossip.note(now, &to, &bytes, packet_bytes),
            AsideCommand::Answer { bytes, answer } => drop(answer.send(gossip.seal_answer(&bytes))),
            AsideCommand::Receive(visitors) => self.visitors = Some(visitors),
        }
    }
}
