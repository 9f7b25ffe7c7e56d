//! Entries of tables: our own as the user makes them, others' as their events come, and the gossip of both.

use std::sync::Arc;
use std::time::Duration;

use super::presence::refuted;
use super::table::{Full, Key, Stored};
use super::wire::{self, Encode, TableEvent, change, kind};
use super::{Db, FirstSync, Network, TOMBSTONE, Via, changed, digest, outside};
use crate::api::Refuted;
use crate::context::{Context, Timer};
use crate::limits::{MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_QUEUE_ON_SYNC, MAX_VALUE_BYTES};
use crate::message::{self, Name};
use crate::queue::{Queue, retransmit_limit};
use crate::swim::{GOSSIP_FANOUT, Swim};

/// What NetworkDB's compound message adds before its first part, and per part: dockerd's figures.
const COMPOUND_HEAD: usize = 5;
const COMPOUND_PART: usize = 4;
/// A tombstone that a bulk sync brings is only spread if it stands longer than this: others know of it otherwise.
const SPREAD_TOMBSTONE_ABOVE: Duration = Duration::from_secs(5 * 60);

/// How long news of tables wait for others to share a packet with.
const HURRY: Duration = Duration::from_millis(10);

/// Why an entry cannot be made, changed or deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EntryError {
    /// Entries live in networks that this node is in.
    #[error("the network is not joined")]
    NotJoined,
    /// There is one, ours or another's.
    #[error("the entry exists")]
    Exists,
    /// There is none of ours.
    #[error("there is no such entry of this node")]
    Missing,
    /// A name, a key or a value is longer than its limit, or empty.
    #[error("a name, key or value beyond its limit")]
    Limit,
    /// The network holds as much as it may.
    #[error("the network's tables are full")]
    Full,
}

impl Db {
    /// Makes an entry that this node owns.
    pub(crate) fn create(
        &mut self,
        cx: &mut Context,
        id: &str,
        key: (&str, &str),
        value: &[u8],
    ) -> Result<(), EntryError> {
        let entry = self.own_network(id)?.table.get(&(key.0.into(), key.1.into()));
        if entry.is_some_and(|entry| self.is_visible(entry)) {
            return Err(EntryError::Exists);
        }
        self.write(cx, id, key, change::CREATE, Some(value))
    }

    /// Changes an entry of this node.
    pub(crate) fn update(
        &mut self,
        cx: &mut Context,
        id: &str,
        key: (&str, &str),
        value: &[u8],
    ) -> Result<(), EntryError> {
        self.find_mine(id, key)?;
        self.write(cx, id, key, change::UPDATE, Some(value))
    }

    /// Deletes an entry of this node.
    pub(crate) fn delete(&mut self, cx: &mut Context, id: &str, key: (&str, &str)) -> Result<(), EntryError> {
        self.find_mine(id, key)?;
        self.write(cx, id, key, change::DELETE, None)
    }

    fn own_network(&self, id: &str) -> Result<&Network, EntryError> {
        self.networks.get(id).filter(|network| network.is_joined()).ok_or(EntryError::NotJoined)
    }

    fn find_mine(&self, id: &str, key: (&str, &str)) -> Result<(), EntryError> {
        let entry = self.own_network(id)?.table.get(&(key.0.into(), key.1.into()));
        let mine = entry.is_some_and(|entry| entry.owner == self.name && !entry.is_deleted());
        if mine { Ok(()) } else { Err(EntryError::Missing) }
    }

    /// Sets an entry of ours, or its tombstone, with a new time and spreads it.
    fn write(
        &mut self,
        cx: &mut Context,
        id: &str,
        (table, key): (&str, &str),
        kind: i32,
        value: Option<&[u8]>,
    ) -> Result<(), EntryError> {
        let fits = (1..=MAX_NAME_BYTES).contains(&table.len()) && (1..=MAX_KEY_BYTES).contains(&key.len());
        if !fits || value.is_some_and(|value| value.len() > MAX_VALUE_BYTES) || table == digest::TABLE {
            return Err(EntryError::Limit);
        }
        let (id, key) = (self.word(id), (self.word(table), key.into()));
        let time = self.table_clock.next();
        let network = self.networks.get_mut(&id).ok_or(EntryError::NotJoined)?;
        // A tombstone keeps the value: dockerd's watchers look at the value of a deletion.
        let before = network.table.get(&key).cloned();
        let value: Arc<[u8]> = match (value, &before) {
            (Some(value), _) => value.into(),
            (None, before) => before.as_ref().map(|entry| entry.value.clone()).unwrap_or_default(),
        };
        let tombstone = (kind == change::DELETE).then_some(cx.now + TOMBSTONE);
        let entry = Stored::new(&key, self.name.clone(), time, value, tombstone);
        network.table.set(key.clone(), entry.clone()).map_err(|Full| EntryError::Full)?;
        let before = before.filter(|entry| self.is_visible(entry)).as_ref().map(outside);
        let after = (!entry.is_deleted()).then(|| outside(&entry));
        if before.is_some() || after.is_some() {
            cx.event(changed(&id, &key, before, after));
        }
        self.spread(cx, &id, key, kind, &entry);
        Ok(())
    }

    /// Puts an event of our own into the network's gossip. What no packet holds goes by a bulk sync.
    fn spread(&mut self, cx: &mut Context, id: &Name, key: Key, kind: i32, entry: &Stored) {
        let message = wire::wrap(kind::TABLE_EVENT, &event_of(cx.now, id, &key, kind, entry).encode_to_vec());
        let Some(network) = self.networks.get_mut(id) else { return };
        if message.len() > cx.config.packet_bytes - COMPOUND_HEAD - COMPOUND_PART {
            network.mine.remove(&key);
            let soon = cx.now;
            return cx.timers.set(Timer::BulkSync, soon);
        }
        network.mine.push(key, message);
        hurry(cx);
    }

    /// Puts all our live entries of a network into its gossip again.
    pub(super) fn spread_mine(&mut self, cx: &mut Context, id: &Name) {
        let Some(network) = self.networks.get(id) else { return };
        let mine = network.table.iter().filter(|(_, entry)| entry.owner == self.name && !entry.is_deleted());
        let mine: Vec<_> = mine.map(|(key, entry)| (key.clone(), entry.clone())).collect();
        for (key, entry) in mine {
            self.spread(cx, id, key, change::CREATE, &entry);
        }
    }

    /// Makes tombstones of all our entries of a network, which is left: should this node come back before others have
    /// heard that it left, they learn that the entries are gone.
    pub(super) fn bury_mine(&mut self, cx: &mut Context, id: &Name) {
        let Some(network) = self.networks.get_mut(id) else { return };
        let mine = network.table.iter().filter(|(_, entry)| entry.owner == self.name && !entry.is_deleted());
        let mine: Vec<_> = mine.map(|(key, entry)| (key.clone(), entry.value.clone())).collect();
        for (key, value) in mine {
            let until = Some(cx.now + TOMBSTONE);
            let entry = Stored::new(&key, self.name.clone(), self.table_clock.next(), value, until);
            network.table.set(key, entry).expect("the key was there, and the value is the same");
        }
    }

    pub(super) fn table_event(&mut self, cx: &mut Context, swim: &mut Swim, data: &[u8], via: Via) -> Option<()> {
        let event = TableEvent::decode(data).ok()?;
        let fits = event.table.len() <= MAX_NAME_BYTES && event.key.len() <= MAX_KEY_BYTES;
        let known = (change::CREATE..=change::DELETE).contains(&event.kind);
        if !fits || !known || event.value.len() > MAX_VALUE_BYTES || !self.table_clock.witness(event.time) {
            return None;
        }
        if event.table == digest::TABLE {
            self.digest(cx, swim, &event);
            return Some(());
        }
        if !self.networks.get(&*event.network).is_some_and(Network::is_joined) {
            return Some(());
        }
        if *event.node == *self.name {
            self.hear_of_mine(cx, &event);
            return Some(());
        }
        if !self.is_attached(&event.node, &event.network) {
            self.ask_stranger(cx, swim, &event);
        } else if self.hear_entry(cx, &event, via) {
            let subject = (self.word(&event.table), Name::from(event.key));
            let network = self.networks.get_mut(&*event.network).expect("it was just seen");
            if via == Via::Gossip || network.relayed.len() <= MAX_QUEUE_ON_SYNC {
                network.relayed.push(subject, wire::wrap(kind::TABLE_EVENT, data));
                hurry(cx);
            }
        }
        Some(())
    }

    /// Takes another's entry; whether it is to be spread on.
    fn hear_entry(&mut self, cx: &mut Context, event: &TableEvent, via: Via) -> bool {
        let (id, key) = (self.word(&event.network), (self.word(&event.table), Name::from(&*event.key)));
        let owner = self.word(&event.node);
        let network = self.networks.get_mut(&id).expect("the caller has seen it");
        let old = network.table.get(&key);
        // One time twice is only possible for two owners; the names decide it the same way everywhere.
        if old.is_some_and(|old| (old.time, &old.owner) >= (event.time, &owner)) {
            return false;
        }
        let deleted = event.kind == change::DELETE;
        let tombstone = deleted.then(|| cx.now + residual(event.residual_seconds));
        let entry = Stored::new(&key, owner, event.time, event.value.as_slice().into(), tombstone);
        let Ok(old) = network.table.set(key.clone(), entry.clone()) else {
            cx.counters.over_limit += 1;
            return false;
        };
        let in_sync = network.first_sync == FirstSync::Done;
        let before = old.as_ref().filter(|entry| self.is_visible(entry)).map(outside);
        let after = Some(&entry).filter(|entry| self.is_visible(entry)).map(outside);
        if before.is_some() || after.is_some() {
            cx.event(changed(&id, &key, before, after));
        }
        if deleted && old.is_none() {
            // A tombstone of what was not known here: spread only if it is news for sure, or such would go round for ever.
            let stands = residual(event.residual_seconds);
            return via == Via::BulkSync && in_sync && stands > SPREAD_TOMBSTONE_ABOVE;
        }
        in_sync
    }

    /// Somebody tells of an entry of ours. Where it is not so, the owner has the last word.
    fn hear_of_mine(&mut self, cx: &mut Context, event: &TableEvent) {
        let (id, key) = (self.word(&event.network), (self.word(&event.table), Name::from(&*event.key)));
        let Some(network) = self.networks.get_mut(&id) else { return };
        let deleted = event.kind == change::DELETE;
        let (kind, value, tombstone): (_, Arc<[u8]>, _) = match network.table.get(&key) {
            Some(known) if known.time >= event.time => return,
            Some(known) if known.owner == self.name && !known.is_deleted() => {
                (change::UPDATE, known.value.clone(), None)
            }
            // Another's entry in its place is older than what is said of us: it goes with the tombstone.
            _ if deleted => return,
            _ => (change::DELETE, event.value.as_slice().into(), Some(cx.now + TOMBSTONE)),
        };
        let entry = Stored::new(&key, self.name.clone(), self.table_clock.next(), value, tombstone);
        match network.table.set(key.clone(), entry.clone()) {
            Ok(old) => {
                let before = old.filter(|old| old.owner != self.name && self.is_visible(old));
                if let Some(before) = before {
                    cx.event(changed(&id, &key, Some(outside(&before)), None));
                }
            }
            Err(Full) => cx.counters.over_limit += 1,
        }
        self.spread(cx, &id, key, kind, &entry);
        refuted(cx, Refuted::Entry);
    }

    /// Sends what waits in each network to some of its members.
    pub(crate) fn gossip(&mut self, cx: &mut Context, swim: &Swim) {
        self.send_round(cx, swim, Queue::take);
    }

    /// Sends news on that have not been sent at all, which dockerd keeps until the next round. A burst of changes would take
    /// seconds by rounds, as each round is one packet; what is sent again, in case packets are lost, stays with them.
    pub(crate) fn hurry(&mut self, cx: &mut Context, swim: &Swim) {
        self.send_round(cx, swim, Queue::take_fresh);
        let has_fresh =
            |network: &Network| !network.roster.is_empty() && (network.mine.has_fresh() || network.relayed.has_fresh());
        if self.networks.values().any(has_fresh) {
            hurry(cx);
        }
    }

    fn send_round(
        &mut self,
        cx: &mut Context,
        swim: &Swim,
        take: impl Fn(&mut Queue<Key>, usize, usize, usize) -> Vec<Arc<[u8]>>,
    ) {
        for network in self.networks.values_mut() {
            if (network.mine.is_empty() && network.relayed.is_empty()) || network.roster.is_empty() {
                continue;
            }
            let limit = retransmit_limit(network.roster.len() + 1);
            let mut room = cx.config.packet_bytes - COMPOUND_HEAD;
            let mut parts = take(&mut network.mine, COMPOUND_PART, room, limit);
            room -= parts.iter().map(|part| part.len() + COMPOUND_PART).sum::<usize>();
            parts.extend(take(&mut network.relayed, COMPOUND_PART, room, limit));
            if parts.is_empty() {
                continue;
            }
            let picked = network.roster.pick(GOSSIP_FANOUT, &mut cx.rng);
            let message = message::encode_user(&wire::compound(&parts));
            for name in picked {
                if let Some(member) = swim.members.get(&name) {
                    cx.send(member.alive.address, &message, member.alive.versions.takes_crc());
                }
            }
        }
    }
}

/// Soon, together with what comes until then.
fn hurry(cx: &mut Context) {
    if !cx.timers.is_set(&Timer::Hurry) {
        cx.after(Timer::Hurry, HURRY);
    }
}

/// How long a peer's tombstone stands here. Without a word on it, which old members leave out, the whole time.
fn residual(seconds: i32) -> Duration {
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => Duration::from_secs(seconds).min(TOMBSTONE),
        _ => TOMBSTONE,
    }
}

/// The event that tells of an entry.
pub(super) fn event_of(now: Duration, id: &Name, key: &Key, kind: i32, entry: &Stored) -> TableEvent {
    // At least a second: 0 would mean the whole time again.
    let left = entry.tombstone_until.map(|until| until.saturating_sub(now).as_secs().max(1));
    TableEvent {
        kind,
        time: entry.time,
        node: entry.owner.to_string(),
        network: id.to_string(),
        table: key.0.to_string(),
        key: key.1.to_string(),
        value: entry.value.to_vec(),
        residual_seconds: left.unwrap_or(0) as i32,
    }
}
