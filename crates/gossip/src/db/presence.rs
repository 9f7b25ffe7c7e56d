//! Who is there and in which networks: node events, network events, and the push/pull that carries both.

use super::wire::{self, Encode, NetworkEntry, NetworkEvent, NodeEvent, PushPullHead, kind, presence};
use super::{Attachment, Db, FirstSync, LEFT_NETWORK, Network, Standing, changed, outside};
use crate::api::{Event, Refuted};
use crate::context::Context;
use crate::limits::{MAX_ATTACHMENTS, MAX_KEY_BYTES, MAX_NETWORKS};
use crate::message::Name;
use crate::swim::{MemberChange, Swim};

/// Why a network cannot be joined or left.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NetworkError {
    /// This node is in it.
    #[error("the network is joined already")]
    Joined,
    /// This node is not in it.
    #[error("the network is not joined")]
    NotJoined,
    /// In as many as it may be, or the identifier is too long.
    #[error("at most {MAX_NETWORKS} networks with identifiers of {MAX_KEY_BYTES} bytes")]
    Limit,
}

impl Db {
    /// Tells that this node is there, or goes.
    pub(crate) fn tell_node(&mut self, swim: &mut Swim, kind: i32) {
        self.time = self.network_clock.next();
        let event = NodeEvent { kind, time: self.time, node: self.name.to_string() };
        swim.user.nodes.push(self.name.clone(), wire::wrap(kind::NODE_EVENT, &event.encode_to_vec()));
    }

    /// Tells that this node goes; from now on it contradicts nobody who says so.
    pub(crate) fn tell_leave(&mut self, swim: &mut Swim) {
        self.leaving = true;
        self.tell_node(swim, presence::LEAVE);
    }

    /// Tells all about this node again, to members that have forgotten it.
    pub(super) fn tell_again(&mut self, cx: &mut Context, swim: &mut Swim) {
        self.tell_node(swim, presence::JOIN);
        let joined: Vec<_> = self.joined().cloned().collect();
        for id in joined {
            self.tell_network_again(cx, swim, &id);
        }
    }

    /// Tells that this node is there and in which networks, after a push/pull brought it together with others. What was
    /// told before may have reached the one at the other end only, which knows it from the push/pull and says it no
    /// further.
    pub(crate) fn tell_presence(&mut self, swim: &mut Swim) {
        self.tell_node(swim, presence::JOIN);
        let joined: Vec<_> = self.joined().cloned().collect();
        for id in joined {
            self.renew_network(swim, &id);
        }
    }

    /// Tells that this node is in a network, with a new time, and its entries after it.
    fn tell_network_again(&mut self, cx: &mut Context, swim: &mut Swim, id: &Name) {
        self.renew_network(swim, id);
        self.spread_mine(cx, id);
    }

    fn renew_network(&mut self, swim: &mut Swim, id: &Name) {
        let time = self.network_clock.next();
        if let Some(network) = self.networks.get_mut(id) {
            network.time = time;
            self.tell_network(swim, id, presence::JOIN, time);
        }
    }

    fn network_event_of_mine(&self, id: &Name, kind: i32, time: u64) -> Vec<u8> {
        let event = NetworkEvent { kind, time, node: self.name.to_string(), network: id.to_string() };
        wire::wrap(kind::NETWORK_EVENT, &event.encode_to_vec())
    }

    fn tell_network(&mut self, swim: &mut Swim, id: &Name, kind: i32, time: u64) {
        let message = self.network_event_of_mine(id, kind, time);
        if let Some(network) = self.networks.get_mut(id)
            && kind == presence::JOIN
        {
            // Beside the swarm's gossip it goes before our entries in the network's own: a member that has not heard
            // that we are in the network takes no entries from us.
            network.mine.push((Name::default(), Name::default()), message.clone());
        }
        swim.user.networks.push((id.clone(), self.name.clone()), message);
    }

    /// That this node is in the network: what a bulk sync begins with.
    pub(super) fn presence_in(&self, id: &Name) -> Option<Vec<u8>> {
        let network = self.networks.get(id).filter(|network| network.is_joined())?;
        Some(self.network_event_of_mine(id, presence::JOIN, network.time))
    }

    /// Comes into a network.
    pub(crate) fn join_network(&mut self, cx: &mut Context, swim: &mut Swim, id: &str) -> Result<(), NetworkError> {
        let known = self.networks.get(id);
        if known.is_some_and(Network::is_joined) {
            return Err(NetworkError::Joined);
        }
        if id.is_empty() || id.len() > MAX_KEY_BYTES || (known.is_none() && self.networks.len() >= MAX_NETWORKS) {
            return Err(NetworkError::Limit);
        }
        let id = self.word(id);
        let time = self.network_clock.next();
        // Tombstones of ours from an earlier stay go on: others may still have what we deleted.
        let network = self.networks.entry(id.clone()).or_insert_with(|| Network::new(time));
        network.time = time;
        network.leaving_until = None;
        network.first_sync = FirstSync::Wanted;
        let members: Vec<_> =
            self.nodes.keys().filter(|node| self.is_active(node) && self.is_attached(node, &id)).cloned().collect();
        let network = self.networks.get_mut(&id).expect("it was just put in");
        members.into_iter().for_each(|member| network.roster.insert(member));
        self.tell_network(swim, &id, presence::JOIN, time);
        self.first_syncs(cx);
        Ok(())
    }

    /// Leaves a network: its entries are gone for the user, and ours for all others.
    pub(crate) fn leave_network(&mut self, cx: &mut Context, swim: &mut Swim, id: &str) -> Result<(), NetworkError> {
        if !self.networks.get(id).is_some_and(Network::is_joined) {
            return Err(NetworkError::NotJoined);
        }
        let id = self.word(id);
        let network = self.networks.get(&id).expect("it was just seen");
        for (key, entry) in network.table.iter().filter(|(_, entry)| self.is_visible(entry)) {
            cx.event(changed(&id, key, Some(outside(entry)), None));
        }
        self.bury_mine(cx, &id);
        let time = self.network_clock.next();
        let network = self.networks.get_mut(&id).expect("it was just seen");
        network.table.remove_where(|_, entry| entry.owner != self.name);
        network.time = time;
        network.leaving_until = Some(cx.now + LEFT_NETWORK);
        network.roster = Default::default();
        network.mine.clear();
        network.relayed.clear();
        self.tell_network(swim, &id, presence::LEAVE, time);
        Ok(())
    }

    pub(super) fn node_event(&mut self, cx: &mut Context, swim: &mut Swim, data: &[u8]) -> Option<()> {
        let event = NodeEvent::decode(data).ok()?;
        if self.hear_node(cx, swim, &event)? {
            let node = self.word(&event.node);
            swim.user.nodes.push(node, wire::wrap(kind::NODE_EVENT, data));
        }
        Some(())
    }

    /// Whether it was news.
    fn hear_node(&mut self, cx: &mut Context, swim: &mut Swim, event: &NodeEvent) -> Option<bool> {
        if !self.network_clock.witness(event.time) {
            return None;
        }
        if *event.node == *self.name {
            if event.kind == presence::LEAVE && event.time >= self.time && !self.leaving {
                self.tell_again(cx, swim);
                refuted(cx, Refuted::Gone);
            }
            return Some(false);
        }
        let Some(node) = self.nodes.get_mut(&*event.node).filter(|node| node.time < event.time) else {
            return Some(false);
        };
        node.time = event.time;
        let standing = node.standing;
        let name = self.word(&event.node);
        match (event.kind, standing) {
            // A member that is not there for memberlist is not there, whatever its late events say: nobody would notice
            // it going again.
            (presence::JOIN, Standing::Left(_)) if swim.members.get(&name).is_some_and(|it| !it.is_gone()) => {
                self.member_changed(cx, swim, MemberChange::Up(name));
                Some(true)
            }
            (presence::LEAVE, _) => Some(self.left(cx, &name)),
            _ => Some(false),
        }
    }

    pub(super) fn network_event(&mut self, cx: &mut Context, swim: &mut Swim, data: &[u8]) -> Option<()> {
        let event = NetworkEvent::decode(data).ok()?;
        if self.hear_network(cx, swim, &event)? {
            let subject = (self.word(&event.network), self.word(&event.node));
            swim.user.networks.push(subject, wire::wrap(kind::NETWORK_EVENT, data));
            self.first_syncs(cx);
        }
        Some(())
    }

    /// Whether it was news.
    fn hear_network(&mut self, cx: &mut Context, swim: &mut Swim, event: &NetworkEvent) -> Option<bool> {
        if !self.network_clock.witness(event.time) || event.network.len() > MAX_KEY_BYTES {
            return None;
        }
        if *event.node == *self.name {
            self.hear_of_me(cx, swim, event);
            return Some(false);
        }
        let (node, id) = (self.word(&event.node), self.word(&event.network));
        let active = self.is_active(&node);
        let leave = event.kind == presence::LEAVE;
        match self.attachments.get_mut(&node).and_then(|networks| networks.get_mut(&id)) {
            Some(attachment) if attachment.time >= event.time => return Some(false),
            Some(attachment) => {
                attachment.time = event.time;
                attachment.leaving_until = leave.then(|| cx.now + LEFT_NETWORK);
            }
            None if leave || !active => return Some(false),
            None if self.attachment_count >= MAX_ATTACHMENTS => {
                cx.counters.over_limit += 1;
                return Some(false);
            }
            None => {
                let attachment = Attachment { time: event.time, leaving_until: None };
                self.attachments.entry(node.clone()).or_default().insert(id.clone(), attachment);
                self.attachment_count += 1;
            }
        }
        if leave {
            self.drop_entries(cx, &id, &node, active);
        }
        if let Some(network) = self.networks.get_mut(&id).filter(|network| network.is_joined()) {
            if leave {
                network.roster.remove(&node);
            } else if active {
                network.roster.insert(node);
            }
        }
        Some(true)
    }

    /// Somebody says where this node is. Contradicts what is not so, once: then the time is newer than the statement's.
    fn hear_of_me(&mut self, cx: &mut Context, swim: &mut Swim, event: &NetworkEvent) {
        if self.leaving {
            return;
        }
        let known = self.networks.get(&*event.network);
        if known.is_some_and(|network| network.time > event.time) {
            return;
        }
        let joined = known.is_some_and(Network::is_joined);
        match event.kind {
            presence::LEAVE if joined => {
                let id = self.word(&event.network);
                self.tell_network_again(cx, swim, &id);
            }
            presence::JOIN if !joined && (known.is_some() || self.networks.len() < MAX_NETWORKS) => {
                let id = self.word(&event.network);
                let time = self.network_clock.next();
                let network = self.networks.entry(id.clone()).or_insert_with(|| Network::new(time));
                network.time = time;
                network.leaving_until = Some(cx.now + LEFT_NETWORK);
                self.tell_network(swim, &id, presence::LEAVE, time);
            }
            _ => return,
        }
        refuted(cx, Refuted::Network);
    }

    /// All that this node knows of who is in which network. A joining node renews what it says of itself, in case the
    /// other has heard that it left.
    pub(crate) fn push_pull(&mut self, join: bool) -> Vec<u8> {
        if join {
            let time = self.network_clock.next();
            self.networks.values_mut().for_each(|network| network.time = time);
        }
        let head = PushPullHead { time: self.network_clock.now(), node: self.name.to_string() };
        let mut data = head.encode_to_vec();
        let mut put = |node: &Name, network: &Name, time: u64, leaving: bool| {
            let entry = NetworkEntry { network: network.to_string(), time, node: node.to_string(), leaving };
            wire::put(wire::PUSH_PULL_ENTRIES, &entry.encode_to_vec(), &mut data);
        };
        for (id, network) in &self.networks {
            put(&self.name, id, network.time, !network.is_joined());
        }
        for (node, networks) in &self.attachments {
            for (id, attachment) in networks {
                put(node, id, attachment.time, attachment.leaving_until.is_some());
            }
        }
        wire::wrap(kind::PUSH_PULL, &data)
    }

    /// About how large that is.
    pub(crate) fn push_pull_bytes(&self) -> usize {
        self.attachment_count * 48
    }

    /// Another's knowledge.
    pub(crate) fn merge(&mut self, cx: &mut Context, swim: &mut Swim, state: &[u8]) -> Option<()> {
        let (kind, data) = wire::unwrap(state)?;
        if kind != kind::PUSH_PULL {
            return None;
        }
        let head = PushPullHead::decode(data).ok()?;
        self.hear_node(cx, swim, &NodeEvent { kind: presence::JOIN, time: head.time, node: head.node })?;
        for entry in wire::repeated(data, wire::PUSH_PULL_ENTRIES) {
            let NetworkEntry { network, time, node, leaving } = NetworkEntry::decode(entry).ok()?;
            let kind = if leaving { presence::LEAVE } else { presence::JOIN };
            self.hear_network(cx, swim, &NetworkEvent { kind, time, node, network })?;
        }
        // Not before all is heard: of the whole network any member may be asked, not the first one by all newcomers.
        self.first_syncs(cx);
        Some(())
    }
}

pub(super) fn refuted(cx: &mut Context, what: Refuted) {
    cx.counters.refutations += 1;
    cx.event(Event::Refuted(what));
}
