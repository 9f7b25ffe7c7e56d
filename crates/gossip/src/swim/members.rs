//! The list of members: found by name, picked at random, walked in a random order that is drawn anew each round.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use stdx::Rng;

use crate::message::{Alive, Liveness, Name, PushedMember};

/// How long a dead member is still gossiped to, so that it can contradict, and kept in the list.
pub(crate) const GOSSIP_TO_THE_DEAD: Duration = Duration::from_secs(30);

/// A member as this node knows it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Its last word about itself.
    pub(crate) alive: Alive,
    pub(crate) liveness: Liveness,
    /// When the liveness changed.
    pub(crate) changed: Duration,
}

impl Member {
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.liveness, Liveness::Dead | Liveness::Left)
    }

    pub(crate) fn pushed(&self) -> PushedMember {
        PushedMember { alive: self.alive.clone(), liveness: self.liveness }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Members {
    list: Vec<Member>,
    places: BTreeMap<Name, usize>,
    /// Who was last heard of at an address.
    addresses: BTreeMap<SocketAddr, Name>,
}

impl Members {
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Member> {
        self.places.get(name).map(|place| &self.list[*place])
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Member> {
        self.places.get(name).map(|place| &mut self.list[*place])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> + Clone {
        self.list.iter()
    }

    /// Notes that a member is at an address; who was there before comes back, if it is still in the list.
    pub(crate) fn moved_in(&mut self, address: SocketAddr, name: &Name) -> Option<&Member> {
        let before = self.addresses.insert(address, name.clone()).filter(|before| before != name)?;
        self.get(&before).filter(|member| member.alive.address == address)
    }

    /// The member at a place of this round's order.
    pub(crate) fn at(&self, place: usize) -> Option<&Member> {
        self.list.get(place)
    }

    /// Adds a member at a random place, so that a new one is probed as soon as any other on average.
    pub(crate) fn insert(&mut self, member: Member, rng: &mut Rng) {
        let last = self.list.len();
        let place = rng.below(last as u64 + 1) as usize;
        self.places.insert(member.alive.node.clone(), last);
        self.list.push(member);
        self.swap(place, last);
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.list.swap(one, other);
        for place in [one, other] {
            let name = &self.list[place].alive.node;
            *self.places.get_mut(name.as_ref()).expect("every member has a place") = place;
        }
    }

    /// A new round: those that have been gone for long are forgotten, the others get a new order.
    pub(crate) fn new_round(&mut self, now: Duration, rng: &mut Rng) {
        self.list.retain(|member| !member.is_gone() || now <= member.changed + GOSSIP_TO_THE_DEAD);
        rng.shuffle(&mut self.list);
        self.places = self.list.iter().enumerate().map(|(place, member)| (member.alive.node.clone(), place)).collect();
    }

    /// Up to `count` different members that `fits` says yes to, at random. In a large list of which few fit it may miss
    /// some of them, as memberlist does: the search has an end.
    pub(crate) fn pick(&self, count: usize, rng: &mut Rng, fits: impl Fn(&Member) -> bool) -> Vec<&Member> {
        let mut picked: Vec<usize> = Vec::with_capacity(count);
        if self.list.len() < 3 * count {
            let mut places: Vec<usize> = (0..self.list.len()).filter(|place| fits(&self.list[*place])).collect();
            rng.shuffle(&mut places);
            places.truncate(count);
            picked = places;
        } else {
            for _ in 0..3 * self.list.len() {
                if picked.len() == count {
                    break;
                }
                let place = rng.below(self.list.len() as u64) as usize;
                if !picked.contains(&place) && fits(&self.list[place]) {
                    picked.push(place);
                }
            }
        }
        picked.into_iter().map(|place| &self.list[place]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::VERSIONS;

    fn members(count: usize, rng: &mut Rng) -> Members {
        let mut members = Members::default();
        for number in 0..count {
            let alive = Alive {
                incarnation: 1,
                node: format!("n{number}").as_str().into(),
                address: ([10, 0, 0, 1], number as u16).into(),
                meta: [][..].into(),
                versions: VERSIONS,
            };
            members.insert(Member { alive, liveness: Liveness::Alive, changed: Duration::ZERO }, rng);
        }
        members
    }

    fn whole(members: &Members) {
        assert_eq!(members.places.len(), members.list.len());
        for (place, member) in members.list.iter().enumerate() {
            assert_eq!(members.places[&member.alive.node], place);
        }
    }

    #[test]
    fn places_stay_right_and_the_gone_are_forgotten_after_their_time() {
        let rng = &mut Rng::new(1);
        let mut members = members(50, rng);
        whole(&members);
        let gone = members.get_mut("n7").expect("a member");
        gone.liveness = Liveness::Dead;
        members.new_round(GOSSIP_TO_THE_DEAD, rng);
        assert_eq!(members.len(), 50);
        members.new_round(GOSSIP_TO_THE_DEAD + Duration::from_millis(1), rng);
        whole(&members);
        assert_eq!(members.len(), 49);
        assert!(members.get("n7").is_none());
    }

    #[test]
    fn picks_are_different_and_fit() {
        let rng = &mut Rng::new(2);
        for count in [2, 5, 100] {
            let members = members(count, rng);
            for _ in 0..20 {
                let picked = members.pick(3, rng, |member| &*member.alive.node != "n0");
                assert_eq!(picked.len(), 3.min(count - 1));
                let mut names: Vec<_> = picked.iter().map(|member| &member.alive.node).collect();
                names.sort();
                names.dedup();
                assert_eq!(names.len(), picked.len());
                assert!(names.iter().all(|name| &***name != "n0"));
            }
        }
    }
}
