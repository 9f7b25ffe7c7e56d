//! Self-repair among our own members: every 10 s each tells some other member what the entries of each network that they
//! share add up to. Where the sums differ, and still do two seconds later, the two bring their knowledge together.
//!
//! A digest is a table event of a table of our own, `skep_digest`, and is sent to one member in a packet: it is neither
//! stored nor spread, so its cost does not grow with the cluster, and members that are not ours are never sent one. (One
//! that got it would treat it as any entry of a table that it does not know.)
//!
//! ```text
//!   A: digest(entries up to a time 5 s ago) ──► B: differs ── 2 s ──► digest again ──► A: differs still: push/pull and
//!                                                                                        bulk sync with B, counted
//! ```

use std::time::Duration;

use super::wire::{self, Digest, Encode, TableEvent, change, kind};
use super::{Db, FirstSync, Network};
use crate::api::{Event, Kind};
use crate::context::{Context, Timer};
use crate::message::{self, Name};
use crate::swim::{Member, Swim, kind_of};

/// The table that digests are in.
pub(super) const TABLE: &str = "skep_digest";
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// How long a difference must last: news on its way get that long to arrive.
const SETTLE: Duration = Duration::from_secs(2);
/// Members looked at to find one that is ours.
const TRIES: usize = 8;
/// Digests that go into one packet.
const PER_PACKET: usize = 8;

impl Db {
    /// Sends each network's digest to some member of ours.
    pub(crate) fn digest_round(&mut self, cx: &mut Context, swim: &Swim) {
        cx.after(Timer::Digest, INTERVAL);
        let mut open: Vec<_> = self.joined().cloned().collect();
        while let Some(id) = open.pop() {
            let network = &self.networks[&id];
            let picked = network.roster.pick(TRIES, &mut cx.rng);
            let ours = picked.iter().filter_map(|name| swim.members.get(name));
            let Some(member) = ours.into_iter().find(|member| kind_of(&member.alive.meta) == Kind::Skep) else {
                continue;
            };
            let mut ids = vec![id];
            open.retain(|other| {
                let shared = ids.len() < PER_PACKET && self.networks[other].roster.contains(&member.alive.node);
                if shared {
                    ids.push(other.clone());
                }
                !shared
            });
            self.send_digests(cx, member, &ids, false);
        }
    }

    fn send_digests(&self, cx: &mut Context, to: &Member, ids: &[Name], again: bool) {
        let mut parts = Vec::new();
        for id in ids {
            let Some(network) = self.networks.get(id).filter(|it| it.is_joined() && it.first_sync == FirstSync::Done)
            else {
                continue;
            };
            let until = self.settled[1];
            let (sum, entries) = network.table.digest(until);
            let event = TableEvent {
                kind: change::UPDATE,
                time: until,
                node: self.name.to_string(),
                network: id.to_string(),
                table: TABLE.to_owned(),
                key: self.name.to_string(),
                value: Digest { until, sum, entries, again }.encode_to_vec(),
                residual_seconds: 0,
            };
            parts.push(wire::wrap(kind::TABLE_EVENT, &event.encode_to_vec()));
        }
        if !parts.is_empty() {
            cx.counters.digests_out += parts.len() as u64;
            let message = message::encode_user(&wire::compound(&parts));
            cx.send(to.alive.address, &message, to.alive.versions.takes_crc());
        }
    }

    /// Compares another's digest with our own entries.
    pub(super) fn digest(&mut self, cx: &mut Context, swim: &Swim, event: &TableEvent) {
        let Ok(theirs) = Digest::decode(event.value.as_slice()) else { return };
        let Some((id, network)) = self.networks.get_key_value(&*event.network) else { return };
        if !network.is_joined() || network.first_sync != FirstSync::Done || !network.roster.contains(&event.node) {
            return;
        }
        if network.table.digest(theirs.until) == (theirs.sum, theirs.entries) {
            return;
        }
        let Some(member) = swim.members.get(&event.node) else { return };
        cx.counters.digests_differing += 1;
        let (id, peer) = (id.clone(), member.alive.node.clone());
        if !theirs.again {
            return cx.after(Timer::Recheck(id, peer), SETTLE);
        }
        if self.bring_together(cx, swim, id.clone(), peer.clone()) {
            cx.counters.divergences += 1;
            cx.event(Event::Diverged { network: id, peer });
        }
    }

    /// The time to settle is over: asks the member to compare again.
    pub(crate) fn recheck(&mut self, cx: &mut Context, swim: &Swim, id: &Name, peer: &Name) {
        if self.networks.get(id).is_some_and(Network::is_joined)
            && let Some(member) = swim.members.get(peer)
        {
            self.send_digests(cx, member, std::slice::from_ref(id), true);
        }
    }
}
