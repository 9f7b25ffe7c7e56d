//! The other members of one network that are there: what gossip and bulk syncs pick from.

use std::collections::BTreeMap;

use stdx::Rng;

use crate::message::Name;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    names: Vec<Name>,
    places: BTreeMap<Name, usize>,
}

impl Roster {
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Name> {
        self.places.keys()
    }

    pub(crate) fn insert(&mut self, name: Name) {
        if !self.contains(&name) {
            self.places.insert(name.clone(), self.names.len());
            self.names.push(name);
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let Some(place) = self.places.remove(name) else { return };
        self.names.swap_remove(place);
        if let Some(moved) = self.names.get(place) {
            *self.places.get_mut(moved).expect("every name has a place") = place;
        }
    }

    /// Up to `count` different names at random.
    pub(crate) fn pick(&self, count: usize, rng: &mut Rng) -> Vec<Name> {
        let mut picked: Vec<usize> = Vec::with_capacity(count);
        while picked.len() < count.min(self.names.len()) {
            // Of the names that are left, any: those picked before are stepped over.
            let mut place = rng.below((self.names.len() - picked.len()) as u64) as usize;
            let mut before = picked.clone();
            before.sort_unstable();
            for other in before {
                place += usize::from(other <= place);
            }
            picked.push(place);
        }
        picked.into_iter().map(|place| self.names[place].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_different_and_all_are_picked_sometimes() {
        let mut roster = Roster::default();
        for name in ["a", "b", "c", "d", "e", "b"] {
            roster.insert(name.into());
        }
        roster.remove("a");
        roster.remove("x");
        assert_eq!(roster.iter().map(|name| &**name).collect::<Vec<_>>(), ["b", "c", "d", "e"]);
        let rng = &mut Rng::new(1);
        let mut seen = BTreeMap::new();
        for _ in 0..4000 {
            let mut picked = roster.pick(3, rng);
            picked.sort();
            picked.dedup();
            assert_eq!(picked.len(), 3);
            for name in picked {
                *seen.entry(name).or_insert(0) += 1;
            }
        }
        assert!(seen.values().all(|times| (2800..3200).contains(times)), "{seen:?}");
        assert_eq!(roster.pick(9, rng).len(), 4);
    }
}
