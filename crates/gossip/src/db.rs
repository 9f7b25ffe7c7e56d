//! What members tell of themselves: NetworkDB. Each member says in which networks it is, and owns entries in tables of
//! those networks; events spread by gossip, whole states by push/pull and bulk syncs. Lamport times say which of two
//! statements is newer.
//!
//! Rules that hold beyond dockerd's, so that no stale entry outlives its bound and members cannot stay apart:
//!
//! * **The owner has the last word.** A member that hears a statement about itself that is not so (an entry it does not
//!   have, a network it is not in, its own departure) contradicts it with a newer time. So whatever brings an old
//!   statement back, a member that was cut off or a replayed packet, it lasts until its owner hears of it.
//! * **A failed member's entries are hidden at once,** kept up to date, and shown again if it returns; they are dropped
//!   before the tombstones of what it may have deleted meanwhile are (`FORGET_AFTER` < `TOMBSTONE`).
//! * **Digests** find what gossip missed, see `digest`.
//! * Two entries with one time are decided by their owners' names, so members cannot disagree for good.

mod digest;
mod entries;
mod presence;
mod push;
mod roster;
mod sync;
mod table;
pub(crate) mod wire;

pub use entries::EntryError;
pub use presence::NetworkError;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::api::{Acquaintance, Change, Entry, Event, Peer, Presence, Sum};
use crate::clock::Clock;
use crate::context::{Context, Timer};
use crate::limits::{MAX_MEMBERS, MAX_MESSAGE_DEPTH, MAX_QUEUE};
use crate::message::Name;
use crate::packet::Refused;
use crate::queue::Queue;
use crate::swim::{MemberChange, Swim, kind_of, peer_of};
use roster::Roster;
use table::{Key, Stored, Table};
use wire::kind;

/// How long a deleted entry is remembered.
pub(crate) const TOMBSTONE: Duration = Duration::from_secs(30 * 60);
/// How long it is remembered that a member left a network: longer than tombstones.
const LEFT_NETWORK: Duration = Duration::from_secs(30 * 60 + 25);
/// How long a failed member's networks and entries are kept: less than tombstones are, by more than it takes to find out
/// that it failed. Otherwise an entry deleted while it was away could come back with it when its tombstone is gone.
pub(crate) const FORGET_AFTER: Duration = Duration::from_secs(25 * 60);
/// How long a member that is gone is tried again, and its name remembered.
const FORGET_NAME_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
const REAP_INTERVAL: Duration = Duration::from_secs(5);

/// Whether a member is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    Active,
    /// It does not answer, since then.
    Failed(Duration),
    /// It left, then.
    Left(Duration),
}

#[derive(Debug)]
struct Node {
    standing: Standing,
    /// The time of its last event.
    time: u64,
    address: SocketAddr,
}

/// A member's presence in a network.
#[derive(Debug)]
struct Attachment {
    time: u64,
    /// It left, and that is remembered until then.
    leaving_until: Option<Duration>,
}

/// How far the first bulk sync of a network is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FirstSync {
    /// Nobody was there to ask, or nobody answered.
    Wanted,
    Asked,
    Done,
}

/// A network that this node is in, or has left.
struct Network {
    time: u64,
    leaving_until: Option<Duration>,
    first_sync: FirstSync,
    /// How often it was asked for.
    first_sync_tries: u32,
    roster: Roster,
    /// Events of our own entries; they go before those of others.
    mine: Queue<Key>,
    relayed: Queue<Key>,
    table: Table,
    repaired: Option<Duration>,
}

impl Network {
    fn new(time: u64) -> Self {
        Self {
            time,
            leaving_until: None,
            first_sync: FirstSync::Wanted,
            first_sync_tries: 0,
            roster: Roster::default(),
            mine: Queue::new(MAX_QUEUE),
            relayed: Queue::new(MAX_QUEUE),
            table: Table::default(),
            repaired: None,
        }
    }

    fn is_joined(&self) -> bool {
        self.leaving_until.is_none()
    }
}

/// How a message came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Via {
    Gossip,
    BulkSync,
}

/// See the module's description.
pub(crate) struct Db {
    name: Name,
    nodes: BTreeMap<Name, Node>,
    /// By member, then by network.
    attachments: BTreeMap<Name, BTreeMap<Name, Attachment>>,
    attachment_count: usize,
    networks: BTreeMap<Name, Network>,
    /// Names that stand in many places are held once.
    words: BTreeSet<Name>,
    network_clock: Clock,
    table_clock: Clock,
    /// The table clock at the last reaping and the one before: what is older than the second has had time to spread.
    settled: [u64; 2],
    /// The time of our last node event.
    time: u64,
    seeds: Vec<SocketAddr>,
    /// Bulk syncs without an answer, with the time that the answer's must exceed.
    awaited: BTreeMap<Name, u64>,
    pushes: push::Pushes,
    /// The message that was just taken asks for a word when its changes have been applied.
    pub(crate) confirm: bool,
    leaving: bool,
}

impl Db {
    pub(crate) fn new(cx: &mut Context) -> Self {
        for (timer, span) in [
            (Timer::Reap, REAP_INTERVAL),
            (Timer::BulkSync, sync::BULK_SYNC_INTERVAL),
            (Timer::Reconnect, sync::RECONNECT_INTERVAL),
            (Timer::Rejoin, sync::REJOIN_INTERVAL),
            (Timer::Digest, digest::INTERVAL),
        ] {
            let wait = span + cx.stagger(span);
            cx.after(timer, wait);
        }
        Self {
            name: cx.config.name.clone(),
            nodes: BTreeMap::new(),
            attachments: BTreeMap::new(),
            attachment_count: 0,
            networks: BTreeMap::new(),
            words: BTreeSet::new(),
            network_clock: Clock::default(),
            table_clock: Clock::default(),
            settled: [0; 2],
            time: 0,
            seeds: Vec::new(),
            awaited: BTreeMap::new(),
            pushes: push::Pushes::default(),
            confirm: false,
            leaving: false,
        }
    }

    /// Takes what memberlist found out.
    pub(crate) fn member_changed(&mut self, cx: &mut Context, swim: &mut Swim, change: MemberChange) {
        match change {
            MemberChange::Up(name) => self.up(cx, swim, &name),
            MemberChange::Failed(name) => self.failed(cx, &name),
            MemberChange::Left(name) => drop(self.left(cx, &name)),
            MemberChange::Accused => self.tell_again(cx, swim),
        }
    }

    fn up(&mut self, cx: &mut Context, swim: &Swim, name: &Name) {
        let Some(member) = swim.members.get(name) else { return };
        let full = self.nodes.len() >= 2 * MAX_MEMBERS;
        let was = match self.nodes.get_mut(name) {
            Some(node) => {
                node.address = member.alive.address;
                std::mem::replace(&mut node.standing, Standing::Active)
            }
            // Those that are gone are remembered for a day, and each restart makes a new name.
            None if full => {
                cx.counters.over_limit += 1;
                return;
            }
            None => {
                let node = Node { standing: Standing::Active, time: 0, address: member.alive.address };
                self.nodes.insert(name.clone(), node);
                return cx.event(Event::PeerUp(peer_of(member)));
            }
        };
        if was == Standing::Active {
            return;
        }
        for (network, _) in
            self.attachments.get(name).into_iter().flatten().filter(|(_, it)| it.leaving_until.is_none())
        {
            if let Some(network) = self.networks.get_mut(network) {
                network.roster.insert(name.clone());
            }
        }
        cx.event(Event::PeerUp(peer_of(member)));
        self.show(cx, name, true);
    }

    fn failed(&mut self, cx: &mut Context, name: &Name) {
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.standing == Standing::Active) else { return };
        node.standing = Standing::Failed(cx.now);
        for network in self.networks.values_mut() {
            network.roster.remove(name);
        }
        self.show(cx, name, false);
        cx.event(Event::PeerDown(name.clone()));
    }

    fn left(&mut self, cx: &mut Context, name: &Name) -> bool {
        let Some(node) = self.nodes.get_mut(name).filter(|node| !matches!(node.standing, Standing::Left(_))) else {
            return false;
        };
        let was = std::mem::replace(&mut node.standing, Standing::Left(cx.now));
        for network in self.networks.values_mut() {
            network.roster.remove(name);
        }
        self.forget(cx, name, was == Standing::Active);
        if was == Standing::Active {
            cx.event(Event::PeerDown(name.clone()));
        }
        true
    }

    /// Tells the user that a member's entries are there again, or not there for now.
    fn show(&self, cx: &mut Context, owner: &Name, visible: bool) {
        for (id, network) in &self.networks {
            for (key, entry) in network.table.iter().filter(|(_, it)| it.owner == *owner && !it.is_deleted()) {
                let entry = Some(outside(entry));
                let (before, after) = if visible { (None, entry) } else { (entry, None) };
                cx.event(changed(id, key, before, after));
            }
        }
    }

    /// Drops all that a member told.
    fn forget(&mut self, cx: &mut Context, owner: &Name, visible: bool) {
        if let Some(attachments) = self.attachments.remove(owner) {
            self.attachment_count -= attachments.len();
        }
        let networks: Vec<_> = self.networks.keys().cloned().collect();
        for network in networks {
            self.drop_entries(cx, &network, owner, visible);
        }
    }

    /// Drops a member's entries in one network, without tombstones: it has no say in it any more.
    fn drop_entries(&mut self, cx: &mut Context, id: &Name, owner: &Name, visible: bool) {
        let Some(network) = self.networks.get_mut(id) else { return };
        for (key, entry) in network.table.remove_where(|_, entry| entry.owner == *owner) {
            if visible && !entry.is_deleted() {
                cx.event(changed(id, &key, Some(outside(&entry)), None));
            }
        }
    }

    fn is_active(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|node| node.standing == Standing::Active)
    }

    /// Whether an entry is to be seen: it exists and its owner is there.
    fn is_visible(&self, entry: &Stored) -> bool {
        !entry.is_deleted() && (entry.owner == self.name || self.is_active(&entry.owner))
    }

    /// Whether a member is in a network, as far as it told; it may have failed.
    fn is_attached(&self, node: &str, network: &str) -> bool {
        let attachment = self.attachments.get(node).and_then(|networks| networks.get(network));
        attachment.is_some_and(|attachment| attachment.leaving_until.is_none())
    }

    /// The one copy of a name.
    fn word(&mut self, text: &str) -> Name {
        if let Some((known, _)) = self.nodes.get_key_value(text) {
            return known.clone();
        }
        if let Some(known) = self.words.get(text) {
            return known.clone();
        }
        let new = Name::from(text);
        self.words.insert(new.clone());
        new
    }

    /// Takes a message from gossip or from a stream.
    pub(crate) fn message(&mut self, cx: &mut Context, swim: &mut Swim, bytes: &[u8]) {
        self.nested(cx, swim, bytes, Via::Gossip, MAX_MESSAGE_DEPTH);
    }

    fn nested(&mut self, cx: &mut Context, swim: &mut Swim, bytes: &[u8], via: Via, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return cx.refuse(Refused::Limit) };
        let Some((kind, data)) = wire::unwrap(bytes) else { return cx.refuse(Refused::Malformed) };
        let taken = match kind {
            kind::NODE_EVENT => self.node_event(cx, swim, data),
            kind::NETWORK_EVENT => self.network_event(cx, swim, data),
            kind::TABLE_EVENT => self.table_event(cx, swim, data, via),
            kind::BULK_SYNC => self.bulk_sync(cx, swim, data, depth),
            kind::COMPOUND => {
                wire::parts(data).for_each(|part| self.nested(cx, swim, part, via, depth));
                Some(())
            }
            _ => None,
        };
        if taken.is_none() {
            cx.refuse(Refused::Malformed);
        }
    }

    /// Forgets what has been gone for long enough.
    pub(crate) fn reap(&mut self, cx: &mut Context) {
        cx.after(Timer::Reap, REAP_INTERVAL);
        self.settled = [self.table_clock.now(), self.settled[0]];
        let now = cx.now;
        for network in self.networks.values_mut() {
            network.table.remove_where(|_, entry| entry.tombstone_until.is_some_and(|until| until <= now));
        }
        let over = |until: Option<Duration>| until.is_some_and(|until| until <= now);
        self.networks.retain(|_, network| !over(network.leaving_until));
        for attachments in self.attachments.values_mut() {
            let before = attachments.len();
            attachments.retain(|_, attachment| !over(attachment.leaving_until));
            self.attachment_count -= before - attachments.len();
        }
        self.attachments.retain(|_, attachments| !attachments.is_empty());
        let dead: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, node)| matches!(node.standing, Standing::Failed(since) if since + FORGET_AFTER <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in dead {
            self.forget(cx, &name, false);
        }
        self.nodes.retain(|_, node| match node.standing {
            Standing::Active => true,
            Standing::Failed(since) | Standing::Left(since) => now < since + FORGET_NAME_AFTER,
        });
        self.words.retain(|word| std::sync::Arc::strong_count(word) > 1);
    }

    /// The other members that are there.
    pub(crate) fn peers(&self, swim: &Swim) -> Vec<Peer> {
        self.nodes.keys().filter(|name| self.is_active(name)).filter_map(|name| self.peer(swim, name)).collect()
    }

    /// The other members that are there, and those that have failed.
    pub(crate) fn acquaintances(&self, swim: &Swim) -> Vec<Acquaintance> {
        let presence = |node: &Node| match node.standing {
            Standing::Active => Some(Presence::There),
            Standing::Failed(_) => Some(Presence::Failed),
            Standing::Left(_) => None,
        };
        let others = self.nodes.iter().filter(|(name, _)| **name != self.name);
        let known = others.filter_map(|(name, node)| Some((self.peer(swim, name)?, presence(node)?)));
        known.map(|(peer, presence)| Acquaintance { peer, presence }).collect()
    }

    /// The other members of a network that are there.
    pub(crate) fn network_peers(&self, swim: &Swim, network: &str) -> Vec<Peer> {
        let roster = self.networks.get(network).filter(|network| network.is_joined()).map(|network| &network.roster);
        roster.into_iter().flat_map(Roster::iter).filter_map(|name| self.peer(swim, name)).collect()
    }

    fn peer(&self, swim: &Swim, name: &Name) -> Option<Peer> {
        let node = self.nodes.get(name)?;
        let meta = swim.members.get(name).map(|member| member.alive.meta.clone()).unwrap_or_default();
        Some(Peer { name: name.clone(), address: node.address, kind: kind_of(&meta) })
    }

    /// The networks that this node is in.
    pub(crate) fn joined(&self) -> impl Iterator<Item = &Name> {
        self.networks.iter().filter(|(_, network)| network.is_joined()).map(|(id, _)| id)
    }

    /// The visible entries of a table, by key.
    pub(crate) fn entries<'a>(&'a self, network: &str, table: &'a str) -> impl Iterator<Item = (&'a Name, Entry)> + 'a {
        self.networks
            .get(network)
            .into_iter()
            .flat_map(|network| network.table.iter())
            .filter(move |((name, _), entry)| &**name == table && self.is_visible(entry))
            .map(|((_, key), entry)| (key, outside(entry)))
    }

    /// What a network's live entries add up to and how many they are; tombstones beside.
    pub(crate) fn contents(&self, network: &str) -> (u64, u64, u64) {
        let Some(network) = self.networks.get(network) else { return (0, 0, 0) };
        let (sum, live) = network.table.digest(u64::MAX);
        (sum, live, network.table.iter().filter(|(_, entry)| entry.is_deleted()).count() as u64)
    }

    /// What a network's entries add up to, where this node has learned them.
    pub(crate) fn sum(&self, network: &str, until: Option<u64>) -> Option<Sum> {
        let network = self.networks.get(network).filter(|it| it.is_joined() && it.first_sync == FirstSync::Done)?;
        let until = until.unwrap_or(self.settled[1]);
        let (sum, entries) = network.table.digest(until);
        Some(Sum { until, sum, entries })
    }

    /// Drops what waits to be spread.
    pub(crate) fn quieten(&mut self) {
        for network in self.networks.values_mut() {
            network.mine.clear();
            network.relayed.clear();
        }
    }

    /// Messages that wait to be spread.
    pub(crate) fn backlog(&self) -> usize {
        self.networks.values().map(|network| network.mine.len() + network.relayed.len()).sum()
    }
}

fn outside(entry: &Stored) -> Entry {
    Entry { owner: entry.owner.clone(), value: entry.value.clone() }
}

fn changed(network: &Name, key: &Key, before: Option<Entry>, after: Option<Entry>) -> Event {
    Event::Changed(Change { network: network.clone(), table: key.0.clone(), key: key.1.clone(), before, after })
}
