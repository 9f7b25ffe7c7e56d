//! Numbers handed out one after the other: each search starts after the last one given and wraps, so that a number that
//! was given back is used again as late as possible. Used for VXLAN ids, dynamic ports and host addresses.

use std::collections::BTreeMap;

/// A space of numbers, those in use as bits.
#[derive(Clone, Debug)]
pub(super) struct NextFit {
    /// What may be reserved by name.
    low: u32,
    high: u32,
    /// What is handed out by search: a part of the above.
    first: u32,
    last: u32,
    /// Where the next search starts.
    cursor: u32,
    /// Bit n of word w: `low + 64 * w + n` is in use. Sparse: anybody may ask for a number far above all others.
    words: BTreeMap<u32, u64>,
    /// How many of those that are searched are in use.
    used: u32,
}

impl NextFit {
    /// All of `low..=high` may be reserved, `first..=last` is searched.
    pub(super) fn new((low, high): (u32, u32), (first, last): (u32, u32)) -> Self {
        let (first, last) = (first.max(low), last.min(high));
        Self { low, high, first, last, cursor: first, words: BTreeMap::new(), used: 0 }
    }

    /// How many numbers a search can still find.
    pub(super) fn free(&self) -> u64 {
        let size = (u64::from(self.last) + 1).saturating_sub(u64::from(self.first));
        size.saturating_sub(u64::from(self.used))
    }

    /// The next free number, now in use; `None`: all are.
    pub(super) fn take(&mut self) -> Option<u32> {
        if self.first > self.last {
            return None;
        }
        let found = self
            .free_between(self.cursor, self.last)
            .or_else(|| self.cursor.checked_sub(1).and_then(|end| self.free_between(self.first, end)))?;
        self.reserve(found);
        self.cursor = if found == self.last { self.first } else { found + 1 };
        Some(found)
    }

    /// Takes this very number; `false`: it is in use or outside of the space. The search is not moved.
    pub(super) fn reserve(&mut self, number: u32) -> bool {
        let Some((word, bit)) = self.place(number) else { return false };
        let bits = self.words.entry(word).or_default();
        let was_free = *bits & bit == 0;
        *bits |= bit;
        self.used += u32::from(was_free && self.is_searched(number));
        was_free
    }

    /// Gives a number back; `false`: it was not in use.
    pub(super) fn release(&mut self, number: u32) -> bool {
        let Some((word, bit)) = self.place(number) else { return false };
        let Some(bits) = self.words.get_mut(&word) else { return false };
        let was_used = *bits & bit != 0;
        *bits &= !bit;
        if *bits == 0 {
            self.words.remove(&word);
        }
        self.used -= u32::from(was_used && self.is_searched(number));
        was_used
    }

    fn is_searched(&self, number: u32) -> bool {
        (self.first..=self.last).contains(&number)
    }

    fn place(&self, number: u32) -> Option<(u32, u64)> {
        if number < self.low || number > self.high {
            return None;
        }
        let offset = number - self.low;
        Some((offset / 64, 1 << (offset % 64)))
    }

    fn free_between(&self, from: u32, to: u32) -> Option<u32> {
        let mut number = from;
        while number <= to {
            let (word, bit) = self.place(number)?;
            let Some(bits) = self.words.get(&word) else { return Some(number) };
            let above = !bits & !(bit - 1);
            if above != 0 {
                let found = self.low + word * 64 + above.trailing_zeros();
                return (found <= to).then_some(found);
            }
            number = (self.low + word * 64).checked_add(64)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::NextFit;

    #[test]
    fn numbers_ascend_wrap_and_come_back_last() {
        let mut space = NextFit::new((1, 200), (10, 13));
        assert!(space.reserve(11));
        assert!(!space.reserve(11), "in use");
        assert!(!space.reserve(201), "outside");
        assert_eq!(space.take(), Some(10));
        assert_eq!((space.take(), space.free()), (Some(12), 1));
        assert!(space.release(10));
        assert!(!space.release(10), "freed once");
        assert_eq!(space.take(), Some(13), "the freed one is used last");
        assert_eq!(space.take(), Some(10));
        assert_eq!((space.take(), space.free()), (None, 0));
        assert!(space.reserve(150));
        assert!(space.release(150) && space.release(13));
        assert_eq!(space.free(), 1, "only those count that are searched");
    }

    #[test]
    fn the_highest_number_costs_no_more_than_another() {
        let mut space = NextFit::new((1, u32::MAX), (1, u32::MAX));
        assert!(space.reserve(u32::MAX) && space.words.len() == 1);
        assert_eq!((space.take(), space.free()), (Some(1), u64::from(u32::MAX) - 2));
        assert!(space.release(u32::MAX) && space.release(1) && space.words.is_empty());
    }

    #[test]
    fn a_big_space_is_filled_to_the_last_number() {
        let mut space = NextFit::new((4096, 4096 + 999), (4096, 4096 + 999));
        let taken: Vec<_> = std::iter::from_fn(|| space.take()).collect();
        assert_eq!(taken, (4096..4096 + 1000).collect::<Vec<_>>());
        assert!(space.release(4500));
        assert_eq!((space.take(), space.take()), (Some(4500), None));
    }

    #[test]
    fn an_empty_search_range_gives_nothing() {
        let mut space = NextFit::new((1, 10), (5, 4));
        assert_eq!((space.take(), space.free()), (None, 0));
    }
}
