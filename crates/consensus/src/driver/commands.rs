//! What comes to the raft thread, and what it tells of itself.

use super::*;

impl Driver {
    pub(super) fn take(&mut self, command: Command) -> Result<Next, StartError> {
        match command {
            Command::Propose { data, term, done } => self.proposals.push(Proposal { data, term, done }),
            Command::Step(message) => self.step(*message),
            Command::Change { change, done } => match self.core.change_membership(change) {
                Ok(ticket) => drop(self.changes.insert(ticket, done)),
                Err(error) => drop(done.send(Err(error))),
            },
            Command::Transfer { done } => self.transfer(done),
            Command::Campaign => self.core.campaign(),
            Command::SetTiming(timing) => self.set_timing(timing),
            Command::SetSnapshots(policy) => self.core.set_snapshot_policy(policy),
            Command::RotateDek { dek, done } => self.rotate_dek(dek, done),
            Command::Reached { raft_id, at } => {
                self.status.send_modify(|status| {
                    status.active_since.insert(raft_id, at);
                });
            }
            Command::Unreachable { raft_id } => {
                self.core.report_unreachable(raft_id);
                self.status.send_if_modified(|status| status.active_since.remove(&raft_id).is_some());
            }
            Command::SnapshotSent { raft_id, delivery } => self.core.report_snapshot(raft_id, delivery),
            Command::RemovedByPeer => {
                tracing::error!("a peer says that this manager was removed from the group");
                self.status.send_modify(|status| status.removed_from_group = true);
                return Ok(Next::Stop);
            }
            Command::Persisted(number) => self.release(number)?,
            Command::DiskFailed(error) => return Err(*error),
            Command::SnapshotStored { index, bytes, key_generation } => {
                self.snapshot_stored(index, bytes, key_generation);
            }
            Command::SnapshotFailed => self.core.snapshot_failed(),
            Command::Stop => return Ok(Next::Stop),
        }
        Ok(Next::Go)
    }

    fn step(&mut self, message: raftpb::Message) {
        let (kind, from) = (message.kind, message.from);
        if let Err(error) = self.core.step(message) {
            tracing::debug!(kind, from = format_args!("{from:x}"), %error, "a raft message was dropped");
        }
    }

    /// Gives the round's proposals to the core, together.
    pub(super) fn propose_all(&mut self) {
        if self.proposals.is_empty() {
            return;
        }
        let term = self.core.term();
        let mut requests = Vec::with_capacity(self.proposals.len());
        let mut waiting = Vec::with_capacity(self.proposals.len());
        for proposal in self.proposals.drain(..) {
            // What was planned in an earlier leadership must not be written in this one.
            if proposal.term == term {
                requests.push(proposal.data);
                waiting.push(proposal.done);
            } else {
                proposal.done.send(Err(ProposeError::LostLeadership)).ok();
            }
        }
        if requests.is_empty() {
            return;
        }
        match self.core.propose(requests) {
            Ok(appended) => {
                let placed = waiting.into_iter().zip(appended.first_index..);
                self.waiters.extend(placed.map(|(done, index)| Waiter { index, term: appended.term, done }));
                self.last_index.store(self.core.last_index(), Ordering::Release);
            }
            Err(_) => {
                for done in waiting {
                    done.send(Err(ProposeError::LostLeadership)).ok();
                }
            }
        }
    }

    fn transfer(&mut self, done: oneshot::Sender<Result<(), TransferError>>) {
        let target = self.status.borrow().longest_active();
        let result = match target {
            _ if self.core.leader() != self.core.raft_id() => Err(TransferError::NotLeader),
            None => Err(TransferError::NoPeer),
            Some(to) => self.core.transfer_leadership(to).map_err(|_| TransferError::NotLeader),
        };
        match result {
            Ok(()) => self.transfers.push(done),
            Err(error) => drop(done.send(Err(error))),
        }
    }

    pub(super) fn end_transfers(&mut self, result: Result<(), TransferError>) {
        for done in self.transfers.drain(..) {
            // Whoever asked may have gone.
            done.send(result).ok();
        }
    }

    fn set_timing(&mut self, timing: Timing) {
        self.config.timing = timing;
        self.core.set_pre_vote(timing.pre_vote);
        self.next_tick = self.next_tick.min(Instant::now() + timing.tick);
    }

    /// Tells whoever waits what has become of the leadership.
    pub(super) fn publish(&mut self) {
        if self.core.leader() != self.core.raft_id() {
            for waiter in self.waiters.drain(..) {
                waiter.done.send(Err(ProposeError::LostLeadership)).ok();
            }
            if self.core.leader() != 0 {
                self.end_transfers(Ok(()));
            }
        } else if self.core.transferring().is_none() {
            self.end_transfers(Err(TransferError::NotTaken));
        }
        let core = &self.core;
        let membership = core.membership();
        self.status.send_if_modified(|status| {
            status.applied = core.applied_index();
            let members_changed = status.members != membership.members || status.removed != membership.removed;
            if members_changed {
                status.members.clone_from(&membership.members);
                status.removed.clone_from(&membership.removed);
                status.active_since.retain(|id, _| membership.members.contains_key(id));
            }
            let now = (core.leads_caught_up(), core.leader(), core.term());
            let before = (status.leading, status.leader, status.term);
            (status.leading, status.leader, status.term) = now;
            if members_changed {
                self.transport.set_members(core.raft_id(), &membership.members);
            }
            members_changed || now != before
        });
    }
}
