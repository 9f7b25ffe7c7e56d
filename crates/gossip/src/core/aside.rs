//! Words between members beside membership and tables, for whoever looks for what is wrong with a swarm: pings that the user
//! asks for, questions over streams, and notes in packets. What questions and notes say is the user's own; the state machine
//! carries them. They go to our own members only and are never sent in the clear, so that nobody without a key has a member
//! do anything by them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Gossip, Phase};
use crate::api::{Answer, AsideId, Event, Kind, StreamAnswer, Via};
use crate::context::{Context, Purpose, Timer};
use crate::db::wire::{self, Aside, Encode, kind};
use crate::limits::{MAX_ASIDE_BYTES, MAX_NOTE_BYTES, MAX_PACKET_BYTES, MAX_PROBES, PROBE_TIMEOUT};
use crate::message::{self, Ping};
use crate::packet::{self, Refused, Sealing};
use crate::stream::{self, StreamMessage};
use crate::swim::kind_of;

/// What is under way for the user.
#[derive(Default)]
pub(super) struct Asides {
    last: u64,
    /// Pings in packets, by their number.
    pings: BTreeMap<u32, AsideId>,
}

impl Asides {
    fn next(&mut self) -> AsideId {
        self.last += 1;
        AsideId(self.last)
    }

    /// Whether it was a ping of the user's that was answered.
    pub(super) fn acked(&mut self, cx: &mut Context, sequence: u32) -> bool {
        let Some(id) = self.pings.remove(&sequence) else { return false };
        cx.timers.cancel(&Timer::Probed(sequence));
        cx.event(Event::Probed { id, answered: true });
        true
    }

    /// The time for an answer is over.
    pub(super) fn ended(&mut self, cx: &mut Context, sequence: u32) {
        if let Some(id) = self.pings.remove(&sequence) {
            cx.event(Event::Probed { id, answered: false });
        }
    }
}

/// `pad` bytes that make a packet with `message(pad)` as long as `bytes`, as far as they can.
fn padding(bytes: usize, packed: impl Fn(usize) -> usize) -> usize {
    // The head of a longer field is longer by some bytes.
    let pad = bytes.saturating_sub(packed(0));
    pad.saturating_sub(packed(pad).saturating_sub(bytes))
}

impl Gossip {
    /// Pings whoever is at `to`; `Event::Probed` tells whether an answer came. With a `name` only that member answers.
    pub fn probe(&mut self, now: Duration, to: SocketAddr, name: &str, via: Via) -> AsideId {
        self.cx.now = now;
        let id = self.asides.next();
        let source = self.swim.source(&self.cx);
        let ping = |sequence| Ping { sequence, node: name.into(), source: source.clone() };
        let is_under_way = match via {
            Via::Stream => {
                let ping = ping(self.swim.next_sequence());
                self.cx.dial(to, &ping.encode(), Answer::One, Purpose::Probe(id, ping.sequence))
            }
            Via::Packet { bytes } if self.asides.pings.len() < MAX_PROBES => {
                let ping = ping(self.swim.next_sequence());
                let takes_crc = self.swim.members.get(name).is_some_and(|it| it.alive.versions.takes_crc());
                let bytes = bytes.min(MAX_PACKET_BYTES);
                let pad = padding(bytes, |pad| self.cx.padded_len(ping.encode_padded(pad).len(), takes_crc));
                self.cx.send_as_it_is(to, &ping.encode_padded(pad), takes_crc);
                self.cx.after(Timer::Probed(ping.sequence), PROBE_TIMEOUT);
                self.asides.pings.insert(ping.sequence, id);
                true
            }
            Via::Packet { .. } => false,
        };
        if !is_under_way {
            self.cx.event(Event::Probed { id, answered: false });
        }
        id
    }

    /// Asks a member of ours; `Event::Answered` brings what it says, or that it says nothing.
    pub fn ask(&mut self, now: Duration, to: &str, bytes: &[u8]) -> AsideId {
        self.cx.now = now;
        let id = self.asides.next();
        let address = self.ours(to).filter(|_| bytes.len() <= MAX_ASIDE_BYTES);
        let is_under_way = address.is_some_and(|(address, _)| {
            let message = self.aside(kind::QUESTION, bytes, 0);
            self.cx.dial(address, &stream::encode_user(&message), Answer::One, Purpose::Question(id))
        });
        if !is_under_way {
            self.cx.event(Event::Answered { id, bytes: None });
        }
        id
    }

    /// What to send back over the stream that brought a question; nothing if it is too large.
    pub fn seal_answer(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if bytes.len() > MAX_ASIDE_BYTES || self.phase == Phase::Gone {
            return None;
        }
        let message = stream::encode_user(&self.aside(kind::ANSWER, bytes, 0));
        let sealed = stream::seal(self.cx.sealing(), &message).ok()?;
        self.cx.counters.stream_bytes_out += sealed.len() as u64;
        Some(sealed)
    }

    /// Sends a note to a member of ours in a packet of `packet_bytes`, or more if it is longer. It may be lost, and nobody
    /// tells. Nothing is sent to others, nor without a key.
    pub fn note(&mut self, now: Duration, to: &str, bytes: &[u8], packet_bytes: usize) {
        self.cx.now = now;
        let Some((address, takes_crc)) = self.ours(to).filter(|_| bytes.len() <= MAX_NOTE_BYTES) else { return };
        let encoded = |pad| message::encode_user(&self.aside(kind::NOTE, bytes, pad));
        let pad = padding(packet_bytes.min(MAX_PACKET_BYTES), |pad| self.cx.padded_len(encoded(pad).len(), takes_crc));
        let message = encoded(pad);
        self.cx.send_as_it_is(address, &message, takes_crc);
    }

    /// Where a member of ours is and whether it takes checksums; nothing without keys.
    fn ours(&self, name: &str) -> Option<(SocketAddr, bool)> {
        // One that is believed gone, too: what keeps two members apart may be the very thing to be found out.
        let member = self.swim.members.get(name)?;
        let is_ours = kind_of(&member.alive.meta) == Kind::Skep && self.cx.keyring.is_active();
        is_ours.then(|| (member.alive.address, member.alive.versions.takes_crc()))
    }

    fn aside(&self, kind: u64, bytes: &[u8], pad: usize) -> Vec<u8> {
        let aside = Aside { node: self.swim.name.to_string(), bytes: bytes.to_vec(), padding: vec![0; pad] };
        wire::wrap(kind, &aside.encode_to_vec())
    }

    /// Another's aside of `kind`, if `payload` is one and its sender is known.
    fn read_aside(&self, payload: &[u8], kind: u64, limit: usize) -> Option<Result<Aside, Refused>> {
        let (found, data) = wire::unwrap(payload)?;
        if found != kind {
            return None;
        }
        let Ok(aside) = Aside::decode(data) else { return Some(Err(Refused::Malformed)) };
        let is_known = self.ours(&aside.node).is_some() && aside.node != *self.swim.name;
        Some(match aside.bytes.len() {
            0..=usize::MAX if !is_known => Err(Refused::Unopened),
            length if length > limit => Err(Refused::Limit),
            _ => Ok(aside),
        })
    }

    /// Takes a note; false if `payload` is none.
    pub(super) fn take_note(&mut self, payload: &[u8], packet_bytes: usize) -> bool {
        match self.read_aside(payload, kind::NOTE, MAX_NOTE_BYTES) {
            None => return false,
            Some(Err(reason)) => self.cx.refuse(reason),
            Some(Ok(note)) => {
                let from = note.node.as_str().into();
                self.cx.event(Event::Noted { from, bytes: note.bytes, packet_bytes });
            }
        }
        true
    }

    /// The question in `message`, a whole stream's; `None` if it is something else.
    pub(super) fn take_question(&mut self, message: &StreamMessage<'_>) -> Option<StreamAnswer> {
        let StreamMessage::User(payload) = message else { return None };
        Some(match self.read_aside(payload, kind::QUESTION, MAX_ASIDE_BYTES)? {
            Ok(question) => StreamAnswer::Asked { from: question.node.as_str().into(), bytes: question.bytes },
            Err(reason) => {
                self.cx.refuse(reason);
                StreamAnswer::None
            }
        })
    }

    /// The stream of a question ended with `answer`.
    pub(super) fn question_ended(&mut self, id: AsideId, answer: Option<StreamMessage<'_>>) {
        let answer = match answer {
            Some(StreamMessage::User(payload)) => self.read_aside(payload, kind::ANSWER, MAX_ASIDE_BYTES),
            _ => None,
        };
        let bytes = answer.and_then(Result::ok).map(|aside| aside.bytes);
        self.cx.event(Event::Answered { id, bytes });
    }
}

impl Context {
    /// How long the packet of a message of `length` is that is not compressed.
    fn padded_len(&self, length: usize, takes_crc: bool) -> usize {
        length + packet::layers(takes_crc, self.keyring.is_active())
    }

    /// Sends `message` in a packet without compressing it: its length is the point.
    fn send_as_it_is(&mut self, to: SocketAddr, message: &[u8], takes_crc: bool) {
        let sealing = Sealing { compression: false, ..self.sealing() };
        let bytes = packet::pack(sealing, message, takes_crc);
        self.sent(to, bytes);
    }
}
