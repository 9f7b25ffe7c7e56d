//! What the kernel's IPsec shall hold, and the steps that lead there: computed, without a kernel.
//!
//! ```text
//! to every node of an encrypted network, over the path  local ──► remote
//!   state   out   the primary key's          by which is sealed
//!   state   in    one for each key           by which is opened; gives the packet the mark
//!   policy  out   own port -> data port, by way of the void: the primary key's state
//! for the own port, whoever the other end is (the locks)
//!   policy  out   from the own port to the data port    blocked: what no policy above takes
//!   policy  in    to the own port, without the mark     blocked: it came out of no state of ours
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::keys::KeyRing;

/// dockerd's label of what is its own; a dockerd that takes this node over clears the states that have it.
pub(crate) const REQUEST_ID: u32 = 0x00d0_c4e3;
/// What has come out of a state of ours; dockerd's mark.
pub(crate) const MARK: u32 = REQUEST_ID;
/// A bit of the mark: policies can ask whether it is missing, but not whether the whole mark is.
pub(super) const MARK_BIT: u32 = 0x0080_0000;
/// Order among policies. Those of others, an IKE daemon's for all traffic between two nodes, come later.
const SEAL_PRIORITY: u32 = 1;
/// Also the label by which locks are known as ours.
pub(super) const LOCK_PRIORITY: u32 = 0xd0c4;
/// Packets after which a state that seals is made anew: at 2³² the kernel sends no more by it, and the next key may be hours
/// away.
pub(super) const WORN_PACKETS: u64 = 1 << 31;

/// A node of an encrypted network as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path {
    /// This node's tunnel address.
    pub(crate) local: Ipv4Addr,
    /// The other's.
    pub(crate) remote: Ipv4Addr,
    /// UDP port of the tunnels on the wire.
    pub(crate) data_port: u16,
}

/// What follows from this node's encrypted networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The UDP port that is the encrypted networks' own, with the ports of their tunnels on the wire; `None` without any.
    pub(crate) ports: Option<(u16, BTreeSet<u16>)>,
    /// The nodes on them.
    pub(crate) paths: BTreeSet<Path>,
    /// Index of the void's link.
    pub(crate) void: u32,
}

/// A state's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StateId {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) spi: u32,
}

/// Which way a state's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Out,
    In,
}

/// A security association: ESP in transport mode, AES-GCM with 8 bytes of check value.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) way: Way,
    /// Key and salt. A locked-down kernel shows zeros.
    pub(crate) key: [u8; 20],
    /// How many packets it has sealed or opened.
    pub(crate) packets: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("way", &self.way).field("packets", &self.packets).finish_non_exhaustive()
    }
}

/// What a policy picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Selector {
    pub(crate) is_out: bool,
    /// Source and destination; any if `None`.
    pub(crate) addresses: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Ports of UDP; any if 0.
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// Link; any if 0.
    pub(crate) link: u32,
    /// Value and mask.
    pub(crate) mark: (u32, u32),
}

/// What a policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Seals by the state with this index; what cannot be is not sent.
    Seal(u32),
    Block,
}

impl Action {
    pub(super) fn priority(self) -> u32 {
        match self {
            Self::Seal(_) => SEAL_PRIORITY,
            Self::Block => LOCK_PRIORITY,
        }
    }
}

/// What the kernel holds of ours, or shall hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) states: BTreeMap<StateId, State>,
    pub(crate) policies: BTreeMap<Selector, Action>,
}

/// One request to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    AddState(StateId, State),
    RemoveState(StateId),
    /// In place of one with the same selector, if there is one.
    SetPolicy(Selector, Action),
    RemovePolicy(Selector),
}

fn locks(own_port: u16, data_ports: &BTreeSet<u16>) -> Vec<Selector> {
    let any = Selector { is_out: false, addresses: None, source_port: 0, destination_port: 0, link: 0, mark: (0, 0) };
    let out = |port: &u16| Selector { is_out: true, source_port: own_port, destination_port: *port, ..any };
    let inward = Selector { destination_port: own_port, mark: (0, MARK_BIT), ..any };
    data_ports.iter().map(out).chain([inward]).collect()
}

impl Wanted {
    /// What the kernel shall hold. Without keys nothing is sealed or opened.
    fn with(&self, keys: &KeyRing) -> Held {
        let mut held = Held::default();
        let Some((own_port, data_ports)) = &self.ports else { return held };
        held.policies.extend(locks(*own_port, data_ports).into_iter().map(|selector| (selector, Action::Block)));
        for path in &self.paths {
            let Path { local, remote, data_port } = *path;
            for key in keys.all() {
                let spi = key.spi(remote, local);
                let id = StateId { source: remote, destination: local, spi };
                held.states.insert(id, State { way: Way::In, key: key.with_salt(spi), packets: 0 });
            }
            let Some(primary) = keys.primary() else { continue };
            let spi = primary.spi(local, remote);
            let id = StateId { source: local, destination: remote, spi };
            held.states.insert(id, State { way: Way::Out, key: primary.with_salt(spi), packets: 0 });
            let selector = Selector {
                is_out: true,
                addresses: Some((local, remote)),
                source_port: *own_port,
                destination_port: data_port,
                link: self.void,
                mark: (0, 0),
            };
            held.policies.insert(selector, Action::Seal(spi));
        }
        held
    }

    /// The same as long as the keys are unknown: of nodes that are known nothing is changed.
    fn without_keys(&self, found: &Held) -> Held {
        let mut held = self.with(&KeyRing::default());
        let Some((own_port, _)) = &self.ports else { return held };
        let pairs: BTreeSet<_> = self.paths.iter().map(|path| (path.local, path.remote)).collect();
        let is_known = |one, other| pairs.contains(&(one, other)) || pairs.contains(&(other, one));
        let states = found.states.iter().filter(|(id, _)| is_known(id.source, id.destination));
        held.states.extend(states.map(|(id, state)| (*id, State { packets: 0, ..state.clone() })));
        let is_known = |selector: &Selector| {
            let is_path =
                |(local, remote)| self.paths.contains(&Path { local, remote, data_port: selector.destination_port });
            selector.addresses.is_some_and(is_path) && (selector.source_port, selector.link) == (*own_port, self.void)
        };
        held.policies.extend(found.policies.iter().filter(|(selector, _)| is_known(selector)));
        held
    }
}

/// The steps from what was found to what is wanted. Nothing is lost on the way if the other nodes do likewise: a key opens
/// before anybody seals with it, and for as long as somebody may.
pub(crate) fn steps(found: &Held, wanted: &Wanted, keys: Option<&KeyRing>) -> Vec<Step> {
    let target = match keys {
        Some(keys) => wanted.with(keys),
        None => wanted.without_keys(found),
    };
    let (mut locks, mut opening, mut sealing, mut policies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, state) in &target.states {
        if found.states.get(id).is_some_and(|found| is_same(found, state)) {
            continue;
        }
        let steps = if state.way == Way::In { &mut opening } else { &mut sealing };
        // one that is wrong or worn is in the way of its successor
        steps.extend(found.states.contains_key(id).then_some(Step::RemoveState(*id)));
        steps.push(Step::AddState(*id, state.clone()));
    }
    for (selector, action) in &target.policies {
        if found.policies.get(selector) != Some(action) {
            let steps = if *action == Action::Block { &mut locks } else { &mut policies };
            steps.push(Step::SetPolicy(*selector, *action));
        }
    }
    let mut unlocking = Vec::new();
    for selector in found.policies.keys().filter(|selector| !target.policies.contains_key(*selector)) {
        let steps = if selector.addresses.is_none() { &mut unlocking } else { &mut policies };
        steps.push(Step::RemovePolicy(*selector));
    }
    let stale = found.states.keys().filter(|id| !target.states.contains_key(*id));
    let gone = stale.map(|id| Step::RemoveState(*id)).collect();
    [locks, opening, sealing, policies, gone, unlocking].concat()
}

fn is_same(found: &State, wanted: &State) -> bool {
    let is_hidden = found.key == [0; 20];
    let is_worn = wanted.way == Way::Out && found.packets >= WORN_PACKETS;
    found.way == wanted.way && (is_hidden || found.key == wanted.key) && !is_worn
}

#[cfg(test)]
mod tests;
