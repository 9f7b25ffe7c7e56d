//! The entries of one network, with their tombstones and the sums that digests are made of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{MAX_NETWORK_BYTES, MAX_NETWORK_ENTRIES};
use crate::message::Name;

/// What an entry takes beside its key and value, roughly.
const ENTRY_BYTES: usize = 128;

/// A table's name and a key in it.
pub(crate) type Key = (Name, Name);

/// An entry as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Stored {
    pub(crate) owner: Name,
    pub(crate) time: u64,
    pub(crate) value: Arc<[u8]>,
    /// A deleted entry stands until then, so that late news of it are recognized as old.
    pub(crate) tombstone_until: Option<Duration>,
    sum: u64,
}

impl Stored {
    pub(crate) fn new(key: &Key, owner: Name, time: u64, value: Arc<[u8]>, tombstone_until: Option<Duration>) -> Self {
        let sum = sum(&[key.0.as_bytes(), key.1.as_bytes(), owner.as_bytes(), &time.to_le_bytes(), &value]);
        Self { owner, time, value, tombstone_until, sum }
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.tombstone_until.is_some()
    }
}

/// FNV-1a over the fields, each after its length. Members compare sums, so this is part of the protocol among them.
fn sum(fields: &[&[u8]]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for field in fields {
        (field.len() as u32).to_le_bytes().into_iter().chain(field.iter().copied()).for_each(&mut add);
    }
    sum
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: BTreeMap<Key, Stored>,
    bytes: usize,
}

/// The network holds as much as it may.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Full;

impl Table {
    pub(crate) fn get(&self, key: &Key) -> Option<&Stored> {
        self.entries.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Stored)> {
        self.entries.iter()
    }

    /// Sets an entry; what was there before comes back.
    pub(crate) fn set(&mut self, key: Key, entry: Stored) -> Result<Option<Stored>, Full> {
        let old = self.entries.get(&key).map_or(0, |old| cost(&key, old));
        let bytes = self.bytes - old + cost(&key, &entry);
        if bytes > MAX_NETWORK_BYTES || (old == 0 && self.entries.len() >= MAX_NETWORK_ENTRIES) {
            return Err(Full);
        }
        self.bytes = bytes;
        Ok(self.entries.insert(key, entry))
    }

    /// Takes out what `goes` says, without tombstones.
    pub(crate) fn remove_where(&mut self, mut goes: impl FnMut(&Key, &Stored) -> bool) -> Vec<(Key, Stored)> {
        let removed: Vec<_> = self.entries.extract_if(.., |key, entry| goes(key, entry)).collect();
        self.bytes -= removed.iter().map(|(key, entry)| cost(key, entry)).sum::<usize>();
        removed
    }

    /// The sum and the number of the entries up to `until`. Tombstones are not in it: they end at different moments.
    pub(crate) fn digest(&self, until: u64) -> (u64, u64) {
        let counted = self.entries.values().filter(|entry| !entry.is_deleted() && entry.time <= until);
        counted.fold((0, 0), |(sum, count), entry| (entry.sum.wrapping_add(sum), count + 1))
    }
}

fn cost(key: &Key, entry: &Stored) -> usize {
    ENTRY_BYTES + key.0.len() + key.1.len() + entry.value.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_VALUE_BYTES;

    fn entry(key: &Key, time: u64, bytes: usize) -> Stored {
        Stored::new(key, "me".into(), time, vec![1; bytes].into(), None)
    }

    fn key(number: usize) -> Key {
        ("table".into(), format!("{number}").as_str().into())
    }

    #[test]
    fn the_bytes_of_a_network_are_bounded_and_counted() {
        let mut table = Table::default();
        let fit = MAX_NETWORK_BYTES / cost(&key(1_000), &entry(&key(1_000), 1, MAX_VALUE_BYTES));
        for number in 0..fit {
            table.set(key(1_000 + number), entry(&key(1_000 + number), 1, MAX_VALUE_BYTES)).expect("room");
        }
        assert_eq!(table.set(key(1), entry(&key(1), 1, MAX_VALUE_BYTES)), Err(Full));
        // The same key again takes no more.
        table.set(key(1_000), entry(&key(1_000), 2, MAX_VALUE_BYTES)).expect("room");
        assert_eq!(table.remove_where(|_, entry| entry.time == 2).len(), 1);
        assert_eq!(table.set(key(1), entry(&key(1), 1, 10)), Ok(None));
        table.remove_where(|_, _| true);
        assert_eq!(table.bytes, 0);
    }

    #[test]
    fn digests_tell_any_difference_but_tombstones() {
        let mut table = Table::default();
        table.set(key(1), entry(&key(1), 1, 5)).expect("room");
        table.set(key(2), entry(&key(2), 2, 5)).expect("room");
        let before = table.digest(2);
        assert_eq!(before.1, 2);
        assert_eq!(table.digest(1).1, 1);
        table.set(key(3), Stored::new(&key(3), "me".into(), 1, [][..].into(), Some(Duration::ZERO))).expect("room");
        assert_eq!(table.digest(2), before);
        table.set(key(2), entry(&key(2), 2, 6)).expect("room");
        assert_ne!(table.digest(2), before);
        // Pinned: members of different versions must agree.
        assert_eq!(sum(&[b"a", b"bc"]), 0xa49d_b729_a899_2b5a);
    }
}
