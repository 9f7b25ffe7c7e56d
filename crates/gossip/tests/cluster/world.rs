//! A cluster in one thread on virtual time: members, and a network between them that loses, delays and cuts. Everything
//! repeats from the seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use gossip::{Answer, Config, DialEnd, DialId, Entry, Event, Framer, Gossip, Name, Output, StreamAnswer};
use stdx::Rng;

pub(crate) const TABLE: &str = "endpoint_table";

/// A member and what its user has been told.
pub(crate) struct Machine {
    pub(crate) gossip: Gossip,
    pub(crate) address: SocketAddr,
    /// What events add up to: by network, table and key.
    pub(crate) view: BTreeMap<(Name, Name, Name), Entry>,
    pub(crate) events: Vec<Event>,
    pub(crate) down: bool,
    /// Its user does not get to work by what it is told.
    pub(crate) stuck: bool,
    scheduled: Option<Duration>,
}

enum Happening {
    Tick(usize),
    Packet { to: SocketAddr, from: SocketAddr, bytes: Vec<u8> },
    Stream { to: SocketAddr, from: usize, id: DialId, bytes: Vec<u8>, answer: Answer, within: Duration },
    DialEnd { node: usize, id: DialId, end: DialEnd },
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) rng: Rng,
    pub(crate) machines: Vec<Machine>,
    /// Packets lost, of a thousand.
    pub(crate) loss: u64,
    /// Machines of different sides do not reach each other.
    pub(crate) sides: Vec<u8>,
    /// Whether packets are kept, to be sent again.
    pub(crate) recording: bool,
    pub(crate) recorded: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) compression: bool,
    by_address: BTreeMap<SocketAddr, usize>,
    queue: BTreeMap<(Duration, u64), Happening>,
    next: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            rng: Rng::new(seed),
            machines: Vec::new(),
            loss: 0,
            sides: Vec::new(),
            recording: false,
            recorded: Vec::new(),
            keys: Vec::new(),
            compression: true,
            by_address: BTreeMap::new(),
            queue: BTreeMap::new(),
            next: 0,
        }
    }

    /// `count` machines that join by the first one and are in `networks`.
    pub(crate) fn cluster(seed: u64, count: usize, networks: &[&str]) -> Self {
        let mut world = Self::new(seed);
        world.grow(count, networks);
        world
    }

    pub(crate) fn grow(&mut self, count: usize, networks: &[&str]) {
        for _ in 0..count {
            let number = self.start(networks);
            if number > 0 {
                self.join(number, 0);
            }
        }
    }

    /// `count` machines in `networks` that have known one another for long: what they would have told one another while
    /// they came one by one is left out, which a large cluster takes minutes for.
    pub(crate) fn settled(seed: u64, count: usize, networks: &[&str]) -> Self {
        let mut world = Self::new(seed);
        world.compression = false;
        let first = world.start(networks);
        // Each comes twice under one name. The first time only the first machine hears of it; what that one knows in the
        // end, all hear the second time.
        let mut all = Vec::new();
        for number in 1..=count {
            // The last one asks once more, now that the first machine knows it, too.
            let number = number.min(count - 1);
            let number = world.start_named(&format!("{number:012x}"), Self::address(number), networks);
            let message = world.join_message(number, first);
            let now = world.now;
            all = world.machines[first].gossip.stream(now, &message.bytes).into_bytes().expect("an answer");
            world.machines.truncate(1);
            world.sides.truncate(1);
        }
        world.queue.clear();
        for number in 1..count {
            let number = world.start_named(&format!("{number:012x}"), Self::address(number), networks);
            let now = world.now;
            world.machines[number].gossip.stream(now, &all).into_bytes().expect("an answer");
            world.machines[number].gossip.quieten();
            world.pump(number);
        }
        world.machines[first].gossip.quieten();
        world.machines[first].scheduled = None;
        world.pump(first);
        world
    }

    /// The push/pull by which a machine joins.
    fn join_message(&mut self, node: usize, seed: usize) -> gossip::Dial {
        let (now, seed) = (self.now, self.machines[seed].address);
        let gossip = &mut self.machines[node].gossip;
        gossip.join(now, &[seed]);
        loop {
            match gossip.poll() {
                Some(Output::Dial(dial)) => return dial,
                Some(_) => {}
                None => panic!("no join"),
            }
        }
    }

    fn address(number: usize) -> SocketAddr {
        ([10, 0, (number / 250) as u8, (number % 250) as u8 + 1], 7946).into()
    }

    /// A new machine in `networks`.
    pub(crate) fn start(&mut self, networks: &[&str]) -> usize {
        self.start_at(Self::address(self.machines.len()), networks)
    }

    pub(crate) fn start_at(&mut self, address: SocketAddr, networks: &[&str]) -> usize {
        let name = format!("{:012x}", self.rng.next_u64() >> 16);
        self.start_named(&name, address, networks)
    }

    fn start_named(&mut self, name: &str, address: SocketAddr, networks: &[&str]) -> usize {
        let number = self.machines.len();
        let mut config = Config::new(name, address);
        config.compression = self.compression;
        let entropy = Box::new(Rng::new(self.rng.next_u64()));
        let mut gossip = Gossip::new(config, &self.keys, 0, entropy, self.now).expect("a configuration");
        for network in networks {
            gossip.join_network(self.now, network).expect("a network");
        }
        self.by_address.insert(address, number);
        self.machines.push(Machine {
            gossip,
            address,
            view: BTreeMap::new(),
            events: Vec::new(),
            down: false,
            stuck: false,
            scheduled: None,
        });
        self.sides.push(0);
        self.pump(number);
        number
    }

    pub(crate) fn join(&mut self, node: usize, seed: usize) {
        let seed = self.machines[seed].address;
        self.act(node, |gossip, now| gossip.join(now, &[seed]));
    }

    /// Calls the member and does what it wants done.
    pub(crate) fn act<R>(&mut self, node: usize, act: impl FnOnce(&mut Gossip, Duration) -> R) -> R {
        let result = act(&mut self.machines[node].gossip, self.now);
        self.pump(node);
        result
    }

    pub(crate) fn create(&mut self, node: usize, network: &str, key: &str, value: &str) {
        self.act(node, |gossip, now| gossip.create(now, network, (TABLE, key), value.as_bytes())).expect("created");
    }

    pub(crate) fn delete(&mut self, node: usize, network: &str, key: &str) {
        self.act(node, |gossip, now| gossip.delete(now, network, (TABLE, key))).expect("deleted");
    }

    fn at(&mut self, at: Duration, happening: Happening) {
        self.next += 1;
        self.queue.insert((at, self.next), happening);
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(200 + self.rng.below(4_000))
    }

    fn reaches(&self, from: usize, to: SocketAddr) -> Option<usize> {
        let to = *self.by_address.get(&to)?;
        (!self.machines[to].down && self.sides[from] == self.sides[to]).then_some(to)
    }

    fn pump(&mut self, node: usize) {
        while let Some(output) = self.machines[node].gossip.poll() {
            match output {
                Output::Packet { to, bytes } => self.packet(node, to, bytes),
                Output::Dial(dial) => {
                    let at = self.now + self.latency();
                    let happening = Happening::Stream {
                        to: dial.to,
                        from: node,
                        id: dial.id,
                        bytes: dial.bytes,
                        answer: dial.answer,
                        within: dial.within,
                    };
                    self.at(at, happening);
                }
                Output::Event(event) => self.told(node, event),
            }
        }
        let machine = &mut self.machines[node];
        let deadline = machine.gossip.deadline();
        if let Some(at) = deadline
            && machine.scheduled.is_none_or(|scheduled| at < scheduled)
        {
            machine.scheduled = Some(at);
            self.at(at, Happening::Tick(node));
        }
    }

    fn packet(&mut self, node: usize, to: SocketAddr, bytes: Vec<u8>) {
        let from = self.machines[node].address;
        if self.recording {
            self.recorded.push((from, to, bytes.clone()));
        }
        if self.rng.below(1000) >= self.loss && self.reaches(node, to).is_some() {
            let at = self.now + self.latency();
            self.at(at, Happening::Packet { to, from, bytes });
        }
    }

    fn told(&mut self, node: usize, event: Event) {
        let machine = &mut self.machines[node];
        if let Event::Changed(change) = &event {
            let key = (change.network.clone(), change.table.clone(), change.key.clone());
            let before = match &change.after {
                Some(entry) => machine.view.insert(key, entry.clone()),
                None => machine.view.remove(&key),
            };
            assert_eq!(before, change.before, "events tell every step: {event:?}");
        } else {
            machine.events.push(event);
        }
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some((&(at, number), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            let happening = self.queue.remove(&(at, number)).expect("it was just seen");
            self.now = at;
            self.happens(happening);
        }
        self.now = end;
    }

    /// Runs until `condition` holds, looked at every tenth of a second; gives back how long it took.
    pub(crate) fn until(&mut self, most: Duration, what: &str, condition: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !condition(self) {
            assert!(self.now - start < most, "not within {most:?}: {what}");
            self.run(Duration::from_millis(100));
        }
        self.now - start
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Tick(node) => {
                let machine = &mut self.machines[node];
                if machine.scheduled.take_if(|at| *at <= self.now).is_none() {
                    return;
                }
                if !machine.down {
                    machine.gossip.tick(self.now);
                    self.pump(node);
                }
            }
            Happening::Packet { to, from, bytes } => self.deliver(to, from, &bytes),
            Happening::Stream { to, from, id, bytes, answer, within } => {
                self.stream(to, (from, id), &bytes, answer, within);
            }
            Happening::DialEnd { node, id, end } => {
                if !self.machines[node].down {
                    self.act(node, |gossip, now| gossip.dial_ended(now, id, end));
                }
            }
        }
    }

    pub(crate) fn deliver(&mut self, to: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        if let Some(&node) = self.by_address.get(&to)
            && !self.machines[node].down
        {
            self.act(node, |gossip, now| gossip.packet(now, from, bytes));
        }
    }

    fn stream(&mut self, to: SocketAddr, (from, id): (usize, DialId), bytes: &[u8], answer: Answer, within: Duration) {
        let Some(node) = self.reaches(from, to) else {
            // Refused at once by a machine that is down, lost in a split.
            let wait = if self.by_address.contains_key(&to) { within } else { Duration::from_millis(1) };
            return self.at(self.now + wait, Happening::DialEnd { node: from, id, end: DialEnd::Failed });
        };
        let mut framer = Framer::new(self.machines[node].gossip.secrecy());
        let back = match framer.push(bytes) {
            Ok(true) => self.act(node, |gossip, now| gossip.stream(now, &framer.into_message())),
            _ => StreamAnswer::None,
        };
        let back = match back {
            // Its user answers with what was asked and by whom.
            StreamAnswer::Asked { from, bytes } => {
                let answer = [from.as_bytes(), b" asked ", &bytes].concat();
                let sealed = self.machines[node].gossip.seal_answer(&answer);
                sealed.map_or(StreamAnswer::None, StreamAnswer::Now)
            }
            other => other,
        };
        let stuck = matches!(back, StreamAnswer::Applied(_)) && self.machines[node].stuck;
        let end = match (answer, back) {
            (Answer::None, _) => DialEnd::Sent,
            (Answer::One, StreamAnswer::Now(frame) | StreamAnswer::Applied(frame)) if !stuck => {
                DialEnd::Answered(frame)
            }
            (Answer::One, _) => DialEnd::Failed,
        };
        let at = self.now + if stuck { within } else { self.latency() };
        self.at(at, Happening::DialEnd { node: from, id, end });
    }

    pub(crate) fn up(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.machines.len()).filter(|node| !self.machines[*node].down)
    }

    /// Whether every machine that is up knows exactly the others that are up.
    pub(crate) fn all_know_all(&self) -> bool {
        let count = self.up().count();
        self.up().all(|node| self.machines[node].gossip.peers().len() == count - 1)
    }

    /// Whether every machine that is up knows that all of them are in a network.
    pub(crate) fn all_in(&self, network: &str) -> bool {
        let count = self.up().count();
        self.up().all(|node| self.machines[node].gossip.network_peers(network).len() == count - 1)
    }

    /// Whether every machine that is up sees exactly these keys in a network.
    pub(crate) fn all_see(&self, network: &str, keys: &[&str]) -> bool {
        self.up().all(|node| self.sees(node, network, keys))
    }

    pub(crate) fn sees(&self, node: usize, network: &str, keys: &[&str]) -> bool {
        let seen = self.machines[node].gossip.entries(network, TABLE);
        seen.map(|(key, _)| &**key).eq(keys.iter().copied())
    }

    /// Whether every machine that is up and in the network holds the same entries.
    pub(crate) fn all_agree(&self, network: &str) -> bool {
        let contents = |node: usize| {
            let (sum, live, _) = self.machines[node].gossip.contents(network);
            (sum, live)
        };
        let mut all = self.up().map(contents);
        let Some(first) = all.next() else { return true };
        all.all(|other| other == first)
    }

    /// That what the users were told is what the members know.
    pub(crate) fn check_views(&self) {
        for node in self.up() {
            let machine = &self.machines[node];
            let mut known = BTreeMap::new();
            for network in machine.gossip.networks() {
                for (key, entry) in machine.gossip.entries(network, TABLE) {
                    known.insert((network.clone(), Name::from(TABLE), key.clone()), entry);
                }
            }
            assert_eq!(known, machine.view, "of machine {node}");
        }
    }

    /// Bytes sent by all machines so far, in packets and streams.
    pub(crate) fn bytes_sent(&self) -> (u64, u64) {
        self.machines.iter().fold((0, 0), |(packets, streams), machine| {
            let counters = machine.gossip.counters();
            (packets + counters.packet_bytes_out, streams + counters.stream_bytes_out)
        })
    }

    /// Bytes per second and machine over `span`, in packets and streams.
    pub(crate) fn measure(&mut self, span: Duration) -> (u64, u64) {
        let before = self.bytes_sent();
        self.run(span);
        let after = self.bytes_sent();
        let per = |bytes: u64| bytes / span.as_secs() / self.up().count() as u64;
        (per(after.0 - before.0), per(after.1 - before.1))
    }
}
