//! The task that owns the state machine: it waits for whatever comes next, passes it in with the time, and does what comes
//! out. It ends when the node has left, or when its owner drops it; its streams end with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use gossip::limits::MAX_PACKET_BYTES;
use gossip::{Change, Entry, Event, Gossip, Name, Output, PushId, StreamAnswer};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::aside::Asides;
use crate::handle::{Command, Pushed, Report, Write};
use crate::streams::{self, Held, Places, StreamEvent};
use crate::watch::{BEHIND, Placed, Subscription, Watcher};

/// Messages of streams that wait for the task.
const STREAM_EVENTS: usize = 64;
/// Watches at once.
const MAX_WATCHES: usize = 1024;
/// How long the listener rests after an error: without descriptors it would fail again at once, for ever.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// See the module's description.
pub(crate) struct Task {
    gossip: Gossip,
    udp: UdpSocket,
    tcp: TcpListener,
    /// Not before then does the listener accept.
    accept_from: Instant,
    start: Instant,
    notices: broadcast::Sender<Event>,
    watchers: Vec<Watcher>,
    streams: JoinSet<()>,
    places: Places,
    held: Held,
    stream_events: (mpsc::Sender<StreamEvent>, mpsc::Receiver<StreamEvent>),
    /// Who waits until a network was heard of.
    listeners: Vec<(Name, oneshot::Sender<()>)>,
    /// Who waits for the end of a push.
    pushes: BTreeMap<PushId, oneshot::Sender<Pushed>>,
    asides: Asides,
    report: Report,
    left: bool,
}

impl Task {
    pub(crate) fn new(
        gossip: Gossip,
        udp: UdpSocket,
        tcp: TcpListener,
        notices: broadcast::Sender<Event>,
        start: Instant,
    ) -> Self {
        Self {
            gossip,
            udp,
            tcp,
            accept_from: start,
            start,
            notices,
            watchers: Vec::new(),
            streams: JoinSet::new(),
            places: Places::default(),
            held: Held::default(),
            stream_events: mpsc::channel(STREAM_EVENTS),
            listeners: Vec::new(),
            pushes: BTreeMap::new(),
            asides: Asides::default(),
            report: Report::default(),
            left: false,
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        // One more than is read, to see what is too large.
        let mut packet = vec![0; MAX_PACKET_BYTES + 1];
        loop {
            self.act();
            if self.left {
                return;
            }
            self.tell_listeners();
            let deadline = self.start + self.gossip.deadline().unwrap_or(Duration::MAX / 4);
            let accepting = Instant::now() >= self.accept_from;
            let wake = if accepting { deadline } else { deadline.min(self.accept_from) };
            // Every arm waits for one thing that stays where it is if another arm is taken: a datagram in the socket, a
            // connection in the listener, an item in a channel, a moment.
            tokio::select! {
                received = self.udp.recv_from(&mut packet) => {
                    // An error is another's: an ICMP message about a packet of ours.
                    if let Ok((length, from)) = received {
                        self.gossip.packet(self.now(), from, &packet[..length]);
                    }
                }
                accepted = self.tcp.accept(), if accepting => match accepted {
                    Ok((stream, from)) => self.accept(stream, from),
                    Err(_) => self.accept_from = Instant::now() + ACCEPT_REST,
                },
                Some(event) = self.stream_events.1.recv() => self.stream_event(event),
                // Without handles the gossip goes on until its owner drops it.
                Some(command) = commands.recv() => self.command(command),
                Some(_) = self.streams.join_next() => {}
                () = sleep_until(wake) => self.gossip.tick(self.now()),
            }
        }
    }

    /// Does what the state machine wants done.
    fn act(&mut self) {
        while let Some(output) = self.gossip.poll() {
            match output {
                Output::Packet { to, bytes } => {
                    // A full socket loses packets as the network does.
                    if self.udp.try_send_to(&bytes, to).is_err() {
                        self.report.packets_unsent += 1;
                    }
                }
                Output::Dial(dial) => {
                    let (secrecy, held) = (self.gossip.secrecy(), self.held.clone());
                    self.streams.spawn(streams::dial(dial, secrecy, held, self.stream_events.0.clone()));
                }
                Output::Event(event) => self.told(event),
            }
        }
    }

    fn tell_listeners(&mut self) {
        self.listeners.retain(|(_, done)| !done.is_closed());
        let gossip = &self.gossip;
        for (_, done) in self.listeners.extract_if(.., |(network, _)| gossip.has_heard(network)) {
            answer(done, ());
        }
    }

    fn told(&mut self, event: Event) {
        match &event {
            Event::Changed(change) => return self.pass(change),
            Event::PeerUp(peer) => {
                tracing::info!(name = %peer.name, address = %peer.address, "gossip: a member is there")
            }
            Event::PeerDown(name) => tracing::info!(%name, "gossip: a member is gone"),
            Event::Joined(seed) => tracing::info!(%seed, "gossip: joined"),
            Event::Diverged { network, peer } => {
                tracing::warn!(%network, %peer, "gossip: tables differ from a member's; bringing them together");
            }
            Event::Refuted(what) => tracing::warn!(?what, "gossip: contradicted an old statement about this node"),
            Event::Conflict { name, address } => {
                tracing::warn!(%name, %address, "gossip: two members claim one name");
            }
            Event::Pushed { id, silent, foreign } => {
                let pushed = Pushed { silent: *silent, foreign: *foreign };
                if let Some(done) = self.pushes.remove(id) {
                    answer(done, pushed);
                }
                return;
            }
            Event::Left => self.left = true,
            Event::Probed { .. } | Event::Answered { .. } | Event::Noted { .. } => return self.asides.told(event),
        }
        // Nobody needs to listen.
        let _ = self.notices.send(event);
    }

    fn pass(&mut self, change: &Change) {
        self.watchers.retain(|watcher| watcher.pass(change));
    }

    fn accept(&mut self, stream: tokio::net::TcpStream, from: SocketAddr) {
        if !self.places.take(from.ip()) {
            self.report.streams_denied += 1;
            return;
        }
        let (secrecy, held) = (self.gossip.secrecy(), self.held.clone());
        self.streams.spawn(streams::serve(stream, from, secrecy, held, self.stream_events.0.clone()));
    }

    fn stream_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Frame { bytes, answer } => {
                // Where it waits for the answer, the stream may have ended.
                match self.gossip.stream(self.now(), &bytes) {
                    StreamAnswer::None => drop(answer.send(None)),
                    StreamAnswer::Now(bytes) => drop(answer.send(Some(bytes))),
                    StreamAnswer::Applied(bytes) => self.when_applied(bytes, answer),
                    StreamAnswer::Asked { from, bytes } => self.asides.asked(from, bytes, answer),
                }
            }
            StreamEvent::Closed { from, whole } => {
                self.places.give_back(from);
                self.report.streams_broken += u64::from(!whole);
            }
            StreamEvent::DialEnded(id, end) => self.gossip.dial_ended(self.now(), id, end),
        }
    }

    /// Answers a stream when all watches have applied what they were told.
    fn when_applied(&mut self, bytes: Vec<u8>, answer: oneshot::Sender<Option<Vec<u8>>>) {
        self.act();
        self.watchers.retain(|watcher| !watcher.changes.is_closed());
        let words: Vec<_> = self.watchers.iter().map(Watcher::confirmed).collect();
        self.streams.spawn(async move {
            let mut applied = true;
            for word in words {
                applied &= word.await.is_ok();
            }
            let _ = answer.send(applied.then_some(bytes));
        });
    }

    /// Does a command.
    fn command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Join(peers) => self.gossip.join(now, &peers),
            Command::JoinNetwork(network, done) => {
                let _ = done.send(self.gossip.join_network(now, &network));
            }
            Command::LeaveNetwork(network, done) => {
                let _ = done.send(self.gossip.leave_network(now, &network));
            }
            Command::Write { network, table, key, write, done } => {
                let key = (&*table, &*key);
                let written = match write {
                    Write::Create(value) => self.gossip.create(now, &network, key, &value),
                    Write::Update(value) => self.gossip.update(now, &network, key, &value),
                    Write::Delete => self.gossip.delete(now, &network, key),
                };
                answer(done, written);
            }
            Command::Entries(network, table, done) => {
                let _ = done.send(self.entries(&network, &table));
            }
            Command::Watch(table, network, done) => self.watch(table, network, done),
            Command::Peers(done) => {
                let _ = done.send(self.gossip.peers());
            }
            Command::NetworkPeers(network, done) => {
                let _ = done.send(self.gossip.network_peers(&network));
            }
            Command::Heard(network, done) => self.listeners.push((network, done)),
            Command::Push(entries, done) => {
                let id = self.gossip.push(now, &entries);
                self.pushes.insert(id, done);
            }
            Command::Aside(command) => self.asides.command(&mut self.gossip, now, command),
            Command::SetKeys(keys, primary, done) => {
                let _ = done.send(self.gossip.set_keys(&keys, primary));
            }
            Command::Report(done) => {
                let _ = done.send(Report {
                    counters: self.gossip.counters().clone(),
                    troubles: self.gossip.troubles(),
                    backlog: self.gossip.backlog(),
                    ..self.report.clone()
                });
            }
            Command::Leave => self.gossip.leave(now),
        }
    }

    fn entries(&self, network: &str, table: &str) -> Vec<(Name, Entry)> {
        self.gossip.entries(network, table).map(|(key, entry)| (key.clone(), entry)).collect()
    }

    fn watch(&mut self, table: Name, network: Option<Name>, done: oneshot::Sender<Subscription>) {
        self.watchers.retain(|watcher| !watcher.changes.is_closed());
        if self.watchers.len() >= MAX_WATCHES {
            // The watch ends as if gossip had stopped.
            return tracing::error!("gossip: more than {MAX_WATCHES} watches");
        }
        // What waits to be told is part of what there is.
        self.act();
        let networks: Vec<Name> = match &network {
            Some(network) => vec![network.clone()],
            None => self.gossip.networks().cloned().collect(),
        };
        let of = |network: &Name| -> Vec<Placed> {
            let entries = self.entries(network, &table).into_iter();
            entries.map(|(key, entry)| (network.clone(), key, entry)).collect()
        };
        let current = networks.iter().flat_map(of).collect();
        let (sender, changes) = mpsc::channel(BEHIND);
        if done.send(Subscription { current, changes }).is_ok() {
            self.watchers.push(Watcher { table, network, changes: sender });
        }
    }
}

/// Who asked may have gone; then the answer has no use.
fn answer<T>(done: oneshot::Sender<T>, value: T) {
    let _ = done.send(value);
}
