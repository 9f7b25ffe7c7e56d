//! Raft's shell: what the core puts out goes to the disk, to the peers and to the store, in the order that the core asks.

use consensus::StepError;
use consensus::core::{Committed, Delivery, Output, Payload, SnapshotDue};
use manager::core::{Proposal, decode_actions, encode_snapshot};
use prost::Message;
use store::{Event, Object};

use super::*;
use crate::calls::Answer;
use crate::disk::Job;

impl Manager {
    /// Does what the core wants done, then what the leader wants done, until neither wants anything.
    pub(super) fn pump(&mut self, ctx: &mut Ctx) {
        loop {
            while let Some(output) = self.core.output() {
                self.handle(ctx, output);
            }
            self.publish(ctx);
            if !self.lead(ctx) {
                break;
            }
        }
        self.dispatch.send(ctx, self.host, &self.view, self.core.membership());
        self.is_removed |= self.core.is_removed();
    }

    fn handle(&mut self, ctx: &mut Ctx, output: Output) {
        let Output { number, install, records, messages, after, apply, settled, snapshot_due } = output;
        self.send(ctx, messages);
        let empty = records.is_empty();
        let mut early = None;
        if !empty {
            early = self.disk.submit(ctx, self.host, Job::Write { number, install: install.clone(), records });
        }
        self.unpersisted.push_back(Unpersisted { number, empty, install, after });
        for entry in apply {
            self.apply(ctx, entry);
        }
        for (ticket, result) in settled {
            if let Some((from, call)) = self.changes.remove(&ticket) {
                self.joined(ctx, from, call, result.is_ok());
            }
            self.change_settled(ticket);
        }
        if let Some(due) = snapshot_due {
            self.make_snapshot(ctx, due);
        }
        self.release(ctx, early.unwrap_or(0));
    }

    /// What waited for the disk goes on: all up to this output, and the empty ones behind it.
    pub(super) fn release(&mut self, ctx: &mut Ctx, persisted: u64) {
        while self.unpersisted.front().is_some_and(|front| front.empty || front.number <= persisted) {
            let Some(done) = self.unpersisted.pop_front() else { break };
            self.core.persisted(done.number);
            self.send(ctx, done.after);
            if let Some(snapshot) = done.install {
                self.applied = snapshot.metadata.as_ref().map_or(0, |metadata| metadata.index);
                let state = p::Snapshot::decode(snapshot.data.as_slice()).unwrap_or_default();
                ctx.note(format_args!("host {} installs a snapshot at {}", self.host, self.applied));
                self.restore(ctx, state.store.unwrap_or_default());
            }
        }
    }

    fn apply(&mut self, ctx: &mut Ctx, entry: Committed) {
        let data = match &entry.payload {
            Payload::Nothing => &[][..],
            Payload::Request(data) => data,
        };
        let request = p::InternalRaftRequest::decode(data).unwrap_or_default();
        let number = request.id;
        let actions = decode_actions(request.action).map_err(|error| error.to_string());
        let events = actions.and_then(|actions| {
            if ctx.bug == Some(Bug::AppliedTwice) && ctx.one_in(40) {
                self.view.apply(&actions).ok();
            }
            self.view.apply(&actions).map_err(|error| error.to_string())
        });
        let events = events.unwrap_or_else(|error| {
            let text = format!("host {} skipped the entry at {}: {error}", self.host, entry.index);
            ctx.history.fail(Checker::FitsStore, text);
            Vec::new()
        });
        self.digest.take(&events);
        self.applied = entry.index;
        let place = (entry.index, entry.term);
        if entry.index > ctx.history.last_index() {
            note_events(ctx, entry.index, &events);
        }
        ctx.history.applied(self.host, place, number, &events, (&self.view, self.digest));
        self.dispatch.observe(&self.view, &events);
        if self.leading.is_ready() && events.iter().any(|event| matches!(event.object(), Object::Node(_))) {
            self.leading.roles_changed();
        }
        while let Some(waiter) = self.waiters.pop_front_if(|waiter| waiter.index <= entry.index) {
            let committed = waiter.index == entry.index && waiter.term == entry.term;
            self.settled(ctx, waiter.who, waiter.epoch, committed.then_some(entry.index));
        }
    }

    /// Gives a proposal to the core, unless its leadership is over.
    pub(super) fn propose(&mut self, ctx: &mut Ctx, proposal: Proposal, who: Waiting) {
        let Proposal { epoch, term, request } = proposal;
        let appended =
            if term == self.core.term() { self.core.propose(vec![request.encode_to_vec()]).ok() } else { None };
        match appended {
            Some(appended) => {
                let who = match who {
                    Waiting::User { from, call } if ctx.has(Bug::AckBeforeCommit) => {
                        ctx.call(self.host, from, answer(call, Answer::Done { index: appended.first_index }));
                        Waiting::Duty
                    }
                    who => who,
                };
                self.waiters.push_back(Waiter { index: appended.first_index, term: appended.term, epoch, who });
            }
            None => self.settled(ctx, who, epoch, None),
        }
    }

    /// Tells whoever waits what has become of the leadership.
    fn publish(&mut self, ctx: &mut Ctx) {
        if self.core.leader() != self.core.raft_id() {
            for waiter in std::mem::take(&mut self.waiters) {
                self.settled(ctx, waiter.who, waiter.epoch, None);
            }
        } else {
            ctx.history.leads(self.core.term(), self.host);
        }
        let now = self.core.leads_caught_up().then(|| self.core.term());
        if now != self.seen {
            self.seen = now;
            ctx.note(format_args!("host {} raft id {:x} leads: {now:?}", self.host, self.core.raft_id()));
            self.wake_leader_loop(ctx);
        }
    }

    pub(super) fn step(&mut self, ctx: &mut Ctx, from: Host, message: raftpb::Message) {
        let sender = message.from;
        let is_vote = message.kind == raftpb::MessageType::MsgVote as i32
            || message.kind == raftpb::MessageType::MsgPreVote as i32;
        // A vote waits until the candidate has shown that it can be reached.
        if is_vote && ctx.net.is_cut(self.host, from) {
            return;
        }
        match self.core.step(message) {
            Err(StepError::SenderRemoved) => {
                ctx.send(self.host, from, Packet::RaftRemoved { raft_id: sender });
            }
            Err(_) => {}
            Ok(()) => {
                ctx.send(self.host, from, Packet::RaftTaken { by: self.core.raft_id() });
            }
        }
    }

    fn send(&mut self, ctx: &mut Ctx, messages: Vec<raftpb::Message>) {
        for mut message in messages {
            note_vote(ctx, &message);
            let is_snapshot = message.kind == raftpb::MessageType::MsgSnap as i32;
            if let Some(snapshot) = message.snapshot.as_mut().filter(|_| is_snapshot) {
                let index = snapshot.metadata.as_ref().map_or(0, |metadata| metadata.index);
                match self.disk.snapshot_at(index) {
                    Some(stored) => snapshot.data = stored.data,
                    None => {
                        self.core.report_snapshot(message.to, Delivery::Failed);
                        continue;
                    }
                }
            }
            let to = message.to;
            let member = self.core.membership().members.get(&to);
            let is_sent = match member.and_then(|member| host_at(&member.addr)) {
                Some(host) => ctx.send(self.host, host, Packet::Raft(Box::new(message))),
                None => {
                    self.send_stray(ctx, message);
                    continue;
                }
            };
            if !is_sent {
                self.core.report_unreachable(to);
                self.active_since.remove(&to);
            }
            if is_snapshot {
                self.core.report_snapshot(to, if is_sent { Delivery::Done } else { Delivery::Failed });
            }
        }
    }

    /// Sends once to somebody whose address only others know.
    fn send_stray(&mut self, ctx: &mut Ctx, message: raftpb::Message) {
        let own = self.core.raft_id();
        let members = &self.core.membership().members;
        let others: Vec<_> = members.keys().filter(|id| **id != own).copied().collect();
        let some = others.get(ctx.rng.below(others.len() as u64) as usize).copied();
        let asked = self.status().longest_active().or(some);
        let member = asked.and_then(|id| self.core.membership().members.get(&id));
        if let Some(host) = member.and_then(|member| host_at(&member.addr)) {
            ctx.send(self.host, host, Packet::Resolve { message: Box::new(message) });
        }
    }

    fn make_snapshot(&mut self, ctx: &mut Ctx, mut due: SnapshotDue) {
        if ctx.has(Bug::SnapshotWithoutMembership) {
            due.membership = p::ClusterSnapshot::default();
        }
        let index = due.metadata.index;
        let snapshot = due.with_state(encode_snapshot(&self.view.snapshot()));
        if ctx.has(Bug::CompactBeforeSnapshot) {
            self.disk.submit(ctx, self.host, Job::Compact(index));
        }
        self.disk.write_snapshot(ctx, self.host, snapshot, self.key_generation);
    }

    pub(super) fn snapshot_done(&mut self, ctx: &mut Ctx) {
        let Some((index, bytes, generation)) = self.disk.finish_snapshot() else { return };
        let until = self.core.snapshot_stored(index, bytes);
        self.disk.submit(ctx, self.host, Job::Compact(until));
        let Some(rotation) = self.rotation else { return };
        if generation != self.key_generation || index < rotation {
            self.core.want_snapshot(rotation);
            return;
        }
        self.rotation = None;
        self.disk.forget_old_key();
    }
}

/// Whom a message says a vote for: the candidate that it goes to, or that it comes from.
fn note_vote(ctx: &mut Ctx, message: &raftpb::Message) {
    if message.kind == raftpb::MessageType::MsgVote as i32 {
        ctx.history.votes(message.from, message.term, message.from);
    } else if message.kind == raftpb::MessageType::MsgVoteResp as i32 && !message.reject {
        ctx.history.votes(message.from, message.term, message.to);
    }
}

/// What a new entry changes, for the trace.
fn note_events(ctx: &mut Ctx, index: u64, events: &[Event]) {
    for event in events {
        match (event, event.object()) {
            (Event::Remove(_), object) => ctx.note(format_args!("{index}: {:?} is removed", object.id())),
            (_, Object::Task(task)) => {
                let (state, desired) = (task.status.state, task.desired_state);
                let (service, node) = (task.service_id.as_ref(), task.node_id.as_ref());
                let (slot, version) = (task.slot, task.spec_version);
                ctx.note(format_args!(
                    "{index}: {} of {service:?}.{slot} {version:?} on {node:?} is {state:?}, to be {desired:?}",
                    task.id
                ));
            }
            (_, Object::Node(node)) => {
                let (state, role, availability) = (node.status.state, node.role, node.spec.availability);
                ctx.note(format_args!("{index}: {} is {state:?}, {role:?}, {availability:?}", node.id));
            }
            (_, Object::Service(service)) => {
                let (version, status) = (service.spec_version, service.update_status.as_ref().map(|it| it.state));
                ctx.note(format_args!("{index}: {} {version:?} {:?} {status:?}", service.id, service.spec.mode));
            }
            _ => {}
        }
    }
}

/// An answer, packed.
pub(super) fn answer(id: u64, answer: Answer) -> Packet {
    Packet::Answer { id, answer }
}
