//! Entries that are to be known everywhere at once: beside gossip they are sent to every other member of their network over
//! streams. One of ours answers when its user works by them (see `StreamAnswer`); others are told, but give no word.
//!
//! What waits for one member goes in one stream, one after another, so many pushes at once cost each member few streams.

use std::collections::{BTreeMap, VecDeque};

use super::Db;
use super::entries::event_of;
use super::table::Key;
use super::wire::{self, BulkSyncHead, Encode, change, kind};
use crate::api::{Answer, Event, Kind, PushId};
use crate::context::{Context, Purpose};
use crate::limits::{MAX_BULK_BYTES, MAX_PUSH_DIALS, MAX_PUSHED_ENTRIES, MAX_PUSHES};
use crate::message::Name;
use crate::stream;
use crate::swim::{Swim, kind_of};

/// See the module's description.
#[derive(Default)]
pub(super) struct Pushes {
    last: u64,
    open: BTreeMap<PushId, Open>,
    /// By member.
    outboxes: BTreeMap<Name, Outbox>,
    /// Members with something in their outbox and no stream on its way.
    ready: VecDeque<Name>,
    /// Streams on their way.
    dials: usize,
}

/// A push of which not all members are done with.
struct Open {
    /// Members that will be told or answer.
    waiting: usize,
    silent: usize,
    foreign: usize,
}

#[derive(Default)]
struct Outbox {
    waiting: VecDeque<(PushId, Vec<(Name, Key)>)>,
    /// Pushes that the stream on its way carries.
    on_its_way: Option<Vec<PushId>>,
}

/// What a member made of a push.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Word {
    Confirmed,
    Silent,
    Foreign,
}

impl Db {
    /// Pushes entries of ours; `Event::Pushed` tells the end of it.
    pub(crate) fn push(&mut self, cx: &mut Context, swim: &Swim, entries: &[(Name, Key)]) -> PushId {
        self.pushes.last += 1;
        let id = PushId(self.pushes.last);
        let mut by_member: BTreeMap<Name, Vec<(Name, Key)>> = BTreeMap::new();
        for entry in entries.iter().take(MAX_PUSHED_ENTRIES) {
            let network = self.networks.get(&entry.0).filter(|network| network.is_joined());
            for member in network.into_iter().flat_map(|network| network.roster.iter()) {
                by_member.entry(member.clone()).or_default().push(entry.clone());
            }
        }
        let members = by_member.len();
        if members == 0 || self.pushes.open.len() >= MAX_PUSHES || entries.len() > MAX_PUSHED_ENTRIES {
            cx.event(Event::Pushed { id, silent: members, foreign: 0 });
            return id;
        }
        self.pushes.open.insert(id, Open { waiting: members, silent: 0, foreign: 0 });
        for (member, entries) in by_member {
            let outbox = self.pushes.outboxes.entry(member.clone()).or_default();
            if outbox.waiting.is_empty() && outbox.on_its_way.is_none() {
                self.pushes.ready.push_back(member);
            }
            outbox.waiting.push_back((id, entries));
        }
        self.pump(cx, swim);
        id
    }

    /// Opens streams as long as there are places.
    fn pump(&mut self, cx: &mut Context, swim: &Swim) {
        while self.pushes.dials < MAX_PUSH_DIALS
            && let Some(member) = self.pushes.ready.pop_front()
        {
            let (ids, message) = self.batch(cx, &member);
            let node = self.nodes.get(&member);
            let ours = swim.members.get(&member).is_some_and(|member| kind_of(&member.alive.meta) == Kind::Skep);
            let answer = if ours { Answer::One } else { Answer::None };
            let purpose = Purpose::Push { to: member.clone(), ours };
            if node.is_some_and(|node| cx.dial(node.address, &message, answer, purpose)) {
                self.pushes.dials += 1;
                let outbox = self.pushes.outboxes.get_mut(&member);
                outbox.expect("members that are ready have one").on_its_way = Some(ids);
            } else {
                self.pushed(cx, &ids, Word::Silent);
                self.next(&member);
            }
        }
    }

    /// What the next stream to a member carries: whole pushes, as many as one message may hold, one at least.
    fn batch(&mut self, cx: &Context, member: &Name) -> (Vec<PushId>, Vec<u8>) {
        let (mut ids, mut parts, mut networks) = (Vec::new(), Vec::new(), Vec::<Name>::new());
        let mut bytes = 0;
        while bytes < MAX_BULK_BYTES / 2
            && let Some((id, entries)) =
                self.pushes.outboxes.get_mut(member).and_then(|outbox| outbox.waiting.pop_front())
        {
            ids.push(id);
            for (network, key) in entries {
                let known = self.networks.get(&network).filter(|network| network.is_joined());
                let Some(entry) = known.and_then(|known| known.table.get(&key)) else { continue };
                if !networks.contains(&network) {
                    // So that a member that has not heard of our being there takes our entries.
                    parts.extend(self.presence_in(&network));
                    networks.push(network.clone());
                }
                // dockerd takes an update of an endpoint for its being disabled.
                let kind = if entry.is_deleted() { change::DELETE } else { change::UPDATE };
                let event = event_of(cx.now, &network, &key, kind, entry);
                let part = wire::wrap(kind::TABLE_EVENT, &event.encode_to_vec());
                bytes += part.len();
                parts.push(part);
            }
        }
        let time = self.table_clock.next();
        let head = BulkSyncHead { time, unsolicited: false, node: self.name.to_string(), confirm: true };
        let mut data = head.encode_to_vec();
        networks.iter().for_each(|id| wire::put(wire::BULK_SYNC_NETWORKS, id.as_bytes(), &mut data));
        wire::put(wire::BULK_SYNC_PAYLOAD, &wire::compound(&parts), &mut data);
        (ids, stream::encode_user(&wire::wrap(kind::BULK_SYNC, &data)))
    }

    /// A stream of a push has ended; whether the member confirmed it.
    pub(crate) fn push_ended(&mut self, cx: &mut Context, swim: &Swim, to: &Name, ours: bool, confirmed: bool) {
        self.pushes.dials -= 1;
        let outbox = self.pushes.outboxes.get_mut(to).expect("a stream on its way has one");
        let ids = outbox.on_its_way.take().expect("a stream on its way is noted");
        let word = match (ours, confirmed) {
            (false, _) => Word::Foreign,
            (true, true) => Word::Confirmed,
            (true, false) => Word::Silent,
        };
        self.pushed(cx, &ids, word);
        self.next(to);
        self.pump(cx, swim);
    }

    /// After a stream: the member is ready again, or done with.
    fn next(&mut self, member: &Name) {
        match self.pushes.outboxes.get(member) {
            Some(outbox) if !outbox.waiting.is_empty() => self.pushes.ready.push_back(member.clone()),
            Some(_) => drop(self.pushes.outboxes.remove(member)),
            None => {}
        }
    }

    fn pushed(&mut self, cx: &mut Context, ids: &[PushId], word: Word) {
        for id in ids {
            let Some(open) = self.pushes.open.get_mut(id) else { continue };
            open.waiting -= 1;
            open.silent += usize::from(word == Word::Silent);
            open.foreign += usize::from(word == Word::Foreign);
            if open.waiting == 0 {
                let Open { silent, foreign, .. } = self.pushes.open.remove(id).expect("it was just seen");
                cx.event(Event::Pushed { id: *id, silent, foreign });
            }
        }
    }
}
