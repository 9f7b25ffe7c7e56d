//! Whole states over streams: bulk syncs of tables, and keeping touch with those that are not there: failed members and
//! seeds.

use std::net::SocketAddr;
use std::time::Duration;

use super::entries::event_of;
use super::wire::{self, BulkSyncHead, Encode, TableEvent, change, kind};
use super::{Db, FirstSync, Network, Standing, Via};
use crate::api::Answer;
use crate::context::{Context, Purpose, Timer};
use crate::limits::{MAX_BULK_BYTES, MAX_NETWORKS, MAX_SEEDS};
use crate::message::Name;
use crate::stream;
use crate::swim::Swim;

pub(crate) const BULK_SYNC_INTERVAL: Duration = Duration::from_secs(30);
/// What bulk syncs may cost on average: tables that are larger than 30 s of it are sent less often. Digests find
/// differences between our members sooner.
const BULK_SYNC_BYTES_PER_SECOND: usize = 16 * 1024;
/// How long an answer may take: dockerd's.
const BULK_SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// Members asked for a network's entries when it is joined.
const FIRST_SYNC_PEERS: usize = 2;
/// How long the answer to that may take at first; twice as long with each try.
const FIRST_SYNC_RETRY: Duration = Duration::from_millis(250);
/// A network is brought together with some member out of turn at most this often.
const REPAIR_INTERVAL: Duration = Duration::from_secs(10);
/// How often a failed member is tried; less often in larger clusters, as push/pulls are.
pub(crate) const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
const RECONNECT_SCALE_PER: usize = 256;
/// How often seeds are tried while none of them is a member.
pub(crate) const REJOIN_INTERVAL: Duration = Duration::from_secs(10);

impl Db {
    /// The regular bulk sync: every network once, those that a member shares with us in one go.
    pub(crate) fn bulk_sync_all(&mut self, cx: &mut Context) {
        let mut open: Vec<_> = self.joined().cloned().collect();
        let mut bytes = 0;
        while let Some(id) = open.pop() {
            let picked = self.networks[&id].roster.pick(2, &mut cx.rng);
            let Some(first) = picked.first() else { continue };
            let common = self.common_networks(first);
            open.retain(|other| !common.contains(other));
            bytes += self.send_bulk(cx, first, picked.get(1).cloned(), &common, true);
        }
        let budget = Duration::from_secs((bytes / BULK_SYNC_BYTES_PER_SECOND) as u64);
        let wait = BULK_SYNC_INTERVAL.max(budget);
        cx.after(Timer::BulkSync, wait);
    }

    fn common_networks(&self, node: &Name) -> Vec<Name> {
        self.joined().filter(|id| self.is_attached(node, id)).cloned().collect()
    }

    /// Asks for the entries of networks that were just joined, once there is somebody to ask. A seed is asked among others:
    /// it knows of this member, others may not yet, and do not answer strangers.
    pub(crate) fn first_syncs(&mut self, cx: &mut Context) {
        let wanted: Vec<_> = self
            .networks
            .iter()
            .filter(|(_, it)| it.is_joined() && it.first_sync == FirstSync::Wanted && !it.roster.is_empty())
            .map(|(id, _)| id.clone())
            .collect();
        for id in wanted {
            let network = &self.networks[&id];
            let is_seed = |name: &&Name| self.nodes.get(*name).is_some_and(|it| self.seeds.contains(&it.address));
            let seed = network.roster.iter().find(is_seed).cloned();
            let mut picked = network.roster.pick(FIRST_SYNC_PEERS, &mut cx.rng);
            if let Some(seed) = seed.filter(|seed| !picked.contains(seed)) {
                picked.truncate(FIRST_SYNC_PEERS - 1);
                picked.push(seed);
            }
            let mut sent = 0;
            for peer in picked {
                sent += self.send_bulk(cx, &peer, None, std::slice::from_ref(&id), true);
            }
            let network = self.networks.get_mut(&id).expect("it was just seen");
            network.first_sync_tries += 1;
            if sent > 0 {
                network.first_sync = FirstSync::Asked;
            }
            let wait = FIRST_SYNC_RETRY.saturating_mul(1 << network.first_sync_tries.min(6));
            if !cx.timers.is_set(&Timer::FirstSync) {
                cx.after(Timer::FirstSync, wait);
            }
        }
    }

    /// Asks again where nobody has answered.
    pub(crate) fn retry_first_syncs(&mut self, cx: &mut Context) {
        for network in self.networks.values_mut().filter(|network| network.first_sync == FirstSync::Asked) {
            network.first_sync = FirstSync::Wanted;
        }
        self.first_syncs(cx);
    }

    /// Whether a network's entries were learnt, or there is nobody to learn them from.
    pub(crate) fn has_heard(&self, id: &str) -> bool {
        let Some(network) = self.networks.get(id).filter(|network| network.is_joined()) else { return false };
        let founder = self.seeds.is_empty() || self.nodes.values().any(|node| node.standing == Standing::Active);
        network.first_sync == FirstSync::Done || (founder && network.roster.is_empty())
    }

    /// Sends all entries of `networks` to a member, which answers with its own if they are `unsolicited`. Gives back how
    /// many bytes that was, 0 if it could not be.
    fn send_bulk(
        &mut self,
        cx: &mut Context,
        to: &Name,
        second: Option<Name>,
        networks: &[Name],
        unsolicited: bool,
    ) -> usize {
        let Some(address) = self.nodes.get(to).map(|node| node.address) else { return 0 };
        let payloads = self.payloads(cx.now, networks);
        let (mut sent, last) = (0, payloads.len() - 1);
        for (number, payload) in payloads.into_iter().enumerate() {
            let asks = unsolicited && number == last;
            let time = self.table_clock.next();
            let head = BulkSyncHead { time, unsolicited: asks, node: self.name.to_string(), confirm: false };
            let mut data = head.encode_to_vec();
            networks.iter().for_each(|id| wire::put(wire::BULK_SYNC_NETWORKS, id.as_bytes(), &mut data));
            wire::put(wire::BULK_SYNC_PAYLOAD, &payload, &mut data);
            let message = stream::encode_user(&wire::wrap(kind::BULK_SYNC, &data));
            let purpose =
                if asks { Purpose::BulkSync { to: to.clone(), second: second.clone() } } else { Purpose::BulkAnswer };
            if !cx.dial(address, &message, Answer::None, purpose) {
                return 0;
            }
            if asks {
                self.awaited.insert(to.clone(), time);
                cx.after(Timer::BulkAnswer(to.clone()), BULK_SYNC_TIMEOUT);
            }
            sent += message.len();
        }
        sent
    }

    /// The entries of `networks` as compound messages, tombstones included, as many as their size needs; at least one.
    fn payloads(&self, now: Duration, networks: &[Name]) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        let (mut parts, mut bytes) = (Vec::new(), 0);
        for id in networks {
            // So that a member that has not heard of our being there takes our entries.
            parts.extend(self.presence_in(id));
            for (key, entry) in self.networks.get(id).into_iter().flat_map(|network| network.table.iter()) {
                let kind = if entry.is_deleted() { change::DELETE } else { change::CREATE };
                let part = wire::wrap(kind::TABLE_EVENT, &event_of(now, id, key, kind, entry).encode_to_vec());
                bytes += part.len();
                parts.push(part);
                if bytes > MAX_BULK_BYTES {
                    payloads.push(wire::compound(&std::mem::take(&mut parts)));
                    bytes = 0;
                }
            }
        }
        payloads.push(wire::compound(&parts));
        payloads
    }

    pub(super) fn bulk_sync(&mut self, cx: &mut Context, swim: &mut Swim, data: &[u8], depth: usize) -> Option<()> {
        let head = BulkSyncHead::decode(data).ok()?;
        if !self.table_clock.witness(head.time) {
            return None;
        }
        if let Some(payload) = wire::repeated(data, wire::BULK_SYNC_PAYLOAD).last() {
            self.nested(cx, swim, payload, Via::BulkSync, depth);
        }
        let node = self.word(&head.node);
        let ids: Vec<_> = wire::repeated(data, wire::BULK_SYNC_NETWORKS)
            .take(MAX_NETWORKS)
            .filter_map(|id| self.networks.get_key_value(std::str::from_utf8(id).ok()?))
            .filter(|(_, network)| network.is_joined())
            .map(|(id, _)| id.clone())
            .collect();
        if self.awaited.get(&node).is_some_and(|time| head.time > *time) {
            self.awaited.remove(&node);
            cx.timers.cancel(&Timer::BulkAnswer(node.clone()));
        }
        self.confirm |= head.confirm;
        if head.unsolicited {
            self.send_bulk(cx, &node, None, &ids, false);
        }
        for id in ids {
            self.networks.get_mut(&id).expect("it was just seen").first_sync = FirstSync::Done;
        }
        Some(())
    }

    /// A bulk sync could not be sent: the second choice is asked.
    pub(crate) fn bulk_sync_failed(&mut self, cx: &mut Context, to: &Name, second: Option<Name>) {
        self.awaited.remove(to);
        cx.timers.cancel(&Timer::BulkAnswer(to.clone()));
        if let Some(second) = second {
            let common = self.common_networks(&second);
            self.send_bulk(cx, &second, None, &common, true);
        }
    }

    /// No answer in time.
    pub(crate) fn bulk_answer_missing(&mut self, cx: &mut Context, from: &Name) {
        if self.awaited.remove(from).is_some() {
            cx.counters.bulk_syncs_unanswered += 1;
        }
    }

    /// Brings tables together with a member, in one network or in all.
    pub(crate) fn sync_with(&mut self, cx: &mut Context, peer: &Name, network: Option<&Name>) {
        let networks = match network {
            Some(id) if self.networks.get(id).is_some_and(Network::is_joined) => vec![id.clone()],
            Some(_) => return,
            None => self.common_networks(peer),
        };
        if !networks.is_empty() {
            self.send_bulk(cx, peer, None, &networks, true);
        }
    }

    /// An entry of a member that is not known to be in the network is not taken. If the member is there and never told
    /// that it left the network, we missed its coming: it is asked, not waited for until it is told again.
    pub(super) fn ask_stranger(&mut self, cx: &mut Context, swim: &Swim, event: &TableEvent) {
        let left = self.attachments.get(&*event.node).is_some_and(|networks| networks.contains_key(&*event.network));
        if !left && self.is_active(&event.node) {
            let (id, peer) = (self.word(&event.network), self.word(&event.node));
            self.bring_together(cx, swim, id, peer);
        }
    }

    /// Exchanges all with a member: who is in the network first, as entries of members that are not known to be in it are
    /// not taken, then the network's entries. False if that was done just now, with whomever.
    pub(super) fn bring_together(&mut self, cx: &mut Context, swim: &Swim, id: Name, peer: Name) -> bool {
        let now = cx.now;
        let Some(address) = self.nodes.get(&peer).map(|node| node.address) else { return false };
        let Some(network) = self.networks.get_mut(&id) else { return false };
        if network.repaired.is_some_and(|repaired| now < repaired + REPAIR_INTERVAL) {
            return false;
        }
        network.repaired = Some(now);
        let state = self.push_pull(false);
        cx.dial(address, &swim.push_pull(false, &state), Answer::One, Purpose::Repair(id, peer))
    }

    /// Tries one failed member again: both sides of a split that has healed find together by it.
    pub(crate) fn reconnect(&mut self, cx: &mut Context, swim: &Swim) {
        let scale = 1 + swim.members.len() / RECONNECT_SCALE_PER;
        cx.after(Timer::Reconnect, RECONNECT_INTERVAL * scale as u32);
        let failed: Vec<_> =
            self.nodes.iter().filter(|(_, node)| matches!(node.standing, Standing::Failed(_))).collect();
        if failed.is_empty() {
            return;
        }
        let (name, node) = failed[cx.rng.below(failed.len() as u64) as usize];
        let (name, address) = (name.clone(), node.address);
        let state = self.push_pull(true);
        cx.dial(address, &swim.push_pull(true, &state), Answer::One, Purpose::Reconnect(name));
    }

    /// Takes the addresses to join by, in place of earlier ones.
    pub(crate) fn join(&mut self, cx: &mut Context, swim: &Swim, seeds: &[SocketAddr]) {
        self.seeds = seeds.iter().copied().take(MAX_SEEDS).collect();
        self.rejoin(cx, swim);
    }

    /// Joins by all seeds, unless one of them is a member. Two clusters that came to be when all were started at once
    /// become one by it.
    pub(crate) fn rejoin(&mut self, cx: &mut Context, swim: &Swim) {
        cx.after(Timer::Rejoin, REJOIN_INTERVAL);
        let seeds = self.seeds.iter().filter(|seed| **seed != cx.config.advertise);
        let is_member = |seed: &&SocketAddr| {
            self.nodes.values().any(|node| node.standing == Standing::Active && node.address == **seed)
        };
        if seeds.clone().any(|seed| is_member(&seed)) {
            return;
        }
        let seeds: Vec<_> = seeds.copied().collect();
        for seed in seeds {
            let state = self.push_pull(true);
            cx.dial(seed, &swim.push_pull(true, &state), Answer::One, Purpose::Join(seed));
        }
    }
}
