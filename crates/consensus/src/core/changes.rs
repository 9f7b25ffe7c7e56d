//! Changes of the group: one after the other goes into the log, as raft wants it, and each is settled when it is applied
//! or when leadership is lost.

use super::*;

/// Changes that may wait for the one under way.
const MAX_PENDING: usize = 16;

/// A change that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Why a change of the group does not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Leadership was lost before it was committed, or this manager never led.
    #[error("raft: failed to process the request: node lost leader status")]
    LostLeadership,
    /// Too many wait already.
    #[error("too many changes of the raft group wait")]
    Busy,
    /// The identifier was a member's before.
    #[error("raft: member was removed from the cluster")]
    Removed,
    /// The identifier or the node is a member already.
    #[error("raft: can't add node to the cluster, node already exists")]
    Exists,
    /// It is no member.
    #[error("raft: member not found in cluster")]
    NotMember,
    /// Nobody would be left.
    #[error("raft: the last member cannot be removed")]
    LastMember,
    /// The member lacks a number.
    #[error("raft: a member needs a number that is not zero")]
    NoNumber,
}

fn is_same_node(known: &p::RaftMember, member: &p::RaftMember) -> bool {
    !member.node_id.is_empty() && known.node_id == member.node_id
}

#[derive(Debug)]
pub(super) struct PendingChange {
    ticket: Ticket,
    change: MemberChange,
    /// It is in the log.
    proposed: bool,
}

impl Core {
    /// Asks for a change of the group. It is settled in a later output.
    pub fn change_membership(&mut self, change: MemberChange) -> Result<Ticket, ChangeError> {
        if !self.leads() || self.removed {
            return Err(ChangeError::LostLeadership);
        }
        self.check_change(&change)?;
        if self.changes.len() >= MAX_PENDING {
            return Err(ChangeError::Busy);
        }
        self.tickets += 1;
        // SwarmKit builds these from number, time and counter; any that are unique in the group do.
        let ticket = Ticket((self.config.raft_id << 48) ^ (self.node.raft.term << 24) ^ self.tickets);
        self.changes.push_back(PendingChange { ticket, change, proposed: false });
        Ok(ticket)
    }

    fn check_change(&self, change: &MemberChange) -> Result<(), ChangeError> {
        let raft_id = change.raft_id();
        let members = &self.membership.members;
        match change {
            _ if raft_id == 0 => Err(ChangeError::NoNumber),
            MemberChange::Add(_) if self.membership.removed.contains(&raft_id) => Err(ChangeError::Removed),
            MemberChange::Add(_) if self.voters().contains(&raft_id) => Err(ChangeError::Exists),
            MemberChange::Add(member) if members.values().any(|known| is_same_node(known, member)) => {
                Err(ChangeError::Exists)
            }
            MemberChange::Update(_) if !members.contains_key(&raft_id) => Err(ChangeError::NotMember),
            MemberChange::Remove(_) if !self.voters().contains(&raft_id) => Err(ChangeError::NotMember),
            MemberChange::Remove(_) if self.voters().len() == 1 => Err(ChangeError::LastMember),
            _ => Ok(()),
        }
    }

    /// Puts the oldest waiting change into the log once nothing of the kind is under way there.
    pub(super) fn propose_next_change(&mut self) {
        while self.leads() && !self.node.raft.has_pending_conf() && self.node.raft.lead_transferee.is_none() {
            let Some(next) = self.changes.front().filter(|next| !next.proposed) else { return };
            let (ticket, change) = (next.ticket, next.change.clone());
            if let Err(error) = self.check_change(&change) {
                self.changes.pop_front();
                self.settled.push((ticket, Err(error)));
                continue;
            }
            let mut entry = eraftpb::Entry::new();
            entry.set_entry_type(EntryType::EntryConfChange);
            entry.data = change.to_conf_change(ticket.0).encode_to_vec().into();
            if self.append(vec![entry]).is_err() {
                return;
            }
            if let Some(next) = self.changes.front_mut() {
                next.proposed = true;
            }
        }
    }

    /// Every committed change goes to the library, whatever we think of it; only new addresses are none of its business.
    pub(super) fn apply_change(&mut self, entry: &eraftpb::Entry) {
        let change = match raftpb::ConfChange::decode(&*entry.data) {
            Ok(change) => change,
            Err(error) => return tracing::error!(index = entry.index, %error, "a change of the raft group is skipped"),
        };
        let leader = self.leader();
        self.membership.apply(&change);
        if let mapping::Change::Voters(core) = mapping::conf_change(&change)
            && let Err(error) = self.node.apply_conf_change(&core)
        {
            tracing::error!(index = entry.index, %error, "raft does not take a change of the group");
        }
        let conf_state = self.node.raft.prs().conf().to_conf_state();
        self.node.mut_store().conf_state = conf_state;
        if change.kind == 1 && change.node_id == self.config.raft_id {
            self.leave();
        } else if change.kind == 1 && change.node_id == leader {
            self.lose_leader();
        }
        self.settle(Ticket(change.id), entry.index);
    }

    /// This manager is no member any more: it leads and votes no longer. What it has to send it still sends.
    fn leave(&mut self) {
        self.removed = true;
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, 0);
    }

    /// The leader was removed. Nobody waits for its heartbeats; the voter with the lowest number stands for election at
    /// once, and the others are ready to vote for it. (SwarmKit lets all stand at once, which splits the vote.)
    fn lose_leader(&mut self) {
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, 0);
        self.succeed = self.voters().first() == Some(&self.config.raft_id);
    }

    /// Stands for election in place of a removed leader. Some may not have applied its removal yet and still trust its
    /// lease, so this is a campaign like that of a transfer.
    pub(super) fn succeed_if_due(&mut self) {
        if !std::mem::take(&mut self.succeed) || (self.is_alone() && self.has_unpersisted()) {
            return;
        }
        let mut message = eraftpb::Message::new();
        message.set_msg_type(eraftpb::MessageType::MsgTimeoutNow);
        message.from = self.config.raft_id;
        self.campaigns += 1;
        // What cannot campaign now does so when its time is up.
        self.node.raft.step(message).ok();
        self.pin_election_timeout();
    }

    fn settle(&mut self, ticket: Ticket, index: u64) {
        if self.changes.front().is_some_and(|front| front.ticket == ticket) {
            self.changes.pop_front();
            self.settled.push((ticket, Ok(index)));
        }
    }

    /// Leadership is lost: whether what is in the log gets committed is for others to say.
    pub(super) fn fail_changes(&mut self) {
        let lost = self.changes.drain(..).map(|pending| (pending.ticket, Err(ChangeError::LostLeadership)));
        self.settled.extend(lost);
    }
}
