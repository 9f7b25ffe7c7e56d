//! Finding the dead: each second one member is pinged; without an answer others are asked to ping it, and a stream is
//! tried; without any answer it is suspected. And the answers to others who do the same.

use std::net::SocketAddr;
use std::time::Duration;

use super::{PROBE_INTERVAL, Swim};
use crate::api::Answer;
use crate::context::{Context, Purpose, Timer};
use crate::limits::MAX_RELAYS;
use crate::message::{Accusation, Alive, IndirectPing, Liveness, Name, Ping, encode_ack, encode_nack, kind};
use crate::packet;
use crate::stream::StreamMessage;

/// How long a direct answer may take before others are asked.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// How many are asked.
const INDIRECT_PROBES: usize = 3;

/// The probe that is under way.
#[derive(Debug)]
pub(super) struct Probe {
    sequence: u32,
    node: Name,
    incarnation: u32,
    expected_nacks: u32,
    nacks: u32,
    /// A stream reached the member though packets did not.
    reached_by_stream: bool,
}

/// Another's ping that this node passes on.
#[derive(Debug)]
pub(super) struct Relay {
    origin: SocketAddr,
    sequence: u32,
    nack: bool,
}

/// Two names at one address: pings to both, by number, and whether they were answered.
#[derive(Debug)]
pub(super) struct Contest {
    old: (u32, bool),
    new: (u32, bool),
}

impl Swim {
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn ping_of(&mut self, cx: &Context, node: Name) -> Ping {
        Ping { sequence: self.next_sequence(), node, source: self.source(cx) }
    }

    /// Begins the next probe, unless one is under way.
    pub(crate) fn probe_next(&mut self, cx: &mut Context) {
        cx.after(Timer::Probe, PROBE_INTERVAL);
        if self.probe.is_some() {
            return;
        }
        let mut walked = 0;
        let (alive, liveness) = loop {
            if walked > self.members.len() {
                return;
            }
            walked += 1;
            if self.next_probed >= self.members.len() {
                self.members.new_round(cx.now, &mut cx.rng);
                self.next_probed = 0;
            }
            let Some(member) = self.members.at(self.next_probed) else { return };
            self.next_probed += 1;
            if !member.is_gone() && member.alive.node != self.name {
                break (member.alive.clone(), member.liveness);
            }
        };
        self.probe_member(cx, alive, liveness);
    }

    fn probe_member(&mut self, cx: &mut Context, alive: Alive, liveness: Liveness) {
        let ping = self.ping_of(cx, alive.node.clone());
        // The worse this node does, the longer it waits before it blames another.
        let deadline = cx.now + PROBE_INTERVAL * (self.troubles + 1);
        let takes_crc = alive.versions.takes_crc();
        if liveness == Liveness::Alive {
            self.send(cx, alive.address, &ping.encode(), takes_crc);
        } else {
            // It learns at once that it is suspected.
            let suspicion =
                Accusation { incarnation: alive.incarnation, node: alive.node.clone(), from: self.name.clone() };
            let parts = [ping.encode(), suspicion.encode(kind::SUSPECT)];
            cx.send(alive.address, &packet::compound(&parts), takes_crc);
        }
        cx.timers.set(Timer::ProbeIndirect(ping.sequence), cx.now + PROBE_TIMEOUT);
        cx.timers.set(Timer::ProbeVerdict(ping.sequence), deadline);
        self.probe = Some(Probe {
            sequence: ping.sequence,
            node: alive.node,
            incarnation: alive.incarnation,
            expected_nacks: 0,
            nacks: 0,
            reached_by_stream: false,
        });
    }

    /// No direct answer: asks others and tries a stream.
    pub(crate) fn probe_indirectly(&mut self, cx: &mut Context, sequence: u32) {
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.sequence == sequence) else { return };
        let node = probe.node.clone();
        let Some(target) = self.members.get(&node).map(|member| member.alive.clone()) else { return };
        let helpers: Vec<_> = self
            .members
            .pick(INDIRECT_PROBES, &mut cx.rng, |member| {
                member.liveness == Liveness::Alive && member.alive.node != self.name && member.alive.node != node
            })
            .into_iter()
            .map(|member| (member.alive.address, member.alive.versions))
            .collect();
        let ping = Ping { sequence, node, source: self.source(cx) };
        for (address, versions) in helpers {
            let nack = versions.sends_nack();
            if nack && let Some(probe) = &mut self.probe {
                probe.expected_nacks += 1;
            }
            let indirect = IndirectPing { ping: ping.clone(), target: target.address, nack };
            self.send(cx, address, &indirect.encode(), versions.takes_crc());
        }
        if target.versions.takes_stream_ping() {
            cx.dial(target.address, &ping.encode(), Answer::One, Purpose::Ping(sequence));
        }
    }

    /// The stream that was tried brought a message, or none.
    pub(crate) fn stream_pinged(&mut self, sequence: u32, answer: Option<&StreamMessage<'_>>) {
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.sequence == sequence) {
            probe.reached_by_stream |= answer == Some(&StreamMessage::Ack(sequence));
        }
    }

    /// The time of the probe is over.
    pub(crate) fn probe_verdict(&mut self, cx: &mut Context, sequence: u32) {
        let Some(probe) = self.probe.take_if(|probe| probe.sequence == sequence) else { return };
        if probe.reached_by_stream {
            return self.feel(-1);
        }
        // Helpers that do not even say that they had no answer: it is this node that hears badly.
        let worse = if probe.expected_nacks > 0 { probe.expected_nacks.saturating_sub(probe.nacks) } else { 1 };
        self.feel(worse as i32);
        let accusation = Accusation { incarnation: probe.incarnation, node: probe.node, from: self.name.clone() };
        self.suspect(cx, &accusation);
    }

    pub(super) fn ack(&mut self, cx: &mut Context, sequence: u32) {
        if self.probe.take_if(|probe| probe.sequence == sequence).is_some() {
            cx.timers.cancel(&Timer::ProbeIndirect(sequence));
            cx.timers.cancel(&Timer::ProbeVerdict(sequence));
            return self.feel(-1);
        }
        if let Some(relay) = self.relays.remove(&sequence) {
            cx.timers.cancel(&Timer::Relay(sequence));
            return self.send(cx, relay.origin, &encode_ack(relay.sequence), false);
        }
        for contest in self.contests.values_mut() {
            for ping in [&mut contest.old, &mut contest.new] {
                ping.1 |= ping.0 == sequence;
            }
        }
    }

    pub(super) fn nack(&mut self, sequence: u32) {
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.sequence == sequence) {
            probe.nacks += 1;
        }
    }

    pub(super) fn ping(&mut self, cx: &mut Context, from: SocketAddr, ping: &Ping) {
        if !self.is_for_me(ping) {
            return;
        }
        let to = ping.source.as_ref().map_or(from, |source| source.address);
        self.send(cx, to, &encode_ack(ping.sequence), false);
    }

    /// Whether a ping is meant for this process, not for one that had the address before.
    pub(crate) fn is_for_me(&self, ping: &Ping) -> bool {
        ping.node.is_empty() || ping.node == self.name
    }

    pub(super) fn indirect_ping(&mut self, cx: &mut Context, from: SocketAddr, asked: IndirectPing) {
        if self.relays.len() >= MAX_RELAYS {
            cx.counters.over_limit += 1;
            return;
        }
        let ping = self.ping_of(cx, asked.ping.node);
        let origin = asked.ping.source.as_ref().map_or(from, |source| source.address);
        self.relays.insert(ping.sequence, Relay { origin, sequence: asked.ping.sequence, nack: asked.nack });
        cx.after(Timer::Relay(ping.sequence), PROBE_TIMEOUT);
        self.send(cx, asked.target, &ping.encode(), false);
    }

    /// The ping that was passed on had no answer.
    pub(crate) fn relay_ended(&mut self, cx: &mut Context, sequence: u32) {
        if let Some(relay) = self.relays.remove(&sequence)
            && relay.nack
        {
            self.send(cx, relay.origin, &encode_nack(relay.sequence), false);
        }
    }

    /// A process that was started anew has a new name. Whether the `old` one at its address is really gone, or another's
    /// late gossip has brought back the old name, is asked: both are pinged by name.
    pub(super) fn contest(&mut self, cx: &mut Context, new: &Alive, old: &Name) {
        let pings = [old.clone(), new.node.clone()].map(|name| self.ping_of(cx, name));
        for ping in &pings {
            self.send(cx, new.address, &ping.encode(), new.versions.takes_crc());
        }
        let [old_ping, new_ping] = pings.map(|ping| (ping.sequence, false));
        for (name, contest) in
            [(old, Contest { old: old_ping, new: new_ping }), (&new.node, Contest { old: new_ping, new: old_ping })]
        {
            cx.after(Timer::Contest(name.clone()), PROBE_TIMEOUT);
            self.contests.insert(name.clone(), contest);
        }
    }

    /// The time to answer is over: the name that did not, while the other did, is gone for good.
    pub(crate) fn contest_ended(&mut self, cx: &mut Context, name: &Name) {
        let Some(contest) = self.contests.remove(name) else { return };
        if contest.new.1
            && !contest.old.1
            && let Some(member) = self.members.get(name)
        {
            // By its own word, in effect: nobody else can have its address.
            let accusation =
                Accusation { incarnation: member.alive.incarnation, node: name.clone(), from: name.clone() };
            self.dead(cx, &accusation);
        }
    }
}
